//! Ends a transaction in one partition, where no coordinator does it any more.

use std::collections::HashMap;
use std::str::FromStr;

use anyhow::{Context, bail};
use kafka::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use krafka::Kafka;
use krafka::admin::AdminClient;

use super::{Open, hangs, known, producers_of};
use crate::client::{Partition, To, ask, checked};

/// Where a transaction begins: `TOPIC:PARTITION@OFFSET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    partition: Partition,
    offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (partition, offset) = text.rsplit_once('@')?;
            let (topic, index) = partition.rsplit_once(':')?;
            Some(Place {
                partition: Partition::new(topic, index.parse().ok()?),
                offset: offset.parse().ok()?,
            })
        };
        read().ok_or_else(|| format!("`{text}` is not TOPIC:PARTITION@OFFSET"))
    }
}

/// Writes the marker that a coordinator would write. One that a coordinator still knows of is its business, unless `force`.
pub(super) async fn abort(
    kafka: &Kafka,
    admin: &AdminClient,
    place: &Place,
    force: bool,
) -> anyhow::Result<()> {
    let partition = &place.partition;
    let producers = producers_of(admin, std::slice::from_ref(partition)).await?;
    let mut open = producers.into_values().flatten().filter_map(|producer| {
        let start = producer.current_transaction_start_offset?;
        let partition = partition.clone();
        Some(Open {
            partition,
            producer,
            start,
        })
    });
    let Some(open) = open.find(|open| open.start == place.offset) else {
        bail!(
            "no open transaction of {partition} begins at {}; `nuncio transactions producers {partition}` shows them",
            place.offset
        );
    };
    let known: HashMap<_, _> = known(admin, std::slice::from_ref(&open)).await?;
    if !force && !hangs(&open, known.get(&open.producer.producer_id)) {
        bail!(
            "its coordinator knows of this transaction and will end it; `nuncio transactions abort ID` does so now, --force ends it \
             in this partition only"
        );
    }
    let marker = WritableTxnMarker {
        producer_id: open.producer.producer_id,
        producer_epoch: i16::try_from(open.producer.producer_epoch)
            .context("the broker tells an epoch that cannot be one")?,
        transaction_result: false,
        topics: vec![WritableTxnMarkerTopic {
            name: partition.topic.clone(),
            partition_indexes: vec![partition.index],
        }],
        // Nobody knows of one where no marker has been written before.
        coordinator_epoch: open.producer.coordinator_epoch.max(0),
        ..WritableTxnMarker::default()
    };
    let request = WriteTxnMarkersRequest {
        markers: vec![marker],
    };
    let answer = ask(kafka, To::Leader(partition), &request).await?;
    let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
    for told in topics.flat_map(|topic| topic.partitions) {
        checked(told.error_code, None).with_context(|| format!("partition {partition}"))?;
    }
    anstream::println!(
        "aborted the transaction of producer {} that begins at {partition}@{}",
        open.producer.producer_id,
        place.offset
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_a_partition_and_an_offset() {
        let place: Place = "a.b:3@17".parse().expect("a place");
        assert_eq!((place.partition.index, place.offset), (3, 17));
        for text in ["a:3", "a@3", "a:x@1", "a:1@"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
