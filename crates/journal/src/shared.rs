//! What the writer of a log, its readers and its cleaner share.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::checkpoint::{Checkpoint, Fence};
use crate::epochs::Epochs;
use crate::segment::Segment;

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

    pub(crate) fn undecided(&self) -> i64 {
        self.undecided.load(Ordering::Acquire)
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
