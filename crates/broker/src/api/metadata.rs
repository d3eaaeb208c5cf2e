//! Who we are and what topics there are: Metadata, DescribeCluster, DescribeTopicPartitions.

use std::collections::HashSet;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use kafka::messages::describe_topic_partitions as described;
use kafka::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use uuid::Uuid;

use super::topics::{create_blocking, error_of};
use crate::dispatch::Call;
use crate::node::NODE_ID;
use crate::topic::config::Overrides;
use crate::topic::registry::{Error, NewTopic};
use crate::topic::{Topic, is_internal};

/// Everything that can be done with a topic: nobody is refused anything yet. One bit an operation:
/// read, write, create, delete, alter, describe, describe configs, alter configs.
const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;
/// The endpoint type of controllers; that of brokers is 1.
const CONTROLLERS: i8 = 2;
/// What stands for "not asked".
const NOT_ASKED: i32 = i32::MIN;

pub(crate) async fn metadata(call: Call, request: MetadataRequest) -> MetadataResponse {
    let asked = request.include_topic_authorized_operations;
    let topic_operations = if asked { TOPIC_OPERATIONS } else { NOT_ASKED };
    let everything = |topics: &Vec<_>| call.version == 0 && topics.is_empty();
    let topics = match request.topics {
        Some(topics) if !everything(&topics) => {
            let mut answers = Vec::with_capacity(topics.len());
            let mut told = HashSet::new();
            for topic in topics {
                if !told.insert((topic.name.clone(), topic.topic_id)) {
                    continue;
                }
                let create = request.allow_auto_topic_creation;
                answers.push(wanted(&call, topic, create, topic_operations).await);
            }
            answers
        }
        _ => call
            .core()
            .topics
            .all()
            .iter()
            .map(|topic| topic_answer(&call, topic, topic_operations))
            .collect(),
    };
    let asked = request.include_cluster_authorized_operations;
    MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: NODE_ID,
            host: call.client.reached.host.clone(),
            port: i32::from(call.client.reached.port),
            ..MetadataResponseBroker::default()
        }],
        cluster_id: Some(call.core().node.cluster_id().to_owned()),
        controller_id: NODE_ID,
        topics,
        cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { NOT_ASKED },
        ..MetadataResponse::default()
    }
}

/// One topic that was asked for by name or by id.
async fn wanted(
    call: &Call,
    asked: MetadataRequestTopic,
    create: bool,
    operations: i32,
) -> MetadataResponseTopic {
    let core = call.core();
    // Who names an id means it, whatever name stands beside it: the Java client leaves an empty one there.
    let name = asked.name.filter(|_| asked.topic_id.is_nil());
    let Some(name) = name else {
        return match core.topics.by_id(asked.topic_id) {
            Some(topic) => topic_answer(call, &topic, operations),
            None => MetadataResponseTopic {
                error_code: ErrorCode::UnknownTopicId.code(),
                name: None,
                topic_id: asked.topic_id,
                ..MetadataResponseTopic::default()
            },
        };
    };
    if let Some(topic) = core.topics.get(&name) {
        return topic_answer(call, &topic, operations);
    }
    let new = NewTopic {
        name: name.clone(),
        partitions: core.partitions_default,
        overrides: Overrides::new(),
    };
    let error = match core.topics.check(&new) {
        Err(error @ Error::Name { .. }) => error_of(&error),
        _ if !create || !core.auto_create || is_internal(&name) => {
            ErrorCode::UnknownTopicOrPartition
        }
        _ => match create_blocking(core, new).await {
            Ok(topic) => return topic_answer(call, &topic, operations),
            // Somebody else was faster.
            Err(Error::Exists { .. }) => match core.topics.get(&name) {
                Some(topic) => return topic_answer(call, &topic, operations),
                None => ErrorCode::UnknownTopicOrPartition,
            },
            Err(error) => error_of(&error),
        },
    };
    MetadataResponseTopic {
        error_code: error.code(),
        name: Some(name),
        topic_id: Uuid::nil(),
        topic_authorized_operations: NOT_ASKED,
        ..MetadataResponseTopic::default()
    }
}

fn topic_answer(call: &Call, topic: &Arc<Topic>, operations: i32) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: topic
            .partitions()
            .iter()
            .map(|partition| MetadataResponsePartition {
                error_code: ErrorCode::None.code(),
                partition_index: partition.index,
                leader_id: NODE_ID,
                leader_epoch: call.core().node.epoch(),
                replica_nodes: vec![NODE_ID],
                isr_nodes: vec![NODE_ID],
                offline_replicas: Vec::new(),
            })
            .collect(),
        topic_authorized_operations: operations,
    }
}

pub(crate) async fn cluster(
    call: Call,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let asked = request.include_cluster_authorized_operations;
    if request.endpoint_type != 1 {
        let code = match request.endpoint_type {
            CONTROLLERS => ErrorCode::MismatchedEndpointType,
            _ => ErrorCode::UnsupportedEndpointType,
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some("only the endpoints of brokers are known here".into()),
            cluster_authorized_operations: NOT_ASKED,
            ..DescribeClusterResponse::default()
        };
    }
    DescribeClusterResponse {
        cluster_id: call.core().node.cluster_id().to_owned(),
        controller_id: NODE_ID,
        brokers: vec![DescribeClusterBroker {
            broker_id: NODE_ID,
            host: call.client.reached.host.clone(),
            port: i32::from(call.client.reached.port),
            ..DescribeClusterBroker::default()
        }],
        cluster_authorized_operations: if asked { CLUSTER_OPERATIONS } else { NOT_ASKED },
        ..DescribeClusterResponse::default()
    }
}

/// Topics in the order of their names, page by page.
pub(crate) async fn partitions(
    call: Call,
    request: described::DescribeTopicPartitionsRequest,
) -> described::DescribeTopicPartitionsResponse {
    let core = call.core();
    let asked_for_all = request.topics.is_empty();
    let mut names: Vec<String> = if asked_for_all {
        let all = core.topics.all();
        all.iter().map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).collect()
    };
    names.sort();
    names.dedup();
    if let Some(cursor) = &request.cursor
        && (cursor.partition_index < 0 || !asked_for_all && !names.contains(&cursor.topic_name))
    {
        let refused = |name| described::DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::InvalidRequest.code(),
            name: Some(name),
            topic_authorized_operations: NOT_ASKED,
            ..described::DescribeTopicPartitionsResponseTopic::default()
        };
        return described::DescribeTopicPartitionsResponse {
            topics: names.into_iter().map(refused).collect(),
            ..described::DescribeTopicPartitionsResponse::default()
        };
    }
    let from = request.cursor.unwrap_or_default();
    let mut left = usize::try_from(request.response_partition_limit)
        .unwrap_or(0)
        .max(1);
    let mut response = described::DescribeTopicPartitionsResponse::default();
    for name in names.into_iter().skip_while(|name| *name < from.topic_name) {
        if left == 0 {
            response.next_cursor = Some(described::Cursor {
                topic_name: name,
                partition_index: 0,
            });
            break;
        }
        let Some(topic) = core.topics.get(&name) else {
            response
                .topics
                .push(described::DescribeTopicPartitionsResponseTopic {
                    error_code: ErrorCode::UnknownTopicOrPartition.code(),
                    name: Some(name),
                    topic_authorized_operations: TOPIC_OPERATIONS,
                    ..described::DescribeTopicPartitionsResponseTopic::default()
                });
            continue;
        };
        let resumed = name == from.topic_name;
        let skip = if resumed {
            usize::try_from(from.partition_index).unwrap_or(0)
        } else {
            0
        };
        let all = topic.partitions();
        let page: Vec<_> = all.iter().skip(skip).take(left).collect();
        left -= page.len();
        let reached = skip + page.len();
        response
            .topics
            .push(described::DescribeTopicPartitionsResponseTopic {
                error_code: ErrorCode::None.code(),
                name: Some(name.clone()),
                topic_id: topic.id,
                is_internal: topic.is_internal(),
                partitions: page
                    .into_iter()
                    .map(
                        |partition| described::DescribeTopicPartitionsResponsePartition {
                            error_code: ErrorCode::None.code(),
                            partition_index: partition.index,
                            leader_id: NODE_ID,
                            leader_epoch: core.node.epoch(),
                            replica_nodes: vec![NODE_ID],
                            isr_nodes: vec![NODE_ID],
                            eligible_leader_replicas: Some(Vec::new()),
                            last_known_elr: Some(Vec::new()),
                            offline_replicas: Vec::new(),
                        },
                    )
                    .collect(),
                topic_authorized_operations: TOPIC_OPERATIONS,
            });
        if reached < all.len() {
            response.next_cursor = Some(described::Cursor {
                topic_name: name,
                partition_index: i32::try_from(reached).unwrap_or(i32::MAX),
            });
            break;
        }
    }
    response
}
