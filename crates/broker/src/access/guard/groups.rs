//! Requests about groups and what they have committed.

use std::any::Any;

use kafka::messages::consumer_group_describe::{self, ConsumerGroupDescribeRequest};
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use kafka::messages::delete_groups::{DeletableGroupResult, DeleteGroupsRequest};
use kafka::messages::describe_groups::{self, DescribeGroupsRequest};
use kafka::messages::find_coordinator::{Coordinator, FindCoordinatorRequest};
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::join_group::JoinGroupRequest;
use kafka::messages::leave_group::LeaveGroupRequest;
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka::messages::sync_group::SyncGroupRequest;

use super::{
    Answer, GROUP, Guard, Kind, NOT_ASKED, Operation, Outcome, TOPIC, TRANSACTION, after, of, take,
    whole,
};
use crate::dispatch::Call;

/// Kinds of what a coordinator is looked for.
const OF_TRANSACTION: i8 = 1;
/// Why the members of a group are not told, in Kafka's words.
pub(super) const HIDDEN_TOPICS: &str =
    "The group has described topic(s) that the client is not authorized to describe.";

pub(super) fn find(call: &Call, request: &mut dyn Any) -> Guard {
    of::<FindCoordinatorRequest>(request, |request| {
        let (kind, code) = match request.key_type {
            OF_TRANSACTION => (Kind::TransactionalId, TRANSACTION),
            _ => (Kind::Group, GROUP),
        };
        let may = |key: &String| call.client.may(Operation::Describe, kind, key);
        if call.version < 4 {
            if may(&request.key) {
                return Outcome::Pass;
            }
            return Outcome::Instead(kafka::messages::find_coordinator::FindCoordinatorResponse {
                error_code: code.code(),
                node_id: -1,
                port: -1,
                ..Default::default()
            });
        }
        let refused = take(&mut request.coordinator_keys, may);
        let refused = refused.into_iter().map(move |key| Coordinator {
            key,
            node_id: -1,
            port: -1,
            error_code: code.code(),
            ..Coordinator::default()
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<FindCoordinatorRequest>| {
            response.coordinators.extend(refused)
        })
    })
}

pub(super) fn join(call: &Call, request: &mut dyn Any) -> Guard {
    of::<JoinGroupRequest>(request, |request| {
        match call.group(Operation::Read, &request.group_id) {
            None => Outcome::Pass,
            Some(code) => Outcome::Instead(kafka::messages::join_group::JoinGroupResponse {
                error_code: code.code(),
                protocol_name: (call.version < 7).then(String::new),
                ..Default::default()
            }),
        }
    })
}

pub(super) fn sync(call: &Call, request: &mut dyn Any) -> Guard {
    let group = request
        .downcast_ref()
        .map(|request: &SyncGroupRequest| request.group_id.clone());
    let refused = call.group(Operation::Read, group.as_deref().unwrap_or_default());
    whole::<SyncGroupRequest>(request, refused, |response, code| {
        response.error_code = code
    })
}

pub(super) fn heartbeat(call: &Call, request: &mut dyn Any) -> Guard {
    let group = request
        .downcast_ref()
        .map(|request: &HeartbeatRequest| request.group_id.clone());
    let refused = call.group(Operation::Read, group.as_deref().unwrap_or_default());
    whole::<HeartbeatRequest>(request, refused, |response, code| {
        response.error_code = code
    })
}

pub(super) fn leave(call: &Call, request: &mut dyn Any) -> Guard {
    let group = request
        .downcast_ref()
        .map(|request: &LeaveGroupRequest| request.group_id.clone());
    let refused = call.group(Operation::Read, group.as_deref().unwrap_or_default());
    whole::<LeaveGroupRequest>(request, refused, |response, code| {
        response.error_code = code
    })
}

pub(super) fn consumer_heartbeat(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request
        .downcast_ref()
        .and_then(|request: &ConsumerGroupHeartbeatRequest| {
            let topics = request.subscribed_topic_names.iter().flatten();
            call.joining(&request.group_id, topics.map(String::as_str))
        });
    whole::<ConsumerGroupHeartbeatRequest>(request, refused, |response, code| {
        response.error_code = code;
    })
}

pub(super) fn describe(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<DescribeGroupsRequest>(request, move |request| {
        let denied = take(&mut request.groups, |group| {
            asking.group(Operation::Describe, group).is_none()
        });
        after(
            move |response: &mut describe_groups::DescribeGroupsResponse| {
                for group in &mut response.groups {
                    if group.error_code != 0 {
                        group.authorized_operations = NOT_ASKED;
                    } else if group.authorized_operations != NOT_ASKED {
                        group.authorized_operations = asking.operations(
                            Kind::Group,
                            &group.group_id,
                            group.authorized_operations,
                        );
                    }
                }
                let refused = denied
                    .into_iter()
                    .map(|group_id| describe_groups::DescribedGroup {
                        error_code: GROUP.code(),
                        group_id,
                        authorized_operations: NOT_ASKED,
                        ..Default::default()
                    });
                response.groups.extend(refused);
            },
        )
    })
}

pub(super) fn describe_consumers(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<ConsumerGroupDescribeRequest>(request, move |request| {
        let denied = take(&mut request.group_ids, |group| {
            asking.group(Operation::Describe, group).is_none()
        });
        after(
            move |response: &mut consumer_group_describe::ConsumerGroupDescribeResponse| {
                for group in &mut response.groups {
                    if group.authorized_operations != NOT_ASKED {
                        group.authorized_operations = asking.operations(
                            Kind::Group,
                            &group.group_id,
                            group.authorized_operations,
                        );
                    }
                    // Who may not see a topic may not see who reads it.
                    let members = group.members.iter();
                    let mut topics = members.flat_map(|member| {
                        let assigned = member.assignment.topic_partitions.iter();
                        let target = member.target_assignment.topic_partitions.iter();
                        let named = assigned.chain(target).map(|topic| &topic.topic_name);
                        named.chain(&member.subscribed_topic_names)
                    });
                    if topics.any(|topic| !asking.may_topic(Operation::Describe, topic)) {
                        group.error_code = TOPIC.code();
                        group.error_message = Some(HIDDEN_TOPICS.to_owned());
                        group.members = Vec::new();
                    }
                }
                let refused =
                    denied
                        .into_iter()
                        .map(|group_id| consumer_group_describe::DescribedGroup {
                            error_code: GROUP.code(),
                            group_id,
                            authorized_operations: NOT_ASKED,
                            ..Default::default()
                        });
                response.groups.extend(refused);
            },
        )
    })
}

pub(super) fn list(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<ListGroupsRequest>(request, move |_| {
        match asking.cluster(Operation::Describe) {
            None => Outcome::Pass,
            Some(_) => after(
                move |response: &mut kafka::messages::list_groups::ListGroupsResponse| {
                    response.groups.retain(|group| {
                        asking.group(Operation::Describe, &group.group_id).is_none()
                    });
                },
            ),
        }
    })
}

pub(super) fn delete(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DeleteGroupsRequest>(request, |request| {
        let denied = take(&mut request.groups_names, |group| {
            call.group(Operation::Delete, group).is_none()
        });
        let refused = denied.into_iter().map(|group_id| DeletableGroupResult {
            group_id,
            error_code: GROUP.code(),
            ..DeletableGroupResult::default()
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<DeleteGroupsRequest>| response.results.extend(refused))
    })
}

pub(super) fn commit(call: &Call, request: &mut dyn Any) -> Guard {
    of::<OffsetCommitRequest>(request, |request| {
        let group = call.group(Operation::Read, &request.group_id);
        let code = group.unwrap_or(TOPIC);
        let denied = take(&mut request.topics, |topic| {
            group.is_none() && call.may_either(Operation::Read, &topic.name, topic.topic_id)
        });
        if denied.is_empty() {
            return Outcome::Pass;
        }
        let refused = denied.into_iter().map(|topic| OffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code.code(),
                })
                .collect(),
        });
        let refused: Vec<_> = refused.collect();
        if request.topics.is_empty() {
            return Outcome::Instead(OffsetCommitResponse {
                topics: refused,
                ..OffsetCommitResponse::default()
            });
        }
        after(move |response: &mut Answer<OffsetCommitRequest>| response.topics.extend(refused))
    })
}

pub(super) fn fetch(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<OffsetFetchRequest>(request, move |request| match asking.version {
        ..8 => fetch_of_one(asking, request),
        _ => fetch_of_many(asking, request),
    })
}

fn fetch_of_one(call: Call, request: &mut OffsetFetchRequest) -> Outcome<OffsetFetchResponse> {
    if let Some(code) = call.group(Operation::Describe, &request.group_id) {
        // Before version 2 only partitions carry errors.
        let partitions = request.topics.take().into_iter().flatten();
        let topics =
            partitions
                .filter(|_| call.version < 2)
                .map(|topic| OffsetFetchResponseTopic {
                    name: topic.name,
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|index| OffsetFetchResponsePartition {
                            partition_index: *index,
                            committed_offset: -1,
                            metadata: Some(String::new()),
                            error_code: code.code(),
                            ..OffsetFetchResponsePartition::default()
                        })
                        .collect(),
                });
        return Outcome::Instead(OffsetFetchResponse {
            topics: topics.collect(),
            error_code: code.code(),
            ..OffsetFetchResponse::default()
        });
    }
    let Some(named) = &mut request.topics else {
        return after(move |response: &mut OffsetFetchResponse| {
            let may =
                |topic: &OffsetFetchResponseTopic| call.may_topic(Operation::Describe, &topic.name);
            response.topics.retain(may);
        });
    };
    let denied = take(named, |topic| {
        call.may_topic(Operation::Describe, &topic.name)
    });
    let refused = denied.into_iter().map(|topic| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|index| OffsetFetchResponsePartition {
                partition_index: *index,
                committed_offset: -1,
                metadata: Some(String::new()),
                error_code: TOPIC.code(),
                ..OffsetFetchResponsePartition::default()
            })
            .collect(),
    });
    let refused: Vec<_> = refused.collect();
    after(move |response: &mut Answer<OffsetFetchRequest>| response.topics.extend(refused))
}

fn fetch_of_many(call: Call, request: &mut OffsetFetchRequest) -> Outcome<OffsetFetchResponse> {
    let denied = take(&mut request.groups, |group| {
        call.group(Operation::Describe, &group.group_id).is_none()
    });
    let refused = denied.into_iter().map(|group| OffsetFetchResponseGroup {
        group_id: group.group_id,
        error_code: GROUP.code(),
        ..OffsetFetchResponseGroup::default()
    });
    let refused: Vec<_> = refused.collect();
    let mut topics = Vec::new();
    let mut every = Vec::new();
    for group in &mut request.groups {
        let Some(named) = &mut group.topics else {
            every.push(group.group_id.clone());
            continue;
        };
        let denied = take(named, |topic| {
            call.may_either(Operation::Describe, &topic.name, topic.topic_id)
        });
        let denied = denied.into_iter().map(|topic| OffsetFetchResponseTopics {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| OffsetFetchResponsePartitions {
                    partition_index: *index,
                    committed_offset: -1,
                    metadata: Some(String::new()),
                    error_code: TOPIC.code(),
                    ..OffsetFetchResponsePartitions::default()
                })
                .collect(),
        });
        topics.push((group.group_id.clone(), denied.collect::<Vec<_>>()));
    }
    after(move |response: &mut OffsetFetchResponse| {
        for group in &mut response.groups {
            if every.contains(&group.group_id) {
                let may = |topic: &OffsetFetchResponseTopics| {
                    call.may_either(Operation::Describe, &topic.name, topic.topic_id)
                };
                group.topics.retain(may);
            }
            let theirs = topics.iter_mut().find(|(id, _)| *id == group.group_id);
            if let Some((_, denied)) = theirs.filter(|_| group.error_code == 0) {
                group.topics.append(denied);
            }
        }
        response.groups.extend(refused);
    })
}

pub(super) fn delete_offsets(call: &Call, request: &mut dyn Any) -> Guard {
    of::<OffsetDeleteRequest>(request, |request| {
        if let Some(code) = call.group(Operation::Delete, &request.group_id) {
            return Outcome::Instead(kafka::messages::offset_delete::OffsetDeleteResponse {
                error_code: code.code(),
                ..Default::default()
            });
        }
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Read, &topic.name)
        });
        let refused = denied.into_iter().map(|topic| OffsetDeleteResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: TOPIC.code(),
                })
                .collect(),
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<OffsetDeleteRequest>| response.topics.extend(refused))
    })
}
