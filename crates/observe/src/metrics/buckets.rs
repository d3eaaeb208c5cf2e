//! Distributions over fixed buckets, counted with atomics only: no lock on the hot path. The buckets of one that has
//! counted nothing take no memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A distribution.
#[derive(Debug)]
pub struct Buckets {
    bounds: &'static [f64],
    /// One for each bound, one for what lies above them all, and the sum of all values in millionths.
    cells: OnceLock<Box<[AtomicU64]>>,
}

impl Buckets {
    /// Returns an empty one with these upper bounds.
    pub const fn new(bounds: &'static [f64]) -> Self {
        Buckets {
            bounds,
            cells: OnceLock::new(),
        }
    }

    /// Returns the upper bounds.
    pub fn bounds(&self) -> &'static [f64] {
        self.bounds
    }

    /// Counts one value, in the unit of the bounds. Negative values count as zero.
    pub fn observe(&self, value: f64) {
        let cells = self.cells.get_or_init(|| {
            let cells = self.bounds.len() + 2;
            (0..cells).map(|_| AtomicU64::new(0)).collect()
        });
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        cells[bucket].fetch_add(1, Relaxed);
        cells[self.bounds.len() + 1].fetch_add((value.max(0.0) * 1e6) as u64, Relaxed);
    }

    /// Counts one duration in seconds.
    pub fn record(&self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    /// Adds what another one of the same bounds has counted.
    pub fn add(&self, other: &Buckets) {
        debug_assert_eq!(self.bounds, other.bounds);
        let Some(theirs) = other.cells.get() else {
            return;
        };
        let cells = self.cells.get_or_init(|| {
            let cells = self.bounds.len() + 2;
            (0..cells).map(|_| AtomicU64::new(0)).collect()
        });
        for (ours, theirs) in cells.iter().zip(theirs) {
            ours.fetch_add(theirs.load(Relaxed), Relaxed);
        }
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.cells.get().is_none()
    }

    /// Returns how many values were counted.
    pub fn count(&self) -> u64 {
        self.read().0.iter().sum()
    }

    /// Returns the counts, the last of them for what lies above all bounds, and the sum.
    pub(super) fn read(&self) -> (Vec<u64>, f64) {
        let buckets = self.bounds.len() + 1;
        match self.cells.get() {
            None => (vec![0; buckets], 0.0),
            Some(cells) => {
                let counts = cells[..buckets].iter();
                let counts = counts.map(|count| count.load(Relaxed)).collect();
                (counts, cells[buckets].load(Relaxed) as f64 / 1e6)
            }
        }
    }
}
