//! What the gateway counts. Handles are resolved when a snapshot is built; a request only adds.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use observe::metrics::{Counter, Gauge, Histogram, Metrics, SECONDS};

use crate::refusal::{Cut, Refusal};
use crate::upstream::breaker::Limited;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of one route.
#[derive(Clone)]
pub(crate) struct RouteMeters {
    classes: [Counter; 5],
    /// The client left before the answer had ended.
    pub(crate) aborted: Counter,
    pub(crate) active: Gauge,
    seconds: Histogram,
}

impl RouteMeters {
    pub(crate) fn new(metrics: &Metrics, route: &str) -> Self {
        let help = "Requests that a route answered, by the status' class.";
        RouteMeters {
            classes: CLASSES.map(|class| {
                metrics.counter(
                    "nuncio_requests",
                    help,
                    &[("route", route), ("class", class)],
                )
            }),
            aborted: metrics.counter(
                "nuncio_requests",
                help,
                &[("route", route), ("class", "aborted")],
            ),
            active: metrics.gauge(
                "nuncio_requests_active",
                "Requests under way on a route.",
                &[("route", route)],
            ),
            seconds: metrics.histogram(
                "nuncio_request_seconds",
                "From a request's head to the end of its answer.",
                &[("route", route)],
                SECONDS,
            ),
        }
    }

    pub(crate) fn ended(&self, status: StatusCode, duration: Duration) {
        if let Some(class) = self
            .classes
            .get(usize::from(status.as_u16() / 100).wrapping_sub(1))
        {
            class.inc();
        }
        self.seconds.record(duration);
    }

    /// Stops to report a route that is gone.
    pub(crate) fn forget(metrics: &Metrics, route: &str) {
        for class in CLASSES.into_iter().chain(["aborted"]) {
            metrics.remove("nuncio_requests", &[("route", route), ("class", class)]);
        }
        metrics.remove("nuncio_requests_active", &[("route", route)]);
        metrics.remove("nuncio_request_seconds", &[("route", route)]);
    }
}

/// Counters of one upstream.
#[derive(Clone)]
pub(crate) struct UpstreamMeters {
    classes: [Counter; 5],
    pub(crate) active: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connect_failures: Counter,
    pub(crate) retries: Counter,
    pub(crate) timeouts: Counter,
    seconds: Histogram,
    /// Made when a limit is reached for the first time, which for most upstreams never happens.
    overflows: Arc<OnceLock<[Counter; 4]>>,
    metrics: Metrics,
    name: Arc<str>,
}

impl UpstreamMeters {
    /// A limit of the circuit breaker is reached.
    pub(crate) fn overflowed(&self, limited: Limited) {
        let counters = self.overflows.get_or_init(|| {
            Limited::ALL.map(|limited| {
                self.metrics.counter(
                    "nuncio_upstream_overflows",
                    "Requests, retries and connections that a limit of the circuit breaker kept back.",
                    &[("upstream", &self.name), ("limit", limited.name())],
                )
            })
        });
        counters[limited as usize].inc();
    }

    pub(crate) fn new(metrics: &Metrics, upstream: &str) -> Self {
        let labels = [("upstream", upstream)];
        let (metrics_of, name_of) = (metrics.clone(), Arc::from(upstream));
        let counter = |name, help| metrics.counter(name, help, &labels);
        UpstreamMeters {
            classes: CLASSES.map(|class| {
                metrics.counter(
                    "nuncio_upstream_requests",
                    "Answers of an upstream, retried ones included, by the status' class.",
                    &[("upstream", upstream), ("class", class)],
                )
            }),
            active: metrics.gauge(
                "nuncio_upstream_requests_active",
                "Requests under way to an upstream.",
                &labels,
            ),
            connections: metrics.gauge(
                "nuncio_upstream_connections",
                "Connections open to an upstream.",
                &labels,
            ),
            connect_failures: counter(
                "nuncio_upstream_connect_failures",
                "Connections to an upstream that could not be opened.",
            ),
            retries: counter(
                "nuncio_upstream_retries",
                "Requests sent to an upstream once more.",
            ),
            timeouts: counter(
                "nuncio_upstream_timeouts",
                "Requests to an upstream whose time was over before the answer.",
            ),
            seconds: metrics.histogram(
                "nuncio_upstream_seconds",
                "From a request's start to the head of the upstream's answer.",
                &labels,
                SECONDS,
            ),
            overflows: Arc::default(),
            metrics: metrics_of,
            name: name_of,
        }
    }

    pub(crate) fn answered(&self, status: StatusCode, duration: Duration) {
        if let Some(class) = self
            .classes
            .get(usize::from(status.as_u16() / 100).wrapping_sub(1))
        {
            class.inc();
        }
        self.seconds.record(duration);
    }

    /// Stops to report an upstream that is gone.
    pub(crate) fn forget(metrics: &Metrics, upstream: &str) {
        for limited in Limited::ALL {
            let labels = [("upstream", upstream), ("limit", limited.name())];
            metrics.remove("nuncio_upstream_overflows", &labels);
        }
        for class in CLASSES {
            metrics.remove(
                "nuncio_upstream_requests",
                &[("upstream", upstream), ("class", class)],
            );
        }
        for name in [
            "nuncio_upstream_requests_active",
            "nuncio_upstream_connections",
            "nuncio_upstream_connect_failures",
            "nuncio_upstream_retries",
            "nuncio_upstream_timeouts",
            "nuncio_upstream_seconds",
        ] {
            metrics.remove(name, &[("upstream", upstream)]);
        }
    }
}

/// Counters of the gateway as a whole.
pub(crate) struct Meters {
    refusals: HashMap<&'static str, Counter>,
    cuts: HashMap<&'static str, Counter>,
    /// Open connections from clients.
    pub(crate) connections: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) unrouted: RouteMeters,
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
        let refusals = Refusal::ALL.iter().map(|refusal| refusal.name());
        let cuts = Cut::ALL.iter().map(|cut| cut.told().name);
        Meters {
            refusals: refusals.map(|name| (name, refusal(name))).collect(),
            cuts: cuts.map(|name| (name, cut(name))).collect(),
            connections: metrics.gauge("nuncio_connections", "Open connections from clients.", &[]),
            accepted: metrics.counter(
                "nuncio_connections_accepted",
                "Connections from clients that were accepted.",
                &[],
            ),
            turned_away: metrics.counter(
                "nuncio_connections_refused",
                "Connections closed at once because there were too many.",
                &[],
            ),
            unrouted: RouteMeters::new(metrics, ""),
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
}
