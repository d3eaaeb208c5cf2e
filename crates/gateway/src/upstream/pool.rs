//! Open connections to one endpoint, a pool for each core. The connection used last is used first, so that the others
//! grow old and close.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::{http1, http2};
use tokio::time::Instant;

use super::breaker::{PRIORITIES, Priority};
use super::cluster::{Member, Spec};
use super::state::State;
use crate::body::RequestBody;

/// Unused HTTP/1.1 connections that one core keeps to one endpoint.
const IDLE_MAX: usize = 256;
/// Streams on one HTTP/2 connection before another one is opened.
pub(super) const STREAMS_MAX: usize = 100;

/// Whose connections: every core has its own, and every priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) core: usize,
    pub(crate) priority: Priority,
}

/// One address of a cluster.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Its own name, if discovery tells one.
    pub(crate) hostname: Option<Arc<str>>,
    pub(crate) state: State,
    /// For each core one for each priority.
    lanes: Box<[Mutex<Pool>]>,
}

/// What one core has open to one endpoint.
#[derive(Default)]
pub(super) struct Pool {
    idle: Vec<Idle>,
    shared: Vec<Shared>,
}

/// An HTTP/1.1 connection that carries no request.
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    opened: Instant,
    since: Instant,
}

/// An HTTP/2 connection.
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    opened: Instant,
    /// When it last had no stream.
    since: Instant,
    streams: Arc<AtomicUsize>,
}

/// The right to use an HTTP/1.1 connection for one request.
pub(crate) struct Lease {
    pub(super) sender: http1::SendRequest<RequestBody>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) lane: Lane,
    pub(super) opened: Instant,
    /// Whether other requests may use it.
    pub(super) lasting: bool,
}

/// One stream of an HTTP/2 connection.
pub(crate) struct Stream {
    pub(super) sender: http2::SendRequest<RequestBody>,
    streams: Arc<AtomicUsize>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Relaxed);
    }
}

impl Endpoint {
    pub(super) fn new(member: &Member, cores: usize) -> Self {
        Endpoint {
            address: member.address,
            hostname: member.hostname.clone(),
            state: State::default(),
            lanes: (0..cores * PRIORITIES).map(|_| Mutex::default()).collect(),
        }
    }

    fn pool(&self, lane: Lane) -> MutexGuard<'_, Pool> {
        self.lanes[lane.core * PRIORITIES + lane.priority as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an open HTTP/1.1 connection out of the pool.
    pub(super) fn take(self: &Arc<Self>, lane: Lane, spec: &Spec, now: Instant) -> Option<Lease> {
        let mut pool = self.pool(lane);
        let mut at = pool.idle.len();
        while at > 0 {
            at -= 1;
            let idle = &pool.idle[at];
            if idle.sender.is_closed() || worn(spec, idle.opened, idle.since, now) {
                pool.idle.remove(at);
            } else if idle.sender.is_ready() {
                let Idle { sender, opened, .. } = pool.idle.remove(at);
                return Some(Lease {
                    sender,
                    endpoint: self.clone(),
                    lane,
                    opened,
                    lasting: true,
                });
            }
            // Else it still sends the end of a request that was answered early.
        }
        None
    }

    /// Takes a stream on an open HTTP/2 connection.
    pub(super) fn stream(&self, lane: Lane, spec: &Spec, now: Instant) -> Option<Stream> {
        let mut pool = self.pool(lane);
        pool.reap(spec, now);
        let free = |shared: &&mut Shared| {
            shared.sender.is_ready()
                && shared.streams.load(Relaxed) < STREAMS_MAX
                && !old(spec, shared.opened, now)
        };
        let shared = pool.shared.iter_mut().find(free)?;
        shared.since = now;
        shared.streams.fetch_add(1, Relaxed);
        Some(Stream {
            sender: shared.sender.clone(),
            streams: shared.streams.clone(),
        })
    }

    /// Takes the first stream of an HTTP/2 connection that was just opened; one that lasts has others.
    pub(super) fn share(
        &self,
        lane: Lane,
        sender: http2::SendRequest<RequestBody>,
        lasting: bool,
    ) -> Stream {
        let now = Instant::now();
        let streams = Arc::new(AtomicUsize::new(1));
        let stream = Stream {
            sender: sender.clone(),
            streams: streams.clone(),
        };
        if lasting {
            self.pool(lane).shared.push(Shared {
                sender,
                opened: now,
                since: now,
                streams,
            });
        }
        stream
    }

    /// Closes one unused connection of a priority; returns whether there was one.
    pub(super) fn close_unused(&self, priority: Priority) -> bool {
        let cores = self.lanes.len() / PRIORITIES;
        (0..cores).any(|core| {
            let mut pool = self.pool(Lane { core, priority });
            if pool.idle.is_empty() {
                let unused = |shared: &Shared| shared.streams.load(Relaxed) == 0;
                let at = pool.shared.iter().position(unused);
                at.map(|at| pool.shared.swap_remove(at)).is_some()
            } else {
                _ = pool.idle.remove(0);
                true
            }
        })
    }

    /// Closes what has been unused or open for too long.
    pub(crate) fn reap(&self, core: usize, spec: &Spec, now: Instant) {
        for priority in [Priority::Default, Priority::High] {
            self.pool(Lane { core, priority }).reap(spec, now);
        }
    }

    /// Closes what this core has open and unused.
    pub(crate) fn clear(&self, core: usize) {
        for priority in [Priority::Default, Priority::High] {
            *self.pool(Lane { core, priority }) = Pool::default();
        }
    }
}

impl Pool {
    fn reap(&mut self, spec: &Spec, now: Instant) {
        self.idle
            .retain(|idle| !idle.sender.is_closed() && !worn(spec, idle.opened, idle.since, now));
        self.shared.retain(|shared| {
            let unused = shared.streams.load(Relaxed) == 0;
            let over = unused && worn(spec, shared.opened, shared.since, now);
            !shared.sender.is_closed() && !over
        });
    }
}

/// Returns whether a connection that lies unused must close.
fn worn(spec: &Spec, opened: Instant, since: Instant, now: Instant) -> bool {
    spec.idle_max
        .is_some_and(|max| now.duration_since(since) >= max)
        || old(spec, opened, now)
}

/// Returns whether a connection takes no more requests.
fn old(spec: &Spec, opened: Instant, now: Instant) -> bool {
    let aged = |max| now.duration_since(opened) >= max;
    let changed = spec.tls.as_ref().and_then(|tls| tls.originator.since());
    spec.age_max.is_some_and(aged) || changed.is_some_and(|since| opened < since)
}

impl Lease {
    /// Puts the connection back, its answer having been read to the end.
    pub(super) fn give_back(self) {
        if !self.lasting || self.sender.is_closed() || self.endpoint.state.gone() {
            return;
        }
        let Lease {
            sender,
            endpoint,
            lane,
            opened,
            ..
        } = self;
        let mut pool = endpoint.pool(lane);
        if pool.idle.len() >= IDLE_MAX {
            pool.idle.remove(0);
        }
        pool.idle.push(Idle {
            sender,
            opened,
            since: Instant::now(),
        });
    }
}
