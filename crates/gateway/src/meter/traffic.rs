//! Bytes on connections. Each core adds to a cache line of its own, so that cores do not wait for each other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Bytes in both directions, by the core. Takes memory when the first connection is there.
#[derive(Default)]
pub(crate) struct Traffic(OnceLock<Arc<[Line]>>);

/// What one core has counted.
#[derive(Default)]
#[repr(align(64))]
struct Line {
    received: AtomicU64,
    sent: AtomicU64,
}

/// Where a connection of one core counts.
#[derive(Clone)]
pub(crate) struct Tally {
    lines: Arc<[Line]>,
    core: usize,
}

impl Traffic {
    /// Returns where a connection counts that one of so many cores has.
    pub(crate) fn tally(&self, core: usize, cores: usize) -> Tally {
        let lines = self
            .0
            .get_or_init(|| (0..cores.max(1)).map(|_| Line::default()).collect());
        Tally {
            lines: lines.clone(),
            core: core % lines.len(),
        }
    }

    /// Returns the bytes that came.
    pub(crate) fn received(&self) -> u64 {
        self.sum(|line| &line.received)
    }

    /// Returns the bytes that went.
    pub(crate) fn sent(&self) -> u64 {
        self.sum(|line| &line.sent)
    }

    fn sum(&self, of: impl Fn(&Line) -> &AtomicU64) -> u64 {
        let lines = self.0.get().into_iter().flat_map(|lines| lines.iter());
        lines.map(|line| of(line).load(Relaxed)).sum()
    }
}

impl Tally {
    pub(crate) fn received(&self, bytes: usize) {
        self.lines[self.core]
            .received
            .fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.lines[self.core].sent.fetch_add(bytes as u64, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_add_up() {
        let traffic = Traffic::default();
        assert_eq!((traffic.received(), traffic.sent()), (0, 0));
        traffic.tally(0, 2).received(3);
        traffic.tally(1, 2).received(4);
        let tally = traffic.tally(1, 2);
        tally.sent(5);
        tally.sent(1);
        assert_eq!((traffic.received(), traffic.sent()), (7, 6));
    }
}
