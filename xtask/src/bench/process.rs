//! Processes that are pinned to a core, and what they cost.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

/// The longest start of a proxy; Envoy takes seconds for 10,000 routes.
const START_MAX: Duration = Duration::from_secs(60);

/// A proxy that has started needs less CPU time than this in each [`LOOK_EVERY`].
const QUIET_MAX: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The longest wait for an end after SIGTERM.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A running process. It ends when this is dropped.
pub(crate) struct Pinned {
    child: Child,
    name: String,
}

/// Puts `taskset` in front, so that the command runs on one core only.
pub(crate) fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string()).arg(program);
    command
}

impl Pinned {
    /// Starts a command; what it says goes to a file.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out =
            fs::File::create(log).with_context(|| format!("could not create {}", log.display()))?;
        let err = out.try_clone()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        Ok(Self {
            child,
            name: name.to_owned(),
        })
    }

    /// Waits until somebody listens there, and returns how long that took.
    pub(crate) fn wait_for(&mut self, address: SocketAddr, log: &Path) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(log).unwrap_or_default();
                bail!("{} ended with {status}: {said}", self.name);
            }
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(began.elapsed());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "{} does not listen on {address} after {START_MAX:?}",
            self.name
        )
    }

    /// Waits until the work of the start is done, so that no request is charged with it.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut before = self.cpu()?;
        while began.elapsed() < START_MAX {
            thread::sleep(LOOK_EVERY);
            let now = self.cpu()?;
            if now.saturating_sub(before) < QUIET_MAX {
                return Ok(());
            }
            before = now;
        }
        bail!("{} does not come to rest in {START_MAX:?}", self.name)
    }

    /// Returns the CPU time of all its threads so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut sum = 0;
        for task in fs::read_dir(&tasks).with_context(|| format!("{} is gone", self.name))? {
            // A thread may end between the two looks.
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let nanoseconds = text
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok());
            sum += nanoseconds.unwrap_or(0_u64);
        }
        ensure!(
            sum > 0,
            "this kernel does not tell CPU times in {tasks}/*/schedstat"
        );
        Ok(Duration::from_nanos(sum))
    }

    /// Returns the memory that is its own share, in KiB.
    pub(crate) fn memory_kib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.with_context(|| format!("{path} has no Pss"))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // Failing means that it is gone already, which the wait below sees too.
        _ = Command::new("kill")
            .args(["-TERM", &pid])
            .stderr(Stdio::null())
            .status();
        let began = Instant::now();
        while began.elapsed() < STOP_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
