//! What one connection's timers need to know, shared by its gate, its exchanges and its task. All of them run on one
//! core, so that nothing here is ever contended.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
    /// It is time to look at the streams.
    Look,
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
    /// HTTP/2 answers under way, and when they were last looked at.
    streams: Mutex<Vec<Weak<Handed>>>,
    looked: AtomicU64,
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
            streams: Mutex::default(),
            looked: AtomicU64::new(0),
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

    /// Returns where an HTTP/2 answer notes whether the client takes it; HTTP/1.1 has the socket for that.
    pub(crate) fn stream(&self) -> Option<Arc<Handed>> {
        if !self.http2.load(Relaxed) {
            return None;
        }
        let handed = Arc::new(Handed {
            began: self.began,
            since: AtomicU64::new(NEVER),
        });
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() == streams.capacity() {
            streams.retain(|stream| stream.strong_count() > 0);
        }
        streams.push(Arc::downgrade(&handed));
        Some(handed)
    }

    /// Returns whether a stream's window has been closed for too long.
    pub(super) fn look(&self) -> bool {
        let now = self.millis(Instant::now());
        self.looked.store(now, Relaxed);
        let stall = self.timeouts.stall.as_millis() as u64;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.iter().filter_map(Weak::upgrade).any(|handed| {
            let since = handed.since.load(Relaxed);
            since != NEVER && now.saturating_sub(since) >= stall
        })
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
        let http2 = self.http2.load(Relaxed);
        let idle = if http2 { idle_http2 } else { idle };
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
            at(&self.looked, stall / 4, Expired::Look).filter(|_| busy && http2),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(due, _)| *due)
    }
}

/// Since when an answer's last piece waits to be taken by the client.
pub(crate) struct Handed {
    began: Instant,
    since: AtomicU64,
}

impl Handed {
    /// A piece is handed out.
    pub(crate) fn out(&self) {
        let since = Instant::now().saturating_duration_since(self.began);
        self.since.store(since.as_millis() as u64, Relaxed);
    }

    /// The next one is asked for.
    pub(crate) fn taken(&self) {
        self.since.store(NEVER, Relaxed);
    }
}
