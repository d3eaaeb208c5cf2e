//! What of a share group outlives the process: one record for each thing that changes by itself, in Kafka's own schemas.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::share_group_members::{
    CurrentPartitions, InitializedTopic, ShareGroupCurrentMemberAssignmentKey as CurrentKey,
    ShareGroupCurrentMemberAssignmentValue as CurrentValue,
    ShareGroupMemberMetadataKey as MemberKey, ShareGroupMemberMetadataValue as MemberValue,
    ShareGroupMetadataKey as GroupKey, ShareGroupMetadataValue as GroupValue,
    ShareGroupStatePartitionMetadataKey as KnownKey,
    ShareGroupStatePartitionMetadataValue as KnownValue,
    ShareGroupTargetAssignmentMemberKey as TargetKey,
    ShareGroupTargetAssignmentMemberValue as TargetValue,
    ShareGroupTargetAssignmentMetadataKey as TargetEpochKey,
    ShareGroupTargetAssignmentMetadataValue as TargetEpochValue, TargetPartitions,
};
use kafka::wire::{DecodeError, EncodeError, Reader, Wire};

use super::machine::{Group, Known, Profile};
use crate::group::consumer::records::Stored;
use crate::group::member::Millis;

/// The version of all values.
const VALUE: i16 = 0;

/// One thing that is stored by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Item {
    /// The group's epoch.
    Group,
    /// The target's epoch.
    TargetEpoch,
    /// The topics whose records have a state.
    Known,
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
        10 => read::<MemberKey>(key, kind)?.group_id,
        11 => read::<GroupKey>(key, kind)?.group_id,
        12 => read::<TargetEpochKey>(key, kind)?.group_id,
        13 => read::<TargetKey>(key, kind)?.group_id,
        14 => read::<CurrentKey>(key, kind)?.group_id,
        15 => read::<KnownKey>(key, kind)?.group_id,
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
            written(GroupKey { group_id }.to_versioned(11)?, Some(value))
        }
        Item::TargetEpoch => {
            let value = TargetEpochValue {
                assignment_epoch: group.target_epoch,
                assignment_timestamp: group.target_at_ms,
            };
            written(TargetEpochKey { group_id }.to_versioned(12)?, Some(value))
        }
        Item::Known => {
            let topic = |(topic_id, known): (&uuid::Uuid, &Known)| InitializedTopic {
                topic_id: *topic_id,
                topic_name: known.name.clone(),
                partitions: known.partitions.iter().copied().collect(),
            };
            let value = KnownValue {
                initialized_topics: group.known.iter().map(topic).collect(),
                ..KnownValue::default()
            };
            written(KnownKey { group_id }.to_versioned(15)?, Some(value))
        }
        Item::Member(id) => {
            let member_id = id.clone();
            let key = MemberKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| MemberValue {
                rack_id: member.profile.rack_id.clone(),
                client_id: member.profile.client_id.clone(),
                client_host: member.profile.client_host.clone(),
                subscribed_topic_names: member.profile.topics.iter().cloned().collect(),
            });
            written(key.to_versioned(10)?, value)
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
            written(key.to_versioned(13)?, value)
        }
        Item::Current(id) => {
            let member_id = id.clone();
            let key = CurrentKey {
                group_id,
                member_id,
            };
            let value = group.members.get(id).map(|member| CurrentValue {
                member_epoch: member.epoch,
                previous_member_epoch: member.previous_epoch,
                state: 0,
                assigned_partitions: member
                    .assigned
                    .iter()
                    .map(|(topic_id, partitions)| CurrentPartitions {
                        topic_id: *topic_id,
                        partitions: partitions.iter().copied().collect(),
                    })
                    .collect(),
            });
            written(key.to_versioned(14)?, value)
        }
    }
}

fn written(key: Bytes, value: Option<impl Message>) -> Result<(Bytes, Option<Bytes>), EncodeError> {
    let value = value.map(|value| value.to_versioned(VALUE)).transpose()?;
    Ok((key, value))
}

/// Brings a group back after a restart.
pub(crate) fn restore(
    stored: &Stored,
    now: Millis,
    session_timeout_ms: i32,
) -> Result<Group, DecodeError> {
    let mut group = Group::new();
    for (key, value) in stored {
        match i16::read(&mut Reader::new(key))? {
            10 => {
                let id = read::<MemberKey>(key, 10)?.member_id;
                let value = MemberValue::from_versioned(value)?;
                group.members.entry(id).or_default().profile = Profile {
                    rack_id: value.rack_id,
                    client_id: value.client_id,
                    client_host: value.client_host,
                    topics: value.subscribed_topic_names.into_iter().collect(),
                };
            }
            11 => {
                let value = GroupValue::from_versioned(value)?;
                (group.epoch, group.fingerprint) = (value.epoch, value.metadata_hash);
            }
            12 => {
                let value = TargetEpochValue::from_versioned(value)?;
                group.target_epoch = value.assignment_epoch;
                group.target_at_ms = value.assignment_timestamp;
            }
            13 => {
                let id = read::<TargetKey>(key, 13)?.member_id;
                let each = TargetValue::from_versioned(value)?.topic_partitions;
                let each = each.into_iter();
                let target = each.map(|one| (one.topic_id, one.partitions.into_iter().collect()));
                group.target.insert(id, target.collect());
            }
            14 => {
                let id = read::<CurrentKey>(key, 14)?.member_id;
                let value = CurrentValue::from_versioned(value)?;
                let member = group.members.entry(id).or_default();
                member.epoch = value.member_epoch;
                member.previous_epoch = value.previous_member_epoch;
                let each = value.assigned_partitions.into_iter();
                let each = each.map(|one| (one.topic_id, one.partitions.into_iter().collect()));
                member.assigned = each.collect();
            }
            15 => {
                let value = KnownValue::from_versioned(value)?;
                let each = value.initialized_topics.into_iter().map(|topic| {
                    let known = Known {
                        name: topic.topic_name,
                        partitions: topic.partitions.into_iter().collect(),
                    };
                    (topic.topic_id, known)
                });
                group.known = each.collect::<BTreeMap<_, _>>();
            }
            _ => (),
        }
    }
    group.wake(now, session_timeout_ms);
    Ok(group)
}
