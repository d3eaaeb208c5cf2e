//! A cluster is one service as routes see it: its endpoints, its limits and what is counted about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::pool::Endpoint;
use super::send::Failure;
use crate::meter::UpstreamMeters;

/// How long a request waits for the first answer of the resolver.
const FIRST_LOOKUP_MAX: Duration = Duration::from_secs(5);

/// What makes a cluster the same one in two configurations, apart from its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Spec {
    /// The name in metrics and access lines.
    pub(crate) name: String,
    /// The host that `auto_host_rewrite` tells the service.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) source: Source,
    pub(crate) connect_timeout: Duration,
    /// How long a connection may lie unused.
    pub(crate) idle_max: Option<Duration>,
    /// How long a connection takes new requests.
    pub(crate) age_max: Option<Duration>,
    pub(crate) breaker: Breaker,
    pub(crate) tag: Option<String>,
}

/// What is spoken with the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Where the addresses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The configuration tells them.
    Told,
    /// DNS is asked again and again.
    Dns(Lookup),
}

/// How a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lookup {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    /// Only the first address is an endpoint (`logical_dns`).
    pub(crate) first_only: bool,
    /// The answer's time to live decides when to ask again.
    pub(crate) ttl_respected: bool,
}

/// Limits of what is open at once towards a cluster (Ambassador's `circuit_breakers`, priority `default`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Breaker {
    pub(crate) connections_max: u64,
    pub(crate) requests_max: u64,
    pub(crate) retries_max: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker {
            connections_max: 1024,
            requests_max: 1024,
            retries_max: 3,
        }
    }
}

/// A running cluster. It lives as long as a snapshot or a request uses it.
pub(crate) struct Cluster {
    pub(crate) spec: Spec,
    pub(crate) meters: UpstreamMeters,
    /// Requests under way.
    pub(crate) active: AtomicU64,
    /// Open connections.
    pub(crate) open: AtomicU64,
    /// Retries under way.
    pub(crate) retrying: AtomicU64,
    cores: usize,
    endpoints: ArcSwap<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    /// Whether the addresses are known, be it that there are none.
    known: AtomicBool,
    became_known: Notify,
}

impl Cluster {
    pub(crate) fn new(spec: Spec, cores: usize, meters: UpstreamMeters) -> Self {
        Cluster {
            spec,
            meters,
            active: AtomicU64::new(0),
            open: AtomicU64::new(0),
            retrying: AtomicU64::new(0),
            cores,
            endpoints: ArcSwap::default(),
            next: AtomicUsize::new(0),
            known: AtomicBool::new(false),
            became_known: Notify::new(),
        }
    }

    /// Takes these addresses from now on. Endpoints that stay keep their connections.
    pub(crate) fn set_addresses(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let old = self.endpoints.load();
        let mut new: Vec<Arc<Endpoint>> = Vec::new();
        for address in addresses {
            if new.iter().any(|endpoint| endpoint.address == address) {
                continue;
            }
            let known = old.iter().find(|endpoint| endpoint.address == address);
            new.push(
                known
                    .cloned()
                    .unwrap_or_else(|| Arc::new(Endpoint::new(address, self.cores))),
            );
        }
        self.endpoints.store(Arc::new(new));
        self.known.store(true, Relaxed);
        self.became_known.notify_waiters();
    }

    /// Goes on with the addresses as they are, which may be none.
    pub(crate) fn keep_addresses(&self) {
        self.known.store(true, Relaxed);
        self.became_known.notify_waiters();
    }

    /// Returns the endpoints as they are now.
    pub(crate) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint>>> {
        self.endpoints.load_full()
    }

    /// Picks the endpoint for the next try: one after the other, and not the one that has just failed while there are
    /// others.
    pub(crate) async fn pick(&self, failed: Option<SocketAddr>) -> Result<Arc<Endpoint>, Failure> {
        if !self.known.load(Relaxed) {
            Box::pin(self.wait_known()).await; // rare
        }
        self.pick_known(failed)
    }

    fn pick_known(&self, failed: Option<SocketAddr>) -> Result<Arc<Endpoint>, Failure> {
        let endpoints = self.endpoints.load();
        if endpoints.is_empty() {
            return Err(Failure::NoEndpoint);
        }
        let mut picked = &endpoints[self.next.fetch_add(1, Relaxed) % endpoints.len()];
        if Some(picked.address) == failed {
            picked = &endpoints[self.next.fetch_add(1, Relaxed) % endpoints.len()];
        }
        Ok(picked.clone())
    }

    async fn wait_known(&self) {
        let deadline = Instant::now() + FIRST_LOOKUP_MAX;
        loop {
            let became_known = self.became_known.notified();
            if self.known.load(Relaxed) || timeout_at(deadline, became_known).await.is_err() {
                return;
            }
        }
    }

    /// Takes a place among the requests under way.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entered, Failure> {
        if self.active.fetch_add(1, Relaxed) >= self.spec.breaker.requests_max {
            self.active.fetch_sub(1, Relaxed);
            return Err(Failure::Overloaded);
        }
        self.meters.active.inc();
        Ok(Entered(self.clone()))
    }
}

/// A place among the requests under way; it is free again when dropped.
pub(crate) struct Entered(Arc<Cluster>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
        self.0.meters.active.dec();
    }
}
