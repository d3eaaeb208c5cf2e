//! `kill -9` under transactions: each is there as a whole or not at all, and each record was copied once.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use broker::{Broker, Options};
use testkit::lab;
use testkit::process::Process;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::stage::Client;

/// Where the broker in a process of its own listens and keeps its data.
pub(crate) const ADDRESS: &str = "NUNCIO_TEST_KILLED_ADDRESS";
pub(crate) const DATA: &str = "NUNCIO_TEST_KILLED_DATA";
/// Longest wait for the client's next step.
const LIMIT: Duration = Duration::from_secs(120);
const KILLS: u64 = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by records_are_copied_once_whenever_the_broker_is_killed, in a process of its own"]
async fn the_broker_that_is_killed() {
    let (Ok(address), Ok(data)) = (std::env::var(ADDRESS), std::env::var(DATA)) else {
        return;
    };
    let broker = Broker::open(Options::new(data)).await.expect("opens");
    let listener = TcpListener::bind(address).await.expect("binds");
    broker.serve(listener, CancellationToken::new()).await;
}

/// Starts a broker in a process of its own, which ends with its test, and waits until it takes connections.
pub(crate) async fn start(address: SocketAddr, data: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command
        .args(["--ignored", "--exact", "kills::the_broker_that_is_killed"])
        .env(ADDRESS, address.to_string())
        .env(DATA, data);
    let broker = Process::start("broker", command);
    Client::await_at(address).await;
    broker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_copied_once_whenever_the_broker_is_killed() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let address = testkit::port::stable();
    let mut broker = start(address, folder.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/clients/killed.py");
    let mut command = Command::new(python);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script)
        .arg(address.to_string());
    let mut copier = Process::start("copier", command);
    let mut kills = 0;
    let told = loop {
        let line = copier.next_line(LIMIT);
        if !line.starts_with("copied ") {
            break line;
        }
        if kills < KILLS {
            kills += 1;
            // Another moment of a transaction each time.
            tokio::time::sleep(Duration::from_millis(kills * 7)).await;
            broker.kill();
            broker = start(address, folder.path()).await;
        }
    };
    broker.kill();
    assert_eq!(told, r#"{"copied_once": true}"#, "{}", copier.log());
    assert_eq!(kills, KILLS);
    lab::say(&format!(
        "{kills} kills under transactions of confluent-kafka"
    ));
}
