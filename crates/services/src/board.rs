//! The states of all services, side by side.

use std::fmt;
use std::net::SocketAddr;

use crate::plan::Plan;

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It waits until the services that it needs are healthy.
    Waiting,
    /// Its `prepare:` command runs.
    Building,
    /// It runs, or is about to run again, and has not been healthy since.
    Starting,
    /// It runs and its last health check passed.
    Healthy,
    /// It runs and fails its health checks, after it was healthy or for longer than a start may take.
    Unhealthy,
    /// It cannot be started, or ends again and again.
    Failed,
    /// It was told to stop, and has.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            State::Waiting => "waiting",
            State::Building => "building",
            State::Starting => "starting",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
            State::Failed => "failed",
            State::Stopped => "stopped",
        })
    }
}

/// One service's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The service's name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is doing.
    pub state: State,
    /// Why it is not healthy, in one line.
    pub reason: Option<String>,
    /// How often it was started again after it had ended by itself.
    pub restarts: u32,
}

/// All services, in the order in which they were declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// One row a service.
    pub services: Vec<Status>,
}

impl Board {
    /// Returns the board before anything has started.
    pub fn new(plan: &Plan) -> Board {
        let row = |service: &crate::plan::Service| Status {
            name: service.spec.name.clone(),
            address: service.address,
            state: State::Waiting,
            reason: None,
            restarts: 0,
        };
        Board {
            services: plan.services().iter().map(row).collect(),
        }
    }

    /// Returns the row of the service called `name`.
    pub fn get(&self, name: &str) -> Option<&Status> {
        self.services.iter().find(|status| status.name == name)
    }

    /// Whether every service is healthy.
    pub fn healthy(&self) -> bool {
        self.services
            .iter()
            .all(|status| status.state == State::Healthy)
    }

    /// Whether no service is on its way any more: each is healthy, or is not for a reason that waiting does not mend.
    pub fn settled(&self) -> bool {
        let bad = |status: &Status| matches!(status.state, State::Unhealthy | State::Failed);
        let any_bad = self.services.iter().any(bad);
        self.services.iter().all(|status| match status.state {
            State::Building | State::Starting => false,
            State::Waiting => any_bad,
            State::Healthy | State::Unhealthy | State::Failed | State::Stopped => true,
        })
    }

    /// Whether a service is still being built, which takes as long as it takes.
    pub fn building(&self) -> bool {
        self.services
            .iter()
            .any(|status| status.state == State::Building)
    }
}
