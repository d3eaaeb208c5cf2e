//! Steady traffic: records at a fixed rate, and how long each is on its way from the producer's schedule to a consumer.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::sides::Broker;
use super::wire::{self, CONNECTIONS, Connection, Reading, Shape, Window};

/// Records of a batch; each request has one batch.
pub(super) const BATCH_RECORDS: usize = 10;
const RECORD_BYTES: usize = 1024;
/// How long what is under way is waited for at the end.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Ten records of 1 KiB in each request.
pub(super) fn shape(acks: i16) -> Shape {
    Shape {
        record_bytes: RECORD_BYTES,
        batch_records: BATCH_RECORDS,
        request_batches: 1,
        acks,
    }
}

/// What steady traffic has met.
pub(super) struct Met {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) window: Window,
}

/// Returns how many requests a second the broker takes when the clients ask as fast as they can.
pub(super) fn most(broker: &Broker, topic: &str, acks: i16, time: Duration) -> anyhow::Result<f64> {
    let partitions = i32::try_from(CONNECTIONS)?;
    wire::make_topic(broker, topic, partitions, acks < 0)?;
    let producers = wire::producers(broker, topic, partitions, shape(acks));
    let window = wire::measured(broker, time / 2, time, producers)?;
    wire::delete_topic(broker, topic)?;
    Ok(window.records / window.seconds / BATCH_RECORDS as f64)
}

/// Sends so many requests a second over all connections for some time, each connection to a partition of its own, which a
/// consumer follows. The topic must be new. A request that leaves late, because those before it hang, counts from when it was due.
pub(super) fn run(
    broker: &Broker,
    topic: &str,
    acks: i16,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Met> {
    let partitions = i32::try_from(CONNECTIONS)?;
    wire::make_topic(broker, topic, partitions, acks < 0)?;
    let to = broker.bootstrap();
    let each = Duration::from_secs_f64(CONNECTIONS as f64 / rate.max(1.0));
    let before = (broker.clock()?, Instant::now());
    // Everybody is connected by then.
    let begin = before.1 + Duration::from_millis(200);
    let all = thread::scope(|scope| {
        let lanes: Vec<_> = (0..partitions)
            .map(|partition| {
                let to = &to;
                scope.spawn(move || lane(to, topic, partition, acks, begin, each, time))
            })
            .collect();
        let mut all = Vec::new();
        for lane in lanes {
            let met = lane.join();
            all.extend(met.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??);
        }
        Ok::<_, anyhow::Error>(all)
    })?;
    let (cpu, foreign) = before.0.until(&broker.clock()?);
    wire::delete_topic(broker, topic)?;
    let mut ordered = all;
    ordered.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (ordered.len() as f64 * share) as usize;
        ordered[index.min(ordered.len() - 1)]
    };
    anyhow::ensure!(!ordered.is_empty(), "nothing arrived");
    let records = (ordered.len() * BATCH_RECORDS) as f64;
    Ok(Met {
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        window: Window {
            cpu,
            foreign,
            seconds: before.1.elapsed().as_secs_f64(),
            records,
            bytes: records * RECORD_BYTES as f64,
        },
    })
}

/// One producer and its consumer; returns the milliseconds of each request that was due after the first fifth of the time.
fn lane(
    to: &str,
    topic: &str,
    partition: i32,
    acks: i16,
    begin: Instant,
    each: Duration,
    time: Duration,
) -> anyhow::Result<Vec<f64>> {
    let requests = shape(acks).requests(topic, &[partition])?;
    let mut sending = Connection::to(to)?;
    let mut answers = sending.clone()?;
    let sent = AtomicI64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (sent, over) = (&sent, &over);
        let producer = scope.spawn(move || {
            let mut due = begin;
            while due < begin + time {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                // Counted before it is sent: whoever reads the answers must not miss it.
                sent.fetch_add(1, Ordering::SeqCst);
                let done = sending.send(&requests[0].0);
                if let Err(why) = done {
                    over.store(true, Ordering::SeqCst);
                    return Err(why);
                }
                due += each;
            }
            over.store(true, Ordering::SeqCst);
            Ok(())
        });
        let acknowledged = scope.spawn(move || {
            let mut answered = 0;
            loop {
                while answered < sent.load(Ordering::SeqCst) {
                    answers.produced()?;
                    answered += 1;
                }
                if over.load(Ordering::SeqCst) && answered == sent.load(Ordering::SeqCst) {
                    return Ok::<_, anyhow::Error>(());
                }
                thread::sleep(each.min(Duration::from_millis(1)));
            }
        });
        let mut following = Connection::to(to)?;
        let mut reading = Reading::new(topic, &[partition]);
        let mut met = Vec::new();
        let mut seen: u32 = 0;
        let last = begin + time + LATE_MAX;
        loop {
            let done = over.load(Ordering::SeqCst);
            if done && i64::from(seen) >= sent.load(Ordering::SeqCst) {
                break;
            }
            anyhow::ensure!(Instant::now() < last, "records did not arrive");
            reading.step(&mut following)?;
            let now = Instant::now();
            let arrived = reading.next[0].1 / BATCH_RECORDS as i64;
            while i64::from(seen) < arrived {
                let due = begin + each * seen;
                if due > begin + time / 5 {
                    met.push(now.saturating_duration_since(due).as_secs_f64() * 1000.0);
                }
                seen += 1;
            }
        }
        for thread in [producer, acknowledged] {
            let ended = thread.join();
            ended.map_err(|_| anyhow::anyhow!("a part of the load panicked"))??;
        }
        Ok(met)
    })
}
