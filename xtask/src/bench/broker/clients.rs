//! Loaders of others: Apache Kafka's own (Java), librdkafka's own (C), and librdkafka under Python.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::lab;

use super::table::Aim;
use super::wire;
use super::{Bench, is_ours, root};

const RECORD_BYTES: usize = 1000;
const PARTITIONS: i32 = 3;
/// Throughput for each CPU second must be so many times that of Apache Kafka.
const TIMES_MIN: f64 = 1.5;
/// Records a second while latency is measured.
const RATE: usize = 100;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let mut loaders: Vec<(&str, Loader)> = Vec::new();
    match lab::python() {
        Ok(python) => {
            let script = root().join("bench/broker/load.py");
            loaders.push(("librdkafka in Python", Loader::Python(python, script)));
        }
        Err(why) => bench
            .table
            .skip("librdkafka in Python", &format!("{why:?}")),
    }
    match lab::librdkafka() {
        Ok(folder) => {
            let program = folder.join("examples/rdkafka_performance");
            loaders.push(("rdkafka_performance", Loader::Rdkafka(program)));
        }
        Err(why) => bench.table.skip("rdkafka_performance", &format!("{why:?}")),
    }
    match lab::apache() {
        Ok(class_path) => loaders.push(("kafka-perf-test", Loader::Java(class_path))),
        Err(why) => bench.table.skip("kafka-perf-test", &format!("{why:?}")),
    }
    for (name, loader) in &loaders {
        for turn in 0..bench.reps {
            for (acks, promise) in [("1", "page cache"), ("-1", "on disk")] {
                if let Err(why) = one(bench, name, loader, turn, acks, promise) {
                    bench.table.skip(name, &format!("{why:#}"));
                }
            }
        }
    }
    Ok(())
}

fn one(
    bench: &mut Bench,
    name: &str,
    loader: &Loader,
    turn: usize,
    acks: &str,
    promise: &str,
) -> anyhow::Result<()> {
    let records = if bench.quick { 100_000 } else { 300_000 };
    let seconds = if bench.quick { "2" } else { "8" };
    let megabytes = (records * RECORD_BYTES) as f64 / 1e6;
    for broker in &bench.brokers {
        let topic = format!("clients{acks}-{turn}-{}", name.len());
        wire::make_topic(broker, &topic, PARTITIONS, acks == "-1")?;
        let table = &mut bench.table;
        let mut cost = |what: &str, load: &dyn Fn() -> anyhow::Result<()>| {
            let (before, begun) = (broker.clock()?, std::time::Instant::now());
            load()?;
            let (cpu, foreign) = before.until(&broker.clock()?);
            ensure!(cpu > 0.0, "the load was too short to be measured");
            let clock = begun.elapsed().as_secs_f64();
            let aim = Aim::Times(TIMES_MIN);
            table.tell(what, "MB per CPU s", aim, is_ours(broker), megabytes / cpu);
            table.foreign(foreign, clock);
            Ok::<_, anyhow::Error>(())
        };
        let to = broker.bootstrap();
        let what = format!("{name}: produce, {promise}");
        cost(&what, &|| loader.produce(&to, &topic, acks, records))?;
        if acks == "1" {
            let what = format!("{name}: consume");
            cost(&what, &|| loader.consume(&to, &topic, records))?;
        }
        if let Loader::Python(..) = loader {
            let rate = RATE.to_string();
            let timed = loader.python(&["latency", &to, &topic, acks, &rate, seconds])?;
            for (share, field) in [("p50", "p50_ms"), ("p99", "p99_ms")] {
                let what = format!("{name}: produce at {RATE}/s, {promise}, {share}");
                let aim = match share {
                    "p99" => Aim::Share(0.5),
                    _ => Aim::None,
                };
                let table = &mut bench.table;
                table.tell(&what, "ms", aim, is_ours(broker), number(&timed, field)?);
            }
        }
        wire::delete_topic(broker, &topic)?;
    }
    Ok(())
}

enum Loader {
    Python(PathBuf, PathBuf),
    Rdkafka(PathBuf),
    Java(String),
}

impl Loader {
    fn produce(&self, to: &str, topic: &str, acks: &str, records: usize) -> anyhow::Result<()> {
        let (count, size) = (records.to_string(), RECORD_BYTES.to_string());
        match self {
            Self::Python(..) => {
                let acks = if acks == "-1" { "all" } else { acks };
                self.python(&["produce", to, topic, acks, &count, &size])?;
            }
            Self::Rdkafka(program) => {
                let mut command = Command::new(program);
                command.args(["-P", "-t", topic, "-s", &size, "-c", &count, "-b", to]);
                command.args(["-a", acks, "-q", "-X", "linger.ms=5"]);
                finished(&mut command)?;
            }
            Self::Java(class_path) => {
                let mut command = java(class_path, "org.apache.kafka.tools.ProducerPerformance");
                command.args(["--topic", topic, "--num-records", &count]);
                command.args(["--record-size", &size, "--throughput", "-1"]);
                command.args(["--bootstrap-server", to]);
                let acks = format!("acks={acks}");
                command.args(["--command-property", &acks, "linger.ms=5"]);
                finished(&mut command)?;
            }
        }
        Ok(())
    }

    fn consume(&self, to: &str, topic: &str, records: usize) -> anyhow::Result<()> {
        let count = records.to_string();
        match self {
            Self::Python(..) => {
                self.python(&["consume", to, topic, &count])?;
            }
            Self::Rdkafka(program) => {
                let mut command = Command::new(program);
                command.args(["-C", "-t", topic, "-o", "beginning", "-c", &count, "-b", to]);
                for partition in 0..PARTITIONS {
                    command.args(["-p", &partition.to_string()]);
                }
                finished(command.arg("-q"))?;
            }
            Self::Java(class_path) => {
                let mut command = java(class_path, "org.apache.kafka.tools.ConsumerPerformance");
                command.args(["--topic", topic, "--num-records", &count]);
                command.args(["--bootstrap-server", to, "--timeout", "60000"]);
                finished(&mut command)?;
            }
        }
        Ok(())
    }

    fn python(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let Self::Python(python, script) = self else {
            anyhow::bail!("only the loader in Python measures that");
        };
        let said = finished(Command::new(python).arg(script).args(arguments))?;
        serde_json::from_slice(&said).context("could not read what load.py printed")
    }
}

fn java(class_path: &str, class: &str) -> Command {
    let mut command = testkit::apache::java(class_path, 256, Path::new("."));
    command.arg(class);
    command
}

fn finished(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output();
    let output = output.with_context(|| format!("could not start {command:?}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = complaint.lines().rev().take(5).collect();
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        last.join(" / ")
    );
    Ok(output.stdout)
}

fn number(value: &Value, name: &str) -> anyhow::Result<f64> {
    value[name]
        .as_f64()
        .with_context(|| format!("load.py did not tell `{name}`"))
}
