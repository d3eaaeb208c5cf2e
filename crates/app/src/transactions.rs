//! `nuncio transactions`: what is under way, what hangs, and how it ends.

mod hanging;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::Kafka;
use krafka::admin::{
    AdminClient, ListTopicsOptions, ListTransactionsOptions, ProducerState, TransactionDescription,
    TransactionListing,
};
use serde_json::json;

use crate::client::{
    Bootstrap, Partition, Partitions, Told, hint, now_ms, print_json, row, table, time_text,
};

/// Partitions that are asked about at once when hanging transactions are looked for.
const ASKED_AT_ONCE_MAX: usize = 1_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All transactional ids with the state of their transaction.
    List {
        /// Only transactions in this state, such as `Ongoing`.
        #[arg(long)]
        state: Vec<String>,
        /// Only transactions that have been under way for so long.
        #[arg(long, value_parser = kit::human::duration)]
        older_than: Option<Duration>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// One transactional id: producer, state, time and partitions.
    Describe {
        id: String,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// The producers that a topic's partitions remember, and where their open transactions begin.
    Producers {
        /// `TOPIC`, or `TOPIC:0,1` for some partitions.
        topic: Partitions,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Open transactions that no coordinator knows of any more: they hold readers of committed records back for ever.
    FindHanging {
        /// Only these topics, as `TOPIC` or `TOPIC:0,1`; all when nothing is said.
        topics: Vec<Partitions>,
        /// Only transactions whose last record is older than this.
        #[arg(long, value_parser = kit::human::duration, default_value = "15m")]
        older_than: Duration,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// End the transaction of an id, and shut out the producer that has begun it.
    ///
    /// The coordinator is asked as a new producer of the same id would ask it: it aborts what is open, and the old producer is
    /// told that it has been fenced.
    ///
    /// A transaction that hangs has no coordinator: `--at` writes what ends it to the one partition. `find-hanging` says where.
    Abort {
        #[arg(required_unless_present = "at")]
        id: Option<String>,
        /// In place of an id: where the transaction that hangs begins.
        #[arg(long, value_name = "TOPIC:PARTITION@OFFSET", conflicts_with = "id")]
        at: Option<hanging::Place>,
        /// With `--at`, although a coordinator knows of the transaction.
        #[arg(long, requires = "at")]
        force: bool,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (kafka, admin) = arguments.bootstrap.admin().await?;
    match arguments.command {
        Command::List {
            state,
            older_than,
            json,
        } => {
            let mut options = ListTransactionsOptions::default().states(state);
            if let Some(older_than) = older_than {
                options = options.min_duration(older_than);
            }
            list(&admin, options, json).await
        }
        Command::Describe { id, json } => describe(&admin, &id, json).await,
        Command::Producers { topic, json } => producers(&admin, &topic, json).await,
        Command::FindHanging {
            topics,
            older_than,
            json,
        } => find_hanging(&admin, &topics, older_than, json).await,
        Command::Abort { id, at, force } => match (at, id) {
            (Some(place), _) => hanging::abort(&kafka, &admin, &place, force).await,
            (None, Some(id)) => abort(&kafka, &admin, &id).await,
            (None, None) => bail!("say which: a transactional id, or --at"),
        },
    }
}

async fn listed(
    admin: &AdminClient,
    options: ListTransactionsOptions,
) -> anyhow::Result<Vec<TransactionListing>> {
    let mut all = Vec::new();
    for (broker, listed) in admin.list_transactions(options).await.told()? {
        all.extend(listed.told().with_context(|| format!("broker {broker}"))?);
    }
    all.sort_by(|left, right| left.transactional_id.cmp(&right.transactional_id));
    Ok(all)
}

async fn list(
    admin: &AdminClient,
    options: ListTransactionsOptions,
    json: bool,
) -> anyhow::Result<()> {
    let mut rows = vec![row(["TRANSACTIONAL ID", "STATE", "PRODUCER"])];
    let mut values = Vec::new();
    for one in listed(admin, options).await? {
        values.push(json!({
            "transactionalId": one.transactional_id, "state": one.state, "producerId": one.producer_id,
        }));
        let producer = one.producer_id.to_string();
        rows.push(row([&one.transactional_id, &one.state, &producer]));
    }
    show(json, values.into(), &rows);
    Ok(())
}

/// Describes the transaction of an id; one that does not exist is told with the ids that are like it.
async fn transaction(admin: &AdminClient, id: &str) -> anyhow::Result<TransactionDescription> {
    let described = admin.describe_transactions([id], Default::default());
    let found = described
        .await
        .told()?
        .remove(id)
        .context("the broker did not answer for the transactional id")?;
    match found.told() {
        Ok(found) => Ok(found),
        Err(error) => {
            let known = listed(admin, Default::default()).await?;
            let known: Vec<String> = known.into_iter().map(|one| one.transactional_id).collect();
            if known.iter().any(|one| one == id) {
                return Err(error).with_context(|| format!("transactional id `{id}`"));
            }
            bail!("there is no transactional id `{id}`{}", hint(id, &known))
        }
    }
}

async fn describe(admin: &AdminClient, id: &str, json: bool) -> anyhow::Result<()> {
    let found = transaction(admin, id).await?;
    let mut partitions: Vec<Partition> = found.partitions.iter().cloned().map(Into::into).collect();
    partitions.sort();
    let since = (found.start_time_ms >= 0).then(|| (now_ms() - found.start_time_ms).max(0));
    if json {
        let partitions = partitions.iter();
        let partitions = partitions.map(|p| json!({ "topic": p.topic, "partition": p.index }));
        print_json(&json!({
            "transactionalId": id,
            "state": found.state,
            "producerId": found.producer_id,
            "producerEpoch": found.producer_epoch,
            "timeoutMs": u64::try_from(found.timeout.as_millis()).unwrap_or(u64::MAX),
            "startedMs": since.is_some().then_some(found.start_time_ms),
            "partitions": partitions.collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    anstream::println!("transactional id {id}: {}", found.state);
    let timeout = kit::human::duration_text(found.timeout);
    let mut rows = vec![
        row(["producer", &found.producer_id.to_string()]),
        row(["epoch", &found.producer_epoch.to_string()]),
        row(["timeout", &timeout]),
    ];
    if let Some(since) = since {
        let seconds = since / 1000;
        let started = time_text(found.start_time_ms);
        rows.push(row(["started", &format!("{started}, {seconds} s ago")]));
    }
    for partition in &partitions {
        rows.push(row(["partition", &partition.to_string()]));
    }
    anstream::print!("{}", table(&rows));
    Ok(())
}

async fn producers_of(
    admin: &AdminClient,
    partitions: &[Partition],
) -> anyhow::Result<BTreeMap<Partition, Vec<ProducerState>>> {
    let mut all = BTreeMap::new();
    for asked in partitions.chunks(ASKED_AT_ONCE_MAX) {
        let wire = asked.iter().map(Partition::wire);
        let described = admin.describe_producers(wire, Default::default()).await;
        for (partition, producers) in described.told()? {
            let partition = Partition::from(partition);
            let producers = producers
                .told()
                .with_context(|| format!("partition {partition}"))?;
            all.insert(partition, producers);
        }
    }
    Ok(all)
}

async fn producers(admin: &AdminClient, topic: &Partitions, json: bool) -> anyhow::Result<()> {
    let partitions = topic.find(admin).await?;
    let mut rows = vec![row([
        "PARTITION",
        "PRODUCER",
        "EPOCH",
        "LAST SEQUENCE",
        "LAST RECORD",
        "OPEN SINCE OFFSET",
    ])];
    let mut values = Vec::new();
    for (partition, producers) in producers_of(admin, &partitions).await? {
        for producer in producers {
            let open = producer.current_transaction_start_offset;
            rows.push(row([
                &partition.index.to_string(),
                &producer.producer_id.to_string(),
                &producer.producer_epoch.to_string(),
                &producer.last_sequence.to_string(),
                &time_text(producer.last_timestamp),
                &open.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            ]));
            values.push(json!({
                "topic": partition.topic,
                "partition": partition.index,
                "producerId": producer.producer_id,
                "producerEpoch": producer.producer_epoch,
                "lastSequence": producer.last_sequence,
                "lastTimestampMs": producer.last_timestamp,
                "openSinceOffset": open,
            }));
        }
    }
    show(json, values.into(), &rows);
    Ok(())
}

/// An open transaction of a partition.
#[derive(Debug, Clone)]
struct Open {
    partition: Partition,
    producer: ProducerState,
    start: i64,
}

async fn find_hanging(
    admin: &AdminClient,
    topics: &[Partitions],
    older_than: Duration,
    json: bool,
) -> anyhow::Result<()> {
    let partitions = partitions(admin, topics).await?;
    let newest = now_ms() - i64::try_from(older_than.as_millis()).unwrap_or(i64::MAX);
    let mut open = Vec::new();
    for (partition, producers) in producers_of(admin, &partitions).await? {
        for producer in producers {
            if let Some(start) = producer.current_transaction_start_offset
                && producer.last_timestamp <= newest
            {
                let partition = partition.clone();
                open.push(Open {
                    partition,
                    producer,
                    start,
                });
            }
        }
    }
    let known = known(admin, &open).await?;
    open.retain(|open| hangs(open, known.get(&open.producer.producer_id)));
    let mut rows = vec![row([
        "TOPIC",
        "PARTITION",
        "PRODUCER",
        "EPOCH",
        "BEGINS AT",
        "LAST RECORD",
    ])];
    let mut values = Vec::new();
    for Open {
        partition,
        producer,
        start,
    } in &open
    {
        rows.push(row([
            &partition.topic,
            &partition.index.to_string(),
            &producer.producer_id.to_string(),
            &producer.producer_epoch.to_string(),
            &start.to_string(),
            &time_text(producer.last_timestamp),
        ]));
        values.push(json!({
            "topic": partition.topic,
            "partition": partition.index,
            "producerId": producer.producer_id,
            "producerEpoch": producer.producer_epoch,
            "coordinatorEpoch": producer.coordinator_epoch,
            "startOffset": start,
            "lastTimestampMs": producer.last_timestamp,
        }));
    }
    if open.is_empty() && !json {
        anstream::println!("no transaction hangs");
    } else {
        show(json, values.into(), &rows);
    }
    Ok(())
}

async fn partitions(admin: &AdminClient, topics: &[Partitions]) -> anyhow::Result<Vec<Partition>> {
    let mut all = Vec::new();
    for topic in topics {
        all.extend(topic.find(admin).await?);
    }
    if topics.is_empty() {
        let every = ListTopicsOptions::default().include_internal(true);
        let names = admin.list_topics(every).await.told()?;
        let described = admin.describe_topics(&names, Default::default()).await;
        for (name, topic) in described.told()? {
            let topic = topic.told().with_context(|| format!("topic `{name}`"))?;
            let led = topic.partitions.iter().filter(|p| p.leader.is_some());
            all.extend(led.map(|p| Partition::new(&name, p.partition)));
        }
    }
    Ok(all)
}

/// Returns what the coordinators know of the transactions of some producers, by their ids.
async fn known(
    admin: &AdminClient,
    open: &[Open],
) -> anyhow::Result<HashMap<i64, TransactionDescription>> {
    let mut known = HashMap::new();
    if open.is_empty() {
        return Ok(known);
    }
    let mut ids: Vec<i64> = open.iter().map(|open| open.producer.producer_id).collect();
    ids.sort_unstable();
    ids.dedup();
    let options = ListTransactionsOptions::default().producer_ids(ids);
    let listed = listed(admin, options).await?;
    let names = listed.into_iter().map(|one| one.transactional_id);
    let described = admin.describe_transactions(names, Default::default()).await;
    for (name, found) in described.told()? {
        let found = found
            .told()
            .with_context(|| format!("transactional id `{name}`"))?;
        known.insert(found.producer_id, found);
    }
    Ok(known)
}

/// Returns whether nobody will end an open transaction: its coordinator knows no such one.
fn hangs(open: &Open, known: Option<&TransactionDescription>) -> bool {
    let Some(known) = known else {
        return true;
    };
    // A newer transaction of the same producer ends none of an older epoch.
    let same = i32::from(known.producer_epoch) == open.producer.producer_epoch;
    let within = known
        .partitions
        .iter()
        .any(|p| p.topic == open.partition.topic && p.partition == open.partition.index);
    !(same && within)
}

async fn abort(kafka: &Kafka, admin: &AdminClient, id: &str) -> anyhow::Result<()> {
    let found = transaction(admin, id).await?;
    if found.state != "Ongoing" {
        bail!(
            "there is nothing to abort: the last transaction of `{id}` is in state {}",
            found.state
        );
    }
    let fencing = kafka.producer().build_transactional(id).await;
    let producer = fencing
        .told()
        .with_context(|| format!("transactional id `{id}`"))?;
    producer.close().await.told()?;
    anstream::println!("aborted {id}, its producer is shut out");
    Ok(())
}

fn show(json: bool, value: serde_json::Value, rows: &[Vec<String>]) {
    match json {
        true => print_json(&value),
        false => anstream::print!("{}", table(rows)),
    }
}
