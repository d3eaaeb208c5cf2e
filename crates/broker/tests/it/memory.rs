//! What clients can make the broker hold: those who lie about sizes, stall or do not read take little from the others.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka::error::ErrorCode;
use kafka::frame;
use kafka::messages::fetch::FetchRequest;
use kafka::messages::metadata::MetadataRequest;
use kafka::messages::produce::ProduceRequest;
use observe::metrics::Metrics;
use testkit::lab;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::kills;
use crate::stage::{Client, Stage, batch, error, fetch, produce};

const MIB: usize = 1 << 20;
/// Longest wait for anything, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
/// What a connection may have beyond the bound: a first look at what it sends.
const PROBE: usize = 1024;

async fn bounded(bytes: usize) -> (Stage, Metrics) {
    let metrics = Metrics::default();
    let counted = metrics.clone();
    let stage = Stage::open_with(|options| {
        options.metrics = counted;
        options.limits.requests_bytes_max = bytes;
    });
    (stage.await, metrics)
}

pub(crate) fn told(metrics: &Metrics, name: &str) -> usize {
    let page = metrics.encode();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("{}"));
    let value = line.unwrap_or_else(|| panic!("{name} in\n{page}"));
    value.trim().parse().expect("a number")
}

/// Waits until something is told of the memory.
pub(crate) async fn until(metrics: &Metrics, name: &str, reached: impl Fn(usize) -> bool) {
    let waiting = async {
        while !reached(told(metrics, name)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(LIMIT, waiting).await;
    reached.unwrap_or_else(|_| panic!("{name} stays at {}", told(metrics, name)));
}

/// The beginning of a frame that announces `announced` bytes.
fn beginning(announced: i32, sent: usize) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(announced);
    frame.put_bytes(0, sent);
    frame.freeze()
}

/// Produces and reads back as an honest client does.
async fn is_served(client: &mut Client, topic: &str, size: usize) {
    let value = "x".repeat(size);
    let taken = client.produce(9, topic, -1, batch(&[&value])).await;
    assert_eq!(error(taken.error_code), ErrorCode::None);
    let values = client.values(topic, taken.base_offset).await;
    assert_eq!(values.len(), 1);
    assert_eq!(values[0].1.len(), size);
}

#[tokio::test]
async fn those_who_announce_much_and_stall_take_what_they_have_sent() {
    let (stage, metrics) = bounded(32 * MIB).await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    let mut stalling = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(stage.address).await.expect("connects");
        let sent = beginning(15 << 20, 10_000);
        stream.write_all(&sent).await.expect("sent");
        stalling.push(stream);
    }
    until(&metrics, "nuncio_broker_memory_bytes", |used| {
        used >= 2_000_000
    })
    .await;
    let used = told(&metrics, "nuncio_broker_memory_bytes");
    assert!(used <= 200 * (10_004 + PROBE), "{used}");
    is_served(&mut honest, "t", 100_000).await;
    // Now they send far more than there is room for, and stall again.
    let mut sending = JoinSet::new();
    for mut stream in stalling {
        sending.spawn(async move {
            _ = stream.write_all(&vec![0; MIB]).await; // it may be closed, for others wait
            stream
        });
    }
    until(&metrics, "nuncio_broker_memory_bytes", |used| {
        used >= 12 * MIB
    })
    .await;
    for _ in 0..20 {
        is_served(&mut honest, "t", 20_000).await;
    }
    let most = told(&metrics, "nuncio_broker_memory_bytes_most");
    assert!(most <= 32 * MIB + 201 * PROBE, "{most}");
    assert!(told(&metrics, "nuncio_broker_memory_waits_total") > 0);
    sending.shutdown().await;
    until(&metrics, "nuncio_broker_memory_bytes", |used| used == 0).await;
}

#[tokio::test]
async fn large_requests_of_many_clients_wait_for_each_other() {
    let (stage, metrics) = bounded(16 * MIB).await;
    let mut first = stage.client().await;
    first
        .create("t", 1, &[("max.message.bytes", "8000000")])
        .await;
    let value = "x".repeat(6 * MIB);
    let mut producing = JoinSet::new();
    for _ in 0..8 {
        let mut client = stage.client().await;
        let request = produce("t", -1, batch(&[&value]));
        producing.spawn(async move {
            let response = timeout(LIMIT, async {
                let id = client.send(9, request).await;
                loop {
                    if let Some(frame) = client.frame_within(LIMIT).await {
                        let (found, response) =
                            frame::decode_response::<ProduceRequest>(&frame, 9).expect("decodes");
                        assert_eq!(found, id);
                        return response;
                    }
                }
            });
            let response = response.await.expect("in time");
            error(response.responses[0].partition_responses[0].error_code)
        });
    }
    let codes = producing.join_all().await;
    assert_eq!(codes, [ErrorCode::None; 8]);
    let most = told(&metrics, "nuncio_broker_memory_bytes_most");
    assert!(most <= 16 * MIB + 9 * PROBE, "{most}");
    assert_eq!(told(&metrics, "nuncio_broker_memory_bytes"), 0);
    // Half of the memory is the most for one request.
    let mut greedy = stage.client().await;
    let whole = beginning(8 << 20 | 1, 0);
    greedy.stream.write_all(&whole).await.expect("sent");
    assert_eq!(greedy.frame().await, None);
}

/// Has clients ask for all of a topic again and again, and never read.
async fn never_read(stage: &Stage, topic: &str) -> Vec<Client> {
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut client = stage.client().await;
        for _ in 0..60 {
            let asked: FetchRequest = fetch(topic, 0, 0, 50 << 20);
            client.send(12, asked).await;
        }
        silent.push(client);
    }
    silent
}

#[tokio::test]
async fn those_who_never_read_leave_room_for_the_others() {
    let (stage, metrics) = bounded(32 * MIB).await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    // Batches of this size are not left in their file.
    let value = "x".repeat(3_000);
    for _ in 0..1_000 {
        let taken = honest.produce(9, "t", -1, batch(&[&value])).await;
        assert_eq!(error(taken.error_code), ErrorCode::None);
    }
    let silent = never_read(&stage, "t").await;
    until(&metrics, "nuncio_broker_memory_bytes", |used| {
        used >= 8 * MIB
    })
    .await;
    for _ in 0..10 {
        is_served(&mut honest, "t", 20_000).await;
    }
    let most = told(&metrics, "nuncio_broker_memory_bytes_most");
    assert!(most <= 32 * MIB + 41 * PROBE, "{most}");
    drop(silent);
    until(&metrics, "nuncio_broker_memory_bytes", |used| used == 0).await;
}

#[tokio::test]
async fn those_who_never_read_what_is_in_files_hold_no_memory_for_it() {
    let (stage, metrics) = bounded(32 * MIB).await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    honest.create("u", 1, &[]).await;
    let value = "x".repeat(900_000);
    for _ in 0..16 {
        let taken = honest.produce(9, "t", -1, batch(&[&value])).await;
        assert_eq!(error(taken.error_code), ErrorCode::None);
    }
    let silent = never_read(&stage, "t").await;
    let fetched = "nuncio_topic_fetched_bytes_total{topic=\"t\"}";
    let answered = async {
        while counted(&metrics, fetched) < 36 * value.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, answered).await.expect("they are answered");
    until(&metrics, "nuncio_broker_memory_bytes", |used| used < MIB).await;
    for _ in 0..10 {
        is_served(&mut honest, "u", 20_000).await;
    }
    drop(silent);
    until(&metrics, "nuncio_broker_memory_bytes", |used| used == 0).await;
}

/// Returns the value of a series, 0 where there is none yet.
fn counted(metrics: &Metrics, series: &str) -> usize {
    let page = metrics.encode();
    let value = page.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

/// Returns what a process has in memory.
pub(crate) fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("a size").parse::<usize>().expect("a number") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_are_nothing_to_an_honest_client() {
    const CONNECTIONS: usize = 9_990;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = files.maximum.unwrap_or(u64::MAX);
    if most < CONNECTIONS as u64 + 1_000 {
        lab::say(&format!(
            "skipped: a process may open only {most} files here"
        ));
        return;
    }
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: files.maximum,
            maximum: files.maximum,
        },
    )
    .expect("more files");
    let folder = tempfile::tempdir().expect("a folder");
    let address = testkit::port::stable();
    let broker = kills::start(address, folder.path()).await;
    let mut honest = Client::await_at(address).await;
    honest.create("t", 1, &[]).await;
    is_served(&mut honest, "t", 10_000).await;
    let before = resident(broker.id());
    let mut crowd = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        // Each says that it will send 100 MiB, and sends a little of it.
        let sent = beginning(100 << 20, 1_000);
        stream.write_all(&sent).await.expect("sent");
        crowd.push(stream);
    }
    for _ in 0..10 {
        is_served(&mut honest, "t", 10_000).await;
    }
    honest.ask(9, MetadataRequest::default()).await;
    let grown = resident(broker.id()).saturating_sub(before);
    lab::say(&format!(
        "{CONNECTIONS} connections took {} MiB, {} KiB each",
        grown / MIB,
        grown / CONNECTIONS / 1024
    ));
    assert!(grown < CONNECTIONS * 64 * 1024, "{grown} bytes");
}
