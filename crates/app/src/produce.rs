//! `nuncio produce`: sends records to a topic of any Kafka-compatible broker.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context, bail};
use krafka::producer::{Acks, DeliveryHandle, Producer};
use krafka::{Compression, Record};

use crate::client::{Bootstrap, pair};

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
    /// Compression of the batches.
    #[arg(long, short = 'z', value_enum, default_value_t = Codec::None)]
    compression: Codec,
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
    let producer = kafka
        .producer()
        .acks(Acks::All)
        .compression(compression)
        .build()
        .await?;
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
    producer.close().await?;
    match (&sent.last, sent.count) {
        (Some((partition, offset)), 1) => {
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
    let (key, value) = match &arguments.key_separator {
        None => (arguments.key.as_deref(), text),
        Some(separator) => match text.split_once(separator.as_str()) {
            Some((key, value)) => (Some(key), value),
            None => bail!("no `{separator}` between key and value in `{text}`"),
        },
    };
    let mut record = Record::new(&arguments.topic, value.to_owned());
    if let Some(key) = key {
        record = record.key(key.to_owned());
    }
    if let Some(partition) = arguments.partition {
        record = record.partition(partition);
    }
    for (name, value) in &arguments.header {
        record = record.header(name, value.clone());
    }
    if sent.waiting.len() >= IN_FLIGHT_MAX {
        sent.settle().await?;
    }
    let handle = producer
        .enqueue(record)
        .await
        .with_context(|| format!("could not send to `{}`", arguments.topic))?;
    sent.waiting.push(handle);
    Ok(())
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
            let stored = handle.await.context("a record was not stored")?;
            self.count += 1;
            self.last = Some((stored.partition, stored.offset));
        }
        Ok(())
    }
}
