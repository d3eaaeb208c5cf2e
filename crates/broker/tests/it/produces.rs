//! What may be written, and what is told when it may not.

use std::collections::BTreeMap;

use broker::produce::{ProduceError, Record};
use bytes::Bytes;
use kafka::compress::Compression;
use kafka::error::ErrorCode;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::produce::ProduceRequest;
use kafka::record::{BatchBuilder, NewRecord};

use crate::stage::{Stage, batch, error, now_ms, numbered, produce, stamped};

#[track_caller]
fn told(answer: &kafka::messages::produce::PartitionProduceResponse) -> (ErrorCode, i64) {
    (error(answer.error_code), answer.base_offset)
}

#[tokio::test]
async fn batches_get_the_next_offsets() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    for (acks, expected) in [(-1, 0), (1, 2), (-1, 4)] {
        let answer = client.produce(9, "t", acks, batch(&["a", "b"])).await;
        assert_eq!(told(&answer), (ErrorCode::None, expected));
        assert_eq!(answer.log_append_time_ms, -1);
    }
    let offsets: Vec<i64> = client
        .values("t", 3)
        .await
        .iter()
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(offsets, [3, 4, 5]);
}

#[tokio::test]
async fn what_is_wrong_is_told_per_partition() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[("max.message.bytes", "200")]).await;
    let good = batch(&["a"]);
    let damaged = |at: usize| {
        let mut bytes = good.to_vec();
        bytes[at] ^= 0xff;
        Bytes::from(bytes)
    };
    let twice = Bytes::from([&good[..], &good[..]].concat());
    let cut = good.slice(..good.len() - 1);
    let large = batch(&["x".repeat(300).as_str()]);
    let late = stamped(&["a"], now_ms() + 7_200_000, None);
    for (acks, topic, records, expected) in [
        (
            -1,
            "nowhere",
            good.clone(),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            -1,
            "__consumer_offsets",
            good.clone(),
            ErrorCode::InvalidTopicException,
        ),
        (2, "t", good.clone(), ErrorCode::InvalidRequiredAcks),
        (-1, "t", Bytes::new(), ErrorCode::InvalidRecord),
        (-1, "t", damaged(65), ErrorCode::CorruptMessage),
        (-1, "t", damaged(16), ErrorCode::CorruptMessage),
        (-1, "t", cut, ErrorCode::InvalidRecord),
        (-1, "t", twice, ErrorCode::InvalidRecord),
        (-1, "t", large, ErrorCode::MessageTooLarge),
        (-1, "t", late, ErrorCode::InvalidTimestamp),
    ] {
        let answer = client.produce(9, topic, acks, records).await;
        assert_eq!(told(&answer), (expected, -1), "{topic} {acks}");
    }
    let answer = client.produce(9, "t", -1, good).await;
    assert_eq!(
        told(&answer),
        (ErrorCode::None, 0),
        "nothing of all that was written"
    );
}

#[tokio::test]
async fn zstd_needs_version_7() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut builder = BatchBuilder::new(Compression::Zstd);
    builder.push(NewRecord {
        timestamp: now_ms(),
        value: Some(b"v"),
        ..NewRecord::default()
    });
    let records = builder.build();
    let answer = client.produce(6, "t", -1, records.clone()).await;
    assert_eq!(told(&answer), (ErrorCode::UnsupportedCompressionType, -1));
    let answer = client.produce(7, "t", -1, records).await;
    assert_eq!(told(&answer), (ErrorCode::None, 0));
}

#[tokio::test]
async fn the_brokers_clock_stamps_where_the_topic_says_so() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client
        .create("t", 1, &[("message.timestamp.type", "LogAppendTime")])
        .await;
    let before = now_ms();
    let answer = client.produce(9, "t", -1, stamped(&["a"], 5, None)).await;
    assert!(answer.log_append_time_ms >= before);
    assert_eq!(
        client.values("t", 0).await.len(),
        1,
        "the checksum was made anew"
    );
}

#[tokio::test]
async fn an_idempotent_producer_writes_once_and_in_order() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let init = || InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 1000,
        ..InitProducerIdRequest::default()
    };
    let id = client.ask(4, init()).await.producer_id;
    for (sequence, expected) in [
        (0, (ErrorCode::None, 0)),
        (2, (ErrorCode::None, 2)),
        (0, (ErrorCode::None, 0)), // again: the first answer
        (6, (ErrorCode::OutOfOrderSequenceNumber, -1)),
    ] {
        let answer = client
            .produce(9, "t", -1, numbered(&["a", "b"], id, 0, sequence))
            .await;
        assert_eq!(told(&answer), expected, "{sequence}");
    }
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let answer = client
        .produce(9, "t", -1, numbered(&["a", "b"], id, 0, 2))
        .await;
    assert_eq!(
        told(&answer),
        (ErrorCode::None, 2),
        "known after a restart too"
    );
    let answer = client.produce(9, "t", -1, numbered(&["c"], id, 0, 4)).await;
    assert_eq!(told(&answer), (ErrorCode::None, 4));
    assert!(
        client.ask(4, init()).await.producer_id > id,
        "ids are never given twice"
    );
}

#[tokio::test]
async fn requests_in_flight_are_answered_in_their_order() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut sent = Vec::new();
    for number in 0..50i16 {
        let acks = if number % 2 == 0 { -1 } else { 1 };
        sent.push(
            client
                .send(9, produce("t", acks, batch(&[&number.to_string()])))
                .await,
        );
    }
    for (offset, id) in (0..).zip(sent) {
        let answer = client.answer::<ProduceRequest>(9, id).await;
        assert_eq!(
            answer.responses[0].partition_responses[0].base_offset,
            offset
        );
    }
    for (offset, value) in client.values("t", 0).await {
        assert_eq!(offset.to_string(), value);
    }
}

#[tokio::test]
async fn the_house_produces_by_key() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client
        .create("t", 4, &[("max.message.bytes", "1000")])
        .await;
    let record = |key: Option<&str>, value: &str| Record {
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("trace".into(), Some(b"1".to_vec()))],
        timestamp: None,
    };
    // What Kafka's Java client chooses for these keys among 4 partitions.
    for (key, partition) in [("21", 0), ("foobar", 2), ("abc", 3)] {
        let placed = stage
            .broker
            .produce("t", None, record(Some(key), "v"))
            .await;
        let placed = placed.expect("placed");
        assert_eq!(
            (&*placed.topic, placed.partition, placed.offset),
            ("t", partition, 0),
            "{key}"
        );
    }
    let mut turns = BTreeMap::new();
    for _ in 0..8 {
        let placed = stage
            .broker
            .produce("t", None, record(None, "v"))
            .await
            .expect("placed");
        *turns.entry(placed.partition).or_insert(0) += 1;
    }
    assert_eq!(turns, BTreeMap::from([(0, 2), (1, 2), (2, 2), (3, 2)]));
    for (topic, partition, value, expected) in [
        ("nope", None, "v".to_owned(), "topic `nope` does not exist"),
        ("t", Some(4), "v".to_owned(), "topic `t` has no partition 4"),
        (
            "__consumer_offsets",
            None,
            "v".to_owned(),
            "topic `__consumer_offsets` is the broker's own",
        ),
    ] {
        let refused = stage
            .broker
            .produce(topic, partition, record(None, &value))
            .await;
        assert_eq!(refused.expect_err("refused").to_string(), expected);
    }
    let refused = stage
        .broker
        .produce("t", Some(0), record(None, &"x".repeat(2000)))
        .await;
    assert!(
        matches!(refused, Err(ProduceError::TooLarge { max: 1000, .. })),
        "{refused:?}"
    );
}
