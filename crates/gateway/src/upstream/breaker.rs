//! Limits of what is open at once towards a cluster (Ambassador's `circuit_breakers`), a set for each priority.
//!
//! Requests, retries and waiting requests over their limit fail at once. A request over the limit of connections waits
//! until a connection is free or may be opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use tokio::sync::Notify;

use super::cluster::Cluster;
use super::send::Failure;
use crate::policy::retry::Retry;

pub(crate) use model::mapping::Priority;

/// How many priorities there are; each has connections of its own.
pub(crate) const PRIORITIES: usize = 2;

/// The limits of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Limits {
    pub(crate) connections_max: u64,
    pub(crate) pending_max: u64,
    pub(crate) requests_max: u64,
    pub(crate) retries_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 1024,
            pending_max: 1024,
            requests_max: 1024,
            retries_max: 3,
        }
    }
}

/// What is open at once within one priority.
pub(crate) struct Breaker {
    pub(crate) limits: Limits,
    /// Requests under way.
    pub(crate) requests: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// Requests that wait for a connection.
    pub(crate) pending: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Wakes one waiting request when a connection is free or closed.
    freed: Notify,
}

/// What a limit is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limited {
    Connections,
    Pending,
    Requests,
    Retries,
}

impl Limited {
    pub(crate) const ALL: [Limited; 4] = [
        Limited::Connections,
        Limited::Pending,
        Limited::Requests,
        Limited::Retries,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Limited::Connections => "connections",
            Limited::Pending => "pending",
            Limited::Requests => "requests",
            Limited::Retries => "retries",
        }
    }
}

impl Breaker {
    pub(crate) fn new(limits: Limits) -> Self {
        Breaker {
            limits,
            requests: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            pending: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            freed: Notify::new(),
        }
    }

    /// Takes a place among the requests under way.
    pub(super) fn begin_request(&self) -> bool {
        take(&self.requests, self.limits.requests_max)
    }

    /// Gives the place back. The request's connection is free by now.
    pub(super) fn end_request(&self) {
        self.requests.fetch_sub(1, Relaxed);
        self.free();
    }

    /// Takes a place among the open connections.
    pub(super) fn begin_connection(&self) -> bool {
        take(&self.connections, self.limits.connections_max)
    }

    /// Takes over the place of a connection that has just been told to close.
    pub(super) fn take_over_connection(&self) {
        self.connections.fetch_add(1, SeqCst);
    }

    /// Gives the place back.
    pub(super) fn end_connection(&self) {
        self.connections.fetch_sub(1, SeqCst);
        self.free();
    }

    /// Returns whether requests wait for a connection, so that others should not overtake them.
    pub(super) fn is_full(&self) -> bool {
        self.pending.load(SeqCst) > 0
    }

    fn free(&self) {
        if self.is_full() {
            self.freed.notify_one();
        }
    }

    /// Waits in line until `attempt` returns something; it is asked again whenever a connection is free or closed.
    ///
    /// Who comes first is asked at once; others wait to be woken, so that nobody overtakes. Nobody is forgotten: what is
    /// freed while somebody waits wakes one, and who was served without having been woken passes the word on.
    pub(super) async fn wait<T>(
        &self,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Result<T, Failure> {
        let before = self.pending.fetch_add(1, SeqCst);
        let waiting = Waiting(self);
        if before >= self.limits.pending_max {
            return Err(Failure::Overloaded);
        }
        let (mut turn, mut woken) = (before == 0, false);
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // Registered before it is looked: what is freed from here on wakes it.
            let at_once = freed.as_mut().enable();
            woken |= at_once;
            if (turn || at_once)
                && let Some(found) = attempt()
            {
                drop(waiting);
                if !woken && self.is_full() {
                    self.freed.notify_one();
                }
                return Ok(found);
            }
            if !at_once {
                freed.await;
                woken = true;
            }
            turn = true;
        }
    }

    /// Returns how many more fit.
    pub(crate) fn remaining(&self, limited: Limited) -> u64 {
        let (used, most) = self.look(limited);
        most.saturating_sub(used)
    }

    /// Returns the limit.
    pub(crate) fn most(&self, limited: Limited) -> u64 {
        self.look(limited).1
    }

    fn look(&self, limited: Limited) -> (u64, u64) {
        let (used, most) = match limited {
            Limited::Connections => (&self.connections, self.limits.connections_max),
            Limited::Pending => (&self.pending, self.limits.pending_max),
            Limited::Requests => (&self.requests, self.limits.requests_max),
            Limited::Retries => (&self.retries, self.limits.retries_max),
        };
        (used.load(Relaxed), most)
    }
}

fn take(used: &AtomicU64, most: u64) -> bool {
    let taken = used.fetch_add(1, SeqCst) < most;
    if !taken {
        used.fetch_sub(1, SeqCst);
    }
    taken
}

struct Waiting<'a>(&'a Breaker);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, SeqCst);
    }
}

/// A place among the retries under way; it is free again when dropped.
pub(crate) struct Retrying {
    cluster: Arc<Cluster>,
    priority: Priority,
}

impl Retrying {
    /// Takes a place, when the retry's budget or the breaker has one.
    pub(crate) fn enter(cluster: &Arc<Cluster>, priority: Priority, retry: &Retry) -> Option<Self> {
        let breaker = cluster.breaker(priority);
        let active = breaker.requests.load(Relaxed);
        if !take(
            &breaker.retries,
            retry.places(breaker.limits.retries_max, active),
        ) {
            cluster.meters.overflowed(Limited::Retries);
            return None;
        }
        cluster.meters.retries.inc();
        Some(Retrying {
            cluster: cluster.clone(),
            priority,
        })
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        let breaker = self.cluster.breaker(self.priority);
        breaker.retries.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn breaker(connections_max: u64, pending_max: u64) -> Arc<Breaker> {
        Arc::new(Breaker::new(Limits {
            connections_max,
            pending_max,
            ..Limits::default()
        }))
    }

    async fn connect(breaker: &Breaker) -> Result<(), Failure> {
        breaker
            .wait(|| breaker.begin_connection().then_some(()))
            .await
    }

    #[tokio::test]
    async fn who_waits_gets_what_is_freed_in_turn() {
        let breaker = breaker(2, 10);
        assert!(breaker.begin_connection() && breaker.begin_connection());
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..5 {
            let (breaker, order) = (breaker.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                connect(&breaker).await.expect("a place");
                order.lock().expect("unpoisoned").push(number);
                tokio::time::sleep(Duration::from_millis(10)).await;
                breaker.end_connection();
            }));
            tokio::task::yield_now().await;
        }
        assert_eq!(breaker.remaining(Limited::Pending), 5);
        breaker.end_connection();
        for waiting in waiting {
            waiting.await.expect("it ends");
        }
        assert_eq!(*order.lock().expect("unpoisoned"), [0, 1, 2, 3, 4]);
        assert_eq!(breaker.remaining(Limited::Pending), 10);
        assert_eq!(breaker.remaining(Limited::Connections), 1);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_who_gives_up_leaves_it() {
        let breaker = breaker(0, 1);
        let first = timeout(Duration::from_millis(50), connect(&breaker));
        let second = async {
            tokio::task::yield_now().await;
            connect(&breaker).await
        };
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err(), "it waited until its time was over");
        assert!(matches!(second, Err(Failure::Overloaded)));
        assert!(!breaker.is_full());
    }

    #[tokio::test]
    async fn a_wake_up_for_someone_who_gave_up_goes_to_the_next() {
        let breaker = breaker(1, 10);
        assert!(breaker.begin_connection());
        let mut gone = Box::pin(connect(&breaker));
        assert!(futures_util::poll!(gone.as_mut()).is_pending());
        let next = tokio::spawn({
            let breaker = breaker.clone();
            async move { connect(&breaker).await }
        });
        tokio::task::yield_now().await;
        breaker.end_connection();
        drop(gone);
        timeout(Duration::from_secs(1), next)
            .await
            .expect("in time")
            .expect("it ends")
            .expect("a place");
    }
}
