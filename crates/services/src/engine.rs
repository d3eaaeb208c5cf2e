//! The ways to run a service. Today as processes of this machine; containers get their own variant here, and nothing
//! above this file changes: a supervisor only launches, waits and stops.

pub(crate) mod process;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::guard::Guard;
use crate::output::Output;
use crate::plan::Service;

/// One way to run services.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    /// As processes, by their `run:` commands.
    Process(process::Engine),
}

/// What is to be launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// What must end well before the service can run.
    Prepare,
    /// The service.
    Run,
}

/// Something launched.
#[derive(Debug)]
pub(crate) enum Instance {
    /// A process group.
    Process(process::Instance),
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    /// Whether it reports success.
    pub(crate) success: bool,
    /// How and why, in one line.
    pub(crate) reason: String,
}

/// Why something could not be launched at all. Trying again without a change would end the same way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("has no `run:` command, and containers cannot be started yet")]
    NoCommand,

    #[error("its folder `{0}` does not exist")]
    NoFolder(String),

    #[error("needs `{0}`, which is not installed or not on the PATH")]
    NoProgram(String),

    #[error("needs the program `{0}`, which does not exist")]
    NoFile(String),

    #[error("cannot be started: {0}")]
    System(#[from] std::io::Error),
}

impl Engine {
    pub(crate) fn process(guard: Arc<Guard>) -> Engine {
        Engine::Process(process::Engine { guard })
    }

    /// Whether `service` has anything to do for `step`.
    pub(crate) fn has(&self, step: Step, service: &Service) -> bool {
        match (self, step) {
            (Engine::Process(_), Step::Prepare) => service.spec.prepare.is_some(),
            (Engine::Process(_), Step::Run) => true,
        }
    }

    /// Launches one step of `service`, whose lines go to `output`.
    pub(crate) async fn launch(
        &self,
        step: Step,
        service: &Service,
        place: usize,
        environment: &[(String, String)],
        output: &Output,
    ) -> Result<Instance, Fault> {
        match self {
            Engine::Process(engine) => {
                let launched = engine
                    .launch(step, service, place, environment, output)
                    .await;
                launched.map(Instance::Process)
            }
        }
    }
}

impl Instance {
    /// Waits until it has ended by itself. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> std::io::Result<()> {
        match self {
            Instance::Process(instance) => instance.ended().await,
        }
    }

    /// Stops what still runs of it, in an orderly way until `force` is cancelled, and tells how it ended.
    pub(crate) async fn stop(self, force: &CancellationToken) -> End {
        match self {
            Instance::Process(instance) => instance.stop(force).await,
        }
    }
}
