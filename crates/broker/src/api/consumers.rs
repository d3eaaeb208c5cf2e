//! Groups whose partitions the broker assigns (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use kafka::error::ErrorCode;
use kafka::messages::consumer_group_describe::{
    Assignment as DescribedAssignment, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse,
    DescribedGroup, Member as DescribedMember, TopicPartitions as DescribedPartitions,
};
use kafka::messages::consumer_group_heartbeat::{
    Assignment, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use uuid::Uuid;

use super::groups::{GROUP_OPERATIONS, MEMBER_BYTES_MAX, code_of};
use crate::dispatch::Call;
use crate::group::consumer::assign::ASSIGNORS;
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::member::{AWAY, Member, Partitions, partitions};
use crate::group::consumer::terms::{Beat, Beaten, Refused, View};
use crate::group::terms::Refusal;

/// The epoch of a member that leaves for good.
const LEAVES: i32 = -1;
/// What protocol a member speaks.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;
/// From this version on, members draw their ids themselves.
const OWN_IDS_FROM: i16 = 1;

pub(crate) async fn heartbeat(
    call: Call,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    if let Err((code, why)) = check(&request, call.version) {
        return refused(code, why);
    }
    let core = call.core();
    let group_id = request.group_id.clone();
    let beat = beat(&call, request);
    let answer = async {
        if !matches!(beat.epoch, LEAVES | AWAY) {
            return core.groups.beat(&core.topics, &group_id, beat).await;
        }
        core.groups.depart(&core.topics, &group_id, &beat).await?;
        Ok(Beaten {
            member_id: beat.member_id,
            epoch: beat.epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    };
    let answer = tokio::select! {
        answer = answer => answer,
        // The client asks again, and finds the broker that comes after us.
        () = call.client.stop.cancelled() => Err(Refusal::NotStored.into()),
    };
    match answer {
        Err(Refused { refusal, why }) => refused(code_of(refusal), why),
        Ok(beaten) => ConsumerGroupHeartbeatResponse {
            member_id: Some(beaten.member_id),
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
            ..ConsumerGroupHeartbeatResponse::default()
        },
    }
}

fn refused(code: ErrorCode, why: String) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

/// What can be said without knowing the group, in Kafka's order.
fn check(request: &ConsumerGroupHeartbeatRequest, version: i16) -> Result<(), (ErrorCode, String)> {
    let invalid = |why: &str| Err((ErrorCode::InvalidRequest, why.to_owned()));
    let empty = |text: &Option<String>| text.as_deref() == Some("");
    let epoch = request.member_epoch;
    let id_needed = version >= OWN_IDS_FROM || epoch > 0 || epoch == LEAVES;
    if id_needed && request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if empty(&request.instance_id) {
        return invalid("InstanceId can't be empty.");
    }
    if empty(&request.rack_id) {
        return invalid("RackId can't be empty.");
    }
    match epoch {
        0 if request.rebalance_timeout_ms == -1 => {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        0 if request
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty()) =>
        {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        0 if request.subscribed_topic_names.is_none()
            && request.subscribed_topic_regex.is_none() =>
        {
            let why = "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.";
            return invalid(why);
        }
        AWAY if request.instance_id.is_none() => return invalid("InstanceId can't be null."),
        ..AWAY => return invalid("MemberEpoch is invalid."),
        _ => (),
    }
    if let Some(assignor) = &request.server_assignor
        && !ASSIGNORS.contains(&assignor.as_str())
    {
        let why = format!(
            "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
            ASSIGNORS.join(", ")
        );
        return Err((ErrorCode::UnsupportedAssignor, why));
    }
    if size(request) > MEMBER_BYTES_MAX {
        return invalid("the member says more of itself than the broker takes");
    }
    Ok(())
}

/// How much of a heartbeat would stay in memory.
fn size(request: &ConsumerGroupHeartbeatRequest) -> usize {
    let names = request.subscribed_topic_names.iter().flatten();
    let names: usize = names.map(|name| name.len() + size_of::<String>()).sum();
    let texts = [
        &request.instance_id,
        &request.rack_id,
        &request.subscribed_topic_regex,
    ];
    let texts = texts.into_iter().flatten().map(String::len);
    names + request.member_id.len() + texts.sum::<usize>()
}

fn beat(call: &Call, request: ConsumerGroupHeartbeatRequest) -> Beat {
    let owned = request.topic_partitions.map(|owned| {
        let mut partitions = Partitions::new();
        for one in owned {
            let topic = partitions.entry(one.topic_id).or_default();
            topic.extend(one.partitions);
        }
        partitions
    });
    Beat {
        member_id: match request.member_id.is_empty() {
            true => Uuid::new_v4().to_string(),
            false => request.member_id,
        },
        epoch: request.member_epoch,
        instance_id: request.instance_id,
        rack_id: request.rack_id,
        client_id: call.client_id.clone(),
        client_host: format!("/{}", call.client.peer.ip().to_canonical()),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout| *timeout != -1),
        topics: request.subscribed_topic_names,
        pattern: request.subscribed_topic_regex,
        assignor: request.server_assignor,
        owned,
    }
}

pub(crate) async fn describe(
    call: Call,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
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
        match core.groups.describe_consumer(&core.topics, &group_id) {
            Some((view, catalog)) => described(group_id, view, &catalog, authorized_operations),
            None => {
                let why = format!("Group {group_id} is not a consumer group.");
                failed(group_id, ErrorCode::GroupIdNotFound, Some(why))
            }
        }
    };
    ConsumerGroupDescribeResponse {
        groups: request.group_ids.into_iter().map(describe_one).collect(),
        ..ConsumerGroupDescribeResponse::default()
    }
}

fn described(
    group_id: String,
    view: View,
    catalog: &Catalog,
    authorized_operations: i32,
) -> DescribedGroup {
    let member = |(id, member, target): (String, Member, Partitions)| {
        let Member {
            profile, progress, ..
        } = member;
        let member_type = match profile.classic {
            Some(_) => CLASSIC_MEMBER,
            None => CONSUMER_MEMBER,
        };
        // What is being given up is still its own.
        let mut owned = partitions(&progress.assigned);
        for (topic, more) in partitions(&progress.revoking) {
            owned.entry(topic).or_default().extend(more);
        }
        DescribedMember {
            member_id: id,
            instance_id: profile.instance_id,
            rack_id: profile.rack_id,
            member_epoch: progress.epoch,
            client_id: profile.client_id,
            client_host: profile.client_host,
            subscribed_topic_names: profile.topics.into_iter().collect(),
            subscribed_topic_regex: Some(profile.pattern.unwrap_or_default()),
            assignment: named(owned, catalog),
            target_assignment: named(target, catalog),
            member_type,
        }
    };
    DescribedGroup {
        group_id,
        group_state: view.state.name().to_owned(),
        group_epoch: view.epoch,
        assignment_epoch: view.target_epoch,
        assignor_name: view.assignor,
        members: view.members.into_iter().map(member).collect(),
        authorized_operations,
        ..DescribedGroup::default()
    }
}

/// Topics that are gone are left out.
fn named(owned: Partitions, catalog: &Catalog) -> DescribedAssignment {
    let topics = owned.into_iter().filter_map(|(topic_id, partitions)| {
        Some(DescribedPartitions {
            topic_id,
            topic_name: catalog.name(topic_id)?.to_string(),
            partitions: partitions.into_iter().collect(),
        })
    });
    DescribedAssignment {
        topic_partitions: topics.collect(),
    }
}
