//! `cargo xtask bench broker`: Nuncio against Apache Kafka on this machine, with the same clients and durability.

mod clients;
mod grid;
mod groups;
mod limits;
mod many;
mod sides;
mod steady;
mod table;
mod traffic;
mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use testkit::lab;

use self::sides::Broker;
use self::table::{Aim, Table};

/// Time after a start until memory is read.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Repetitions; the brokers take turns, and medians are compared.
    #[arg(long, default_value_t = 3)]
    reps: usize,

    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// One repetition with half a second for each measurement, and less of everything that is counted.
    #[arg(long)]
    quick: bool,

    /// Only these rows; `--help` of this option lists them.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Row>,

    /// Nuncio alone.
    #[arg(long)]
    without_apache: bool,

    /// Our program; built when nothing is said.
    #[arg(long)]
    nuncio: Option<PathBuf>,
}

/// What can be measured by itself.
#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum Row {
    /// What the machine can do: memory, loopback, disk
    Limits,
    /// Start to ready, and idle memory
    Start,
    /// Produce and consume: sizes of records, numbers of partitions, durability
    Grid,
    /// End-to-end latency at 10, 50 and 90 % of what each can hold
    Latency,
    /// Traffic beside 1,000 idle and 1,000 slow consumers
    Crowds,
    /// Old records from the disk beside traffic
    CatchUp,
    /// 10,000 consumer groups (1,000 with --quick)
    Groups,
    /// Other loaders: Apache Kafka's own, librdkafka's own, and librdkafka under Python
    Clients,
    /// 10,000 partitions (1,000 with --quick): a start after a clean stop, and what a record costs
    Many,
}

/// All, in the order in which they run.
const ROWS: &[Row] = &[
    Row::Limits,
    Row::Start,
    Row::Grid,
    Row::Latency,
    Row::Crowds,
    Row::CatchUp,
    Row::Groups,
    Row::Clients,
    Row::Many,
];

/// What the rows share.
struct Bench {
    program: PathBuf,
    apache: bool,
    quick: bool,
    reps: usize,
    /// Of each measurement.
    time: Duration,
    table: Table,
    /// Ours first.
    brokers: Vec<Broker>,
    topics: usize,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let apache = !options.without_apache && lab::or_skip(lab::apache()).is_some();
    let program = match &options.nuncio {
        Some(program) => program.clone(),
        None => built()?,
    };
    let seconds = if options.quick { 0.5 } else { options.seconds };
    let mut bench = Bench {
        program: std::path::absolute(program)?,
        apache,
        quick: options.quick,
        reps: if options.quick { 1 } else { options.reps },
        time: Duration::from_secs_f64(seconds),
        table: Table::default(),
        brokers: Vec::new(),
        topics: 0,
    };
    let wanted = |row: &&Row| options.only.is_empty() || options.only.contains(row);
    for row in ROWS.iter().filter(wanted) {
        let begun = Instant::now();
        let name = format!("{row:?}").to_lowercase();
        eprintln!("measuring {name}");
        let done = match row {
            Row::Limits => limits::run(&mut bench.table, bench.time),
            Row::Start => bench.start(),
            Row::Grid => bench.warm().and_then(|()| grid::run(&mut bench)),
            Row::Latency => bench.warm().and_then(|()| steady::latency(&mut bench)),
            Row::Crowds => bench.warm().and_then(|()| steady::crowds(&mut bench)),
            Row::CatchUp => bench.warm().and_then(|()| steady::catch_up(&mut bench)),
            Row::Groups => bench.warm().and_then(|()| groups::run(&mut bench)),
            Row::Clients => bench.warm().and_then(|()| clients::run(&mut bench)),
            Row::Many => many::run(&mut bench),
        };
        if let Err(why) = done {
            // The others may work; whatever went wrong shall not hang over them.
            bench.table.skip(&name, &format!("{why:#}"));
            bench.brokers.clear();
        }
        eprintln!("{name} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    for broker in &bench.brokers {
        let (what, is_ours) = ("memory after all loads", is_ours(broker));
        let memory = broker.memory_mib()?;
        bench.table.tell(what, "MiB", Aim::None, is_ours, memory);
    }
    bench.table.print();
    Ok(())
}

impl Bench {
    /// Starts both brokers if they do not run, and lets them do some work: Java compiles while it runs.
    fn warm(&mut self) -> anyhow::Result<()> {
        if !self.brokers.is_empty() {
            return Ok(());
        }
        self.brokers = self.fresh()?;
        for broker in &self.brokers {
            grid::warm(broker, self.time)?;
        }
        Ok(())
    }

    /// Returns a name that no topic has had: what is deleted goes slowly.
    fn topic(&mut self) -> String {
        self.topics += 1;
        format!("bench-{}", self.topics)
    }

    /// Starts both with fresh data.
    fn fresh(&self) -> anyhow::Result<Vec<Broker>> {
        let mut brokers = vec![Broker::nuncio(&self.program)];
        if self.apache {
            brokers.push(Broker::apache()?);
        }
        Ok(brokers)
    }

    /// Start to ready and idle memory, each time with fresh data.
    fn start(&mut self) -> anyhow::Result<()> {
        for _ in 0..self.reps {
            for broker in self.fresh()? {
                let is_ours = is_ours(&broker);
                let ready = broker.ready_after().as_secs_f64();
                std::thread::sleep(SETTLE);
                let memory = broker.memory_mib()?;
                let table = &mut self.table;
                table.tell("start to ready", "s", Aim::Most(1.0), is_ours, ready);
                table.tell("idle memory", "MiB", Aim::Most(64.0), is_ours, memory);
            }
        }
        Ok(())
    }
}

fn is_ours(broker: &Broker) -> bool {
    matches!(broker, Broker::Nuncio(_))
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
