//! One partition: its log, how far it may be read, and who waits for more.
//!
//! ```text
//! start ≤ last_stable ≤ high_water ≤ end
//!
//! start       the oldest record that is kept
//! last_stable consumers of committed data see what is before: all transactions there are decided
//! high_water  consumers see what is before: each record there is as durable as its producer asked for
//! end         the offset of the next record
//! ```

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use journal::clean::Cleaning;
use journal::producer::{Origin, Producer, Refusal};
use journal::{
    Aborted, AppendError, Appended, Compaction, Config, CutError, Found, Held, Log, OpenError,
    ReadError, Reader, Retention, Slice,
};
use kafka::record::TimestampType;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::clock;
use crate::topic::config::Settings;

/// Waiting fetches above which those that gave up are cleared away.
const WAITING_SWEEP: usize = 32;

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    #[error("{0}")]
    Invalid(String),
    #[error("the batch has {size} bytes, the topic takes {max}")]
    TooLarge { size: usize, max: usize },
    #[error("the producer's sequence number is out of order")]
    OutOfOrder,
    #[error("a newer instance of the producer has taken over")]
    InvalidEpoch,
    #[error("the batch is outside of its producer's transaction")]
    OutsideTransaction,
    #[error("a newer coordinator has ended a transaction of the producer")]
    CoordinatorFenced,
    #[error("the disk refused")]
    Disk,
    #[error("the partition is gone")]
    Gone,
}

impl From<AppendError> for Rejected {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Invalid(error) => Rejected::Invalid(error.to_string()),
            AppendError::TooLarge { size, max } => Rejected::TooLarge { size, max },
            AppendError::Producer(Refusal::OutOfOrderSequence { .. }) => Rejected::OutOfOrder,
            AppendError::Producer(Refusal::InvalidEpoch { .. }) => Rejected::InvalidEpoch,
            AppendError::Producer(Refusal::OutsideTransaction { .. }) => {
                Rejected::OutsideTransaction
            }
            AppendError::Producer(Refusal::CoordinatorFenced { .. }) => Rejected::CoordinatorFenced,
            AppendError::Disk(_) | AppendError::Failed => Rejected::Disk,
        }
    }
}

/// Which records a consumer wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// All.
    ReadUncommitted,
    /// Those of open transactions only once they are decided.
    ReadCommitted,
}

impl Isolation {
    /// Reads Kafka's number.
    pub(crate) fn from_number(number: i8) -> Self {
        match number {
            1 => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        }
    }
}

/// What became of an append.
#[derive(Debug)]
pub(crate) struct Taken {
    pub appended: Appended,
    /// It counts once it is flushed.
    pub durable: bool,
    /// A flush is due, whoever waits for it.
    pub flush: bool,
}

/// One partition.
#[derive(Debug)]
pub(crate) struct Partition {
    pub topic: Arc<str>,
    pub index: i32,
    reader: Reader,
    /// Held by the one thread that flushes, taken before `writing`.
    flushes: Mutex<()>,
    writing: Mutex<Writing>,
    high_water: AtomicI64,
    gone: AtomicBool,
    /// A flush has failed.
    failed: AtomicBool,
    waiting: Mutex<Vec<Weak<Notify>>>,
}

#[derive(Debug)]
struct Writing {
    /// `None` once the partition is closed.
    log: Option<Log>,
    /// The first offset that must be flushed before it may be read.
    unflushed_from: Option<i64>,
    /// The topic's `flush.messages`.
    flush_messages: u64,
    /// When the last flush began.
    flushed: Instant,
    /// A flush is under way that `unflushed_from` does not tell of any more.
    flushing: bool,
}

impl Partition {
    /// Opens the partition in `folder` or makes it, and recovers what an unclean stop left behind.
    pub(crate) fn open(
        folder: &Path,
        topic: Arc<str>,
        topic_id: Uuid,
        index: i32,
        settings: &Settings,
        epoch: i32,
    ) -> io::Result<Self> {
        let open = || {
            Log::open(
                folder,
                Some(*topic_id.as_bytes()),
                config(settings),
                clock::now_ms(),
            )
        };
        let (mut log, report) = match open() {
            // A folder whose topic was never entered into the registry, because a kill came between.
            Err(OpenError::OtherTopic { dir }) => {
                warn!(folder = %dir.display(), "removing the folder of a topic that is no more");
                std::fs::remove_dir_all(&dir)?;
                open().map_err(io::Error::other)?
            }
            opened => opened.map_err(io::Error::other)?,
        };
        if report.torn_bytes > 0 {
            info!(%topic, index, bytes = report.torn_bytes, "cut an unfinished write off the log");
        }
        for (from, to) in &report.damaged {
            error!(%topic, index, from, to, "records are damaged on disk");
        }
        log.lead(epoch);
        Ok(Self {
            topic,
            index,
            reader: log.reader(),
            high_water: AtomicI64::new(log.end_offset()),
            flushes: Mutex::default(),
            writing: Mutex::new(Writing {
                log: Some(log),
                unflushed_from: None,
                flush_messages: settings.flush_messages,
                flushed: Instant::now(),
                flushing: false,
            }),
            gone: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            waiting: Mutex::default(),
        })
    }

    /// Appends batches whose checksums are checked. `durable` ones are shown when they are flushed,
    /// others at once, unless they follow one that is not flushed yet. For the writer's thread only.
    pub(crate) fn append(
        &self,
        batches: &[u8],
        now: i64,
        origin: Origin,
        durable: bool,
    ) -> Result<Taken, Rejected> {
        let mut writing = self.writing.lock();
        let flush_messages = writing.flush_messages;
        let log = writing.log.as_mut().ok_or(Rejected::Gone)?;
        let appended = log.append(batches, now, origin).inspect_err(|error| {
            if let AppendError::Disk(error) = error {
                error!(%error, topic = %self.topic, index = self.index, "could not append");
            }
        })?;
        let end = log.end_offset();
        let unflushed = u64::try_from(end - log.stable_offset()).unwrap_or(u64::MAX);
        let taken = Taken {
            appended,
            durable: durable || unflushed >= flush_messages,
            flush: log.take_rolled(),
        };
        if appended.duplicate {
            return Ok(taken);
        }
        if taken.durable {
            writing.unflushed_from.get_or_insert(appended.base_offset);
        } else if writing.unflushed_from.is_none() && !writing.flushing {
            self.show(end);
        }
        Ok(taken)
    }

    /// Puts on disk what was appended so far, and shows it. Appending goes on meanwhile.
    pub(crate) fn flush(&self) -> Result<(), Rejected> {
        // What another thread is flushing is not on disk before it has ended, and counts as shown only then.
        let _one = self.flushes.lock();
        let flush = {
            let mut writing = self.writing.lock();
            let log = writing.log.as_mut().ok_or(Rejected::Gone)?;
            let flush = log.begin_flush()?;
            writing.unflushed_from = None;
            writing.flushing = true;
            writing.flushed = Instant::now();
            flush
        };
        let outcome = flush.as_ref().map(|flush| flush.run());
        let mut writing = self.writing.lock();
        writing.flushing = false;
        let log = writing.log.as_mut().ok_or(Rejected::Gone)?;
        if let (Some(flush), Some(outcome)) = (flush, outcome) {
            log.end_flush(&flush, outcome).inspect_err(|error| {
                self.failed.store(true, Ordering::Release);
                error!(%error, topic = %self.topic, index = self.index, "could not flush, closed for writing");
            })?;
        }
        let end = log.end_offset();
        self.show(writing.unflushed_from.unwrap_or(end));
        Ok(())
    }

    /// Flushes what was appended if the last flush began longer than `after` ago (`flush.ms`).
    pub(crate) fn flush_after(&self, after: Duration) -> Result<(), Rejected> {
        let due = {
            let writing = self.writing.lock();
            let dirty = writing.log.as_ref().is_some_and(Log::dirty);
            dirty && writing.flushed.elapsed() >= after
        };
        if due { self.flush() } else { Ok(()) }
    }

    /// Takes a log into use again that a failed flush has closed for writing, if the disk lets us.
    pub(crate) fn heal(&self) {
        if !self.failed.load(Ordering::Acquire) {
            return;
        }
        let _one = self.flushes.lock();
        let mut writing = self.writing.lock();
        let Some(log) = writing.log.as_mut() else {
            return;
        };
        let (topic, index) = (&self.topic, self.index);
        match log.heal() {
            Ok(_) => {
                info!(%topic, index, "open for writing again");
                self.failed.store(false, Ordering::Release);
                let end = log.end_offset();
                writing.unflushed_from = None;
                self.show(end);
            }
            Err(error) => warn!(%error, %topic, index, "still closed for writing"),
        }
    }

    fn show(&self, up_to: i64) {
        if self.high_water.fetch_max(up_to, Ordering::AcqRel) < up_to {
            self.wake();
        }
    }

    fn wake(&self) {
        for waiting in self.waiting.lock().drain(..) {
            if let Some(waiting) = waiting.upgrade() {
                waiting.notify_one();
            }
        }
    }

    /// Has `waiter` notified once when more can be read, or the partition is gone.
    pub(crate) fn wait(&self, waiter: &Arc<Notify>) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_SWEEP && waiting.len().is_power_of_two() {
            waiting.retain(|waiting| waiting.strong_count() > 0);
        }
        waiting.push(Arc::downgrade(waiter));
    }

    /// Returns whole batches from `offset` on, up to the high-water mark.
    pub(crate) fn read(
        &self,
        offset: i64,
        bytes_max: usize,
        min_one: bool,
    ) -> Result<Slice, ReadError> {
        self.read_up_to(offset, bytes_max, min_one, self.high_water())
    }

    /// Returns whole batches from `offset` on that end before `up_to`.
    pub(crate) fn read_up_to(
        &self,
        offset: i64,
        bytes_max: usize,
        min_one: bool,
        up_to: i64,
    ) -> Result<Slice, ReadError> {
        self.reader.read(offset, bytes_max, min_one, up_to)
    }

    /// As [`Self::read_up_to`], for who can send records right from their file.
    pub(crate) fn hold_up_to(
        &self,
        offset: i64,
        bytes_max: usize,
        min_one: bool,
        up_to: i64,
    ) -> Result<Held, ReadError> {
        self.reader.hold(offset, bytes_max, min_one, up_to)
    }

    /// Returns the aborted transactions with records in `from..up_to`.
    pub(crate) fn aborted(&self, from: i64, up_to: i64) -> Result<Vec<Aborted>, ReadError> {
        self.reader.aborted(from, up_to)
    }

    /// Returns the offset up to which consumers with this isolation may read.
    pub(crate) fn readable(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.high_water(),
            Isolation::ReadCommitted => self.last_stable(),
        }
    }

    /// The first offset of the oldest transaction that is not decided, or the high-water mark.
    pub(crate) fn last_stable(&self) -> i64 {
        // In this order: a transaction that begins in between lies behind the high-water mark.
        let high_water = self.high_water();
        let undecided = self.reader.undecided_from().max(self.start());
        high_water.min(undecided)
    }

    /// Tells of the partition's producers, in the order of their ids.
    pub(crate) fn producers(&self) -> Vec<(i64, Producer)> {
        let writing = self.writing.lock();
        let Some(log) = &writing.log else {
            return Vec::new();
        };
        let known = log.producers().iter();
        let mut producers: Vec<(i64, Producer)> =
            known.map(|(id, one)| (id, one.clone())).collect();
        producers.sort_unstable_by_key(|(id, _)| *id);
        producers
    }

    /// Tells of one producer.
    pub(crate) fn producer(&self, id: i64) -> Option<Producer> {
        let writing = self.writing.lock();
        writing.log.as_ref()?.producers().get(id).cloned()
    }

    pub(crate) fn start(&self) -> i64 {
        self.reader.start_offset()
    }

    pub(crate) fn high_water(&self) -> i64 {
        self.high_water.load(Ordering::Acquire).max(self.start())
    }

    pub(crate) fn end(&self) -> i64 {
        self.reader.end_offset()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Returns the bytes on disk.
    pub(crate) fn size(&self) -> u64 {
        self.reader.size()
    }

    /// Returns the first record before `up_to` that is at or after a time. Waits for the disk.
    pub(crate) fn at_time(&self, timestamp: i64, up_to: i64) -> Result<Option<Found>, ReadError> {
        self.reader.offset_for_timestamp(timestamp, up_to)
    }

    /// Returns the record with the latest timestamp. Waits for the disk.
    pub(crate) fn latest(&self) -> Result<Option<Found>, ReadError> {
        self.reader.latest_by_timestamp()
    }

    /// Returns the largest known epoch up to `epoch`, and where it ended.
    pub(crate) fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        self.reader.epoch_end_offset(epoch)
    }

    /// Returns the leader epoch of the record at `offset`.
    pub(crate) fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.reader.epoch_at(offset)
    }

    /// Removes all records before `offset`, which is at most the high-water mark. Waits for the disk.
    pub(crate) fn delete_before(&self, offset: i64) -> Result<i64, CutError> {
        let mut writing = self.writing.lock();
        let end = self.high_water();
        if offset > end {
            return Err(CutError::OutOfRange { offset, end });
        }
        match writing.log.as_mut() {
            Some(log) => log.delete_before(offset),
            None => Err(CutError::Disk(io::ErrorKind::NotFound.into())),
        }
    }

    /// Deletes old segments as the topic's settings say. Waits for the disk.
    pub(crate) fn retain(&self, settings: &Settings, now: i64) -> Result<usize, Rejected> {
        let retention = match settings.delete {
            true => Retention {
                age_ms: settings
                    .retention_ms
                    .and_then(|age| i64::try_from(age).ok()),
                bytes: settings.retention_bytes,
            },
            false => Retention::default(),
        };
        let mut writing = self.writing.lock();
        let log = writing.log.as_mut().ok_or(Rejected::Gone)?;
        let gone = log.retain(now, &retention)?.len();
        let rolled = log.take_rolled();
        drop(writing);
        if rolled {
            self.flush()?;
        }
        Ok(gone)
    }

    /// Returns the log as compaction sees it; `None` when it is not to be compacted.
    pub(crate) fn cleaning(&self) -> Option<Cleaning> {
        let up_to = self.last_stable();
        self.writing.lock().log.as_ref()?.cleaning(up_to)
    }

    pub(crate) fn configure(&self, settings: &Settings) {
        let mut writing = self.writing.lock();
        writing.flush_messages = settings.flush_messages;
        if let Some(log) = &mut writing.log {
            log.set_config(config(settings));
        }
    }

    /// Flushes everything and takes no more, so that the next start need not read the log.
    pub(crate) fn close(&self) -> Result<(), Rejected> {
        let log = self.writing.lock().log.take();
        match log {
            Some(log) => Ok(log.close()?),
            None => Ok(()),
        }
    }

    /// Takes no more, wakes whoever waits, and removes the folder.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.gone.store(true, Ordering::Release);
        let log = self.writing.lock().log.take();
        self.wake();
        match log {
            Some(log) => log.remove(),
            None => Ok(()),
        }
    }
}

fn config(settings: &Settings) -> Config {
    Config {
        segment_bytes: settings.segment_bytes,
        segment_jitter_ms: i64::try_from(settings.segment_jitter_ms).unwrap_or(i64::MAX),
        preallocate: settings.preallocate,
        segment_ms: i64::try_from(settings.segment_ms).unwrap_or(i64::MAX),
        index_interval_bytes: settings.index_interval_bytes,
        message_bytes_max: u32::try_from(settings.max_message_bytes).unwrap_or(u32::MAX),
        timestamps: if settings.append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        index_bytes_max: settings.index_bytes_max,
        compaction: settings.compact.then_some(Compaction {
            dirty_ratio_min: settings.dirty_ratio_min,
            lag_min_ms: settings.compaction_lag_min_ms,
            lag_max_ms: settings.compaction_lag_max_ms,
            tombstone_ms: settings.tombstone_ms,
            levels: settings.levels,
        }),
        ..Config::default()
    }
}
