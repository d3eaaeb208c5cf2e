//! Streams groups (KIP-1071): who runs which tasks of an application, and how far it is.

use anyhow::Context;
use krafka::Kafka;
use krafka::admin::{AdminClient, DescribedStreamsGroup, StreamsGroupMember, StreamsTaskIds};
use serde_json::{Value, json};

use super::show::{Progress, partition_values, print_partitions, progress, total};
use crate::client::{Partition, Told, row, table};
use crate::topics::show::counted;

/// The type of a streams group in lists.
pub(super) const STREAMS: &str = "streams";

/// Describes a streams group, as text or as a value.
pub(super) async fn describe(
    kafka: &Kafka,
    admin: &AdminClient,
    name: &str,
    json: bool,
) -> anyhow::Result<Option<Value>> {
    let described = admin.describe_streams_groups([name], Default::default());
    let group = described.await.told()?.remove(name);
    let group = group.context("the broker did not answer for the group")?;
    let group = group.told().with_context(|| format!("group `{name}`"))?;
    let progress = progress(kafka, admin, name, reads(&group)).await?;
    if json {
        return Ok(Some(value(&group, &progress)));
    }
    anstream::println!(
        "streams group {name}: {}, {}, {} behind",
        group.group_state,
        counted(group.members.len(), "member", "members"),
        counted(
            usize::try_from(total(&progress)).unwrap_or(0),
            "record",
            "records"
        ),
    );
    let mut rows: Vec<_> = group
        .members
        .iter()
        .map(|member| {
            row([
                &member.member_id,
                &member.process_id,
                &member.client_id,
                &member.client_host,
                &tasks(&member.assignment.active_tasks),
                &tasks(&member.assignment.standby_tasks),
            ])
        })
        .collect();
    if !rows.is_empty() {
        rows.sort();
        let head = ["MEMBER", "PROCESS", "CLIENT", "HOST", "RUNS", "STANDS BY"];
        rows.insert(0, row(head));
        anstream::print!("\n{}", table(&rows));
    }
    print_partitions(&progress);
    Ok(None)
}

/// The partitions that each member's tasks read.
fn reads(group: &DescribedStreamsGroup) -> Vec<(Partition, String)> {
    let parts = group.topology.iter().flat_map(|one| &one.subtopologies);
    let parts: Vec<_> = parts.flatten().collect();
    let mut reads = Vec::new();
    for member in &group.members {
        for task in &member.assignment.active_tasks {
            let part = parts
                .iter()
                .find(|part| part.subtopology_id == task.subtopology_id);
            let Some(part) = part else { continue };
            let own = part.repartition_source_topics.iter();
            let topics = part.source_topics.iter().chain(own.map(|own| &own.name));
            for topic in topics {
                let each = task.partitions.iter();
                let each = each.map(|index| Partition::new(topic, *index));
                reads.extend(each.map(|partition| (partition, member.member_id.clone())));
            }
        }
    }
    reads
}

/// Tasks as Kafka Streams names them, a part and its partitions at a time.
fn tasks(tasks: &[StreamsTaskIds]) -> String {
    let mut each: Vec<String> = tasks
        .iter()
        .map(|task| {
            let partitions: Vec<String> = task.partitions.iter().map(i32::to_string).collect();
            format!("{}:{}", task.subtopology_id, partitions.join(","))
        })
        .collect();
    each.sort();
    match each.is_empty() {
        true => "-".to_owned(),
        false => each.join(" "),
    }
}

fn value(
    group: &DescribedStreamsGroup,
    progress: &std::collections::BTreeMap<Partition, Progress>,
) -> Value {
    let list = |tasks: &[StreamsTaskIds]| {
        let each = tasks.iter().map(
            |task| json!({ "subtopology": task.subtopology_id, "partitions": task.partitions }),
        );
        each.collect::<Vec<_>>()
    };
    let member = |member: &StreamsGroupMember| {
        json!({
            "member": member.member_id,
            "process": member.process_id,
            "client": member.client_id,
            "host": member.client_host,
            "active": list(&member.assignment.active_tasks),
            "standby": list(&member.assignment.standby_tasks),
        })
    };
    json!({
        "group": group.group_id,
        "state": group.group_state,
        "type": STREAMS,
        "lag": total(progress),
        "members": group.members.iter().map(member).collect::<Vec<_>>(),
        "partitions": partition_values(progress),
    })
}
