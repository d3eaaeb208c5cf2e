//! A cluster is one service as routes see it: its endpoints, its limits and what is counted about it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use model::mapping::ProxyVersion;
use socket2::TcpKeepalive;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::balance::{Balance, Choice, Set, Slot};
use super::breaker::{Breaker, Limited, Limits, PRIORITIES, Priority};
use super::health::Check;
use super::outlier::{self, Verdict, watch::Watch};
use super::pool::Endpoint;
use super::send::Failure;
use super::state::Picked;
use super::tls::Tls;
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
    pub(crate) limits: [Limits; PRIORITIES],
    pub(crate) tls: Option<Tls>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) proxy_protocol: Option<ProxyVersion>,
    /// Header names go out as `Like-This` over HTTP/1.1.
    pub(crate) proper_case: bool,
    pub(crate) tag: Option<String>,
    pub(crate) care: Arc<Care>,
}

/// How endpoints are picked, looked after and put aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Care {
    pub(crate) balance: Balance,
    pub(crate) checks: Vec<Check>,
    pub(crate) outlier: Option<outlier::Limits>,
}

#[cfg(test)]
impl Spec {
    /// Returns what a plain `service: name` asks for.
    pub(crate) fn plain(name: &str) -> Self {
        Spec {
            name: name.to_owned(),
            host: name.to_owned(),
            port: 80,
            protocol: Protocol::Http1,
            source: Source::Told,
            connect_timeout: Duration::from_secs(1),
            idle_max: None,
            age_max: None,
            limits: Default::default(),
            tls: None,
            keepalive: None,
            proxy_protocol: None,
            proper_case: false,
            tag: None,
            care: Arc::default(),
        }
    }
}

/// TCP keep-alive; what is not said is up to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Keepalive {
    /// Seconds of quiet before the first probe.
    pub(crate) time: Option<u32>,
    /// Seconds between probes.
    pub(crate) interval: Option<u32>,
    pub(crate) probes: Option<u32>,
}

impl Keepalive {
    /// Returns what the socket is told.
    pub(crate) fn option(&self) -> TcpKeepalive {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut option = TcpKeepalive::new();
        if let Some(time) = self.time {
            option = option.with_time(seconds(time));
        }
        if let Some(interval) = self.interval {
            option = option.with_interval(seconds(interval));
        }
        if let Some(probes) = self.probes {
            option = option.with_retries(probes);
        }
        option
    }
}

/// What is spoken with the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Where the endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// The host is an address itself.
    Told,
    /// DNS is asked again and again.
    Dns(Lookup),
    /// The directory tells, and while it does not know the service, DNS may be asked.
    Service {
        /// Namespace and name.
        service: crate::discovery::Key,
        /// The port as the Mapping writes it.
        port: Option<u16>,
        /// Where the gateway stands: endpoints may be meant for some zones only.
        zone: Option<Arc<str>>,
        otherwise: Option<Lookup>,
    },
    /// Consul is asked.
    Consul(super::discover::consul::Question),
}

/// How a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lookup {
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    pub(crate) records: Records,
    /// The answer's time to live decides when to ask again.
    pub(crate) ttl_respected: bool,
}

/// What is asked for, and what becomes of the answer (Ambassador's `dns_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Records {
    /// Every address is an endpoint.
    Strict,
    /// One address is the endpoint.
    Logical,
    /// SRV records name targets, ports and weights.
    Srv,
}

/// Largest weight of an endpoint (Envoy's).
const WEIGHT_MAX: u32 = 128;

/// An endpoint as discovery tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    /// Its own name, if it has one.
    pub(crate) hostname: Option<Arc<str>>,
    /// Its share among the others, from 1 to 128.
    pub(crate) weight: u32,
    pub(crate) zone: Option<Arc<str>>,
    /// Discovery's word; health checks have theirs too.
    pub(crate) healthy: bool,
}

impl Member {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Member {
            address,
            hostname: None,
            weight: 1,
            zone: None,
            healthy: true,
        }
    }
}

/// What is known about an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) address: SocketAddr,
    pub(crate) hostname: Option<Arc<str>>,
    /// Discovery and health checks find it well.
    pub(crate) healthy: bool,
    /// Outlier detection has put it aside.
    pub(crate) ejected: bool,
    pub(crate) weight: u32,
    pub(crate) zone: Option<Arc<str>>,
    /// Requests under way.
    pub(crate) active: u64,
    pub(crate) last_error: Option<String>,
}

/// How a try ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// The endpoint answered.
    Answered(StatusCode),
    /// There is no answer.
    Failed(&'a Failure),
}

/// A running cluster. It lives as long as a snapshot or a request uses it.
pub(crate) struct Cluster {
    pub(crate) spec: Spec,
    pub(crate) meters: UpstreamMeters,
    breakers: [Breaker; PRIORITIES],
    pub(super) outlier: Option<Watch>,
    /// Wakes those who follow the endpoints.
    pub(super) moved: Arc<Notify>,
    pub(super) cores: usize,
    endpoints: ArcSwap<Set>,
    /// Held while another set is made out of the present one.
    changing: Mutex<()>,
    next: AtomicUsize,
    /// Whether the addresses are known, be it that there are none.
    known: AtomicBool,
    became_known: Notify,
}

impl Cluster {
    pub(crate) fn new(spec: Spec, cores: usize, meters: UpstreamMeters) -> Self {
        Cluster {
            breakers: spec.limits.map(Breaker::new),
            outlier: spec.care.outlier.clone().map(Watch::new),
            moved: Arc::default(),
            spec,
            meters,
            cores,
            endpoints: ArcSwap::default(),
            changing: Mutex::new(()),
            next: AtomicUsize::new(0),
            known: AtomicBool::new(false),
            became_known: Notify::new(),
        }
    }

    /// Takes these members from now on. Endpoints that stay keep their connections and how they fare; one that leaves
    /// gets no more requests, finishes those it has, and its unused connections close.
    pub(crate) fn set_members(&self, members: impl IntoIterator<Item = Member>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.endpoints.load();
        let known: HashMap<SocketAddr, &Arc<Endpoint>> = old
            .slots
            .iter()
            .map(|slot| (slot.endpoint.address, &slot.endpoint))
            .collect();
        let mut seen = HashSet::new();
        let mut slots: Vec<Slot> = Vec::new();
        let mut changed = !self.known.load(Relaxed);
        for member in members {
            if !seen.insert(member.address) {
                continue;
            }
            let endpoint = match known.get(&member.address) {
                Some(endpoint) if endpoint.hostname == member.hostname => (*endpoint).clone(),
                _ => self.join(&member),
            };
            changed |= endpoint.state.set_ready(member.healthy);
            slots.push(Slot {
                endpoint,
                weight: member.weight.clamp(1, WEIGHT_MAX),
                zone: member.zone,
            });
        }
        // DNS says the same again and again; that is no reason to make tables.
        if !changed && slots == old.slots {
            return;
        }
        let kept: HashSet<*const Endpoint> = slots
            .iter()
            .map(|slot| Arc::as_ptr(&slot.endpoint))
            .collect();
        self.store(slots);
        for slot in &old.slots {
            if !kept.contains(&Arc::as_ptr(&slot.endpoint)) {
                slot.endpoint.state.leave();
                for core in 0..self.cores {
                    slot.endpoint.clear(core);
                }
            }
        }
        self.keep_addresses();
        self.moved.notify_one();
    }

    fn join(&self, member: &Member) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(member, self.cores);
        if !self.spec.care.checks.is_empty() {
            // Not before it has passed.
            endpoint.state.set_checked(false);
        }
        Arc::new(endpoint)
    }

    /// Makes another set, an endpoint's state having changed.
    pub(super) fn rebuild(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = self.endpoints.load().slots.clone();
        self.store(slots);
    }

    fn store(&self, slots: Vec<Slot>) {
        let set = Set::build(slots, &self.spec.care.balance);
        self.endpoints.store(Arc::new(set));
    }

    /// Goes on with the addresses as they are, which may be none.
    pub(crate) fn keep_addresses(&self) {
        self.known.store(true, Relaxed);
        self.became_known.notify_waiters();
    }

    /// Returns the endpoints as they are now.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        let set = self.endpoints.load();
        set.slots.iter().map(|slot| slot.endpoint.clone()).collect()
    }

    /// Returns what is known about each endpoint, for people and metrics.
    pub(crate) fn view(&self) -> Vec<View> {
        let set = self.endpoints.load();
        let only = set.slots.len() == 1;
        let view = |slot: &Slot| {
            let state = &slot.endpoint.state;
            View {
                address: slot.endpoint.address,
                hostname: slot.endpoint.hostname.clone(),
                healthy: state.healthy(),
                ejected: state.ejected(),
                weight: slot.weight,
                zone: slot.zone.clone(),
                active: match only {
                    true => self.active(),
                    false => state.active(),
                },
                last_error: state.last_error(),
            }
        };
        set.slots.iter().map(view).collect()
    }

    /// Returns the endpoint that a hash policy would pick now.
    pub(crate) fn picked_for(&self, hash: u64) -> Option<SocketAddr> {
        self.endpoints.load().picked_for(hash)
    }

    /// Picks the endpoint for the next try, as the cluster's policy says.
    pub(crate) async fn pick(&self, choice: &Choice<'_>) -> Result<Picked, Failure> {
        if !self.known.load(Relaxed) {
            Box::pin(self.wait_known()).await; // rare
        }
        let picked = self.endpoints.load().pick(&self.next, choice);
        picked.ok_or(Failure::NoEndpoint)
    }

    /// Takes note of how a try ended; every try is reported once.
    pub(crate) fn report(&self, endpoint: &Endpoint, outcome: Outcome<'_>) {
        let verdict = match outcome {
            Outcome::Answered(status) => match status.as_u16() {
                502..=504 => Verdict::GatewayFailure,
                500.. => Verdict::ServerError,
                _ => Verdict::Success,
            },
            Outcome::Failed(failure) if failure.is_upstreams() => {
                endpoint.state.erred(failure.to_string());
                Verdict::LocalOrigin
            }
            Outcome::Failed(_) => return,
        };
        if let Some(outlier) = &self.outlier {
            outlier.count(self, endpoint, verdict);
        }
    }

    pub(crate) async fn wait_known(&self) {
        let deadline = Instant::now() + FIRST_LOOKUP_MAX;
        loop {
            let became_known = self.became_known.notified();
            if self.known.load(Relaxed) || timeout_at(deadline, became_known).await.is_err() {
                return;
            }
        }
    }

    /// Returns how many requests are under way.
    pub(crate) fn active(&self) -> u64 {
        let active = |breaker: &Breaker| breaker.requests.load(Relaxed);
        self.breakers.iter().map(active).sum()
    }

    /// Returns what is open within a priority.
    pub(crate) fn breaker(&self, priority: Priority) -> &Breaker {
        &self.breakers[priority as usize]
    }

    /// Closes one unused connection, whichever endpoint and core has it. Returns whether there was one.
    pub(super) fn close_unused(&self, priority: Priority) -> bool {
        let set = self.endpoints.load();
        set.slots
            .iter()
            .any(|slot| slot.endpoint.close_unused(priority))
    }

    /// Takes a place among the requests under way.
    pub(crate) fn enter(self: &Arc<Self>, priority: Priority) -> Result<Entered, Failure> {
        if !self.breaker(priority).begin_request() {
            self.meters.overflowed(Limited::Requests);
            return Err(Failure::Overloaded);
        }
        self.meters.active.inc();
        Ok(Entered {
            cluster: self.clone(),
            priority,
            picked: None,
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Who looks after the endpoints ends too.
        self.moved.notify_one();
    }
}

/// A place among the requests under way; it is free again when dropped.
pub(crate) struct Entered {
    cluster: Arc<Cluster>,
    priority: Priority,
    picked: Option<Picked>,
}

impl Entered {
    /// Keeps the endpoint that answered counted as busy as long as the request is under way.
    pub(crate) fn keep(&mut self, picked: Picked) {
        self.picked = Some(picked);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.cluster.breaker(self.priority).end_request();
        self.cluster.meters.active.dec();
    }
}
