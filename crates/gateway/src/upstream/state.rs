//! How one endpoint fares: whether it may be picked, what it works on, what went wrong last.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::outlier::watch::Counts;
use super::pool::Endpoint;

/// Discovery says that it must not be used.
const UNREADY: u8 = 1;
/// Its health checks fail, or none has passed yet.
const UNHEALTHY: u8 = 2;
/// Outlier detection has put it aside.
const EJECTED: u8 = 4;
/// It is no endpoint of the cluster any more.
const GONE: u8 = 8;

/// How an endpoint fares. It lives as long as the endpoint stays in its cluster; one that leaves and comes back starts
/// anew.
#[derive(Debug)]
pub(crate) struct State {
    flags: AtomicU8,
    /// Requests under way, counted where there are several endpoints.
    active: AtomicU64,
    /// When it last began to be usable.
    since: Mutex<Instant>,
    last_error: Mutex<Option<String>>,
    /// What outlier detection counts.
    pub(super) counts: Counts,
}

impl Default for State {
    fn default() -> Self {
        State {
            flags: AtomicU8::new(0),
            active: AtomicU64::new(0),
            since: Mutex::new(Instant::now()),
            last_error: Mutex::new(None),
            counts: Counts::default(),
        }
    }
}

impl State {
    /// Returns whether it may be picked.
    pub(crate) fn usable(&self) -> bool {
        self.flags.load(Relaxed) == 0
    }

    /// Returns whether discovery and health checks find it well.
    pub(crate) fn healthy(&self) -> bool {
        self.flags.load(Relaxed) & (UNREADY | UNHEALTHY) == 0
    }

    pub(crate) fn ejected(&self) -> bool {
        self.flags.load(Relaxed) & EJECTED != 0
    }

    pub(crate) fn gone(&self) -> bool {
        self.flags.load(Relaxed) & GONE != 0
    }

    /// Takes discovery's word. Returns whether that changed anything, as all that follow.
    pub(super) fn set_ready(&self, ready: bool) -> bool {
        self.set(UNREADY, !ready)
    }

    /// Takes the health checks' word.
    pub(super) fn set_checked(&self, healthy: bool) -> bool {
        self.set(UNHEALTHY, !healthy)
    }

    pub(super) fn set_ejected(&self, ejected: bool) -> bool {
        self.set(EJECTED, ejected)
    }

    pub(super) fn leave(&self) {
        self.set(GONE, true);
    }

    /// Returns when it last began to be usable.
    pub(super) fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, flag: u8, on: bool) -> bool {
        let before = match on {
            true => self.flags.fetch_or(flag, Relaxed),
            false => self.flags.fetch_and(!flag, Relaxed),
        };
        let changed = (before & flag != 0) != on;
        if changed && !on && before & !flag == 0 {
            self.set_since(Instant::now());
        }
        changed
    }

    pub(super) fn set_since(&self, since: Instant) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Returns how many requests are under way, where that is counted.
    pub(crate) fn active(&self) -> u64 {
        self.active.load(Relaxed)
    }

    pub(super) fn erred(&self, error: String) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Returns what went wrong last, for people.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// An endpoint that was picked for a try. Where there is a choice, it counts as busy until this is dropped.
pub(crate) struct Picked {
    pub(crate) endpoint: Arc<Endpoint>,
    counted: bool,
    /// Whether it may be waiting for the client's body, so that a time that is over is not its fault.
    pub(crate) excused: bool,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, counted: bool) -> Self {
        if counted {
            endpoint.state.active.fetch_add(1, Relaxed);
        }
        Picked {
            endpoint,
            counted,
            excused: false,
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        if self.counted {
            self.endpoint.state.active.fetch_sub(1, Relaxed);
        }
    }
}
