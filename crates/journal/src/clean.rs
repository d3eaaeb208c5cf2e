//! Compaction: of each key only the latest record stays.
//!
//! As in Apache Kafka. The log has a clean part, in which no key stands twice, and a dirty one behind it; the
//! newest segment, records that are too young and transactions that are not decided come after both. A pass
//! first reads the keys of the dirty part into a map (as many as fit), then writes all segments before the
//! map's end anew, without the records that the map supersedes, and puts each group of them in the place of
//! the old ones. Offsets stay as they are. A tombstone stays for `delete.retention.ms` after the pass that
//! found it alone, so that a reader who is on the way learns of it.
//!
//! [`plan`] and [`filter`] decide and touch no file; [`work`] reads and writes. All of it runs on a thread of
//! its own beside readers and the writer, whom it does not lock out.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crate::checkpoint::Fence;
use crate::config::{Compaction, Config};
use crate::scan::Damage;
use crate::segment::Segment;
use crate::shared::Shared;

mod filter;
mod keys;
mod plan;
mod work;

pub(crate) use filter::Last;
use plan::Span;

/// Bytes that one key takes in the map, as Kafka counts them: a hash of 16 and an offset of 8.
const KEY_BYTES: usize = 24;
/// Share of the map that is used at most.
const LOAD_PERCENT: usize = 90;

/// What a pass may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `log.cleaner.dedupe.buffer.size`: bytes for the map of keys.
    pub keys_bytes_max: usize,
    /// `log.cleaner.io.buffer.size`: bytes that are read or written at once.
    pub buffer_bytes: usize,
    /// Most bytes that one batch may inflate to.
    pub inflated_max: usize,
}

impl Default for Limits {
    /// Returns Kafka's defaults.
    fn default() -> Limits {
        Limits {
            keys_bytes_max: 128 << 20,
            buffer_bytes: 512 << 10,
            inflated_max: 128 << 20,
        }
    }
}

impl Limits {
    fn keys_max(&self) -> usize {
        (self.keys_bytes_max / KEY_BYTES * LOAD_PERCENT / 100).max(1)
    }
}

/// What there is to do in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirt {
    /// Where the dirty part begins.
    pub from: i64,
    /// The first offset that must stay as it is.
    pub to: i64,
    /// Bytes before the dirty part.
    pub clean_bytes: u64,
    /// Bytes in it.
    pub dirty_bytes: u64,
    /// Some of it is older than `max.compaction.lag.ms`.
    pub overdue: bool,
}

impl Dirt {
    /// Returns which share of the bytes is dirty, from 0 to 1.
    pub fn ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }

    /// Returns whether it is time for a pass.
    pub fn due(&self, settings: &Compaction) -> bool {
        self.dirty_bytes > 0 && (self.overdue || self.ratio() > settings.dirty_ratio_min)
    }
}

/// What a pass has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cleaned {
    /// First offset of the dirty part.
    pub from: i64,
    /// The log is clean up to here.
    pub to: i64,
    /// Keys in the map.
    pub keys: usize,
    /// Bytes of the segments that were looked at.
    pub bytes_before: u64,
    /// Bytes that are left of them.
    pub bytes_after: u64,
    /// Records that went.
    pub removed: u64,
}

/// Why a pass did not come to its end. What it had done until then holds.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// A segment is damaged; it is left alone from now on.
    #[error("the segment at {segment} is damaged at offset {offset}")]
    Damaged {
        /// Its base offset.
        segment: i64,
        /// The last good offset before the damage, or the base.
        offset: i64,
        /// What is wrong with it.
        source: DamageFound,
    },
    /// Retention, DeleteRecords or a deletion of the topic came between.
    #[error("the log has changed meanwhile")]
    Changed,
    /// Somebody wants it to stop.
    #[error("stopped")]
    Stopped,
    /// The disk refused.
    #[error("could not write the compacted log")]
    Disk(#[from] io::Error),
}

/// What is wrong with the bytes of a batch.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DamageFound(#[from] Damage);

/// A log as compaction finds it; see [`crate::Log::cleaning`].
#[derive(Debug)]
pub struct Cleaning {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
    pub(crate) settings: Compaction,
    /// All segments but the newest.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) fences: Vec<Fence>,
    /// Segments that are left as they are.
    pub(crate) excluded: Vec<i64>,
    pub(crate) start: i64,
    pub(crate) cleaned_to: i64,
    /// Everything from here on must stay as it is.
    pub(crate) limit: i64,
    /// Base offset of the newest segment.
    pub(crate) active_base: i64,
    pub(crate) producers: HashMap<i64, Last>,
}

impl Cleaning {
    /// Returns how it is to be compacted.
    pub fn settings(&self) -> &Compaction {
        &self.settings
    }

    /// Tells what there is to do at `now` (ms since 1970). Reads the first batch of segments if
    /// `max.compaction.lag.ms` is set.
    pub fn dirt(&self, now: i64) -> io::Result<Dirt> {
        let asks_age = self.settings.lag_max_ms < i64::MAX;
        let mut spans = Vec::with_capacity(self.segments.len());
        for (number, segment) in self.segments.iter().enumerate() {
            let next = self.segments.get(number + 1);
            let end = next.map_or(self.active_base, |next| next.base());
            let first = match asks_age && end > self.cleaned_to {
                true => segment.first_timestamp()?,
                false => kafka::record::NO_TIMESTAMP,
            };
            spans.push(Span {
                base: segment.base(),
                end,
                size: segment.size(),
                index_bytes: segment.index_bytes(),
                first,
                latest: segment.age_from(),
                excluded: self.excluded.contains(&segment.base()),
            });
        }
        Ok(plan::dirt(
            &spans,
            self.cleaned_to.max(self.start),
            self.limit,
            &self.settings,
            now,
        ))
    }

    /// Does a pass over what `dirt` tells. `pace` is told how many bytes were read or written just now; it may
    /// take its time, and ends the pass by returning false.
    pub fn run(
        &self,
        dirt: &Dirt,
        now: i64,
        limits: &Limits,
        pace: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Cleaned, CleanError> {
        if dirt.dirty_bytes == 0 && dirt.clean_bytes == 0 {
            return Ok(Cleaned::default());
        }
        work::run(self, dirt, now, limits, pace).map_err(|error| match error {
            // Segments were deleted before they were opened.
            CleanError::Disk(error) if error.kind() == io::ErrorKind::NotFound => {
                CleanError::Changed
            }
            error => error,
        })
    }
}
