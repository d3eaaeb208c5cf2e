//! Kafka's own tools read our files, and we take over theirs.

use std::path::{Path, PathBuf};
use std::process::Command;

use journal::clean::Limits;
use journal::producer::Origin;
use journal::{Compaction, Config, Log};
use kafka::compress::Compression;
use kafka::error::ErrorCode;
use kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka::record::{BatchBuilder, Marker, NewRecord, Producer, batches};
use testkit::apache::{self, Apache};
use testkit::lab;

use crate::stage::{Client, Stage, batch, error, fetch, now_ms};

/// A batch of a producer, whose keys come again and again.
fn of_producer(id: i64, base_sequence: i32, codec: Compression, transactional: bool) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec).producer(Producer {
        id,
        epoch: 0,
        base_sequence,
    });
    if transactional {
        builder = builder.transactional();
    }
    for number in 0..3 {
        let key = format!("key {}", (base_sequence + number) % 10);
        let value = format!("value {base_sequence} {number} {}", "x".repeat(40));
        builder.push(NewRecord {
            timestamp: now_ms() + i64::from(base_sequence),
            key: Some(key.as_bytes()),
            value: (number != 1).then_some(value.as_bytes()),
            headers: &[("header", Some(b"1"))],
        });
    }
    builder.build().to_vec()
}

/// Writes a log with several segments, producers and transactions, and returns its folder.
fn write(folder: &Path) -> PathBuf {
    let dir = folder.join("t-0");
    write_to(&dir, [7; 16]);
    dir
}

fn write_to(dir: &Path, topic_id: [u8; 16]) {
    let config = Config {
        segment_bytes: 4000,
        index_interval_bytes: 300,
        compaction: Some(Compaction::default()),
        ..Config::default()
    };
    let (mut log, _) = Log::open(dir, Some(topic_id), config, now_ms()).expect("opens");
    log.lead(3);
    let mut append = |bytes: &[u8], origin| {
        log.append(bytes, now_ms(), origin).expect("appended");
    };
    for round in 0..60 {
        let codec = Compression::ALL[round as usize % 5];
        append(&of_producer(1, round * 3, codec, false), Origin::Client);
        append(&of_producer(2, round * 3, codec, true), Origin::Client);
        let marker = match round % 3 {
            0 => Marker::Abort,
            _ => Marker::Commit,
        };
        append(&marker.batch(2, 0, 1, now_ms()), Origin::Coordinator);
    }
    log.flush().expect("flushed");
    log.lead(4);
    log.append(&batch(&["no key"]), now_ms(), Origin::Client)
        .expect("appended");
    log.close().expect("closed");
}

fn compact(dir: &Path) {
    let config = Config {
        segment_bytes: 4000,
        index_interval_bytes: 300,
        compaction: Some(Compaction::default()),
        ..Config::default()
    };
    for _ in 0..2 {
        let (mut log, _) = Log::open(dir, None, config, now_ms()).expect("opens");
        log.roll(now_ms()).expect("rolled");
        log.flush().expect("flushed");
        let cleaning = log.cleaning(i64::MAX).expect("to be compacted");
        let dirt = cleaning.dirt(now_ms()).expect("readable");
        let done = cleaning.run(&dirt, now_ms(), &Limits::default(), &mut |_| true);
        assert!(done.expect("compacted").removed > 0 || dirt.dirty_bytes < 4000);
        log.append(
            &of_producer(1, 180, Compression::None, false),
            now_ms(),
            Origin::Coordinator,
        )
        .expect("appended");
        log.close().expect("closed");
    }
}

/// Runs Kafka's tool over files and returns what it says.
#[track_caller]
fn dump(class_path: &str, folder: &Path, arguments: &[&str], files: &[PathBuf]) -> String {
    let files: Vec<String> = files
        .iter()
        .map(|file| file.display().to_string())
        .collect();
    let mut command: Command = apache::java(class_path, 128, folder);
    command.arg("org.apache.kafka.tools.DumpLogSegments");
    command.args(arguments).args(["--files", &files.join(",")]);
    let done = command.output().expect("starts");
    let told = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{told}\n{errors}");
    for trouble in [
        "isvalid: false",
        "Found",
        "ismatch",
        "Exception",
        "corrupt",
        "Corrupt",
        "out of order",
    ] {
        let line = told.lines().find(|line| line.contains(trouble));
        assert_eq!(line, None, "{arguments:?}\n{errors}");
    }
    told
}

fn named(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).expect("readable");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{extension}");
    paths
}

#[track_caller]
fn check(class_path: &str, folder: &Path, dir: &Path, aborted: bool) {
    let mut logs = named(dir, "log");
    logs.retain(|log| std::fs::metadata(log).is_ok_and(|log| log.len() > 0));
    let told = dump(
        class_path,
        folder,
        &["--deep-iteration", "--print-data-log"],
        &logs,
    );
    assert!(
        told.contains("key: key 1") && told.contains("partitionLeaderEpoch: 3"),
        "{told}"
    );
    assert!(told.contains("endTxnMarker: ABORT"), "{told}");
    let indexes = [named(dir, "index"), named(dir, "timeindex")].concat();
    dump(class_path, folder, &["--verify-index-only"], &indexes);
    dump(class_path, folder, &["--index-sanity-check"], &indexes);
    let told = dump(class_path, folder, &[], &named(dir, "snapshot"));
    assert!(told.contains("producerId: 1 producerEpoch: 0"), "{told}");
    let told = dump(class_path, folder, &[], &named(dir, "txnindex"));
    // Nothing is left of aborted transactions after two passes of compaction.
    let listed = told.contains("producerId: 2 firstOffset: ");
    assert_eq!(listed, aborted, "{told}");
}

#[test]
fn kafkas_own_tool_reads_our_files() {
    let Some(class_path) = lab::or_skip(lab::apache()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("log4j2.yaml"), QUIET).expect("written");
    let dir = write(folder.path());
    check(&class_path, folder.path(), &dir, true);
    compact(&dir);
    check(&class_path, folder.path(), &dir, false);
}

#[tokio::test]
async fn apache_kafka_goes_on_with_our_files() {
    let Some(mut apache) = lab::or_skip(Apache::start(384)) else {
        return;
    };
    let mut client = Client::connect(apache.address()).await;
    client.create("t", 1, &[]).await;
    produce_until_taken(&mut client, batch(&["theirs"])).await;
    apache.stop();
    let dir = apache.data().join("t-0");
    let id = journal::topic_id(&dir).expect("readable").expect("an id");
    std::fs::remove_dir_all(&dir).expect("removed");
    write_to(&dir, id);

    apache.restart();
    let mut client = Client::connect(apache.address()).await;
    // What a producer sends again is known from our snapshot.
    let again = of_producer(1, 177, Compression::Zstd, false).into();
    let answer = produce_until_taken(&mut client, again).await;
    assert_eq!(answer, 413);
    let mut next = 0;
    let mut seen = Vec::new();
    while next < 421 {
        let response = client.ask(12, fetch("t", next, 1000, 1 << 20)).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(error(partition.error_code), ErrorCode::None);
        for batch in batches(partition.records.as_ref().expect("records")) {
            let batch = batch.expect("whole");
            batch.verify().expect("a good checksum");
            assert_eq!(batch.base_offset(), next);
            next = batch.next_offset();
            seen.push(batch.leader_epoch());
        }
    }
    assert_eq!(next, 421);
    assert_eq!((seen[0], seen.last()), (3, Some(&4)));
    let next = produce_until_taken(&mut client, batch(&["after"])).await;
    assert_eq!(next, 421);
}

/// Produces as soon as the broker takes it, and returns the offset.
async fn produce_until_taken(client: &mut Client, records: bytes::Bytes) -> i64 {
    let taken = async {
        loop {
            let answer = client.produce(9, "t", -1, records.clone()).await;
            if error(answer.error_code) == ErrorCode::None {
                return answer.base_offset;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, taken).await.expect("in time")
}

const QUIET: &str = "Configuration:\n  status: error\n";

#[tokio::test]
async fn topics_of_a_stopped_apache_kafka_are_taken_over() {
    let Some(mut apache) = lab::or_skip(Apache::start(384)) else {
        return;
    };
    let mut client = Client::connect(apache.address()).await;
    client
        .create("t", 2, &[("cleanup.policy", "compact")])
        .await;
    client.create("left", 1, &[]).await;
    // A topic's partitions take records a moment after it was made.
    produce_until_taken(&mut client, numbered_keys(0)).await;
    for number in 1..20 {
        let answer = client.produce(9, "t", -1, numbered_keys(number)).await;
        assert_eq!(error(answer.error_code), ErrorCode::None);
    }
    let answer = client.produce(9, "t", -1, numbered_keys(17)).await;
    assert_eq!(answer.base_offset, 34, "a duplicate");
    apache.stop();

    let stage = Stage::open().await;
    let stage = stage
        .closed(|data| {
            let adopt = data.join("adopt");
            std::fs::create_dir_all(&adopt).expect("made");
            for partition in ["t-0", "t-1"] {
                let copied = Command::new("cp")
                    .arg("-r")
                    .arg(apache.data().join(partition))
                    .arg(&adopt)
                    .status();
                assert!(copied.expect("copies").success());
            }
        })
        .await;
    let mut client = stage.client().await;
    let values = client.values("t", 0).await;
    assert_eq!(values.len(), 40);
    assert_eq!(values[39], (39, "second 19".to_owned()));
    // The producer goes on where it was, and what it sends again is known.
    let again = client.produce(9, "t", -1, numbered_keys(19)).await;
    assert_eq!(
        (error(again.error_code), again.base_offset),
        (ErrorCode::None, 38)
    );
    let next = client.produce(9, "t", -1, numbered_keys(20)).await;
    assert_eq!(
        (error(next.error_code), next.base_offset),
        (ErrorCode::None, 40)
    );
    let mut request = IncrementalAlterConfigsRequest::default();
    request.resources.push(AlterConfigsResource {
        resource_type: 2,
        resource_name: "t".into(),
        configs: vec![AlterableConfig {
            name: "cleanup.policy".into(),
            config_operation: 0,
            value: Some("compact".into()),
        }],
    });
    let response = client.ask(1, request).await;
    assert_eq!(error(response.responses[0].error_code), ErrorCode::None);
    let topics = stage.broker.topics();
    let topic = topics
        .iter()
        .find(|topic| topic.name == "t")
        .expect("there");
    assert_eq!(topic.partitions.len(), 2);
    assert!(stage.data_dir().join("t-1/partition.metadata").exists());
    // And so it is after another start.
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    assert_eq!(client.values("t", 38).await.len(), 4);
}

/// The batch of two records that one producer sends as its `number`th.
fn numbered_keys(number: i32) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::Lz4).producer(Producer {
        id: 77,
        epoch: 0,
        base_sequence: 2 * number,
    });
    for name in ["first", "second"] {
        builder.push(NewRecord {
            timestamp: now_ms(),
            key: Some(name.as_bytes()),
            value: Some(format!("{name} {number}").as_bytes()),
            headers: &[],
        });
    }
    builder.build()
}
