//! `nuncio topics`: list, describe, create, change and delete topics of any Kafka-compatible broker.

use std::collections::HashMap;

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::admin::{
    AdminClient, ConfigOp, ConfigResource, ListTopicsOptions, NewTopic, OffsetSpec,
    TopicDescription,
};
use krafka::consumer::TopicPartition;

use crate::client::{Bootstrap, pair, table};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All topics with their partitions and records.
    List {
        /// The broker's own topics too.
        #[arg(long)]
        internal: bool,
    },
    /// One topic: partitions with offsets, and its settings.
    Describe { topic: String },
    /// Make a topic.
    Create {
        topic: String,
        /// How many partitions; the broker's default when nothing is said.
        #[arg(long, short = 'p', default_value_t = -1)]
        partitions: i32,
        /// How many copies; the broker's default when nothing is said.
        #[arg(long, default_value_t = -1)]
        replication: i16,
        /// A setting by Kafka's name, such as `retention.ms=60000`.
        #[arg(long, short = 'c', value_parser = pair)]
        config: Vec<(String, String)>,
    },
    /// Add partitions, or change settings. Partitions are never taken away.
    Alter {
        topic: String,
        /// The new number of partitions.
        #[arg(long, short = 'p')]
        partitions: Option<i32>,
        /// A setting by Kafka's name; `NAME=` goes back to the default.
        #[arg(long, short = 'c', value_parser = pair)]
        config: Vec<(String, String)>,
    },
    /// Delete topics and all their records.
    Delete {
        #[arg(required = true)]
        topics: Vec<String>,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let kafka = arguments.bootstrap.connect().await?;
    let admin = kafka.admin();
    match arguments.command {
        Command::List { internal } => list(&admin, internal).await,
        Command::Describe { topic } => describe(&admin, &topic).await,
        Command::Create {
            topic,
            partitions,
            replication,
            config,
        } => {
            let mut new = NewTopic::new(&topic, partitions, replication)?;
            for (name, value) in config {
                new = new.with_config(name, value);
            }
            each(
                admin.create_topics([new], Default::default()).await?,
                "created",
            )
        }
        Command::Alter {
            topic,
            partitions,
            config,
        } => alter(&admin, &topic, partitions, config).await,
        Command::Delete { topics } => each(
            admin.delete_topics(&topics, Default::default()).await?,
            "deleted",
        ),
    }
}

async fn list(admin: &AdminClient, internal: bool) -> anyhow::Result<()> {
    let names = admin
        .list_topics(ListTopicsOptions::default().include_internal(internal))
        .await?;
    let mut rows = vec![row(["TOPIC", "PARTITIONS", "RECORDS"])];
    if !names.is_empty() {
        let mut described: Vec<_> = admin
            .describe_topics(&names, Default::default())
            .await?
            .into_iter()
            .collect();
        described.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, topic) in described {
            let topic = topic.with_context(|| format!("topic `{name}`"))?;
            let records: i64 = offsets(admin, &topic)
                .await?
                .values()
                .map(|(start, end)| end - start)
                .sum();
            rows.push(row([
                &name,
                &topic.partitions.len().to_string(),
                &records.to_string(),
            ]));
        }
    }
    anstream::print!("{}", table(&rows));
    Ok(())
}

async fn describe(admin: &AdminClient, name: &str) -> anyhow::Result<()> {
    let mut described = admin.describe_topics([name], Default::default()).await?;
    let topic = described
        .remove(name)
        .context("the broker did not answer for the topic")?;
    let topic = topic.with_context(|| format!("topic `{name}`"))?;
    let offsets = offsets(admin, &topic).await?;
    let mut rows = vec![row(["PARTITION", "LEADER", "START", "END", "RECORDS"])];
    for partition in &topic.partitions {
        let (start, end) = offsets
            .get(&partition.partition)
            .copied()
            .unwrap_or_default();
        let leader = partition
            .leader
            .map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let number = partition.partition.to_string();
        rows.push(row([
            &number,
            &leader,
            &start.to_string(),
            &end.to_string(),
            &(end - start).to_string(),
        ]));
    }
    anstream::print!("{}", table(&rows));
    let settings = admin
        .describe_configs([ConfigResource::topic(name)], Default::default())
        .await?;
    let mut rows = vec![row(["SETTING", "VALUE", ""])];
    for entry in settings
        .into_values()
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
    {
        let origin = if entry.is_default { "default" } else { "" };
        rows.push(row([
            &entry.name,
            entry.value.as_deref().unwrap_or_default(),
            origin,
        ]));
    }
    rows[1..].sort();
    anstream::print!("\n{}", table(&rows));
    Ok(())
}

async fn alter(
    admin: &AdminClient,
    topic: &str,
    partitions: Option<i32>,
    config: Vec<(String, String)>,
) -> anyhow::Result<()> {
    if partitions.is_none() && config.is_empty() {
        bail!("nothing to change: say --partitions or --config");
    }
    if let Some(count) = partitions {
        each(
            admin
                .create_partitions([(topic, count)], Default::default())
                .await?,
            "grown",
        )?;
    }
    if !config.is_empty() {
        let changes = config
            .into_iter()
            .map(|(name, value)| match value.is_empty() {
                true => ConfigOp::delete(name),
                false => ConfigOp::set(name, value),
            });
        let changes = [(ConfigResource::topic(topic), changes.collect::<Vec<_>>())];
        let results = admin
            .incremental_alter_configs(changes, Default::default())
            .await?;
        each(
            results
                .into_values()
                .map(|result| (topic.to_owned(), result))
                .collect(),
            "changed",
        )?;
    }
    Ok(())
}

/// Returns the first and the next offset of each partition.
pub(crate) async fn offsets(
    admin: &AdminClient,
    topic: &TopicDescription,
) -> anyhow::Result<HashMap<i32, (i64, i64)>> {
    let ask = |spec: OffsetSpec| {
        let partitions = topic
            .partitions
            .iter()
            .map(move |p| (TopicPartition::new(&topic.name, p.partition), spec));
        admin.list_offsets(partitions.collect::<Vec<_>>(), Default::default())
    };
    let (starts, ends) = (
        ask(OffsetSpec::Earliest).await?,
        ask(OffsetSpec::Latest).await?,
    );
    let mut offsets = HashMap::new();
    for (partition, end) in ends {
        let start = starts
            .get(&partition)
            .cloned()
            .context("the broker named no start offset")??;
        offsets.insert(partition.partition, (start.offset, end?.offset));
    }
    Ok(offsets)
}

/// Prints each result, and fails when one of them did.
pub(crate) fn each(results: HashMap<String, krafka::Result<()>>, done: &str) -> anyhow::Result<()> {
    let mut failed = 0;
    for (name, result) in results {
        match result {
            Ok(()) => anstream::println!("{done} {name}"),
            Err(error) => {
                failed += 1;
                anstream::eprintln!("{name}: {error}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} not {done}")
    } else {
        Ok(())
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
