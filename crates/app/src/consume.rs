//! `nuncio consume`: prints records of a topic of any Kafka-compatible broker.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context;
use krafka::consumer::{AutoOffsetReset, Consumer, ConsumerRecord};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::Bootstrap;
use crate::topics;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// The topic.
    topic: String,
    /// Read as a member of this group and commit what was printed.
    #[arg(long, short = 'g')]
    group: Option<String>,
    /// Where to begin when no group remembers.
    #[arg(long, value_enum, default_value_t = From::Earliest)]
    from: From,
    /// End after this many records.
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// End at what was the end when the command started, instead of waiting for more.
    #[arg(long, short = 'e', conflicts_with = "group")]
    exit: bool,
    /// One JSON object a record, with its place, key and headers.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum From {
    Earliest,
    Latest,
}

/// How long one poll waits before the stop signal is looked at.
const POLL_MAX: Duration = Duration::from_millis(500);

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    kit::stop::on_signals(stop.clone())?;
    let kafka = arguments.bootstrap.connect().await?;
    let described = kafka
        .admin()
        .describe_topics([&arguments.topic], Default::default())
        .await?;
    let described = described
        .into_values()
        .next()
        .context("the broker did not answer for the topic")?;
    let described = described.with_context(|| format!("topic `{}`", arguments.topic))?;
    let builder = match &arguments.group {
        Some(group) => kafka.consumer(group).enable_auto_commit(false),
        None => kafka.consumer_without_group(),
    };
    let reset = match arguments.from {
        From::Earliest => AutoOffsetReset::Earliest,
        From::Latest => AutoOffsetReset::Latest,
    };
    let consumer = builder.auto_offset_reset(reset).build().await?;
    let mut open = Vec::new();
    if arguments.group.is_some() {
        consumer.subscribe([&arguments.topic]).await?;
    } else {
        let partitions: Vec<i32> = described.partitions.iter().map(|p| p.partition).collect();
        consumer.assign(&arguments.topic, partitions).await?;
    }
    if arguments.exit {
        let ends = topics::offsets(&kafka.admin(), &described).await?;
        open = ends
            .into_iter()
            .filter(|(_, (start, end))| start < end)
            .map(|(p, (_, end))| (p, end))
            .collect();
    }
    let done = print_all(&arguments, &consumer, open, &stop).await;
    consumer.close().await?;
    done
}

/// Prints until the count, the ends in `open` or a signal is reached.
async fn print_all(
    arguments: &Arguments,
    consumer: &Consumer,
    mut open: Vec<(i32, i64)>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 && !stop.is_cancelled() && !(arguments.exit && open.is_empty()) {
        let polled = tokio::select! {
            () = stop.cancelled() => break,
            polled = consumer.poll(POLL_MAX) => polled?,
        };
        if polled.is_empty() {
            continue;
        }
        let mut out = std::io::stdout().lock();
        let mut printed = Vec::new();
        for record in polled
            .iter()
            .take(usize::try_from(left).unwrap_or(usize::MAX))
        {
            print(arguments, record, &mut out)?;
            left -= 1;
            printed.push((record.partition, record.offset + 1));
            open.retain(|(partition, end)| {
                *partition != record.partition || record.offset + 1 < *end
            });
        }
        out.flush()?;
        drop(out);
        if arguments.group.is_some() {
            commit(consumer, &arguments.topic, &printed).await?;
        }
    }
    Ok(())
}

async fn commit(consumer: &Consumer, topic: &str, printed: &[(i32, i64)]) -> anyhow::Result<()> {
    use krafka::consumer::{OffsetAndMetadata, TopicPartition};
    // Later entries of a partition replace its earlier ones.
    let offsets: std::collections::HashMap<_, _> = printed
        .iter()
        .map(|(partition, next)| {
            (
                TopicPartition::new(topic, *partition),
                OffsetAndMetadata::new(*next),
            )
        })
        .collect();
    consumer
        .commit_offsets(&offsets)
        .await
        .context("could not commit")
}

fn print(
    arguments: &Arguments,
    record: &ConsumerRecord,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    let text = |bytes: &Option<bytes::Bytes>| {
        bytes
            .as_ref()
            .map(|b| String::from_utf8_lossy(b).into_owned())
    };
    if arguments.json {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(name, value)| json!([name, text(value)]))
            .collect();
        let line = json!({
            "topic": &*record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": text(&record.key),
            "value": text(&record.value),
            "headers": headers,
        });
        return writeln!(out, "{line}");
    }
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")
}
