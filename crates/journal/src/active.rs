//! The segment that is being written: when to add to its indexes and when to close it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use kafka::record::{Header, NO_TIMESTAMP};
use tracing::warn;

use crate::config::Config;
use crate::disk;
use crate::index::{offset_entry, time_entry};
use crate::segment::Segment;

/// Bytes of the larger index entry.
const INDEX_ENTRY: u64 = 12;
/// File systems round a file's size up; more than this was taken in advance.
const SLACK: u64 = 1 << 20;

/// Kafka keeps positions and relative offsets in signed 32-bit numbers.
const RELATIVE_MAX: i64 = i32::MAX as i64;

/// The newest segment with what only its writer needs to know.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    since_index: u64,
    last_time_entry: i64,
    first_timestamp: i64,
    created: i64,
}

impl Active {
    /// Goes on with a segment that may hold batches already.
    pub(crate) fn new(segment: Arc<Segment>, now: i64) -> io::Result<Active> {
        let last = segment.times.last()?;
        let first_timestamp = segment.first_timestamp()?;
        Ok(Active {
            since_index: 0,
            last_time_entry: last.map_or(NO_TIMESTAMP, |entry| {
                crate::index::read_time_entry(&entry).0
            }),
            first_timestamp,
            created: now,
            segment,
        })
    }

    /// Returns whether batches of `size` bytes up to `last_offset` belong into a new segment.
    pub(crate) fn full(
        &self,
        config: &Config,
        size: usize,
        last_offset: i64,
        max_timestamp: i64,
        now: i64,
    ) -> bool {
        let held = self.segment.size();
        if held == 0 {
            return last_offset - self.segment.base() > RELATIVE_MAX;
        }
        let most = u64::from(config.segment_bytes).min(RELATIVE_MAX as u64);
        let segment_ms = config.segment_ms.saturating_sub(self.jitter(config));
        let age = match (self.first_timestamp, max_timestamp) {
            (first, latest) if first >= 0 && latest >= 0 => latest.saturating_sub(first),
            _ => now.saturating_sub(self.created),
        };
        held + size as u64 > most
            || last_offset - self.segment.base() > RELATIVE_MAX
            || age > segment_ms
            || self.segment.index_bytes() + INDEX_ENTRY > u64::from(config.index_bytes_max)
    }

    /// Returns by how much earlier this segment is closed than others: some time between none and
    /// `segment.jitter.ms`, the same for as long as it is open.
    fn jitter(&self, config: &Config) -> i64 {
        if config.segment_jitter_ms <= 0 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (self.segment.path(), self.created).hash(&mut hasher);
        let most = config.segment_jitter_ms.min(config.segment_ms) as u64;
        (hasher.finish() % (most + 1)) as i64
    }

    /// Gives back the space that was taken in advance and is not needed.
    pub(crate) fn trim(&self) -> io::Result<()> {
        let segment = &self.segment;
        let held = segment.file()?.metadata()?;
        let used = segment.size();
        // Blocks beyond the end are invisible in the length, so they are given back by setting it.
        match held.len() > used || held.blocks() * 512 > used + SLACK {
            true => disk::set_len(&*segment.file()?, used),
            false => Ok(()),
        }
    }

    /// Notes a batch that lies at `position`, with the header it has there.
    ///
    /// An index entry that cannot be written is left out: indexes are sparse and can be built anew.
    pub(crate) fn note(&mut self, batch: &Header<'_>, position: u64, interval: u32) {
        let segment = &self.segment;
        let (timestamp, last_offset) = (batch.max_timestamp(), batch.last_offset());
        if position == 0 {
            self.first_timestamp = timestamp;
        }
        if timestamp > segment.max_timestamp().0 {
            segment.set_max_timestamp(timestamp, last_offset);
        }
        if self.since_index > u64::from(interval) {
            let relative = (last_offset - segment.base()) as u32;
            if let Err(error) = segment
                .offsets
                .push(offset_entry(relative, position as u32))
            {
                warn!(%error, path = %segment.offsets.path().display(), "index entry left out");
            }
            self.note_time();
            self.since_index = 0;
        }
        self.since_index += batch.size() as u64;
    }

    /// Adds the latest timestamp to the time index, if it is news.
    pub(crate) fn note_time(&mut self) {
        let (timestamp, offset) = self.segment.max_timestamp();
        if timestamp <= self.last_time_entry {
            return;
        }
        let relative = (offset - self.segment.base()) as u32;
        match self.segment.times.push(time_entry(timestamp, relative)) {
            Ok(()) => self.last_time_entry = timestamp,
            Err(error) => {
                warn!(%error, path = %self.segment.times.path().display(), "index entry left out");
            }
        }
    }
}
