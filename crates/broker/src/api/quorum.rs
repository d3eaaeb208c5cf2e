//! The quorum of controllers, which is this node, and the list of brokers, which is this node too.

use kafka::error::ErrorCode;
use kafka::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Node, PartitionState, ReplicaState, TopicState,
};
use kafka::messages::unregister_broker::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::clock;
use crate::dispatch::Call;
use crate::node::NODE_ID;

/// Kafka's topic of the cluster's own data. There is none here, but tools ask for it by name.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(crate) async fn describe(call: Call, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let alone = || {
        let now = clock::now_ms();
        ReplicaState {
            replica_id: NODE_ID,
            log_end_offset: 0,
            last_fetch_timestamp: now,
            last_caught_up_timestamp: now,
            ..ReplicaState::default()
        }
    };
    let [asked] = &request.topics[..] else {
        return DescribeQuorumResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some(format!("{METADATA_TOPIC} is all that can be asked for")),
            ..DescribeQuorumResponse::default()
        };
    };
    let known = asked.topic_name == METADATA_TOPIC;
    let partitions = asked.partitions.iter().map(|partition| {
        if known && partition.partition_index == 0 {
            PartitionState {
                leader_id: NODE_ID,
                leader_epoch: call.core().node.epoch(),
                current_voters: vec![alone()],
                ..PartitionState::default()
            }
        } else {
            let code = ErrorCode::UnknownTopicOrPartition;
            PartitionState {
                partition_index: partition.partition_index,
                error_code: code.code(),
                error_message: Some(code.message().to_owned()),
                ..PartitionState::default()
            }
        }
    });
    let partitions: Vec<PartitionState> = partitions.collect();
    let found = partitions.iter().all(|partition| partition.error_code == 0);
    let node = Node {
        node_id: NODE_ID,
        ..Node::default()
    };
    DescribeQuorumResponse {
        topics: vec![TopicState {
            topic_name: asked.topic_name.clone(),
            partitions,
        }],
        nodes: found.then_some(node).into_iter().collect(),
        ..DescribeQuorumResponse::default()
    }
}

/// UnregisterBroker: nobody else is registered, and this node cannot leave itself.
pub(crate) async fn unregister(
    _call: Call,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let (code, why) = match request.broker_id {
        NODE_ID => (
            ErrorCode::InvalidRequest,
            format!("node {NODE_ID} is the only one there is"),
        ),
        other => (
            ErrorCode::BrokerIdNotRegistered,
            format!("Broker ID {other} is not currently registered"),
        ),
    };
    UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..UnregisterBrokerResponse::default()
    }
}
