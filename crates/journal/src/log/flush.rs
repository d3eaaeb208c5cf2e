//! Making the log durable: group commit, the end of a segment, the recovery point.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::warn;

use super::{AppendError, Closing, Log};
use crate::active::Active;
use crate::checkpoint::Recovery;
use crate::disk;
use crate::producer::snapshot;
use crate::segment::Segment;
use crate::shared::Shared;

/// After this many bytes the recovery point moves on, which bounds what an unclean start must read.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Closed segments that may wait for a flush; the next one waits for theirs.
const CLOSING_MAX: usize = 4;

/// A flush under way: run it on any thread, then tell the log.
#[derive(Debug)]
pub struct Flush {
    shared: Arc<Shared>,
    /// Files with new bytes: those of closed segments, then the newest.
    files: Vec<Arc<File>>,
    /// Folders with new names in them.
    dirs: Vec<PathBuf>,
    /// How often names had changed by then.
    names: u64,
    up_to: i64,
    point: Option<Point>,
}

/// A place from which the next start may begin once all before it is on disk.
#[derive(Debug)]
struct Point {
    recovery: Recovery,
    /// Closed since the last one; their indexes are complete.
    closed: Vec<Arc<Segment>>,
    newest: Arc<Segment>,
    /// Producers as of these offsets, each as its file's bytes.
    snapshots: Vec<(i64, Arc<[u8]>)>,
    /// Recovery must not begin before it: a segment was closed.
    needed: bool,
}

impl Flush {
    /// Waits until the disk has it all.
    ///
    /// A flush that closes a segment also moves the recovery point behind it: so what a start finds behind
    /// a torn segment was never acknowledged.
    pub fn run(&self) -> io::Result<()> {
        self.files
            .iter()
            .try_for_each(|file| disk::sync_data(file))?;
        self.dirs.iter().try_for_each(|dir| disk::sync_dir(dir))?;
        let Some(point) = &self.point else {
            return Ok(());
        };
        let moved = point.write(&self.shared);
        match moved {
            Err(error) if !point.needed => {
                // The next start reads more, that is all.
                warn!(dir = %self.shared.dir.display(), %error, "could not move the recovery point");
                Ok(())
            }
            moved => moved,
        }
    }
}

impl Point {
    fn write(&self, shared: &Shared) -> io::Result<()> {
        for segment in self.closed.iter().chain([&self.newest]) {
            match segment.sync_indexes() {
                // It was deleted meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        let mut shape = shared.shape();
        if shape.foreign {
            return Ok(()); // by now another log may be there
        }
        for (offset, bytes) in &self.snapshots {
            disk::replace(&snapshot::path(&shared.dir, *offset), bytes)?;
        }
        let known = shape.checkpoint.recovery.map_or(-1, |point| point.offset);
        if known > self.recovery.offset {
            return Ok(());
        }
        shared.write_checkpoint(&mut shape, |next| next.recovery = Some(self.recovery))
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
        let newest = Arc::clone(&self.active.segment);
        let mut files = Vec::with_capacity(self.closing.len() + 1);
        for closing in &self.closing {
            files.push(closing.segment.file()?);
        }
        files.push(newest.file()?);
        let point = self.point(newest);
        self.dirty = false;
        Ok(Some(Flush {
            shared: Arc::clone(&self.shared),
            files,
            point,
            dirs: self
                .names_dirty
                .iter()
                .map(|(_, dir)| dir.clone())
                .collect(),
            names: self.names_changed,
            up_to: self.shared.end(),
        }))
    }

    /// Takes what the next recovery point needs, if it is time for one.
    fn point(&mut self, newest: Arc<Segment>) -> Option<Point> {
        let due = self.since_checkpoint >= CHECKPOINT_BYTES;
        if self.closing.is_empty() && !due {
            return None;
        }
        // They stay until a flush has ended: another that was begun may never be run.
        let closing = self.closing.iter();
        let segments = closing.clone().map(|closing| Arc::clone(&closing.segment));
        let closed: Vec<_> = segments.collect();
        let mut snapshots: Vec<_> = closing.map(|closing| closing.snapshot.clone()).collect();
        let needed = !closed.is_empty();
        let recovery = match due {
            true => {
                self.active.note_time();
                self.since_checkpoint = 0;
                let end = self.shared.end();
                snapshots.push((end, snapshot::encode(&self.producers).into()));
                self.here()
            }
            false => Recovery::start_of(newest.base()),
        };
        Some(Point {
            recovery,
            closed,
            newest,
            snapshots,
            needed,
        })
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
        if let Some(point) = &flush.point {
            let flushed = |one: &Closing| {
                let mut closed = point.closed.iter();
                closed.any(|closed| Arc::ptr_eq(closed, &one.segment))
            };
            self.closing.retain(|closing| !flushed(closing));
            let offsets = point.snapshots.iter().map(|(offset, _)| *offset);
            self.snapshots.extend(offsets);
            for segment in &point.closed {
                // Its files are opened again by those who read it.
                segment.release();
            }
            self.prune_snapshots();
        }
        Ok(self.shared.stable())
    }

    /// Closes the active segment and begins a new one. The old one is flushed with the next flush, which is
    /// due now: see [`Log::take_rolled`].
    pub fn roll(&mut self, now: i64) -> Result<(), AppendError> {
        self.usable()?;
        let base = self.shared.end();
        if base == self.active.segment.base() {
            return Ok(()); // empty: nothing to close
        }
        if self.closing.len() >= CLOSING_MAX {
            self.flush()?;
        }
        self.active.note_time();
        self.active.trim()?;
        self.producers.expire(now, self.config.producer_idle_ms);
        let dir = self.dir().to_owned();
        let segment = Segment::create(&dir, base, now);
        let segment = Arc::new(segment.inspect_err(|_| Segment::discard(&dir, base))?);
        if self.config.preallocate {
            segment.preallocate(self.config.segment_bytes);
        }
        let active = Active::new(Arc::clone(&segment), now)?;
        self.shared.state_mut().segments.push(segment);
        let closed = std::mem::replace(&mut self.active, active).segment;
        self.closing.push(Closing {
            segment: closed,
            snapshot: (base, snapshot::encode(&self.producers).into()),
        });
        self.note_names(dir);
        self.dirty = true;
        self.rolled = true;
        Ok(())
    }

    /// Returns once for each time that a segment was closed, by [`Log::append`] too, that a flush is due.
    pub fn take_rolled(&mut self) -> bool {
        std::mem::take(&mut self.rolled)
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
        self.active.segment.sync_indexes()?;
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
        let mut shape = self.shared.shape();
        self.shared
            .write_checkpoint(&mut shape, |next| next.recovery = Some(recovery))?;
        drop(shape);
        self.since_checkpoint = 0;
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
        self.active.trim()?;
        let known = self.shared.shape().checkpoint.recovery;
        if known != Some(self.here()) {
            self.checkpoint()?;
        }
        self.shared.shape().foreign = true;
        Ok(())
    }
}
