//! Share groups on the wire (KIP-932): ShareGroupHeartbeat, ShareGroupDescribe, and where a group's reading begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use kafka::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
    DeleteShareGroupOffsetsResponseTopic,
};
use kafka::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestTopic,
    DescribeShareGroupOffsetsResponse, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
};
use kafka::messages::share_group_describe::{
    Assignment as DescribedAssignment, DescribedGroup, Member as DescribedMember,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse, TopicPartitions as DescribedPartitions,
};
use kafka::messages::share_group_heartbeat::{
    Assignment, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse, TopicPartitions,
};
use uuid::Uuid;

use super::groups::{GROUP_OPERATIONS, MEMBER_BYTES_MAX, code_of};
use super::topics::on_disk;
use crate::core::Core;
use crate::dispatch::Call;
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::terms::Refused;
use crate::group::share::assign::SIMPLE;
use crate::group::share::machine::{Beat, Beaten, Known, Member, View};
use crate::group::terms::Refusal;
use crate::share::records::Key;
use crate::share::terms::UNKNOWN;
use crate::topic::SHARES_TOPIC;

/// The epoch of a member that leaves.
const LEAVES: i32 = -1;

pub(crate) async fn heartbeat(
    call: Call,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    if let Err(why) = check(&request) {
        return refused(ErrorCode::InvalidRequest, why.to_owned());
    }
    let group_id = request.group_id.clone();
    let beat = Beat {
        member_id: request.member_id,
        epoch: request.member_epoch,
        client_id: call.client_id.clone(),
        client_host: format!("/{}", call.client.peer.ip().to_canonical()),
        rack_id: request.rack_id,
        topics: request.subscribed_topic_names,
    };
    let answer = async {
        let core = call.core();
        if beat.epoch == LEAVES {
            let leaving = core
                .groups
                .share_leave(&core.topics, &group_id, &beat.member_id);
            return leaving.await.map(|()| Beaten {
                epoch: LEAVES,
                heartbeat_interval_ms: 0,
                assignment: None,
            });
        }
        joined(core, &group_id, &beat).await
    };
    let answer = tokio::select! {
        answer = answer => answer,
        // The client asks again, and finds the broker that comes after us.
        () = call.client.stop.cancelled() => Err(Refusal::NotStored.into()),
    };
    match answer {
        Err(Refused { refusal, why }) => refused(code_of(refusal), why),
        Ok(beaten) => ShareGroupHeartbeatResponse {
            member_id: Some(beat.member_id),
            member_epoch: beaten.epoch,
            heartbeat_interval_ms: beaten.heartbeat_interval_ms,
            assignment: beaten.assignment.map(|assignment| Assignment {
                topic_partitions: assignment
                    .into_iter()
                    .map(|(topic_id, partitions)| TopicPartitions {
                        topic_id,
                        partitions: partitions.into_iter().collect(),
                    })
                    .collect(),
            }),
            ..ShareGroupHeartbeatResponse::default()
        },
    }
}

/// Hears from a member. Partitions that the group reads for the first time get a state, and are assigned at once.
async fn joined(core: &Arc<Core>, group_id: &str, beat: &Beat) -> Result<Beaten, Refused> {
    let (beaten, (epoch, unknown)) = core.groups.share_beat(&core.topics, group_id, beat).await?;
    if unknown.is_empty() {
        return Ok(beaten);
    }
    make_store(core).await?;
    let keys = keys(group_id, &unknown);
    let begun = core.shares.begin(keys, epoch).await;
    begun.map_err(|_| Refusal::NotStored)?;
    core.groups.share_learn(group_id, unknown).await?;
    // The same again, now that there is something to assign.
    let again = Beat {
        epoch: beaten.epoch,
        ..beat.clone()
    };
    let (again, _) = core
        .groups
        .share_beat(&core.topics, group_id, &again)
        .await?;
    Ok(Beaten {
        assignment: again.assignment.or(beaten.assignment),
        ..again
    })
}

fn keys(group_id: &str, topics: &[(Uuid, Known)]) -> Vec<Key> {
    let group: Arc<str> = Arc::from(group_id);
    let each = topics.iter().flat_map(|(topic, known)| {
        known.partitions.iter().map(|partition| Key {
            group: group.clone(),
            topic: *topic,
            partition: *partition,
        })
    });
    each.collect()
}

/// Makes the topic that holds the state, with the first share group.
async fn make_store(core: &Arc<Core>) -> Result<(), Refused> {
    if core.shares.has_store() {
        return Ok(());
    }
    let making = core.clone();
    let made = on_disk(move || {
        crate::state_topic(&making.topics, SHARES_TOPIC)
            .map_err(crate::topic::registry::Error::Disk)
    });
    match made.await {
        Ok(store) => core.shares.take_store(store),
        // Somebody else was faster.
        Err(_) if core.topics.get(SHARES_TOPIC).is_some() => {
            let topic = core.topics.get(SHARES_TOPIC);
            let store = topic.and_then(|topic| topic.partition(0));
            core.shares.take_store(store.ok_or(Refusal::NotStored)?);
        }
        Err(error) => {
            tracing::error!(%error, "could not make the topic of share groups");
            return Err(Refusal::NotStored.into());
        }
    }
    Ok(())
}

fn refused(code: ErrorCode, why: String) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..ShareGroupHeartbeatResponse::default()
    }
}

/// What can be said without knowing the group, in Kafka's order.
fn check(request: &ShareGroupHeartbeatRequest) -> Result<(), &'static str> {
    if request.member_id.trim().is_empty() {
        return Err("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return Err("GroupId can't be empty.");
    }
    let is_blank = |text: &String| text.trim().is_empty();
    if request.rack_id.as_ref().is_some_and(is_blank) {
        return Err("RackId can't be empty.");
    }
    let topics = request.subscribed_topic_names.as_ref();
    match request.member_epoch {
        0 if topics.is_none_or(Vec::is_empty) => {
            return Err("SubscribedTopicNames must be set in first request.");
        }
        ..=-2 => return Err("MemberEpoch is invalid."),
        _ => (),
    }
    let names = topics.into_iter().flatten();
    let size: usize = names.map(|name| name.len() + size_of::<String>()).sum();
    let rack = request.rack_id.as_ref().map_or(0, String::len);
    if size + request.member_id.len() + rack > MEMBER_BYTES_MAX {
        return Err("the member says more of itself than the broker takes");
    }
    Ok(())
}

pub(crate) async fn describe(
    call: Call,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let authorized_operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => i32::MIN,
    };
    let core = call.core();
    let failed = |group_id: String, code: ErrorCode, why: Option<String>| DescribedGroup {
        error_code: code.code(),
        error_message: why,
        group_id,
        ..DescribedGroup::default()
    };
    let describe_one = |group_id: String| {
        if group_id.is_empty() {
            return failed(group_id, ErrorCode::InvalidGroupId, None);
        }
        match core.groups.describe_share(&core.topics, &group_id) {
            Ok((view, catalog)) => described(group_id, view, &catalog, authorized_operations),
            Err(why) => failed(group_id, ErrorCode::GroupIdNotFound, Some(why)),
        }
    };
    ShareGroupDescribeResponse {
        groups: request.group_ids.into_iter().map(describe_one).collect(),
        ..ShareGroupDescribeResponse::default()
    }
}

fn described(
    group_id: String,
    view: View,
    catalog: &Catalog,
    authorized_operations: i32,
) -> DescribedGroup {
    let member = |(id, member): (String, Member)| {
        let topics = member.assigned.into_iter();
        let topic_partitions = topics.filter_map(|(topic_id, partitions)| {
            Some(DescribedPartitions {
                topic_id,
                topic_name: catalog.name(topic_id)?.to_string(),
                partitions: partitions.into_iter().collect(),
            })
        });
        DescribedMember {
            member_id: id,
            rack_id: member.profile.rack_id,
            member_epoch: member.epoch,
            client_id: member.profile.client_id,
            client_host: member.profile.client_host,
            subscribed_topic_names: member.profile.topics.into_iter().collect(),
            assignment: DescribedAssignment {
                topic_partitions: topic_partitions.collect(),
            },
        }
    };
    DescribedGroup {
        group_id,
        group_state: view.state.to_owned(),
        group_epoch: view.epoch,
        assignment_epoch: view.target_epoch,
        assignor_name: SIMPLE.to_owned(),
        members: view.members.into_iter().map(member).collect(),
        authorized_operations,
        ..DescribedGroup::default()
    }
}

pub(crate) async fn offsets(
    call: Call,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let core = call.core();
    let groups = request.groups.into_iter().map(|asked| {
        let topics = asked
            .topics
            .unwrap_or_else(|| all_of(core, &asked.group_id));
        let group: Arc<str> = Arc::from(asked.group_id.as_str());
        DescribeShareGroupOffsetsResponseGroup {
            topics: topics
                .into_iter()
                .map(|topic| offsets_of(core, &group, topic))
                .collect(),
            group_id: asked.group_id,
            ..DescribeShareGroupOffsetsResponseGroup::default()
        }
    });
    DescribeShareGroupOffsetsResponse {
        groups: groups.collect(),
        ..DescribeShareGroupOffsetsResponse::default()
    }
}

fn all_of(core: &Core, group_id: &str) -> Vec<DescribeShareGroupOffsetsRequestTopic> {
    let known = core.groups.share_known(group_id).into_iter();
    let there = known.filter(|(topic, _)| core.topics.by_id(*topic).is_some());
    let topic = |(_, known): (Uuid, Known)| DescribeShareGroupOffsetsRequestTopic {
        topic_name: known.name,
        partitions: known.partitions.into_iter().collect(),
    };
    there.map(topic).collect()
}

/// What is not known is told as such; it is no error.
fn offsets_of(
    core: &Core,
    group: &Arc<str>,
    asked: DescribeShareGroupOffsetsRequestTopic,
) -> DescribeShareGroupOffsetsResponseTopic {
    let topic = core.topics.get(&asked.topic_name);
    let topic_id = topic.as_ref().map_or(Uuid::nil(), |topic| topic.id);
    let partition = |index: i32| {
        let key = Key {
            group: group.clone(),
            topic: topic_id,
            partition: index,
        };
        let found = topic.as_ref().and_then(|topic| topic.partition(index));
        let summary = core.shares.summary(&key);
        let lag = match (&summary, &found) {
            (Some(summary), Some(partition)) if summary.start != UNKNOWN && summary.done >= 0 => {
                partition.high_water() - summary.start - i64::from(summary.done)
            }
            _ => -1,
        };
        DescribeShareGroupOffsetsResponsePartition {
            partition_index: index,
            start_offset: summary.as_ref().map_or(UNKNOWN, |summary| summary.start),
            leader_epoch: summary.as_ref().map_or(0, |summary| summary.leader_epoch),
            lag,
            ..DescribeShareGroupOffsetsResponsePartition::default()
        }
    };
    DescribeShareGroupOffsetsResponseTopic {
        topic_id,
        partitions: asked.partitions.into_iter().map(partition).collect(),
        topic_name: asked.topic_name,
    }
}

pub(crate) async fn alter(
    call: Call,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    match altered(call.core(), request).await {
        Ok(responses) => AlterShareGroupOffsetsResponse {
            responses,
            ..AlterShareGroupOffsetsResponse::default()
        },
        Err(Refused { refusal, why }) => AlterShareGroupOffsetsResponse {
            error_code: code_of(refusal).code(),
            error_message: Some(why),
            ..AlterShareGroupOffsetsResponse::default()
        },
    }
}

async fn altered(
    core: &Arc<Core>,
    request: AlterShareGroupOffsetsRequest,
) -> Result<Vec<AlterShareGroupOffsetsResponseTopic>, Refused> {
    if request.group_id.is_empty() {
        return Err(Refusal::InvalidGroupId.into());
    }
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let mut known = Vec::new();
    let mut wanted = Vec::new();
    let mut responses = Vec::new();
    for asked in request.topics {
        let topic = core.topics.get(&asked.topic_name);
        let topic_id = topic.as_ref().map_or(Uuid::nil(), |topic| topic.id);
        let mut indexes = BTreeSet::new();
        let mut partitions = Vec::new();
        for one in asked.partitions {
            let index = one.partition_index;
            let there = topic
                .as_ref()
                .is_some_and(|topic| topic.partition(index).is_some());
            let code = match there {
                true => ErrorCode::None,
                false => ErrorCode::UnknownTopicOrPartition,
            };
            if there {
                indexes.insert(index);
                let key = Key {
                    group: group.clone(),
                    topic: topic_id,
                    partition: index,
                };
                wanted.push((key, one.start_offset));
            }
            partitions.push(AlterShareGroupOffsetsResponsePartition {
                partition_index: index,
                error_code: code.code(),
                error_message: (!there).then(|| code.message().to_owned()),
            });
        }
        if !indexes.is_empty() {
            let name = asked.topic_name.clone();
            let partitions = indexes;
            known.push((topic_id, Known { name, partitions }));
        }
        responses.push(AlterShareGroupOffsetsResponseTopic {
            topic_name: asked.topic_name,
            topic_id,
            partitions,
        });
    }
    make_store(core).await?;
    let epoch = core.groups.share_prepare(&request.group_id, known).await?;
    for (key, start) in wanted {
        let set = core.shares.set(key, start, epoch).await;
        set.map_err(|_| Refusal::NotStored)?;
    }
    Ok(responses)
}

pub(crate) async fn forget(
    call: Call,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    match forgotten(call.core(), request).await {
        Ok(responses) => DeleteShareGroupOffsetsResponse {
            responses,
            ..DeleteShareGroupOffsetsResponse::default()
        },
        Err(Refused { refusal, why }) => DeleteShareGroupOffsetsResponse {
            error_code: code_of(refusal).code(),
            error_message: Some(why),
            ..DeleteShareGroupOffsetsResponse::default()
        },
    }
}

async fn forgotten(
    core: &Arc<Core>,
    request: DeleteShareGroupOffsetsRequest,
) -> Result<Vec<DeleteShareGroupOffsetsResponseTopic>, Refused> {
    if request.group_id.is_empty() {
        return Err(Refusal::InvalidGroupId.into());
    }
    let names: Vec<String> = request
        .topics
        .into_iter()
        .map(|topic| topic.topic_name)
        .collect();
    let there: BTreeMap<&str, Uuid> = names
        .iter()
        .filter_map(|name| Some((name.as_str(), core.topics.get(name)?.id)))
        .collect();
    let ids: Vec<Uuid> = there.values().copied().collect();
    let known = core.groups.share_forget(&request.group_id, &ids).await?;
    let known: BTreeMap<Uuid, Known> = ids
        .iter()
        .zip(known)
        .filter_map(|(topic, known)| Some((*topic, known?)))
        .collect();
    let topics: Vec<(Uuid, Known)> = known.clone().into_iter().collect();
    let forgotten = core.shares.forget(keys(&request.group_id, &topics)).await;
    forgotten.map_err(|_| Refusal::NotStored)?;
    let responses = names.iter().map(|name| {
        let topic_id = there.get(name.as_str()).copied();
        match topic_id.filter(|topic| known.contains_key(topic)) {
            Some(topic_id) => DeleteShareGroupOffsetsResponseTopic {
                topic_name: name.clone(),
                topic_id,
                ..DeleteShareGroupOffsetsResponseTopic::default()
            },
            None => {
                let code = ErrorCode::UnknownTopicOrPartition;
                let why = match topic_id {
                    Some(_) => "There is no offset information to delete.",
                    None => code.message(),
                };
                DeleteShareGroupOffsetsResponseTopic {
                    topic_name: name.clone(),
                    error_code: code.code(),
                    error_message: Some(why.to_owned()),
                    ..DeleteShareGroupOffsetsResponseTopic::default()
                }
            }
        }
    });
    Ok(responses.collect())
}
