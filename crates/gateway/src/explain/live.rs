//! A service as a running process sees it.

use std::fmt;
use std::net::SocketAddr;

use model::mapping::Priority;
use serde::{Deserialize, Serialize};

use crate::upstream::breaker::Limited;
use crate::upstream::cluster::{Cluster, View};

/// Endpoints that are told to people; machines get all of them.
const ENDPOINTS_MAX: usize = 20;

/// A service as a running process sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// Its name in metrics.
    pub upstream: String,
    /// Requests under way.
    pub active: i64,
    /// Open connections.
    pub connections: i64,
    pub endpoints: Vec<LiveEndpoint>,
    /// The circuit breaker of the route's priority.
    pub limits: Vec<Limit>,
}

/// One endpoint as it fares now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveEndpoint {
    pub address: SocketAddr,
    pub state: State,
    pub weight: u32,
    pub zone: Option<String>,
    /// Requests under way.
    pub active: u64,
    pub last_error: Option<String>,
}

/// Whether an endpoint takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Healthy,
    /// Discovery or health checks say so.
    Unhealthy,
    /// Outlier detection has put it aside.
    Ejected,
}

/// A limit of the circuit breaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// `requests`, `connections`, `pending` or `retries`.
    pub of: String,
    pub used: u64,
    pub most: u64,
    /// Whether it is reached.
    pub open: bool,
}

impl Live {
    pub(super) fn of(cluster: &Cluster, priority: Priority) -> Self {
        let breaker = cluster.breaker(priority);
        let limit = |limited: Limited| {
            let (most, remaining) = (breaker.most(limited), breaker.remaining(limited));
            Limit {
                of: limited.name().to_owned(),
                used: most.saturating_sub(remaining),
                most,
                open: remaining == 0,
            }
        };
        Live {
            upstream: cluster.spec.name.clone(),
            active: cluster.meters.active.get(),
            connections: cluster.meters.connections.now(),
            endpoints: cluster.view().into_iter().map(LiveEndpoint::of).collect(),
            limits: Limited::ALL.into_iter().map(limit).collect(),
        }
    }
}

impl LiveEndpoint {
    fn of(view: View) -> Self {
        LiveEndpoint {
            address: view.address,
            state: match (view.healthy, view.ejected) {
                (false, _) => State::Unhealthy,
                (true, true) => State::Ejected,
                (true, false) => State::Healthy,
            },
            weight: view.weight,
            zone: view.zone.map(|zone| zone.to_string()),
            active: view.active,
            last_error: view.last_error,
        }
    }
}

impl fmt::Display for Live {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Live {
            upstream,
            active,
            connections,
            ..
        } = self;
        writeln!(
            out,
            "  now     {upstream}: {active} under way, {connections} connections"
        )?;
        if self.endpoints.is_empty() {
            writeln!(out, "          - no endpoint is known")?;
        }
        for endpoint in self.endpoints.iter().take(ENDPOINTS_MAX) {
            writeln!(out, "          - {endpoint}")?;
        }
        let more = self.endpoints.len().saturating_sub(ENDPOINTS_MAX);
        if more > 0 {
            writeln!(out, "          - and {more} more")?;
        }
        for limit in self
            .limits
            .iter()
            .filter(|limit| limit.used > 0 || limit.open)
        {
            let Limit {
                of,
                used,
                most,
                open,
            } = limit;
            let open = if *open {
                ", the circuit breaker is open"
            } else {
                ""
            };
            writeln!(out, "          - {used} of {most} {of}{open}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LiveEndpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
            State::Ejected => "ejected",
        };
        write!(out, "{} {state}", self.address)?;
        if self.weight != 1 {
            write!(out, ", weight {}", self.weight)?;
        }
        if let Some(zone) = &self.zone {
            write!(out, ", zone {zone}")?;
        }
        if self.active > 0 {
            write!(out, ", {} under way", self.active)?;
        }
        match &self.last_error {
            Some(error) => write!(out, ", last error: {error}"),
            None => Ok(()),
        }
    }
}
