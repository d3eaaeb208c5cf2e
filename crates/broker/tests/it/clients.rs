//! Unmodified Kafka clients: at transactions confluent-kafka speaks the first version of the protocol, the Java client
//! the second; and a group whose members change from one protocol to the other, one by one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::lab;
use testkit::process::Process;

use crate::stage::Stage;

/// Longest time that a client takes for its whole script.
const LIMIT: Duration = Duration::from_secs(240);

/// What each script tells at its end.
const EXPECTED: &str = r#"{"aborted_seen_by_all": true, "committed": 200, "copied": true, "fenced": "fatal", "zombie": ["new"]}"#;

fn script(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients");
    folder.join(name)
}

async fn check(name: &'static str, command: Command) {
    run(name, command, EXPECTED).await;
    lab::say(&format!("transactions with {name}"));
}

/// Runs a client against a fresh broker and compares what it tells at its end.
async fn run(name: &'static str, mut command: Command, expected: &str) {
    let stage = Stage::open().await;
    command.arg(stage.address.to_string());
    let told = tokio::task::spawn_blocking(move || {
        let mut process = Process::start(name, command);
        let told = process.next_line(LIMIT);
        assert!(process.wait(LIMIT).success(), "{}", process.log());
        told
    });
    assert_eq!(told.await.expect("the client ran"), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confluent_kafka_copies_in_transactions() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let mut command = Command::new(python);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script("transactions.py"));
    check("confluent-kafka", command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_java_client_copies_in_transactions() {
    let classes = lab::java().and_then(|path| lab::javac(&script("Transactions.java"), &path));
    let Some(classes) = lab::or_skip(classes) else {
        return;
    };
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args(["-cp", &classes, "Transactions"]);
    check("kafka-clients (Java)", command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_of_confluent_kafka_rolls_from_one_protocol_to_the_other_and_back() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let mut command = Command::new(python);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script("rolling.py"));
    let expected = r#"{"kinds": ["classic", "consumer", "consumer", "consumer", "consumer", "consumer", "classic"], "assigned_twice": [], "read_once": true, "read_all": true}"#;
    run("rolling group", command, expected).await;
    lab::say("a group changed its protocol and back while it read");
}
