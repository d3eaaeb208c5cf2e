//! What of a group outlives the process: one record for each thing that changes by itself, in Kafka's own schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::consumer_group_state::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupCurrentMemberAssignmentKey as CurrentKey,
    ConsumerGroupCurrentMemberAssignmentValue as CurrentValue,
    ConsumerGroupMemberMetadataKey as MemberKey, ConsumerGroupMemberMetadataValue as MemberValue,
    ConsumerGroupMetadataKey as GroupKey, ConsumerGroupMetadataValue as GroupValue,
    ConsumerGroupPartitionMetadataKey as PartitionsKey,
    ConsumerGroupRegularExpressionKey as PatternKey,
    ConsumerGroupRegularExpressionValue as PatternValue,
    ConsumerGroupTargetAssignmentMemberKey as TargetKey,
    ConsumerGroupTargetAssignmentMemberValue as TargetValue,
    ConsumerGroupTargetAssignmentMetadataKey as TargetEpochKey,
    ConsumerGroupTargetAssignmentMetadataValue as TargetEpochValue, CurrentPartitions,
    TargetPartitions,
};
use kafka::wire::{DecodeError, EncodeError, Reader, Wire};

use super::machine::{Group, Resolved};
use super::member::{Classic, Epochs, Partitions, Profile, Progress, Standing};
use crate::group::member::{Millis, Protocol};
use crate::group::settings::Timing;

/// The version of all values.
const VALUE: i16 = 0;

/// A group's records as they are on disk, value by key.
pub(crate) type Stored = BTreeMap<Bytes, Bytes>;

/// One thing that is stored by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// The group's epoch.
    Group,
    /// The target's epoch.
    TargetEpoch,
    /// What a pattern matches.
    Pattern(String),
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
        3 => read::<GroupKey>(key, kind)?.group_id,
        4 => read::<PartitionsKey>(key, kind)?.group_id,
        5 => read::<MemberKey>(key, kind)?.group_id,
        6 => read::<TargetEpochKey>(key, kind)?.group_id,
        7 => read::<TargetKey>(key, kind)?.group_id,
        8 => read::<CurrentKey>(key, kind)?.group_id,
        16 => read::<PatternKey>(key, kind)?.group_id,
        _ => return Ok(None),
    }))
}

/// Reads behind the version, which says what the key is of.
fn read<M: Message>(key: &Bytes, kind: i16) -> Result<M, DecodeError> {
    M::from_bytes(&key.slice(size_of::<i16>()..), kind)
}

/// Returns the key and the value of a thing as it is now; no value when it is gone.
pub(crate) fn record(
    group_id: &str,
    item: &Item,
    group: &Group,
) -> Result<(Bytes, Option<Bytes>), EncodeError> {
    let group_id = group_id.to_owned();
    match item {
        Item::Group => {
            let value = GroupValue {
                epoch: group.epoch,
                metadata_hash: group.fingerprint,
            };
            let key = GroupKey { group_id }.to_versioned(3)?;
            Ok((key, Some(value.to_versioned(VALUE)?)))
        }
        Item::TargetEpoch => {
            let value = TargetEpochValue {
                assignment_epoch: group.target_epoch,
                assignment_timestamp: group.target_at_ms,
            };
            let key = TargetEpochKey { group_id }.to_versioned(6)?;
            Ok((key, Some(value.to_versioned(VALUE)?)))
        }
        Item::Pattern(pattern) => {
            let regular_expression = pattern.clone();
            let key = PatternKey {
                group_id,
                regular_expression,
            };
            let value = group.resolved.get(pattern).map(|resolved| PatternValue {
                topics: resolved.topics.iter().map(ToString::to_string).collect(),
                version: resolved.version.cast_signed(),
                timestamp: resolved.at_ms,
            });
            written(key.to_versioned(16)?, value)
        }
        Item::Member(id) => {
            let member_id = id.clone();
            let key = MemberKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| told(&member.profile));
            written(key.to_versioned(5)?, value)
        }
        Item::Target(id) => {
            let member_id = id.clone();
            let key = TargetKey {
                group_id,
                member_id,
            };
            let value = group.target.get(id).map(|target| TargetValue {
                topic_partitions: target
                    .iter()
                    .map(|(topic_id, partitions)| TargetPartitions {
                        topic_id: *topic_id,
                        partitions: partitions.iter().copied().collect(),
                    })
                    .collect(),
            });
            written(key.to_versioned(7)?, value)
        }
        Item::Current(id) => {
            let member_id = id.clone();
            let key = CurrentKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| had(&member.progress));
            written(key.to_versioned(8)?, value)
        }
    }
}

fn written(key: Bytes, value: Option<impl Message>) -> Result<(Bytes, Option<Bytes>), EncodeError> {
    let value = value.map(|value| value.to_versioned(VALUE)).transpose()?;
    Ok((key, value))
}

fn told(profile: &Profile) -> MemberValue {
    MemberValue {
        instance_id: profile.instance_id.clone(),
        rack_id: profile.rack_id.clone(),
        client_id: profile.client_id.clone(),
        client_host: profile.client_host.clone(),
        subscribed_topic_names: profile.topics.iter().cloned().collect(),
        subscribed_topic_regex: profile.pattern.clone(),
        rebalance_timeout_ms: profile.rebalance_timeout_ms,
        server_assignor: profile.assignor.clone(),
        classic_member: profile.classic.as_ref().map(|classic| {
            let protocols = classic.protocols.iter().map(|protocol| ClassicProtocol {
                name: protocol.name.clone(),
                metadata: protocol.metadata.clone(),
            });
            ClassicMemberMetadata {
                session_timeout_ms: classic.session_timeout_ms,
                supported_protocols: protocols.collect(),
            }
        }),
    }
}

fn had(progress: &Progress) -> CurrentValue {
    let list = |epochs: &Epochs| {
        let each = epochs.iter().map(|(topic_id, partitions)| {
            let (partitions, epochs) = partitions.iter().unzip();
            CurrentPartitions {
                topic_id: *topic_id,
                partitions,
                assignment_epochs: Some(epochs),
            }
        });
        each.collect()
    };
    CurrentValue {
        member_epoch: progress.epoch,
        previous_member_epoch: progress.previous_epoch,
        state: progress.standing as i8,
        assigned_partitions: list(&progress.assigned),
        partitions_pending_revocation: list(&progress.revoking),
    }
}

/// Brings a group back after a restart.
pub(crate) fn restore(stored: &Stored, now: Millis, timing: Timing) -> Result<Group, DecodeError> {
    let mut group = Group::new();
    for (key, value) in stored {
        match i16::read(&mut Reader::new(key))? {
            3 => {
                let value = GroupValue::from_versioned(value)?;
                (group.epoch, group.fingerprint) = (value.epoch, value.metadata_hash);
            }
            5 => {
                let id = read::<MemberKey>(key, 5)?.member_id;
                let value = MemberValue::from_versioned(value)?;
                group.members.entry(id).or_default().profile = heard(value);
            }
            6 => {
                let value = TargetEpochValue::from_versioned(value)?;
                group.target_epoch = value.assignment_epoch;
                group.target_at_ms = value.assignment_timestamp;
            }
            7 => {
                let id = read::<TargetKey>(key, 7)?.member_id;
                let each = TargetValue::from_versioned(value)?.topic_partitions;
                let each = each.into_iter();
                let target: Partitions = each
                    .map(|one| (one.topic_id, one.partitions.into_iter().collect()))
                    .collect();
                group.target.insert(id, target);
            }
            8 => {
                let id = read::<CurrentKey>(key, 8)?.member_id;
                let value = CurrentValue::from_versioned(value)?;
                group.members.entry(id).or_default().progress = has(value);
            }
            16 => {
                let pattern = read::<PatternKey>(key, 16)?.regular_expression;
                let value = PatternValue::from_versioned(value)?;
                let names = value.topics.into_iter().map(Arc::from);
                let resolved = Resolved {
                    topics: names.collect::<BTreeSet<_>>(),
                    version: value.version.cast_unsigned(),
                    at_ms: value.timestamp,
                };
                group.resolved.insert(pattern, resolved);
            }
            _ => (),
        }
    }
    group.wake(now, timing);
    Ok(group)
}

fn heard(value: MemberValue) -> Profile {
    Profile {
        instance_id: value.instance_id,
        rack_id: value.rack_id,
        client_id: value.client_id,
        client_host: value.client_host,
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        topics: value.subscribed_topic_names.into_iter().collect(),
        pattern: value.subscribed_topic_regex,
        assignor: value.server_assignor,
        classic: value.classic_member.map(|classic| {
            let protocols = classic.supported_protocols.into_iter();
            let protocols = protocols.map(|protocol| Protocol {
                name: protocol.name,
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            });
            Classic {
                session_timeout_ms: classic.session_timeout_ms,
                protocols: protocols.collect(),
            }
        }),
    }
}

fn has(value: CurrentValue) -> Progress {
    let epochs = |list: Vec<CurrentPartitions>| {
        let each = list.into_iter().map(|one| {
            // Before the epochs were kept, a member had everything as of its own.
            let epochs = one.assignment_epochs.unwrap_or_default().into_iter();
            let epochs = epochs.chain(std::iter::repeat(value.member_epoch));
            (
                one.topic_id,
                one.partitions.into_iter().zip(epochs).collect(),
            )
        });
        each.collect::<Epochs>()
    };
    Progress {
        epoch: value.member_epoch,
        previous_epoch: value.previous_member_epoch,
        standing: match value.state {
            1 => Standing::Unrevoked,
            2 => Standing::Unreleased,
            _ => Standing::Stable,
        },
        assigned: epochs(value.assigned_partitions),
        revoking: epochs(value.partitions_pending_revocation),
    }
}
