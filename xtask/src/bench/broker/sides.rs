//! Both brokers: how they are started and what they cost.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use testkit::apache::Apache;
use testkit::nuncio::{Nuncio, Setup};

/// What Apache Kafka gets: its usual default of 1 GiB would only make its memory look worse.
const APACHE_HEAP_MB: u32 = 512;
/// What Linux has told programs on every platform for decades, whatever the kernel's own clock.
const TICKS_A_SECOND: f64 = 100.0;

/// A broker under test.
pub(super) enum Broker {
    Nuncio(Box<Nuncio>),
    Apache(Box<Apache>),
}

impl Broker {
    pub(super) fn nuncio(program: &Path) -> Self {
        let setup = Setup::new(program).argument("--role").argument("broker");
        Self::Nuncio(Box::new(setup.start()))
    }

    pub(super) fn apache() -> anyhow::Result<Self> {
        let apache = Apache::start(APACHE_HEAP_MB);
        let apache = apache.map_err(|missing| anyhow::anyhow!("{missing:?}"))?;
        Ok(Self::Apache(Box::new(apache)))
    }

    pub(super) fn bootstrap(&self) -> String {
        match self {
            Self::Nuncio(nuncio) => nuncio.kafka().to_string(),
            Self::Apache(apache) => apache.address().to_string(),
        }
    }

    pub(super) fn ready_after(&self) -> Duration {
        match self {
            Self::Nuncio(nuncio) => nuncio.ready_after(),
            Self::Apache(apache) => apache.ready_after(),
        }
    }

    fn process_id(&self) -> u32 {
        match self {
            Self::Nuncio(nuncio) => nuncio.process_id(),
            Self::Apache(apache) => apache.process_id(),
        }
    }

    /// Returns the folder with its data.
    pub(super) fn data(&self) -> PathBuf {
        match self {
            Self::Nuncio(nuncio) => nuncio.data(),
            Self::Apache(apache) => apache.data(),
        }
    }

    /// Stops it as an operator would, and starts it again on the same data.
    pub(super) fn stop_and_start(&mut self) {
        match self {
            Self::Nuncio(nuncio) => {
                nuncio.stop();
                nuncio.restart();
            }
            Self::Apache(apache) => {
                apache.stop();
                apache.restart();
            }
        }
    }

    /// Returns its resident memory.
    pub(super) fn memory_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.process_id());
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1024.0)
    }

    /// Returns what it has cost so far.
    pub(super) fn clock(&self) -> anyhow::Result<Clock> {
        let id = self.process_id();
        let mut threads = HashMap::new();
        let tasks = format!("/proc/{id}/task");
        for task in fs::read_dir(&tasks).with_context(|| format!("could not read {tasks}"))? {
            let task = task?;
            // A thread that ends between the two has cost little.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
                continue;
            };
            let nanoseconds = text.split_whitespace().next();
            let nanoseconds = nanoseconds.and_then(|first| first.parse().ok());
            threads.insert(task.file_name(), nanoseconds.unwrap_or(0));
        }
        let (ticks, ours) = (ticks(&format!("/proc/{id}/stat"))?, own_ticks()?);
        Ok(Clock {
            threads,
            ticks: ticks.0,
            ours,
            machine: busy_ticks()?,
        })
    }
}

/// What a broker has cost at a moment, in nanoseconds of each thread and in ticks of all, those that have ended too.
pub(super) struct Clock {
    threads: HashMap<std::ffi::OsString, u64>,
    ticks: f64,
    ours: f64,
    machine: f64,
}

impl Clock {
    /// Returns the broker's CPU seconds from then to now, and those of processes that are neither it nor ours.
    pub(super) fn until(&self, now: &Clock) -> (f64, f64) {
        let by_ticks = (now.ticks - self.ticks) / TICKS_A_SECOND;
        let mut nanoseconds: u64 = 0;
        for (thread, after) in &now.threads {
            nanoseconds += after - self.threads.get(thread).copied().unwrap_or(0).min(*after);
        }
        let by_threads = nanoseconds as f64 / 1e9;
        // Where threads have ended, what they did is only in the ticks.
        let whole = self.threads.keys().all(|id| now.threads.contains_key(id));
        let cpu = if whole { by_threads } else { by_ticks };
        let machine = now.machine - self.machine;
        let foreign = (machine - (now.ours - self.ours)) / TICKS_A_SECOND - by_threads;
        (cpu, foreign.max(0.0))
    }
}

/// The ticks of a process, and those of its children that have ended.
fn ticks(path: &str) -> anyhow::Result<(f64, f64)> {
    let text = fs::read_to_string(path).with_context(|| format!("could not read {path}"))?;
    // The name in parentheses may have spaces; user and system time are 12th and 13th after it, then those of children.
    let (_, fields) = text
        .rsplit_once(')')
        .with_context(|| format!("{path} has no name"))?;
    let ticks = fields.split_whitespace().skip(11).take(4);
    let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
    let ticks = ticks.context("ticks are numbers")?;
    Ok((ticks[..2].iter().sum(), ticks[2..].iter().sum()))
}

fn own_ticks() -> anyhow::Result<f64> {
    let (own, children) = ticks("/proc/self/stat")?;
    Ok(own + children)
}

fn busy_ticks() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/stat").context("could not read /proc/stat")?;
    let fields: Vec<f64> = text
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    // Idle and waiting for the disk are the fourth and fifth.
    let idle: f64 = fields.iter().skip(3).take(2).sum();
    Ok(fields.iter().sum::<f64>() - idle)
}
