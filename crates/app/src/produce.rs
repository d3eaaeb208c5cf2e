//! `nuncio produce`: sends records to a topic of any Kafka-compatible broker.

pub(crate) mod json;

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context, bail};
use krafka::producer::{Acks, DeliveryHandle, Producer};
use krafka::{Compression, Record};

use crate::client::{Bootstrap, Told, pair, topic};

/// Records sent and not yet acknowledged.
const IN_FLIGHT_MAX: usize = 10_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// The topic.
    topic: String,
    /// The records' values; without any, each line of standard input is one.
    values: Vec<String>,
    /// The key of every record.
    #[arg(long, short = 'k', conflicts_with = "key_separator")]
    key: Option<String>,
    /// What stands between key and value in each line or value.
    #[arg(long, short = 'K')]
    key_separator: Option<String>,
    /// A header of every record, as NAME=VALUE.
    #[arg(long, short = 'H', value_parser = pair)]
    header: Vec<(String, String)>,
    /// The partition; the key decides when nothing is said.
    #[arg(long, short = 'p')]
    partition: Option<i32>,
    /// Milliseconds since 1970 as every record's timestamp; now when nothing is said.
    #[arg(long)]
    timestamp: Option<u64>,
    /// A value that is exactly this is none at all: a tombstone in compacted topics.
    #[arg(long)]
    null: Option<String>,
    /// Each line or value is a record as `nuncio consume --json` prints it; what it does not say, the flags do.
    #[arg(long, conflicts_with = "key_separator")]
    json: bool,
    /// With --json: into the partition that each record names.
    #[arg(long, requires = "json", conflicts_with = "partition")]
    keep_partition: bool,
    /// When a record counts as stored: `all` waits for the disk, `leader` for the broker's memory, `none` for nothing.
    #[arg(long, value_enum, default_value_t = Wait::All)]
    acks: Wait,
    /// Compression of the batches.
    #[arg(long, short = 'z', value_enum, default_value_t = Codec::None)]
    compression: Codec,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Wait {
    All,
    Leader,
    None,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let kafka = arguments.bootstrap.connect().await?;
    let compression = match arguments.compression {
        Codec::None => Compression::None,
        Codec::Gzip => Compression::Gzip,
        Codec::Snappy => Compression::Snappy,
        Codec::Lz4 => Compression::Lz4,
    };
    let admin = arguments.bootstrap.admin_of(&kafka);
    let topic = topic(&admin, &arguments.topic).await?;
    if let Some(partition) = arguments.partition
        && !topic.partitions.iter().any(|p| p.partition == partition)
    {
        bail!(
            "topic `{}` has no partition {partition}, it has {}",
            arguments.topic,
            topic.partitions.len()
        );
    }
    let (acks, idempotent) = match arguments.acks {
        Wait::All => (Acks::All, true),
        Wait::Leader => (Acks::Leader, false),
        Wait::None => (Acks::None, false),
    };
    let producer = kafka
        .producer()
        .acks(acks)
        .idempotent(idempotent)
        .compression(compression)
        .build()
        .await
        .told()?;
    let mut sent = Sent::default();
    if arguments.values.is_empty() {
        let input = std::io::stdin();
        if input.is_terminal() {
            anstream::eprintln!("one record a line; Ctrl-D ends");
        }
        for line in input.lock().lines() {
            send(
                &producer,
                &arguments,
                &line.context("could not read standard input")?,
                &mut sent,
            )
            .await?;
        }
    } else {
        for value in &arguments.values {
            send(&producer, &arguments, value, &mut sent).await?;
        }
    }
    sent.settle().await?;
    producer.close().await.told()?;
    match (&sent.last, sent.count) {
        (Some((partition, offset)), 1) if *offset >= 0 => {
            anstream::println!(
                "stored in {} partition {partition} at offset {offset}",
                arguments.topic
            );
        }
        (_, count) => anstream::println!("stored {count} records in {}", arguments.topic),
    }
    Ok(())
}

async fn send(
    producer: &Producer,
    arguments: &Arguments,
    text: &str,
    sent: &mut Sent,
) -> anyhow::Result<()> {
    let record = record(arguments, text)?;
    if sent.waiting.len() >= IN_FLIGHT_MAX {
        sent.settle().await?;
    }
    let handle = producer
        .enqueue(record)
        .await
        .told()
        .with_context(|| format!("could not send to `{}`", arguments.topic))?;
    sent.waiting.push(handle);
    Ok(())
}

/// Makes the record that a line or a value stands for.
fn record(arguments: &Arguments, text: &str) -> anyhow::Result<Record> {
    if arguments.json {
        let told: json::Told =
            serde_json::from_str(text).with_context(|| format!("not a record: `{text}`"))?;
        let mut record = told.record(&arguments.topic)?;
        record.partition = record.partition.filter(|_| arguments.keep_partition);
        return Ok(defaults(arguments, record));
    }
    let (key, value) = match &arguments.key_separator {
        None => (None, text),
        Some(separator) => match text.split_once(separator.as_str()) {
            Some((key, value)) => (Some(key), value),
            None => bail!("no `{separator}` between key and value in `{text}`"),
        },
    };
    let mut record = Record::new(&arguments.topic, value.to_owned());
    if arguments.null.as_deref() == Some(value) {
        record = record.without_value();
    }
    if let Some(key) = key {
        record = record.key(key.to_owned());
    }
    Ok(defaults(arguments, record))
}

/// Adds what the flags say of every record, where the record itself says nothing.
fn defaults(arguments: &Arguments, mut record: Record) -> Record {
    if let (None, Some(key)) = (&record.key, &arguments.key) {
        record = record.key(key.clone());
    }
    if let Some(partition) = arguments.partition {
        record = record.partition(partition);
    }
    if let Some(timestamp) = arguments.timestamp.and_then(|ms| i64::try_from(ms).ok()) {
        record = record.timestamp(timestamp);
    }
    for (name, value) in &arguments.header {
        record = record.header(name, value.clone());
    }
    record
}

/// What has been sent so far.
#[derive(Default)]
struct Sent {
    waiting: Vec<DeliveryHandle>,
    count: u64,
    last: Option<(i32, i64)>,
}

impl Sent {
    /// Waits until everything is acknowledged.
    async fn settle(&mut self) -> anyhow::Result<()> {
        for handle in std::mem::take(&mut self.waiting) {
            let stored = handle.await.told().context("a record was not stored")?;
            self.count += 1;
            self.last = Some((stored.partition, stored.offset));
        }
        Ok(())
    }
}
