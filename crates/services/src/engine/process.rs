//! Services as processes: each command is a process group of its own, and the whole group ends with it.
//!
//! A launch goes in three steps, so that no moment is unwatched: a shell starts in a new group and waits on its
//! standard input; the guard is told the group; the shell is told to go on and becomes the user's command. When we
//! are killed before the third step the shell reads the end of its input and ends; after it, the guard ends the group.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::engine::{End, Fault, Step};
use crate::guard::Guard;
use crate::output::{self, Line, Output, Source};
use crate::plan::Service;
use crate::reason::Tail;

/// How long the system may take to end what was killed; only a process stuck in the kernel takes longer.
const KILL_MAX: Duration = Duration::from_secs(5);

/// How often to look whether a group is empty: the system tells only about our own children.
const GROUP_PERIOD: Duration = Duration::from_millis(20);

/// How long to read on after a group was killed. Only a process that has left the group can keep the pipe open.
const READ_ON_MAX: Duration = Duration::from_secs(1);

/// Waits for the word to go, then becomes the user's command, without our pipe.
const SCRIPT: &str = r#"read -r go || exit 0; exec sh -c "$1" </dev/null"#;

/// Runs commands as process groups.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) guard: Arc<Guard>,
}

/// One process group.
#[derive(Debug)]
pub(crate) struct Instance {
    child: Child,
    group: Pid,
    tail: Arc<Mutex<Tail>>,
    readers: JoinSet<()>,
    guard: Arc<Guard>,
    stop_timeout: Duration,
}

impl Engine {
    pub(crate) async fn launch(
        &self,
        step: Step,
        service: &Service,
        place: usize,
        environment: &[(String, String)],
        output: &Output,
    ) -> Result<Instance, Fault> {
        let spec = &service.spec;
        let command = match step {
            Step::Prepare => spec.prepare.as_deref(),
            Step::Run => spec.run.as_deref(),
        };
        let command = command.ok_or(Fault::NoCommand)?;
        if !spec.folder.is_dir() {
            return Err(Fault::NoFolder(spec.folder.display().to_string()));
        }
        find_program(command, &spec.folder, std::env::var_os("PATH"))?;
        std::fs::create_dir_all(&service.data)?;

        let mut shell = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_about_us) {
                shell.env_remove(&name);
            }
        }
        let child = shell
            .args(["-c", SCRIPT, "sh", command])
            .current_dir(&spec.folder)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        let group = id
            .and_then(Pid::from_raw)
            .expect("a child that was not waited for has an id");

        let mut instance = Instance {
            group,
            tail: Arc::default(),
            readers: JoinSet::new(),
            guard: Arc::clone(&self.guard),
            stop_timeout: spec.stop_timeout,
            child,
        };
        let line = |source| {
            let service = Arc::from(spec.name.as_str());
            Line {
                service,
                place,
                source,
                text: String::new(),
            }
        };
        if let Some(stream) = instance.child.stdout.take() {
            instance
                .readers
                .spawn(read(stream, line(Source::Out), output.clone(), None));
        }
        if let Some(stream) = instance.child.stderr.take() {
            let tail = Arc::clone(&instance.tail);
            instance
                .readers
                .spawn(read(stream, line(Source::Err), output.clone(), Some(tail)));
        }

        let mut stdin = instance.child.stdin.take().expect("stdin is piped");
        self.guard.watch(group).await?;
        stdin.write_all(b"go\n").await?;
        Ok(instance)
    }
}

impl Instance {
    pub(crate) async fn ended(&mut self) -> io::Result<()> {
        self.child.wait().await.map(|_| ())
    }

    /// Asks the group to stop, waits until it is empty, kills what is left, and reads its last lines.
    pub(crate) async fn stop(mut self, force: &CancellationToken) -> End {
        // When the first process has ended by itself, nobody is left to be asked: the rest are its leftovers.
        let running = matches!(self.child.try_wait(), Ok(None));
        if running && !force.is_cancelled() {
            self.signal(Signal::TERM);
            tokio::select! {
                () = force.cancelled() => (),
                _ = time::timeout(self.stop_timeout, self.emptied()) => (),
            }
        }
        self.signal(Signal::KILL);
        if time::timeout(KILL_MAX, self.emptied()).await.is_err() {
            warn!(
                group = self.group.as_raw_nonzero(),
                "a killed process does not end"
            );
        }
        let status = self.child.wait().await;
        let read_on = async { while self.readers.join_next().await.is_some() {} };
        if time::timeout(READ_ON_MAX, read_on).await.is_err() {
            self.readers.abort_all();
        }
        self.guard.forget(self.group).await;

        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Ok(status) => End {
                success: status.success(),
                reason: describe(status, &tail),
            },
            Err(error) => End {
                success: false,
                reason: format!("lost sight of it: {error}"),
            },
        }
    }

    /// Waits until no process of the group runs.
    async fn emptied(&mut self) {
        let mut tick = time::interval_at(Instant::now() + GROUP_PERIOD, GROUP_PERIOD);
        if let Err(error) = self.child.wait().await {
            warn!(%error, "could not wait for a service's first process");
        }
        while group_runs(self.group) {
            tick.tick().await;
        }
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.group, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => warn!(%error, group = self.group.as_raw_nonzero(), "could not signal"),
        }
    }
}

async fn read(
    stream: impl AsyncRead + Unpin,
    template: Line,
    output: Output,
    tail: Option<Arc<Mutex<Tail>>>,
) {
    let mut lines = output::Lines::of(stream);
    loop {
        let text = match lines.next().await {
            Ok(Some(text)) => text,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, service = %template.service, "could not read what the service prints");
                return;
            }
        };
        if let Some(tail) = &tail {
            tail.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(&text);
        }
        output
            .put(Line {
                text,
                ..template.clone()
            })
            .await;
    }
}

/// Says `exit 1, <why>`, or `killed by signal 9, <why>`.
fn describe(status: ExitStatus, tail: &Tail) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    };
    match tail.reason() {
        Some(why) => format!("{how}, {why}"),
        None => how,
    }
}

/// Whether a process of the group runs. Those that have ended and only wait to be noticed by their parent do not.
fn group_runs(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return true;
    };
    let mut seen = false;
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else {
            continue;
        };
        seen = true;
        // The name stands in parentheses and may hold anything; state, parent and group follow it.
        let Some((_, after_name)) = stat.rsplit_once(") ") else {
            continue;
        };
        let mut fields = after_name.split(' ');
        let (state, of_group) = (fields.next(), fields.nth(1));
        let ours = of_group.and_then(|id| id.parse().ok()) == Some(group.as_raw_nonzero().get());
        if ours && !matches!(state, Some("Z" | "X")) {
            return true;
        }
    }
    // Without a process file system the first answer stands.
    !seen
}

/// Whether a variable was set by `cargo run` or `cargo test` to describe our own package. Handed on it would be a lie,
/// and a service that is built by Cargo would be built anew whenever we are started in another way.
fn is_about_us(name: &str) -> bool {
    const ABOUT_US: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    ABOUT_US.iter().any(|start| name.starts_with(start))
}

/// Looks for the program that a plain command starts with, so that a missing one is told as such.
///
/// A command that is more than words is left to the shell.
fn find_program(command: &str, folder: &Path, path: Option<OsString>) -> Result<(), Fault> {
    const PLAIN: &str = "-_./+:@%,=";
    let mut words = command
        .split_whitespace()
        .skip_while(|word| is_assignment(word));
    let Some(program) = words.next() else {
        return Err(Fault::NoCommand);
    };
    let plain = |letter: char| letter.is_alphanumeric() || PLAIN.contains(letter);
    if !program.chars().all(plain) || SHELL_WORDS.contains(&program) {
        return Ok(());
    }
    if program.contains('/') {
        let found = folder.join(program).is_file();
        return if found {
            Ok(())
        } else {
            Err(Fault::NoFile(program.to_owned()))
        };
    }
    let path = path.unwrap_or_default();
    let found =
        std::env::split_paths(&path).any(|place| folder.join(place).join(program).is_file());
    if found {
        Ok(())
    } else {
        Err(Fault::NoProgram(program.to_owned()))
    }
}

/// Words that the shell knows without a program.
const SHELL_WORDS: [&str; 24] = [
    ".", ":", "case", "cd", "command", "echo", "eval", "exec", "exit", "export", "for", "if",
    "kill", "read", "set", "shift", "test", "trap", "ulimit", "umask", "unset", "until", "wait",
    "while",
];

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        let letter = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        !name.is_empty() && name.chars().all(letter)
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(command: &str, expected: Expect) {
        let folder = tempfile::tempdir().expect("a folder of our own");
        std::fs::create_dir(folder.path().join("bin")).expect("the folder is empty");
        for name in ["bin/node", "app"] {
            std::fs::write(folder.path().join(name), "").expect("the folder is ours");
        }
        // A relative PATH is relative to the service's folder, as it is for the shell.
        let said = match find_program(command, folder.path(), Some("/nowhere:bin".into())) {
            Ok(()) => "goes on".to_owned(),
            Err(fault) => fault.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_missing_program_is_named() {
        for command in [
            "node src/app.js",
            "LOG=info PORT=1 node app.js",
            "./app --fast",
            "cd src && node app.js",
            "\"$HOME/bin/x\" -y",
            "(node a; node b)",
            "exec python3 app.py",
        ] {
            check(command, expect!["goes on"]);
        }
        check(
            "deno run app.ts",
            expect!["needs `deno`, which is not installed or not on the PATH"],
        );
        check(
            "A=1 deno",
            expect!["needs `deno`, which is not installed or not on the PATH"],
        );
        check(
            "./target/app",
            expect!["needs the program `./target/app`, which does not exist"],
        );
        check(
            "  ",
            expect!["has no `run:` command, and containers cannot be started yet"],
        );
    }
}
