//! What stays of a batch.

use std::collections::{HashMap, HashSet};

use kafka::record::{self, Batch, Header, Marker, Record, Records, rewrite};

use super::keys::Keys;
use crate::aborted::Aborted;
use crate::config::Levels;
use crate::producer::EndOfTransaction;

/// What must be kept of a producer that is still known: else its next batch could not be judged after a
/// restart without a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) epoch: i16,
    /// Offset of its last record, if it wrote any.
    pub(crate) offset: Option<i64>,
}

/// Follows transactions through the log: which batches were aborted, and which markers have nothing left
/// that they could decide about.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// Those to come, the one that begins last first.
    aborted: Vec<Aborted>,
    /// By producer, with whether a batch of it was met.
    ongoing_aborted: HashMap<i64, (Aborted, bool)>,
    ongoing_committed: HashSet<i64>,
    /// Base offset of the first segment that is passed over, whose batches are not met.
    unmet_from: Option<i64>,
    /// Aborted ones of which something was met, for the index of the segment that has the marker.
    pub(super) met: Vec<Aborted>,
}

impl Transactions {
    /// Begins at `from`: what ended before is no longer of interest. Of segments from `unmet_from` on some
    /// are passed over.
    pub(super) fn new(
        mut aborted: Vec<Aborted>,
        from: i64,
        unmet_from: Option<i64>,
    ) -> Transactions {
        aborted.retain(|one| one.last_offset >= from);
        aborted.sort_unstable_by_key(|one| std::cmp::Reverse(one.first_offset));
        Transactions {
            aborted,
            unmet_from,
            ..Transactions::default()
        }
    }

    /// Looks at the next batch, and returns whether its records count for nothing.
    pub(super) fn meet(&mut self, batch: &Batch<'_>) -> bool {
        let base_offset = batch.base_offset();
        while let Some(next) = self
            .aborted
            .pop_if(|next| next.first_offset <= batch.last_offset())
        {
            // Markers can be missing, so the index alone tells where a transaction ended.
            let known = self.ongoing_aborted.get(&next.producer_id);
            let open = known.is_some_and(|(known, _)| known.last_offset >= base_offset);
            if next.last_offset >= base_offset && !open {
                self.ongoing_aborted.insert(next.producer_id, (next, false));
            }
        }
        let producer_id = batch.producer_id();
        let ongoing = self.ongoing_aborted.get(&producer_id);
        if ongoing.is_some_and(|(aborted, _)| aborted.last_offset < base_offset) {
            self.ongoing_aborted.remove(&producer_id);
        }
        if batch.control() {
            // It may decide about records that are passed over.
            let unmet = self.unmet_from.is_some_and(|from| from <= base_offset);
            return match EndOfTransaction::read(batch).map(|end| end.marker) {
                Some(Marker::Abort) => match self.ongoing_aborted.remove(&producer_id) {
                    Some((aborted, met)) if met || unmet => {
                        self.met.push(aborted);
                        false
                    }
                    _ => !unmet,
                },
                Some(Marker::Commit) => !self.ongoing_committed.remove(&producer_id) && !unmet,
                // One that an earlier pass has emptied.
                None if batch.record_count() == 0 => true,
                None => false,
            };
        }
        if !batch.transactional() {
            return false;
        }
        match self.ongoing_aborted.get_mut(&producer_id) {
            Some((_, met)) => {
                *met = true;
                true
            }
            None => {
                self.ongoing_committed.insert(producer_id);
                false
            }
        }
    }
}

/// What becomes of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays byte for byte.
    Whole,
    /// It stays in this form, without so many of its records.
    Rewritten(Vec<u8>, u64),
    /// It goes.
    Gone,
}

/// Decides about one batch after another, in the order of the log.
pub(super) struct Filter<'a> {
    pub(super) keys: &'a Keys,
    /// What the map was built from ends here; later records stay.
    pub(super) end: i64,
    /// The batch that ends here stays, if only empty: it says how far the log had come.
    pub(super) bound: i64,
    pub(super) now: i64,
    pub(super) tombstone_ms: i64,
    /// Something before may hold what a tombstone has deleted.
    pub(super) keep_tombstones: bool,
    pub(super) producers: &'a HashMap<i64, Last>,
    pub(super) transactions: Transactions,
    pub(super) levels: Levels,
    pub(super) inflated_max: usize,
}

impl Filter<'_> {
    /// Decides about the next batch.
    pub(super) fn judge(&mut self, batch: &Batch<'_>) -> Fate {
        let countless = self.transactions.meet(batch);
        let horizon_passed = self.passed(batch);
        // A marker that decides about nothing stays like a tombstone, for readers on their way.
        let dropped = countless && (!batch.control() || horizon_passed);
        let kept = match dropped {
            true => Ok(Kept::default()),
            false => self.kept(batch, horizon_passed),
        };
        // What cannot be read was stored unread, by a topic that was not compacted then.
        let Ok(kept) = kept else {
            return Fate::Whole;
        };
        let count = batch.record_count().max(0) as u64;
        if kept.count == 0 {
            let stays = self.last_of_producer(batch) || batch.next_offset() == self.bound;
            return match (stays, count) {
                (true, 0) => Fate::Whole,
                (true, _) => Fate::Rewritten(rewrite::none(batch), count),
                (false, _) => Fate::Gone,
            };
        }
        let marked = kept.tombstones || (countless && batch.control());
        let horizon = (marked && batch.delete_horizon().is_none())
            .then(|| self.now.saturating_add(self.tombstone_ms));
        if kept.count == count && horizon.is_none() {
            return Fate::Whole;
        }
        self.rewrite(batch, &kept.flags, horizon)
            .map_or(Fate::Whole, |bytes| {
                Fate::Rewritten(bytes, count - kept.count)
            })
    }

    fn passed(&self, batch: &Header<'_>) -> bool {
        let horizon = batch.delete_horizon();
        !self.keep_tombstones && horizon.is_some_and(|horizon| horizon <= self.now)
    }

    fn kept(&self, batch: &Batch<'_>, horizon_passed: bool) -> Result<Kept, record::Error> {
        let records = Records::read(batch, self.inflated_max)?;
        let mut kept = Kept::default();
        for record in &records {
            let record = record?;
            let stays = batch.control() || self.stays(&record, horizon_passed);
            kept.flags.push(stays);
            if stays {
                kept.count += 1;
                kept.tombstones |= record.value.is_none() && !batch.control();
            }
        }
        Ok(kept)
    }

    fn stays(&self, record: &Record<'_>, horizon_passed: bool) -> bool {
        if record.offset >= self.end {
            return true;
        }
        let Some(key) = record.key else {
            return false; // nothing can ever supersede it
        };
        let latest = self
            .keys
            .get(key)
            .is_none_or(|latest| record.offset >= latest);
        latest && (record.value.is_some() || !horizon_passed)
    }

    fn last_of_producer(&self, batch: &Header<'_>) -> bool {
        let last = self.producers.get(&batch.producer_id());
        batch.has_producer()
            && last.is_some_and(|last| match last.offset {
                Some(offset) => batch.last_offset() == offset,
                // Its last marker has the epoch that fences its older instances.
                None => batch.control() && batch.producer_epoch() == last.epoch,
            })
    }

    fn rewrite(
        &self,
        batch: &Batch<'_>,
        keep: &[bool],
        horizon: Option<i64>,
    ) -> Result<Vec<u8>, record::Error> {
        let records = Records::read(batch, self.inflated_max)?;
        let codec = self.levels.of(batch.compression()?);
        rewrite::some(batch, &records, keep, horizon, codec)
    }
}

/// Which records of a batch stay.
#[derive(Debug, Default)]
struct Kept {
    flags: Vec<bool>,
    count: u64,
    tombstones: bool,
}

#[cfg(test)]
mod tests {
    use kafka::compress::Compression;
    use kafka::record::{BatchBuilder, NewRecord, Producer, place};

    use super::*;

    const NOW: i64 = 10_000;
    const TOMBSTONE_MS: i64 = 500;

    /// A batch of one-letter keys and their values; `-` is a tombstone.
    fn batch(base_offset: i64, producer: Option<i64>, transactional: bool, pairs: &str) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::Zstd);
        if let Some(id) = producer {
            builder = builder.producer(Producer {
                id,
                epoch: 0,
                base_sequence: 0,
            });
        }
        if transactional {
            builder = builder.transactional();
        }
        for pair in pairs.split(' ') {
            let (key, value) = pair.split_once('=').expect("key=value");
            builder.push(NewRecord {
                timestamp: 77,
                key: (!key.is_empty()).then_some(key.as_bytes()),
                value: (value != "-").then_some(value.as_bytes()),
                headers: &[],
            });
        }
        placed(builder.build().to_vec(), base_offset)
    }

    fn placed(mut bytes: Vec<u8>, base_offset: i64) -> Vec<u8> {
        place(&mut bytes, base_offset, 0).expect("a batch");
        bytes
    }

    struct Case {
        keys: Vec<(&'static str, i64)>,
        end: i64,
        bound: i64,
        now: i64,
        keep_tombstones: bool,
        producers: HashMap<i64, Last>,
        aborted: Vec<Aborted>,
        unmet_from: Option<i64>,
    }

    impl Default for Case {
        fn default() -> Case {
            Case {
                keys: Vec::new(),
                end: i64::MAX,
                bound: -1,
                now: NOW,
                keep_tombstones: false,
                producers: HashMap::new(),
                aborted: Vec::new(),
                unmet_from: None,
            }
        }
    }

    impl Case {
        /// Tells what becomes of the batches: `whole`, `gone`, or what is left, and returns their bytes.
        fn run(&self, batches: &[Vec<u8>]) -> (Vec<String>, Vec<Vec<u8>>) {
            let mut keys = Keys::new(100);
            for (key, offset) in &self.keys {
                keys.put(key.as_bytes(), *offset);
            }
            let mut filter = Filter {
                keys: &keys,
                end: self.end,
                bound: self.bound,
                now: self.now,
                tombstone_ms: TOMBSTONE_MS,
                keep_tombstones: self.keep_tombstones,
                producers: &self.producers,
                transactions: Transactions::new(self.aborted.clone(), 0, self.unmet_from),
                levels: Levels::default(),
                inflated_max: 10_000,
            };
            let mut left = Vec::new();
            let told = batches.iter().map(|bytes| {
                let (batch, _) = Batch::split_first(bytes).expect("whole");
                match filter.judge(&batch) {
                    Fate::Whole => {
                        left.push(bytes.clone());
                        "whole".to_owned()
                    }
                    Fate::Gone => "gone".to_owned(),
                    Fate::Rewritten(bytes, _) => {
                        let told = told(&bytes);
                        left.push(bytes);
                        told
                    }
                }
            });
            (told.collect(), left)
        }

        #[track_caller]
        fn check(&self, batches: &[Vec<u8>], expected: &[&str]) -> Vec<Vec<u8>> {
            let (told, left) = self.run(batches);
            assert_eq!(told, expected);
            left
        }
    }

    fn told(bytes: &[u8]) -> String {
        let (batch, _) = Batch::split_first(bytes).expect("whole");
        batch.verify().expect("a good checksum");
        let records = Records::read(&batch, 10_000).expect("inflates");
        let records: Vec<String> = records
            .iter()
            .map(|record| {
                let record = record.expect("readable");
                let key = String::from_utf8_lossy(record.key.unwrap_or_default());
                format!("{}:{key}", record.offset)
            })
            .collect();
        let horizon = batch
            .delete_horizon()
            .map_or(String::new(), |at| format!(" until {at}"));
        format!("[{}]{horizon}", records.join(" "))
    }

    #[test]
    fn only_the_latest_of_each_key_stays() {
        let case = Case {
            keys: vec![("a", 3), ("b", 1), ("c", 9)],
            ..Case::default()
        };
        case.check(
            &[
                batch(0, None, false, "a=1 b=2"),
                batch(2, None, false, "c=1"),
                batch(3, None, false, "a=2 d=1"),
                batch(5, None, false, "=no"),
            ],
            &["[1:b]", "gone", "whole", "gone"],
        );
    }

    #[test]
    fn records_behind_the_map_stay() {
        let case = Case {
            keys: vec![("a", 1)],
            end: 2,
            ..Case::default()
        };
        case.check(
            &[batch(0, None, false, "a=1 a=2 a=3 =x")],
            &["[1:a 2:a 3:]"],
        );
    }

    #[test]
    fn a_tombstone_stays_for_a_while() {
        let keys = || vec![("a", 1)];
        let case = Case {
            keys: keys(),
            ..Case::default()
        };
        let bytes = [batch(0, None, false, "a=1 a=- b=2")];
        let left = case.check(&bytes, &["[1:a 2:b] until 10500"]);
        let left = case.check(&left, &["whole"]);
        let later = Case {
            keys: keys(),
            now: NOW + TOMBSTONE_MS,
            ..Case::default()
        };
        later.check(&left, &["[2:b] until 10500"]);
        let damaged = Case {
            keep_tombstones: true,
            ..later
        };
        damaged.check(&left, &["whole"]);
    }

    #[test]
    fn the_last_batch_of_a_producer_and_of_the_log_stay_empty() {
        let last = |offset| Last {
            epoch: 0,
            offset: Some(offset),
        };
        let case = Case {
            keys: vec![("a", 9)],
            bound: 4,
            producers: HashMap::from([(7, last(1)), (8, last(20))]),
            ..Case::default()
        };
        let bytes = [
            batch(0, Some(7), false, "a=1 a=2"),
            batch(2, Some(8), false, "a=1"),
            batch(3, None, false, "a=1"),
        ];
        let left = case.check(&bytes, &["[]", "gone", "[]"]);
        case.check(&left, &["whole", "whole"]);
    }

    #[test]
    fn what_cannot_be_read_stays() {
        let mut bytes = batch(0, None, false, "a=1");
        let at = bytes.len() - 3;
        bytes.truncate(at);
        let length = (at - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let case = Case {
            keys: vec![("a", 9)],
            ..Case::default()
        };
        case.check(&[bytes], &["whole"]);
    }

    #[test]
    fn aborted_records_go_and_markers_after_them() {
        let aborted = Aborted {
            producer_id: 7,
            first_offset: 0,
            last_offset: 3,
            stable_offset: 0,
        };
        let case = Case {
            aborted: vec![aborted],
            ..Case::default()
        };
        let bytes = [
            batch(0, Some(7), true, "a=1"),
            batch(1, Some(8), true, "b=1"),
            batch(2, Some(7), true, "a=2"),
            placed(Marker::Abort.batch(7, 0, 0, 1).to_vec(), 3),
            placed(Marker::Commit.batch(8, 0, 0, 1).to_vec(), 4),
            batch(5, Some(7), true, "a=3"),
        ];
        // The marker stays for as long as a reader may have seen what it aborts.
        let left = case.check(
            &bytes,
            &["gone", "whole", "gone", "whole", "whole", "whole"],
        );
        let left = case.check(
            &left,
            &["whole", "[3:\0\0\0\0] until 10500", "whole", "whole"],
        );
        let later = Case {
            now: NOW + TOMBSTONE_MS,
            aborted: vec![aborted],
            ..Case::default()
        };
        later.check(&left, &["whole", "gone", "whole", "whole"]);
    }

    fn aborted(producer_id: i64, first_offset: i64, last_offset: i64) -> Aborted {
        Aborted {
            producer_id,
            first_offset,
            last_offset,
            stable_offset: first_offset,
        }
    }

    #[test]
    fn a_transaction_whose_marker_is_not_met_has_ended_all_the_same() {
        let case = Case {
            aborted: vec![aborted(7, 0, 3), aborted(7, 6, 8)],
            unmet_from: Some(2),
            ..Case::default()
        };
        case.check(
            &[
                batch(0, Some(7), true, "a=1"),
                batch(4, Some(7), true, "a=2"),
                placed(Marker::Commit.batch(7, 0, 0, 1).to_vec(), 5),
                batch(6, Some(7), true, "a=3"),
                batch(10, Some(7), true, "a=4"),
            ],
            &["gone", "whole", "whole", "gone", "whole"],
        );
        // Nor does one begin again that ended before the first batch.
        case.check(&[batch(10, Some(7), true, "a=4")], &["whole"]);
    }

    #[test]
    fn markers_stay_that_may_decide_about_records_which_are_passed_over() {
        let bytes = [
            placed(Marker::Abort.batch(7, 0, 0, 1).to_vec(), 3),
            placed(Marker::Commit.batch(8, 0, 0, 1).to_vec(), 4),
        ];
        let mut transactions = Transactions::new(vec![aborted(7, 1, 3)], 0, Some(0));
        for bytes in &bytes {
            let (batch, _) = Batch::split_first(bytes).expect("whole");
            assert!(!transactions.meet(&batch));
        }
        assert_eq!(transactions.met, [aborted(7, 1, 3)]);
    }

    #[test]
    fn a_marker_that_fences_stays_empty() {
        let last = Last {
            epoch: 3,
            offset: None,
        };
        let case = Case {
            now: NOW + TOMBSTONE_MS,
            producers: HashMap::from([(7, last)]),
            ..Case::default()
        };
        let bytes = [placed(Marker::Commit.batch(7, 3, 0, 1).to_vec(), 3)];
        let left = case.check(&bytes, &["[3:\0\0\0\u{1}] until 11000"]);
        let later = Case {
            now: NOW + 2 * TOMBSTONE_MS,
            producers: HashMap::from([(7, last)]),
            ..Case::default()
        };
        let left = later.check(&left, &["[]"]);
        later.check(&left, &["whole"]);
    }
}
