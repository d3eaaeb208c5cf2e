//! What a running gateway tells about its upstreams and their endpoints, for people.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use model::mapping::Priority;
use serde::Serialize;

use crate::Gateway;
use crate::backend::Backend;
use crate::upstream::breaker::Limited;
use crate::upstream::cluster::Cluster;

/// A service as the gateway sees it now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Upstream {
    /// Its name in metrics (`stats_name`).
    pub name: String,
    /// Its host, as it is looked up.
    pub host: String,
    pub port: u16,
    /// The routes that go to it.
    pub routes: Vec<Arc<str>>,
    pub endpoints: Vec<Endpoint>,
    /// Answers that clients got from it, by the status' class, `1xx` first.
    pub answers: [u64; 5],
    /// Answers that clients got from the gateway in its place.
    pub failed: u64,
    pub retries: u64,
    pub timeouts: u64,
    /// Requests under way.
    pub active: i64,
    /// Open connections.
    pub connections: i64,
    /// Limits of the circuit breaker that are reached now.
    pub full: Vec<&'static str>,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Endpoint {
    pub address: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Arc<str>>,
    /// Discovery and health checks find it well.
    pub healthy: bool,
    /// Outlier detection has put it aside.
    pub ejected: bool,
    pub weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// Requests under way.
    pub active: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Upstream {
    /// Returns how many endpoints take requests.
    pub fn healthy(&self) -> usize {
        let takes = |endpoint: &&Endpoint| endpoint.healthy && !endpoint.ejected;
        self.endpoints.iter().filter(takes).count()
    }

    fn of(cluster: &Cluster, routes: Vec<Arc<str>>) -> Self {
        let full = [
            Limited::Connections,
            Limited::Pending,
            Limited::Requests,
            Limited::Retries,
        ];
        let breaker = cluster.breaker(Priority::Default);
        let (answers, failed) = cluster.meters.answers();
        Upstream {
            name: cluster.spec.name.clone(),
            host: cluster.spec.host.clone(),
            port: cluster.spec.port,
            routes,
            endpoints: cluster.view().into_iter().map(Endpoint::of).collect(),
            answers,
            failed,
            retries: cluster.meters.retries.get(),
            timeouts: cluster.meters.timeouts.get(),
            active: cluster.meters.active.get(),
            connections: cluster.meters.connections.now(),
            full: full
                .into_iter()
                .filter(|limited| breaker.remaining(*limited) == 0)
                .map(Limited::name)
                .collect(),
        }
    }
}

impl Endpoint {
    fn of(view: crate::upstream::cluster::View) -> Self {
        Endpoint {
            address: view.address,
            hostname: view.hostname,
            healthy: view.healthy,
            ejected: view.ejected,
            weight: view.weight,
            zone: view.zone,
            active: view.active,
            last_error: view.last_error,
        }
    }
}

impl Gateway {
    /// Returns every upstream by its name, with its endpoints as they are now.
    pub fn upstreams(&self) -> Vec<Upstream> {
        let mut routes: HashMap<*const Cluster, Vec<Arc<str>>> = HashMap::new();
        for listener in self.running().listeners.values() {
            for route in &listener.front.load().routes {
                if let Backend::Service(cluster) = &route.backend {
                    let same = routes.entry(Arc::as_ptr(cluster)).or_default();
                    if !same.contains(&route.name) {
                        same.push(route.name.clone());
                    }
                }
            }
        }
        let clusters = self.shared.clusters.load();
        let mut upstreams: Vec<Upstream> = clusters
            .iter()
            .map(|cluster| {
                let routes = routes.remove(&Arc::as_ptr(cluster));
                Upstream::of(cluster, routes.unwrap_or_default())
            })
            .collect();
        upstreams.sort_by(|one, other| one.name.cmp(&other.name));
        upstreams
    }
}
