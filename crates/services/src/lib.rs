//! Starts, watches and stops the user's services for `nuncio up`.
//!
//! A [`plan::Plan`] says what is to run and where. [`Services`] starts it: one task a service waits for what the
//! service needs, prepares it, starts it, asks for its health, restarts it when it ends, and stops it. What
//! happens is told in two ways: a [`board::Board`] with the state of each, and one stream of [`output::Line`]s.

pub mod board;
pub mod output;
pub mod plan;

mod crash;
mod engine;
mod guard;
mod health;
mod reason;
mod supervisor;

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::board::Board;
use crate::engine::Engine;
use crate::guard::Guard;
use crate::output::{Line, Output};
use crate::plan::Plan;
use crate::supervisor::Supervisor;

/// All services of a plan, running until [`Services::stop`].
///
/// When this is dropped instead, or when the whole process is killed, a guard process ends what was started.
pub struct Services {
    board: watch::Receiver<Board>,
    supervisors: JoinSet<()>,
    stop: CancellationToken,
    force: CancellationToken,
    guard: Arc<Guard>,
}

impl Services {
    /// Starts every service of `plan`; the lines that they print arrive at the receiver.
    ///
    /// The receiver must be read: a service whose lines nobody takes waits when its queue is full. Dropping it
    /// discards the lines.
    ///
    /// # Errors
    /// When `sh`, which runs the commands, cannot be started.
    pub fn start(plan: &Plan) -> io::Result<(Services, mpsc::Receiver<Line>)> {
        let guard = Arc::new(Guard::start()?);
        let (output, lines) = Output::new();
        let (board, seen) = watch::channel(Board::new(plan));
        let stop = CancellationToken::new();
        let force = CancellationToken::new();

        let mut supervisors = JoinSet::new();
        for (place, service) in plan.services().iter().enumerate() {
            let supervisor = Supervisor {
                place,
                service: service.clone(),
                environment: plan.environment(service),
                engine: Engine::process(Arc::clone(&guard)),
                board: board.clone(),
                output: output.clone(),
                stop: stop.clone(),
                force: force.clone(),
            };
            supervisors.spawn(supervisor.run());
        }
        Ok((
            Services {
                board: seen,
                supervisors,
                stop,
                force,
                guard,
            },
            lines,
        ))
    }

    /// Returns the states of all services; it changes as they change.
    pub fn board(&self) -> watch::Receiver<Board> {
        self.board.clone()
    }

    /// Returns what turns an orderly stop into an immediate one: cancelling it kills every service that still runs.
    pub fn force(&self) -> CancellationToken {
        self.force.clone()
    }

    /// Stops all services at the same time: asks, waits as long as each may take, then kills.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.supervisors.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a service's supervisor ended badly");
            }
        }
        self.guard.dismiss().await;
    }
}
