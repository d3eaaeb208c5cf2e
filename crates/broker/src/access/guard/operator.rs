//! Requests that change the cluster itself. Who may not is told so for each of the things that are asked.

use std::any::Any;

use kafka::messages::ApiKey;
use kafka::messages::alter_client_quotas::{AlterClientQuotasRequest, EntryResult};
use kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka::messages::alter_replica_log_dirs::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
};
use kafka::messages::elect_leaders::{ElectLeadersRequest, PartitionResult, ReplicaElectionResult};
use kafka::messages::unregister_broker::UnregisterBrokerRequest;
use kafka::messages::update_features::UpdateFeaturesRequest;
use kafka::messages::write_txn_markers::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersRequest,
};

use super::{Answer, CLUSTER, Guard, Operation, Outcome, of, whole};
use crate::dispatch::Call;

const REFUSED: i16 = CLUSTER as i16;

pub(super) fn look(call: &Call, api: ApiKey, request: &mut dyn Any) -> Guard {
    let operation = match api {
        ApiKey::AlterClientQuotas => Operation::AlterConfigs,
        _ => Operation::Alter,
    };
    let refused = call.cluster(operation).filter(|_| {
        // Markers are what brokers tell each other.
        api != ApiKey::WriteTxnMarkers || call.cluster(Operation::ClusterAction).is_some()
    });
    if refused.is_none() {
        return Guard::Pass;
    }
    let why = || Some(CLUSTER.message().to_owned());
    match api {
        ApiKey::ElectLeaders => of(request, elections),
        ApiKey::AlterPartitionReassignments => of(request, moves),
        ApiKey::AlterReplicaLogDirs => of(request, log_dirs),
        ApiKey::AlterClientQuotas => of(request, quotas),
        ApiKey::WriteTxnMarkers => of(request, markers),
        ApiKey::UpdateFeatures => whole::<UpdateFeaturesRequest>(request, refused, |it, code| {
            it.error_code = code;
            it.error_message = why();
        }),
        ApiKey::UnregisterBroker => {
            whole::<UnregisterBrokerRequest>(request, refused, |it, code| {
                it.error_code = code;
                it.error_message = why();
            })
        }
        _ => Guard::Close,
    }
}

fn elections(request: &mut ElectLeadersRequest) -> Outcome<Answer<ElectLeadersRequest>> {
    let asked = request.topic_partitions.take().unwrap_or_default();
    let results = asked.into_iter().map(|asked| ReplicaElectionResult {
        topic: asked.topic,
        partition_result: asked
            .partitions
            .iter()
            .map(|index| PartitionResult {
                partition_id: *index,
                error_code: REFUSED,
                error_message: Some(CLUSTER.message().to_owned()),
            })
            .collect(),
    });
    Outcome::Instead(Answer::<ElectLeadersRequest> {
        error_code: REFUSED,
        replica_election_results: results.collect(),
        ..Default::default()
    })
}

fn moves(
    request: &mut AlterPartitionReassignmentsRequest,
) -> Outcome<Answer<AlterPartitionReassignmentsRequest>> {
    let topics = std::mem::take(&mut request.topics).into_iter();
    let responses = topics.map(|topic| ReassignableTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: REFUSED,
                error_message: Some(CLUSTER.message().to_owned()),
            })
            .collect(),
    });
    Outcome::Instead(Answer::<AlterPartitionReassignmentsRequest> {
        error_code: REFUSED,
        error_message: Some(CLUSTER.message().to_owned()),
        responses: responses.collect(),
        ..Default::default()
    })
}

fn log_dirs(
    request: &mut AlterReplicaLogDirsRequest,
) -> Outcome<Answer<AlterReplicaLogDirsRequest>> {
    let dirs = std::mem::take(&mut request.dirs).into_iter();
    let results = dirs
        .flat_map(|dir| dir.topics)
        .map(|topic| AlterReplicaLogDirTopicResult {
            topic_name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .map(|index| AlterReplicaLogDirPartitionResult {
                    partition_index: *index,
                    error_code: REFUSED,
                })
                .collect(),
        });
    Outcome::Instead(Answer::<AlterReplicaLogDirsRequest> {
        results: results.collect(),
        ..Default::default()
    })
}

fn quotas(request: &mut AlterClientQuotasRequest) -> Outcome<Answer<AlterClientQuotasRequest>> {
    let entries = std::mem::take(&mut request.entries).into_iter();
    let entries = entries.map(|entry| EntryResult {
        error_code: REFUSED,
        error_message: Some(CLUSTER.message().to_owned()),
        entity: entry.entity,
    });
    Outcome::Instead(Answer::<AlterClientQuotasRequest> {
        entries: entries.collect(),
        ..Default::default()
    })
}

fn markers(request: &mut WriteTxnMarkersRequest) -> Outcome<Answer<WriteTxnMarkersRequest>> {
    let markers = std::mem::take(&mut request.markers).into_iter();
    let markers = markers.map(|marker| WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics: marker
            .topics
            .into_iter()
            .map(|topic| WritableTxnMarkerTopicResult {
                name: topic.name,
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|index| WritableTxnMarkerPartitionResult {
                        partition_index: *index,
                        error_code: REFUSED,
                    })
                    .collect(),
            })
            .collect(),
    });
    Outcome::Instead(Answer::<WriteTxnMarkersRequest> {
        markers: markers.collect(),
    })
}
