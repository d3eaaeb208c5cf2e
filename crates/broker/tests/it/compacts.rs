//! Compacted topics, topics that compress, and topics that bound what they take, over the wire.

use std::time::Duration;

use bytes::Bytes;
use kafka::compress::Compression;
use kafka::error::ErrorCode;
use kafka::record::{Batch, BatchBuilder, NewRecord, Records, batches};

use crate::groups::{commit, committed};
use crate::stage::{Client, Stage, error, fetch, now_ms};

const LIMIT: Duration = Duration::from_secs(60);

fn keyed(codec: Compression, records: &[(Option<&str>, &str)]) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    for (key, value) in records {
        builder.push(NewRecord {
            timestamp: now_ms(),
            key: key.map(str::as_bytes),
            value: Some(value.as_bytes()),
            headers: &[],
        });
    }
    builder.build()
}

/// Reads a topic to its end, over all its segments.
async fn all(client: &mut Client, topic: &str) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    loop {
        let next = found.last().map_or(0, |(offset, _)| offset + 1);
        let more = told(&stored(client, topic, next).await);
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Returns the raw batches from an offset on.
async fn stored(client: &mut Client, topic: &str, offset: i64) -> Bytes {
    let response = client.ask(12, fetch(topic, offset, 0, 1 << 20)).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(error(partition.error_code), ErrorCode::None);
    partition.records.clone().expect("records")
}

fn told(bytes: &[u8]) -> Vec<(i64, String)> {
    let mut told = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.expect("whole");
        batch.verify().expect("a good checksum");
        for record in &Records::read(&batch, 1 << 20).expect("reads") {
            let record = record.expect("whole");
            let value = String::from_utf8_lossy(record.value.unwrap_or_default());
            told.push((record.offset, value.into_owned()));
        }
    }
    told
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_latest_of_each_key() {
    let stage = Stage::open_with(|options| {
        options.compacting.backoff = Duration::from_millis(20);
    })
    .await;
    let mut client = stage.client().await;
    let settings = [
        ("cleanup.policy", "compact"),
        ("internal.segment.bytes", "1000"),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    client.create("t", 1, &settings).await;
    for round in 0..40 {
        let value = format!("{round} {}", "x".repeat(50));
        for key in ["a", "b"] {
            let answer = client
                .produce(
                    9,
                    "t",
                    -1,
                    keyed(Compression::None, &[(Some(key), value.as_str())]),
                )
                .await;
            assert_eq!(error(answer.error_code), ErrorCode::None);
        }
    }
    let cleaned = async {
        loop {
            let records = all(&mut client, "t").await;
            let (last, _) = records.last().expect("there are records");
            if records.len() < 30 && *last == 79 {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let records = tokio::time::timeout(LIMIT, cleaned)
        .await
        .expect("compacted in time");
    assert!(records.is_sorted());
    let (offset, latest) = &records[records.len() - 2];
    assert!(latest.starts_with("39 ") && *offset == 78, "{records:?}");
    // All of it is there after a restart.
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    let again = all(&mut client, "t").await;
    assert_eq!(again.last(), records.last());
}

#[tokio::test]
async fn a_compacted_topic_names_the_records_that_have_no_key() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client
        .create("t", 1, &[("cleanup.policy", "compact,delete")])
        .await;
    let batch = keyed(
        Compression::Lz4,
        &[(Some("a"), "1"), (None, "2"), (None, "3")],
    );
    let answer = client.produce(9, "t", -1, batch.clone()).await;
    assert_eq!(error(answer.error_code), ErrorCode::InvalidRecord);
    let blamed: Vec<i32> = answer
        .record_errors
        .iter()
        .map(|one| one.batch_index)
        .collect();
    assert_eq!(blamed, [1, 2]);
    assert!(answer.error_message.is_some());
    // Older versions have no place for the details.
    let answer = client.produce(7, "t", -1, batch).await;
    assert_eq!(error(answer.error_code), ErrorCode::InvalidRecord);
    assert!(answer.record_errors.is_empty());
}

#[tokio::test]
async fn a_topic_compresses_what_comes_in_another_way() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let codecs = [
        ("gzip", Compression::Gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
        ("uncompressed", Compression::None),
    ];
    for (name, codec) in codecs {
        client
            .create(
                name,
                1,
                &[("compression.type", name), ("compression.zstd.level", "9")],
            )
            .await;
        let value = "text ".repeat(100);
        for from in Compression::ALL {
            let batch = keyed(from, &[(None, &value), (Some("k"), "second")]);
            let answer = client.produce(9, name, -1, batch).await;
            assert_eq!(error(answer.error_code), ErrorCode::None, "{name}");
        }
        let bytes = stored(&mut client, name, 0).await;
        let all: Vec<Batch<'_>> = batches(&bytes)
            .collect::<Result<_, _>>()
            .expect("whole batches");
        assert_eq!(all.len(), 5);
        for batch in &all {
            assert_eq!(batch.compression().expect("known"), codec);
        }
        let records = told(&bytes);
        assert_eq!(records.len(), 10);
        assert_eq!(records[9], (9, "second".to_owned()));
    }
    client.create("plain", 1, &[]).await;
    let batch = keyed(Compression::Snappy, &[(None, "as it came")]);
    client.produce(9, "plain", -1, batch.clone()).await;
    let bytes = stored(&mut client, "plain", 0).await;
    assert_eq!(bytes[17..], batch[17..], "all that the checksum covers");
}

#[tokio::test]
async fn more_replicas_than_there_are_cannot_be_waited_for() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[("min.insync.replicas", "2")]).await;
    let batch = keyed(Compression::None, &[(None, "x")]);
    let answer = client.produce(9, "t", -1, batch.clone()).await;
    assert_eq!(error(answer.error_code), ErrorCode::NotEnoughReplicas);
    let answer = client.produce(9, "t", 1, batch).await;
    assert_eq!(error(answer.error_code), ErrorCode::None);
}

#[tokio::test]
async fn committed_offsets_are_compacted_and_kept() {
    let stage = Stage::open_with(|options| {
        options.compacting.backoff = Duration::from_millis(20);
    })
    .await;
    // Small segments, so that few commits fill many.
    let stage = stage
        .closed(|data| {
            let path = data.join("topics.json");
            let text = std::fs::read_to_string(&path).expect("readable");
            let changed = text.replace(
                "\"segment.bytes\": \"8388608\"",
                "\"internal.segment.bytes\": \"2000\"",
            );
            assert_ne!(text, changed);
            std::fs::write(&path, changed).expect("written");
        })
        .await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    commit(&mut client, "", -1, 1, 7).await;
    for offset in 0..300 {
        let code = commit(&mut client, "", -1, 0, offset).await;
        assert_eq!(code, ErrorCode::None);
    }
    let size = |stage: &Stage| {
        let folder = stage.data_dir().join("__consumer_offsets-0");
        let entries = std::fs::read_dir(folder).expect("readable");
        let sizes = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        sizes.sum::<u64>()
    };
    let small = async {
        while size(&stage) > 15_000 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LIMIT, small)
        .await
        .expect("compacted in time");
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(committed(&mut client, 0).await.0, 299);
    assert_eq!(committed(&mut client, 1).await.0, 7);
}
