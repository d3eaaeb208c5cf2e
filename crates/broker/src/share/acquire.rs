//! Which of the records that were read a member gets.
//!
//! Records that were delivered before come first, as they were delivered then. A record that nobody could process must
//! not drag others along: the more often records came back, the fewer go out together, and on its last delivery each
//! goes alone.

use super::machine::Machine;
use super::runs::Batch;
use super::terms::{Acquired, Fetched, Limits, Mode, State, Wish};

/// Deliveries after which records go out in smaller numbers, at least.
const THROTTLED_FROM_MIN: i32 = 2;

impl Limits {
    fn throttled_from(self) -> i32 {
        THROTTLED_FROM_MIN.max((self.deliveries_max + 1) / 2)
    }
}

impl Machine {
    /// Gives records of those that were read to a member.
    pub(crate) fn acquire(&mut self, wish: &Wish, fetched: &Fetched) -> Vec<Acquired> {
        let (Some((base, _)), Some((_, read))) = (fetched.batches.first(), fetched.batches.last())
        else {
            return Vec::new();
        };
        if wish.records_max <= 0 || *read < self.start {
            return Vec::new();
        }
        let room = wish.limits.locks_max - self.in_flight();
        let (most, last) = match wish.records_max.min(room) {
            most if most > 0 => (most, *read),
            // Only what came back may go out: there is no room for more.
            _ if fetched.from < self.end => (
                wish.records_max.min(self.end - fetched.from),
                (*read).min(self.end - 1),
            ),
            _ => return Vec::new(),
        };
        self.miss(fetched.from, *base);
        let first = (*base).max(self.start);
        let (mut acquired, enough) = self.acquire_again(wish, first, last, most);
        let count: i64 = acquired.iter().map(count).sum();
        if !enough && count < most && self.end <= last {
            self.acquire_new(wish, fetched, last, most - count, &mut acquired);
        }
        self.hide(wish, fetched, &mut acquired);
        self.settle();
        acquired
    }

    /// Hears that a read from `from` has found no record before `base`.
    fn miss(&mut self, from: i64, base: i64) {
        for (_, batch) in self.holding(from, base - 1) {
            for run in batch.within(from, base - 1) {
                if run.is_available() {
                    run.state = State::Missing;
                }
            }
            batch.join();
        }
        if self.end < base && from <= self.end {
            match self.batches.is_empty() {
                true => (self.start, self.end) = (base, base),
                false => self.append(base - 1, State::Missing, 0),
            }
        }
    }

    /// Gives out what came back in `first..=last`; the flag says that nothing more is to go out with it.
    fn acquire_again(
        &mut self,
        wish: &Wish,
        first: i64,
        last: i64,
        most: i64,
    ) -> (Vec<Acquired>, bool) {
        let throttled_from = wish.limits.throttled_from();
        let mut acquired = Vec::new();
        let mut total = 0;
        for (_, batch) in self.holding(first, last) {
            if total >= most {
                return (acquired, true);
            }
            let deliveries = batch
                .runs
                .iter()
                .filter(|run| run.is_available() && run.first <= last && run.last >= first);
            let throttled = deliveries
                .map(|run| run.deliveries)
                .max()
                .is_some_and(|most| most >= throttled_from);
            if throttled && total > 0 {
                return (acquired, true);
            }
            let left = match wish.mode {
                Mode::Records => most - total,
                Mode::Batches => i64::MAX,
            };
            let taken = take(batch, wish, first, last, left, &mut acquired);
            total += taken;
            if throttled && taken > 0 {
                return (acquired, true);
            }
        }
        (acquired, false)
    }

    /// Gives out records that nobody has got before, from the end to at most `last`.
    fn acquire_new(
        &mut self,
        wish: &Wish,
        fetched: &Fetched,
        last: i64,
        most: i64,
        acquired: &mut Vec<Acquired>,
    ) {
        let first = self.end;
        let mut upto = last;
        if most < last - first + 1 {
            // The batch that holds the last of them goes out as a whole.
            let wanted = first + most - 1;
            let holder = fetched
                .batches
                .iter()
                .find(|(base, end)| *base <= wanted && wanted <= *end);
            upto = holder.map_or(wanted, |(_, end)| *end).min(last);
        }
        let state = || State::Acquired {
            member: wish.member.clone(),
            until: wish.until,
        };
        if wish.mode == Mode::Records {
            self.append(upto, state(), 1);
            let given = upto.min(first + most - 1);
            for (_, batch) in self.holding(given + 1, upto) {
                for run in batch.within(given + 1, upto) {
                    run.state = State::Available;
                    run.deliveries = 0;
                }
            }
            push(acquired, first, given, 1);
            return;
        }
        let bases = fetched.batches.iter().map(|(base, _)| *base);
        for base in bases.filter(|base| first < *base && *base <= upto) {
            if base - self.end >= wish.batch_size && upto - first + 1 > wish.batch_size {
                let begin = self.end;
                self.append(base - 1, state(), 1);
                push(acquired, begin, base - 1, 1);
            }
        }
        let begin = self.end;
        self.append(upto, state(), 1);
        push(acquired, begin, upto, 1);
    }

    /// Takes back what nobody may see.
    fn hide(&mut self, wish: &Wish, fetched: &Fetched, acquired: &mut Vec<Acquired>) {
        for (first, last) in &fetched.aborted {
            for (_, batch) in self.holding(*first, *last) {
                for run in batch.within(*first, *last) {
                    let given = matches!(&run.state, State::Acquired { member, .. } if *member == wish.member);
                    if given && run.pending.is_none() {
                        run.state = State::Archived;
                    }
                }
                batch.join();
            }
            let before = std::mem::take(acquired);
            for range in before {
                if range.last < *first || range.first > *last {
                    acquired.push(range);
                    continue;
                }
                if range.first < *first {
                    let last = first - 1;
                    acquired.push(Acquired { last, ..range });
                }
                if range.last > *last {
                    let first = last + 1;
                    acquired.push(Acquired { first, ..range });
                }
            }
        }
    }
}

fn count(range: &Acquired) -> i64 {
    range.last - range.first + 1
}

fn push(acquired: &mut Vec<Acquired>, first: i64, last: i64, deliveries: i32) {
    acquired.push(Acquired {
        first,
        last,
        deliveries,
    });
}

/// Gives what is available of a batch to a member, at most `left` records; returns how many.
fn take(
    batch: &mut Batch,
    wish: &Wish,
    first: i64,
    last: i64,
    left: i64,
    acquired: &mut Vec<Acquired>,
) -> i64 {
    let deliveries_max = wish.limits.deliveries_max;
    let throttled_from = wish.limits.throttled_from();
    let size = batch.count();
    let mut taken = 0;
    let mut few: Option<i64> = None;
    let mut ranges: Vec<Acquired> = Vec::new();
    let available: Vec<(i64, i64, i32)> = batch
        .runs
        .iter()
        .filter(|run| run.is_available() && run.first <= last && run.last >= first)
        .map(|run| (run.first.max(first), run.last.min(last), run.deliveries))
        .collect();
    for (from, upto, deliveries) in available {
        let alone = deliveries_max > 2 && deliveries >= deliveries_max - 1;
        if alone && taken > 0 {
            break;
        }
        if deliveries >= throttled_from && few.is_none() {
            let halvings = u32::try_from(deliveries - throttled_from + 1).unwrap_or(u32::MAX);
            few = Some(size.checked_shr(halvings).unwrap_or(0).max(1));
        }
        let most = few.map_or(left, |few| few.min(left)) - taken;
        let most = if alone { most.min(1) } else { most };
        if most <= 0 {
            break;
        }
        let upto = upto.min(from.saturating_add(most - 1));
        for run in batch.within(from, upto) {
            run.state = State::Acquired {
                member: wish.member.clone(),
                until: wish.until,
            };
            run.deliveries += 1;
        }
        taken += upto - from + 1;
        match ranges.last_mut() {
            Some(before) if before.last + 1 == from && before.deliveries == deliveries + 1 => {
                before.last = upto;
            }
            _ => push(&mut ranges, from, upto, deliveries + 1),
        }
        if alone {
            break;
        }
    }
    batch.join();
    acquired.extend(ranges);
    taken
}
