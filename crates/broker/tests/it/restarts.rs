//! What is there after a stop, clean or not.

use broker::{Broker, OpenError};
use kafka::error::ErrorCode;

use crate::groups::{commit, committed};
use crate::stage::{Stage, batch, error};

#[tokio::test]
async fn records_and_topics_are_there_again() {
    let mut stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    drop(client);
    for round in 0..4 {
        let mut client = stage.client().await;
        let value = round.to_string();
        let answer = client.produce(9, "t", -1, batch(&[&value])).await;
        assert_eq!(
            (error(answer.error_code), answer.base_offset),
            (ErrorCode::None, round)
        );
        drop(client);
        stage = if round % 2 == 0 {
            stage.restart().await
        } else {
            stage.abandon().await
        };
        let mut client = stage.client().await;
        let values = client.values("t", 0).await;
        assert_eq!(values.len(), usize::try_from(round).expect("small") + 1);
        assert_eq!(values.last(), Some(&(round, value)));
    }
}

#[tokio::test]
async fn one_data_directory_has_one_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = broker::Options::new(folder.path());
    let first = Broker::open(options.clone()).await.expect("opens");
    let second = Broker::open(options.clone()).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    first.close().await;
    drop(first);
    Broker::open(options).await.expect("opens again");
}

#[tokio::test]
async fn a_default_that_is_no_setting_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = broker::Options::new(folder.path());
    options
        .topic_defaults
        .insert("retention".into(), "1".into());
    let refused = Broker::open(options)
        .await
        .expect_err("refused")
        .to_string();
    assert_eq!(
        refused,
        "topic default is not valid: Unknown topic config name: retention"
    );
}

#[tokio::test]
async fn the_topic_of_offsets_stays_small() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 200, &[]).await;
    let size = |stage: &Stage| {
        let topics = stage.broker.topics();
        let offsets = topics.iter().find(|topic| topic.internal).expect("there");
        offsets.partitions[0].bytes
    };
    // One commit of all partitions takes about 30 KiB: together these are several times what may stay.
    let mut largest = 0;
    for round in 0..700i64 {
        let request = everything(round);
        let response = client.ask(9, request).await;
        assert_eq!(
            error(response.topics[0].partitions[0].error_code),
            ErrorCode::None
        );
        largest = largest.max(size(&stage));
    }
    assert!(largest > 8 << 20, "the test writes too little: {largest}");
    assert!(largest < 24 << 20, "{largest}");
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(committed(&mut client, 199).await.0, 699);
    assert_eq!(commit(&mut client, "", -1, 3, 5).await, ErrorCode::None);
    assert_eq!(committed(&mut client, 3).await.0, 5);
}

fn everything(offset: i64) -> kafka::messages::offset_commit::OffsetCommitRequest {
    use kafka::messages::offset_commit::{
        OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    let partitions = (0..200).map(|partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        committed_metadata: Some("x".repeat(100)),
        ..OffsetCommitRequestPartition::default()
    });
    OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: partitions.collect(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}
