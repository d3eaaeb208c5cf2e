//! `nuncio topics`: list, describe, create, change and delete topics of any Kafka-compatible broker.

pub(crate) mod show;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::KrafkaError;
use krafka::admin::{
    AdminClient, ConfigOp, ConfigResource, CreatePartitionsOptions, CreateTopicsOptions,
    IncrementalAlterConfigsOptions, NewTopic,
};
use krafka::error::ErrorCode;
use serde_json::json;

use crate::client::{
    Bootstrap, Partitions, Told, each, is_unknown_topic, pair, print_json, row, table,
};
use crate::place::{self, Place};

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
        #[command(flatten)]
        listed: show::Listed,
    },
    /// Topics: partitions with leaders and offsets, and the settings that differ from the default.
    Describe {
        #[arg(required = true)]
        topics: Vec<String>,
        /// JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
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
        /// A topic that is there already is no error; it stays as it is.
        #[arg(long)]
        if_not_exists: bool,
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
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
        /// Ask the broker whether it would, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete topics and all their records.
    Delete {
        #[arg(required = true)]
        topics: Vec<String>,
        /// A topic that is not there is no error.
        #[arg(long)]
        if_exists: bool,
    },
    /// Delete the records before a place, in all partitions or some.
    DeleteRecords {
        /// `TOPIC`, or `TOPIC:0,1` for some partitions.
        topic: Partitions,
        /// `end` deletes all; an offset, `-10` (keep ten), a time (`2026-11-23T10:00:00Z`) or an age (`7d`).
        #[arg(long, allow_hyphen_values = true)]
        before: Place,
        /// Do it; without this only what would happen is shown.
        #[arg(long)]
        execute: bool,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (_kafka, admin) = arguments.bootstrap.admin().await?;
    match arguments.command {
        Command::List { listed } => show::list(&admin, &listed).await,
        Command::Describe { topics, json } => show::describe(&admin, &topics, json).await,
        Command::Create {
            topic,
            partitions,
            replication,
            config,
            if_not_exists,
            dry_run,
        } => {
            let mut new = NewTopic::new(&topic, partitions, replication).told()?;
            for (name, value) in config {
                new = new.with_config(name, value);
            }
            let options = CreateTopicsOptions::default().validate_only(dry_run);
            let mut results = admin.create_topics([new], options).await.told()?;
            if if_not_exists {
                results.retain(|name, result| !stays(name, result, ErrorCode::TopicAlreadyExists));
            }
            each(results, done("created", dry_run))
        }
        Command::Alter {
            topic,
            partitions,
            config,
            dry_run,
        } => alter(&admin, &topic, partitions, config, dry_run).await,
        Command::Delete { topics, if_exists } => delete(&admin, &topics, if_exists).await,
        Command::DeleteRecords {
            topic,
            before,
            execute,
            json,
        } => delete_records(&admin, &topic, before, execute, json).await,
    }
}

fn done(done: &'static str, dry_run: bool) -> &'static str {
    match (done, dry_run) {
        ("created", true) => "could be created:",
        ("grown", true) => "could be grown:",
        ("changed", true) => "could be changed:",
        _ => done,
    }
}

/// Returns whether a refusal only says that nothing is to be done, and tells so.
fn stays(name: &str, result: &krafka::Result<()>, harmless: ErrorCode) -> bool {
    let stays = matches!(result, Err(KrafkaError::Broker { code, .. }) if *code == harmless);
    if stays {
        anstream::println!("nothing to do for {name}");
    }
    stays
}

async fn alter(
    admin: &AdminClient,
    topic: &str,
    partitions: Option<i32>,
    config: Vec<(String, String)>,
    dry_run: bool,
) -> anyhow::Result<()> {
    if partitions.is_none() && config.is_empty() {
        bail!("nothing to change: say --partitions or --config");
    }
    crate::client::topic(admin, topic).await?;
    if let Some(count) = partitions {
        let options = CreatePartitionsOptions::default().validate_only(dry_run);
        let grown = admin.create_partitions([(topic, count)], options).await;
        each(grown.told()?, done("grown", dry_run))?;
    }
    if !config.is_empty() {
        let changes = config
            .into_iter()
            .map(|(name, value)| match value.is_empty() {
                true => ConfigOp::delete(name),
                false => ConfigOp::set(name, value),
            });
        let changes = [(ConfigResource::topic(topic), changes.collect::<Vec<_>>())];
        let options = IncrementalAlterConfigsOptions::default().validate_only(dry_run);
        let results = admin.incremental_alter_configs(changes, options).await;
        let results = results.told()?.into_values();
        let named: HashMap<_, _> = results.map(|result| (topic.to_owned(), result)).collect();
        each(named, done("changed", dry_run))?;
    }
    Ok(())
}

async fn delete(admin: &AdminClient, topics: &[String], if_exists: bool) -> anyhow::Result<()> {
    let mut results = admin
        .delete_topics(topics, Default::default())
        .await
        .told()?;
    if if_exists {
        results.retain(|name, result| !stays(name, result, ErrorCode::UnknownTopicOrPartition));
    }
    let unknown: Vec<String> = results
        .iter()
        .filter(|(_, result)| result.as_ref().is_err_and(is_unknown_topic))
        .map(|(name, _)| name.clone())
        .collect();
    let failed = each(results, "deleted");
    for name in unknown {
        // Says what is like it.
        if let Err(error) = crate::client::topic(admin, &name).await {
            anstream::eprintln!("{error:#}");
        }
    }
    failed
}

async fn delete_records(
    admin: &AdminClient,
    partitions: &Partitions,
    before: Place,
    execute: bool,
    json: bool,
) -> anyhow::Result<()> {
    let partitions = partitions.find(admin).await?;
    let spans = place::spans(admin, &partitions, false).await?;
    let targets = place::resolve(admin, &partitions, before).await?;
    let mut starts = HashMap::new();
    if execute {
        let asked = targets.iter().map(|(p, offset)| (p.wire(), *offset));
        // Deleting waits for what is being written; give it the time.
        let options =
            krafka::admin::DeleteRecordsOptions::default().timeout(Duration::from_secs(60));
        for (partition, start) in admin.delete_records(asked, options).await.told()? {
            let partition = crate::client::Partition::from(partition);
            let start = start
                .told()
                .with_context(|| format!("partition {partition}"))?;
            starts.insert(partition, start);
        }
    }
    let mut rows = vec![row(["TOPIC", "PARTITION", "START", "NEW START", "DELETED"])];
    let mut values = Vec::new();
    for (partition, before) in &targets {
        let old = spans.get(partition).map_or(0, |span| span.start);
        let new = starts.get(partition).copied().unwrap_or(*before);
        rows.push(row([
            &partition.topic,
            &partition.index.to_string(),
            &old.to_string(),
            &new.to_string(),
            &(new - old).to_string(),
        ]));
        values.push(json!({
            "topic": partition.topic, "partition": partition.index,
            "start": old, "newStart": new, "executed": execute,
        }));
    }
    if json {
        print_json(&values.into());
        return Ok(());
    }
    anstream::print!("{}", table(&rows));
    if !execute {
        anstream::println!("nothing deleted; --execute does it");
    }
    Ok(())
}
