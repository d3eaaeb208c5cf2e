//! What is written to `__transaction_state`: Kafka's own records, so that its tools can read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::transaction_state::{
    PartitionsSchema, TransactionLogKey, TransactionLogValue,
};
use kafka::wire::{DecodeError, EncodeError};

use super::terms::{Metadata, NO_EPOCH, State, Version};
use crate::ledger::Line;

const KEY_VERSION: i16 = 0;
/// Values of this version have tags, for what the second version of transactions adds.
const VALUE_VERSION: i16 = 1;

/// Returns the record that stores the state of a transactional id; a dead one is deleted.
pub(crate) fn write(id: &str, metadata: &Metadata) -> Result<Line, EncodeError> {
    let key = TransactionLogKey {
        transactional_id: id.to_owned(),
    };
    let key = key.to_versioned(KEY_VERSION)?;
    if metadata.state == State::Dead {
        return Ok((key, None));
    }
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &metadata.places {
        topics.entry(topic).or_default().push(*partition);
    }
    let partitions = topics
        .into_iter()
        .map(|(topic, partition_ids)| PartitionsSchema {
            topic: topic.to_owned(),
            partition_ids,
        });
    let value = TransactionLogValue {
        producer_id: metadata.producer_id,
        previous_producer_id: metadata.previous_producer_id,
        next_producer_id: metadata.next_producer_id,
        producer_epoch: metadata.epoch,
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_status: metadata.state.number(),
        transaction_partitions: match metadata.state {
            State::Empty => None,
            _ => Some(partitions.collect()),
        },
        transaction_last_update_timestamp_ms: metadata.updated_at,
        transaction_start_timestamp_ms: metadata.started_at,
        client_transaction_version: metadata.version.number(),
        ..TransactionLogValue::default()
    };
    Ok((key, Some(value.to_versioned(VALUE_VERSION)?)))
}

/// Reads a record's key: the transactional id, `None` for records of kinds that are not ours.
pub(crate) fn read_key(bytes: &Bytes) -> Result<Option<String>, DecodeError> {
    match bytes.first_chunk() {
        Some(version) if i16::from_be_bytes(*version) == KEY_VERSION => Ok(Some(
            TransactionLogKey::from_versioned(bytes)?.transactional_id,
        )),
        _ => Ok(None),
    }
}

/// Reads a record's value; `None` when it is in a state that does not exist.
pub(crate) fn read(bytes: &Bytes) -> Result<Option<Metadata>, DecodeError> {
    let value = TransactionLogValue::from_versioned(bytes)?;
    let number = value.transaction_status;
    let Some(state) = State::ALL.into_iter().find(|one| one.number() == number) else {
        return Ok(None);
    };
    let mut places = BTreeSet::new();
    // Where nothing is open there is nothing that it could be open in, whatever a spoiled record says.
    let open = value
        .transaction_partitions
        .filter(|_| state != State::Empty);
    for partitions in open.unwrap_or_default() {
        let topic: Arc<str> = partitions.topic.into();
        let indexes = partitions.partition_ids.into_iter();
        places.extend(indexes.map(|index| (topic.clone(), index)));
    }
    Ok(Some(Metadata {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        epoch: value.producer_epoch,
        last_epoch: NO_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        state,
        places,
        started_at: value.transaction_start_timestamp_ms,
        updated_at: value.transaction_last_update_timestamp_ms,
        version: match value.client_transaction_version {
            2.. => Version::V2,
            _ => Version::V1,
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Metadata {
        Metadata {
            producer_id: 7,
            previous_producer_id: 6,
            next_producer_id: -1,
            epoch: 3,
            last_epoch: NO_EPOCH,
            timeout_ms: 60_000,
            state: State::Ongoing,
            places: BTreeSet::from([("a".into(), 0), ("a".into(), 2), ("b".into(), 1)]),
            started_at: 5,
            updated_at: 9,
            version: Version::V2,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let empty = Metadata {
            state: State::Empty,
            places: BTreeSet::new(),
            next_producer_id: 12,
            version: Version::V1,
            ..some()
        };
        for metadata in [some(), empty] {
            let (key, value) = write("mine", &metadata).expect("short");
            assert_eq!(read_key(&key), Ok(Some("mine".to_owned())));
            assert_eq!(read(&value.expect("a value")), Ok(Some(metadata)));
        }
    }

    #[test]
    fn where_nothing_is_open_there_are_no_partitions() {
        let (_, value) = write("mine", &some()).expect("short");
        let mut value = value.expect("a value").to_vec();
        // Behind the version: the producer's id and epoch, the timeout, then the state.
        value[2 + 8 + 2 + 4] = State::Empty.number() as u8;
        let found = read(&value.into()).expect("reads").expect("a state");
        assert_eq!((found.state, found.places), (State::Empty, BTreeSet::new()));
    }

    #[test]
    fn a_dead_id_is_deleted() {
        let dead = Metadata {
            state: State::Dead,
            ..some()
        };
        let (key, value) = write("mine", &dead).expect("short");
        assert_eq!((&key[..], value), (&b"\0\0\0\x04mine"[..], None));
    }

    #[test]
    fn other_records_and_damaged_ones_do_no_harm() {
        assert_eq!(read_key(&Bytes::from_static(b"\0\x05mine")), Ok(None));
        assert!(read_key(&Bytes::from_static(b"\0\0\0\x09mine")).is_err());
        let (_, value) = write("mine", &some()).expect("short");
        let value = value.expect("a value");
        for end in 0..value.len() {
            assert!(
                !matches!(read(&value.slice(..end)), Ok(Some(found)) if found == some()),
                "{end}"
            );
        }
    }
}
