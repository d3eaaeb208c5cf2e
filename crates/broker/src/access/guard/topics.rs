//! Requests about topics.

use std::any::Any;

use kafka::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopicResult};
use kafka::messages::create_topics::{CreatableTopicResult, CreateTopicsRequest};
use kafka::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsTopicResult,
};
use kafka::messages::delete_topics::{DeletableTopicResult, DeleteTopicsRequest};
use kafka::messages::describe_producers::{self, DescribeProducersRequest};
use kafka::messages::describe_topic_partitions::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponseTopic,
};
use kafka::messages::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopicResponse,
};
use kafka::messages::metadata::{MetadataRequest, MetadataResponseTopic};
use kafka::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderTopicResult,
};
use kafka::messages::produce::{PartitionProduceResponse, ProduceRequest, TopicProduceResponse};
use kafka::record::batches;

use super::{
    Answer, CLUSTER, Guard, Kind, NOT_ASKED, Operation, Outcome, TOPIC, TRANSACTION, after, of,
    take,
};
use crate::access::rules;
use crate::dispatch::Call;

pub(super) fn produce(call: &Call, request: &mut dyn Any) -> Guard {
    of::<ProduceRequest>(request, |request| {
        // Only records of a transaction belong to one.
        let id = request.transactional_id.as_deref();
        let id = id.filter(|_| is_transactional(request));
        let (denied, code) = match id.and_then(|id| call.transaction(Operation::Write, id)) {
            Some(_) => (std::mem::take(&mut request.topic_data), TRANSACTION),
            None => {
                let may = |topic: &_| {
                    let topic: &kafka::messages::produce::TopicProduceData = topic;
                    call.may_either(Operation::Write, &topic.name, topic.topic_id)
                };
                (take(&mut request.topic_data, may), TOPIC)
            }
        };
        if denied.is_empty() {
            return Outcome::Pass;
        }
        let refused = denied.into_iter().map(move |topic| TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: topic
                .partition_data
                .iter()
                .map(|partition| PartitionProduceResponse {
                    index: partition.index,
                    error_code: code.code(),
                    base_offset: -1,
                    log_append_time_ms: -1,
                    log_start_offset: -1,
                    ..PartitionProduceResponse::default()
                })
                .collect(),
        });
        after(move |response: &mut Answer<ProduceRequest>| response.responses.extend(refused))
    })
}

/// Returns whether the first batch of some partition is one of a transaction.
fn is_transactional(request: &ProduceRequest) -> bool {
    let partitions = request
        .topic_data
        .iter()
        .flat_map(|topic| &topic.partition_data);
    let mut records = partitions.filter_map(|partition| partition.records.as_ref());
    records.any(|records| {
        let first = batches(records).next();
        first.is_some_and(|batch| batch.is_ok_and(|batch| batch.transactional()))
    })
}

pub(super) fn metadata(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<MetadataRequest>(request, move |request| {
        let core = asking.core();
        let mut refused = Vec::new();
        let mut none_left = false;
        // Version 0 has no way to ask for none.
        let every = request
            .topics
            .as_ref()
            .is_none_or(|named| named.is_empty() && asking.version == 0);
        if let Some(named) = request.topics.as_mut().filter(|_| !every) {
            let denied = take(named, |topic| {
                let name = topic.name.as_deref().unwrap_or_default();
                if !asking.may_either(Operation::Describe, name, topic.topic_id) {
                    return false;
                }
                // Who asks for a topic that is not there would make it.
                let makes = topic.topic_id.is_nil()
                    && core.auto_create
                    && (request.allow_auto_topic_creation || asking.version < 4)
                    && core.topics.get(name).is_none();
                !makes
                    || asking.client.may_cluster(Operation::Create)
                    || asking.may_topic(Operation::Create, name)
            });
            for topic in denied {
                let by_id = !topic.topic_id.is_nil();
                refused.push(MetadataResponseTopic {
                    error_code: TOPIC.code(),
                    name: match by_id {
                        // The name is what may not be known.
                        true => None,
                        false => topic.name,
                    },
                    topic_id: topic.topic_id,
                    topic_authorized_operations: NOT_ASKED,
                    ..MetadataResponseTopic::default()
                });
            }
            // It would ask for all.
            none_left = named.is_empty() && asking.version == 0;
        }
        after(
            move |response: &mut kafka::messages::metadata::MetadataResponse| {
                if none_left {
                    response.topics.clear();
                }
                if every {
                    let may = |topic: &MetadataResponseTopic| {
                        let name = topic.name.as_deref().unwrap_or_default();
                        asking.may_topic(Operation::Describe, name)
                    };
                    response.topics.retain(may);
                }
                for topic in &mut response.topics {
                    if topic.topic_authorized_operations != NOT_ASKED {
                        let name = topic.name.as_deref().unwrap_or_default();
                        topic.topic_authorized_operations =
                            asking.operations(Kind::Topic, name, topic.topic_authorized_operations);
                    }
                }
                response.topics.extend(refused);
                if response.cluster_authorized_operations != NOT_ASKED {
                    response.cluster_authorized_operations =
                        match asking.client.may_cluster(Operation::Describe) {
                            true => asking.operations(
                                Kind::Cluster,
                                rules::CLUSTER,
                                response.cluster_authorized_operations,
                            ),
                            false => 0,
                        };
                }
            },
        )
    })
}

pub(super) fn partitions(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<DescribeTopicPartitionsRequest>(request, move |request| {
        let every = request.topics.is_empty();
        let denied = take(&mut request.topics, |topic| {
            asking.may_topic(Operation::Describe, &topic.name)
        });
        let refused: Vec<_> = denied
            .into_iter()
            .map(|topic| DescribeTopicPartitionsResponseTopic {
                error_code: TOPIC.code(),
                name: Some(topic.name),
                topic_authorized_operations: NOT_ASKED,
                ..DescribeTopicPartitionsResponseTopic::default()
            })
            .collect();
        if !every && request.topics.is_empty() {
            // An empty list would ask for all.
            return Outcome::Instead(
                kafka::messages::describe_topic_partitions::DescribeTopicPartitionsResponse {
                    topics: refused,
                    ..Default::default()
                },
            );
        }
        after(move |response: &mut kafka::messages::describe_topic_partitions::DescribeTopicPartitionsResponse| {
            response.topics.retain(|topic| {
                let name = topic.name.as_deref().unwrap_or_default();
                !every || asking.may_topic(Operation::Describe, name)
            });
            for topic in &mut response.topics {
                let name = topic.name.as_deref().unwrap_or_default();
                if topic.topic_authorized_operations != NOT_ASKED {
                    topic.topic_authorized_operations =
                        asking.operations(Kind::Topic, name, topic.topic_authorized_operations);
                }
            }
            response.topics.extend(refused);
        })
    })
}

pub(super) fn offsets(call: &Call, request: &mut dyn Any) -> Guard {
    of::<ListOffsetsRequest>(request, |request| {
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Describe, &topic.name)
        });
        let refused = denied.into_iter().map(|topic| ListOffsetsTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code: TOPIC.code(),
                    ..ListOffsetsPartitionResponse::default()
                })
                .collect(),
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<ListOffsetsRequest>| response.topics.extend(refused))
    })
}

pub(super) fn epochs(call: &Call, request: &mut dyn Any) -> Guard {
    of::<OffsetForLeaderEpochRequest>(request, |request| {
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Describe, &topic.topic)
        });
        let refused = denied.into_iter().map(|topic| OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| EpochEndOffset {
                    partition: partition.partition,
                    error_code: TOPIC.code(),
                    ..EpochEndOffset::default()
                })
                .collect(),
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<OffsetForLeaderEpochRequest>| {
            response.topics.extend(refused)
        })
    })
}

pub(super) fn create(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<CreateTopicsRequest>(request, move |request| {
        let denied = match asking.client.may_cluster(Operation::Create) {
            true => Vec::new(),
            false => take(&mut request.topics, |topic| {
                asking.may_topic(Operation::Create, &topic.name)
            }),
        };
        after(
            move |response: &mut kafka::messages::create_topics::CreateTopicsResponse| {
                for topic in &mut response.topics {
                    // What a topic is set to may be another matter than that it is made.
                    if topic.error_code != 0 {
                        topic.configs = Some(Vec::new());
                    } else if !asking.may_topic(Operation::DescribeConfigs, &topic.name) {
                        topic.topic_config_error_code = TOPIC.code();
                        topic.configs = Some(Vec::new());
                        (topic.num_partitions, topic.replication_factor) = (-1, -1);
                    }
                }
                let refused = denied.into_iter().map(|topic| CreatableTopicResult {
                    name: topic.name,
                    error_code: TOPIC.code(),
                    error_message: Some("Authorization failed.".to_owned()),
                    ..CreatableTopicResult::default()
                });
                response.topics.extend(refused);
            },
        )
    })
}

pub(super) fn delete(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DeleteTopicsRequest>(request, |request| {
        let mut refused = Vec::new();
        let named = take(&mut request.topic_names, |name| {
            call.may_topic(Operation::Delete, name)
        });
        for name in named {
            refused.push(DeletableTopicResult {
                name: Some(name),
                error_code: TOPIC.code(),
                ..DeletableTopicResult::default()
            });
        }
        let denied = take(&mut request.topics, |topic| {
            let name = topic.name.as_deref().unwrap_or_default();
            call.may_either(Operation::Delete, name, topic.topic_id)
        });
        for topic in denied {
            // Who may see it may know its name.
            let known = call.core().topics.by_id(topic.topic_id);
            let known = known.map(|topic| topic.name.to_string());
            let known = known.filter(|name| call.may_topic(Operation::Describe, name));
            refused.push(DeletableTopicResult {
                name: topic.name.or(known),
                topic_id: topic.topic_id,
                error_code: TOPIC.code(),
                ..DeletableTopicResult::default()
            });
        }
        after(move |response: &mut Answer<DeleteTopicsRequest>| response.responses.extend(refused))
    })
}

pub(super) fn grow(call: &Call, request: &mut dyn Any) -> Guard {
    of::<CreatePartitionsRequest>(request, |request| {
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Alter, &topic.name)
        });
        let refused = denied.into_iter().map(|topic| CreatePartitionsTopicResult {
            name: topic.name,
            error_code: TOPIC.code(),
            ..CreatePartitionsTopicResult::default()
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<CreatePartitionsRequest>| {
            response.results.extend(refused)
        })
    })
}

pub(super) fn delete_records(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DeleteRecordsRequest>(request, |request| {
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Delete, &topic.name)
        });
        let refused = denied.into_iter().map(|topic| DeleteRecordsTopicResult {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|partition| DeleteRecordsPartitionResult {
                    partition_index: partition.partition_index,
                    low_watermark: -1,
                    error_code: TOPIC.code(),
                })
                .collect(),
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<DeleteRecordsRequest>| response.topics.extend(refused))
    })
}

pub(super) fn producers(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DescribeProducersRequest>(request, |request| {
        let denied = take(&mut request.topics, |topic| {
            call.may_topic(Operation::Read, &topic.name)
        });
        let refused = denied
            .into_iter()
            .map(|topic| describe_producers::TopicResponse {
                name: topic.name,
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|index| describe_producers::PartitionResponse {
                        partition_index: *index,
                        error_code: TOPIC.code(),
                        ..Default::default()
                    })
                    .collect(),
            });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<DescribeProducersRequest>| {
            response.topics.extend(refused)
        })
    })
}

/// Answers a question about the cluster with what may be known of it.
pub(super) fn cluster(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<kafka::messages::describe_cluster::DescribeClusterRequest>(request, move |_| {
        after(
            move |response: &mut kafka::messages::describe_cluster::DescribeClusterResponse| {
                if response.cluster_authorized_operations != NOT_ASKED {
                    response.cluster_authorized_operations =
                        match asking.cluster(Operation::Describe) {
                            None => asking.operations(
                                Kind::Cluster,
                                rules::CLUSTER,
                                response.cluster_authorized_operations,
                            ),
                            Some(_) => 0,
                        };
                }
            },
        )
    })
}

/// The error of what only the cluster's administrators may do.
pub(super) const NOT_YOURS: i16 = CLUSTER.code();
