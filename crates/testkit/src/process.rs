//! A child process whose output is kept, and which never outlives its test.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::wait;

/// Lines kept for the report of a failure.
const LOG_LINES_MAX: usize = 80;
/// Characters kept of each of them.
const LOG_LINE_CHARS_MAX: usize = 200;

/// A running child: its stdout comes line by line, its whole output is shown when the test fails.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Log,
}

type Log = Arc<Mutex<VecDeque<String>>>;

impl Process {
    /// Starts the command with all three streams in our hands.
    #[track_caller]
    pub fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("could not start {name} ({command:?}): {error}"),
        };
        let log = Log::default();
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        follow(stdout, log.clone(), "out", Some(sender));
        follow(stderr, log.clone(), "err", None);
        let stdin = child.stdin.take();
        Self {
            name: name.to_owned(),
            child,
            stdin,
            lines,
            log,
        }
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its stdin.
    #[track_caller]
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        let written = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        if let Err(error) = written {
            panic!("{} does not read: {error}\n{}", self.name, self.log());
        }
    }

    /// Ends its stdin: a well-behaved child finishes its work and leaves.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Returns the next line of its stdout, or panics at the limit or when the process has ended.
    #[track_caller]
    pub fn next_line(&mut self, limit: Duration) -> String {
        match self.lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} said nothing for {limit:?}\n{}", self.name, self.log())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait();
                panic!("{} ended ({status:?})\n{}", self.name, self.log())
            }
        }
    }

    /// Returns the lines that its stdout has brought so far, without waiting.
    pub fn ready_lines(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Returns the stdout lines that are left when it has ended.
    pub fn last_lines(&mut self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Returns stdout lines until one satisfies the test, that one included.
    #[track_caller]
    pub fn lines_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&str) -> bool,
    ) -> Vec<String> {
        let end = Instant::now() + limit;
        let mut lines = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "waited {limit:?} in vain for {what} from {}\n{}",
                self.name,
                self.log()
            );
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    let last = found(&line);
                    lines.push(line);
                    if last {
                        return lines;
                    }
                }
                Err(RecvTimeoutError::Timeout) => (),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait();
                    panic!(
                        "{} ended ({status:?}) before {what}\n{}",
                        self.name,
                        self.log()
                    )
                }
            }
        }
    }

    /// Tells whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end, with a limit.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        let child = &mut self.child;
        wait::until(&format!("the end of {name}"), limit, || {
            child.try_wait().expect("our own child can be waited for")
        })
    }

    /// Ends it as a crash would: SIGKILL, no farewell. Returns when it is gone.
    pub fn kill(&mut self) {
        // An error only says that it has ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) {
        let id = self.child.id().to_string();
        _ = Command::new("kill").args(["-TERM", &id]).status();
    }

    /// Returns the last lines of both its outputs.
    pub fn log(&self) -> String {
        let log = self
            .log
            .lock()
            .expect("no thread panics with the log in hand");
        let lines: Vec<&str> = log.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- the last of {} ----\n{}\n----", self.name, self.log());
        }
    }
}

fn follow(
    stream: impl Read + Send + 'static,
    log: Log,
    mark: &'static str,
    lines: Option<Sender<String>>,
) {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            {
                let mut log = log.lock().expect("no thread panics with the log in hand");
                if log.len() == LOG_LINES_MAX {
                    log.pop_front();
                }
                log.push_back(format!("{mark}| {line:.0$}", LOG_LINE_CHARS_MAX));
            }
            if let Some(lines) = &lines {
                // The test may have stopped listening; the log goes on.
                _ = lines.send(line);
            }
        }
    });
}
