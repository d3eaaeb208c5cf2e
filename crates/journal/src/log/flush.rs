//! Making the log durable: group commit, the end of a segment, the recovery point.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::{AppendError, Log};
use crate::active::Active;
use crate::checkpoint::{Checkpoint, Recovery};
use crate::disk;
use crate::producer::snapshot;
use crate::segment::Segment;

/// After this many bytes the recovery point moves on, which bounds what an unclean start must read.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// A flush under way: run it on any thread, then tell the log.
#[derive(Debug)]
pub struct Flush {
    file: Arc<File>,
    /// Folders with new names in them.
    dirs: Vec<PathBuf>,
    /// How often names had changed by then.
    names: u64,
    up_to: i64,
}

impl Flush {
    /// Waits until the disk has it all.
    pub fn run(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.dirs.iter().try_for_each(|dir| disk::sync_dir(dir))
    }
}

impl Log {
    /// Puts everything that was appended on disk and returns the stable offset.
    pub fn flush(&mut self) -> Result<i64, AppendError> {
        // What another flush has begun is not on disk before it has ended.
        self.dirty |= self.shared.stable() < self.shared.end();
        match self.begin_flush()? {
            None => Ok(self.shared.stable()),
            Some(flush) => {
                let result = flush.run();
                self.end_flush(&flush, result)
            }
        }
    }

    /// Starts to flush what was appended so far; `None` when nothing was since the last flush began.
    ///
    /// [`Flush::run`] may run on another thread, and appending may go on meanwhile, as long as its
    /// outcome comes back to [`Log::end_flush`] in the order in which flushes began.
    pub fn begin_flush(&mut self) -> Result<Option<Flush>, AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        if !self.dirty {
            return Ok(None);
        }
        let file = self.active.segment.file()?;
        self.dirty = false;
        Ok(Some(Flush {
            file,
            dirs: self
                .names_dirty
                .iter()
                .map(|(_, dir)| dir.clone())
                .collect(),
            names: self.names_changed,
            up_to: self.shared.end(),
        }))
    }

    /// Notes that names in a folder changed, which the next flush makes durable.
    pub(super) fn note_names(&mut self, dir: PathBuf) {
        self.names_changed += 1;
        self.names_dirty.push((self.names_changed, dir));
    }

    /// Takes the outcome of a flush and returns the stable offset.
    ///
    /// After a failed one the system may have dropped what was to be written, so the log takes nothing
    /// more: it must be opened again.
    pub fn end_flush(&mut self, flush: &Flush, result: io::Result<()>) -> Result<i64, AppendError> {
        if let Err(error) = result {
            self.failed = true;
            return Err(AppendError::Disk(error));
        }
        if self.failed {
            // The system tells of a failure once: this flush may owe its success to that.
            return Err(AppendError::Failed);
        }
        self.names_dirty.retain(|(number, _)| *number > flush.names);
        self.shared
            .set_stable(self.shared.stable().max(flush.up_to));
        if !self.ended.is_empty() {
            let stable = self.shared.stable();
            self.ended.retain(|_, last| *last >= stable);
            self.note_undecided();
        }
        if self.since_checkpoint >= CHECKPOINT_BYTES
            && self.shared.stable() == self.shared.end()
            && let Err(error) = self.checkpoint()
        {
            // The next start reads more, that is all.
            warn!(dir = %self.dir().display(), %error, "could not move the recovery point");
            self.since_checkpoint = 0;
        }
        Ok(self.shared.stable())
    }

    /// Closes the active segment and begins a new one, with everything before it on disk.
    pub fn roll(&mut self, now: i64) -> Result<(), AppendError> {
        self.flush()?;
        let base = self.shared.end();
        if base == self.active.segment.base() {
            return Ok(()); // empty: nothing to close
        }
        self.active.note_time();
        self.sync_indexes()?;
        self.producers.expire(now, self.config.producer_idle_ms);
        self.snapshot()?;
        let dir = self.dir().to_owned();
        let segment = Arc::new(Segment::create(&dir, base, now)?);
        disk::sync_dir(&dir)?;
        let active = Active::new(Arc::clone(&segment), now)?;
        self.shared.state_mut().segments.push(segment);
        // Its files are opened again by those who read it.
        std::mem::replace(&mut self.active, active)
            .segment
            .release();
        self.write_recovery_point()?;
        self.prune_snapshots();
        Ok(())
    }

    fn sync_indexes(&self) -> io::Result<()> {
        self.active.segment.offsets.sync()?;
        self.active.segment.times.sync()?;
        self.active.segment.aborted.sync()
    }

    fn snapshot(&mut self) -> io::Result<()> {
        let end = self.shared.end();
        snapshot::write(self.dir(), end, &self.producers)?;
        self.snapshots.insert(end);
        Ok(())
    }

    /// Writes all that lets the next start begin here. Everything must be flushed.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        self.active.note_time();
        self.sync_indexes()?;
        self.snapshot()?;
        self.write_recovery_point()?;
        self.prune_snapshots();
        Ok(())
    }

    /// The place after the last batch.
    fn here(&self) -> Recovery {
        let segment = &self.active.segment;
        Recovery {
            segment: segment.base(),
            position: segment.size(),
            offset: self.shared.end(),
            offsets: segment.offsets.count(),
            times: segment.times.count(),
            aborted: segment.aborted.count(),
        }
    }

    fn write_recovery_point(&mut self) -> io::Result<()> {
        let recovery = self.here();
        self.write_checkpoint(Some(recovery))?;
        self.since_checkpoint = 0;
        Ok(())
    }

    pub(super) fn write_checkpoint(&mut self, recovery: Option<Recovery>) -> io::Result<()> {
        let start = self.shared.start();
        let mut fences = self.checkpoint.fences.clone();
        fences.retain(|fence| fence.to_offset > start);
        let checkpoint = Checkpoint {
            start,
            recovery,
            fences,
        };
        checkpoint.write(self.dir())?;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// Removes snapshots that are neither the newest nor at the start of a segment.
    pub(super) fn prune_snapshots(&mut self) {
        let newest = self.snapshots.last().copied();
        let bases: BTreeSet<i64> = self
            .shared
            .state()
            .segments
            .iter()
            .map(|segment| segment.base())
            .collect();
        let dir = self.dir().to_owned();
        self.snapshots.retain(|offset| {
            if Some(*offset) == newest || bases.contains(offset) {
                return true;
            }
            let path = snapshot::path(&dir, *offset);
            disk::remove(&path).is_err_and(|error| {
                warn!(path = %path.display(), %error, "could not remove an old snapshot");
                true
            })
        });
    }

    /// Flushes and leaves everything so that the next start need not read the log.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.usable()?;
        self.flush()?;
        if self.checkpoint.recovery != Some(self.here()) {
            self.checkpoint()?;
        }
        Ok(())
    }
}
