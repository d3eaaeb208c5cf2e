//! Reading: limits, waiting, offsets, and times.

use std::time::{Duration, Instant};

use kafka::error::ErrorCode;
use kafka::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka::messages::fetch::{FetchPartition, FetchRequest};
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use kafka::record::{Records, batches};

use crate::stage::{Client, Stage, batch, error, fetch, now_ms, produce, stamped};

async fn read(client: &mut Client, request: FetchRequest) -> (ErrorCode, usize) {
    let response = client.ask(12, request).await;
    let partition = &response.responses[0].partitions[0];
    let records = partition
        .records
        .as_ref()
        .map_or(0, |records| records.len());
    (error(partition.error_code), records)
}

#[tokio::test]
async fn whole_batches_come_within_the_limit_and_at_least_one() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let size = batch(&["same size"]).len();
    for _ in 0..3 {
        client.produce(9, "t", -1, batch(&["same size"])).await;
    }
    let most = |batches: usize| i32::try_from(batches * size).expect("small");
    for (bytes_max, offset, expected) in [
        (1, 0, size),
        (most(1), 0, size),
        (most(2) + 1, 0, 2 * size),
        (most(9), 0, 3 * size),
        (most(9), 2, size),
        (most(9), 3, 0),
    ] {
        let found = read(&mut client, fetch("t", offset, 0, bytes_max)).await;
        assert_eq!(
            found,
            (ErrorCode::None, expected),
            "{bytes_max} from {offset}"
        );
    }
    for offset in [-1, 4] {
        let found = read(&mut client, fetch("t", offset, 0, 100)).await;
        assert_eq!(found, (ErrorCode::OffsetOutOfRange, 0));
    }
    let found = read(&mut client, fetch("nowhere", 0, 0, 100)).await;
    assert_eq!(found, (ErrorCode::UnknownTopicOrPartition, 0));
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let waiting = client.send(12, fetch("t", 0, 20_000, 1000)).await;
    let mut other = stage.client().await;
    let started = Instant::now();
    other.produce(9, "t", -1, batch(&["new"])).await;
    let response = client.answer::<FetchRequest>(12, waiting).await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "woken, not timed out"
    );
    let records = response.responses[0].partitions[0].records.as_ref();
    assert!(records.is_some_and(|records| !records.is_empty()));

    let started = Instant::now();
    assert_eq!(
        read(&mut client, fetch("t", 1, 100, 1000)).await,
        (ErrorCode::None, 0)
    );
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[tokio::test]
async fn a_fetch_that_waits_ends_with_its_topic() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let waiting = client.send(12, fetch("t", 0, 25_000, 1000)).await;
    let mut other = stage.client().await;
    let delete = kafka::messages::delete_topics::DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        ..Default::default()
    };
    other.ask(5, delete).await;
    let started = Instant::now();
    let response = client.answer::<FetchRequest>(12, waiting).await;
    assert!(started.elapsed() < Duration::from_secs(10));
    let code = error(response.responses[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn topics_are_read_and_written_by_their_ids() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let by_name = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let topic_id = client.ask(13, by_name).await.topics[0].topic_id;
    let mut request = crate::stage::produce("", -1, batch(&["by id"]));
    request.topic_data[0].topic_id = topic_id;
    let response = client.ask(13, request).await;
    assert_eq!(response.responses[0].topic_id, topic_id);
    assert_eq!(
        error(response.responses[0].partition_responses[0].error_code),
        ErrorCode::None
    );
    for (id, expected) in [
        (topic_id, ErrorCode::None),
        (uuid::Uuid::from_u128(1), ErrorCode::UnknownTopicId),
    ] {
        let mut request = fetch("", 0, 0, 1000);
        request.topics[0].topic_id = id;
        let response = client.ask(17, request).await;
        assert_eq!(
            error(response.responses[0].partitions[0].error_code),
            expected
        );
    }
    let by_id = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: None,
        }]),
        ..MetadataRequest::default()
    };
    assert_eq!(
        client.ask(12, by_id).await.topics[0].name.as_deref(),
        Some("t")
    );
}

#[tokio::test]
async fn a_session_is_given_and_one_that_never_was_is_not_found() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut request = fetch("t", 0, 0, 100);
    (request.session_id, request.session_epoch) = (7, 1);
    let response = client.ask(12, request).await;
    assert_eq!(
        error(response.error_code),
        ErrorCode::FetchSessionIdNotFound
    );
    let mut request = fetch("t", 0, 0, 100);
    (request.session_id, request.session_epoch) = (0, 0);
    let response = client.ask(12, request).await;
    assert_eq!(error(response.error_code), ErrorCode::None);
    assert_ne!(response.session_id, 0);
}

async fn offset_at(client: &mut Client, timestamp: i64) -> (ErrorCode, i64, i64) {
    let request = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![ListOffsetsPartition {
                timestamp,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let response = client.ask(9, request).await;
    let found = &response.topics[0].partitions[0];
    (error(found.error_code), found.offset, found.timestamp)
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let now = now_ms();
    for at in [100, 300, 200] {
        client
            .produce(9, "t", -1, stamped(&["a", "b"], now - 1000 + at, None))
            .await;
    }
    let none = ErrorCode::None;
    let at = |ms: i64| now - 1000 + ms;
    assert_eq!(offset_at(&mut client, -1).await, (none, 6, -1));
    assert_eq!(offset_at(&mut client, -2).await, (none, 0, -1));
    assert_eq!(offset_at(&mut client, -3).await, (none, 2, at(300)));
    assert_eq!(offset_at(&mut client, at(50)).await, (none, 0, at(100)));
    assert_eq!(offset_at(&mut client, at(101)).await, (none, 2, at(300)));
    assert_eq!(offset_at(&mut client, at(301)).await, (none, -1, -1));
    assert_eq!(
        offset_at(&mut client, -9).await,
        (ErrorCode::UnsupportedVersion, -1, -1)
    );
}

#[tokio::test]
async fn records_can_be_deleted_from_the_front() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client.produce(9, "t", -1, batch(&["a", "b", "c"])).await;
    for (offset, expected) in [
        (2, (ErrorCode::None, 2)),
        (9, (ErrorCode::OffsetOutOfRange, -1)),
        (-1, (ErrorCode::None, 3)),
    ] {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: "t".into(),
                partitions: vec![DeleteRecordsPartition {
                    partition_index: 0,
                    offset,
                }],
            }],
            ..DeleteRecordsRequest::default()
        };
        let response = client.ask(2, request).await;
        let found = &response.topics[0].partitions[0];
        assert_eq!((error(found.error_code), found.low_watermark), expected);
    }
    assert_eq!(
        read(&mut client, fetch("t", 2, 0, 100)).await.0,
        ErrorCode::OffsetOutOfRange
    );
}

#[tokio::test]
async fn epochs_grow_with_each_start_and_remember_where_they_ended() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client.produce(9, "t", -1, batch(&["a", "b"])).await;
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    client.produce(9, "t", -1, batch(&["c"])).await;
    let none = ErrorCode::None;
    for (leader_epoch, known, expected) in [
        (0, 1, (none, 0, 2)),
        (1, 1, (none, 1, 3)),
        (5, 1, (none, -1, -1)),
        (0, 0, (ErrorCode::FencedLeaderEpoch, -1, -1)),
        (0, 2, (ErrorCode::UnknownLeaderEpoch, -1, -1)),
    ] {
        let request = OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic {
                topic: "t".into(),
                partitions: vec![OffsetForLeaderPartition {
                    partition: 0,
                    current_leader_epoch: known,
                    leader_epoch,
                }],
            }],
            ..OffsetForLeaderEpochRequest::default()
        };
        let response = client.ask(4, request).await;
        let found = &response.topics[0].partitions[0];
        assert_eq!(
            (
                error(found.error_code),
                found.leader_epoch,
                found.end_offset
            ),
            expected
        );
    }
}

/// Large batches go from the file to the socket; small ones, headers and other partitions come between them.
#[tokio::test]
async fn records_from_files_come_as_they_were_sent() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 3, &[]).await;
    let text = |number: usize| format!("{number}").repeat(20_000);
    let mut expected = Vec::new();
    for number in 0..30 {
        let value = match number % 10 {
            9 => "small".to_owned(),
            _ => text(number),
        };
        let mut request = produce("t", -1, batch(&[&value]));
        request.topic_data[0].partition_data[0].index = (number % 3) as i32;
        let response = client.ask(9, request).await;
        let told = &response.responses[0].partition_responses[0];
        assert_eq!(error(told.error_code), ErrorCode::None);
        expected.push((number % 3, value));
    }
    let mut next = [0; 3];
    let mut found = vec![Vec::new(); 3];
    // Incremental sessions and plain requests share the way.
    for bytes_max in [1 << 20, 200_000, 70_000].into_iter().cycle().take(60) {
        let mut request = fetch("t", 0, 0, bytes_max);
        let asked = request.topics[0].partitions[0].clone();
        request.topics[0].partitions = (0..3)
            .map(|index| FetchPartition {
                partition: index,
                fetch_offset: next[index as usize],
                ..asked.clone()
            })
            .collect();
        let response = client.ask(12, request).await;
        for partition in &response.responses[0].partitions {
            assert_eq!(error(partition.error_code), ErrorCode::None);
            let index = partition.partition_index as usize;
            for part in batches(partition.records.as_ref().expect("records")) {
                let part = part.expect("whole");
                part.verify().expect("sound");
                for record in &Records::read(&part, 1 << 20).expect("reads") {
                    let value = record.expect("whole").value.expect("a value");
                    found[index].push(String::from_utf8_lossy(value).into_owned());
                }
                next[index] = part.next_offset();
            }
        }
    }
    for (index, found) in found.iter().enumerate() {
        let sent = expected.iter().filter(|(partition, _)| *partition == index);
        let sent: Vec<&String> = sent.map(|(_, value)| value).collect();
        assert!(found.iter().eq(sent), "partition {index}");
    }
}
