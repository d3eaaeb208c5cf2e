//! Requests about share groups.
//!
//! The topics of ShareFetch and ShareAcknowledge are looked at by their APIs, when the session has told them.

use std::any::Any;

use kafka::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponsePartition,
    AlterShareGroupOffsetsResponseTopic,
};
use kafka::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponseTopic,
};
use kafka::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
};
use kafka::messages::share_acknowledge::ShareAcknowledgeRequest;
use kafka::messages::share_fetch::ShareFetchRequest;
use kafka::messages::share_group_describe::{DescribedGroup, ShareGroupDescribeRequest};
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;

use super::{
    Answer, GROUP, Guard, Kind, NOT_ASKED, Operation, Outcome, TOPIC, after, of, take, whole,
};
use crate::dispatch::Call;

pub(super) fn heartbeat(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request
        .downcast_ref()
        .and_then(|request: &ShareGroupHeartbeatRequest| {
            let topics = request.subscribed_topic_names.iter().flatten();
            call.joining(&request.group_id, topics.map(String::as_str))
        });
    whole::<ShareGroupHeartbeatRequest>(request, refused, |response, code| {
        response.error_code = code;
    })
}

pub(super) fn fetch(call: &Call, request: &mut dyn Any) -> Guard {
    // Without a name of a group the API refuses it.
    let group = |request: &ShareFetchRequest| request.group_id.clone();
    let group = request.downcast_ref().and_then(group);
    let refused = group.and_then(|group| call.group(Operation::Read, &group));
    whole::<ShareFetchRequest>(request, refused, |response, code| {
        response.error_code = code;
        response.error_message = Some(GROUP.message().to_owned());
    })
}

pub(super) fn acknowledge(call: &Call, request: &mut dyn Any) -> Guard {
    let group = |request: &ShareAcknowledgeRequest| request.group_id.clone();
    let group = request.downcast_ref().and_then(group);
    let refused = group.and_then(|group| call.group(Operation::Read, &group));
    whole::<ShareAcknowledgeRequest>(request, refused, |response, code| {
        response.error_code = code;
        response.error_message = Some(GROUP.message().to_owned());
    })
}

pub(super) fn describe(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<ShareGroupDescribeRequest>(request, move |request| {
        let denied = take(&mut request.group_ids, |group| {
            asking.group(Operation::Describe, group).is_none()
        });
        after(move |response: &mut Answer<ShareGroupDescribeRequest>| {
            for group in &mut response.groups {
                if group.authorized_operations != NOT_ASKED {
                    let all = group.authorized_operations;
                    let may = asking.operations(Kind::Group, &group.group_id, all);
                    group.authorized_operations = may;
                }
                // Who may not see a topic may not see who reads it.
                let mut topics = group.members.iter().flat_map(|member| {
                    let assigned = member.assignment.topic_partitions.iter();
                    let named = assigned.map(|topic| &topic.topic_name);
                    named.chain(&member.subscribed_topic_names)
                });
                if topics.any(|topic| !asking.may_topic(Operation::Describe, topic)) {
                    group.error_code = TOPIC.code();
                    group.error_message = Some(super::groups::HIDDEN_TOPICS.to_owned());
                    group.members = Vec::new();
                }
            }
            let refused = denied.into_iter().map(|group_id| DescribedGroup {
                error_code: GROUP.code(),
                group_id,
                authorized_operations: NOT_ASKED,
                ..DescribedGroup::default()
            });
            response.groups.extend(refused);
        })
    })
}

pub(super) fn offsets(call: &Call, request: &mut dyn Any) -> Guard {
    let call = call.clone();
    of::<DescribeShareGroupOffsetsRequest>(request, move |request| {
        let groups = take(&mut request.groups, |group| {
            call.group(Operation::Describe, &group.group_id).is_none()
        });
        let mut topics = Vec::new();
        for group in &mut request.groups {
            let Some(named) = &mut group.topics else {
                continue; // all of them: those that may not be seen are left out of the answer
            };
            let denied = take(named, |topic| {
                call.may_topic(Operation::Describe, &topic.topic_name)
            });
            let denied = denied
                .into_iter()
                .map(|topic| DescribeShareGroupOffsetsResponseTopic {
                    topic_name: topic.topic_name,
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|index| DescribeShareGroupOffsetsResponsePartition {
                            partition_index: *index,
                            error_code: TOPIC.code(),
                            error_message: Some(TOPIC.message().to_owned()),
                            ..DescribeShareGroupOffsetsResponsePartition::default()
                        })
                        .collect(),
                    ..DescribeShareGroupOffsetsResponseTopic::default()
                });
            topics.push((group.group_id.clone(), denied.collect::<Vec<_>>()));
        }
        after(
            move |response: &mut Answer<DescribeShareGroupOffsetsRequest>| {
                for group in &mut response.groups {
                    let may = |topic: &DescribeShareGroupOffsetsResponseTopic| {
                        call.may_topic(Operation::Describe, &topic.topic_name)
                    };
                    group.topics.retain(may);
                    let theirs = topics.iter_mut().find(|(id, _)| *id == group.group_id);
                    if let Some((_, denied)) = theirs.filter(|_| group.error_code == 0) {
                        group.topics.append(denied);
                    }
                }
                let refused =
                    groups
                        .into_iter()
                        .map(|group| DescribeShareGroupOffsetsResponseGroup {
                            group_id: group.group_id,
                            error_code: GROUP.code(),
                            error_message: Some(GROUP.message().to_owned()),
                            ..DescribeShareGroupOffsetsResponseGroup::default()
                        });
                response.groups.extend(refused);
            },
        )
    })
}

pub(super) fn alter(call: &Call, request: &mut dyn Any) -> Guard {
    of::<AlterShareGroupOffsetsRequest>(request, |request| {
        if let Some(code) = call.group(Operation::Read, &request.group_id) {
            return Outcome::Instead(
                kafka::messages::alter_share_group_offsets::AlterShareGroupOffsetsResponse {
                    error_code: code.code(),
                    error_message: Some(code.message().to_owned()),
                    ..Default::default()
                },
            );
        }
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Read, &topic.topic_name)
        });
        let refused = denied
            .into_iter()
            .map(|topic| AlterShareGroupOffsetsResponseTopic {
                topic_name: topic.topic_name,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| AlterShareGroupOffsetsResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: TOPIC.code(),
                        error_message: Some(TOPIC.message().to_owned()),
                    })
                    .collect(),
                ..AlterShareGroupOffsetsResponseTopic::default()
            });
        let refused: Vec<_> = refused.collect();
        after(
            move |response: &mut Answer<AlterShareGroupOffsetsRequest>| {
                response.responses.extend(refused);
            },
        )
    })
}

pub(super) fn forget(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DeleteShareGroupOffsetsRequest>(request, |request| {
        if let Some(code) = call.group(Operation::Delete, &request.group_id) {
            return Outcome::Instead(
                kafka::messages::delete_share_group_offsets::DeleteShareGroupOffsetsResponse {
                    error_code: code.code(),
                    error_message: Some(code.message().to_owned()),
                    ..Default::default()
                },
            );
        }
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Read, &topic.topic_name)
        });
        let refused = denied
            .into_iter()
            .map(|topic| DeleteShareGroupOffsetsResponseTopic {
                topic_name: topic.topic_name,
                error_code: TOPIC.code(),
                error_message: Some(TOPIC.message().to_owned()),
                ..DeleteShareGroupOffsetsResponseTopic::default()
            });
        let refused: Vec<_> = refused.collect();
        after(
            move |response: &mut Answer<DeleteShareGroupOffsetsRequest>| {
                response.responses.extend(refused);
            },
        )
    })
}
