//! What one connection's timers need to know, shared by its gate, its exchanges and its task. All of them run on one
//! core, so that nothing here is ever contended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::time::Instant;

use super::Timeouts;
use crate::refusal::Refusal;

const NEVER: u64 = u64::MAX;
/// Requests that a client may give up on one connection before its share of them counts.
const ABANDONED_MAX: u64 = 200;

/// What became of a request to upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Not decided yet.
    Open,
    /// The upstream has switched: every byte passes.
    Tunnel,
    /// It stays HTTP/1.1: the next bytes are a head.
    Plain,
}

/// Why a connection's time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// Nothing has happened for long.
    Idle,
    /// A head began and did not end.
    Head,
    /// The client takes no bytes, or does not close after the last one.
    Stalled,
    /// The client gives up most of what it asks for.
    Wasteful,
}

/// The state of one connection.
pub(crate) struct Watch {
    began: Instant,
    timeouts: Timeouts,
    /// Exchanges under way.
    busy: AtomicU32,
    /// Requests that ended or began so far.
    requests: AtomicU64,
    /// Those that the client gave up.
    abandoned: AtomicU64,
    /// Milliseconds since `began`: when the last exchange ended, when the held head began, and so on.
    idle_since: AtomicU64,
    head_since: AtomicU64,
    stalled_since: AtomicU64,
    closing_since: AtomicU64,
    head_expired: AtomicBool,
    decision: AtomicU8,
    /// Who waits for the decision.
    undecided: Mutex<Option<Waker>>,
    http2: AtomicBool,
    /// The number of the request that stands in for a refused head.
    refused_at: AtomicU64,
    refusal: Mutex<Option<Refusal>>,
}

impl Watch {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Watch {
            began: Instant::now(),
            timeouts,
            busy: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            // A new connection owes its first head.
            head_since: AtomicU64::new(0),
            stalled_since: AtomicU64::new(NEVER),
            closing_since: AtomicU64::new(NEVER),
            head_expired: AtomicBool::new(false),
            decision: AtomicU8::new(Decision::Open as u8),
            undecided: Mutex::new(None),
            http2: AtomicBool::new(false),
            refused_at: AtomicU64::new(NEVER),
            refusal: Mutex::new(None),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.began).as_millis() as u64
    }

    /// An exchange begins; returns why it must be refused, if its head was.
    pub(crate) fn begin(&self) -> Option<Refusal> {
        let number = self.requests.fetch_add(1, Relaxed);
        self.busy.fetch_add(1, Relaxed);
        self.head_since.store(NEVER, Relaxed);
        if number != self.refused_at.load(Relaxed) {
            return None;
        }
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An exchange has ended.
    pub(crate) fn end(&self, now: Instant) {
        self.busy.fetch_sub(1, Relaxed);
        self.idle_since.store(self.millis(now), Relaxed);
    }

    /// The client gave up on an exchange.
    pub(crate) fn abandon(&self) {
        self.abandoned.fetch_add(1, Relaxed);
    }

    /// Says what becomes of the connection after a request to upgrade.
    pub(crate) fn decide(&self, decision: Decision) {
        self.decision.store(decision as u8, Relaxed);
        let waiting = self
            .undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Wakes the connection when the decision is there.
    pub(super) fn wait_decision(&self, waker: &Waker) {
        *self
            .undecided
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    /// The connection speaks HTTP/2, which has no heads to wait for between its frames.
    pub(super) fn http2(&self) {
        self.http2.store(true, Relaxed);
        self.head_since.store(NEVER, Relaxed);
    }

    /// Takes the decision; the next upgrade needs one of its own.
    pub(super) fn decision(&self) -> Decision {
        match self.decision.swap(Decision::Open as u8, Relaxed) {
            1 => Decision::Tunnel,
            2 => Decision::Plain,
            _ => Decision::Open,
        }
    }

    pub(super) fn refuse(&self, heads: u64, refusal: Refusal) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.refused_at.store(heads, Relaxed);
    }

    /// Part of a head came, and no more of it yet.
    pub(super) fn head_began(&self) {
        if self.head_since.load(Relaxed) == NEVER {
            self.head_since.store(self.millis(Instant::now()), Relaxed);
        }
    }

    /// Tells the gate that the held head's time is over.
    pub(super) fn expire_head(&self) {
        self.head_since.store(NEVER, Relaxed);
        self.head_expired.store(true, Relaxed);
    }

    pub(super) fn take_expired(&self) -> bool {
        self.head_expired.swap(false, Relaxed)
    }

    /// Bytes were taken by the client, or not.
    pub(super) fn wrote(&self, ready: bool) {
        let stalled = self.stalled_since.load(Relaxed) != NEVER;
        if ready && stalled {
            self.stalled_since.store(NEVER, Relaxed);
        } else if !ready && !stalled {
            self.stalled_since
                .store(self.millis(Instant::now()), Relaxed);
        }
    }

    pub(super) fn closing(&self) {
        if self.closing_since.load(Relaxed) == NEVER {
            self.closing_since
                .store(self.millis(Instant::now()), Relaxed);
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Relaxed) > 0
    }

    /// Returns when the connection's time is over if nothing changes, and why.
    pub(super) fn due(&self) -> Option<(Instant, Expired)> {
        let abandoned = self.abandoned.load(Relaxed);
        if abandoned > ABANDONED_MAX && abandoned > self.requests.load(Relaxed) / 2 {
            return Some((self.began, Expired::Wasteful));
        }
        let Timeouts {
            head,
            idle,
            idle_http2,
            stall,
            linger,
            ..
        } = self.timeouts;
        let idle = if self.http2.load(Relaxed) {
            idle_http2
        } else {
            idle
        };
        let at = |since: &AtomicU64, limit: Duration, why| match since.load(Relaxed) {
            NEVER => None,
            since => Some((self.began + Duration::from_millis(since) + limit, why)),
        };
        let busy = self.is_busy();
        [
            at(&self.closing_since, linger, Expired::Stalled),
            at(&self.stalled_since, stall, Expired::Stalled),
            at(&self.head_since, head, Expired::Head).filter(|_| !busy),
            at(&self.idle_since, idle, Expired::Idle).filter(|_| !busy),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, _)| *due)
    }
}
