//! `cargo xtask bench broker`: Nuncio against Apache Kafka on this machine, with the same client and durability.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::apache::Apache;
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};

/// What Apache Kafka gets: its usual default of 1 GiB would only make its memory look worse.
const APACHE_HEAP_MB: u32 = 512;
const RECORD_BYTES: usize = 1000;
const PARTITIONS: &str = "3";
/// Time after a start until memory is read.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Repetitions; the brokers take turns, and medians are compared.
    #[arg(long, default_value_t = 3)]
    reps: usize,

    /// Records of 1000 bytes in each throughput measurement.
    #[arg(long, default_value_t = 200_000)]
    records: usize,

    /// Records a second while latency is measured.
    #[arg(long, default_value_t = 100)]
    rate: usize,

    /// Seconds of each latency measurement.
    #[arg(long, default_value_t = 10)]
    seconds: usize,

    /// Our program; built when nothing is said.
    #[arg(long)]
    nuncio: Option<PathBuf>,
}

/// What the broker promises before it answers.
#[derive(Clone, Copy)]
enum Durability {
    /// The record is on the disk: `acks=all` at ours, and `flush.messages=1` at Apache Kafka too.
    Disk,
    /// The record is in the page cache: `acks=1` at both.
    Cache,
}

impl Durability {
    fn acks(self) -> &'static str {
        match self {
            Durability::Disk => "all",
            Durability::Cache => "1",
        }
    }

    fn flush(self) -> &'static str {
        match self {
            Durability::Disk => "1",
            Durability::Cache => "0",
        }
    }
}

/// One line of the result: what each broker reached in every repetition.
struct Line {
    what: String,
    unit: &'static str,
    more_is_better: bool,
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let (Some(python), Some(_)) = (lab::or_skip(lab::python()), lab::or_skip(lab::apache())) else {
        return Ok(());
    };
    let program = match &options.nuncio {
        Some(program) => program.clone(),
        None => built()?,
    };
    let load = Load {
        python,
        script: root().join("bench/broker/load.py"),
    };
    let mut lines = starts(options, &program)?;
    lines.extend(loads(options, &program, &load)?);
    print(&lines);
    Ok(())
}

/// Start to ready and idle memory, each time with fresh data.
fn starts(options: &Options, program: &Path) -> anyhow::Result<Vec<Line>> {
    let mut ready = Line::less("start to ready", "s");
    let mut idle = Line::less("idle memory", "MiB");
    for _ in 0..options.reps {
        let nuncio = Broker::nuncio(program);
        ready.ours.push(nuncio.ready_after().as_secs_f64());
        std::thread::sleep(SETTLE);
        idle.ours.push(nuncio.memory_mib()?);
        drop(nuncio);

        let apache = Broker::apache()?;
        ready.theirs.push(apache.ready_after().as_secs_f64());
        std::thread::sleep(SETTLE);
        idle.theirs.push(apache.memory_mib()?);
    }
    Ok(vec![ready, idle])
}

/// Throughput for each second of the broker's CPU, and latency, both brokers warm and taking turns.
fn loads(options: &Options, program: &Path, load: &Load) -> anyhow::Result<Vec<Line>> {
    let brokers = [Broker::nuncio(program), Broker::apache()?];
    let records = options.records.to_string();
    let (rate, seconds) = (options.rate.to_string(), options.seconds.to_string());
    let mut lines = Vec::new();
    for (name, durability) in [
        ("on disk", Durability::Disk),
        ("page cache", Durability::Cache),
    ] {
        let mut produce = Line::more(format!("produce, {name}"), "MB per CPU s");
        let mut produce_wall = Line::more(format!("produce, {name}"), "MB/s");
        let mut consume = Line::more(format!("consume, {name}"), "MB per CPU s");
        let mut consume_wall = Line::more(format!("consume, {name}"), "MB/s");
        let mut p50 = Line::less(format!("produce at {rate}/s, {name}, p50"), "ms");
        let mut p99 = Line::less(format!("produce at {rate}/s, {name}, p99"), "ms");
        // The first turn warms both up and is not counted.
        for turn in 0..=options.reps {
            for (at, broker) in brokers.iter().enumerate() {
                let topic = format!("bench-{}-{turn}", durability.acks());
                let to = broker.bootstrap();
                load.run(&["topic", &to, &topic, PARTITIONS, durability.flush()])?;
                let acks = durability.acks();
                let bytes = RECORD_BYTES.to_string();
                let produced =
                    broker.cost(|| load.run(&["produce", &to, &topic, acks, &records, &bytes]))?;
                let consumed = broker.cost(|| load.run(&["consume", &to, &topic, &records]))?;
                let timed = load.run(&["latency", &to, &topic, acks, &rate, &seconds])?;
                if turn == 0 {
                    continue;
                }
                let pairs = [
                    (&mut produce, produced.per_cpu()),
                    (&mut produce_wall, produced.per_second()),
                    (&mut consume, consumed.per_cpu()),
                    (&mut consume_wall, consumed.per_second()),
                    (&mut p50, number(&timed, "p50_ms")?),
                    (&mut p99, number(&timed, "p99_ms")?),
                ];
                for (line, value) in pairs {
                    let side = if at == 0 {
                        &mut line.ours
                    } else {
                        &mut line.theirs
                    };
                    side.push(value);
                }
            }
        }
        lines.extend([produce, produce_wall, consume, consume_wall, p50, p99]);
    }
    let mut loaded = Line::less("memory after the load", "MiB");
    loaded.ours.push(brokers[0].memory_mib()?);
    loaded.theirs.push(brokers[1].memory_mib()?);
    lines.push(loaded);
    Ok(lines)
}

enum Broker {
    Nuncio(Box<Nuncio>),
    Apache(Box<Apache>),
}

impl Broker {
    fn nuncio(program: &Path) -> Self {
        let setup = Setup::new(program).argument("--role").argument("broker");
        Self::Nuncio(Box::new(setup.start()))
    }

    fn apache() -> anyhow::Result<Self> {
        let apache = Apache::start(APACHE_HEAP_MB);
        let apache = apache.map_err(|missing| anyhow::anyhow!("{missing:?}"))?;
        Ok(Self::Apache(Box::new(apache)))
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Nuncio(nuncio) => nuncio.kafka().to_string(),
            Self::Apache(apache) => apache.address().to_string(),
        }
    }

    fn ready_after(&self) -> Duration {
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

    /// Returns its resident memory.
    fn memory_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.process_id());
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kib.with_context(|| format!("{path} has no VmRSS"))? / 1024.0)
    }

    /// Returns the CPU seconds of all its threads, those that have ended too.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/stat", self.process_id());
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        // The name in parentheses may have spaces; user and system time are 12th and 13th after it, in ticks.
        let (_, fields) = text
            .rsplit_once(')')
            .with_context(|| format!("{path} has no name"))?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
        /// What Linux has told programs on every platform for decades, whatever the kernel's own clock.
        const TICKS_A_SECOND: f64 = 100.0;
        Ok(ticks.context("ticks are numbers")?.iter().sum::<f64>() / TICKS_A_SECOND)
    }

    fn cost(&self, load: impl FnOnce() -> anyhow::Result<Value>) -> anyhow::Result<Cost> {
        let before = self.cpu_seconds()?;
        let measured = load()?;
        let cpu = self.cpu_seconds()? - before;
        ensure!(cpu > 0.0, "the load was too short to be measured");
        let megabytes = number(&measured, "bytes")? / 1e6;
        Ok(Cost {
            cpu,
            seconds: number(&measured, "seconds")?,
            megabytes,
        })
    }
}

/// What a load took.
struct Cost {
    cpu: f64,
    seconds: f64,
    megabytes: f64,
}

impl Cost {
    fn per_cpu(&self) -> f64 {
        self.megabytes / self.cpu
    }

    fn per_second(&self) -> f64 {
        self.megabytes / self.seconds
    }
}

struct Load {
    python: PathBuf,
    script: PathBuf,
}

impl Load {
    fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.python);
        let output = command.arg(&self.script).args(arguments).output();
        let output = output.with_context(|| format!("could not start {command:?}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "load.py {}: {complaint}",
            arguments.join(" ")
        );
        serde_json::from_slice(&output.stdout).context("could not read what load.py printed")
    }
}

impl Line {
    fn less(what: impl Into<String>, unit: &'static str) -> Self {
        let (ours, theirs) = Default::default();
        Self {
            what: what.into(),
            unit,
            more_is_better: false,
            ours,
            theirs,
        }
    }

    fn more(what: impl Into<String>, unit: &'static str) -> Self {
        Self {
            more_is_better: true,
            ..Self::less(what, unit)
        }
    }
}

fn print(lines: &[Line]) {
    println!("| what | unit | Nuncio | Apache Kafka | ratio | better |");
    println!("|---|---|---|---|---|---|");
    for line in lines {
        let (ours, theirs) = (median(&line.ours), median(&line.theirs));
        let better = if line.more_is_better { "more" } else { "less" };
        println!(
            "| {} | {} | {ours:.2} | {theirs:.2} | {:.2} | {better} |",
            line.what,
            line.unit,
            ours / theirs
        );
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name]
        .as_f64()
        .with_context(|| format!("load.py did not tell `{name}`"))
}

/// Builds our program as users get it, and returns where it is.
fn built() -> anyhow::Result<PathBuf> {
    let mut command = Command::new(env!("CARGO"));
    let status = command
        .args(["build", "--release", "--package", "app"])
        .current_dir(root())
        .status();
    ensure!(
        status.context("could not start cargo")?.success(),
        "the program could not be built"
    );
    let xtask = std::env::current_exe().context("could not find this program")?;
    let target = xtask.parent().and_then(Path::parent);
    Ok(target
        .context("this program is not in a target folder")?
        .join("release/nuncio"))
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("xtask is a folder of the workspace")
        .to_owned()
}
