//! Taking a log into use again after a flush has failed.

use std::io::{self, IoSlice};

use tracing::info;

use super::{AppendError, Log};
use crate::checkpoint::Recovery;
use crate::disk;
use crate::scan::{FAR, Stop, Walk};
use crate::segment::Segment;

impl Log {
    /// Returns whether a flush has failed, so that nothing is taken until [`Log::heal`] or the next start.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Tries to flush again what a failed flush may have lost, and returns whether the log had failed.
    ///
    /// After a failure the system may take for written what never reached the disk. What was not flushed
    /// before is still in memory, as a rule: it is held against its checksums, written once more and flushed.
    /// When that works the log goes on as if nothing had been; else it stays as it is.
    pub fn heal(&mut self) -> Result<bool, AppendError> {
        if !self.failed {
            return Ok(false);
        }
        self.cut_back()?;
        let (segments, from) = {
            let shape = self.shared.shape();
            let state = self.shared.state();
            let first = Recovery::start_of(state.segments[0].base());
            let from = shape.checkpoint.recovery.unwrap_or(first);
            let unflushed = state.segments.iter();
            let unflushed = unflushed.filter(|segment| segment.base() >= from.segment);
            (unflushed.cloned().collect::<Vec<_>>(), from)
        };
        for segment in &segments {
            let position = match segment.base() == from.segment {
                true => from.position,
                false => 0,
            };
            rewrite(segment, position)?;
        }
        disk::sync_dir(self.dir())?;
        self.failed = false;
        self.closing.clear();
        self.shared.set_stable(self.shared.end());
        self.checkpoint().inspect_err(|_| self.failed = true)?;
        self.ended.clear();
        self.note_undecided();
        self.names_dirty.clear();
        self.dirty = false;
        info!(dir = %self.dir().display(), end = self.shared.end(), "the log is in use again");
        Ok(true)
    }
}

/// Writes the bytes of a segment from `position` on once more, and flushes them.
fn rewrite(segment: &Segment, position: u64) -> io::Result<()> {
    let (file, size) = (segment.file()?, segment.size());
    let mut walk = Walk::new(&file, position, size, FAR);
    loop {
        let at = walk.position();
        match walk.verify().and_then(|()| walk.header()) {
            Ok(Some(header)) => {
                let next = at + header.size() as u64;
                walk.seek(next);
            }
            Ok(None) => break,
            Err(Stop::Damaged(problem)) => return Err(io::Error::other(problem.to_string())),
            Err(Stop::Disk(error)) => return Err(error),
        }
    }
    let (mut at, mut buffer) = (position, Vec::new());
    while at < size {
        buffer.clear();
        disk::read_at(&file, &mut buffer, at, (size - at).min(FAR as u64) as usize)?;
        if buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        disk::write_all_at(&file, &mut [IoSlice::new(&buffer)], at)?;
        at += buffer.len() as u64;
    }
    segment.sync()
}
