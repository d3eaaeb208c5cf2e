//! Share groups (KIP-932): who is in each, where it stands in its partitions, and how that is moved.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use kafka::messages::share_group_describe::{DescribedGroup, Member, ShareGroupDescribeRequest};
use krafka::Kafka;
use krafka::admin::AdminClient;
use serde_json::{Value, json};

use crate::client::{Partition, To, Told, ask, checked, coordinator, row, table};
use crate::place;
use crate::topics::show::counted;

/// The type of a share group in lists.
pub(super) const SHARE: &str = "share";

/// Returns the state of a share group, nothing when a group is of another type or not there.
pub(super) async fn state(admin: &AdminClient, name: &str) -> anyhow::Result<Option<String>> {
    let found = kind(admin, name).await?;
    Ok(found
        .filter(|(kind, _)| kind == SHARE)
        .map(|(_, state)| state))
}

/// Returns the type of a group in small letters and its state, nothing when it is not there or too old to have a type.
pub(super) async fn kind(
    admin: &AdminClient,
    name: &str,
) -> anyhow::Result<Option<(String, String)>> {
    let listed = admin.list_consumer_groups(Default::default());
    for (broker, listed) in listed.await.told()? {
        let listed = listed.told().with_context(|| format!("broker {broker}"))?;
        for group in listed.into_iter().filter(|group| group.group_id == name) {
            if let Some(kind) = group.group_type {
                let state = group.state.unwrap_or_else(|| "-".to_owned());
                return Ok(Some((kind.to_string().to_ascii_lowercase(), state)));
            }
        }
    }
    Ok(None)
}

/// Where a share group stands in a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// The first record that is not processed; nothing before the first one was read.
    pub(super) start: Option<i64>,
    lag: Option<i64>,
}

/// Returns where a share group stands.
pub(super) async fn standings(
    admin: &AdminClient,
    name: &str,
) -> anyhow::Result<BTreeMap<Partition, Standing>> {
    let mut standings = BTreeMap::new();
    let offsets = admin.describe_share_group_offsets(name, Default::default());
    for (partition, offset) in offsets.await.told()? {
        let partition = Partition::from(partition);
        let offset = offset
            .told()
            .with_context(|| format!("partition {partition}"))?;
        let known = |number: i64| (number >= 0).then_some(number);
        let standing = Standing {
            start: known(offset.start_offset),
            lag: offset.lag.and_then(known),
        };
        standings.insert(partition, standing);
    }
    Ok(standings)
}

/// Returns what the coordinator of a share group tells of it.
async fn described(kafka: &Kafka, name: &str) -> anyhow::Result<DescribedGroup> {
    let request = ShareGroupDescribeRequest {
        group_ids: vec![name.to_owned()],
        ..ShareGroupDescribeRequest::default()
    };
    let to = To::Broker(coordinator(kafka, name).await?);
    let answer = ask(kafka, to, &request).await?;
    let group = answer.groups.into_iter().next();
    let group = group.context("the broker did not answer for the group")?;
    checked(group.error_code, group.error_message.as_deref())
        .with_context(|| format!("group `{name}`"))?;
    Ok(group)
}

fn member_value(member: &Member) -> Value {
    let assigned = member.assignment.topic_partitions.iter();
    let assigned =
        assigned.map(|of| json!({ "topic": of.topic_name, "partitions": of.partitions }));
    json!({
        "member": member.member_id,
        "rack": member.rack_id,
        "client": member.client_id,
        "host": member.client_host,
        "assignment": assigned.collect::<Vec<_>>(),
    })
}

fn member_row(member: &Member) -> Vec<String> {
    let assigned = member.assignment.topic_partitions.iter();
    let mut assigned: Vec<String> = assigned
        .map(|of| {
            let partitions: Vec<String> = of.partitions.iter().map(i32::to_string).collect();
            format!("{}:{}", of.topic_name, partitions.join(","))
        })
        .collect();
    assigned.sort();
    row([
        &member.member_id,
        &member.client_id,
        &member.client_host,
        &assigned.join(" "),
    ])
}

/// Describes a share group, as text or as a value.
pub(super) async fn describe(
    kafka: &Kafka,
    admin: &AdminClient,
    name: &str,
    json: bool,
) -> anyhow::Result<Option<Value>> {
    let standings = standings(admin, name).await?;
    let group = described(kafka, name).await?;
    let there: Vec<Partition> = standings.keys().cloned().collect();
    let spans = place::spans(admin, &there, false).await?;
    let lag: i64 = standings.values().filter_map(|one| one.lag).sum();
    if json {
        let partitions = standings.iter().map(|(partition, standing)| {
            json!({
                "topic": partition.topic,
                "partition": partition.index,
                "start": standing.start,
                "end": spans.get(partition).map(|span| span.end),
                "lag": standing.lag,
            })
        });
        return Ok(Some(json!({
            "group": name,
            "state": group.group_state,
            "type": SHARE,
            "lag": lag,
            "members": group.members.iter().map(member_value).collect::<Vec<_>>(),
            "partitions": partitions.collect::<Vec<_>>(),
        })));
    }
    let behind = counted(usize::try_from(lag).unwrap_or(0), "record", "records");
    anstream::println!(
        "share group {name}: {}, {}, {behind} not processed",
        group.group_state,
        counted(group.members.len(), "member", "members"),
    );
    let mut members: Vec<_> = group.members.iter().map(member_row).collect();
    if !members.is_empty() {
        members.sort();
        members.insert(0, row(["MEMBER", "CLIENT", "HOST", "READS"]));
        anstream::print!("\n{}", table(&members));
    }
    let or_none = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let mut rows = vec![row(["TOPIC", "PARTITION", "START", "END", "LAG"])];
    for (partition, standing) in &standings {
        rows.push(row([
            &partition.topic,
            &partition.index.to_string(),
            &or_none(standing.start),
            &or_none(spans.get(partition).map(|span| span.end)),
            &or_none(standing.lag),
        ]));
    }
    anstream::print!("\n{}", table(&rows));
    Ok(None)
}

/// Moves a share group without members.
pub(super) async fn alter(
    admin: &AdminClient,
    name: &str,
    targets: &BTreeMap<Partition, i64>,
) -> anyhow::Result<()> {
    let wire = targets
        .iter()
        .map(|(partition, to)| (partition.wire(), *to));
    let results = admin.alter_share_group_offsets(name, wire, Default::default());
    let mut failed = Vec::new();
    for (partition, result) in results.await.told()? {
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
