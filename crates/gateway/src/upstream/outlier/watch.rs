//! Counts how tries end, and puts endpoints aside and back as the machine says.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{info, warn};

use super::{Effect, Limits, Machine, Streaks, Tally, Verdict};
use crate::upstream::cluster::Cluster;
use crate::upstream::pool::Endpoint;

/// What is counted about one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    server_error: AtomicU32,
    gateway: AtomicU32,
    local: AtomicU32,
    /// In this interval.
    requests: AtomicU32,
    failures: AtomicU32,
}

impl Counts {
    fn streaks(&self) -> Streaks {
        Streaks {
            server_error: self.server_error.load(Relaxed),
            gateway: self.gateway.load(Relaxed),
            local: self.local.load(Relaxed),
        }
    }

    fn set(&self, streaks: Streaks) {
        self.server_error.store(streaks.server_error, Relaxed);
        self.gateway.store(streaks.gateway, Relaxed);
        self.local.store(streaks.local, Relaxed);
    }
}

/// Outlier detection of one cluster.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: Limits,
    machine: Mutex<Machine>,
}

impl Watch {
    pub(crate) fn new(limits: Limits) -> Self {
        Watch {
            machine: Mutex::new(Machine::new(limits.clone())),
            limits,
        }
    }

    /// Counts a try. What succeeds costs one addition; only failures are decided about.
    pub(crate) fn count(&self, cluster: &Cluster, endpoint: &Endpoint, verdict: Verdict) {
        let counts = &endpoint.state.counts;
        counts.requests.fetch_add(1, Relaxed);
        if verdict == Verdict::Success {
            if counts.streaks() != Streaks::default() {
                counts.set(Streaks::default());
            }
            return;
        }
        // Failures of split local origin do not count for the rates, as in Envoy.
        if verdict == Verdict::LocalOrigin && self.limits.split {
            counts.requests.fetch_sub(1, Relaxed);
        } else {
            counts.failures.fetch_add(1, Relaxed);
        }
        // An endpoint that is aside, or gone, is answering what it was asked before.
        if endpoint.state.ejected() || endpoint.state.gone() {
            return;
        }
        let mut machine = self.machine();
        let streaks = counts.streaks().after(verdict, self.limits.split);
        if machine.reached(streaks).is_none() {
            return counts.set(streaks);
        }
        counts.set(Streaks::default());
        let (now, chance) = (Instant::now(), rand::random_range(0..100));
        let endpoints = cluster.endpoints().len();
        let reason = machine.failed(endpoint.address, streaks, endpoints, now, chance);
        if let Some(reason) = reason {
            apply(cluster, &[Effect::Eject(endpoint.address, reason)]);
        }
    }

    fn tick(&self, cluster: &Cluster) {
        let mut machine = self.machine();
        let endpoints = cluster.endpoints();
        let tallies: Vec<Tally> = endpoints
            .iter()
            .map(|endpoint| Tally {
                address: endpoint.address,
                requests: endpoint.state.counts.requests.swap(0, Relaxed),
                failures: endpoint.state.counts.failures.swap(0, Relaxed),
            })
            .collect();
        let effects = machine.tick(&tallies, Instant::now(), || rand::random_range(0..100));
        apply(cluster, &effects);
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what the machine says, while it is locked: its word and the endpoints' state stay the same.
fn apply(cluster: &Cluster, effects: &[Effect]) {
    if effects.is_empty() {
        return;
    }
    let endpoints = cluster.endpoints();
    let upstream = &cluster.spec.name;
    for effect in effects {
        let (Effect::Eject(address, _) | Effect::Return(address)) = effect;
        let found = endpoints
            .iter()
            .find(|endpoint| endpoint.address == *address);
        let Some(endpoint) = found else { continue };
        match effect {
            Effect::Eject(_, reason) => {
                warn!(%upstream, %address, reason = reason.name(), "an endpoint is put aside");
                endpoint.state.set_ejected(true);
                cluster.meters.ejected(*reason);
            }
            Effect::Return(_) => {
                info!(%upstream, %address, "an endpoint that was put aside is back");
                endpoint.state.counts.set(Streaks::default());
                endpoint.state.set_ejected(false);
            }
        }
    }
    cluster.rebuild();
}

/// Looks at the rates and brings endpoints back as long as the cluster lives, on the current runtime.
pub(crate) fn keep(cluster: &Arc<Cluster>) {
    let Some(watch) = &cluster.outlier else {
        return;
    };
    let every = watch.limits.interval;
    let cluster = Arc::downgrade(cluster);
    tokio::spawn(async move {
        let mut interval = interval_at(Instant::now() + every, every);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let Some(cluster) = cluster.upgrade() else {
                return;
            };
            if let Some(watch) = &cluster.outlier {
                watch.tick(&cluster);
            }
        }
    });
}
