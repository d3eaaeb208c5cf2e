//! Quotas of clients: who goes too fast waits, as told; what was set outlives the process.

use std::io::ErrorKind;
use std::process::Command;
use std::time::{Duration, Instant};

use kafka::error::ErrorCode;
use kafka::messages::alter_client_quotas::{
    AlterClientQuotasRequest, EntityData, EntryData, OpData,
};
use kafka::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use kafka::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use kafka::messages::describe_client_quotas::DescribeClientQuotasRequest;
use kafka::messages::metadata::MetadataRequest;
use testkit::lab;
use testkit::process::Process;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stage::{Client, Stage, batch, error, fetch, produce};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

async fn limit(client: &mut Client, names: &[(&str, Option<&str>)], key: &str, value: Option<f64>) {
    let entity = names.iter().map(|(kind, name)| EntityData {
        entity_type: (*kind).to_owned(),
        entity_name: name.map(str::to_owned),
    });
    let request = AlterClientQuotasRequest {
        entries: vec![EntryData {
            entity: entity.collect(),
            ops: vec![OpData {
                key: key.to_owned(),
                value: value.unwrap_or_default(),
                remove: value.is_none(),
            }],
        }],
        validate_only: false,
    };
    let answer = client.ask(1, request).await;
    assert_eq!(error(answer.entries[0].error_code), ErrorCode::None);
}

#[tokio::test]
async fn who_produces_too_fast_is_not_listened_to_for_a_while() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    limit(
        &mut client,
        &[("client-id", Some("test"))],
        "producer_byte_rate",
        Some(1000.0),
    )
    .await;
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let large = batch(&[&"x".repeat(10_500)]);
    let answer = client.ask(9, produce("t", 1, large)).await;
    // Ten seconds' worth is free.
    let wait = answer.throttle_time_ms;
    assert!((400..1500).contains(&wait), "{wait}");
    let begun = Instant::now();
    client.ask(1, MetadataRequest::default()).await;
    let waited = begun.elapsed();
    assert!(
        waited >= Duration::from_millis(u64::from(wait.unsigned_abs())) - Duration::from_millis(50),
        "{waited:?}"
    );
    // Others are not concerned, and it ends with the quota.
    let describe = DescribeClientQuotasRequest::default();
    let told = client.ask(1, describe).await.entries.expect("a list");
    assert_eq!((told.len(), told[0].values[0].value), (1, 1000.0));
    limit(
        &mut client,
        &[("client-id", Some("test"))],
        "producer_byte_rate",
        None,
    )
    .await;
    let answer = client
        .ask(9, produce("t", 1, batch(&[&"x".repeat(50_000)])))
        .await;
    assert_eq!(answer.throttle_time_ms, 0);
}

#[tokio::test]
async fn who_fetches_too_fast_is_told_to_wait() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client
        .produce(9, "t", 1, batch(&[&"x".repeat(11_000)]))
        .await;
    limit(
        &mut client,
        &[("user", None)],
        "consumer_byte_rate",
        Some(1000.0),
    )
    .await;
    let answer = client.ask(12, fetch("t", 0, 0, 1 << 20)).await;
    assert!(
        (900..3000).contains(&answer.throttle_time_ms),
        "{}",
        answer.throttle_time_ms
    );
    let records = answer.responses[0].partitions[0].records.as_ref();
    assert!(records.is_some_and(|records| records.len() > 10_000));
}

#[tokio::test]
async fn who_changes_topics_too_fast_is_refused() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    limit(
        &mut client,
        &[("client-id", None)],
        "controller_mutation_rate",
        Some(1.0),
    )
    .await;
    let make = |names: &[&str], count: i32| CreateTopicsRequest {
        topics: names
            .iter()
            .map(|name| CreatableTopic {
                name: (*name).to_owned(),
                num_partitions: count,
                replication_factor: -1,
                ..CreatableTopic::default()
            })
            .collect(),
        ..CreateTopicsRequest::default()
    };
    let answer = client.ask(6, make(&["a", "b"], 12)).await;
    let codes: Vec<ErrorCode> = answer
        .topics
        .iter()
        .map(|one| error(one.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::ThrottlingQuotaExceeded]);
    assert!(answer.throttle_time_ms > 0);
    let mut other = stage.client().await;
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("a".into()),
            ..DeleteTopicState::default()
        }],
        ..DeleteTopicsRequest::default()
    };
    let told = timeout(LIMIT, other.ask(6, delete)).await.expect("in time");
    assert_eq!(
        error(told.responses[0].error_code),
        ErrorCode::ThrottlingQuotaExceeded
    );
    // An older client does not know the error, and waits afterwards.
    let mut old = stage.client().await;
    let answer = old.ask(5, make(&["c"], 1)).await;
    assert_eq!(error(answer.topics[0].error_code), ErrorCode::None);
    assert!(answer.throttle_time_ms > 0);
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_turned_away() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    limit(
        &mut client,
        &[("ip", Some("127.0.0.1"))],
        "connection_creation_rate",
        Some(1.0),
    )
    .await;
    let mut streams = Vec::new();
    for _ in 0..14 {
        streams.push(TcpStream::connect(stage.address).await.expect("connects"));
    }
    // Ten seconds' worth is free; the last is closed, and not at once.
    let mut byte = [0];
    let last = streams.last_mut().expect("some");
    let read = timeout(LIMIT, last.read(&mut byte)).await.expect("in time");
    assert_eq!(read.unwrap_or(0), 0);
    let first = streams[0].try_read(&mut byte);
    assert!(first.is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    limit(
        &mut client,
        &[("ip", Some("127.0.0.1"))],
        "connection_creation_rate",
        None,
    )
    .await;
    let mut fresh = stage.client().await;
    fresh.ask(1, MetadataRequest::default()).await;
}

/// Produces as fast as it may, and tells how long it took and how often it was told to wait.
const PRODUCER: &str = r#"
import json, sys, time
from confluent_kafka import Producer
told = []
producer = Producer({
    "bootstrap.servers": sys.argv[1], "client.id": "fast", "linger.ms": 5, "compression.type": "none",
    "batch.size": 20000, "throttle_cb": lambda event: told.append(event.throttle_time),
})
begun = time.monotonic()
for _ in range(180):
    producer.produce("t", b"x" * 10000)
    producer.poll(0)
assert producer.flush(120) == 0
print(json.dumps({"seconds": time.monotonic() - begun, "throttled": len(told)}), flush=True)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_of_confluent_kafka_keeps_to_its_rate() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    limit(
        &mut client,
        &[("client-id", Some("fast"))],
        "producer_byte_rate",
        Some(100_000.0),
    )
    .await;
    let address = stage.address.to_string();
    let told = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(python);
        command.args(["-c", PRODUCER, &address]);
        let mut process = Process::start("producer", command);
        let told = process.next_line(LIMIT);
        assert!(process.wait(LIMIT).success(), "{}", process.log());
        told
    });
    let told = told.await.expect("the client ran");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    // 1.8 MB at 100 kB/s, of which ten seconds' worth is free: at least some seven seconds.
    let seconds = told["seconds"].as_f64().expect("a number");
    assert!(seconds >= 5.0, "{told}");
    assert!(told["throttled"].as_u64().expect("a number") > 0, "{told}");
    lab::say(&format!(
        "1.8 MB of confluent-kafka under a quota of 100 kB/s took {seconds:.1} s"
    ));
}
