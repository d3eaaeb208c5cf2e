//! Records from the house itself: HTTP's way into topics.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use journal::producer::Origin;
use kafka::record::{Batch, BatchBuilder, NewRecord};
use kit::memory::Need;

use crate::Broker;
use crate::clock;
use crate::intake;
use crate::partition::{Partition, Rejected};
use crate::partitioner::partition_of;
use crate::topic::config::Settings;

/// A record to be produced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Decides the partition, if there is one.
    pub key: Option<Vec<u8>>,
    /// The content; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Names and values, in order; names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; now when nothing is said.
    pub timestamp: Option<i64>,
}

/// Where a record lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's index.
    pub partition: i32,
    /// The record's offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since 1970.
    pub timestamp: i64,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// No such topic, or it was deleted meanwhile.
    #[error("topic `{topic}` does not exist")]
    UnknownTopic {
        /// The name that was asked for.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic `{topic}` has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The index that was asked for.
        partition: i32,
    },
    /// The record is larger than the topic takes.
    #[error("the record takes {size} bytes, topic `{topic}` takes {max}")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Size of the record as a batch.
        size: usize,
        /// The topic's `max.message.bytes`.
        max: usize,
    },
    /// The topic's settings refuse it: a compacted topic needs a key, for example.
    #[error("topic `{topic}` refuses the record: {why}")]
    Invalid {
        /// The topic.
        topic: String,
        /// The rule.
        why: String,
    },
    /// The topic is the broker's own.
    #[error("topic `{topic}` is the broker's own")]
    Internal {
        /// The topic.
        topic: String,
    },
    /// The disk refused. The record may be seen all the same.
    #[error("topic `{topic}` could not be written to disk")]
    Disk {
        /// The topic.
        topic: String,
    },
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

impl Broker {
    /// Appends one record; it is on disk when this returns.
    ///
    /// Without `partition` the key decides, exactly as Kafka's default partitioner does; records
    /// without a key take turns.
    pub async fn produce(
        &self,
        topic: &str,
        partition: Option<i32>,
        record: Record,
    ) -> Result<Placed, ProduceError> {
        let unknown = || ProduceError::UnknownTopic {
            topic: topic.to_owned(),
        };
        let found = self.core.topics.get(topic).ok_or_else(unknown)?;
        if found.is_internal() {
            return Err(ProduceError::Internal {
                topic: topic.to_owned(),
            });
        }
        let partitions = found.partitions();
        let index = match (partition, &record.key) {
            (Some(index), _) => usize::try_from(index).unwrap_or(usize::MAX),
            (None, Some(key)) => partition_of(key, partitions.len()),
            (None, None) => self.turn() % partitions.len(),
        };
        let Some(partition) = partitions.get(index) else {
            return Err(ProduceError::UnknownPartition {
                topic: topic.to_owned(),
                partition: partition.unwrap_or(-1),
            });
        };
        let timestamp = record.timestamp.unwrap_or_else(clock::now_ms);
        let mut batch = batch(&record, timestamp);
        let settings = found.settings();
        if let Some(stored) = examined(topic, &settings, &batch)? {
            batch = stored;
        }
        let (size, max) = (batch.len(), settings.max_message_bytes);
        if size > max {
            return Err(ProduceError::TooLarge {
                topic: topic.to_owned(),
                size,
                max,
            });
        }
        // The same memory as that of requests: both doors share one limit.
        let mut memory = self.core.memory.share();
        let due = size.min(self.core.memory.due_max());
        memory.grow(due, Need::Ordinary).await;
        let appended = self
            .core
            .writer
            .append(partition.clone(), batch, Origin::Client, true)
            .await
            .map_err(|rejected| refusal(topic, partition, rejected))?;
        drop(memory);
        found.counters.produced(size, 1);
        Ok(Placed {
            topic: found.name.clone(),
            partition: partition.index,
            offset: appended.base_offset,
            timestamp: appended.append_time.unwrap_or(timestamp),
        })
    }
}

fn examined(
    topic: &str,
    settings: &Settings,
    bytes: &Bytes,
) -> Result<Option<Bytes>, ProduceError> {
    let invalid = |why| ProduceError::Invalid {
        topic: topic.to_owned(),
        why,
    };
    let (batch, _) = Batch::split_first(bytes).map_err(|error| invalid(error.to_string()))?;
    let left = Cell::new(intake::INFLATED_MAX);
    intake::examine(settings, &batch, clock::now_ms(), &left).map_err(|unfit| {
        let first = unfit.records.into_iter().next();
        invalid(first.map_or(unfit.why, |(_, why)| why))
    })
}

fn batch(record: &Record, timestamp: i64) -> Bytes {
    let headers: Vec<(&str, Option<&[u8]>)> = record
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_deref()))
        .collect();
    let mut builder = BatchBuilder::default();
    builder.push(NewRecord {
        timestamp,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: &headers,
    });
    builder.build()
}

fn refusal(topic: &str, partition: &Partition, rejected: Rejected) -> ProduceError {
    let topic = topic.to_owned();
    match rejected {
        Rejected::TooLarge { size, max } => ProduceError::TooLarge { topic, size, max },
        Rejected::Gone if partition.is_gone() => ProduceError::UnknownTopic { topic },
        Rejected::Gone => ProduceError::Stopping,
        Rejected::Disk
        | Rejected::Invalid(_)
        | Rejected::OutOfOrder
        | Rejected::InvalidEpoch
        | Rejected::OutsideTransaction
        | Rejected::CoordinatorFenced => ProduceError::Disk { topic },
    }
}
