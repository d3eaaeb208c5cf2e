//! `nuncio groups`: list, describe, reset and delete consumer groups of any Kafka-compatible broker.

use anyhow::{Context, bail};
use clap::Subcommand;
use krafka::admin::{AdminClient, OffsetSpec};
use krafka::consumer::TopicPartition;

use crate::client::{Bootstrap, table};
use crate::topics;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// All consumer groups with their state.
    List,
    /// One group: members, and lag per partition.
    Describe { group: String },
    /// Move a group that has no members to other offsets.
    Reset {
        group: String,
        /// The topic whose offsets move.
        #[arg(long, short = 't')]
        topic: String,
        /// `earliest`, `latest`, or milliseconds since 1970.
        #[arg(long)]
        to: String,
        /// Do it; without this only what would happen is shown.
        #[arg(long)]
        execute: bool,
    },
    /// Delete groups that have no members, with their offsets.
    Delete {
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let kafka = arguments.bootstrap.connect().await?;
    let admin = kafka.admin();
    match arguments.command {
        Command::List => list(&admin).await,
        Command::Describe { group } => describe(&admin, &group).await,
        Command::Reset {
            group,
            topic,
            to,
            execute,
        } => reset(&admin, &group, &topic, &to, execute).await,
        Command::Delete { groups } => topics::each(
            admin
                .delete_consumer_groups(&groups, Default::default())
                .await?,
            "deleted",
        ),
    }
}

async fn list(admin: &AdminClient) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (broker, listed) in admin.list_consumer_groups(Default::default()).await? {
        for group in listed.with_context(|| format!("broker {broker}"))? {
            rows.push(vec![
                group.group_id,
                group.state.unwrap_or_default(),
                group.protocol_type,
            ]);
        }
    }
    rows.sort();
    rows.insert(
        0,
        ["GROUP", "STATE", "PROTOCOL"].map(str::to_owned).to_vec(),
    );
    anstream::print!("{}", table(&rows));
    Ok(())
}

async fn describe(admin: &AdminClient, name: &str) -> anyhow::Result<()> {
    let mut described = admin
        .describe_consumer_groups([name], Default::default())
        .await?;
    let group = described
        .remove(name)
        .context("the broker did not answer for the group")?;
    let group = group.with_context(|| format!("group `{name}`"))?;
    anstream::println!(
        "group {name}: {}, {} members",
        group.state,
        group.members.len()
    );
    let mut rows: Vec<Vec<String>> = Vec::new();
    for member in &group.members {
        let owner = format!("{} ({})", member.member_id, member.client_host);
        rows.push(vec![owner, member.client_id.clone()]);
    }
    if !rows.is_empty() {
        rows.sort();
        rows.insert(0, ["MEMBER", "CLIENT"].map(str::to_owned).to_vec());
        anstream::print!("\n{}", table(&rows));
    }
    let mut rows = Vec::new();
    for (partition, lag) in admin.consumer_group_lag(name, Default::default()).await? {
        let lag =
            lag.with_context(|| format!("partition {}/{}", partition.topic, partition.partition))?;
        let or_none =
            |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let (committed, end) = (or_none(lag.committed_offset), lag.end_offset.to_string());
        rows.push((
            (partition.topic, partition.partition),
            [committed, end, or_none(lag.lag)],
        ));
    }
    rows.sort();
    let mut lines = vec![
        ["TOPIC", "PARTITION", "COMMITTED", "END", "LAG"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for ((topic, partition), [committed, end, lag]) in rows {
        lines.push(vec![topic, partition.to_string(), committed, end, lag]);
    }
    anstream::print!("\n{}", table(&lines));
    Ok(())
}

async fn reset(
    admin: &AdminClient,
    group: &str,
    topic: &str,
    to: &str,
    execute: bool,
) -> anyhow::Result<()> {
    let spec = match to {
        "earliest" => OffsetSpec::Earliest,
        "latest" => OffsetSpec::Latest,
        time => OffsetSpec::Timestamp(time.parse().with_context(|| {
            format!("`{time}` is neither `earliest`, nor `latest`, nor milliseconds since 1970")
        })?),
    };
    let mut described = admin.describe_topics([topic], Default::default()).await?;
    let described = described
        .remove(topic)
        .context("the broker did not answer for the topic")?;
    let described = described.with_context(|| format!("topic `{topic}`"))?;
    let ends = topics::offsets(admin, &described).await?;
    let ask = described
        .partitions
        .iter()
        .map(|p| (TopicPartition::new(topic, p.partition), spec));
    let mut targets = Vec::new();
    for (partition, found) in admin
        .list_offsets(ask.collect::<Vec<_>>(), Default::default())
        .await?
    {
        // No record is that new: the group goes on at the end.
        let end = ends.get(&partition.partition).map_or(0, |(_, end)| *end);
        targets.push((
            partition,
            Some(found?.offset)
                .filter(|offset| *offset >= 0)
                .unwrap_or(end),
        ));
    }
    targets.sort_by_key(|(partition, _)| partition.partition);
    let mut rows = vec![["TOPIC", "PARTITION", "TO"].map(str::to_owned).to_vec()];
    rows.extend(
        targets
            .iter()
            .map(|(p, offset)| vec![p.topic.clone(), p.partition.to_string(), offset.to_string()]),
    );
    anstream::print!("{}", table(&rows));
    if !execute {
        anstream::println!("nothing changed; --execute does it");
        return Ok(());
    }
    let results = admin
        .alter_consumer_group_offsets(group, targets, Default::default())
        .await?;
    let failed: Vec<String> = results
        .into_iter()
        .filter_map(|(p, result)| {
            result
                .err()
                .map(|error| format!("{}/{}: {error}", p.topic, p.partition))
        })
        .collect();
    if !failed.is_empty() {
        bail!("not reset: {}", failed.join("; "));
    }
    anstream::println!("reset");
    Ok(())
}
