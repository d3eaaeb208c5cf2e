//! What is counted about upstreams.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use observe::metrics::{Buckets, Count, Level};

use super::LATENCY;
use super::codes::{Codes, classes};
use super::traffic::Traffic;
use crate::refusal::Refusal;
use crate::upstream::breaker::Limited;
use crate::upstream::outlier::Reason;

/// Counters of the clusters of one name.
#[derive(Clone)]
pub(crate) struct UpstreamMeters(Arc<UpstreamCounts>);

/// The numbers behind [`UpstreamMeters`].
pub(crate) struct UpstreamCounts {
    /// The answers that clients got from the upstream.
    pub(super) codes: Codes,
    /// The answers that clients got from us because there was none.
    pub(super) failed: OnceLock<Box<Failed>>,
    pub(crate) active: Level,
    pub(crate) connections: Opened,
    pub(crate) connect_failures: Count,
    pub(crate) retries: Count,
    pub(crate) timeouts: Count,
    pub(super) seconds: Buckets,
    pub(super) cared: OnceLock<Box<Cared>>,
    /// Requests that found no open connection, until they have one.
    pub(crate) pending: Opened,
    pub(crate) traffic: Traffic,
    pub(super) retried: OnceLock<Box<Retried>>,
}

/// What is counted where requests are tried again.
#[derive(Default)]
pub(crate) struct Retried {
    /// Requests whose later try was good enough.
    pub(crate) successes: Count,
    /// Requests that had no try left.
    pub(crate) exhausted: Count,
    /// Tries whose own time was over.
    pub(crate) try_timeouts: Count,
}

/// What is counted where endpoints are looked after.
#[derive(Default)]
pub(crate) struct Cared {
    pub(crate) health_checks: Count,
    pub(crate) health_check_failures: Count,
    /// By the reason.
    pub(super) ejections: [Count; Reason::ALL.len()],
}

/// What is counted once something has failed.
#[derive(Default)]
pub(super) struct Failed {
    pub(super) codes: Codes,
    pub(super) connect_timeouts: Count,
    pub(super) overloaded: Count,
    pub(super) without_endpoint: Count,
    pub(super) resets: Count,
    /// Requests whose connection could not be opened.
    pub(super) pending_failures: Count,
    /// By what the limit is of.
    pub(super) overflows: [Count; Limited::ALL.len()],
}

/// How many are open now, and how many were opened.
#[derive(Default)]
pub(crate) struct Opened {
    pub(super) now: Level,
    pub(super) all: Count,
}

impl Opened {
    /// One is opened.
    pub(crate) fn inc(&self) {
        self.now.inc();
        self.all.inc();
    }

    /// Returns how many are open.
    pub(crate) fn now(&self) -> i64 {
        self.now.get()
    }

    /// One is closed.
    pub(crate) fn dec(&self) {
        self.now.dec();
    }
}

impl Default for UpstreamMeters {
    fn default() -> Self {
        UpstreamMeters(Arc::new(UpstreamCounts {
            codes: Codes::default(),
            failed: OnceLock::new(),
            active: Level::default(),
            connections: Opened::default(),
            connect_failures: Count::default(),
            retries: Count::default(),
            timeouts: Count::default(),
            seconds: Buckets::new(LATENCY),
            cared: OnceLock::new(),
            pending: Opened::default(),
            traffic: Traffic::default(),
            retried: OnceLock::new(),
        }))
    }
}

impl Deref for UpstreamMeters {
    type Target = UpstreamCounts;

    fn deref(&self) -> &UpstreamCounts {
        &self.0
    }
}

impl UpstreamCounts {
    /// A client gets the upstream's answer.
    pub(crate) fn answered(&self, status: StatusCode, duration: Duration) {
        self.codes.count(status);
        self.seconds.record(duration);
    }

    /// A client gets our answer instead. What is not the upstream's fault does not count.
    pub(crate) fn failed(&self, refusal: Refusal) {
        let failed = || self.failed.get_or_init(Box::default);
        match refusal {
            Refusal::NoUpstream => failed().without_endpoint.inc(),
            Refusal::ConnectFailed | Refusal::UpstreamTimeout => (),
            Refusal::ConnectTimeout => failed().connect_timeouts.inc(),
            Refusal::Overloaded => failed().overloaded.inc(),
            Refusal::UpstreamReset | Refusal::UpstreamRefused | Refusal::UpstreamProtocol => {
                failed().resets.inc();
            }
            _ => return,
        }
        failed().codes.count(refusal.status());
    }

    /// A limit of the circuit breaker is reached.
    pub(crate) fn overflowed(&self, limited: Limited) {
        let failed = self.failed.get_or_init(Box::default);
        failed.overflows[limited as usize].inc();
    }

    /// Returns the counters of tries after the first one.
    pub(crate) fn retried(&self) -> &Retried {
        self.retried.get_or_init(Box::default)
    }

    /// A request that waited for a new connection gets none.
    pub(crate) fn ejected_while_pending(&self) {
        self.failed.get_or_init(Box::default).pending_failures.inc();
    }

    /// Returns the counters of those who look after endpoints.
    pub(crate) fn cared(&self) -> &Cared {
        self.cared.get_or_init(Box::default)
    }

    /// An endpoint is put aside.
    pub(crate) fn ejected(&self, reason: Reason) {
        self.cared().ejections[reason as usize].inc();
    }

    /// Returns the upstream's answers by their class, and how many answers were ours.
    pub(crate) fn answers(&self) -> ([u64; 5], u64) {
        let failed = self.failed.get();
        let failed = failed.map_or(0, |failed| failed.codes.read().iter().map(|(_, n)| n).sum());
        (classes(&self.codes.read()), failed)
    }

    /// Returns whether it was ever asked.
    pub(super) fn is_used(&self) -> bool {
        !self.seconds.is_empty()
            || self.failed.get().is_some()
            || self.active.get() != 0
            || self.connections.all.get() > 0
    }
}

/// The counters of all upstreams by their names, which several clusters may share.
#[derive(Default)]
pub(crate) struct Upstreams(HashMap<Box<str>, UpstreamMeters>);

impl Upstreams {
    /// Returns the counters of this name, which are the same as long as there is a cluster of it.
    pub(crate) fn of(&mut self, name: &str) -> UpstreamMeters {
        if let Some(meters) = self.0.get(name) {
            return meters.clone();
        }
        let meters = UpstreamMeters::default();
        self.0.insert(name.into(), meters.clone());
        meters
    }

    /// Forgets what is gone.
    pub(crate) fn keep<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        let names: std::collections::HashSet<&str> = names.collect();
        self.0.retain(|name, _| names.contains(&**name));
    }
}
