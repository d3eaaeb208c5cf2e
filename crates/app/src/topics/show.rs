//! What topics look like: `list` and `describe`.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use krafka::admin::{AdminClient, ListTopicsOptions, PartitionDescription, TopicDescription};
use krafka::admin::{ConfigEntry, ConfigResource};
use serde_json::json;

use crate::client::{Partition, Told, print_json, row, table, topic};
use crate::configs;
use crate::place::{self, Span};

/// Which topics are listed, and how.
#[derive(clap::Args)]
pub(super) struct Listed {
    /// Only topics whose names contain this.
    pattern: Option<String>,
    /// The broker's own topics too.
    #[arg(long)]
    internal: bool,
    /// Only topics with partitions that have no leader.
    #[arg(long)]
    unavailable: bool,
    /// Only topics with partitions whose copies are not all in sync.
    #[arg(long)]
    under_replicated: bool,
    /// JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Listed {
    fn takes(&self, topic: &TopicDescription) -> bool {
        let any = |is: fn(&PartitionDescription) -> bool| topic.partitions.iter().any(is);
        (!self.unavailable || any(|p| p.leader.is_none()))
            && (!self.under_replicated || any(|p| p.isr.len() < p.replicas.len()))
    }
}

/// Lists topics.
pub(super) async fn list(admin: &AdminClient, listed: &Listed) -> anyhow::Result<()> {
    let all = ListTopicsOptions::default().include_internal(listed.internal);
    let mut names = admin.list_topics(all).await.told()?;
    if let Some(pattern) = &listed.pattern {
        names.retain(|name| name.contains(pattern.as_str()));
    }
    let mut topics = BTreeMap::new();
    if !names.is_empty() {
        let described = admin.describe_topics(&names, Default::default()).await;
        for (name, topic) in described.told()? {
            let topic = topic.told().with_context(|| format!("topic `{name}`"))?;
            if listed.takes(&topic) {
                topics.insert(name, topic);
            }
        }
    }
    // One question for all that has a leader; what has none has no offsets either.
    let led = topics.values().flat_map(|topic| {
        let led = topic.partitions.iter().filter(|p| p.leader.is_some());
        led.map(|p| Partition::new(&topic.name, p.partition))
    });
    let spans = place::spans(admin, &led.collect::<Vec<_>>(), false).await?;
    let mut rows = vec![row(["TOPIC", "PARTITIONS", "RECORDS"])];
    let mut values = Vec::new();
    for (name, topic) in &topics {
        let of_topic = spans
            .iter()
            .filter(|(partition, _)| partition.topic == *name);
        let records: i64 = of_topic.map(|(_, span)| span.end - span.start).sum();
        let count = topic.partitions.len();
        rows.push(row([name, &count.to_string(), &records.to_string()]));
        values.push(json!({
            "topic": name, "internal": topic.is_internal, "partitions": count, "records": records,
        }));
    }
    if listed.json {
        print_json(&values.into());
    } else {
        anstream::print!("{}", table(&rows));
    }
    Ok(())
}

/// Describes topics.
pub(super) async fn describe(
    admin: &AdminClient,
    names: &[String],
    json: bool,
) -> anyhow::Result<()> {
    let mut values = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let topic = topic(admin, name).await?;
        let seen = Seen {
            spans: spans(admin, &topic).await?,
            sizes: sizes(admin, &topic).await,
            settings: settings(admin, name).await?,
            topic,
        };
        if json {
            values.push(seen.value());
        } else {
            if number > 0 {
                anstream::println!();
            }
            seen.print();
        }
    }
    if json {
        print_json(&values.into());
    }
    Ok(())
}

/// All that is known of a topic.
struct Seen {
    topic: TopicDescription,
    spans: BTreeMap<Partition, Span>,
    sizes: HashMap<i32, i64>,
    settings: Vec<ConfigEntry>,
}

impl Seen {
    fn span(&self, index: i32) -> Option<Span> {
        let partition = Partition::new(&self.topic.name, index);
        self.spans.get(&partition).copied()
    }

    fn value(&self) -> serde_json::Value {
        let partitions: Vec<_> = self
            .topic
            .partitions
            .iter()
            .map(|p| {
                let span = self.span(p.partition);
                json!({
                    "partition": p.partition,
                    "leader": p.leader,
                    "leaderEpoch": p.leader_epoch,
                    "replicas": p.replicas,
                    "isr": p.isr,
                    "start": span.map(|span| span.start),
                    "end": span.map(|span| span.end),
                    "bytes": self.sizes.get(&p.partition),
                })
            })
            .collect();
        json!({
            "topic": self.topic.name,
            "internal": self.topic.is_internal,
            "partitions": partitions,
            "configs": configs::values(&self.settings),
        })
    }

    fn print(&self) {
        let copies = self
            .topic
            .partitions
            .first()
            .map_or(0, |p| p.replicas.len());
        anstream::println!(
            "topic {}: {}, {}",
            self.topic.name,
            counted(self.topic.partitions.len(), "partition", "partitions"),
            counted(copies, "copy", "copies"),
        );
        let mut rows = vec![row([
            "PARTITION",
            "LEADER",
            "COPIES",
            "IN SYNC",
            "START",
            "END",
            "RECORDS",
            "BYTES",
        ])];
        for p in &self.topic.partitions {
            let span = self.span(p.partition);
            let or_none = |value: Option<i64>| value.map_or("-".to_owned(), |v| v.to_string());
            rows.push(row([
                &p.partition.to_string(),
                &p.leader
                    .map_or("none".to_owned(), |leader| leader.to_string()),
                &brokers(&p.replicas),
                &brokers(&p.isr),
                &or_none(span.map(|span| span.start)),
                &or_none(span.map(|span| span.end)),
                &or_none(span.map(|span| span.end - span.start)),
                &or_none(self.sizes.get(&p.partition).copied()),
            ]));
        }
        anstream::print!("{}", table(&rows));
        if !self.settings.is_empty() {
            anstream::print!("\n{}", configs::settings_table(&self.settings));
        }
    }
}

/// Returns a number and what it counts.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn brokers(ids: &[i32]) -> String {
    let ids: Vec<String> = ids.iter().map(i32::to_string).collect();
    ids.join(",")
}

async fn spans(
    admin: &AdminClient,
    topic: &TopicDescription,
) -> anyhow::Result<BTreeMap<Partition, Span>> {
    let led = topic.partitions.iter().filter(|p| p.leader.is_some());
    let led: Vec<Partition> = led
        .map(|p| Partition::new(&topic.name, p.partition))
        .collect();
    place::spans(admin, &led, false).await
}

async fn settings(admin: &AdminClient, name: &str) -> anyhow::Result<Vec<ConfigEntry>> {
    let resource = ConfigResource::topic(name);
    let described = admin.describe_configs([resource], Default::default()).await;
    let mut settings = Vec::new();
    for entries in described.told()?.into_values() {
        settings.extend(entries.told()?.into_iter().filter(configs::differs));
    }
    settings.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(settings)
}

/// Returns the bytes of each partition at its leader; empty when the broker does not tell.
async fn sizes(admin: &AdminClient, topic: &TopicDescription) -> HashMap<i32, i64> {
    let mut leaders: Vec<i32> = topic.partitions.iter().filter_map(|p| p.leader).collect();
    leaders.sort_unstable();
    leaders.dedup();
    let wanted = topic.partitions.iter();
    let wanted = wanted.map(|p| Partition::new(&topic.name, p.partition).wire());
    let options = krafka::admin::DescribeLogDirsOptions::default().partitions(wanted.collect());
    let mut sizes = HashMap::new();
    // A user who may not see a broker's disks may still see the topic.
    let Ok(brokers) = admin.describe_log_dirs(leaders, options).await else {
        return sizes;
    };
    for (broker, folders) in brokers {
        for folder in folders
            .into_iter()
            .flatten()
            .filter_map(|(_, folder)| folder.ok())
        {
            for (partition, replica) in folder.replicas {
                let index = partition.partition;
                let leads = topic
                    .partitions
                    .iter()
                    .any(|p| p.partition == index && p.leader == Some(broker));
                if leads && !replica.is_future && partition.topic == topic.name {
                    sizes.insert(index, replica.size);
                }
            }
        }
    }
    sizes
}
