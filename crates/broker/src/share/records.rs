//! What is written to `__share_group_state`: Kafka's own schemas, one whole snapshot for each change.
//!
//! Kafka also writes what differs from the last snapshot, and prunes. Here compaction keeps the topic small: each key's
//! latest record is all that holds.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use journal::ReadError;
use kafka::messages::Message;
use kafka::messages::share_partition_state::{ShareSnapshotKey, ShareSnapshotValue, StateBatch};
use kafka::wire::{DecodeError, EncodeError, Reader, Wire};
use tracing::warn;
use uuid::Uuid;

use super::terms::{Kept, Millis, Range, Snapshot};
use crate::ledger::{self, Line};
use crate::partition::Partition;

const SNAPSHOT_KEY: i16 = 0;
const SNAPSHOT_VALUE: i16 = 0;

/// A partition of a topic, as a share group reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub group: Arc<str>,
    pub topic: Uuid,
    pub partition: i32,
}

/// A snapshot with what Kafka keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub snapshot: Snapshot,
    /// Rises with each snapshot.
    pub number: i32,
    /// The group's epoch when the state was made or set.
    pub state_epoch: i32,
    pub leader_epoch: i32,
    pub made_at: Millis,
}

impl Stored {
    pub(crate) fn new(snapshot: Snapshot, state_epoch: i32, made_at: Millis) -> Self {
        Self {
            snapshot,
            number: 0,
            state_epoch,
            leader_epoch: 0,
            made_at,
        }
    }
}

/// Returns what is written for a state; without one the key is deleted.
pub(crate) fn line(key: &Key, stored: Option<&Stored>, now: Millis) -> Result<Line, EncodeError> {
    let name = ShareSnapshotKey {
        group_id: key.group.to_string(),
        topic_id: key.topic,
        partition: key.partition,
    };
    let value = stored.map(|stored| ShareSnapshotValue {
        snapshot_epoch: stored.number,
        state_epoch: stored.state_epoch,
        leader_epoch: stored.leader_epoch,
        start_offset: stored.snapshot.start,
        delivery_complete_count: stored.snapshot.done,
        create_timestamp: stored.made_at,
        write_timestamp: now,
        state_batches: stored.snapshot.ranges.iter().map(batch).collect(),
    });
    let value = value.map(|value| value.to_versioned(SNAPSHOT_VALUE));
    Ok((name.to_versioned(SNAPSHOT_KEY)?, value.transpose()?))
}

fn batch(range: &Range) -> StateBatch {
    StateBatch {
        first_offset: range.first,
        last_offset: range.last,
        delivery_state: range.state as i8,
        delivery_count: i16::try_from(range.deliveries).unwrap_or(i16::MAX),
    }
}

/// Reads the last state of each share partition. Waits for the disk.
pub(crate) fn load(partition: &Partition) -> Result<HashMap<Key, Stored>, ReadError> {
    let mut loaded = HashMap::new();
    ledger::read(partition, |_, record| {
        let key = record.key.map(Bytes::copy_from_slice).unwrap_or_default();
        let value = record.value.map(Bytes::copy_from_slice);
        match read(&key, value.as_ref()) {
            Ok(None) => (),
            Ok(Some((key, None))) => _ = loaded.remove(&key),
            Ok(Some((key, Some(stored)))) => _ = loaded.insert(key, stored),
            Err(cause) => {
                warn!(offset = record.offset, error = %cause, "the state of a share partition cannot be read");
            }
        }
    })?;
    Ok(loaded)
}

/// Returns `None` for records of kinds that are not ours.
pub(crate) fn read(
    key: &Bytes,
    value: Option<&Bytes>,
) -> Result<Option<(Key, Option<Stored>)>, DecodeError> {
    if i16::read(&mut Reader::new(key))? != SNAPSHOT_KEY {
        return Ok(None);
    }
    let name = ShareSnapshotKey::from_versioned(key)?;
    let key = Key {
        group: name.group_id.into(),
        topic: name.topic_id,
        partition: name.partition,
    };
    let Some(value) = value else {
        return Ok(Some((key, None)));
    };
    let value = ShareSnapshotValue::from_versioned(value)?;
    let ranges = value.state_batches.iter().filter_map(|batch| {
        Some(Range {
            first: batch.first_offset,
            last: batch.last_offset,
            state: Kept::from_number(batch.delivery_state)?,
            deliveries: i32::from(batch.delivery_count),
        })
    });
    let stored = Stored {
        snapshot: Snapshot {
            start: value.start_offset,
            done: value.delivery_complete_count,
            ranges: ranges.collect(),
        },
        number: value.snapshot_epoch,
        state_epoch: value.state_epoch,
        leader_epoch: value.leader_epoch,
        made_at: value.create_timestamp,
    };
    Ok(Some((key, Some(stored))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let key = Key {
            group: "g".into(),
            topic: Uuid::from_u128(7),
            partition: 3,
        };
        let range = |first, last, state, deliveries| Range {
            first,
            last,
            state,
            deliveries,
        };
        let stored = Stored {
            snapshot: Snapshot {
                start: 5,
                done: 4,
                ranges: vec![
                    range(6, 8, Kept::Acknowledged, 1),
                    range(9, 9, Kept::Archived, 5),
                    range(10, 12, Kept::Available, 2),
                ],
            },
            number: 9,
            state_epoch: 2,
            leader_epoch: 1,
            made_at: 1_700_000_000_000,
        };
        let (name, value) = line(&key, Some(&stored), 1).expect("short");
        assert_eq!(
            &name[..],
            [
                &b"\0\0\0\x01g"[..],
                Uuid::from_u128(7).as_bytes(),
                b"\0\0\0\x03"
            ]
            .concat()
        );
        let found = read(&name, value.as_ref());
        assert_eq!(found, Ok(Some((key.clone(), Some(stored)))));
        let (name, value) = line(&key, None, 1).expect("short");
        assert_eq!(read(&name, value.as_ref()), Ok(Some((key, None))));
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for bytes in [&b""[..], b"\0", b"\0\0\0\x05a"] {
            assert!(read(&Bytes::copy_from_slice(bytes), None).is_err());
        }
        assert_eq!(read(&Bytes::from_static(b"\0\x01rest"), None), Ok(None));
    }
}
