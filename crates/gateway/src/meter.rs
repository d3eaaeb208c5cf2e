//! What the gateway counts. A request only adds to numbers whose places are known; names, labels and sums are made when
//! somebody asks, which is how our own names and Envoy's tell the same numbers.

mod codes;
mod envoy;
mod export;
mod route;
mod tls;
mod traffic;
mod upstream;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use observe::metrics::{Counter, Metrics};

use crate::refusal::{Cut, Refusal};

pub(crate) use self::tls::ListenerMeters;
pub(crate) use route::{FrontMeters, RouteMeters};
pub(crate) use traffic::Tally;
pub(crate) use upstream::{UpstreamMeters, Upstreams};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper bounds in seconds: what our own metrics and Envoy's have together.
const LATENCY: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// What becomes of the copies that shadows get.
const SHADOWED: [&str; 3] = ["sent", "cut", "failed"];

/// Counters of the gateway as a whole.
pub(crate) struct Meters {
    refusals: HashMap<&'static str, Counter>,
    cuts: HashMap<&'static str, Counter>,
    shadowed: HashMap<&'static str, Counter>,
    pub(crate) turned_away: Counter,
    /// Connections without the PROXY header that they must begin with.
    pub(crate) unproxied: Counter,
    /// By the `statsPrefix`.
    fronts: Mutex<BTreeMap<String, Arc<FrontMeters>>>,
    listeners: Mutex<BTreeMap<SocketAddr, Arc<ListenerMeters>>>,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let refusal = |name| {
            let help =
                "Requests that the gateway answered by itself because it could not pass them on.";
            metrics.counter("nuncio_refusals", help, &[("reason", name)])
        };
        let cut = |name| {
            let help = "Answers that ended before their end, by the reason.";
            metrics.counter("nuncio_answers_cut", help, &[("reason", name)])
        };
        let shadowed = |outcome| {
            let help =
                "Copies for shadows: answered, cut because the shadow was too slow, or failed.";
            metrics.counter("nuncio_shadow_requests", help, &[("outcome", outcome)])
        };
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.name());
        let cuts = Cut::ALL.iter().map(|cut| cut.told().name);
        Meters {
            refusals: refusals.map(|name| (name, refusal(name))).collect(),
            cuts: cuts.map(|name| (name, cut(name))).collect(),
            shadowed: SHADOWED.map(|name| (name, shadowed(name))).into(),
            unproxied: metrics.counter(
                "nuncio_connections_unproxied",
                "Connections closed because they did not begin with a PROXY header in time.",
                &[],
            ),
            turned_away: metrics.counter(
                "nuncio_connections_refused",
                "Connections closed at once because there were too many.",
                &[],
            ),
            fronts: Mutex::default(),
            listeners: Mutex::default(),
        }
    }

    /// The gateway answers by itself.
    pub(crate) fn refused(&self, reason: &str) {
        if let Some(counter) = self.refusals.get(reason) {
            counter.inc();
        }
    }

    /// An answer breaks off.
    pub(crate) fn cut(&self, reason: &str) {
        if let Some(counter) = self.cuts.get(reason) {
            counter.inc();
        }
    }

    /// A copy for a shadow has ended.
    pub(crate) fn shadowed(&self, outcome: &str) {
        if let Some(counter) = self.shadowed.get(outcome) {
            counter.inc();
        }
    }

    /// Returns the counters of the listeners with this `statsPrefix`.
    pub(crate) fn front(&self, prefix: &str) -> Arc<FrontMeters> {
        let mut fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        let front = fronts
            .entry(prefix.to_owned())
            .or_insert_with(|| Arc::new(FrontMeters::new(prefix)));
        front.clone()
    }

    /// Returns the counters of a listener, which are the same as long as there is one of this address.
    pub(crate) fn listener(&self, address: SocketAddr) -> Arc<ListenerMeters> {
        let mut all = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let listener = all
            .entry(address)
            .or_insert_with(|| Arc::new(ListenerMeters::new(address)));
        listener.clone()
    }

    fn listeners(&self) -> Vec<Arc<ListenerMeters>> {
        let all = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }

    /// Stops to report routes that are gone.
    pub(crate) fn keep_routes(&self, is_there: impl Fn(&str) -> bool) {
        for front in self.fronts() {
            front.keep(&is_there);
        }
    }

    fn fronts(&self) -> Vec<Arc<FrontMeters>> {
        let fronts = self.fronts.lock().unwrap_or_else(PoisonError::into_inner);
        fronts.values().cloned().collect()
    }
}
