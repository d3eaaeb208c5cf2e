//! What of a streams group outlives the process, in Kafka's own records, key by key.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::streams_group_state::{
    CurrentTasks, Endpoint, KeyValue, LastAssignmentConfig,
    StreamsGroupCurrentMemberAssignmentKey as CurrentKey,
    StreamsGroupCurrentMemberAssignmentValue as CurrentValue,
    StreamsGroupMemberMetadataKey as MemberKey, StreamsGroupMemberMetadataValue as MemberValue,
    StreamsGroupMetadataKey as GroupKey, StreamsGroupMetadataValue as GroupValue,
    StreamsGroupTargetAssignmentMemberKey as TargetKey,
    StreamsGroupTargetAssignmentMemberValue as TargetValue,
    StreamsGroupTargetAssignmentMetadataKey as TargetEpochKey,
    StreamsGroupTargetAssignmentMetadataValue as TargetEpochValue,
    StreamsGroupTopologyKey as TopologyKey, StreamsGroupTopologyValue as Topology, TargetTasks,
};
use kafka::wire::{DecodeError, EncodeError, Reader, Wire};

use super::machine::Group;
use super::member::{Epochs, Owned, Profile, Progress, Roles, Standing, Tasks};
use crate::group::consumer::records::Stored;
use crate::group::member::Millis;
use crate::ledger::Line;

/// The version of all values.
const VALUE: i16 = 0;
/// The setting that is kept with the epoch that it has led to.
const STANDBYS: &str = "num.standby.replicas";

/// One thing that is stored by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// The group's epoch, and what it came from.
    Group,
    Topology,
    /// The target's epoch.
    TargetEpoch,
    /// What a member said of itself.
    Member(String),
    /// What the target gives a member.
    Target(String),
    /// What a member has.
    Current(String),
}

/// Returns the group that a key is of, when it is of a kind that is kept here.
pub(crate) fn group_of(key: &Bytes) -> Result<Option<String>, DecodeError> {
    let kind = i16::read(&mut Reader::new(key))?;
    Ok(Some(match kind {
        17 => read::<GroupKey>(key, kind)?.group_id,
        19 => read::<MemberKey>(key, kind)?.group_id,
        20 => read::<TargetEpochKey>(key, kind)?.group_id,
        21 => read::<TargetKey>(key, kind)?.group_id,
        22 => read::<CurrentKey>(key, kind)?.group_id,
        23 => read::<TopologyKey>(key, kind)?.group_id,
        _ => return Ok(None),
    }))
}

/// Reads behind the version, which says what the key is of.
fn read<M: Message>(key: &Bytes, kind: i16) -> Result<M, DecodeError> {
    M::from_bytes(&key.slice(size_of::<i16>()..), kind)
}

/// Returns the key and the value of a thing as it is now; no value when it is gone.
pub(super) fn record(group_id: &str, item: &Item, group: &Group) -> Result<Line, EncodeError> {
    let group_id = group_id.to_owned();
    match item {
        Item::Group => {
            let configs = group.standbys.map(|standbys| {
                vec![LastAssignmentConfig {
                    key: STANDBYS.to_owned(),
                    value: standbys.to_string(),
                }]
            });
            let value = GroupValue {
                epoch: group.epoch,
                metadata_hash: group.fingerprint,
                validated_topology_epoch: group.validated,
                last_assignment_configs: configs,
            };
            written(GroupKey { group_id }.to_versioned(17)?, Some(value))
        }
        Item::Topology => {
            let key = TopologyKey { group_id };
            written(key.to_versioned(23)?, group.topology.clone())
        }
        Item::TargetEpoch => {
            let value = TargetEpochValue {
                assignment_epoch: group.target_epoch,
                assignment_timestamp: group.target_at_ms,
            };
            written(TargetEpochKey { group_id }.to_versioned(20)?, Some(value))
        }
        Item::Member(id) => {
            let member_id = id.clone();
            let key = MemberKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| told(&member.profile));
            written(key.to_versioned(19)?, value)
        }
        Item::Target(id) => {
            let member_id = id.clone();
            let key = TargetKey {
                group_id,
                member_id,
            };
            let list = |tasks: &Tasks| {
                let each = tasks.iter().map(|(part, tasks)| TargetTasks {
                    subtopology_id: part.clone(),
                    partitions: tasks.iter().copied().collect(),
                });
                each.collect()
            };
            let value = group.target.get(id).map(|target| TargetValue {
                active_tasks: list(&target.active),
                standby_tasks: list(&target.standby),
                warmup_tasks: list(&target.warmup),
            });
            written(key.to_versioned(21)?, value)
        }
        Item::Current(id) => {
            let member_id = id.clone();
            let key = CurrentKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| had(&member.progress));
            written(key.to_versioned(22)?, value)
        }
    }
}

fn written(key: Bytes, value: Option<impl Message>) -> Result<Line, EncodeError> {
    let value = value.map(|value| value.to_versioned(VALUE)).transpose()?;
    Ok((key, value))
}

fn told(profile: &Profile) -> MemberValue {
    let tags = profile.tags.iter().map(|(key, value)| KeyValue {
        key: key.clone(),
        value: value.clone(),
    });
    MemberValue {
        instance_id: None,
        rack_id: profile.rack_id.clone(),
        client_id: profile.client_id.clone(),
        client_host: profile.client_host.clone(),
        rebalance_timeout_ms: profile.rebalance_timeout_ms,
        topology_epoch: profile.topology_epoch,
        process_id: profile.process_id.clone(),
        user_endpoint: profile
            .endpoint
            .clone()
            .map(|(host, port)| Endpoint { host, port }),
        client_tags: tags.collect(),
    }
}

fn had(progress: &Progress) -> CurrentValue {
    let plain = |tasks: &Tasks| {
        let each = tasks.iter().map(|(part, tasks)| CurrentTasks {
            subtopology_id: part.clone(),
            partitions: tasks.iter().copied().collect(),
            assignment_epochs: None,
        });
        each.collect()
    };
    let dated = |tasks: &Epochs| {
        let each = tasks.iter().map(|(part, tasks)| CurrentTasks {
            subtopology_id: part.clone(),
            partitions: tasks.keys().copied().collect(),
            assignment_epochs: Some(tasks.values().copied().collect()),
        });
        each.collect()
    };
    let (assigned, revoking) = (&progress.assigned, &progress.revoking);
    CurrentValue {
        member_epoch: progress.epoch,
        previous_member_epoch: progress.previous_epoch,
        state: progress.standing as i8,
        active_tasks: dated(&assigned.active),
        standby_tasks: plain(&assigned.standby),
        warmup_tasks: plain(&assigned.warmup),
        active_tasks_pending_revocation: dated(&revoking.active),
        standby_tasks_pending_revocation: plain(&revoking.standby),
        warmup_tasks_pending_revocation: plain(&revoking.warmup),
    }
}

/// Brings a group back after a restart.
pub(super) fn restore(
    stored: &Stored,
    now: Millis,
    session_timeout_ms: i32,
) -> Result<Group, DecodeError> {
    let mut group = Group::new();
    for (key, value) in stored {
        match i16::read(&mut Reader::new(key))? {
            17 => {
                let value = GroupValue::from_versioned(value)?;
                (group.epoch, group.fingerprint) = (value.epoch, value.metadata_hash);
                group.validated = value.validated_topology_epoch;
                let mut configs = value.last_assignment_configs.into_iter().flatten();
                let standbys = configs.find(|config| config.key == STANDBYS);
                group.standbys = standbys.and_then(|config| config.value.parse().ok());
            }
            19 => {
                let id = read::<MemberKey>(key, 19)?.member_id;
                let value = MemberValue::from_versioned(value)?;
                group.members.entry(id).or_default().profile = heard(value);
            }
            20 => {
                let value = TargetEpochValue::from_versioned(value)?;
                group.target_epoch = value.assignment_epoch;
                group.target_at_ms = value.assignment_timestamp;
            }
            21 => {
                let id = read::<TargetKey>(key, 21)?.member_id;
                let value = TargetValue::from_versioned(value)?;
                let tasks = |list: Vec<TargetTasks>| -> Tasks {
                    let each = list.into_iter();
                    each.map(|one| (one.subtopology_id, one.partitions.into_iter().collect()))
                        .collect()
                };
                let target = Roles {
                    active: tasks(value.active_tasks),
                    standby: tasks(value.standby_tasks),
                    warmup: tasks(value.warmup_tasks),
                };
                group.target.insert(id, target);
            }
            22 => {
                let id = read::<CurrentKey>(key, 22)?.member_id;
                let value = CurrentValue::from_versioned(value)?;
                group.members.entry(id).or_default().progress = has(value);
            }
            23 => group.topology = Some(Topology::from_versioned(value)?),
            _ => (),
        }
    }
    group.wake(now, session_timeout_ms);
    Ok(group)
}

fn heard(value: MemberValue) -> Profile {
    let tags = value.client_tags.into_iter();
    let tags: BTreeMap<String, String> = tags.map(|tag| (tag.key, tag.value)).collect();
    Profile {
        rack_id: value.rack_id,
        client_id: value.client_id,
        client_host: value.client_host,
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        topology_epoch: value.topology_epoch,
        process_id: value.process_id,
        endpoint: value.user_endpoint.map(|at| (at.host, at.port)),
        tags,
    }
}

fn has(value: CurrentValue) -> Progress {
    let plain = |list: Vec<CurrentTasks>| -> Tasks {
        let each = list.into_iter();
        each.map(|one| (one.subtopology_id, one.partitions.into_iter().collect()))
            .collect()
    };
    let dated = |list: Vec<CurrentTasks>| -> Epochs {
        let each = list.into_iter().map(|one| {
            // Before the epochs were kept, a member had everything as of its own.
            let epochs = one.assignment_epochs.unwrap_or_default().into_iter();
            let epochs = epochs.chain(std::iter::repeat(value.member_epoch));
            let tasks = one.partitions.into_iter().zip(epochs).collect();
            (one.subtopology_id, tasks)
        });
        each.collect()
    };
    Progress {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        standing: match value.state {
            2 => Standing::Unrevoked,
            3 => Standing::Unreleased,
            _ => Standing::Stable,
        },
        assigned: Owned {
            active: dated(value.active_tasks),
            standby: plain(value.standby_tasks),
            warmup: plain(value.warmup_tasks),
        },
        revoking: Owned {
            active: dated(value.active_tasks_pending_revocation),
            standby: plain(value.standby_tasks_pending_revocation),
            warmup: plain(value.warmup_tasks_pending_revocation),
        },
    }
}
