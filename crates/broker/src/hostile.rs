//! What strangers and damaged disks can hand us, as targets: fuzzers run them with coverage (`fuzz/`), the tests without.
//!
//! Each takes any bytes. None may panic, take longer than a moment, or ask for more memory than the limits say.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka::frame;
use kafka::messages::ApiKey;
use kafka::record::{Batch, BatchBuilder, HEADER_LEN, MAGIC, NewRecord, Producer, Records};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::auth::exchange::{Exchange, Step};
use crate::auth::users::Users;
use crate::auth::{Mechanism, Principal, Secret, User};
use crate::dispatch::Client;
use crate::group::coordinator::Coordinator;
use crate::group::settings::GroupSettings;
use crate::group::store;
use crate::group::terms::Rules;
use crate::listener::{Listener, Protocol, Serving};
use crate::metrics::Door;
use crate::share::sessions::Connection;
use crate::topic::registry::NewTopic;
use crate::{Address, Broker, Limits, Options, connection, share, txn};

#[cfg(test)]
mod tests;

/// How long a conversation may go on: requests may wait for what never comes.
const TALK_MAX: Duration = Duration::from_millis(40);
/// Conversations after which a broker is closed and opened again, with all that they have left on disk.
const TALKS_PER_OPENING: usize = 500;
/// Openings after which it begins with an empty folder.
const OPENINGS_PER_FOLDER: usize = 8;
/// Bytes that may be on their way to the broker, or from it.
const PIPE_BYTES: usize = 64 * 1024;
/// In place of a number of an API: the bytes that follow are sent as they are.
const RAW: u8 = 255;
/// In place of a number of an API: the bytes that follow are a batch, of which length and checksum are made right.
const BATCH: u8 = 254;

/// A client's whole conversation with a broker, without a socket.
///
/// The bytes are requests, each as `[api] [version] [length, two bytes] [body]`, with [`RAW`] and [`BATCH`] beside the APIs.
pub fn frames(input: &[u8]) {
    static VICTIM: Mutex<Option<Victim>> = Mutex::new(None);
    let mut slot = VICTIM.lock();
    let mut victim = slot.take().unwrap_or_else(Victim::new);
    victim.hear(&conversation(input));
    *slot = Some(victim.older());
}

fn conversation(input: &[u8]) -> BytesMut {
    let mut sent = BytesMut::new();
    let mut rest = input;
    while let [which, version, low, high, after @ ..] = rest {
        let size = usize::from(u16::from_le_bytes([*low, *high]));
        let (body, later) = after.split_at(size.min(after.len()));
        rest = later;
        match *which {
            RAW => sent.extend_from_slice(body),
            BATCH => request(&mut sent, ApiKey::Produce, 9, &produce(*version, body)),
            which => {
                let api = ApiKey::ALL[usize::from(which) % ApiKey::ALL.len()];
                let versions = api.versions();
                let span = versions.end() - versions.start() + 1;
                let version = versions.start() + i16::from(*version) % span;
                request(&mut sent, api, version, body);
            }
        }
    }
    sent
}

fn request(sent: &mut BytesMut, api: ApiKey, version: i16, body: &[u8]) {
    let tags = frame::is_flexible(api, version);
    let size = 11 + usize::from(tags) + body.len();
    sent.put_i32(i32::try_from(size).expect("inputs are short"));
    sent.put_i16(api as i16);
    sent.put_i16(version);
    sent.put_i32(7);
    sent.put_slice(b"\0\x01c");
    if tags {
        sent.put_u8(0);
    }
    sent.put_slice(body);
}

/// The body of a Produce request of version 9 with one batch, to one of the topics that there are.
fn produce(which: u8, batch: &[u8]) -> Vec<u8> {
    let topic = TOPICS[usize::from(which) % TOPICS.len()].0;
    let batch = sealed(batch);
    let mut body = vec![0]; // no transactional id
    body.extend([0xff, 0xff, 0, 0, 1, 0]); // acks and timeout
    body.extend([2, u8::try_from(topic.len() + 1).expect("short")]);
    body.extend(topic.as_bytes());
    body.extend([2, 0, 0, 0, 0]); // one partition, the first
    let mut length = batch.len() + 1;
    while length >= 0x80 {
        body.push(length as u8 | 0x80);
        length >>= 7;
    }
    body.push(length as u8);
    body.extend(batch);
    body.extend([0, 0, 0]); // no tags
    body
}

/// Gives bytes what every batch needs: a length, the format's number, and a checksum that is right.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut batch = bytes.to_vec();
    batch.resize(batch.len().max(HEADER_LEN), 0);
    let length = i32::try_from(batch.len() - 12).expect("inputs are short");
    batch[..8].fill(0);
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = MAGIC as u8;
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch
}

/// Topics that requests can be about, with their settings: what is looked into, and what is not.
const TOPICS: [(&str, &[(&str, &str)]); 3] = [
    ("t", &[]),
    (
        "c",
        &[("cleanup.policy", "compact"), ("compression.type", "zstd")],
    ),
    ("o", &[("message.timestamp.before.max.ms", "1000")]),
];

/// A broker that has to bear it all.
struct Victim {
    runtime: Runtime,
    folder: TempDir,
    broker: Broker,
    serving: Arc<Serving>,
    heard: usize,
    openings: usize,
}

impl Victim {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let broker = runtime.block_on(open(&folder));
        for (name, settings) in TOPICS {
            let settings = settings.iter();
            let overrides = settings.map(|(name, value)| ((*name).into(), (*value).into()));
            let topic = NewTopic {
                name: name.to_owned(),
                partitions: 1,
                overrides: overrides.collect(),
            };
            broker.core.topics.create(topic).expect("made");
        }
        let serving = serving_of(&broker);
        Self {
            runtime,
            folder,
            broker,
            serving,
            heard: 0,
            openings: 0,
        }
    }

    /// Returns how many bytes were answered.
    fn hear(&mut self, bytes: &[u8]) -> usize {
        let stop = CancellationToken::new();
        let client = Client {
            core: self.broker.core.clone(),
            serving: self.serving.clone(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            reached: Address {
                host: "localhost".into(),
                port: 9092,
            },
            principal: Principal::Anonymous,
            session: None,
            stop: stop.clone(),
            connection: Arc::new(Connection::new(self.broker.core.shares.clone())),
        };
        let (theirs, ours) = tokio::io::duplex(PIPE_BYTES);
        let (mut answers, mut requests) = tokio::io::split(theirs);
        let (reader, writer) = tokio::io::split(ours);
        let mut answered = 0;
        let asking = async {
            _ = requests.write_all(bytes).await; // it may be closed before
            _ = requests.shutdown().await;
            let mut answer = [0; 4096];
            while let Ok(read @ 1..) = answers.read(&mut answer).await {
                answered += read;
            }
        };
        let talking = connection::serve_apart(client, reader, writer);
        self.runtime.block_on(async {
            // What is not answered by then waits for somebody else.
            _ = timeout(TALK_MAX, async { tokio::join!(talking, asking) }).await;
        });
        stop.cancel();
        answered
    }

    /// Counts, and opens again what has been open for long: what strangers have left on disk can be read.
    fn older(mut self) -> Self {
        self.heard += 1;
        if self.heard < TALKS_PER_OPENING {
            return self;
        }
        self.runtime.block_on(self.broker.close());
        let Victim {
            runtime,
            folder,
            broker,
            serving,
            openings,
            ..
        } = self;
        drop((broker, serving));
        if openings == OPENINGS_PER_FOLDER {
            return Self::new();
        }
        let broker = runtime.block_on(open(&folder));
        Self {
            serving: serving_of(&broker),
            runtime,
            folder,
            broker,
            heard: 0,
            openings: openings + 1,
        }
    }
}

async fn open(folder: &TempDir) -> Broker {
    let mut options = Options::new(folder.path());
    options.limits = Limits {
        partitions_max: 64,
        requests_bytes_max: 64 << 20,
        request_bytes_max: 1 << 20,
        ..Limits::default()
    };
    loop {
        match Broker::open(options.clone()).await {
            // Tasks of the one before may still be about to end.
            Err(crate::OpenError::InUse { .. }) => tokio::task::yield_now().await,
            opened => return opened.expect("it opens whatever was said to it"),
        }
    }
}

fn serving_of(broker: &Broker) -> Arc<Serving> {
    let listener = Listener::new("TEST", Protocol::Plaintext, &broker.core.limits);
    let door = Door::new(broker.core.metrics.registry(), &listener.name);
    Arc::new(Serving { listener, door })
}

/// The messages of a client that has to prove who it is: `[mechanism]`, then each as `[length] [message]`.
///
/// `$r` in a message stands for the nonce that the client was told, without which nothing later is looked at.
pub fn sasl(input: &[u8]) {
    static USERS: LazyLock<(TempDir, Users)> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let user = User {
            name: "u".into(),
            password: Secret::new("p"),
        };
        let users = Users::open(folder.path(), &[user]).expect("opens");
        (folder, users)
    });
    let [mechanism, rest @ ..] = input else {
        return;
    };
    let mechanism = Mechanism::ALL[usize::from(*mechanism) % Mechanism::ALL.len()];
    let mut exchange = Exchange::new(mechanism);
    let mut nonce = Vec::new();
    let mut rest = rest;
    while let [length, after @ ..] = rest {
        let (message, later) = after.split_at(usize::from(*length).min(after.len()));
        rest = later;
        let mut said = Vec::new();
        let mut left = message;
        while let Some(at) = left.windows(2).position(|pair| pair == b"$r") {
            said.extend_from_slice(&left[..at]);
            said.extend_from_slice(&nonce);
            left = &left[at + 2..];
        }
        said.extend_from_slice(left);
        match exchange.step(&USERS.1, &said) {
            Ok(Step::Ask(challenge)) => {
                let text = challenge.strip_prefix(b"r=").unwrap_or_default();
                let end = text.iter().position(|byte| *byte == b',');
                nonce = text[..end.unwrap_or(text.len())].to_vec();
            }
            Ok(Step::Proven(_, principal)) => assert_eq!(principal, Principal::user("u")),
            Err(refused) => assert!(exchange.told(&refused, false).len() < 1024),
        }
    }
}

/// Records of the broker's own topics, as they are read at the start: `[topic and more] [length] [key] [length] [value]`.
pub fn states(input: &[u8]) {
    let [kind, rest @ ..] = input else { return };
    let mut rest = rest;
    let mut piece = || {
        let [length, after @ ..] = rest else {
            return None;
        };
        let (piece, later) = after.split_at(usize::from(*length).min(after.len()));
        rest = later;
        Some(piece)
    };
    let mut builder = BatchBuilder::default();
    if kind & 0b100 != 0 {
        let producer = Producer {
            id: 7,
            epoch: 1,
            base_sequence: 0,
        };
        builder = builder.producer(producer).transactional();
    }
    while let Some(key) = piece() {
        builder.push(NewRecord {
            timestamp: 0,
            key: Some(key),
            value: piece().filter(|value| !value.is_empty()),
            headers: &[],
        });
    }
    if builder.is_empty() {
        return;
    }
    let bytes = builder.build();
    let (batch, _) = Batch::split_first(&bytes).expect("ours");
    let records = Records::read(&batch, 1 << 20).expect("ours");
    let records = records.iter().map(|record| record.expect("ours"));
    let copy = |part: Option<&[u8]>| part.map(Bytes::copy_from_slice);
    match kind & 0b11 {
        0 | 1 => {
            let mut loaded = store::Loaded::default();
            for record in records {
                _ = store::replay(&mut loaded, &batch, &record); // unreadable ones are told of and left out
            }
            static SETTINGS: LazyLock<(TempDir, Arc<GroupSettings>)> = LazyLock::new(|| {
                let folder = tempfile::tempdir().expect("a folder");
                let settings = GroupSettings::open(folder.path()).expect("opens");
                (folder, Arc::new(settings))
            });
            let settings = SETTINGS.1.clone();
            let (groups, _queue) = Coordinator::new(Rules::default(), settings, 1000, loaded);
            _ = (groups.share_keys(), groups.views());
        }
        2 => {
            for record in records {
                let Some(key) = copy(record.key) else {
                    continue;
                };
                let id = txn::schema::read_key(&key).ok().flatten();
                let read = copy(record.value).map(|value| txn::schema::read(&value));
                if let (Some(id), Some(Ok(Some(metadata)))) = (id, read) {
                    let (key, value) = txn::schema::write(&id, &metadata).expect("it was read");
                    assert_eq!(txn::schema::read_key(&key), Ok(Some(id)));
                    let again = value.map(|value| txn::schema::read(&value).expect("ours"));
                    if let Some(again) = again {
                        assert_eq!(again, Some(metadata.clone()));
                    }
                    let transaction = txn::machine::Transaction::restore(metadata);
                    _ = (transaction.tick(0), transaction.complete(i64::MAX));
                }
            }
        }
        _ => {
            for record in records {
                let Some(key) = copy(record.key) else {
                    continue;
                };
                let value = copy(record.value);
                if let Ok(Some((_, Some(stored)))) = share::records::read(&key, value.as_ref()) {
                    let machine = share::machine::Machine::restore(&stored.snapshot, 1000);
                    _ = machine.map(|machine| machine.snapshot());
                }
            }
        }
    }
}
