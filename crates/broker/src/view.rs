//! What the broker tells about itself: topics and groups as they are at this moment.

use std::collections::BTreeMap;

use crate::Broker;

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id, as Kafka writes it.
    pub id: String,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// What was set for it, under Kafka's names.
    pub settings: BTreeMap<String, String>,
    /// Its partitions, in the order of their indexes.
    pub partitions: Vec<Partition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Partition {
    /// Its index.
    pub index: i32,
    /// The oldest offset that is kept.
    pub start: i64,
    /// The offset up to which consumers may read.
    pub high_water: i64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Group {
    /// Its id.
    pub id: String,
    /// `Empty`, `PreparingRebalance`, `CompletingRebalance` or `Stable`; `Assigning` and `Reconciling`
    /// where the broker assigns.
    pub state: String,
    /// `consumer` for groups of consumers; empty when nobody has joined yet.
    pub protocol_type: String,
    /// How partitions are assigned.
    pub protocol: String,
    /// Who is in it.
    pub members: Vec<Member>,
    /// How far it has come.
    pub offsets: Vec<Progress>,
    /// Records that it has not committed yet, over all its partitions.
    pub lag: i64,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its fixed name, for static members.
    pub instance_id: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
}

/// How far a group has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Progress {
    /// The topic.
    pub topic: String,
    /// The partition's index.
    pub partition: i32,
    /// The next offset to be read.
    pub committed: i64,
    /// Records between that and the high-water mark.
    pub lag: i64,
}

impl Broker {
    /// Returns the cluster's id.
    pub fn cluster_id(&self) -> &str {
        self.core.node.cluster_id()
    }

    /// Returns all topics in the order of their names.
    pub fn topics(&self) -> Vec<Topic> {
        let topics = self.core.topics.all();
        let view = topics.iter().map(|topic| Topic {
            name: topic.name.to_string(),
            id: crate::node::base64_id(topic.id),
            internal: topic.is_internal(),
            settings: topic.overrides(),
            partitions: topic
                .partitions()
                .iter()
                .map(|partition| Partition {
                    index: partition.index,
                    start: partition.start(),
                    high_water: partition.high_water(),
                    bytes: partition.size(),
                })
                .collect(),
        });
        view.collect()
    }

    /// Returns all groups in the order of their ids.
    pub fn groups(&self) -> Vec<Group> {
        let groups = self.core.groups.views();
        let view = groups.into_iter().map(|group| {
            let offsets: Vec<Progress> = group
                .offsets
                .into_iter()
                .map(|((topic, partition), committed)| {
                    let found = self.core.topics.get(&topic);
                    let found = found.and_then(|topic| topic.partition(partition));
                    let end = found.map_or(committed.offset, |partition| partition.high_water());
                    Progress {
                        topic: topic.to_string(),
                        partition,
                        committed: committed.offset,
                        lag: (end - committed.offset).max(0),
                    }
                })
                .collect();
            Group {
                id: group.id,
                state: group.state.to_owned(),
                protocol_type: group.protocol_type,
                protocol: group.protocol,
                members: group
                    .members
                    .into_iter()
                    .map(|member| Member {
                        id: member.id,
                        instance_id: member.instance_id,
                        client_id: member.client_id,
                        client_host: member.client_host,
                    })
                    .collect(),
                lag: offsets.iter().map(|progress| progress.lag).sum(),
                offsets,
            }
        });
        view.collect()
    }
}
