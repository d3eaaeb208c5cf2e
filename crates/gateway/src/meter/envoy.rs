//! The same numbers under the names that Envoy gives them, which the dashboards of Ambassador's users ask for.
//!
//! `envoy_cluster_name` is the Mapping's `stats_name`, or its service with `_` in place of what is no letter or digit.
//! What Envoy counts and the gateway does not have (its threads, its filters, its own configuration server) is absent.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use model::mapping::Priority;
use observe::metrics::{Count, Kind, Page, Sums, labels};

use super::codes::classes;
use super::export::Named;
use super::route::{FrontMeters, RouteCounts};
use super::upstream::{Cared, Failed, Retried, UpstreamCounts};
use crate::upstream::breaker::Limited;
use crate::upstream::cluster::View;

/// A bound of ours that Envoy's buckets lack, in seconds.
const OURS_ALONE: &[f64] = &[0.0025];

pub(super) fn tell(page: &mut Page, fronts: &[Arc<FrontMeters>], upstreams: &[Named]) {
    downstream(page, fronts);
    let clusters: usize = upstreams.iter().map(|named| named.clusters.len()).sum();
    page.foreign(
        "envoy_cluster_manager_active_clusters",
        Kind::Gauge,
        "Clusters.",
    )
    .value("", clusters);
    membership(page, upstreams);
    care(page, upstreams);
    breakers(page, upstreams);
    upstream(page, upstreams);
}

/// Writes `envoy_http_*`.
fn downstream(page: &mut Page, fronts: &[Arc<FrontMeters>]) {
    let fronts: Vec<Front> = fronts.iter().map(|front| Front::of(front)).collect();
    let mut each = |name: &str, kind, help, value: &dyn Fn(&Front) -> i128| {
        let mut family = page.foreign(&format!("envoy_http_{name}"), kind, help);
        for front in &fronts {
            family.value(&front.labels, value(front));
        }
    };
    each(
        "downstream_cx_total",
        Kind::Counter,
        "Connections from clients.",
        &|front| front.accepted.into(),
    );
    each(
        "downstream_cx_active",
        Kind::Gauge,
        "Open connections from clients.",
        &|front| front.connections.into(),
    );
    each(
        "downstream_cx_destroy",
        Kind::Counter,
        "Connections from clients that have ended.",
        &|front| i128::from(front.accepted) - i128::from(front.connections),
    );
    each(
        "downstream_cx_rx_bytes_total",
        Kind::Counter,
        "Bytes from clients.",
        &|front| front.received.into(),
    );
    each(
        "downstream_cx_tx_bytes_total",
        Kind::Counter,
        "Bytes to clients.",
        &|front| front.sent.into(),
    );
    each(
        "no_route",
        Kind::Counter,
        "Requests that no route took.",
        &|front| front.no_route.into(),
    );
    each(
        "downstream_rq_total",
        Kind::Counter,
        "Requests.",
        &|front| i128::from(front.answered()) + i128::from(front.active) + i128::from(front.reset),
    );
    each(
        "downstream_rq_active",
        Kind::Gauge,
        "Requests under way.",
        &|front| front.active.into(),
    );
    each(
        "downstream_rq_completed",
        Kind::Counter,
        "Requests that were answered.",
        &|front| front.answered().into(),
    );
    each(
        "downstream_rq_rx_reset",
        Kind::Counter,
        "Requests whose client left before the answer had ended.",
        &|front| front.reset.into(),
    );
    each(
        "rq_total",
        Kind::Counter,
        "Requests that a route took.",
        &|front| front.routed.into(),
    );
    let mut xx = page.foreign(
        "envoy_http_downstream_rq_xx",
        Kind::Counter,
        "Answers by the status' class.",
    );
    for front in &fronts {
        by_class(front.classes, &front.labels, |labels, sum| {
            xx.value(labels, sum);
        });
    }
    let mut time = page.foreign(
        "envoy_http_downstream_rq_time",
        Kind::Histogram,
        "Milliseconds from a request's head to the end of its answer.",
    );
    for front in &fronts {
        time.millis(&front.labels, &front.seconds, OURS_ALONE);
    }
}

/// What the listeners with one `statsPrefix` have served: the sum over their routes.
struct Front {
    labels: String,
    accepted: u64,
    connections: i64,
    received: u64,
    sent: u64,
    no_route: u64,
    classes: [u64; 5],
    routed: u64,
    reset: u64,
    active: i64,
    seconds: Sums,
}

impl Front {
    fn of(front: &FrontMeters) -> Self {
        let mut sum = Front {
            labels: labels(&[("envoy_http_conn_manager_prefix", &front.prefix)]),
            accepted: front.accepted.get(),
            connections: front.connections.get(),
            received: front.traffic.received(),
            sent: front.traffic.sent(),
            no_route: front.no_route.get(),
            classes: [0; 5],
            routed: 0,
            reset: 0,
            active: 0,
            seconds: Sums::default(),
        };
        sum.add(&front.gone);
        for route in front.routes().values() {
            if route.is_used() {
                sum.add(route);
            }
        }
        sum.routed = sum.answered();
        sum.add(&front.unrouted);
        sum
    }

    fn add(&mut self, route: &RouteCounts) {
        for (sum, class) in self.classes.iter_mut().zip(&route.classes) {
            *sum += class.get();
        }
        self.reset += route.aborted.get();
        self.active += route.active.get();
        self.seconds.add(&route.seconds);
    }

    fn answered(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// Writes who belongs to each cluster.
fn membership(page: &mut Page, upstreams: &[Named]) {
    let all: Vec<(String, Vec<View>)> = upstreams
        .iter()
        .map(|named| {
            let views = named.clusters.iter().flat_map(|cluster| cluster.view());
            (cluster_label(named), views.collect())
        })
        .collect();
    let mut each = |name: &str, help, counts: &dyn Fn(&View) -> bool| {
        let mut family = page.foreign(&format!("envoy_cluster_{name}"), Kind::Gauge, help);
        for (labels, views) in &all {
            family.value(labels, views.iter().filter(|view| counts(view)).count());
        }
    };
    each("membership_total", "Endpoints.", &|_| true);
    each(
        "membership_healthy",
        "Endpoints that take requests.",
        &|view| view.healthy && !view.ejected,
    );
    each("membership_degraded", "Always 0.", &|_| false);
    each("membership_excluded", "Always 0.", &|_| false);
    each(
        "outlier_detection_ejections_active",
        "Endpoints that outlier detection has put aside.",
        &|view| view.ejected,
    );
}

/// Writes how endpoints were looked after, where they are.
fn care(page: &mut Page, upstreams: &[Named]) {
    let cared: Vec<(String, &Cared)> = upstreams
        .iter()
        .filter_map(|named| Some((cluster_label(named), &**named.meters.cared.get()?)))
        .collect();
    let mut each = |name: &str, help, read: &dyn Fn(&Cared) -> u64| {
        let name = format!("envoy_cluster_{name}");
        let mut family = page.foreign(&name, Kind::Counter, help);
        for (labels, cared) in &cared {
            family.value(labels, read(cared));
        }
    };
    each("health_check_attempt", "Health checks.", &|cared| {
        cared.health_checks.get()
    });
    each(
        "health_check_failure",
        "Health checks that failed.",
        &|cared| cared.health_check_failures.get(),
    );
    each(
        "health_check_success",
        "Health checks that did not fail.",
        &|cared| {
            let failures = cared.health_check_failures.get();
            cared.health_checks.get().saturating_sub(failures)
        },
    );
    each(
        "outlier_detection_ejections_enforced_total",
        "How often outlier detection has put an endpoint aside.",
        &|cared| cared.ejections.iter().map(|count| count.get()).sum(),
    );
}

/// Writes which limits are reached now, and how far they are. Of clusters with one name the fullest counts. A cluster that was never asked is left out.
fn breakers(page: &mut Page, upstreams: &[Named]) {
    for (priority, name) in [(Priority::Default, "default"), (Priority::High, "high")] {
        for (limited, open) in [
            (Limited::Connections, "cx_open"),
            (Limited::Pending, "rq_pending_open"),
            (Limited::Requests, "rq_open"),
            (Limited::Retries, "rq_retry_open"),
        ] {
            let help = "1 while this limit is reached.";
            let name = format!("envoy_cluster_circuit_breakers_{name}_{open}");
            let mut family = page.foreign(&name, Kind::Gauge, help);
            for named in upstreams.iter().filter(|named| named.meters.is_used()) {
                let full = named
                    .clusters
                    .iter()
                    .any(|cluster| cluster.breaker(priority).remaining(limited) == 0);
                family.value(&cluster_label(named), u8::from(full));
            }
        }
        for (limited, remaining) in [
            (Limited::Connections, "remaining_cx"),
            (Limited::Pending, "remaining_pending"),
            (Limited::Requests, "remaining_rq"),
            (Limited::Retries, "remaining_retries"),
        ] {
            let help = "How many more this limit allows.";
            let name = format!("envoy_cluster_circuit_breakers_{name}_{remaining}");
            let mut family = page.foreign(&name, Kind::Gauge, help);
            for named in upstreams.iter().filter(|named| named.meters.is_used()) {
                let clusters = named.clusters.iter();
                let least = clusters.map(|cluster| cluster.breaker(priority).remaining(limited));
                family.value(&cluster_label(named), least.min().unwrap_or(0));
            }
        }
    }
}

fn cluster_label(named: &Named) -> String {
    labels(&[("envoy_cluster_name", &named.name)])
}

/// Writes `envoy_cluster_upstream_*`. A cluster that was never asked has its total alone.
fn upstream(page: &mut Page, upstreams: &[Named]) {
    let mut total = page.foreign(
        "envoy_cluster_upstream_rq_total",
        Kind::Counter,
        "Requests, retried ones included.",
    );
    let mut used = Vec::new();
    for named in upstreams {
        let upstream = Upstream::of(named);
        total.value(&upstream.labels, upstream.sent());
        if named.meters.is_used() {
            used.push(upstream);
        }
    }
    let mut codes = page.foreign(
        "envoy_cluster_upstream_rq",
        Kind::Counter,
        "Answers by their status.",
    );
    for upstream in &used {
        for (code, count) in &upstream.codes {
            let labels = format!("{},envoy_response_code=\"{code}\"", upstream.labels);
            codes.value(&labels, count);
        }
    }
    let mut xx = page.foreign(
        "envoy_cluster_upstream_rq_xx",
        Kind::Counter,
        "Answers by the status' class.",
    );
    for upstream in &used {
        let sums = classes(&upstream.codes);
        by_class(sums, &upstream.labels, |labels, sum| xx.value(labels, sum));
    }
    let mut each = |name: &str, kind, help, value: &dyn Fn(&Upstream<'_>) -> i128| {
        let mut family = page.foreign(&format!("envoy_cluster_upstream_{name}"), kind, help);
        for upstream in &used {
            family.value(&upstream.labels, value(upstream));
        }
    };
    for (name, kind, help, value) in EACH {
        each(name, *kind, help, value);
    }
    let mut time = page.foreign(
        "envoy_cluster_upstream_rq_time",
        Kind::Histogram,
        "Milliseconds from a request's start to the head of the answer.",
    );
    for upstream in &used {
        let mut sums = Sums::default();
        sums.add(&upstream.counts.seconds);
        time.millis(&upstream.labels, &sums, OURS_ALONE);
    }
}

/// One number of a cluster: its name behind `envoy_cluster_upstream_`, what it is, and how it is read.
type Read = (&'static str, Kind, &'static str, fn(&Upstream<'_>) -> i128);

const EACH: &[Read] = &[
    (
        "rq_completed",
        Kind::Counter,
        "Requests that were answered, be it by the gateway.",
        |upstream| upstream.completed().into(),
    ),
    (
        "rq_active",
        Kind::Gauge,
        "Requests under way.",
        |upstream| upstream.counts.active.get().into(),
    ),
    (
        "rq_timeout",
        Kind::Counter,
        "Requests whose time was over before the answer.",
        |upstream| upstream.counts.timeouts.get().into(),
    ),
    (
        "rq_retry",
        Kind::Counter,
        "Requests that were sent once more.",
        |upstream| upstream.counts.retries.get().into(),
    ),
    (
        "rq_retry_success",
        Kind::Counter,
        "Requests whose later try was good enough.",
        |upstream| upstream.retried(|retried| &retried.successes),
    ),
    (
        "rq_retry_limit_exceeded",
        Kind::Counter,
        "Requests that had no try left.",
        |upstream| upstream.retried(|retried| &retried.exhausted),
    ),
    (
        "rq_retry_backoff_exponential",
        Kind::Counter,
        "Retries after a wait that grows.",
        |upstream| upstream.counts.retries.get().into(),
    ),
    (
        "rq_per_try_timeout",
        Kind::Counter,
        "Tries whose own time was over.",
        |upstream| upstream.retried(|retried| &retried.try_timeouts),
    ),
    (
        "rq_pending_total",
        Kind::Counter,
        "Requests that found no open connection.",
        |upstream| upstream.counts.pending.all.get().into(),
    ),
    (
        "rq_pending_active",
        Kind::Gauge,
        "Requests that wait for a connection.",
        |upstream| upstream.counts.pending.now.get().into(),
    ),
    (
        "rq_pending_failure_eject",
        Kind::Counter,
        "Requests whose connection could not be opened.",
        |upstream| upstream.failed(|failed| failed.pending_failures.get()),
    ),
    (
        "cx_destroy",
        Kind::Counter,
        "Connections that have ended.",
        |upstream| {
            let connections = &upstream.counts.connections;
            i128::from(connections.all.get()) - i128::from(connections.now.get())
        },
    ),
    (
        "cx_rx_bytes_total",
        Kind::Counter,
        "Bytes from the upstream.",
        |upstream| upstream.counts.traffic.received().into(),
    ),
    (
        "cx_tx_bytes_total",
        Kind::Counter,
        "Bytes to the upstream.",
        |upstream| upstream.counts.traffic.sent().into(),
    ),
    (
        "rq_rx_reset",
        Kind::Counter,
        "Requests that the upstream broke off before its answer.",
        |upstream| upstream.failed(|failed| failed.resets.get()),
    ),
    (
        "rq_pending_overflow",
        Kind::Counter,
        "Requests that a limit of the circuit breaker kept back.",
        |upstream| upstream.overflows(Limited::Pending) + upstream.overflows(Limited::Requests),
    ),
    (
        "rq_retry_overflow",
        Kind::Counter,
        "Retries that a limit of the circuit breaker kept back.",
        |upstream| upstream.overflows(Limited::Retries),
    ),
    (
        "cx_overflow",
        Kind::Counter,
        "Connections that a limit of the circuit breaker kept back.",
        |upstream| upstream.overflows(Limited::Connections),
    ),
    (
        "cx_total",
        Kind::Counter,
        "Connections that were opened.",
        |upstream| upstream.counts.connections.all.get().into(),
    ),
    ("cx_active", Kind::Gauge, "Open connections.", |upstream| {
        upstream.counts.connections.now.get().into()
    }),
    (
        "cx_connect_fail",
        Kind::Counter,
        "Connections that could not be opened.",
        |upstream| upstream.counts.connect_failures.get().into(),
    ),
    (
        "cx_connect_timeout",
        Kind::Counter,
        "Connections that could not be opened in time.",
        |upstream| upstream.failed(|failed| failed.connect_timeouts.get()),
    ),
    (
        "cx_none_healthy",
        Kind::Counter,
        "Requests for which there was no healthy endpoint.",
        |upstream| upstream.failed(|failed| failed.without_endpoint.get()),
    ),
];

/// One name's numbers, as they were read.
struct Upstream<'n> {
    labels: String,
    counts: &'n UpstreamCounts,
    /// What clients got, from the upstream or in its place.
    codes: Vec<(u16, u64)>,
}

impl<'n> Upstream<'n> {
    fn of(named: &'n Named) -> Self {
        let counts: &UpstreamCounts = &named.meters;
        let mut codes: BTreeMap<u16, u64> = counts.codes.read().into_iter().collect();
        if let Some(failed) = counts.failed.get() {
            for (code, count) in failed.codes.read() {
                *codes.entry(code).or_default() += count;
            }
        }
        Upstream {
            labels: cluster_label(named),
            counts,
            codes: codes.into_iter().collect(),
        }
    }

    fn completed(&self) -> u64 {
        self.codes.iter().map(|(_, count)| count).sum()
    }

    /// Returns how many requests went out, retries included.
    fn sent(&self) -> u64 {
        let kept = self.counts.failed.get().map_or(0, |failed| {
            failed.overloaded.get() + failed.without_endpoint.get()
        });
        (self.completed() + self.counts.retries.get()).saturating_sub(kept)
    }

    fn overflows(&self, limited: Limited) -> i128 {
        self.failed(|failed| failed.overflows[limited as usize].get())
    }

    fn retried(&self, read: impl Fn(&Retried) -> &Count) -> i128 {
        let retried = self.counts.retried.get();
        retried.map_or(0, |retried| read(retried).get()).into()
    }

    fn failed(&self, read: impl Fn(&Failed) -> u64) -> i128 {
        self.counts
            .failed
            .get()
            .map_or(0, |failed| read(failed))
            .into()
    }
}

fn by_class(sums: [u64; 5], labels: &str, mut value: impl FnMut(&str, &dyn Display)) {
    for (class, sum) in (1..).zip(sums) {
        value(
            &format!("{labels},envoy_response_code_class=\"{class}\""),
            &sum,
        );
    }
}
