//! What groups look like: `list` and `describe`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use krafka::Kafka;
use krafka::admin::{
    AdminClient, ConsumerGroupDescription, ConsumerGroupMember, ListConsumerGroupsOptions,
};
use serde_json::{Value, json};

use super::{age, share, streams};
use crate::client::{Partition, Told, now_ms, print_json, row, table};
use crate::place;
use crate::topics::show::counted;

/// Lists groups, of some states when some are named.
pub(super) async fn list(admin: &AdminClient, states: &[String], json: bool) -> anyhow::Result<()> {
    let mut groups = Vec::new();
    let options = ListConsumerGroupsOptions::default();
    for (broker, listed) in admin.list_consumer_groups(options).await.told()? {
        groups.extend(listed.told().with_context(|| format!("broker {broker}"))?);
    }
    groups.sort_by(|left, right| left.group_id.cmp(&right.group_id));
    groups.retain(|group| {
        let state = group.state.as_deref().unwrap_or_default();
        states.is_empty()
            || states
                .iter()
                .any(|wanted| wanted.eq_ignore_ascii_case(state))
    });
    let mut rows = vec![row(["GROUP", "STATE", "TYPE", "PROTOCOL"])];
    let mut values = Vec::new();
    for group in groups {
        let kind = group.group_type.map(|kind| kind.to_string());
        values.push(json!({
            "group": group.group_id, "state": group.state, "type": kind, "protocol": group.protocol_type,
        }));
        rows.push(vec![
            group.group_id,
            group.state.unwrap_or_else(|| "-".to_owned()),
            kind.unwrap_or_else(|| "-".to_owned()),
            group.protocol_type,
        ]);
    }
    if json {
        print_json(&values.into());
    } else {
        anstream::print!("{}", table(&rows));
    }
    Ok(())
}

/// Describes groups.
pub(super) async fn describe(
    kafka: &Kafka,
    admin: &AdminClient,
    names: &[String],
    json: bool,
) -> anyhow::Result<()> {
    let mut values = Vec::new();
    for (number, name) in names.iter().enumerate() {
        if number > 0 && !json {
            anstream::println!();
        }
        let kind = share::kind(admin, name).await?;
        match kind.as_ref().map(|(kind, state)| (kind.as_str(), state)) {
            Some((share::SHARE, _)) => {
                values.extend(share::describe(kafka, admin, name, json).await?);
            }
            Some((streams::STREAMS, _)) => {
                values.extend(streams::describe(kafka, admin, name, json).await?);
            }
            _ => {
                let group = super::group(admin, name).await?;
                let progress = progress(kafka, admin, name, reads(&group)).await?;
                match json {
                    true => values.push(value(&group, &progress)),
                    false => print(&group, &progress),
                }
            }
        }
    }
    if json {
        print_json(&values.into());
    }
    Ok(())
}

/// How far a group has come in a partition.
#[derive(Debug, Default)]
pub(super) struct Progress {
    committed: Option<i64>,
    end: Option<i64>,
    /// Milliseconds since the record at the committed offset was made; nothing when there is none.
    behind_ms: Option<i64>,
    /// The member that reads it now.
    member: Option<String>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        let (committed, end) = self.committed.zip(self.end)?;
        Some((end - committed).max(0))
    }
}

/// The partitions that each member reads.
fn reads(group: &ConsumerGroupDescription) -> Vec<(Partition, String)> {
    let each = group.members.iter().flat_map(|member| {
        let assigned = assigned(member);
        assigned.flat_map(move |(topic, partitions)| {
            let each = partitions.iter();
            each.map(move |index| (Partition::new(topic, *index), member.member_id.clone()))
        })
    });
    each.collect()
}

/// Returns how far a group has come in what it has committed, and in what its members read.
pub(super) async fn progress(
    kafka: &Kafka,
    admin: &AdminClient,
    name: &str,
    reads: Vec<(Partition, String)>,
) -> anyhow::Result<BTreeMap<Partition, Progress>> {
    let mut all: BTreeMap<Partition, Progress> = BTreeMap::new();
    for (partition, member) in reads {
        all.entry(partition).or_default().member = Some(member);
    }
    let committed = admin.list_consumer_group_offsets(name, Default::default());
    for (partition, offset) in committed.await.told()? {
        let partition = Partition::from(partition);
        let offset = offset
            .told()
            .with_context(|| format!("partition {partition}"))?;
        all.entry(partition).or_default().committed = offset.offset;
    }
    // Topics may be gone while what was committed for them is not.
    let mut there = Vec::new();
    let mut topics: Vec<&str> = all.keys().map(|p| p.topic.as_str()).collect();
    topics.dedup();
    for (name, topic) in admin
        .describe_topics(&topics, Default::default())
        .await
        .told()?
    {
        let led = topic.into_iter().flat_map(|topic| topic.partitions);
        let led = led.filter(|p| p.leader.is_some());
        there.extend(led.map(|p| Partition::new(&name, p.partition)));
    }
    there.retain(|partition| all.contains_key(partition));
    let spans = place::spans(admin, &there, false).await?;
    let mut wanted = BTreeMap::new();
    for (partition, span) in spans {
        let progress = all.entry(partition.clone()).or_default();
        progress.end = Some(span.end);
        match progress.committed {
            Some(committed) if committed < span.end => {
                _ = wanted.insert(partition, committed.max(span.start));
            }
            Some(_) => progress.behind_ms = Some(0),
            None => (),
        }
    }
    let now = now_ms();
    for (partition, timestamp) in age::timestamps(kafka, &wanted).await? {
        let behind = (timestamp >= 0).then(|| (now - timestamp).max(0));
        all.entry(partition).or_default().behind_ms = behind;
    }
    Ok(all)
}

fn value(group: &ConsumerGroupDescription, progress: &BTreeMap<Partition, Progress>) -> Value {
    let members: Vec<Value> = group
        .members
        .iter()
        .map(|member| {
            json!({
                "member": member.member_id,
                "instance": member.instance_id,
                "client": member.client_id,
                "host": member.client_host,
                "assignment": assigned(member).map(|(topic, partitions)| json!({
                    "topic": topic, "partitions": partitions,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "group": group.group_id,
        "state": group.state,
        "type": group.group_type.to_string(),
        "assignor": group.assignor,
        "lag": total(progress),
        "members": members,
        "partitions": partition_values(progress),
    })
}

pub(super) fn partition_values(progress: &BTreeMap<Partition, Progress>) -> Vec<Value> {
    progress
        .iter()
        .map(|(partition, progress)| {
            json!({
                "topic": partition.topic,
                "partition": partition.index,
                "committed": progress.committed,
                "end": progress.end,
                "lag": progress.lag(),
                "lagSeconds": progress.behind_ms.map(|ms| ms as f64 / 1000.0),
                "member": progress.member,
            })
        })
        .collect()
}

pub(super) fn total(progress: &BTreeMap<Partition, Progress>) -> i64 {
    progress.values().filter_map(Progress::lag).sum()
}

fn assigned(member: &ConsumerGroupMember) -> impl Iterator<Item = (&str, &[i32])> {
    let assigned = member.assignment.iter().flatten();
    assigned.map(|of| (of.topic_name.as_str(), of.partitions.as_slice()))
}

fn print(group: &ConsumerGroupDescription, progress: &BTreeMap<Partition, Progress>) {
    anstream::println!(
        "group {}: {}, {}, {} behind",
        group.group_id,
        group.state,
        counted(group.members.len(), "member", "members"),
        counted(
            usize::try_from(total(progress)).unwrap_or(0),
            "record",
            "records"
        ),
    );
    let mut rows = Vec::new();
    for member in &group.members {
        let partitions: Vec<String> = assigned(member)
            .map(|(topic, partitions)| {
                let partitions: Vec<String> = partitions.iter().map(i32::to_string).collect();
                format!("{topic}:{}", partitions.join(","))
            })
            .collect();
        rows.push(row([
            &member.member_id,
            member.instance_id.as_deref().unwrap_or("-"),
            &member.client_id,
            &member.client_host,
            &partitions.join(" "),
        ]));
    }
    if !rows.is_empty() {
        rows.sort();
        rows.insert(0, row(["MEMBER", "INSTANCE", "CLIENT", "HOST", "READS"]));
        anstream::print!("\n{}", table(&rows));
    }
    print_partitions(progress);
}

pub(super) fn print_partitions(progress: &BTreeMap<Partition, Progress>) {
    let mut rows = vec![row([
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
        "BEHIND",
        "MEMBER",
    ])];
    let or_none = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |v| v.to_string());
    for (partition, progress) in progress {
        let behind = progress.behind_ms;
        rows.push(row([
            &partition.topic,
            &partition.index.to_string(),
            &or_none(progress.committed),
            &or_none(progress.end),
            &or_none(progress.lag()),
            &behind.map_or_else(|| "-".to_owned(), age_text),
            progress.member.as_deref().unwrap_or("-"),
        ]));
    }
    anstream::print!("\n{}", table(&rows));
}

/// Writes an age with as much precision as anybody wants.
fn age_text(ms: i64) -> String {
    let seconds = Duration::from_millis(ms.unsigned_abs()).as_secs();
    match seconds {
        0 if ms == 0 => "0s".to_owned(),
        0 => format!("{:.1}s", ms as f64 / 1000.0),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_two_units_at_most() {
        let told = [0, 300, 59_999, 61_000, 3_720_000, 90_000_000].map(age_text);
        assert_eq!(told, ["0s", "0.3s", "59s", "1m1s", "1h2m", "1d1h"]);
    }

    #[test]
    fn what_was_not_committed_has_no_lag() {
        let mut progress = Progress {
            end: Some(5),
            ..Progress::default()
        };
        assert_eq!(progress.lag(), None);
        progress.committed = Some(3);
        assert_eq!(progress.lag(), Some(2));
        progress.committed = Some(9);
        assert_eq!(progress.lag(), Some(0));
    }
}
