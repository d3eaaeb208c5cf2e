//! How old the oldest record is that a group has not committed: its lag in time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use krafka::Kafka;
use krafka::consumer::AutoOffsetReset;
use tokio::time::Instant;

use crate::client::{Partition, Told};

/// Longest time in which all partitions together must have told their record.
///
/// A partition has none to tell where nothing but the markers of transactions lies behind the committed offset.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Longest time without any answer, after which no more is expected.
const QUIET_MAX: Duration = Duration::from_secs(2);
/// Bytes that are read from a partition at once: one record is wanted.
const READ_BYTES: i32 = 16 * 1024;

/// Returns the timestamp, in milliseconds since 1970, of the record at each committed offset, or of the next one where it is gone.
pub(super) async fn timestamps(
    kafka: &Kafka,
    wanted: &BTreeMap<Partition, i64>,
) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let consumer = kafka
        .consumer_without_group()
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .max_partition_fetch_bytes(READ_BYTES)
        .initial_offsets(wanted.iter().map(|(p, offset)| (p.wire(), *offset)))
        .build()
        .await
        .told()?;
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in wanted.keys() {
        let indexes = by_topic.entry(&partition.topic).or_default();
        indexes.push(partition.index);
    }
    for (topic, indexes) in by_topic {
        consumer.assign(topic, indexes).await.told()?;
    }
    let end = Instant::now() + LOOK_MAX;
    while found.len() < wanted.len() && Instant::now() < end {
        let polled = consumer.poll(QUIET_MAX).await.told()?;
        if polled.is_empty() {
            break;
        }
        let mut done: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for record in polled {
            let partition = Partition::new(&*record.topic, record.partition);
            // Of several records the first one is the oldest that is not committed.
            if let Entry::Vacant(first) = found.entry(partition) {
                let partition = first.key();
                let indexes = done.entry(partition.topic.clone()).or_default();
                indexes.push(partition.index);
                first.insert(record.timestamp);
            }
        }
        for (topic, indexes) in done {
            consumer.pause(&topic, &indexes).await;
        }
    }
    consumer.close().await.told()?;
    Ok(found)
}
