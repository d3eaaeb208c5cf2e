//! What a partition remembers of its idempotent and transactional producers.
//!
//! A pure state machine: [`Producers::check`] judges a batch before it is written, then
//! [`Producers::apply`] notes it with its offset. A restart replays the batches in the log through
//! `apply`, so both lead to the same state.

use std::collections::{BTreeSet, HashMap, VecDeque};

use kafka::record::{Header, Marker, add_sequence};

pub(crate) mod snapshot;

/// Batches of a producer that are told apart from new ones when they come again: a client may have
/// five requests in flight.
pub const BATCHES_KEPT: usize = 5;
/// Producers that one partition remembers; beyond, those that were idle longest are forgotten.
pub const PRODUCERS_MAX: usize = 100_000;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A client's Produce request: sequence numbers are checked.
    Client,
    /// The broker itself, for its internal topics and for transaction markers.
    Coordinator,
}

/// Why a producer's batch is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Batches before this one are missing.
    #[error("producer {producer_id} sent sequence {sequence}, expected {expected}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// First sequence number of the batch.
        sequence: i32,
        /// The one that is due.
        expected: i32,
    },
    /// A newer instance of the producer has taken over.
    #[error("producer {producer_id} has epoch {epoch}, the current one is {current}")]
    InvalidEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        epoch: i16,
        /// Epoch that is known.
        current: i16,
    },
    /// While a transaction is open, all that its producer writes belongs to it.
    #[error("producer {producer_id} has an open transaction and wrote outside of it")]
    OutsideTransaction {
        /// The producer.
        producer_id: i64,
    },
    /// A newer coordinator has written a marker before.
    #[error("a coordinator of epoch {epoch} ended a transaction, the current one is {current}")]
    CoordinatorFenced {
        /// Epoch in the marker.
        epoch: i32,
        /// Epoch that is known.
        current: i32,
    },
}

/// What is to be done with a batch that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: append it.
    New,
    /// It was appended before: answer with what it got then.
    Duplicate(Kept),
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Distance from its first offset to its last.
    pub offset_delta: i32,
    /// Its latest timestamp, in ms since 1970.
    pub timestamp: i64,
}

impl Kept {
    /// Returns the offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    /// Returns the sequence number of the first record.
    pub fn base_sequence(&self) -> i32 {
        // Going back by n is going forward by 2^31 - n in the ring of sequence numbers.
        add_sequence(
            add_sequence(self.last_sequence, i32::MAX - self.offset_delta),
            1,
        )
    }
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    /// Its current epoch.
    pub epoch: i16,
    /// Its last batches in this epoch, oldest first; at most [`BATCHES_KEPT`].
    pub batches: VecDeque<Kept>,
    /// When it last wrote, in ms since 1970, as its batches tell.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker, or -1.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction.
    pub transaction_start: Option<i64>,
}

impl Producer {
    fn new(epoch: i16) -> Producer {
        Producer {
            epoch,
            batches: VecDeque::new(),
            last_timestamp: -1,
            coordinator_epoch: -1,
            transaction_start: None,
        }
    }

    fn renew(&mut self, epoch: i16) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    fn keep(&mut self, kept: Kept) {
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(kept);
    }
}

/// All producers of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    producers: HashMap<i64, Producer>,
    /// First offsets of open transactions, with their producers.
    open: BTreeSet<(i64, i64)>,
}

impl Producers {
    /// Judges a batch, which is not written yet; `marker` is what a control batch says.
    pub fn check(
        &self,
        batch: &Header<'_>,
        marker: Option<&EndOfTransaction>,
        origin: Origin,
    ) -> Result<Verdict, Refusal> {
        if !batch.has_producer() {
            return Ok(Verdict::New);
        }
        let (producer_id, epoch) = (batch.producer_id(), batch.producer_epoch());
        // The first that is ever heard of a producer is taken as it is: what it wrote before may have
        // been deleted.
        let Some(producer) = self.producers.get(&producer_id) else {
            return Ok(Verdict::New);
        };
        if epoch < producer.epoch {
            return Err(Refusal::InvalidEpoch {
                producer_id,
                epoch,
                current: producer.epoch,
            });
        }
        if let Some(EndOfTransaction {
            coordinator_epoch: epoch,
            ..
        }) = marker
            && *epoch < producer.coordinator_epoch
        {
            return Err(Refusal::CoordinatorFenced {
                epoch: *epoch,
                current: producer.coordinator_epoch,
            });
        }
        if batch.control() {
            return Ok(Verdict::New);
        }
        if origin == Origin::Client
            && let Some(kept) = self.sequence(producer, batch)?
        {
            return Ok(Verdict::Duplicate(kept));
        }
        if producer.transaction_start.is_some() && !batch.transactional() {
            return Err(Refusal::OutsideTransaction { producer_id });
        }
        Ok(Verdict::New)
    }

    /// Holds a batch's sequence against the one that is due; returns the batch that it repeats.
    fn sequence(&self, producer: &Producer, batch: &Header<'_>) -> Result<Option<Kept>, Refusal> {
        let sequence = batch.base_sequence();
        let expected = if batch.producer_epoch() == producer.epoch {
            let again = producer.batches.iter().find(|kept| {
                kept.last_sequence == batch.last_sequence() && kept.base_sequence() == sequence
            });
            if let Some(kept) = again {
                return Ok(Some(*kept));
            }
            producer
                .batches
                .back()
                .map_or(0, |kept| add_sequence(kept.last_sequence, 1))
        } else {
            0
        };
        if sequence != expected {
            return Err(Refusal::OutOfOrderSequence {
                producer_id: batch.producer_id(),
                sequence,
                expected,
            });
        }
        Ok(None)
    }

    /// Returns the transaction that a marker at `offset` would end; nothing when none is open.
    pub fn ending(
        &self,
        producer_id: i64,
        marker: &EndOfTransaction,
        offset: i64,
    ) -> Option<Ended> {
        let start = self.producers.get(&producer_id)?.transaction_start?;
        let others = self.open.iter().find(|(_, id)| *id != producer_id);
        Some(Ended {
            producer_id,
            first_offset: start,
            last_offset: offset,
            aborted: marker.marker == Marker::Abort,
            stable_offset: others.map_or(offset + 1, |(first, _)| *first),
        })
    }

    /// Notes a batch that is in the log at `base_offset`, and returns the transaction that it ended.
    ///
    /// `marker` is what a control batch says, which its header alone does not tell.
    pub fn apply(
        &mut self,
        batch: &Header<'_>,
        base_offset: i64,
        marker: Option<EndOfTransaction>,
    ) -> Option<Ended> {
        if !batch.has_producer() {
            return None;
        }
        let producer_id = batch.producer_id();
        let ended = marker.and_then(|marker| self.ending(producer_id, &marker, base_offset));
        if !self.producers.contains_key(&producer_id) && self.producers.len() >= PRODUCERS_MAX {
            self.forget_idlest();
        }
        let producer = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| Producer::new(batch.producer_epoch()));
        producer.renew(batch.producer_epoch());
        producer.last_timestamp = batch.max_timestamp();
        if batch.control() {
            if let Some(EndOfTransaction {
                coordinator_epoch, ..
            }) = marker
            {
                producer.coordinator_epoch = coordinator_epoch;
                if let Some(start) = producer.transaction_start.take() {
                    self.open.remove(&(start, producer_id));
                }
            }
            return ended;
        }
        if batch.base_sequence() >= 0 {
            producer.keep(Kept {
                last_sequence: batch.last_sequence(),
                last_offset: base_offset + i64::from(batch.last_offset_delta()),
                offset_delta: batch.last_offset_delta(),
                timestamp: batch.max_timestamp(),
            });
        }
        if batch.transactional() && producer.transaction_start.is_none() {
            producer.transaction_start = Some(base_offset);
            self.open.insert((base_offset, producer_id));
        }
        None
    }

    /// Forgets producers that were idle for `idle_max` ms and have no open transaction.
    pub fn expire(&mut self, now: i64, idle_max: i64) {
        self.producers.retain(|_, producer| {
            producer.transaction_start.is_some()
                || now.saturating_sub(producer.last_timestamp) < idle_max
        });
    }

    fn forget_idlest(&mut self) {
        let mut idle: Vec<(i64, i64)> = self
            .producers
            .iter()
            .filter(|(_, producer)| producer.transaction_start.is_none())
            .map(|(id, producer)| (producer.last_timestamp, *id))
            .collect();
        // A hundredth at once, so that this is rare.
        let count = (PRODUCERS_MAX / 100).min(idle.len());
        if count > 0 {
            idle.select_nth_unstable(count - 1);
        }
        for (_, id) in &idle[..count] {
            self.producers.remove(id);
        }
    }

    /// Returns the first offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.open.first().map(|(offset, _)| *offset)
    }

    /// Returns what is known of one producer.
    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.producers.get(&producer_id)
    }

    /// Iterates over all producers with their ids, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// Returns how many producers are known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Returns whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    fn insert(&mut self, producer_id: i64, producer: Producer) {
        if let Some(start) = producer.transaction_start {
            self.open.insert((start, producer_id));
        }
        self.producers.insert(producer_id, producer);
    }
}

/// A transaction whose marker is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Whose it was.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// Whether its records are to be dropped by readers of committed data.
    pub aborted: bool,
    /// All before this offset was decided once the marker was written.
    pub stable_offset: i64,
}

/// What a control batch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfTransaction {
    /// How the transaction ended.
    pub marker: Marker,
    /// Epoch of the coordinator that ended it.
    pub coordinator_epoch: i32,
}

impl EndOfTransaction {
    /// Reads the only record of a control batch; `None` for control records of other kinds.
    pub fn read(batch: &kafka::record::Batch<'_>) -> Option<EndOfTransaction> {
        const CONTROL_RECORD_MAX: usize = 4096;
        let records = kafka::record::Records::read(batch, CONTROL_RECORD_MAX).ok()?;
        let record = records.iter().next()?.ok()?;
        let marker = Marker::from_key(record.key?)?;
        let epoch = record.value?.get(2..)?.first_chunk().copied()?;
        Some(EndOfTransaction {
            marker,
            coordinator_epoch: i32::from_be_bytes(epoch),
        })
    }
}

#[cfg(test)]
mod tests {
    use kafka::record::{Batch, BatchBuilder, NewRecord};

    use super::*;

    const MAX: i32 = i32::MAX;

    fn batch(id: i64, epoch: i16, base_sequence: i32, count: i32) -> Vec<u8> {
        let producer = kafka::record::Producer {
            id,
            epoch,
            base_sequence,
        };
        let mut builder = BatchBuilder::default().producer(producer);
        for _ in 0..count {
            builder.push(NewRecord {
                timestamp: 100,
                value: Some(b"v"),
                ..NewRecord::default()
            });
        }
        builder.build().to_vec()
    }

    /// Sends batches `epoch:sequence+count` of one producer one after another and tells what came
    /// of each.
    #[track_caller]
    fn check(sent: &str, expected: &str) {
        let mut producers = Producers::default();
        let mut next_offset = 1000;
        let mut told = Vec::new();
        for word in sent.split(' ') {
            let (epoch, rest) = word.split_once(':').expect("epoch:sequence+count");
            let (sequence, count) = rest.split_once('+').expect("epoch:sequence+count");
            let number = |text: &str| text.parse::<i32>().expect("a number");
            let bytes = batch(7, number(epoch) as i16, number(sequence), number(count));
            let (batch, _) = Batch::split_first(&bytes).expect("whole");
            told.push(match producers.check(&batch, None, Origin::Client) {
                Ok(Verdict::New) => {
                    producers.apply(&batch, next_offset, None);
                    next_offset += i64::from(number(count));
                    "new".to_owned()
                }
                Ok(Verdict::Duplicate(kept)) => format!("again@{}", kept.base_offset()),
                Err(Refusal::OutOfOrderSequence { expected, .. }) => format!("want:{expected}"),
                Err(Refusal::InvalidEpoch { current, .. }) => format!("fenced:{current}"),
                Err(other) => panic!("{other}"),
            });
        }
        assert_eq!(told.join(" "), expected);
    }

    #[test]
    fn sequences_are_dense() {
        check("0:0+3 0:3+1 0:4+2", "new new new");
        check("0:0+3 0:4+1", "new want:3");
        check("0:0+3 0:1+1", "new want:3");
    }

    #[test]
    fn an_unknown_producer_may_start_anywhere() {
        check("3:17+3 3:20+1", "new new");
    }

    #[test]
    fn the_last_five_are_known_again() {
        check(
            "0:0+1 0:1+1 0:2+1 0:3+1 0:4+1 0:5+1 0:1+1 0:5+1 0:0+1 0:6+1",
            "new new new new new new again@1001 again@1005 want:6 new",
        );
        // The same numbers in other batches are not the same batch.
        check("0:0+2 0:0+1 0:0+3", "new want:2 want:2");
    }

    #[test]
    fn sequences_wrap() {
        check(
            &format!("0:{}+2 0:0+1 0:1+1 0:{}+2", MAX - 1, MAX - 1),
            "new new new again@1000",
        );
        check(
            &format!("0:{}+4 0:2+1 0:{}+4", MAX - 1, MAX - 1),
            "new new again@1000",
        );
        check(&format!("0:{MAX}+1 0:1+1"), "new want:0");
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old_one() {
        check("0:0+1 1:0+1 0:1+1 1:1+1", "new new fenced:1 new");
        check("0:0+1 1:1+1", "new want:0");
        check("0:0+1 1:0+1 1:0+1", "new new again@1001");
    }

    #[test]
    fn transactions_are_open_until_their_marker() {
        let mut producers = Producers::default();
        let open = |id, base_sequence| {
            let producer = kafka::record::Producer {
                id,
                epoch: 0,
                base_sequence,
            };
            let mut builder = BatchBuilder::default().producer(producer).transactional();
            builder.push(NewRecord {
                timestamp: 100,
                ..NewRecord::default()
            });
            builder.build()
        };
        let mut apply = |bytes: &[u8], offset| {
            let (batch, _) = Batch::split_first(bytes).expect("whole");
            producers.apply(&batch, offset, EndOfTransaction::read(&batch));
            producers.first_unstable_offset()
        };
        assert_eq!(apply(&open(1, 0), 10), Some(10));
        assert_eq!(apply(&open(2, 0), 11), Some(10));
        assert_eq!(apply(&open(1, 1), 12), Some(10));
        assert_eq!(apply(&Marker::Commit.batch(1, 0, 3, 100), 13), Some(11));
        assert_eq!(apply(&Marker::Abort.batch(2, 0, 3, 100), 14), None);
        assert_eq!(producers.get(1).expect("known").coordinator_epoch, 3);
    }

    #[test]
    fn the_idle_are_forgotten_unless_a_transaction_is_open() {
        let mut producers = Producers::default();
        let bytes = batch(1, 0, 0, 1);
        let (header, _) = Batch::split_first(&bytes).expect("whole");
        producers.apply(&header, 0, None);
        producers.expire(199, 100);
        assert_eq!(producers.len(), 1);
        producers.expire(200, 100);
        assert!(producers.is_empty());
    }

    #[test]
    fn there_is_a_most_of_producers() {
        let mut producers = Producers::default();
        for id in 0..PRODUCERS_MAX as i64 + 10 {
            let bytes = batch(id, 0, 0, 1);
            let (header, _) = Batch::split_first(&bytes).expect("whole");
            producers.apply(&header, id, None);
        }
        assert!(producers.len() <= PRODUCERS_MAX);
        assert!(producers.len() >= PRODUCERS_MAX - PRODUCERS_MAX / 100);
    }
}
