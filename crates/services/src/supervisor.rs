//! The life of one service, from waiting for its needs to being stopped.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::board::{Board, State, Status};
use crate::crash::Crashes;
use crate::engine::{Engine, Instance, Step};
use crate::health::{self, Pulse};
use crate::output::{Line, Output, Source};
use crate::plan::Service;

/// How long a `prepare:` command may take; a compiler on a small machine takes its time.
const PREPARE_MAX: Duration = Duration::from_mins(20);

/// Owns one service.
pub(crate) struct Supervisor {
    pub(crate) place: usize,
    pub(crate) service: Service,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) engine: Engine,
    pub(crate) board: watch::Sender<Board>,
    pub(crate) output: Output,
    pub(crate) stop: CancellationToken,
    pub(crate) force: CancellationToken,
}

/// How a span of a service's life ended.
enum Turn {
    /// It goes on to what comes next.
    On,
    /// It was told to stop, and has.
    Stopped,
    /// It cannot run; the reason stands on the board.
    Failed,
}

impl Supervisor {
    pub(crate) async fn run(self) {
        let turn = match self.wait_for_needs().await {
            Turn::On => match self.prepare().await {
                Turn::On => self.keep_running().await,
                turn => turn,
            },
            turn => turn,
        };
        if let Turn::Stopped = turn {
            self.set(State::Stopped, None);
        }
    }

    async fn wait_for_needs(&self) -> Turn {
        let mut seen = self.board.subscribe();
        for needed in &self.service.spec.needs {
            self.set(State::Waiting, Some(format!("waits for `{needed}`")));
            let healthy = seen.wait_for(|board| {
                board
                    .get(needed)
                    .is_some_and(|status| status.state == State::Healthy)
            });
            let go_on = tokio::select! {
                () = self.stop.cancelled() => false,
                healthy = healthy => healthy.is_ok(),
            };
            if !go_on {
                return Turn::Stopped;
            }
        }
        Turn::On
    }

    async fn prepare(&self) -> Turn {
        if !self.engine.has(Step::Prepare, &self.service) {
            return Turn::On;
        }
        self.set(State::Building, None);
        let mut instance = match self.launch(Step::Prepare).await {
            Ok(instance) => instance,
            Err(turn) => return turn,
        };
        tokio::select! {
            () = self.stop.cancelled() => {
                instance.stop(&self.force).await;
                Turn::Stopped
            }
            () = time::sleep(PREPARE_MAX) => {
                instance.stop(&self.force).await;
                let minutes = PREPARE_MAX.as_secs() / 60;
                self.fail(format!("could not be prepared in {minutes} minutes"));
                Turn::Failed
            }
            _ = instance.ended() => {
                let end = instance.stop(&self.force).await;
                if end.success {
                    return Turn::On;
                }
                self.fail(format!("could not be prepared: {}", end.reason));
                Turn::Failed
            }
        }
    }

    /// Starts the service, again and again, until it is told to stop or cannot be started.
    async fn keep_running(&self) -> Turn {
        let mut crashes = Crashes::default();
        self.set(State::Starting, None);
        loop {
            let mut instance = match self.launch(Step::Run).await {
                Ok(instance) => instance,
                Err(turn) => return turn,
            };
            let mut healthy_since = None;
            let ended = tokio::select! {
                biased;
                () = self.stop.cancelled() => false,
                _ = instance.ended() => true,
                never = self.watch(&mut healthy_since, crashes.looping()) => never,
            };
            let end = instance.stop(&self.force).await;
            if !ended {
                return Turn::Stopped;
            }

            let healthy_for =
                healthy_since.map_or(Duration::ZERO, |since: Instant| since.elapsed());
            let pause = crashes.ended(healthy_for);
            self.say(format!("{}; starting again in {pause:?}", end.reason))
                .await;
            let state = if crashes.looping() {
                State::Failed
            } else {
                State::Starting
            };
            self.update(|status| {
                status.state = state;
                status.reason = Some(end.reason);
                status.restarts += 1;
            });
            tokio::select! {
                () = self.stop.cancelled() => return Turn::Stopped,
                () = time::sleep(pause) => (),
            }
        }
    }

    /// Asks for the service's health for ever, and keeps its row up to date.
    async fn watch(&self, healthy_since: &mut Option<Instant>, looping: bool) -> bool {
        let mut pulse = Pulse::new(self.service.spec.start_timeout);
        let start = Instant::now();
        loop {
            let checked = health::check(&self.service.spec.health, self.service.address).await;
            let state = pulse.take(checked.is_ok(), start.elapsed());
            match (state, checked) {
                (State::Healthy, _) => {
                    healthy_since.get_or_insert_with(Instant::now);
                    self.set(State::Healthy, None);
                }
                // One that ends again and again stays failed, with the reason, until it is healthy.
                (State::Starting | State::Unhealthy, _) if looping && healthy_since.is_none() => {}
                (State::Starting, Err(reason)) => self.update(|status| {
                    // Why it ended the last time says more than that it is not up yet.
                    if status.restarts == 0 {
                        status.reason = Some(reason);
                    }
                }),
                (state, Err(reason)) => self.set(state, Some(reason)),
                (state, Ok(())) => self.set(state, None),
            }
            time::sleep(pulse.period()).await;
        }
    }

    async fn launch(&self, step: Step) -> Result<Instance, Turn> {
        let launched = self
            .engine
            .launch(
                step,
                &self.service,
                self.place,
                &self.environment,
                &self.output,
            )
            .await;
        match launched {
            Ok(instance) => Ok(instance),
            Err(fault) => {
                self.fail(fault.to_string());
                Err(Turn::Failed)
            }
        }
    }

    fn fail(&self, reason: String) {
        self.set(State::Failed, Some(reason));
    }

    /// Puts a line of our own into the service's stream.
    async fn say(&self, text: String) {
        let service = self.service.spec.name.as_str().into();
        self.output
            .put(Line {
                service,
                place: self.place,
                source: Source::Note,
                text,
            })
            .await;
    }

    fn set(&self, state: State, reason: Option<String>) {
        self.update(|status| {
            status.state = state;
            status.reason = reason;
        });
    }

    /// Changes the service's row, and wakes those who look at the board only when it is a change.
    fn update(&self, change: impl FnOnce(&mut Status)) {
        self.board.send_if_modified(|board| {
            let Some(status) = board.services.get_mut(self.place) else {
                return false;
            };
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}
