//! Reading a log, from any thread, while it is being written.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use kafka::record::{self, Batch, NO_TIMESTAMP, Record, Records};
use tracing::error;

use crate::aborted::{self, Aborted};
use crate::checkpoint::{Checkpoint, Fence};
use crate::disk;
use crate::epochs::Epochs;
use crate::index;
use crate::scan::{Damage, NEAR, Stop, Walk};
use crate::segment::{Place, Segment};

/// Most bytes that a batch may inflate to when a record in it is looked for by its timestamp.
const INFLATED_MAX: usize = 128 << 20;

/// What writer and readers share: `start ≤ stable ≤ end`.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    state: RwLock<State>,
    shape: Mutex<Shape>,
    /// First offset that is shown.
    start: AtomicI64,
    /// All before it is on disk.
    stable: AtomicI64,
    /// The next record's offset.
    end: AtomicI64,
    /// First offset of the oldest transaction that is not decided, or [`DECIDED`].
    undecided: AtomicI64,
}

/// There is no open transaction.
const DECIDED: i64 = i64::MAX;

#[derive(Debug)]
pub(crate) struct State {
    /// Ascending by base offset; never empty.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) fences: Vec<Fence>,
    pub(crate) epochs: Epochs,
    /// Offsets before this one may be missing, because compaction took their records.
    pub(crate) sparse_to: i64,
    /// Grows whenever segments other than the newest come, go or are replaced.
    pub(crate) generation: u64,
    /// Base offsets of segments that compaction found damaged and leaves alone.
    pub(crate) rotten: Vec<i64>,
}

/// What only who holds its lock may change: the closed segments and the checkpoint. Appending needs neither.
#[derive(Debug)]
pub(crate) struct Shape {
    /// As it is on disk.
    pub(crate) checkpoint: Checkpoint,
    /// The folder is no longer this log's: nothing is written to it any more.
    pub(crate) foreign: bool,
    /// The folder is not as it should be until the next start, because a compaction could not end.
    pub(crate) unfinished: bool,
}

impl Shape {
    /// Returns whether compaction must leave the folder alone.
    pub(crate) fn keeps_out(&self) -> bool {
        self.foreign || self.unfinished
    }
}

impl Shared {
    pub(crate) fn new(dir: PathBuf, state: State, checkpoint: Checkpoint, end: i64) -> Shared {
        Shared {
            dir,
            state: RwLock::new(state),
            start: AtomicI64::new(checkpoint.start),
            shape: Mutex::new(Shape {
                checkpoint,
                foreign: false,
                unfinished: false,
            }),
            stable: AtomicI64::new(end),
            end: AtomicI64::new(end),
            undecided: AtomicI64::new(DECIDED),
        }
    }

    pub(crate) fn set_undecided(&self, from: Option<i64>) {
        self.undecided
            .store(from.unwrap_or(DECIDED), Ordering::Release);
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shape(&self) -> MutexGuard<'_, Shape> {
        self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the checkpoint by a changed one, durably; not that of another log in the same place.
    pub(crate) fn write_checkpoint(
        &self,
        shape: &mut Shape,
        change: impl FnOnce(&mut Checkpoint),
    ) -> io::Result<()> {
        if shape.foreign {
            return Err(io::Error::other("the folder is not this log's any more"));
        }
        let mut next = shape.checkpoint.clone();
        change(&mut next);
        next.fences.retain(|fence| fence.to_offset > next.start);
        if next != shape.checkpoint {
            next.write(&self.dir)?;
            shape.checkpoint = next;
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    pub(crate) fn set_start(&self, offset: i64) {
        self.start.store(offset, Ordering::Release);
    }

    pub(crate) fn stable(&self) -> i64 {
        self.stable.load(Ordering::Acquire)
    }

    pub(crate) fn set_stable(&self, offset: i64) {
        self.stable.store(offset, Ordering::Release);
    }

    pub(crate) fn end(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn set_end(&self, offset: i64) {
        self.end.store(offset, Ordering::Release);
    }
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the log.
    #[error("offset {offset} is not between {start} and {end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// First offset of the log.
        start: i64,
        /// Offset that the next record gets.
        end: i64,
    },
    /// The records were damaged on disk. Reading can go on at `to`.
    #[error("offsets {from} to {to} are damaged")]
    Damaged {
        /// First offset that is lost.
        from: i64,
        /// First offset after the damage, as far as is known.
        to: i64,
    },
    /// The disk did not answer.
    #[error("could not read the log")]
    Disk(#[from] io::Error),
}

/// Whole batches, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The batches; the first may begin before the offset that was asked for.
    pub bytes: Bytes,
    /// Where to read on.
    pub next_offset: i64,
}

/// A record found by its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Offset of the record.
    pub offset: i64,
    /// Its timestamp, in ms since 1970.
    pub timestamp: i64,
    /// Epoch of the leader that stored it.
    pub leader_epoch: i32,
}

/// Reads a log; clones are cheap and all see the same.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl Reader {
    /// Returns the first offset of the log.
    pub fn start_offset(&self) -> i64 {
        self.shared.start()
    }

    /// Returns the offset before which everything is on disk.
    pub fn stable_offset(&self) -> i64 {
        self.shared.stable()
    }

    /// Returns the offset that the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.shared.end()
    }

    /// Returns the first offset of the oldest transaction that is not decided, `i64::MAX` when all are.
    ///
    /// A transaction is decided once its marker is on disk. Readers of committed data, and the cleaner,
    /// stop there. Whoever wants the smaller of this and another limit asks for the other one first:
    /// then no transaction that began meanwhile can come between.
    pub fn undecided_from(&self) -> i64 {
        self.shared.undecided.load(Ordering::Acquire)
    }

    /// Returns the aborted transactions that have records in `from..up_to`, in the order of their
    /// markers; `up_to` is at most [`Reader::undecided_from`].
    pub fn aborted(&self, from: i64, up_to: i64) -> Result<Vec<Aborted>, ReadError> {
        // Most logs have no aborted transactions, and this is asked with each fetch.
        let segments: Vec<Arc<Segment>> = {
            let state = self.shared.state();
            let first = state
                .segments
                .partition_point(|segment| segment.base() <= from)
                .saturating_sub(1);
            let telling = state.segments[first..].iter();
            telling
                .filter(|segment| segment.aborted.count() > 0)
                .cloned()
                .collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            let done = aborted::collect(&segment, from, up_to, &mut found);
            if self.checked(from, done.map_err(Failure::Disk))? {
                break;
            }
        }
        Ok(found)
    }

    /// Returns the bytes that all segments take.
    pub fn size(&self) -> u64 {
        self.shared
            .state()
            .segments
            .iter()
            .map(|segment| segment.size())
            .sum()
    }

    /// Returns up to `max_bytes` of whole batches from the one that holds `offset` on, all of whose
    /// records come before `up_to`.
    ///
    /// With `min_one` the first batch is returned even when it alone is larger (KIP-74). At the end of
    /// the log the answer is empty.
    pub fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        up_to: i64,
    ) -> Result<Slice, ReadError> {
        let (start, end) = (self.shared.start(), self.shared.end());
        if offset < start || offset > end {
            return Err(ReadError::OutOfRange { offset, start, end });
        }
        let empty = Slice {
            bytes: Bytes::new(),
            next_offset: offset,
        };
        let up_to = up_to.min(end);
        if offset >= up_to {
            return Ok(empty);
        }
        let mut walk = Segments::from(offset);
        while let Some((segment, fences)) = walk.next(&self.shared) {
            let found = self.place(offset, &segment, &fences);
            let Some(place) = self.placed(offset, &segment, &fences, found)? else {
                continue;
            };
            // The checksum does not cover the offset, but where none is missing we know it.
            let dense = offset >= walk.sparse_to;
            let elsewhere = dense && place.base_offset > offset;
            let lost_before = elsewhere && segment.base() > offset;
            let start = self.shared.start();
            if elsewhere && offset < start {
                // Its segment was deleted meanwhile.
                return Err(ReadError::OutOfRange { offset, start, end });
            }
            let fits = place.size <= max_bytes || min_one;
            if lost_before {
                // The segment before this one has lost its end.
                let (from, to) = (offset, segment.base());
                return Err(ReadError::Damaged { from, to });
            }
            let within = place.base_offset < offset;
            if dense && within && !segment.trusted(place.position, place.position + 1) {
                // Where it begins is known from the one before it, and an offset that has changed may lie there too.
                let due = segment.due(place.position, skip(&fences));
                if let Some(due) = self.checked(offset, due)?
                    && due != place.base_offset
                {
                    let found = place.base_offset;
                    let spot = Spot {
                        base_offset: due,
                        ..Spot::of(&place)
                    };
                    let problem = Damage::Offset { found, due };
                    if let Some((from, to)) = self.fence(offset, &segment, &spot, &problem) {
                        return Err(ReadError::Damaged { from, to });
                    }
                }
            }
            let beyond = place.last_offset >= up_to;
            let doubt = match beyond && !elsewhere {
                true => self.doubt(offset, &segment, &place),
                false => Ok(()),
            };
            if !elsewhere && (beyond || !fits) && doubt.is_ok() {
                return Ok(empty);
            }
            let slice = if elsewhere {
                let (found, due) = (place.base_offset, offset);
                Err(Failure::Batch(Damage::Offset { found, due }))
            } else if let Err(doubt) = doubt {
                Err(doubt)
            } else {
                let limit = fences
                    .iter()
                    .map(|fence| fence.from_position)
                    .filter(|position| *position > place.position)
                    .fold(segment.size(), u64::min);
                let len = (max_bytes as u64)
                    .min(limit - place.position)
                    .max(place.size as u64);
                read_batches(&segment, &place, len as usize, up_to, dense)
            };
            if let Err(Failure::Batch(problem)) = &slice
                && let Some((from, to)) = self.fence(offset, &segment, &Spot::of(&place), problem)
            {
                return Err(ReadError::Damaged { from, to });
            }
            return self.checked(offset, slice);
        }
        // Not found although it should be there, unless the log was cut meanwhile.
        let (start, end) = (self.shared.start(), self.shared.end());
        match offset {
            _ if offset < start => Err(ReadError::OutOfRange { offset, start, end }),
            _ if offset >= end => Ok(empty),
            // Compaction took the last records there were.
            _ if offset < self.shared.state().sparse_to => Ok(empty),
            _ => Err(ReadError::Damaged {
                from: offset,
                to: offset + 1,
            }),
        }
    }

    /// Returns the first record before `up_to` whose timestamp is at or after `timestamp`.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
        up_to: i64,
    ) -> Result<Option<Found>, ReadError> {
        let start = self.shared.start();
        let mut walk = Segments::from(start);
        while let Some((segment, fences)) = walk.next(&self.shared) {
            if segment.max_timestamp().0 < timestamp {
                continue;
            }
            let entry = segment
                .times
                .last_before(|entry| index::read_time_entry(entry).0 < timestamp)?
                .map_or(0, |entry| index::read_time_entry(&entry).1);
            let mut from = start.max(segment.base() + i64::from(entry));
            loop {
                let place = segment.find(from, segment.size(), skip(&fences), |header| {
                    header.last_offset() >= from && header.max_timestamp() >= timestamp
                });
                let place = place.map_err(Failure::from);
                let Some(place) = self.placed(from, &segment, &fences, place)? else {
                    break;
                };
                if place.base_offset >= up_to {
                    return Ok(None);
                }
                let wanted =
                    |record: &Record<'_>| record.offset >= start && record.timestamp >= timestamp;
                match self.record(&segment, &place, wanted)? {
                    Some(found) => return Ok(Some(found).filter(|found| found.offset < up_to)),
                    None => from = place.last_offset + 1,
                }
            }
        }
        Ok(None)
    }

    /// Returns the record with the latest timestamp, the first of them if there are several.
    pub fn latest_by_timestamp(&self) -> Result<Option<Found>, ReadError> {
        let latest = {
            let state = self.shared.state();
            // `max_by_key` would take the last of equals.
            state
                .segments
                .iter()
                .rev()
                .max_by_key(|segment| segment.max_timestamp().0)
                .cloned()
        };
        let Some(segment) = latest else {
            return Ok(None);
        };
        let (timestamp, last_offset) = segment.max_timestamp();
        if timestamp == NO_TIMESTAMP {
            return Ok(None);
        }
        let fences = self.fences(segment.base());
        let place = segment.find(last_offset, segment.size(), skip(&fences), |header| {
            header.last_offset() >= last_offset
        });
        let place = place.map_err(Failure::from);
        let Some(place) = self.placed(last_offset, &segment, &fences, place)? else {
            return Ok(None);
        };
        self.record(&segment, &place, |record| record.timestamp >= timestamp)
    }

    /// Returns the largest epoch up to `epoch` that the log knows, and the offset where it ended.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        self.shared.state().epochs.end_of(epoch, self.shared.end())
    }

    /// Returns the leader epoch in which the record with this offset was stored.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.shared.state().epochs.at(offset)
    }

    fn fences(&self, base: i64) -> Vec<Fence> {
        let state = self.shared.state();
        state
            .fences
            .iter()
            .filter(|fence| fence.segment == base)
            .copied()
            .collect()
    }

    /// Finds the batch that holds `offset`, or the first after it.
    fn place(
        &self,
        offset: i64,
        segment: &Segment,
        fences: &[Fence],
    ) -> Result<Option<Place>, Failure> {
        let lost = |fence: &&Fence| (fence.from_offset..fence.to_offset).contains(&offset);
        if let Some(Fence {
            from_offset,
            to_offset,
            ..
        }) = fences.iter().find(lost)
        {
            return Err(Failure::Damaged {
                from: *from_offset,
                to: *to_offset,
            });
        }
        let wanted = |header: &record::Header<'_>| header.last_offset() >= offset;
        let found = segment.find(offset, segment.size(), skip(fences), wanted)?;
        // Nobody passes over what is damaged without being told.
        let until = found.as_ref().map_or(i64::MAX, |place| place.base_offset);
        let passed = |fence: &&Fence| fence.from_offset >= offset && fence.from_offset < until;
        if let Some(fence) = fences
            .iter()
            .filter(passed)
            .min_by_key(|fence| fence.from_offset)
        {
            return Err(Failure::Damaged {
                from: fence.from_offset,
                to: fence.to_offset,
            });
        }
        Ok(found)
    }

    /// Checks a batch that seems to end beyond what may be read: a damaged header must not make readers wait for ever.
    fn doubt(&self, offset: i64, segment: &Arc<Segment>, place: &Place) -> Result<(), Failure> {
        let behind = place.position + place.size as u64;
        if segment.trusted(place.position, behind) {
            return Ok(());
        }
        let next_base = {
            let state = self.shared.state();
            let mut segments = state.segments.iter();
            segments
                .find(|one| one.base() > segment.base())
                .map(|next| next.base())
        };
        if place.last_offset >= next_base.unwrap_or_else(|| self.shared.end()) {
            let (found, due) = (place.base_offset, offset);
            return Err(Failure::Batch(Damage::Offset { found, due }));
        }
        let file = segment.file().map_err(Failure::Disk)?;
        Ok(Walk::new(&file, place.position, behind, NEAR).verify()?)
    }

    /// Answers for what was found of a batch; a header that cannot be read is fenced with what hides behind it.
    fn placed(
        &self,
        offset: i64,
        segment: &Arc<Segment>,
        fences: &[Fence],
        found: Result<Option<Place>, Failure>,
    ) -> Result<Option<Place>, ReadError> {
        if let Err(Failure::Batch(problem)) = &found
            && let Ok(Some((position, before))) =
                segment.broken(offset, segment.size(), skip(fences))
        {
            let spot = Spot {
                position,
                base_offset: before.map_or(offset, |before| before.min(offset)),
                behind: None,
            };
            if let Some((from, to)) = self.fence(offset, segment, &spot, problem) {
                return Err(ReadError::Damaged { from, to });
            }
        }
        self.checked(offset, found)
    }

    /// Has nobody read a damaged batch any more, neither now nor after the next start. Returns the offsets that
    /// are lost with it, first and the one after the last; `None` when the segment is not there any more.
    fn fence(
        &self,
        offset: i64,
        segment: &Arc<Segment>,
        spot: &Spot,
        problem: &Damage,
    ) -> Option<(i64, i64)> {
        let shared = &self.shared;
        let mut shape = shared.shape();
        let (size, end) = settled(|| shared.end(), || segment.size());
        let next_base = {
            let state = shared.state();
            let mut segments = state.segments.iter();
            segments.find(|one| Arc::ptr_eq(one, segment))?;
            segments.next().map(|next| next.base())
        };
        // One that is closed has got its last size.
        let (size, end) = next_base.map_or((size, end), |next| (segment.size(), next));
        let dense = offset >= shared.state().sparse_to;
        let behind = spot.behind.map(|position| (position, None)).into_iter();
        let known = segment.indexed_behind(spot.position).unwrap_or_default();
        let known = known
            .into_iter()
            .map(|(position, last)| (position, Some(last)));
        let mut places = behind.chain(known);
        let resumed = places.find_map(|(position, indexed)| {
            let found = good_batch(segment, position, size)?;
            // No checksum covers its offset: the index, or what follows, must agree with it.
            let follows = match found.follows {
                Some(next) => Some(next),
                None if found.is_last => Some(end),
                None => None,
            };
            let agreed = match (indexed, follows) {
                (Some(indexed), _) => indexed == found.last,
                (None, Some(next)) if dense => next == found.last + 1,
                (None, Some(next)) => next > found.last,
                (None, None) => false,
            };
            (agreed && found.base > offset && found.last < end).then_some((position, found.base))
        });
        let (to_position, next_offset) = resumed.unwrap_or((size, end));
        let fence = Fence {
            segment: segment.base(),
            from_position: spot.position,
            to_position,
            from_offset: spot.base_offset.min(offset),
            to_offset: next_offset.max(offset + 1),
        };
        let lost = (fence.from_offset, fence.to_offset);
        error!(dir = %shared.dir.display(), from = lost.0, to = lost.1, %problem, "the log is damaged");
        shared.state_mut().fences.push(fence);
        let noted = shared.write_checkpoint(&mut shape, |next| next.fences.push(fence));
        if let Err(error) = noted {
            error!(dir = %shared.dir.display(), %error, "the damage will have to be found again");
        }
        Some(lost)
    }

    /// Finds a record within one batch; a batch that does not inflate is answered for as a whole.
    fn record(
        &self,
        segment: &Segment,
        place: &Place,
        wanted: impl Fn(&Record<'_>) -> bool,
    ) -> Result<Option<Found>, ReadError> {
        let bytes = self.checked(
            place.base_offset,
            segment.read(place).map_err(Failure::Disk),
        )?;
        let read = || -> Result<Option<Found>, record::Error> {
            let (batch, _) = Batch::split_first(&bytes)?;
            let leader_epoch = batch.leader_epoch();
            for record in &Records::read(&batch, INFLATED_MAX)? {
                let record = record?;
                if wanted(&record) {
                    let Record {
                        offset, timestamp, ..
                    } = record;
                    return Ok(Some(Found {
                        offset,
                        timestamp,
                        leader_epoch,
                    }));
                }
            }
            Ok(None)
        };
        Ok(read().unwrap_or(Some(Found {
            offset: place.base_offset,
            timestamp: place.max_timestamp,
            leader_epoch: self.epoch_at(place.base_offset).unwrap_or(-1),
        })))
    }

    /// Turns a failure inside a segment into the answer for a reader at `offset`.
    fn checked<T>(
        &self,
        offset: i64,
        result: Result<T, impl Into<Failure>>,
    ) -> Result<T, ReadError> {
        let failure = match result {
            Ok(value) => return Ok(value),
            Err(failure) => failure.into(),
        };
        let (start, end) = (self.shared.start(), self.shared.end());
        match failure {
            Failure::Damaged { from, to } => Err(ReadError::Damaged { from, to }),
            Failure::Batch(problem) => {
                let dir = self.shared.dir.display();
                error!(%dir, offset, %problem, "the log is damaged");
                Err(ReadError::Damaged {
                    from: offset,
                    to: offset.saturating_add(1),
                })
            }
            // The segment was deleted between looking it up and opening it.
            Failure::Disk(error) if error.kind() == io::ErrorKind::NotFound && offset < start => {
                Err(ReadError::OutOfRange { offset, start, end })
            }
            Failure::Disk(error) => Err(ReadError::Disk(error)),
        }
    }
}

/// Goes from segment to segment, beginning with the one that may hold an offset. When segments are replaced
/// meanwhile it begins again, so that none is passed over.
struct Segments {
    offset: i64,
    /// Offsets before this one may be missing.
    sparse_to: i64,
    /// Number of the segment that comes next, and the generation in which it has that number.
    next: Option<(usize, u64)>,
}

impl Segments {
    fn from(offset: i64) -> Segments {
        Segments {
            offset,
            sparse_to: 0,
            next: None,
        }
    }

    /// Returns the next segment with its fences.
    fn next(&mut self, shared: &Shared) -> Option<(Arc<Segment>, Vec<Fence>)> {
        let state = shared.state();
        let number = match self.next {
            Some((number, generation)) if generation == state.generation => number,
            _ => state
                .segments
                .partition_point(|segment| segment.base() <= self.offset)
                .saturating_sub(1),
        };
        self.next = Some((number + 1, state.generation));
        self.sparse_to = state.sparse_to;
        let segment = Arc::clone(state.segments.get(number)?);
        let fences = state
            .fences
            .iter()
            .filter(|fence| fence.segment == segment.base())
            .copied()
            .collect();
        Some((segment, fences))
    }
}

enum Failure {
    Damaged { from: i64, to: i64 },
    Batch(Damage),
    Disk(io::Error),
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        match stop {
            Stop::Damaged(problem) => Failure::Batch(problem),
            Stop::Disk(error) => Failure::Disk(error),
        }
    }
}

/// Reads how long the newest segment and the log are while they grow: a size and the offset that belongs to it.
fn settled(mut end: impl FnMut() -> i64, mut size: impl FnMut() -> u64) -> (u64, i64) {
    let mut known = end();
    loop {
        let size = size();
        let now = end();
        if now == known {
            return (size, now);
        }
        known = now;
    }
}

fn skip(fences: &[Fence]) -> impl Fn(u64) -> Option<u64> {
    |position| {
        let inside = |fence: &&Fence| (fence.from_position..fence.to_position).contains(&position);
        fences.iter().find(inside).map(|fence| fence.to_position)
    }
}

/// Where damage begins.
struct Spot {
    position: u64,
    /// The first offset there, as far as it can be read.
    base_offset: i64,
    /// Where the next batch should begin.
    behind: Option<u64>,
}

impl Spot {
    fn of(place: &Place) -> Spot {
        Spot {
            position: place.position,
            base_offset: place.base_offset,
            behind: Some(place.position + place.size as u64),
        }
    }
}

/// A batch whose checksum is right.
struct Good {
    base: i64,
    last: i64,
    /// The first offset of the one after it, if its header can be read.
    follows: Option<i64>,
    is_last: bool,
}

/// Returns the batch at a position if its checksum is right.
fn good_batch(segment: &Segment, position: u64, size: u64) -> Option<Good> {
    let file = segment.file().ok()?;
    let mut walk = Walk::new(&file, position, size, NEAR);
    walk.verify().ok()?;
    let header = walk.header().ok()??;
    let behind = position + header.size() as u64;
    let (base, last) = (header.base_offset(), header.last_offset());
    walk.seek(behind);
    let next = walk.header().ok().flatten();
    Some(Good {
        base,
        last,
        follows: next.map(|next| next.base_offset()),
        is_last: behind >= size,
    })
}

/// Reads `len` bytes and keeps the whole batches in them that end before `up_to`.
fn read_batches(
    segment: &Segment,
    place: &Place,
    len: usize,
    up_to: i64,
    dense: bool,
) -> Result<Slice, Failure> {
    let mut bytes = Vec::new();
    disk::read_at(
        &*segment.file().map_err(Failure::Disk)?,
        &mut bytes,
        place.position,
        len,
    )
    .map_err(Failure::Disk)?;
    let (mut whole, mut next_offset) = (0, place.base_offset);
    // What lay on the disk before this process began is held against its checksums once.
    let trusted = segment.trusted(place.position, place.position + bytes.len() as u64);
    let sound = |batch: Batch<'_>| match trusted {
        true => Ok(()),
        false => batch.verify(),
    };
    let mut batches = record::batches(&bytes);
    while let Some(batch) = batches.next() {
        match batch.and_then(|batch| sound(batch).map(|()| batch)) {
            // Offsets only grow: anything else is not what was written here.
            Ok(batch) if batch.base_offset() < next_offset => break,
            Ok(batch) if dense && !trusted && batch.base_offset() != next_offset => break,
            Ok(batch) if batch.last_offset() >= up_to => break,
            Ok(batch) => {
                next_offset = batch.next_offset();
                whole = batches.position();
            }
            Err(record::Error::CutShort) => break,
            // What comes before can be had; the next read meets the damage.
            Err(_) if whole > 0 => break,
            Err(problem) => return Err(Failure::Batch(problem.into())),
        }
    }
    segment.hint(next_offset, place.position + whole as u64);
    if !trusted {
        segment.note_checked(place.position, place.position + whole as u64);
    }
    bytes.truncate(whole);
    Ok(Slice {
        bytes: Bytes::from(bytes),
        next_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn the_size_and_the_end_are_of_the_same_time() {
        let mut ends = [10, 11, 12, 12].into_iter();
        let mut sizes = [100, 110, 120].into_iter();
        let told = settled(
            || ends.next().expect("asked too often"),
            || sizes.next().expect("asked too often"),
        );
        assert_eq!(told, (120, 12));
    }
}
