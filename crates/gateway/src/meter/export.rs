//! The gateway's numbers under their own names. What was never used is left out, so that ten thousand routes do not make
//! a page of a million lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use observe::metrics::{Kind, Page, Source, labels};

use super::codes::classes;
use super::route::FrontMeters;
use super::{CLASSES, RouteMeters, UpstreamMeters, envoy, tls};
use crate::Shared;
use crate::upstream::breaker::Limited;
use crate::upstream::cluster::{Cluster, View};
use crate::upstream::outlier::Reason;

/// One name in metrics, which several clusters may share.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) meters: UpstreamMeters,
    pub(super) clusters: Vec<Arc<Cluster>>,
}

impl Source for Shared {
    fn tell(&self, page: &mut Page) {
        let fronts = self.meters.fronts();
        connections(page, &fronts);
        routes(page, &fronts);
        let upstreams = named(&self.clusters.load());
        tell_upstreams(page, &upstreams);
        endpoints(page, &upstreams);
        envoy::tell(page, &fronts, &upstreams);
        tls::tell(page, &self.meters.listeners(), &self.chains.load());
    }
}

fn named(clusters: &[Arc<Cluster>]) -> Vec<Named> {
    let mut by_name: BTreeMap<&str, Vec<Arc<Cluster>>> = BTreeMap::new();
    for cluster in clusters {
        let same = by_name.entry(&cluster.spec.name).or_default();
        same.push(cluster.clone());
    }
    let named = |(name, clusters): (&str, Vec<Arc<Cluster>>)| Named {
        name: name.to_owned(),
        meters: clusters[0].meters.clone(),
        clusters,
    };
    by_name.into_iter().map(named).collect()
}

fn connections(page: &mut Page, fronts: &[Arc<FrontMeters>]) {
    let open: i64 = fronts.iter().map(|front| front.connections.get()).sum();
    let accepted: u64 = fronts.iter().map(|front| front.accepted.get()).sum();
    page.family(
        "nuncio_connections",
        Kind::Gauge,
        "Open connections from clients.",
    )
    .value("", open);
    page.family(
        "nuncio_connections_accepted",
        Kind::Counter,
        "Connections from clients that were accepted.",
    )
    .value("", accepted);
}

fn routes(page: &mut Page, fronts: &[Arc<FrontMeters>]) {
    let mut all: BTreeMap<Arc<str>, Vec<RouteMeters>> = BTreeMap::new();
    for front in fronts {
        for (name, meters) in front.routes().iter() {
            all.entry(name.clone()).or_default().push(meters.clone());
        }
        let unrouted = all.entry(Arc::from("")).or_default();
        unrouted.push(front.unrouted.clone());
    }
    let mut active = page.family(
        "nuncio_requests_active",
        Kind::Gauge,
        "Requests under way on a route.",
    );
    for (name, meters) in &all {
        let under_way: i64 = meters.iter().map(|m| m.active.get()).sum();
        active.value(&labels(&[("route", name)]), under_way);
    }
    let used = |meters: &Vec<RouteMeters>| meters.iter().any(|m| m.is_used());
    let routes: Vec<_> = all.iter().filter(|(_, meters)| used(meters)).collect();
    let mut requests = page.family(
        "nuncio_requests",
        Kind::Counter,
        "Requests that a route answered, by the status' class.",
    );
    for (name, meters) in &routes {
        let mut value =
            |class, value| requests.value(&labels(&[("route", name), ("class", class)]), value);
        for (at, class) in CLASSES.iter().enumerate() {
            value(
                class,
                meters.iter().map(|m| m.classes[at].get()).sum::<u64>(),
            );
        }
        value(
            "aborted",
            meters.iter().map(|m| m.aborted.get()).sum::<u64>(),
        );
    }
    let mut seconds = page.family(
        "nuncio_request_seconds",
        Kind::Histogram,
        "From a request's head to the end of its answer.",
    );
    for (name, meters) in &routes {
        seconds.sums(
            &labels(&[("route", name)]),
            meters.iter().map(|m| &m.seconds),
        );
    }
}

fn tell_upstreams(page: &mut Page, upstreams: &[Named]) {
    let used: Vec<(String, &Named)> = upstreams
        .iter()
        .filter(|named| named.meters.is_used())
        .map(|named| (labels(&[("upstream", &named.name)]), named))
        .collect();
    let mut requests = page.family(
        "nuncio_upstream_requests",
        Kind::Counter,
        "Answers of an upstream that clients got, by the status' class.",
    );
    for (upstream, named) in &used {
        let sums = classes(&named.meters.codes.read());
        for (class, sum) in CLASSES.iter().zip(sums) {
            requests.value(&format!("{upstream},class=\"{class}\""), sum);
        }
    }
    let mut all = |name, kind, help, value: &dyn Fn(&UpstreamMeters) -> i128| {
        let mut family = page.family(name, kind, help);
        for (upstream, named) in &used {
            family.value(upstream, value(&named.meters));
        }
    };
    all(
        "nuncio_upstream_requests_active",
        Kind::Gauge,
        "Requests under way to an upstream.",
        &|meters| meters.active.get().into(),
    );
    all(
        "nuncio_upstream_connections",
        Kind::Gauge,
        "Connections open to an upstream.",
        &|meters| meters.connections.now.get().into(),
    );
    all(
        "nuncio_upstream_connections_opened",
        Kind::Counter,
        "Connections to an upstream that were opened.",
        &|meters| meters.connections.all.get().into(),
    );
    all(
        "nuncio_upstream_connect_failures",
        Kind::Counter,
        "Connections to an upstream that could not be opened.",
        &|meters| meters.connect_failures.get().into(),
    );
    all(
        "nuncio_upstream_retries",
        Kind::Counter,
        "Requests sent to an upstream once more.",
        &|meters| meters.retries.get().into(),
    );
    all(
        "nuncio_upstream_timeouts",
        Kind::Counter,
        "Requests to an upstream whose time was over before the answer.",
        &|meters| meters.timeouts.get().into(),
    );
    let mut overflows = page.family(
        "nuncio_upstream_overflows",
        Kind::Counter,
        "Requests, retries and connections that a limit of the circuit breaker kept back.",
    );
    for (upstream, named) in &used {
        for limited in Limited::ALL {
            if let Some(failed) = named.meters.failed.get() {
                let labels = format!("{upstream},limit=\"{}\"", limited.name());
                overflows.value(&labels, failed.overflows[limited as usize].get());
            }
        }
    }
    let mut seconds = page.family(
        "nuncio_upstream_seconds",
        Kind::Histogram,
        "From a request's start to the head of the upstream's answer.",
    );
    for (upstream, named) in &used {
        seconds.buckets(upstream, &named.meters.seconds);
    }
}

/// Writes how endpoints fare, where somebody looks after them or there is more than one.
fn endpoints(page: &mut Page, upstreams: &[Named]) {
    let mut states = page.family(
        "nuncio_upstream_endpoints",
        Kind::Gauge,
        "Endpoints of an upstream, by their state.",
    );
    for named in upstreams {
        let views = named.clusters.iter().flat_map(|cluster| cluster.view());
        let views: Vec<View> = views.collect();
        if views.len() < 2 && named.meters.cared.get().is_none() {
            continue;
        }
        let mut state = |name, is: &dyn Fn(&View) -> bool| {
            let labels = labels(&[("upstream", &named.name), ("state", name)]);
            states.value(&labels, views.iter().filter(|view| is(view)).count());
        };
        state("healthy", &|view| view.healthy && !view.ejected);
        state("unhealthy", &|view| !view.healthy);
        state("ejected", &|view| view.healthy && view.ejected);
    }
    let cared = || {
        upstreams.iter().filter_map(|named| {
            let labels = labels(&[("upstream", &named.name)]);
            Some((labels, named.meters.cared.get()?))
        })
    };
    let mut checks = page.family(
        "nuncio_upstream_health_checks",
        Kind::Counter,
        "Health checks of an upstream's endpoints.",
    );
    for (upstream, cared) in cared() {
        checks.value(&upstream, cared.health_checks.get());
    }
    let mut failures = page.family(
        "nuncio_upstream_health_check_failures",
        Kind::Counter,
        "Health checks of an upstream's endpoints that failed.",
    );
    for (upstream, cared) in cared() {
        failures.value(&upstream, cared.health_check_failures.get());
    }
    let mut ejections = page.family(
        "nuncio_upstream_ejections",
        Kind::Counter,
        "Endpoints put aside by outlier detection, by the reason.",
    );
    for (upstream, cared) in cared() {
        for reason in Reason::ALL {
            let labels = format!("{upstream},reason=\"{}\"", reason.name());
            ejections.value(&labels, cared.ejections[reason as usize].get());
        }
    }
}
