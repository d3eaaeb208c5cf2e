//! What is counted about routes and about the listeners they serve.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use observe::metrics::{Buckets, Count, Level};

use super::traffic::Traffic;
use super::{CLASSES, LATENCY};

/// Counters of one route of one listener.
#[derive(Clone)]
pub(crate) struct RouteMeters(Arc<RouteCounts>);

/// The numbers behind [`RouteMeters`].
pub(crate) struct RouteCounts {
    pub(super) classes: [Count; CLASSES.len()],
    /// The client left before the answer had ended.
    pub(crate) aborted: Count,
    pub(crate) active: Level,
    pub(super) seconds: Buckets,
}

impl Default for RouteMeters {
    fn default() -> Self {
        RouteMeters(Arc::new(RouteCounts {
            classes: Default::default(),
            aborted: Count::default(),
            active: Level::default(),
            seconds: Buckets::new(LATENCY),
        }))
    }
}

impl Deref for RouteMeters {
    type Target = RouteCounts;

    fn deref(&self) -> &RouteCounts {
        &self.0
    }
}

impl RouteCounts {
    /// An answer has ended, as it should or not.
    pub(crate) fn ended(&self, status: StatusCode, duration: Duration) {
        let class = usize::from(status.as_u16() / 100).wrapping_sub(1);
        if let Some(class) = self.classes.get(class) {
            class.inc();
        }
        self.seconds.record(duration);
    }

    /// Returns whether it has ever taken a request.
    pub(super) fn is_used(&self) -> bool {
        !self.seconds.is_empty() || self.active.get() != 0 || self.aborted.get() > 0
    }

    /// Takes over what another one has counted.
    fn add(&self, other: &RouteCounts) {
        for (ours, theirs) in self.classes.iter().zip(&other.classes) {
            ours.inc_by(theirs.get());
        }
        self.aborted.inc_by(other.aborted.get());
        self.seconds.add(&other.seconds);
    }
}

/// Counters of the listeners with one `statsPrefix`.
pub(crate) struct FrontMeters {
    pub(super) prefix: Arc<str>,
    /// Open connections.
    pub(crate) connections: Level,
    pub(crate) accepted: Count,
    /// Bytes on their connections.
    pub(crate) traffic: Traffic,
    /// Requests that were answered with 404 because no route takes them.
    pub(crate) no_route: Count,
    /// Requests that no route took.
    pub(crate) unrouted: RouteMeters,
    /// What routes had counted that are gone by now, so that sums never fall.
    pub(super) gone: RouteMeters,
    routes: Mutex<BTreeMap<Arc<str>, RouteMeters>>,
}

impl FrontMeters {
    pub(super) fn new(prefix: &str) -> Self {
        FrontMeters {
            prefix: prefix.into(),
            connections: Level::default(),
            accepted: Count::default(),
            traffic: Traffic::default(),
            no_route: Count::default(),
            unrouted: RouteMeters::default(),
            gone: RouteMeters::default(),
            routes: Mutex::default(),
        }
    }

    /// Returns the counters of a route, which are the same as long as there is one of this name.
    pub(crate) fn route(&self, name: &Arc<str>) -> RouteMeters {
        self.routes().entry(name.clone()).or_default().clone()
    }

    /// Stops to report routes that are gone.
    pub(super) fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.routes().retain(|name, meters| {
            let there = is_there(name);
            if !there {
                self.gone.add(meters);
            }
            there
        });
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, RouteMeters>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
