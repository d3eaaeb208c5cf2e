//! `nuncio groups`: list, describe, reset and delete consumer, share and streams groups of any Kafka-compatible broker.

mod age;
mod reset;
mod share;
mod show;
mod streams;

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::KrafkaError;
use krafka::admin::{AdminClient, ConsumerGroupDescription};
use krafka::error::ErrorCode;

use crate::client::{Bootstrap, Partition, Partitions, Told, each, hint};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All groups with their state.
    List {
        /// Only groups in this state, such as `stable` or `empty`.
        #[arg(long)]
        state: Vec<String>,
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Groups: members, and how far behind they are in each partition, in records and in time.
    ///
    /// LAG is the end of the partition minus the committed offset. BEHIND is the time now minus the timestamp of the record at the
    /// committed offset (the oldest that the group has not committed), nothing where there is no such record.
    Describe {
        #[arg(required_unless_present = "all")]
        groups: Vec<String>,
        /// All groups.
        #[arg(long, conflicts_with = "groups")]
        all: bool,
        /// JSON instead of tables.
        #[arg(long)]
        json: bool,
    },
    /// Move a group that has no members to other offsets.
    Reset(reset::Arguments),
    /// Delete groups that have no members, with their offsets.
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
    /// Forget what a group has committed for topics that it no longer reads.
    DeleteOffsets {
        group: String,
        /// `TOPIC`, or `TOPIC:0,1` for some partitions.
        #[arg(long, short = 't', required = true)]
        topic: Vec<Partitions>,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let (kafka, admin) = arguments.bootstrap.admin().await?;
    match arguments.command {
        Command::List { state, json } => show::list(&admin, &state, json).await,
        Command::Describe { groups, all, json } => {
            let groups = if all { names(&admin).await? } else { groups };
            show::describe(&kafka, &admin, &groups, json).await
        }
        Command::Reset(arguments) => reset::run(&admin, &arguments).await,
        Command::Delete { groups } => {
            let deleted = admin.delete_consumer_groups(&groups, Default::default());
            each(deleted.await.told()?, "deleted")
        }
        Command::DeleteOffsets { group, topic } => delete_offsets(&admin, &group, &topic).await,
    }
}

/// Returns the ids of all groups.
async fn names(admin: &AdminClient) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for (broker, listed) in admin
        .list_consumer_groups(Default::default())
        .await
        .told()?
    {
        let listed = listed.told().with_context(|| format!("broker {broker}"))?;
        names.extend(listed.into_iter().map(|group| group.group_id));
    }
    names.sort();
    Ok(names)
}

/// Describes a group; one that does not exist is told with the names that are like it.
async fn group(admin: &AdminClient, name: &str) -> anyhow::Result<ConsumerGroupDescription> {
    let described = admin.describe_consumer_groups([name], Default::default());
    let mut described = described.await.told()?;
    let found = described
        .remove(name)
        .context("the broker did not answer for the group")?;
    let there = match &found {
        // Older brokers call a group that they do not know dead.
        Ok(group) => group.state != "Dead",
        Err(KrafkaError::Broker { code, .. }) => *code != ErrorCode::GroupIdNotFound,
        Err(_) => true,
    };
    if !there {
        let known = names(admin).await?;
        bail!("there is no group `{name}`{}", hint(name, &known));
    }
    found.told().with_context(|| format!("group `{name}`"))
}

async fn delete_offsets(
    admin: &AdminClient,
    name: &str,
    topics: &[Partitions],
) -> anyhow::Result<()> {
    if share::state(admin, name).await?.is_some() {
        if topics.iter().any(|topic| !topic.indexes.is_empty()) {
            bail!("a share group forgets whole topics only");
        }
        let names = topics.iter().map(|topic| topic.topic.as_str());
        let forgotten = admin.delete_share_group_offsets(name, names, Default::default());
        return each(forgotten.await.told()?, "forgotten");
    }
    if share::kind(admin, name)
        .await?
        .is_none_or(|(kind, _)| kind != streams::STREAMS)
    {
        group(admin, name).await?;
    }
    let mut partitions = Vec::new();
    for topic in topics {
        partitions.extend(topic.find(admin).await?);
    }
    let wire = partitions.iter().map(Partition::wire);
    let results = admin
        .delete_consumer_group_offsets(name, wire, Default::default())
        .await
        .told()?;
    let named = results.into_iter();
    let named = named.map(|(partition, result)| (Partition::from(partition).to_string(), result));
    each(named.collect(), "forgotten")
}
