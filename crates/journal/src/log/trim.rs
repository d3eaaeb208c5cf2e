//! Making the log shorter: retention, DeleteRecords, cutting its end, deleting it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{AppendError, Log};
use crate::checkpoint::Recovery;
use crate::config::Retention;
use crate::disk;
use crate::recover;
use crate::scan::Stop;
use crate::segment::Segment;

/// What a deleted partition's folder is called until it is gone.
const DELETED: &str = "-delete";

/// Why a start offset cannot be moved or a log cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The offset is beyond the end.
    #[error("offset {offset} is after the end of the log at {end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// Offset that the next record gets.
        end: i64,
    },
    /// The disk refused.
    #[error("could not change the log")]
    Disk(#[from] io::Error),
}

impl Log {
    /// Deletes the oldest segments as far as the policy asks, and returns their base offsets.
    ///
    /// When even the newest record is too old, the active segment goes too.
    pub fn retain(&mut self, now: i64, policy: &Retention) -> Result<Vec<i64>, AppendError> {
        self.usable()?;
        let old = |segment: &Segment| {
            let age = now.saturating_sub(segment.age_from());
            policy.age_ms.is_some_and(|max| age > max)
        };
        if self.active.segment.size() > 0 && old(&self.active.segment) {
            self.roll(now)?;
        }
        let mut start = self.shared.start();
        {
            let state = self.shared.state();
            let mut left: u64 = state.segments.iter().map(|segment| segment.size()).sum();
            for pair in state.segments.windows(2) {
                let size = pair[0].size();
                let spare = policy.bytes.is_some_and(|max| left - size >= max);
                if !(old(&pair[0]) || spare || pair[1].base() <= start) {
                    break;
                }
                left -= size;
                start = start.max(pair[1].base());
            }
        }
        self.producers.expire(now, self.config.producer_idle_ms);
        Ok(self.move_start(start)?)
    }

    /// Hides all records before `offset` and deletes the segments that hold nothing else
    /// (DeleteRecords). Returns the start of the log.
    pub fn delete_before(&mut self, offset: i64) -> Result<i64, CutError> {
        let end = self.shared.end();
        if offset > end {
            return Err(CutError::OutOfRange { offset, end });
        }
        self.move_start(offset)?;
        Ok(self.shared.start())
    }

    /// Moves the start of the log on, durably, then deletes what lies wholly before it.
    fn move_start(&mut self, start: i64) -> io::Result<Vec<i64>> {
        if start <= self.shared.start() {
            return Ok(Vec::new());
        }
        let mut shape = self.shared.shape();
        self.shared.write_checkpoint(&mut shape, |next| {
            next.start = start;
            // A segment that recovery would begin with may be among those that go.
            let first = self.first_kept(start);
            next.recovery = next.recovery.filter(|point| point.segment >= first);
        })?;
        self.shared.set_start(start);
        let gone: Vec<Arc<Segment>> = {
            let mut state = self.shared.state_mut();
            state.epochs.trim(start);
            state.fences.retain(|fence| fence.to_offset > start);
            let count = state
                .segments
                .partition_point(|segment| segment.base() <= start)
                - 1;
            state.generation += 1;
            state.segments.drain(..count).collect()
        };
        for segment in &gone {
            segment.remove()?;
        }
        drop(shape);
        self.prune_snapshots();
        Ok(gone.iter().map(|segment| segment.base()).collect())
    }

    fn first_kept(&self, start: i64) -> i64 {
        let state = self.shared.state();
        let number = state
            .segments
            .partition_point(|segment| segment.base() <= start);
        state.segments[number.saturating_sub(1)].base()
    }

    /// Removes all records from the batch that holds `offset` on, and returns the new end.
    pub fn truncate_to(&mut self, offset: i64, now: i64) -> Result<i64, CutError> {
        let end = self.shared.end();
        if offset > end {
            return Err(CutError::OutOfRange { offset, end });
        }
        let (segment, later) = {
            let state = self.shared.state();
            let number = state
                .segments
                .partition_point(|segment| segment.base() <= offset)
                .max(1)
                - 1;
            (
                Arc::clone(&state.segments[number]),
                state.segments[number + 1..].to_vec(),
            )
        };
        let found = segment.find(
            offset,
            segment.size(),
            |_| None,
            |header| header.last_offset() >= offset,
        );
        let (position, base_offset) = match found {
            Ok(Some(place)) => (place.position, place.base_offset),
            Ok(None) => (segment.size(), offset),
            Err(Stop::Damaged(_)) => return Err(damaged().into()),
            Err(Stop::Disk(error)) => return Err(error.into()),
        };
        // From here on a crash leads to a scan of this segment, wherever the cut has got to.
        let shared = Arc::clone(&self.shared);
        let mut shape = shared.shape();
        let from = Recovery::start_of(segment.base());
        let start = shared.start().min(base_offset);
        shared.write_checkpoint(&mut shape, |next| {
            next.start = start;
            next.recovery = Some(from);
            next.cleaned_to = next.cleaned_to.min(base_offset);
        })?;
        shared.set_start(start);
        self.failed = true; // until all of it is done
        for segment in later.iter().rev() {
            segment.remove()?;
        }
        segment.cut(position)?;
        let dir = self.dir().to_owned();
        disk::sync_dir(&dir)?;

        let loaded = recover::load(&dir, &self.config, now, false)?;
        {
            let mut state = self.shared.state_mut();
            state.segments = loaded.segments;
            state.fences = loaded.checkpoint.fences.clone();
            state.epochs = loaded.epochs;
            state.epochs.write(&dir)?;
            state.generation += 1;
        }
        self.active = loaded.active;
        self.producers = loaded.producers;
        self.ended.clear();
        self.snapshots = loaded.snapshots;
        shape.checkpoint = loaded.checkpoint;
        self.shared.set_end(loaded.end);
        self.shared.set_stable(loaded.end);
        self.note_undecided();
        self.note_names(dir);
        self.closing.clear();
        self.dirty = false;
        self.uncut = false;
        self.failed = false;
        Ok(loaded.end)
    }

    /// Deletes the partition. Its name is free at once; readers keep what they have open.
    pub fn remove(self) -> io::Result<()> {
        let dir = self.dir();
        let mut shape = self.shared.shape();
        shape.foreign = true;
        let unique = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{unique:032x}{DELETED}"));
        let doomed = dir.with_file_name(name);
        fs::rename(dir, &doomed)?;
        if let Some(parent) = dir.parent() {
            disk::sync_dir(parent)?;
        }
        drop(shape);
        fs::remove_dir_all(&doomed)
    }
}

/// Removes the folders of partitions whose deletion was interrupted, and returns how many there were.
pub fn sweep(root: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let doomed = path.file_name().and_then(|name| name.to_str());
        if doomed.is_some_and(|name| name.ends_with(DELETED)) && path.is_dir() {
            fs::remove_dir_all(&path)?;
            count += 1;
        }
    }
    Ok(count)
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the log is damaged where it would be cut",
    )
}
