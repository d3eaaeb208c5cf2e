//! Very many partitions: how soon they are open again, and what a record costs among them.

use super::table::Aim;
use super::wire::{self, Shape};
use super::{Bench, is_ours};

/// The longest time from start to ready with all of them, after a clean stop.
const OPEN_SECONDS_MAX: f64 = 5.0;
/// The most that a record may cost among all of them, against one partition.
const FLAT_MAX: f64 = 1.25;

/// The same requests, one batch of 4 KiB each, to more and more partitions.
const SHAPE: Shape = Shape {
    record_bytes: 1024,
    batch_records: 4,
    request_batches: 1,
    acks: 1,
};

pub(super) fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let many: i32 = if bench.quick { 1000 } else { 10_000 };
    let steps: &[i32] = match bench.quick {
        true => &[1, 1000],
        false => &[1, 12, 1000, 10_000],
    };
    // Others that hold data would only be in the way.
    bench.brokers.clear();
    for mut broker in bench.fresh()? {
        let is_ours = is_ours(&broker);
        super::grid::warm(&broker, bench.time)?;
        let mut alone = f64::NAN;
        for &partitions in steps {
            let topic = format!("many-{partitions}");
            wire::make_topic(&broker, &topic, partitions, false)?;
            let producers = wire::producers(&broker, &topic, partitions, SHAPE);
            let window = wire::measured(&broker, bench.time, bench.time, producers)?;
            let cost = window.microseconds_per_record();
            let what = format!("1 KiB record, one of {partitions} partitions");
            let table = &mut bench.table;
            table.tell(&what, "CPU us", Aim::None, is_ours, cost);
            table.foreign(window.foreign, window.seconds);
            if partitions == 1 {
                alone = cost;
            }
            if partitions == many {
                let what = format!("a record among {many} partitions against one");
                table.tell(&what, "times", Aim::Most(FLAT_MAX), is_ours, cost / alone);
            } else {
                // Their sum must not be more than a broker takes.
                wire::delete_topic(&broker, &topic)?;
            }
        }
        let table = &mut bench.table;
        let what = format!("memory with {many} partitions");
        table.tell(&what, "MiB", Aim::None, is_ours, broker.memory_mib()?);
        broker.stop_and_start();
        let what = format!("{many} partitions, start to ready after a clean stop");
        let ready = broker.ready_after().as_secs_f64();
        table.tell(&what, "s", Aim::Most(OPEN_SECONDS_MAX), is_ours, ready);
    }
    Ok(())
}
