//! Offsets of groups within transactions.

use std::time::Duration;

use journal::producer::Origin;
use journal::{Config, Log};
use kafka::record::Marker;

use super::*;

/// Longest wait for a transaction's end.
const LIMIT: Duration = Duration::from_secs(60);

async fn commit(
    writer: &mut Writer,
    version: i16,
    group: &str,
    topic: &str,
    offset: i64,
) -> ErrorCode {
    let request = committing(writer, group, topic, offset);
    let answer = writer.client.ask(version, request).await;
    error(answer.topics[0].partitions[0].error_code)
}

fn committing(writer: &Writer, group: &str, topic: &str, offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: writer.id.into(),
        group_id: group.into(),
        producer_id: writer.producer_id,
        producer_epoch: writer.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                committed_metadata: Some(format!("at {offset}")),
                ..TxnOffsetCommitRequestPartition::default()
            }],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

async fn add(writer: &mut Writer, version: i16, group: &str) -> ErrorCode {
    let request = AddOffsetsToTxnRequest {
        transactional_id: writer.id.into(),
        producer_id: writer.producer_id,
        producer_epoch: writer.epoch,
        group_id: group.into(),
    };
    error(writer.client.ask(version, request).await.error_code)
}

/// Returns what a group has committed for partition 0 of a topic.
async fn stored(client: &mut Client, group: &str, topic: &str, stable: bool) -> (ErrorCode, i64) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        require_stable: stable,
        ..OffsetFetchRequest::default()
    };
    let answer = client.ask(8, request).await;
    let one = &answer.groups[0].topics[0].partitions[0];
    (error(one.error_code), one.committed_offset)
}

/// Asks until the end of the transaction has reached the group.
async fn settled(client: &mut Client, group: &str, topic: &str) -> i64 {
    loop {
        match stored(client, group, topic, true).await {
            (ErrorCode::UnstableOffsetCommit, _) => tokio::task::yield_now().await,
            (code, offset) => {
                assert_eq!(code, NONE);
                return offset;
            }
        }
    }
}

#[tokio::test]
async fn offsets_count_once_their_transaction_is_committed() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    let unstable = (ErrorCode::UnstableOffsetCommit, -1);
    for version in 0..=3 {
        let code = commit(&mut writer, version, "g", "t", 5).await;
        assert_eq!(code, ErrorCode::InvalidTxnState, "{version}");
    }
    assert_eq!(
        commit(&mut writer, 4, "g", "t", 5).await,
        ErrorCode::TransactionAbortable
    );
    assert_eq!(add(&mut writer, 3, "g").await, NONE);
    assert_eq!(commit(&mut writer, 3, "g", "t", 5).await, NONE);
    assert_eq!(stored(&mut client, "g", "t", false).await, (NONE, -1));
    assert_eq!(stored(&mut client, "g", "t", true).await, unstable);
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(settled(&mut client, "g", "t").await, 5);

    assert_eq!(add(&mut writer, 0, "g").await, NONE);
    assert_eq!(commit(&mut writer, 0, "g", "t", 9).await, NONE);
    assert_eq!(stored(&mut client, "g", "t", false).await, (NONE, 5));
    assert_eq!(stored(&mut client, "g", "t", true).await, unstable);
    assert_eq!(writer.end(3, false).await, NONE);
    assert_eq!(settled(&mut client, "g", "t").await, 5);
}

#[tokio::test]
async fn what_cannot_be_committed_is_told() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    assert_eq!(add(&mut writer, 3, "g").await, NONE);
    assert_eq!(
        commit(&mut writer, 3, "", "t", 1).await,
        ErrorCode::InvalidGroupId
    );
    let unknown = commit(&mut writer, 3, "g", "nope", 1).await;
    assert_eq!(unknown, ErrorCode::UnknownTopicOrPartition);
    let of_generation = TxnOffsetCommitRequest {
        generation_id: 3,
        member_id: "someone".into(),
        ..committing(&writer, "g", "t", 1)
    };
    let answer = writer.client.ask(3, of_generation.clone()).await;
    let code = error(answer.topics[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::IllegalGeneration, "there is no such group");
    assert_eq!(commit(&mut writer, 3, "g", "t", 1).await, NONE);
    let answer = writer.client.ask(3, of_generation).await;
    let code = error(answer.topics[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::UnknownMemberId, "there is no such member");
    writer.epoch -= 1;
    let fenced = commit(&mut writer, 3, "g", "t", 1).await;
    assert_eq!(fenced, ErrorCode::InvalidProducerEpoch);
    for (version, expected) in [
        (1, ErrorCode::InvalidProducerEpoch),
        (2, ErrorCode::ProducerFenced),
    ] {
        assert_eq!(add(&mut writer, version, "g").await, expected);
    }
}

#[tokio::test]
async fn pending_offsets_outlive_a_stop_of_any_kind() {
    let mut stage = Stage::open().await;
    stage.client().await.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    for (number, committed) in [(1, true), (2, false), (3, true)] {
        assert_eq!(add(&mut writer, 3, "g").await, NONE);
        assert_eq!(commit(&mut writer, 3, "g", "t", number).await, NONE);
        stage = match number {
            1 => stage.abandon().await,
            _ => stage.restart().await,
        };
        let mut client = stage.client().await;
        let unstable = (ErrorCode::UnstableOffsetCommit, -1);
        assert_eq!(
            stored(&mut client, "g", "t", true).await,
            unstable,
            "{number}"
        );
        writer.client = stage.client().await;
        assert_eq!(writer.end(3, committed).await, NONE);
        let expected = if committed { number } else { 1 };
        assert_eq!(settled(&mut client, "g", "t").await, expected);
    }
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(stored(&mut client, "g", "t", true).await, (NONE, 3));
}

#[tokio::test]
async fn the_second_version_needs_no_adding() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    assert_eq!(commit(&mut writer, 5, "g", "t", 4).await, NONE);
    assert_eq!(
        stored(&mut client, "g", "t", true).await.0,
        ErrorCode::UnstableOffsetCommit
    );
    assert_eq!(writer.end(5, true).await, NONE);
    assert_eq!(settled(&mut client, "g", "t").await, 4);
}

#[tokio::test]
async fn a_coordinator_that_never_was_ends_nothing() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    writer.write("t", &["a"]).await;
    assert_eq!(add(&mut writer, 3, "g").await, NONE);
    assert_eq!(commit(&mut writer, 3, "g", "t", 5).await, NONE);
    let topic = |name: &str| WritableTxnMarkerTopic {
        name: name.into(),
        partition_indexes: vec![0],
    };
    let request = WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: writer.producer_id,
            producer_epoch: writer.epoch,
            transaction_result: false,
            topics: vec![topic("t"), topic("__consumer_offsets")],
            coordinator_epoch: i32::MAX,
            ..WritableTxnMarker::default()
        }],
    };
    let answer = client.ask(1, request).await;
    for topic in &answer.markers[0].topics {
        let code = error(topic.partitions[0].error_code);
        assert_eq!(code, ErrorCode::TransactionCoordinatorFenced, "{topic:?}");
    }
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(await_visible(&mut client, "t", 2).await, ["a"]);
    assert_eq!(settled(&mut client, "g", "t").await, 5);
}

#[tokio::test]
async fn partitions_that_know_of_a_later_coordinator_are_told_of_the_end() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    writer.write("t", &["a"]).await;
    assert_eq!(add(&mut writer, 3, "g").await, NONE);
    assert_eq!(commit(&mut writer, 3, "g", "t", 5).await, NONE);
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(await_visible(&mut client, "t", 2).await, ["a"]);
    assert_eq!(settled(&mut client, "g", "t").await, 5);
    let marker = Marker::Abort.batch(writer.producer_id, writer.epoch, i32::MAX, now_ms());
    let stage = stage
        .closed(|data| {
            for folder in ["t-0", "__consumer_offsets-0"] {
                let dir = data.join(folder);
                let (mut log, _) =
                    Log::open(&dir, None, Config::default(), now_ms()).expect("opens");
                log.append(&marker, now_ms(), Origin::Coordinator)
                    .expect("appended");
                log.close().expect("closed");
            }
        })
        .await;
    let mut client = stage.client().await;
    writer.client = stage.client().await;
    writer.write("t", &["b"]).await;
    assert_eq!(add(&mut writer, 3, "g").await, NONE);
    assert_eq!(commit(&mut writer, 3, "g", "t", 9).await, NONE);
    assert_eq!(writer.end(3, true).await, NONE);
    let settled = tokio::time::timeout(LIMIT, settled(&mut client, "g", "t"));
    assert_eq!(settled.await.expect("in time"), 9);
    assert_eq!(await_visible(&mut client, "t", 5).await, ["a", "b"]);
}
