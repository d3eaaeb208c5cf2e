//! Elections and moves of replicas, as a node that is alone answers them: all is where it must be.

use std::path::Path;

use kafka::error::ErrorCode;
use kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ReassignablePartition,
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka::messages::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
};
use kafka::messages::elect_leaders::{
    ElectLeadersRequest, ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use kafka::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::core::Core;
use crate::dispatch::Call;
use crate::node::NODE_ID;

const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

fn has(core: &Core, topic: &str, index: i32) -> bool {
    let topic = core.topics.get(topic);
    topic.is_some_and(|topic| topic.partition(index).is_some())
}

/// ElectLeaders: the only node leads everything already.
pub(crate) async fn elect(call: Call, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let core = call.core();
    let known_kind = matches!(request.election_type, PREFERRED | UNCLEAN);
    let code = |topic: &str, index: i32| {
        if !known_kind {
            ErrorCode::InvalidRequest
        } else if has(core, topic, index) {
            ErrorCode::ElectionNotNeeded
        } else {
            ErrorCode::UnknownTopicOrPartition
        }
    };
    let results = match request.topic_partitions {
        Some(asked) => asked
            .into_iter()
            .map(|asked| ReplicaElectionResult {
                partition_result: asked
                    .partitions
                    .iter()
                    .map(|index| {
                        let code = code(&asked.topic, *index);
                        PartitionResult {
                            partition_id: *index,
                            error_code: code.code(),
                            error_message: Some(code.message().to_owned()),
                        }
                    })
                    .collect(),
                topic: asked.topic,
            })
            .collect(),
        // Asked for all, only those are told that have changed.
        None => core
            .topics
            .all()
            .iter()
            .map(|topic| ReplicaElectionResult {
                topic: topic.name.to_string(),
                partition_result: Vec::new(),
            })
            .collect(),
    };
    let code = match known_kind {
        true => ErrorCode::None,
        false => ErrorCode::InvalidRequest,
    };
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results: results,
        ..ElectLeadersResponse::default()
    }
}

/// AlterPartitionReassignments: replicas can only be where they are.
pub(crate) async fn reassign(
    call: Call,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let core = call.core();
    let answer = |topic: &str, asked: ReassignablePartition| {
        let code = if !has(core, topic, asked.partition_index) {
            ErrorCode::UnknownTopicOrPartition
        } else {
            match asked.replicas.as_deref() {
                None => ErrorCode::NoReassignmentInProgress,
                Some([NODE_ID]) => ErrorCode::None,
                Some(_) => ErrorCode::InvalidReplicaAssignment,
            }
        };
        let why = match code {
            ErrorCode::None => None,
            ErrorCode::InvalidReplicaAssignment => {
                Some(format!("node {NODE_ID} is the only one there is"))
            }
            code => Some(code.message().to_owned()),
        };
        ReassignablePartitionResponse {
            partition_index: asked.partition_index,
            error_code: code.code(),
            error_message: why,
        }
    };
    let responses = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter();
        ReassignableTopicResponse {
            partitions: partitions.map(|one| answer(&topic.name, one)).collect(),
            name: topic.name,
        }
    });
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: responses.collect(),
        ..AlterPartitionReassignmentsResponse::default()
    }
}

/// ListPartitionReassignments: nothing is ever on its way.
pub(crate) async fn under_way(
    _call: Call,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default()
}

/// AlterReplicaLogDirs: there is one folder, and all partitions lie in it.
pub(crate) async fn log_dirs(
    call: Call,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let core = call.core();
    let mut results: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    for dir in request.dirs {
        let ours = Path::new(&dir.path) == core.topics.data_dir();
        for topic in dir.topics {
            let partitions = topic.partitions.iter().map(|index| {
                let code = match (ours, has(core, &topic.name, *index)) {
                    (false, _) => ErrorCode::LogDirNotFound,
                    (true, false) => ErrorCode::UnknownTopicOrPartition,
                    (true, true) => ErrorCode::None,
                };
                AlterReplicaLogDirPartitionResult {
                    partition_index: *index,
                    error_code: code.code(),
                }
            });
            let partitions = partitions.collect();
            results.push(AlterReplicaLogDirTopicResult {
                topic_name: topic.name,
                partitions,
            });
        }
    }
    AlterReplicaLogDirsResponse {
        results,
        ..AlterReplicaLogDirsResponse::default()
    }
}
