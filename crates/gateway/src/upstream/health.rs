//! Active health checks: endpoints are asked how they are, and those that are not well get no requests.
//!
//! A cluster has one task that checks all its endpoints. An endpoint that has just joined gets no requests before it has
//! passed; while none has, the cluster's panic threshold lets requests through all the same.

mod probe;
mod verdict;

use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use model::mapping::{HealthCheck, HttpHealthCheck};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::cluster::Cluster;
use super::pool::Endpoint;
use verdict::Verdict;

/// Checks of one cluster under way at once.
const RUNNING_MAX: usize = 64;
/// Each wait is up to this part longer or shorter, so that checks spread.
const JITTER: f64 = 0.1;
/// Envoy's and Ambassador's defaults.
const TIMEOUT: Duration = Duration::from_secs(3);
const INTERVAL: Duration = Duration::from_secs(5);

/// A check, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
    pub(crate) unhealthy_threshold: u32,
    pub(crate) healthy_threshold: u32,
    pub(crate) probe: Probe,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Probe {
    Http(Http),
    Grpc {
        service: String,
        authority: Option<String>,
    },
    Tcp,
}

/// A request whose status is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Http {
    pub(crate) path: String,
    pub(crate) host: Option<String>,
    /// With whether they are added to what is there.
    pub(crate) add: Vec<(HeaderName, HeaderValue, bool)>,
    pub(crate) remove: Vec<HeaderName>,
    /// From and to, both included.
    pub(crate) expected: Vec<(u16, u16)>,
}

impl Check {
    /// Compiles a check; `None` when it asks nothing, which the model refuses.
    pub(crate) fn new(said: &HealthCheck) -> Option<Self> {
        let kind = &said.health_check;
        let probe = match (&kind.http, &kind.grpc, &kind.tcp) {
            (Some(http), _, _) => Probe::Http(Http::new(http)),
            (_, Some(grpc), _) => Probe::Grpc {
                service: grpc.upstream_name.clone(),
                authority: grpc.authority.clone(),
            },
            (_, _, Some(_)) => Probe::Tcp,
            _ => return None,
        };
        Some(Check {
            timeout: said.timeout.unwrap_or(TIMEOUT),
            interval: said.interval.unwrap_or(INTERVAL),
            unhealthy_threshold: said.unhealthy_threshold.unwrap_or(2),
            healthy_threshold: said.healthy_threshold.unwrap_or(1),
            probe,
        })
    }
}

impl Http {
    fn new(said: &HttpHealthCheck) -> Self {
        let added = said.add_request_headers.iter().filter_map(|(name, added)| {
            let value = HeaderValue::from_str(&added.value).ok()?;
            Some((name.parse().ok()?, value, added.append))
        });
        let removed = said.remove_request_headers.iter();
        let expected = said.expected_statuses.iter();
        let mut expected: Vec<(u16, u16)> = expected.map(|range| (range.min, range.max)).collect();
        if expected.is_empty() {
            expected.push((200, 200));
        }
        Http {
            path: said.path.clone(),
            host: said.hostname.clone(),
            add: added.collect(),
            remove: removed.filter_map(|name| name.parse().ok()).collect(),
            expected,
        }
    }
}

/// An endpoint and how its checks stand.
struct Patient {
    endpoint: Arc<Endpoint>,
    rounds: Vec<Round>,
}

/// One check of one endpoint.
#[derive(Clone)]
struct Round {
    verdict: Verdict,
    /// When it is asked next; `None` while it is.
    due: Option<Instant>,
}

/// What came of one check.
struct Outcome {
    endpoint: Arc<Endpoint>,
    check: usize,
    found: Result<(), String>,
}

/// Checks the cluster's endpoints as long as it lives, on the current runtime.
pub(crate) fn keep(cluster: &Arc<Cluster>) {
    if !cluster.spec.care.checks.is_empty() {
        tokio::spawn(run(Arc::downgrade(cluster)));
    }
}

async fn run(cluster: Weak<Cluster>) {
    let mut patients: Vec<Patient> = Vec::new();
    let mut running: JoinSet<Outcome> = JoinSet::new();
    loop {
        // The cluster is not held while waiting: it ends when nobody else has it.
        let Some(strong) = cluster.upgrade() else {
            return;
        };
        let moved = strong.moved.clone();
        admit(&strong, &mut patients);
        let next = begin(&strong, &mut patients, &mut running);
        drop(strong);
        let waiting = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = running.join_next() => {
                if let (Ok(outcome), Some(cluster)) = (ended, cluster.upgrade()) {
                    settle(&cluster, &mut patients, outcome);
                }
            }
            () = waiting => (),
            () = moved.notified() => (),
        }
    }
}

/// Follows the cluster's endpoints: new ones are checked at once, those that left no more.
fn admit(cluster: &Cluster, patients: &mut Vec<Patient>) {
    let endpoints = cluster.endpoints();
    patients.retain(|patient| !patient.endpoint.state.gone());
    if endpoints.len() == patients.len() {
        return;
    }
    let due = Some(Instant::now());
    let round = Round {
        verdict: Verdict::default(),
        due,
    };
    for endpoint in endpoints {
        let known = |patient: &Patient| Arc::ptr_eq(&patient.endpoint, &endpoint);
        if !patients.iter().any(known) {
            patients.push(Patient {
                endpoint,
                rounds: vec![round.clone(); cluster.spec.care.checks.len()],
            });
        }
    }
}

/// Begins the checks that are due, and returns when the next one is.
fn begin(
    cluster: &Arc<Cluster>,
    patients: &mut [Patient],
    running: &mut JoinSet<Outcome>,
) -> Option<Instant> {
    let now = Instant::now();
    let mut next: Option<Instant> = None;
    for patient in patients {
        for (check, round) in patient.rounds.iter_mut().enumerate() {
            let Some(due) = round.due else { continue };
            if due > now {
                next = Some(next.map_or(due, |next| next.min(due)));
                continue;
            }
            // Above the limit, the end of another check begins this one.
            if running.len() >= RUNNING_MAX {
                continue;
            }
            round.due = None;
            cluster.meters.cared().health_checks.inc();
            let (cluster, endpoint) = (cluster.clone(), patient.endpoint.clone());
            running.spawn(async move {
                let Check {
                    probe,
                    timeout: limit,
                    ..
                } = &cluster.spec.care.checks[check];
                let probing = probe::ask(&cluster, &endpoint, probe);
                let found = match timeout(*limit, probing).await {
                    Ok(found) => found,
                    Err(_) => Err(format!("no answer within {limit:?}")),
                };
                Outcome {
                    endpoint,
                    check,
                    found,
                }
            });
        }
    }
    next
}

/// Takes an outcome into account.
fn settle(cluster: &Cluster, patients: &mut [Patient], outcome: Outcome) {
    let Outcome {
        endpoint,
        check,
        found,
    } = outcome;
    let known = |patient: &&mut Patient| Arc::ptr_eq(&patient.endpoint, &endpoint);
    let Some(patient) = patients.iter_mut().find(known) else {
        return;
    };
    let rules = &cluster.spec.care.checks[check];
    let (upstream, address) = (&cluster.spec.name, endpoint.address);
    if let Err(why) = &found {
        debug!(%upstream, %address, %why, "a health check failed");
        cluster.meters.cared().health_check_failures.inc();
        endpoint.state.erred(format!("health check: {why}"));
    }
    let round = &mut patient.rounds[check];
    round.verdict = round.verdict.after(found.is_ok(), rules);
    let jitter = 1.0 + JITTER * (rand::random::<f64>() * 2.0 - 1.0);
    round.due = Some(Instant::now() + rules.interval.mul_f64(jitter));
    let healthy = patient
        .rounds
        .iter()
        .all(|round| round.verdict.is_healthy());
    if endpoint.state.set_checked(healthy) {
        match (healthy, found) {
            (false, Err(why)) => {
                warn!(%upstream, %address, %why, "an endpoint is unhealthy");
            }
            _ => info!(%upstream, %address, "an endpoint is healthy"),
        }
        cluster.rebuild();
    }
}
