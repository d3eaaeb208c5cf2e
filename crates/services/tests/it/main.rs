//! Services of a few lines of shell and Python, started, broken and stopped.

mod ends;
mod health;
mod stops;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use services::Services;
use services::board::{Board, State, Status};
use services::output::Line;
use services::plan::{Health, Plan, Spec};
use tokio::sync::mpsc;
use tokio::time;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A service that says that it is up and then waits for its end.
const IDLE: &str = "echo up; while :; do sleep 1; done";

/// A running plan in a folder of its own.
struct Stage {
    services: Services,
    lines: mpsc::Receiver<Line>,
    folder: tempfile::TempDir,
    plan: Plan,
}

impl Stage {
    /// Starts the services, given as names and commands, after `change` has had its way with them.
    fn start(commands: &[(&str, &str)], change: impl Fn(&mut Spec)) -> Stage {
        let folder = tempfile::tempdir().expect("a folder of our own");
        let specs = commands.iter().map(|(name, command)| {
            let mut spec = Spec {
                name: (*name).to_owned(),
                folder: folder.path().to_owned(),
                prepare: None,
                run: Some((*command).to_owned()),
                health: Health::Tcp,
                port: None,
                start_timeout: LIMIT,
                stop_timeout: Duration::from_secs(10),
                needs: Vec::new(),
                environment: Vec::new(),
            };
            change(&mut spec);
            spec
        });
        let plan = Plan::new(specs.collect(), &folder.path().join("data")).expect("a sound plan");
        let (services, lines) = Services::start(&plan).expect("there is a shell");
        Stage {
            services,
            lines,
            folder,
            plan,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the next line.
    async fn line(&mut self) -> Line {
        let line = time::timeout(LIMIT, self.lines.recv())
            .await
            .expect("a line is printed");
        line.expect("the services run")
    }

    /// Reads lines until one has this text.
    async fn line_is(&mut self, text: &str) -> Line {
        loop {
            let line = self.line().await;
            if line.text == text {
                return line;
            }
        }
    }

    /// Waits for a state of the service called `name`, while its lines are read and dropped.
    async fn state(&mut self, name: &str, state: State) -> Status {
        self.board(|board| board.get(name).is_some_and(|status| status.state == state))
            .await
            .get(name)
            .cloned()
            .expect("it was just there")
    }

    async fn board(&mut self, fits: impl Fn(&Board) -> bool) -> Board {
        let mut board = self.services.board();
        let found = async {
            loop {
                tokio::select! {
                    found = board.wait_for(|board| fits(board)) => {
                        break found.expect("the services run").clone();
                    }
                    Some(_) = self.lines.recv() => (),
                }
            }
        };
        match time::timeout(LIMIT, found).await {
            Ok(found) => found,
            Err(_) => panic!(
                "waited in vain; now: {:#?}",
                *self.services.board().borrow()
            ),
        }
    }
}

/// Waits for what no event tells.
async fn until(what: &str, fits: impl Fn() -> bool) {
    let start = Instant::now();
    while !fits() {
        assert!(start.elapsed() < LIMIT, "waited in vain until {what}");
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether the process still runs; one that has ended and was not noticed by its parent does not.
fn runs(process: &str) -> bool {
    let id = process.trim();
    assert!(id.parse::<u32>().is_ok(), "`{id}` is no process id");
    match std::fs::read_to_string(format!("/proc/{id}/stat")) {
        Ok(stat) => !stat.contains(") Z "),
        Err(_) => false,
    }
}
