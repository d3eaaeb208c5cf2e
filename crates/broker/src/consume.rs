//! Records for the house itself: reading partitions, and progress kept in a consumer group.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use journal::ReadError;
use tokio::sync::Notify;
use tokio::time::{self, Instant};

use crate::Broker;
use crate::clock;
use crate::group::schema::Committed;

/// Whole batches as they are stored, which [`kafka::record::batches`] takes apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The batches; the first may begin before the offset that was asked for. Empty when there was
    /// nothing new in time.
    pub batches: Bytes,
    /// Where to read on.
    pub next_offset: i64,
}

/// Why nothing can be read, or progress cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// No such partition, or its topic was deleted meanwhile.
    #[error("topic `{topic}` has no partition {partition}")]
    Unknown {
        /// The topic.
        topic: String,
        /// The partition's index.
        partition: i32,
    },
    /// The offset is not there: read on from `start`, or from `end`.
    #[error("offset {offset} is not between {start} and {end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// The oldest offset that is kept.
        start: i64,
        /// The offset of the next record.
        end: i64,
    },
    /// Records were damaged on disk; what is left begins at `to`.
    #[error("offsets {from} to {to} are damaged on disk")]
    Damaged {
        /// The first offset that is lost.
        from: i64,
        /// The first offset after the damage.
        to: i64,
    },
    /// The disk did not answer.
    #[error("the disk refused")]
    Disk,
    /// The group has members that use Kafka's protocol; they alone may commit.
    #[error("group `{group}` has members")]
    GroupInUse {
        /// The group.
        group: String,
    },
    /// Progress could not be made durable.
    #[error("progress of group `{group}` could not be written")]
    NotStored {
        /// The group.
        group: String,
    },
}

impl Broker {
    /// Reads whole batches from `offset` on, up to `bytes_max` but at least one; waits up to `wait` when
    /// there are none yet.
    pub async fn read(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Read, ConsumeError> {
        let unknown = || ConsumeError::Unknown {
            topic: topic.to_owned(),
            partition,
        };
        let found = self.core.topics.get(topic).ok_or_else(unknown)?;
        let log = found.partition(partition).ok_or_else(unknown)?;
        let deadline = Instant::now() + wait;
        let more = Arc::new(Notify::new());
        loop {
            log.wait(&more);
            if log.is_gone() {
                return Err(unknown());
            }
            let slice = log
                .read(offset, bytes_max, true)
                .map_err(|error| match error {
                    ReadError::OutOfRange { offset, start, end } => {
                        ConsumeError::OutOfRange { offset, start, end }
                    }
                    ReadError::Damaged { from, to } => ConsumeError::Damaged { from, to },
                    ReadError::Disk(_) => ConsumeError::Disk,
                })?;
            let late = Instant::now() >= deadline || self.running.stop.is_cancelled();
            if !slice.bytes.is_empty() || late {
                return Ok(Read {
                    batches: slice.bytes,
                    next_offset: slice.next_offset,
                });
            }
            tokio::select! {
                () = more.notified() => (),
                () = self.running.stop.cancelled() => (),
                () = time::sleep_until(deadline) => (),
            }
        }
    }

    /// Notes that a group is done with everything before `offset`; durable when this returns.
    ///
    /// The group must have no members; one that does not exist is made.
    pub async fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), ConsumeError> {
        use crate::group::terms::Refusal;
        let unknown = || ConsumeError::Unknown {
            topic: topic.to_owned(),
            partition,
        };
        let found = self.core.topics.get(topic).ok_or_else(unknown)?;
        found.partition(partition).ok_or_else(unknown)?;
        let committed = Committed {
            offset,
            leader_epoch: self.core.node.epoch(),
            metadata: String::new(),
            at_ms: clock::now_ms(),
        };
        let offsets = vec![((found.name.clone(), partition), committed)];
        let result = self.core.groups.commit(group, "", None, -1, offsets).await;
        let group = group.to_owned();
        result.map_err(|refusal| match refusal {
            Refusal::NotStored => ConsumeError::NotStored { group },
            _ => ConsumeError::GroupInUse { group },
        })
    }

    /// Returns up to where a group is done, `None` when it has never said.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        self.core
            .groups
            .offset(group, topic, partition)
            .map(|committed| committed.offset)
    }
}
