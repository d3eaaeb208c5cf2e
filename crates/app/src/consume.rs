//! `nuncio consume`: prints records of a topic of any Kafka-compatible broker.

mod format;

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use krafka::Kafka;
use krafka::consumer::{
    AutoOffsetReset, Consumer, ConsumerRecord, IsolationLevel, OffsetAndMetadata,
};
use tokio_util::sync::CancellationToken;

use self::format::Format;
use crate::client::{Bootstrap, Partition, Partitions, Told, now_ms};
use crate::place::{self, Place};
use crate::produce::json;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    /// The topic.
    topic: String,
    /// Only these partitions, comma-separated.
    #[arg(long, short = 'p', value_delimiter = ',', conflicts_with = "group")]
    partition: Vec<i32>,
    /// Read as a member of this group and commit what was printed.
    #[arg(long, short = 'g')]
    group: Option<String>,
    /// Where to begin: `beginning`, `end`, an offset, `-10` (ten before the end), a time (`2026-11-23T10:00:00Z`, `@` and
    /// milliseconds since 1970) or how long ago (`15m`). With --group only where it has committed nothing, and only
    /// `beginning`, `end` or a time.
    #[arg(
        long,
        short = 'o',
        default_value = "beginning",
        allow_hyphen_values = true
    )]
    from: Place,
    /// Where to end, written as --from.
    #[arg(long, conflicts_with_all = ["group", "exit"], allow_hyphen_values = true)]
    to: Option<Place>,
    /// End after this many records.
    #[arg(long, short = 'n')]
    count: Option<u64>,
    /// End at what was the end when the command started, instead of waiting for more.
    #[arg(long, short = 'e', conflicts_with = "group")]
    exit: bool,
    /// Which records of transactions are printed.
    #[arg(long, value_enum, default_value_t = Isolation::ReadUncommitted)]
    isolation: Isolation,
    /// One JSON object a record, with its place, key and headers.
    #[arg(long)]
    json: bool,
    /// How each record is printed: `%t` topic, `%p` partition, `%o` offset, `%T` timestamp in milliseconds, `%k` key,
    /// `%s` value, `%h` headers, `%K` and `%S` bytes of key and value, `\n`, `\t`, `%%`.
    #[arg(long, short = 'f', conflicts_with = "json", default_value = "%s\\n")]
    format: Format,
}

#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

/// How long one poll waits before the stop signal is looked at.
const POLL_MAX: Duration = Duration::from_millis(500);

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    kit::stop::on_signals(stop.clone())?;
    let kafka = arguments.bootstrap.connect().await?;
    let admin = arguments.bootstrap.admin_of(&kafka);
    let partitions = Partitions {
        topic: arguments.topic.clone(),
        indexes: arguments.partition.clone(),
    };
    let partitions = partitions.find(&admin).await?;
    let mut open = BTreeMap::new();
    let consumer = if let Some(group) = &arguments.group {
        member(&arguments, &kafka, group).await?
    } else {
        let begin = place::resolve(&admin, &partitions, arguments.from).await?;
        let end = match (arguments.to, arguments.exit) {
            (Some(place), _) => place::resolve(&admin, &partitions, place).await?,
            (None, true) => {
                let committed_only = matches!(arguments.isolation, Isolation::ReadCommitted);
                let spans = place::spans(&admin, &partitions, committed_only).await?;
                spans.into_iter().map(|(p, span)| (p, span.end)).collect()
            }
            (None, false) => BTreeMap::new(),
        };
        let left = |(p, end): (Partition, i64)| {
            let begun = begin.get(&p).is_some_and(|begin| *begin < end);
            begun.then_some((p.index, end))
        };
        open.extend(end.into_iter().filter_map(left));
        alone(&arguments, &kafka, &begin).await?
    };
    let bounded = arguments.to.is_some() || arguments.exit;
    let done = print_all(&arguments, &consumer, bounded.then_some(open), &stop).await;
    consumer.close().await.told()?;
    done
}

/// Joins a group.
async fn member(arguments: &Arguments, kafka: &Kafka, group: &str) -> anyhow::Result<Consumer> {
    let reset = match arguments.from {
        Place::Beginning => AutoOffsetReset::Earliest,
        Place::End => AutoOffsetReset::Latest,
        Place::Time(ms) => {
            let ago = u64::try_from(now_ms() - ms).unwrap_or(0);
            AutoOffsetReset::ByDuration(Duration::from_millis(ago))
        }
        Place::Offset(_) | Place::BeforeEnd(_) => {
            bail!(
                "a group goes on where it has committed; `nuncio groups reset` moves it to an offset"
            )
        }
    };
    let consumer = kafka
        .consumer(group)
        .enable_auto_commit(false)
        .isolation_level(isolation(arguments))
        .auto_offset_reset(reset)
        .build()
        .await
        .told()?;
    consumer.subscribe([&arguments.topic]).await.told()?;
    Ok(consumer)
}

/// Reads without a group, each partition from an offset.
async fn alone(
    arguments: &Arguments,
    kafka: &Kafka,
    begin: &BTreeMap<Partition, i64>,
) -> anyhow::Result<Consumer> {
    let consumer = kafka
        .consumer_without_group()
        .isolation_level(isolation(arguments))
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .initial_offsets(begin.iter().map(|(p, offset)| (p.wire(), *offset)))
        .build()
        .await
        .told()?;
    let indexes = begin.keys().map(|partition| partition.index).collect();
    consumer.assign(&arguments.topic, indexes).await.told()?;
    Ok(consumer)
}

fn isolation(arguments: &Arguments) -> IsolationLevel {
    match arguments.isolation {
        Isolation::ReadUncommitted => IsolationLevel::ReadUncommitted,
        Isolation::ReadCommitted => IsolationLevel::ReadCommitted,
    }
}

/// Prints until the count, the ends in `open` or a signal is reached.
async fn print_all(
    arguments: &Arguments,
    consumer: &Consumer,
    mut open: Option<BTreeMap<i32, i64>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 && !stop.is_cancelled() && open.as_ref().is_none_or(|open| !open.is_empty()) {
        let polled = tokio::select! {
            () = stop.cancelled() => break,
            polled = consumer.poll(POLL_MAX) => polled.told()?,
        };
        let mut out = std::io::stdout().lock();
        let mut printed = HashMap::new();
        for record in &polled {
            let beyond = |open: &BTreeMap<i32, i64>| {
                open.get(&record.partition)
                    .is_none_or(|end| record.offset >= *end)
            };
            if left == 0 {
                break;
            }
            if open.as_ref().is_some_and(beyond) {
                continue;
            }
            print(arguments, record, &mut out)?;
            left -= 1;
            printed.insert(record.partition, record.offset + 1);
        }
        out.flush()?;
        drop(out);
        if arguments.group.is_some() {
            commit(consumer, &arguments.topic, &printed).await?;
        }
        if let Some(open) = &mut open {
            settle(consumer, &arguments.topic, open).await;
        }
    }
    Ok(())
}

/// Takes out the partitions whose end is reached. The last offsets may belong to records that nobody gets to see: the markers
/// of transactions, aborted records, compacted ones. So the position counts, not the last record.
async fn settle(consumer: &Consumer, topic: &str, open: &mut BTreeMap<i32, i64>) {
    let mut reached = Vec::new();
    for (index, end) in open.iter() {
        let position = consumer.position(topic, *index).await;
        if position.is_some_and(|position| position >= *end) {
            reached.push(*index);
        }
    }
    open.retain(|index, _| !reached.contains(index));
    consumer.pause(topic, &reached).await;
}

async fn commit(
    consumer: &Consumer,
    topic: &str,
    printed: &HashMap<i32, i64>,
) -> anyhow::Result<()> {
    if printed.is_empty() {
        return Ok(());
    }
    let offsets = printed.iter().map(|(index, next)| {
        let partition = Partition::new(topic, *index).wire();
        (partition, OffsetAndMetadata::new(*next))
    });
    let offsets: HashMap<_, _> = offsets.collect();
    let committed = consumer.commit_offsets(&offsets).await;
    committed.told().context("could not commit")
}

fn print(
    arguments: &Arguments,
    record: &ConsumerRecord,
    out: &mut impl std::io::Write,
) -> std::io::Result<()> {
    if arguments.json {
        return writeln!(out, "{}", json::tell(record));
    }
    arguments.format.write(record, out)
}
