//! `nuncio groups reset`: moves a group to other offsets.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use krafka::admin::AdminClient;
use serde_json::json;

use crate::client::{Partition, Partitions, Told, print_json, row, table};
use crate::place::{self, Place, Span};

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["to", "shift_by"]))]
#[command(group = clap::ArgGroup::new("what").required(true).args(["topic", "all_topics"]))]
pub(super) struct Arguments {
    group: String,
    /// The topic whose offsets move: `TOPIC`, or `TOPIC:0,1` for some partitions.
    #[arg(long, short = 't')]
    topic: Vec<Partitions>,
    /// All topics that the group has committed for.
    #[arg(long)]
    all_topics: bool,
    /// `beginning`, `end`, an offset, `-10` (ten before the end), a time (`2026-11-23T10:00:00Z`, `@` and
    /// milliseconds since 1970) or how long ago (`15m`).
    #[arg(long, allow_hyphen_values = true)]
    to: Option<Place>,
    /// So many records forwards, or backwards with a minus.
    #[arg(long, allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Do it; without this only what would happen is shown.
    #[arg(long)]
    execute: bool,
    /// Only show what would happen, which is also what happens without --execute.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(admin: &AdminClient, arguments: &Arguments) -> anyhow::Result<()> {
    let name = &arguments.group;
    let shared = super::share::state(admin, name).await?.is_some();
    let committed = match shared {
        true => super::share::standings(admin, name)
            .await?
            .into_iter()
            .filter_map(|(partition, standing)| Some((partition, standing.start?)))
            .collect(),
        false => committed(admin, name).await?,
    };
    let mut partitions = Vec::new();
    for topic in &arguments.topic {
        partitions.extend(topic.find(admin).await?);
    }
    if arguments.all_topics {
        partitions.extend(committed.keys().cloned());
    }
    let targets = match (arguments.to, arguments.shift_by) {
        (Some(place), _) => place::resolve(admin, &partitions, place).await?,
        (None, Some(by)) => {
            let spans = place::spans(admin, &partitions, false).await?;
            let mut targets = BTreeMap::new();
            for (partition, span) in spans {
                let Some(from) = committed.get(&partition) else {
                    bail!(
                        "group `{name}` has committed nothing for {partition}; --to says where it begins"
                    );
                };
                targets.insert(partition, shifted(*from, by, span));
            }
            targets
        }
        (None, None) => bail!("say --to or --shift-by"),
    };
    if arguments.execute {
        match shared {
            true => super::share::alter(admin, name, &targets).await?,
            false => alter(admin, name, &targets).await?,
        }
    }
    let mut rows = vec![row(["TOPIC", "PARTITION", "FROM", "TO"])];
    let mut values = Vec::new();
    for (partition, to) in &targets {
        let from = committed.get(partition);
        rows.push(row([
            &partition.topic,
            &partition.index.to_string(),
            &from.map_or_else(|| "-".to_owned(), i64::to_string),
            &to.to_string(),
        ]));
        values.push(json!({
            "topic": partition.topic, "partition": partition.index, "from": from, "to": to,
            "executed": arguments.execute,
        }));
    }
    if arguments.json {
        print_json(&values.into());
        return Ok(());
    }
    anstream::print!("{}", table(&rows));
    if arguments.execute {
        anstream::println!("reset");
    } else {
        anstream::println!("nothing changed; --execute does it");
    }
    Ok(())
}

/// Returns an offset so many further, within what the partition holds.
fn shifted(from: i64, by: i64, span: Span) -> i64 {
    from.saturating_add(by).max(span.start).min(span.end)
}

async fn committed(admin: &AdminClient, group: &str) -> anyhow::Result<BTreeMap<Partition, i64>> {
    let mut committed = BTreeMap::new();
    let listed = admin.list_consumer_group_offsets(group, Default::default());
    for (partition, offset) in listed.await.told()? {
        let partition = Partition::from(partition);
        let offset = offset
            .told()
            .with_context(|| format!("partition {partition}"))?;
        if let Some(offset) = offset.offset {
            committed.insert(partition, offset);
        }
    }
    Ok(committed)
}

async fn alter(
    admin: &AdminClient,
    name: &str,
    targets: &BTreeMap<Partition, i64>,
) -> anyhow::Result<()> {
    // Brokers refuse it with an error that means something else, so it is looked at first.
    let described = admin.describe_consumer_groups([name], Default::default());
    if let Some(Ok(group)) = described.await.told()?.remove(name)
        && !group.members.is_empty()
    {
        let clients: Vec<String> = group
            .members
            .iter()
            .map(|member| format!("{} at {}", member.client_id, member.client_host))
            .collect();
        bail!(
            "group `{name}` has members; stop them first: {}",
            clients.join(", ")
        );
    }
    let wire = targets
        .iter()
        .map(|(partition, to)| (partition.wire(), *to));
    let results = admin
        .alter_consumer_group_offsets(name, wire, Default::default())
        .await
        .told()?;
    let mut failed = Vec::new();
    for (partition, result) in results {
        if let Err(error) = result.told() {
            failed.push(format!("{}: {error:#}", Partition::from(partition)));
        }
    }
    if !failed.is_empty() {
        failed.sort();
        bail!("not reset: {}", failed.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_stays_within_the_partition() {
        let span = Span { start: 10, end: 20 };
        assert_eq!(shifted(15, -3, span), 12);
        assert_eq!(shifted(15, -30, span), 10);
        assert_eq!(shifted(15, i64::MAX, span), 20);
    }
}
