//! Rows about steady traffic: alone at parts of what each can hold, and beside crowds and readers of old records.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::sides::Broker;
use super::table::Aim;
use super::wire::{self, Connection, Reading, Shape};
use super::{Bench, is_ours, traffic};

/// p99 may be at most this share of Apache Kafka's.
const P99_SHARE_MAX: f64 = 0.5;
/// Shares of what each broker can hold.
const SHARES: [f64; 3] = [0.1, 0.5, 0.9];
/// Traffic beside crowds, in requests of ten records a second.
const BESIDE: f64 = 200.0;
const CROWD: usize = 1000;
/// Threads that a crowd of consumers shares.
const CROWD_THREADS: usize = 8;
/// What slow consumers take at a time, about once a second.
const SIP_BYTES: usize = 16 << 10;

/// End-to-end latency at 10, 50 and 90 % of what each can hold.
pub(super) fn latency(bench: &mut Bench) -> anyhow::Result<()> {
    for (acks, promise) in [(1, "page cache"), (-1, "on disk")] {
        for _ in 0..bench.reps {
            let topics: Vec<String> = (0..=SHARES.len()).map(|_| bench.topic()).collect();
            for broker in &bench.brokers {
                let (ours, table) = (is_ours(broker), &mut bench.table);
                let most = traffic::most(broker, &topics[0], acks, bench.time)?;
                let records = most * traffic::BATCH_RECORDS as f64;
                let what = format!("ten 1 KiB records a request, {promise}: most");
                table.tell(&what, "records/s", Aim::None, ours, records);
                for (share, topic) in SHARES.iter().zip(&topics[1..]) {
                    let met = traffic::run(broker, topic, acks, most * share, bench.time * 2)?;
                    let what = format!("end to end at {:.0} % of that, {promise}", share * 100.0);
                    let (p50, p99) = (format!("{what}, p50"), format!("{what}, p99"));
                    table.tell(&p50, "ms", Aim::None, ours, met.p50_ms);
                    table.tell(&p99, "ms", Aim::Share(P99_SHARE_MAX), ours, met.p99_ms);
                    table.foreign(met.window.foreign, met.window.seconds);
                }
            }
        }
    }
    Ok(())
}

/// The same traffic alone, beside idle consumers, and beside slow ones.
pub(super) fn crowds(bench: &mut Bench) -> anyhow::Result<()> {
    let time = bench.time * 4;
    let topics: [String; 5] = std::array::from_fn(|_| bench.topic());
    for broker in &bench.brokers {
        let (ours, to) = (is_ours(broker), broker.bootstrap());
        let mut tell = |beside: &str, met: traffic::Met, memory: f64| {
            let what = format!("{:.0} records/s {beside}", BESIDE * 10.0);
            let table = &mut bench.table;
            let cpu = met.window.cpu / met.window.seconds * 1000.0;
            table.tell(&what, "CPU ms/s", Aim::None, ours, cpu);
            table.tell(&what, "p99 ms", Aim::None, ours, met.p99_ms);
            table.tell(&what, "MiB", Aim::None, ours, memory);
            table.foreign(met.window.foreign, met.window.seconds);
        };
        let met = traffic::run(broker, &topics[0], 1, BESIDE, time)?;
        tell("alone", met, broker.memory_mib()?);

        wire::make_topic(broker, &topics[1], 1, false)?;
        let (met, memory) = beside(
            |over| idle(&to, &topics[1], over),
            || traffic::run(broker, &topics[2], 1, BESIDE, time),
            broker,
        )?;
        tell("beside 1,000 idle consumers", met, memory);

        wire::make_topic(broker, &topics[3], 1, false)?;
        let producers = wire::producers(broker, &topics[3], 1, Shape::usual(1024, 1, 1));
        wire::measured(broker, bench.time / 2, bench.time / 2, producers)?;
        let (met, memory) = beside(
            |over| slow(&to, &topics[3], over),
            || traffic::run(broker, &topics[4], 1, BESIDE, time),
            broker,
        )?;
        tell("beside 1,000 slow consumers", met, memory);
        wire::delete_topic(broker, &topics[1])?;
        wire::delete_topic(broker, &topics[3])?;
    }
    Ok(())
}

/// Runs traffic beside a crowd, and reads the broker's memory while it is there.
fn beside(
    crowd: impl FnOnce(&Crowd) -> anyhow::Result<()> + Send,
    traffic: impl FnOnce() -> anyhow::Result<traffic::Met>,
    broker: &Broker,
) -> anyhow::Result<(traffic::Met, f64)> {
    let over = Crowd::default();
    thread::scope(|scope| {
        let over = &over;
        let standing = scope.spawn(move || crowd(over));
        let begun = Instant::now();
        while over.there.load(Ordering::SeqCst) < CROWD as u64
            && begun.elapsed() < Duration::from_secs(20)
            && !standing.is_finished()
        {
            thread::sleep(Duration::from_millis(10));
        }
        let met = traffic();
        let memory = broker.memory_mib();
        over.gone.store(true, Ordering::SeqCst);
        let ended = standing.join();
        ended.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
        Ok((met?, memory?))
    })
}

/// Consumers that stand beside the traffic.
#[derive(Default)]
struct Crowd {
    gone: AtomicBool,
    there: AtomicU64,
}

/// Consumers that ask, and ask again after half a second without records.
fn idle(to: &str, topic: &str, crowd: &Crowd) -> anyhow::Result<()> {
    let request = wire::encoded(wire::FETCH, &Reading::new(topic, &[0]).request())?;
    on_threads(|| {
        let mut all = connected(to)?;
        crowd.there.fetch_add(all.len() as u64, Ordering::SeqCst);
        while !crowd.gone.load(Ordering::SeqCst) {
            for one in &mut all {
                one.send(&request)?;
            }
            for one in &mut all {
                one.receive()?;
            }
        }
        Ok(())
    })
}

/// Consumers that ask for a lot, and read little of it at a time.
fn slow(to: &str, topic: &str, crowd: &Crowd) -> anyhow::Result<()> {
    let request = wire::encoded(wire::FETCH, &Reading::new(topic, &[0]).request())?;
    on_threads(|| {
        let mut all = connected(to)?;
        for one in &mut all {
            one.send(&request)?;
        }
        crowd.there.fetch_add(all.len() as u64, Ordering::SeqCst);
        let mut sip = vec![0; SIP_BYTES];
        while !crowd.gone.load(Ordering::SeqCst) {
            for one in &mut all {
                one.stream().set_nonblocking(true)?;
                match one.stream().read(&mut sip) {
                    Ok(0) => anyhow::bail!("a slow consumer was thrown out"),
                    Ok(_) => (),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
                    Err(error) => return Err(error.into()),
                }
            }
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    })
}

fn connected(to: &str) -> anyhow::Result<Vec<Connection>> {
    (0..CROWD / CROWD_THREADS)
        .map(|_| Connection::to(to))
        .collect()
}

fn on_threads(work: impl Fn() -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CROWD_THREADS).map(|_| scope.spawn(&work)).collect();
        for thread in threads {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
        }
        Ok(())
    })
}

/// Reads old records that are on the disk only, beside traffic.
pub(super) fn catch_up(bench: &mut Bench) -> anyhow::Result<()> {
    const PARTITIONS: i32 = 12;
    let bytes: u64 = if bench.quick { 128 << 20 } else { 512 << 20 };
    let topics: [String; 2] = std::array::from_fn(|_| bench.topic());
    for broker in &bench.brokers {
        let ours = is_ours(broker);
        wire::make_topic(broker, &topics[0], PARTITIONS, false)?;
        fill(broker, &topics[0], PARTITIONS, bytes)?;
        forgotten(&broker.data(), &topics[0])?;
        let (reader, over) = (broker.bootstrap(), AtomicBool::new(false));
        let before = broker.clock()?;
        let (met, read) = thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut connection = Connection::to(&reader)?;
                let everything: Vec<i32> = (0..PARTITIONS).collect();
                let mut reading = Reading::new(&topics[0], &everything).once();
                let (begun, mut read) = (Instant::now(), 0);
                while !over.load(Ordering::SeqCst) {
                    let (_, some) = reading.step(&mut connection)?;
                    read += some;
                    if some == 0 {
                        break;
                    }
                }
                Ok::<_, anyhow::Error>((read as f64, begun.elapsed().as_secs_f64()))
            });
            let met = traffic::run(broker, &topics[1], 1, BESIDE, bench.time * 4);
            over.store(true, Ordering::SeqCst);
            let read = reading.join();
            let read = read.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
            Ok::<_, anyhow::Error>((met?, read))
        })?;
        let (cpu, foreign) = before.until(&broker.clock()?);
        let (table, (read, seconds)) = (&mut bench.table, read);
        let what = "catch-up from disk beside 2,000 records/s";
        table.tell(what, "MB per CPU s", Aim::None, ours, read / 1e6 / cpu);
        table.tell(what, "MB/s", Aim::None, ours, read / 1e6 / seconds);
        let what = "2,000 records/s beside catch-up";
        table.tell(what, "p99 ms", Aim::None, ours, met.p99_ms);
        table.foreign(foreign, met.window.seconds);
        wire::delete_topic(broker, &topics[0])?;
    }
    Ok(())
}

/// Writes so many bytes, evenly.
fn fill(broker: &Broker, topic: &str, partitions: i32, bytes: u64) -> anyhow::Result<()> {
    let shape = Shape::usual(1024, 12, 1);
    let everything: Vec<i32> = (0..partitions).collect();
    let requests = shape.requests(topic, &everything)?;
    let mut connection = Connection::to(&broker.bootstrap())?;
    let mut written = 0;
    while written < bytes {
        for (request, _) in &requests {
            connection.send(request)?;
            connection.produced()?;
            written += request.len() as u64;
        }
    }
    Ok(())
}

/// Puts a topic's segments on the disk and takes them out of the page cache, as GNU's `dd` can.
fn forgotten(data: &Path, topic: &str) -> anyhow::Result<()> {
    let mut folders = vec![data.to_owned()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let of = path.parent().and_then(Path::file_name);
            let ours = of.is_some_and(|of| of.to_string_lossy().starts_with(&format!("{topic}-")));
            if ours && path.extension().is_some_and(|extension| extension == "log") {
                let mut command = Command::new("dd");
                command.arg(format!("of={}", path.display()));
                command.args([
                    "oflag=nocache",
                    "conv=notrunc,fdatasync",
                    "count=0",
                    "status=none",
                ]);
                ensure!(command.status()?.success(), "dd failed");
                files += 1;
            }
        }
    }
    ensure!(files > 0, "the topic has no files in {}", data.display());
    Ok(())
}
