//! Transactions outlive the broker in every state.

use std::time::Duration;

use journal::producer::Origin;
use journal::{Config, Log};
use kafka::messages::Message;
use kafka::messages::transaction_state::{
    PartitionsSchema, TransactionLogKey, TransactionLogValue,
};

use super::*;

/// Longest wait for a transaction's end.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_open_transaction_goes_on_after_a_stop() {
    let mut stage = Stage::open().await;
    stage.client().await.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    let mut expected = Vec::new();
    for number in 0..4 {
        let (before, after) = (format!("{number}a"), format!("{number}b"));
        writer.write("t", &[&before]).await;
        stage = match number % 2 {
            0 => stage.abandon().await,
            _ => stage.restart().await,
        };
        writer.client = stage.client().await;
        assert_eq!(writer.produce(9, "t", &[&after]).await.0, NONE);
        assert_eq!(writer.end(3, number != 1).await, NONE);
        if number != 1 {
            expected.extend([before, after]);
        }
        let mut reader = stage.client().await;
        assert_eq!(
            await_visible(&mut reader, "t", 3 * (number + 1)).await,
            expected
        );
    }
}

/// Writes the state of a transaction as it is when a kill comes between the decision and its markers.
fn prepare(stage: &Stage, writer: &Writer, status: i8, version: i16) {
    let key = TransactionLogKey {
        transactional_id: writer.id.into(),
    };
    let value = TransactionLogValue {
        producer_id: writer.producer_id,
        producer_epoch: writer.epoch + version / 2,
        transaction_timeout_ms: 60_000,
        transaction_status: status,
        transaction_partitions: Some(vec![PartitionsSchema {
            topic: "t".into(),
            partition_ids: vec![0, 7], // one of them is gone meanwhile
        }]),
        transaction_last_update_timestamp_ms: now_ms(),
        transaction_start_timestamp_ms: now_ms(),
        client_transaction_version: version,
        ..TransactionLogValue::default()
    };
    let mut builder = BatchBuilder::default();
    builder.push(NewRecord {
        timestamp: now_ms(),
        key: Some(&key.to_versioned(0).expect("short")),
        value: Some(&value.to_versioned(1).expect("short")),
        headers: &[],
    });
    let dir = stage.data_dir().join("__transaction_state-0");
    let (mut log, _) = Log::open(&dir, None, Config::default(), now_ms()).expect("opens");
    log.append(&builder.build(), now_ms(), Origin::Coordinator)
        .expect("appended");
    log.close().expect("closed");
}

#[tokio::test]
async fn what_was_decided_is_carried_out_by_the_next_start() {
    for (status, version, expected) in [
        (2, 0, &["a", "b"][..]),
        (3, 0, &["b"]),
        (2, 2, &["a", "b"]),
        (3, 2, &["b"]),
    ] {
        let stage = Stage::open().await;
        stage.client().await.create("t", 1, &[]).await;
        let mut writer = Writer::start(&stage, "w").await;
        writer.write("t", &["a"]).await;
        stage.broker.close().await;
        prepare(&stage, &writer, status, version);
        let stage = stage.abandon().await;
        let mut reader = stage.client().await;
        let seen = await_visible(&mut reader, "t", 2).await;
        assert_eq!(seen, expected[..expected.len() - 1], "{status} {version}");
        // The producer goes on where it was.
        writer.client = stage.client().await;
        if version == 2 {
            (writer.epoch, writer.sequence) = (writer.epoch + 1, 0);
        }
        writer.write("t", &["b"]).await;
        assert_eq!(writer.end(3, true).await, NONE);
        assert_eq!(
            await_visible(&mut reader, "t", 4).await,
            expected,
            "{status} {version}"
        );
    }
}

#[tokio::test]
async fn an_end_that_the_disk_refuses_is_stored_later() {
    let stage = Stage::open().await;
    stage.client().await.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    writer.write("t", &["a"]).await;
    stage.broker.close().await;
    prepare(&stage, &writer, 2, 0);
    let stage = stage.abandon().await;
    // The first batch of a new leader epoch needs this file. The runtime has one thread: the broker, which
    // has just been opened, does nothing before the next `await`.
    let dir = stage.data_dir().join("__transaction_state-0");
    let obstacle = dir.join("leader-epoch-checkpoint.tmp");
    std::fs::create_dir(&obstacle).expect("made");
    let mut client = stage.client().await;
    assert_eq!(await_visible(&mut client, "t", 2).await, ["a"]);
    // Each of these waits for the end, so that it was tried by then.
    for _ in 0..3 {
        let answer = client.ask(4, starting("w")).await;
        assert_eq!(error(answer.error_code), ErrorCode::ConcurrentTransactions);
    }
    std::fs::remove_dir(&obstacle).expect("removed");
    let started = tokio::time::timeout(LIMIT, Writer::start(&stage, "w"));
    let mut writer = started.await.expect("in time");
    writer.write("t", &["b"]).await;
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(await_visible(&mut client, "t", 4).await, ["a", "b"]);
}
