//! What becomes of the records of one partition in one share group, as a pure state machine.
//!
//! ```text
//! start ≤ end
//!
//! start  the first record that is not done; all before it are
//! end    the next record that nobody was offered yet; of each between the two a batch tells the state
//! ```
//! A record is available, then with a member, then acknowledged or archived; or it comes back, when the member releases
//! it, is gone, or takes too long. What members say takes effect once it is durable: until then a record is neither
//! delivered nor done. The rules are Apache Kafka's.

use std::collections::BTreeMap;

use super::runs::{Batch, Run, given_up};
use super::terms::{
    Kept, Limits, Millis, Range, Refusal, Said, Snapshot, State, Ticket, UNKNOWN, Verdict,
};

/// One partition as one share group reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(super) start: i64,
    pub(super) end: i64,
    /// By their first offsets; they follow each other without a gap from `start` to `end`.
    pub(super) batches: BTreeMap<i64, Batch>,
    tickets: Ticket,
}

/// How far a member may ask to keep records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    Until(Millis),
    /// The group's settings do not allow it.
    Refused,
}

impl Machine {
    pub(crate) fn new(start: i64) -> Self {
        Self {
            start,
            end: start,
            batches: BTreeMap::new(),
            tickets: 0,
        }
    }

    /// Goes on where a machine was; what was with members then is available. `None` when nobody has read yet.
    ///
    /// The log may have lost what was not flushed: nothing is known of records behind `log_end`.
    pub(crate) fn restore(snapshot: &Snapshot, log_end: i64) -> Option<Self> {
        if snapshot.start == UNKNOWN {
            return None;
        }
        let mut machine = Self::new(snapshot.start);
        for range in &snapshot.ranges {
            let last = range.last.min(log_end - 1);
            let first = range.first.max(machine.end);
            if last < first {
                continue;
            }
            // Between what is known lie records that were with a member.
            if machine.end < first {
                machine.append(first - 1, State::Available, 0);
            }
            let state = match range.state {
                Kept::Available => State::Available,
                Kept::Acknowledged => State::Acknowledged,
                Kept::Archived => State::Archived,
            };
            machine.append(last, state, range.deliveries);
        }
        if !snapshot.ranges.is_empty() && machine.start > log_end {
            machine = Self::new(log_end);
        }
        machine.settle();
        Some(machine)
    }

    /// Adds a batch from the end to `last`.
    pub(super) fn append(&mut self, last: i64, state: State, deliveries: i32) {
        let batch = Batch::new(self.end, last, state, deliveries);
        self.batches.insert(self.end, batch);
        self.end = last + 1;
    }

    #[cfg(test)]
    pub(super) fn start(&self) -> i64 {
        self.start
    }

    /// Records from the first that is not done to the last that was delivered.
    pub(crate) fn in_flight(&self) -> i64 {
        self.end - self.start
    }

    /// Returns where to read next: the first record that came back, or the first that nobody has got.
    pub(crate) fn next_fetch(&self) -> i64 {
        let available = |batch: &Batch| {
            let run = batch.runs.iter().find(|run| run.is_available());
            run.map(|run| run.first)
        };
        self.batches
            .values()
            .find_map(available)
            .unwrap_or(self.end)
    }

    /// Says whether there is room to deliver more.
    pub(crate) fn can_acquire(&self, limits: Limits) -> bool {
        self.in_flight() < limits.locks_max || self.next_fetch() < self.end
    }

    /// Returns the batches that hold offsets of `first..=last`.
    pub(super) fn holding(
        &mut self,
        first: i64,
        last: i64,
    ) -> impl Iterator<Item = (&i64, &mut Batch)> {
        let floor = self.batches.range(..=first).next_back();
        let from = floor.map_or(first, |(key, _)| *key);
        // An empty range must begin where it ends.
        let upto = last.max(from);
        self.batches
            .range_mut(from..=upto)
            .filter(move |(key, batch)| **key <= last && batch.last >= first)
    }

    /// Hears that the log begins at `log_start`: what was before is gone.
    pub(crate) fn cut(&mut self, log_start: i64) -> bool {
        if log_start <= self.start {
            return false;
        }
        self.begin_at(log_start);
        self.settle();
        true
    }

    /// Forgets everything before `offset`.
    fn begin_at(&mut self, offset: i64) {
        self.start = offset;
        self.end = self.end.max(offset);
        while let Some(mut first) = self.batches.first_entry() {
            let batch = first.get_mut();
            if batch.last < offset {
                first.remove();
            } else if *first.key() < offset {
                let mut batch = first.remove();
                batch.trim(offset);
                self.batches.insert(offset, batch);
            } else {
                break;
            }
        }
    }

    /// Moves the start over what is done.
    pub(super) fn settle(&mut self) {
        let runs = self.batches.values().flat_map(|batch| &batch.runs);
        let done = runs.take_while(|run| run.is_done()).last();
        if let Some(last) = done.map(|run| run.last) {
            self.begin_at(last + 1);
        }
    }

    /// Hears what a member says of records. All of it is taken, or nothing.
    ///
    /// With a ticket, it takes effect when [`Machine::stored`] is told that it is durable; without one, nothing is to be
    /// stored.
    pub(crate) fn acknowledge(
        &mut self,
        member: &str,
        said: &[Said],
        renewal: Renewal,
        limits: Limits,
    ) -> Result<Option<Ticket>, Refusal> {
        self.tickets += 1;
        let ticket = self.tickets;
        let mut changed = false;
        for one in said {
            match self.take(ticket, member, one, renewal, limits) {
                Ok(any) => changed |= any,
                Err(refusal) => {
                    self.each(|run| {
                        if run.pending.as_ref().is_some_and(|(of, _)| *of == ticket) {
                            run.pending = None;
                        }
                    });
                    return Err(refusal);
                }
            }
        }
        self.join();
        Ok(changed.then_some(ticket))
    }

    fn take(
        &mut self,
        ticket: Ticket,
        member: &str,
        said: &Said,
        renewal: Renewal,
        limits: Limits,
    ) -> Result<bool, Refusal> {
        if said.last < self.start {
            return Ok(false); // the log has lost it, or it was done before
        }
        if self.batches.is_empty() {
            return Err(Refusal::RecordState);
        }
        if said.last >= self.end {
            return Err(Refusal::Past);
        }
        // One verdict for each record cuts the runs there.
        let mut changed = false;
        for (first, last, verdict) in stretches(said, self.start)? {
            for (_, batch) in self.holding(first, last) {
                for run in batch.within(first, last) {
                    changed |= settle_one(run, ticket, member, verdict, renewal, limits)?;
                }
            }
        }
        Ok(changed)
    }

    fn each(&mut self, change: impl FnMut(&mut Run)) {
        let batches = self.batches.values_mut();
        batches.flat_map(|batch| &mut batch.runs).for_each(change);
    }

    fn join(&mut self) {
        self.batches.values_mut().for_each(Batch::join);
    }

    /// Hears whether what was said under a ticket is durable, and says whether something has changed.
    pub(crate) fn stored(
        &mut self,
        ticket: Ticket,
        durable: bool,
        now: Millis,
        limits: Limits,
    ) -> bool {
        let mut changed = false;
        self.each(|run| {
            if let Some((_, next)) = run.pending.take_if(|(of, _)| *of == ticket) {
                changed = true;
                match &run.state {
                    _ if durable => run.state = next,
                    State::Acquired { until, .. } if *until <= now => {
                        run.give_up(limits.deliveries_max);
                    }
                    _ => (),
                }
            }
        });
        self.join();
        self.settle();
        changed
    }

    /// Takes back what a member has, because it is gone; says whether it had something.
    pub(crate) fn release(&mut self, member: &str, limits: Limits) -> bool {
        self.give_up(limits, |holder, _| holder == member)
    }

    /// Lets time pass: takes back what members have for too long, and says whether there was something.
    pub(crate) fn tick(&mut self, now: Millis, limits: Limits) -> bool {
        self.give_up(limits, |_, until| until <= now)
    }

    fn give_up(&mut self, limits: Limits, which: impl Fn(&str, Millis) -> bool) -> bool {
        let mut changed = false;
        self.each(|run| {
            if let State::Acquired { member, until } = &run.state
                && run.pending.is_none()
                && which(member, *until)
            {
                run.give_up(limits.deliveries_max);
                changed = true;
            }
        });
        self.join();
        self.settle();
        changed
    }

    /// The next moment at which [`Machine::tick`] has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Millis> {
        let runs = self.batches.values().flat_map(|batch| &batch.runs);
        let untils = runs.filter_map(|run| match &run.state {
            State::Acquired { until, .. } if run.pending.is_none() => Some(*until),
            _ => None,
        });
        untils.min()
    }

    /// Returns what has to outlive the process, as it is when all that is under way has become durable.
    ///
    /// A record that is with a member is kept as it was before: if we stop now, that delivery is void.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut ranges: Vec<Range> = Vec::new();
        let mut done = 0;
        for run in self.batches.values().flat_map(|batch| &batch.runs) {
            let state = run.pending.as_ref().map_or(&run.state, |(_, next)| next);
            let (state, deliveries) = match state {
                State::Available => (Kept::Available, run.deliveries),
                State::Acquired { .. } => (Kept::Available, run.deliveries - 1),
                State::Acknowledged => (Kept::Acknowledged, run.deliveries),
                State::Archived | State::Missing => (Kept::Archived, run.deliveries),
            };
            if state != Kept::Available {
                done += run.count();
            } else if deliveries <= 0 {
                continue; // as if nobody had ever got it
            }
            match ranges.last_mut() {
                Some(before)
                    if before.last + 1 == run.first
                        && (before.state, before.deliveries) == (state, deliveries) =>
                {
                    before.last = run.last;
                }
                _ => ranges.push(Range {
                    first: run.first,
                    last: run.last,
                    state,
                    deliveries,
                }),
            }
        }
        Snapshot {
            start: self.start,
            done: i32::try_from(done).unwrap_or(i32::MAX),
            ranges,
        }
    }
}

/// Joins neighbours of which the same is said, from `start` on.
fn stretches(said: &Said, start: i64) -> Result<Vec<(i64, i64, Verdict)>, Refusal> {
    let first = said.first.max(start);
    if let [all] = said.verdicts.as_slice() {
        return Ok(vec![(first, said.last, *all)]);
    }
    let mut stretches: Vec<(i64, i64, Verdict)> = Vec::new();
    let mut offset = first;
    while offset <= said.last {
        let verdict = said.of(offset).ok_or(Refusal::Past)?;
        match stretches.last_mut() {
            Some((_, last, before)) if *before == verdict => *last = offset,
            _ => stretches.push((offset, offset, verdict)),
        }
        offset += 1;
    }
    Ok(stretches)
}

/// Notes what a member says of neighbouring records, and says whether it has to be stored.
fn settle_one(
    run: &mut Run,
    ticket: Ticket,
    member: &str,
    verdict: Verdict,
    renewal: Renewal,
    limits: Limits,
) -> Result<bool, Refusal> {
    let State::Acquired {
        member: holder,
        until,
    } = &mut run.state
    else {
        return match run.state {
            State::Missing => Ok(false),
            _ => Err(Refusal::RecordState),
        };
    };
    if **holder != *member || run.pending.is_some() {
        return Err(Refusal::RecordState);
    }
    let next = match verdict {
        Verdict::Renew => match renewal {
            Renewal::Refused => return Err(Refusal::RecordState),
            Renewal::Until(later) => {
                *until = later;
                return Ok(false);
            }
        },
        Verdict::Accept => State::Acknowledged,
        Verdict::Release => given_up(run.deliveries, limits.deliveries_max),
        Verdict::Gap | Verdict::Reject => State::Archived,
    };
    run.pending = Some((ticket, next));
    Ok(true)
}
