//! Produce and consume: each size of records, each number of partitions, each promise.

use std::time::Duration;

use super::sides::Broker;
use super::table::Aim;
use super::wire::{self, Shape, Window};
use super::{Bench, is_ours};

const SIZES: [(usize, &str); 3] = [(100, "100 B"), (1024, "1 KiB"), (100 << 10, "100 KiB")];
/// Topics with so many partitions are used again.
const STAYS_MIN: i32 = 1000;
const PARTITIONS: [i32; 3] = [1, 12, 1000];

/// What the broker promises before it answers: `acks`, and how it is told.
const PROMISES: [(i16, &str); 2] = [(1, "page cache"), (-1, "on disk")];

/// Throughput for each CPU second must be so many times that of Apache Kafka.
const TIMES_MIN: f64 = 1.5;

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    for (bytes, size) in SIZES {
        for partitions in PARTITIONS {
            for (acks, promise) in PROMISES {
                let shape = Shape::usual(bytes, partitions as usize, acks);
                for _ in 0..bench.reps {
                    if let Err(why) = cell(bench, shape, partitions, size, promise) {
                        let what = format!("{size}, {partitions} partitions, {promise}");
                        bench.table.skip(&what, &format!("{why:#}"));
                    }
                }
            }
        }
    }
    Ok(())
}

fn cell(
    bench: &mut Bench,
    shape: Shape,
    partitions: i32,
    size: &str,
    promise: &str,
) -> anyhow::Result<()> {
    let place = match partitions {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    };
    let durable = shape.acks < 0;
    // To make many partitions and take them away again costs more than all the rest: those stay.
    let stays = partitions >= STAYS_MIN;
    let topic = match stays {
        true => format!("bench-of-{partitions}-{}", shape.acks),
        false => bench.topic(),
    };
    for broker in &bench.brokers {
        wire::have_topic(broker, &topic, partitions, durable)?;
        let starts = wire::ends(broker, &topic, partitions)?;
        let producers = wire::producers(broker, &topic, partitions, shape);
        let produced = wire::measured(broker, bench.time / 2, bench.time, producers)?;
        let mut tell = |what: &str, window: &Window, more: &str| {
            let what = format!("{what} {size}, {place}{more}");
            let (is_ours, table) = (is_ours(broker), &mut bench.table);
            let (cpu, clock) = (window.megabytes_per_cpu(), window.megabytes_per_second());
            table.tell(&what, "MB per CPU s", Aim::Times(TIMES_MIN), is_ours, cpu);
            table.tell(&what, "MB/s", Aim::None, is_ours, clock);
            table.foreign(window.foreign, window.seconds);
        };
        tell("produce", &produced, &format!(", {promise}"));
        // What was promised does not matter to readers.
        if !durable {
            let consumers = wire::consumers(broker, &topic, &starts);
            let consumed = wire::measured(broker, bench.time / 2, bench.time, consumers)?;
            tell("consume", &consumed, "");
        }
        if !stays {
            wire::delete_topic(broker, &topic)?;
        }
    }
    Ok(())
}

/// Some of everything, not measured.
pub(super) fn warm(broker: &Broker, time: Duration) -> anyhow::Result<()> {
    for partitions in [1, 12] {
        let shape = Shape::usual(100, partitions, 1);
        let partitions = i32::try_from(partitions)?;
        let topic = format!("warm-{partitions}");
        wire::make_topic(broker, &topic, partitions, false)?;
        let producers = wire::producers(broker, &topic, partitions, shape);
        wire::measured(broker, time, time, producers)?;
        let starts: Vec<_> = (0..partitions).map(|partition| (partition, 0)).collect();
        let consumers = wire::consumers(broker, &topic, &starts);
        wire::measured(broker, time, time, consumers)?;
        wire::delete_topic(broker, &topic)?;
    }
    Ok(())
}
