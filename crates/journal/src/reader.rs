//! Reading a log, from any thread, while it is being written.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use kafka::record;
use tracing::error;

use crate::aborted::{self, Aborted};
use crate::checkpoint::Fence;
use crate::scan::{Damage, Stop};
use crate::segment::{Place, Segment};
use crate::shared::Shared;

use damage::Spot;
pub use take::{Held, Slice, Stretch};
use take::{read_batches, stretch};
pub use times::Found;

mod damage;
mod take;
mod times;

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
        self.shared.undecided()
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
        match self.seek(offset, max_bytes, min_one, up_to, read_batches)? {
            Some(slice) => Ok(slice),
            None => Ok(Slice {
                bytes: Bytes::new(),
                next_offset: offset,
            }),
        }
    }

    /// As [`Reader::read`], for who can send records right from their file. What was not checked yet comes as bytes.
    pub fn hold(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        up_to: i64,
    ) -> Result<Held, ReadError> {
        let take = |segment: &Segment, place: &Place, len, up_to, dense| match stretch(
            segment, place, len, up_to,
        )? {
            Some(stretch) => Ok(Held::InFile(stretch)),
            None => read_batches(segment, place, len, up_to, dense).map(Held::Bytes),
        };
        match self.seek(offset, max_bytes, min_one, up_to, take)? {
            Some(held) => Ok(held),
            None => Ok(Held::Bytes(Slice {
                bytes: Bytes::new(),
                next_offset: offset,
            })),
        }
    }

    /// Finds the batch that holds `offset`, and takes from there on; nothing at the end of the log.
    fn seek<T>(
        &self,
        offset: i64,
        max_bytes: usize,
        min_one: bool,
        up_to: i64,
        take: impl Fn(&Segment, &Place, usize, i64, bool) -> Result<T, Failure>,
    ) -> Result<Option<T>, ReadError> {
        let (start, end) = (self.shared.start(), self.shared.end());
        if offset < start || offset > end {
            return Err(ReadError::OutOfRange { offset, start, end });
        }
        let up_to = up_to.min(end);
        if offset >= up_to {
            return Ok(None);
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
                return Ok(None);
            }
            let taken = if elsewhere {
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
                take(&segment, &place, len as usize, up_to, dense)
            };
            if let Err(Failure::Batch(problem)) = &taken
                && let Some((from, to)) = self.fence(offset, &segment, &Spot::of(&place), problem)
            {
                return Err(ReadError::Damaged { from, to });
            }
            return self.checked(offset, taken).map(Some);
        }
        // Not found although it should be there, unless the log was cut meanwhile.
        let (start, end) = (self.shared.start(), self.shared.end());
        match offset {
            _ if offset < start => Err(ReadError::OutOfRange { offset, start, end }),
            _ if offset >= end => Ok(None),
            // Compaction took the last records there were.
            _ if offset < self.shared.state().sparse_to => Ok(None),
            _ => Err(ReadError::Damaged {
                from: offset,
                to: offset + 1,
            }),
        }
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

fn skip(fences: &[Fence]) -> impl Fn(u64) -> Option<u64> {
    |position| {
        let inside = |fence: &&Fence| (fence.from_position..fence.to_position).contains(&position);
        fences.iter().find(inside).map(|fence| fence.to_position)
    }
}
