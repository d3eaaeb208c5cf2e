//! Whatever happens, in whatever order: every record is delivered until it is done, and never after.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::machine::{Machine, Renewal};
use super::terms::{Acquired, Fetched, Kept, Limits, Mode, Said, Ticket, Verdict, Wish};

const MEMBERS: [&str; 3] = ["a", "b", "c"];
const LOCK: i64 = 10;
const LIMITS: Limits = Limits {
    deliveries_max: 4,
    locks_max: 12,
};

/// A record as a naive model has it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    Free,
    With { member: usize, until: i64 },
    Done,
}

#[derive(Debug, Clone)]
struct Naive {
    state: Record,
    deliveries: i32,
}

#[derive(Debug, Clone)]
enum Step {
    Fetch {
        member: usize,
        records: i64,
        strict: bool,
    },
    Say {
        member: usize,
        /// Which of what the member has, and how much of it.
        from: usize,
        count: usize,
        verdicts: Vec<u8>,
        durable: bool,
    },
    Release {
        member: usize,
    },
    Wait {
        millis: i64,
    },
    Restart,
    Cut {
        by: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..MEMBERS.len();
    prop_oneof![
        4 => (member.clone(), 1..8i64, any::<bool>())
            .prop_map(|(member, records, strict)| Step::Fetch { member, records, strict }),
        4 => (member.clone(), 0..6usize, 1..6usize, prop::collection::vec(1..5u8, 1..6), prop::bool::weighted(0.8))
            .prop_map(|(member, from, count, verdicts, durable)| Step::Say { member, from, count, verdicts, durable }),
        1 => member.prop_map(|member| Step::Release { member }),
        1 => (1..8i64).prop_map(|millis| Step::Wait { millis }),
        1 => Just(Step::Restart),
        1 => (1..4i64).prop_map(|by| Step::Cut { by }),
    ]
}

struct World {
    machine: Machine,
    log: Vec<(i64, i64)>,
    log_start: i64,
    records: BTreeMap<i64, Naive>,
    now: i64,
}

impl World {
    fn new(sizes: &[(i64, bool)]) -> Self {
        let mut log = Vec::new();
        let mut next = 0;
        for (size, there) in sizes {
            if *there {
                log.push((next, next + size - 1));
            }
            next += size;
        }
        let offsets = log.iter().flat_map(|(first, last)| *first..=*last);
        let fresh = Naive {
            state: Record::Free,
            deliveries: 0,
        };
        let records = offsets.map(|offset| (offset, fresh.clone())).collect();
        Self {
            machine: Machine::new(0),
            log,
            log_start: 0,
            records,
            now: 0,
        }
    }

    fn end(&self) -> i64 {
        self.log.last().map_or(0, |(_, last)| last + 1)
    }

    fn give_up(&mut self, which: impl Fn(usize, i64) -> bool) {
        for record in self.records.values_mut() {
            if let Record::With { member, until } = record.state
                && which(member, until)
            {
                record.state = match record.deliveries >= LIMITS.deliveries_max {
                    true => Record::Done,
                    false => Record::Free,
                };
            }
        }
    }

    fn fetch(&mut self, member: usize, records: i64, strict: bool) -> usize {
        self.machine.cut(self.log_start);
        if !self.machine.can_acquire(LIMITS) {
            return 0;
        }
        let from = self.machine.next_fetch();
        let wish = Wish {
            member: Arc::from(MEMBERS[member]),
            mode: if strict { Mode::Records } else { Mode::Batches },
            batch_size: 3,
            records_max: records,
            until: self.now + LOCK,
            limits: LIMITS,
        };
        let log_start = self.log_start;
        let readable = self
            .log
            .iter()
            .filter(|(_, last)| *last >= from.max(log_start));
        let fetched = Fetched {
            from,
            batches: readable.take(3).copied().collect(),
            aborted: Vec::new(),
        };
        let acquired = self.machine.acquire(&wish, &fetched);
        let mut count = 0;
        for Acquired {
            first,
            last,
            deliveries,
        } in acquired
        {
            for offset in first..=last {
                count += 1;
                let Some(record) = self.records.get_mut(&offset) else {
                    continue; // the log holds none, and the client says so
                };
                assert_eq!(record.state, Record::Free, "{offset} was free");
                record.deliveries += 1;
                assert_eq!(record.deliveries, deliveries, "of {offset}");
                record.state = Record::With {
                    member,
                    until: wish.until,
                };
            }
        }
        if strict {
            assert!(count <= records, "no more than wanted");
        }
        count as usize
    }

    fn say(&mut self, member: usize, from: usize, count: usize, verdicts: &[u8], durable: bool) {
        let mine = |(offset, record): (&i64, &Naive)| {
            let is_mine =
                matches!(record.state, Record::With { member: holder, .. } if holder == member);
            is_mine.then_some(*offset)
        };
        let mine: Vec<i64> = self.records.iter().filter_map(mine).collect();
        let chosen: Vec<i64> = mine.into_iter().skip(from).take(count).collect();
        let said: Vec<Said> = chosen
            .iter()
            .enumerate()
            .map(|(at, offset)| Said {
                first: *offset,
                last: *offset,
                verdicts: vec![verdict(verdicts[at % verdicts.len()])],
            })
            .collect();
        let until = self.now + 2 * LOCK;
        let renewal = Renewal::Until(until);
        let outcome = self
            .machine
            .acknowledge(MEMBERS[member], &said, renewal, LIMITS);
        let ticket: Option<Ticket> = outcome.expect("it has them");
        if let Some(ticket) = ticket {
            self.machine.stored(ticket, durable, self.now, LIMITS);
        }
        for said in said {
            let record = self.records.get_mut(&said.first).expect("it is there");
            match said.verdicts[0] {
                Verdict::Renew => record.state = Record::With { member, until },
                _ if !durable => (),
                Verdict::Release if record.deliveries < LIMITS.deliveries_max => {
                    record.state = Record::Free;
                }
                _ => record.state = Record::Done,
            }
        }
    }

    fn restart(&mut self) {
        let snapshot = self.machine.snapshot();
        let last = snapshot.ranges.iter().map(|range| range.last).max();
        self.machine = Machine::restore(&snapshot, self.end()).expect("it has begun");
        for (offset, record) in &mut self.records {
            if let Record::With { .. } = record.state {
                record.state = Record::Free;
                record.deliveries -= 1;
            }
            let known = last.is_some_and(|last| *offset <= last);
            assert!(known || record.state != Record::Done || *offset < snapshot.start);
        }
        let done = snapshot
            .ranges
            .iter()
            .filter(|range| range.state != Kept::Available);
        for offset in done.flat_map(|range| range.first..=range.last) {
            if let Some(record) = self.records.get(&offset) {
                assert_eq!(record.state, Record::Done, "{offset}");
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Fetch {
                member,
                records,
                strict,
            } => _ = self.fetch(member, records, strict),
            Step::Say {
                member,
                from,
                count,
                verdicts,
                durable,
            } => {
                self.say(member, from, count, &verdicts, durable);
            }
            Step::Release { member } => {
                self.machine.release(MEMBERS[member], LIMITS);
                self.give_up(|holder, _| holder == member);
            }
            Step::Wait { millis } => {
                self.now += millis;
                let now = self.now;
                assert!(self.machine.wakes_at().is_none_or(|at| at > now - millis));
                self.machine.tick(now, LIMITS);
                self.give_up(|_, until| until <= now);
            }
            Step::Restart => self.restart(),
            Step::Cut { by } => {
                self.log_start = (self.log_start + by).min(self.end());
                let start = self.log_start;
                self.records.retain(|offset, _| *offset >= start);
                self.machine.cut(start);
            }
        }
        self.check();
    }

    fn check(&self) {
        let start = self.machine.start();
        for (offset, record) in self.records.range(..start) {
            assert_eq!(
                record.state,
                Record::Done,
                "{offset} is before the start {start}"
            );
        }
        let next = self.machine.next_fetch();
        let free = self.records.range(..next);
        for (offset, record) in free {
            assert_ne!(
                record.state,
                Record::Free,
                "{offset} is before the next, {next}"
            );
        }
        assert!(start <= next);
        // A batch that holds the last wanted record goes out as a whole.
        assert!(self.machine.in_flight() <= LIMITS.locks_max + 16);
    }
}

fn verdict(number: u8) -> Verdict {
    match number {
        1 => Verdict::Accept,
        2 => Verdict::Release,
        3 => Verdict::Reject,
        _ => Verdict::Renew,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_record_is_delivered_until_it_is_done(
        sizes in prop::collection::vec((1..5i64, prop::bool::weighted(0.85)), 1..16),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(&sizes);
        for step in steps {
            world.take(step);
        }
        // From here on everything is processed at once, and nothing may be left over.
        for member in 0..MEMBERS.len() {
            world.take(Step::Release { member });
        }
        let mut idle = 0;
        while idle < 3 {
            let got = world.fetch(0, 5, false);
            let all = usize::MAX;
            world.say(0, 0, all, &[1], true);
            // What the log does not hold is reported as a gap.
            let end = world.machine.next_fetch();
            let gaps: Vec<i64> = (world.machine.start()..end)
                .filter(|offset| !world.records.contains_key(offset))
                .collect();
            for offset in gaps {
                let said = Said { first: offset, last: offset, verdicts: vec![Verdict::Gap] };
                let outcome = world.machine.acknowledge(MEMBERS[0], &[said], Renewal::Refused, LIMITS);
                if let Ok(Some(ticket)) = outcome {
                    world.machine.stored(ticket, true, world.now, LIMITS);
                }
            }
            world.check();
            idle = if got == 0 { idle + 1 } else { 0 };
        }
        prop_assert!(world.records.values().all(|record| record.state == Record::Done), "{:?}", world.records);
    }
}
