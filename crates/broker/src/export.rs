//! What is told of topics, partitions and groups when somebody asks for the metrics: as it is then, nothing is kept for it.
//!
//! Each thing has its own labels, and every series costs whoever stores the metrics; so there are limits, and what is beyond
//! them is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use kit::memory::Memory;
use observe::metrics::{Kind, Page, Source, labels};

use crate::core::Core;
use crate::share::records::Key;
use crate::share::terms::UNKNOWN;

/// Partitions that are told, in the order of their topics' names.
const PARTITIONS_TOLD_MAX: usize = 2_000;
/// Groups that are told, in the order of their ids.
const GROUPS_TOLD_MAX: usize = 1_000;
/// Pairs of a group and a topic whose lag is told.
const LAGS_TOLD_MAX: usize = 5_000;

impl Source for Core {
    fn tell(&self, page: &mut Page) {
        let partitions = partitions(self, page);
        let (groups, lags) = groups(self, page);
        self.clients.tell(page);
        memory(&self.memory, page);
        let mut family = page.family(
            "nuncio_broker_metrics_left_out",
            Kind::Gauge,
            "Partitions, groups and lags that are not told because there are too many",
        );
        for (kind, count) in [("partition", partitions), ("group", groups), ("lag", lags)] {
            family.value(&labels(&[("kind", kind)]), count);
        }
    }
}

/// Tells what requests and answers take.
fn memory(memory: &Memory, page: &mut Page) {
    let told = [
        (
            "nuncio_broker_memory_bytes",
            Kind::Gauge,
            "Bytes of requests that are not answered yet, and of their answers",
            memory.used() as u64,
        ),
        (
            "nuncio_broker_memory_bytes_bound",
            Kind::Gauge,
            "Most bytes that requests and answers may take",
            memory.bound() as u64,
        ),
        (
            "nuncio_broker_memory_bytes_most",
            Kind::Gauge,
            "Most bytes that requests and answers have ever taken at a time",
            memory.most() as u64,
        ),
        (
            "nuncio_broker_memory_waits",
            Kind::Counter,
            "How often a request or an answer had to wait for memory",
            memory.waits(),
        ),
    ];
    for (name, kind, help, value) in told {
        page.family(name, kind, help).value("", value);
    }
}

/// Tells topics and partitions, and returns how many were left out.
fn partitions(core: &Core, page: &mut Page) -> usize {
    let topics = core.topics.all();
    let mut sizes = page.family(
        "nuncio_topic_log_bytes",
        Kind::Gauge,
        "Size of a topic's partitions on disk",
    );
    let mut told = Vec::new();
    let mut left_out = 0;
    for topic in &topics {
        let mut size = 0;
        for partition in topic.partitions().iter() {
            size += partition.size();
            if told.len() < PARTITIONS_TOLD_MAX {
                let index = partition.index.to_string();
                let labels = labels(&[("topic", &topic.name), ("partition", &index)]);
                told.push((labels, partition.clone()));
            } else {
                left_out += 1;
            }
        }
        sizes.value(&labels(&[("topic", &topic.name)]), size);
    }
    let mut family = page.family(
        "nuncio_partition_log_bytes",
        Kind::Gauge,
        "Size of a partition on disk",
    );
    for (labels, partition) in &told {
        family.value(labels, partition.size());
    }
    let mut family = page.family(
        "nuncio_partition_start_offset",
        Kind::Gauge,
        "The oldest offset of a partition that is kept",
    );
    for (labels, partition) in &told {
        family.value(labels, partition.start());
    }
    let mut family = page.family(
        "nuncio_partition_end_offset",
        Kind::Gauge,
        "The offset up to which consumers may read a partition",
    );
    for (labels, partition) in &told {
        family.value(labels, partition.high_water());
    }
    left_out
}

/// Tells groups, and returns how many groups and lags were left out.
fn groups(core: &Core, page: &mut Page) -> (usize, usize) {
    let groups = core.groups.views();
    let told = &groups[..groups.len().min(GROUPS_TOLD_MAX)];
    let mut family = page.family(
        "nuncio_group_members",
        Kind::Gauge,
        "Members of a consumer group",
    );
    for group in told {
        family.value(&labels(&[("group", &group.id)]), group.members.len());
    }
    let mut family = page.family(
        "nuncio_group_state",
        Kind::Gauge,
        "1 for the state that a consumer group is in",
    );
    for group in told {
        let labels = labels(&[("group", &group.id), ("state", group.state)]);
        family.value(&labels, 1);
    }
    let mut family = page.family(
        "nuncio_group_lag_records",
        Kind::Gauge,
        "Records of a topic that a group has not committed yet",
    );
    let (mut lags, mut left_out) = (0, 0);
    for group in told {
        let mut by_topic: BTreeMap<Arc<str>, i64> = BTreeMap::new();
        for ((topic, index), committed) in &group.offsets {
            let found = core.topics.get(topic);
            if let Some(partition) = found.and_then(|topic| topic.partition(*index)) {
                let lag = (partition.high_water() - committed.offset).max(0);
                *by_topic.entry(topic.clone()).or_default() += lag;
            }
        }
        for key in core.shares.of_group(&group.id) {
            if let Some((topic, lag)) = share_lag(core, &key) {
                *by_topic.entry(topic).or_default() += lag;
            }
        }
        for (topic, lag) in by_topic {
            if lags < LAGS_TOLD_MAX {
                family.value(&labels(&[("group", &group.id), ("topic", &topic)]), lag);
                lags += 1;
            } else {
                left_out += 1;
            }
        }
    }
    let in_flight = core.shares.in_flight();
    let mut family = page.family(
        "nuncio_share_group_records_in_flight",
        Kind::Gauge,
        "Records from the first that a share group has not processed to the last that was delivered",
    );
    for group in told {
        if let Some(count) = in_flight.get(group.id.as_str()) {
            family.value(&labels(&[("group", &group.id)]), *count);
        }
    }
    let mut family = page.family(
        "nuncio_share_sessions",
        Kind::Gauge,
        "Members of share groups that are connected",
    );
    family.value("", core.shares.sessions.count());
    (groups.len() - told.len(), left_out)
}

/// Returns how many records of a topic's partition a share group has not processed yet, when that is known.
fn share_lag(core: &Core, key: &Key) -> Option<(Arc<str>, i64)> {
    let summary = core.shares.summary(key)?;
    let topic = core.topics.by_id(key.topic)?;
    let partition = topic.partition(key.partition)?;
    let known = summary.start != UNKNOWN && summary.done >= 0;
    let lag = partition.high_water() - summary.start - i64::from(summary.done);
    known.then(|| (topic.name.clone(), lag.max(0)))
}
