//! How a test talks with a client, whatever its language.
//!
//! Each script in `scripts/` is started in one of two ways:
//!
//! - `agent BOOTSTRAP`: reads one command a line (`{"do": "create", "topic": "t", "partitions": 3}`) and
//!   answers each with a line of JSON, with an `error` in it when the client library failed.
//! - `member BOOTSTRAP GROUP TOPIC`: joins a consumer group, reads and commits, and tells each event on a line:
//!   `assigned`, `revoked`, `record`, `committed`, `uncommitted`. It leaves the group when its stdin ends.
//!
//! `confluent.py` can also be a `producer`, for `crash.rs`.
//!
//! With `NUNCIO_GROUP_PROTOCOL=consumer` a member lets the broker assign (KIP-848), by the assignor that
//! `NUNCIO_GROUP_ASSIGNOR` names; a topic that begins with `^` is a pattern.
//!
//! Keys, values and header values are hexadecimal. Every line carries `at`, the machine's monotonic clock in
//! microseconds, so that the events of several processes can be put in order. `kcat` has no script: `kcat.rs`
//! puts its options and its output into the same words.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testkit::lab::{self, Missing};
use testkit::process::Process;

use super::kcat::{self, Kcat};

/// Longest wait for one answer; the scripts give up at half of it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The clients, and what each can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Confluent,
    OldConfluent,
    KafkaPython,
    AioKafka,
    FranzGo,
    Sarama,
    KafkaGo,
    KafkaJs,
    Java,
    Kcat,
}

pub(super) const ALL: [Kind; 10] = [
    Kind::Confluent,
    Kind::OldConfluent,
    Kind::KafkaPython,
    Kind::AioKafka,
    Kind::FranzGo,
    Kind::Sarama,
    Kind::KafkaGo,
    Kind::KafkaJs,
    Kind::Java,
    Kind::Kcat,
];

impl Kind {
    /// Returns the codecs that it writes and reads.
    pub(super) fn codecs(self) -> &'static [&'static str] {
        match self {
            // It brings gzip only and leaves the rest to packages of others.
            Kind::KafkaJs => &["none", "gzip"],
            _ => &["none", "gzip", "snappy", "lz4", "zstd"],
        }
    }

    /// Tells whether it reads what another client wrote with a codec.
    pub(super) fn reads(self, codec: &str, wrote: Kind) -> bool {
        // aiokafka adds a checksum to each LZ4 block, which the LZ4 that comes with kafka-go gets wrong.
        let checksums = (self, wrote, codec) == (Kind::KafkaGo, Kind::AioKafka, "lz4");
        self.codecs().contains(&codec) && !checksums
    }

    /// Returns records as its consumer gives them, whoever wrote them.
    pub(super) fn as_read(self, records: &[Record]) -> Vec<Record> {
        let mut records = records.to_vec();
        if self == Kind::KafkaGo {
            // Its reader does not tell empty from absent.
            for record in &mut records {
                record.key = record.key.take().filter(|key| !key.is_empty());
                record.value = record.value.take().filter(|value| !value.is_empty());
            }
        }
        records
    }

    /// Tells whether its producer can be idempotent.
    pub(super) fn idempotent(self) -> bool {
        // kafka-go's writer sends no producer id.
        self != Kind::KafkaGo
    }

    /// Tells whether it takes part in transactions.
    pub(super) fn transactional(self) -> bool {
        // kafka-go has requests for them, but no producer; kcat only reads what is committed.
        !matches!(self, Kind::KafkaGo | Kind::Kcat)
    }

    /// Returns what starts it, without arguments.
    pub(super) fn command(self) -> Result<Command, Missing> {
        Ok(match self {
            Kind::Confluent => python(lab::python()?, "confluent.py"),
            Kind::OldConfluent => python(lab::old_confluent()?, "confluent.py"),
            Kind::KafkaPython => python(lab::python()?, "kafka_python.py"),
            Kind::AioKafka => python(lab::python()?, "aiokafka_client.py"),
            Kind::FranzGo => go("franz.go", lab::franz_go)?,
            Kind::Sarama => go("sarama.go", lab::sarama)?,
            Kind::KafkaGo => go("kafka_go.go", lab::kafka_go)?,
            Kind::KafkaJs => {
                let modules = lab::node()?;
                let mut command = Command::new("node");
                command.env("NODE_PATH", modules).arg(script("kafkajs.js"));
                command
            }
            Kind::Java => {
                let classes = lab::javac(&script("JavaClient.java"), &lab::java()?)?;
                let mut command = Command::new("java");
                // Short lives on few cores: a small heap and the quick compiler only.
                command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
                command.args(["-cp", &classes, "JavaClient"]);
                command
            }
            Kind::Kcat => Command::new(lab::kcat()?),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Kind::Confluent => "confluent-kafka",
            Kind::OldConfluent => "confluent-kafka 2.0.2",
            Kind::KafkaPython => "kafka-python",
            Kind::AioKafka => "aiokafka",
            Kind::FranzGo => "franz-go",
            Kind::Sarama => "sarama",
            Kind::KafkaGo => "kafka-go",
            Kind::KafkaJs => "kafkajs",
            Kind::Java => "kafka-clients (Java)",
            Kind::Kcat => "kcat",
        })
    }
}

fn python(interpreter: PathBuf, name: &str) -> Command {
    let mut command = Command::new(interpreter);
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script(name));
    command
}

/// Compiles a Go script with what the Go clients share.
fn go(
    name: &str,
    build: impl Fn(&[&Path]) -> Result<PathBuf, Missing>,
) -> Result<Command, Missing> {
    let sources = [script("go/contract.go"), script(&format!("go/{name}"))];
    Ok(Command::new(build(&[&sources[0], &sources[1]])?))
}

/// Returns where a script of this folder is.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/clients/scripts")
        .join(name)
}

/// One record, as it is given to a producer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) partition: i32,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
    pub(super) timestamp: i64,
    pub(super) headers: Vec<(String, Option<String>)>,
}

/// One record, as a consumer saw it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Read {
    pub(super) offset: i64,
    #[serde(flatten)]
    pub(super) record: Record,
}

/// How a producer is set up for one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producing<'a> {
    pub(super) topic: &'a str,
    pub(super) codec: &'a str,
    pub(super) acks: &'a str,
    pub(super) idempotent: bool,
}

/// A client library at work.
pub(super) enum Client {
    Script(Agent),
    Kcat(Kcat),
}

pub(super) struct Agent {
    kind: Kind,
    bootstrap: String,
    process: Process,
}

impl Client {
    /// Starts a client, or says why it is skipped.
    #[track_caller]
    pub(super) fn start(kind: Kind, bootstrap: String) -> Option<Self> {
        let mut command = lab::or_skip(kind.command())?;
        if kind == Kind::Kcat {
            let Self::Script(maker) = Self::start(Kind::Confluent, bootstrap.clone())? else {
                unreachable!("it has a script");
            };
            return Some(Self::Kcat(Kcat { bootstrap, maker }));
        }
        command.args(["agent", &bootstrap]);
        let process = Process::start(&kind.to_string(), command);
        Some(Self::Script(Agent {
            kind,
            bootstrap,
            process,
        }))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Script(agent) => agent.kind,
            Self::Kcat(_) => Kind::Kcat,
        }
    }

    /// Produces and returns partition and offset of each record, as far as the client tells them.
    #[track_caller]
    pub(super) fn produce(
        &mut self,
        producing: Producing<'_>,
        records: &[Record],
    ) -> Vec<(i32, i64)> {
        match self {
            Self::Script(agent) => {
                let Producing {
                    topic,
                    codec,
                    acks,
                    idempotent,
                } = producing;
                let answer = agent.ask(json!({
                    "do": "produce", "topic": topic, "compression": codec, "acks": acks,
                    "idempotent": idempotent, "records": records,
                }));
                parse(answer["placed"].clone())
            }
            Self::Kcat(kcat) => {
                kcat.produce(producing, records);
                Vec::new()
            }
        }
    }

    /// Reads a topic from its beginning until so many records have come (or too long nothing).
    #[track_caller]
    pub(super) fn consume(&mut self, topic: &str, count: usize) -> Vec<Read> {
        match self {
            Self::Script(agent) => {
                let answer = agent.ask(json!({ "do": "consume", "topic": topic, "count": count }));
                parse(answer["records"].clone())
            }
            Self::Kcat(kcat) => kcat.consume(topic, count),
        }
    }

    /// Starts a member of a consumer group.
    #[track_caller]
    pub(super) fn member(&self, group: &str, topic: &str) -> Member {
        self.member_by("classic", group, topic)
    }

    /// Starts a member that speaks one of Kafka's two protocols of groups.
    #[track_caller]
    pub(super) fn member_by(&self, protocol: &str, group: &str, topic: &str) -> Member {
        let (kind, bootstrap) = match self {
            Self::Script(agent) => (agent.kind, &agent.bootstrap),
            Self::Kcat(kcat) => (Kind::Kcat, &kcat.bootstrap),
        };
        Member::start(kind, protocol, bootstrap, group, topic)
    }
}

impl Agent {
    /// Gives one command; panics when the client library reports an error.
    #[track_caller]
    pub(super) fn ask(&mut self, command: Value) -> Value {
        match self.try_ask(command.clone()) {
            Ok(answer) => answer,
            Err(error) => panic!("{} failed: {error}\ncommand: {command:.400}", self.kind),
        }
    }

    /// Gives one command; the error is the client library's own.
    #[track_caller]
    pub(super) fn try_ask(&mut self, command: Value) -> Result<Value, String> {
        self.process.write_line(&command.to_string());
        let line = self.process.next_line(ANSWER_LIMIT);
        let answer: Value = match serde_json::from_str(&line) {
            Ok(answer) => answer,
            Err(error) => panic!("not JSON ({error}): {line:.400}"),
        };
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }
}

/// One member of a consumer group, in a process of its own, and what it has told so far.
pub(super) struct Member {
    process: Process,
    words: Words,
    left: bool,
    pub(super) assigned: Vec<i32>,
    pub(super) records: Vec<Read>,
    /// The next offset to read for each partition, as the broker has acknowledged it.
    pub(super) committed: BTreeMap<i32, i64>,
}

/// How a member talks.
enum Words {
    /// In the contract's words; it leaves when its stdin ends.
    Contract,
    /// In kcat's; it leaves when it is asked to stop.
    Kcat,
}

impl Member {
    #[track_caller]
    fn start(kind: Kind, protocol: &str, bootstrap: &str, group: &str, topic: &str) -> Self {
        let mut command = kind.command().expect("it was there when its agent started");
        let words = if kind == Kind::Kcat {
            command = kcat::member(&command, bootstrap, group, topic);
            Words::Kcat
        } else {
            command.args(["member", bootstrap, group, topic]);
            command.env("NUNCIO_GROUP_PROTOCOL", protocol);
            Words::Contract
        };
        let process = Process::start(&format!("{kind} member"), command);
        let (assigned, records, committed) = Default::default();
        Self {
            process,
            words,
            left: false,
            assigned,
            records,
            committed,
        }
    }

    /// Takes in what it has told since the last look.
    #[track_caller]
    pub(super) fn look(&mut self) {
        let lines = self.process.ready_lines();
        assert!(
            !lines.is_empty() || self.left || self.process.running(),
            "a member ended by itself\n{}",
            self.process.log()
        );
        self.take_in(lines);
    }

    /// Ends it well: it commits, leaves the group and stops.
    #[track_caller]
    pub(super) fn leave(&mut self) {
        match self.words {
            Words::Contract => self.process.close_stdin(),
            Words::Kcat => self.process.terminate(),
        }
        let status = self.process.wait(ANSWER_LIMIT);
        assert!(
            status.success(),
            "left with {status}\n{}",
            self.process.log()
        );
        let lines = self.process.last_lines();
        self.take_in(lines);
        self.assigned.clear();
        self.left = true;
    }

    fn take_in(&mut self, lines: Vec<String>) {
        for line in lines {
            let event = match self.words {
                Words::Contract => serde_json::from_str(&line).ok(),
                Words::Kcat => kcat::event(&line),
            };
            // Anything else is a library's own chatter.
            let Some(event) = event else { continue };
            match event["event"].as_str() {
                Some("assigned") => self.assigned = parse(event["partitions"].clone()),
                Some("revoked") => self.assigned.clear(),
                Some("record") => self.records.push(parse(event)),
                Some("committed") => {
                    let offsets: BTreeMap<i32, i64> = parse(event["offsets"].clone());
                    self.committed.extend(offsets);
                }
                _ => (),
            }
        }
    }
}

#[track_caller]
fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    match serde_json::from_value(value.clone()) {
        Ok(parsed) => parsed,
        Err(error) => panic!("not what the contract says ({error}): {value:.400}"),
    }
}
