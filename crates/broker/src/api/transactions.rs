//! The life of a producer and its transactions: from InitProducerId to EndTxn.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::add_offsets_to_txn::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};
use kafka::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult, AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
    AddPartitionsToTxnTransaction,
};
use kafka::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use kafka::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use kafka::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};
use kafka::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};

use super::commits::METADATA_BYTES_MAX;
use super::groups;
use super::produce;
use crate::clock;
use crate::dispatch::Call;
use crate::group::coordinator::{Place, TransactionalCommit};
use crate::group::schema::Committed;
use crate::partition::Rejected;
use crate::topic::{OFFSETS_TOPIC, is_internal};
use crate::txn::coordinator::{self, Init, Markers};
use crate::txn::machine::End;
use crate::txn::terms::{NO_EPOCH, NO_PRODUCER, Refusal, Version};

/// From this version on, AddPartitionsToTxn is what brokers ask of each other, for many transactions at once.
const ADD_BATCHED_FROM: i16 = 4;
/// From these versions on, a client speaks the second version of the transaction protocol.
const END_V2_FROM: i16 = 5;
const COMMIT_V2_FROM: i16 = 5;
/// From this version on, TxnOffsetCommit knows TRANSACTION_ABORTABLE.
const COMMIT_ABORTABLE_FROM: i16 = 4;

/// The whole mapping from the transactions' refusals to Kafka's errors.
pub(crate) fn code_of(refusal: Refusal) -> ErrorCode {
    match refusal {
        Refusal::InvalidRequest => ErrorCode::InvalidRequest,
        Refusal::UnknownMapping => ErrorCode::InvalidProducerIdMapping,
        Refusal::Fenced => ErrorCode::ProducerFenced,
        Refusal::Concurrent => ErrorCode::ConcurrentTransactions,
        Refusal::InvalidState => ErrorCode::InvalidTxnState,
        Refusal::InvalidTimeout => ErrorCode::InvalidTransactionTimeout,
        Refusal::NotInTransaction => ErrorCode::TransactionAbortable,
        Refusal::NotStored | Refusal::NeedsId => ErrorCode::CoordinatorNotAvailable,
        Refusal::NotFound => ErrorCode::TransactionalIdNotFound,
        Refusal::TwoPhase => ErrorCode::TransactionalIdAuthorizationFailed,
        Refusal::KeepPrepared => ErrorCode::UnsupportedVersion,
    }
}

/// The same for a request that knows PRODUCER_FENCED from version `fenced_from` on.
fn code(refusal: Refusal, version: i16, fenced_from: i16) -> ErrorCode {
    match refusal {
        Refusal::Fenced if version < fenced_from => ErrorCode::InvalidProducerEpoch,
        refusal => code_of(refusal),
    }
}

fn place_of_offsets() -> Place {
    (Arc::from(OFFSETS_TOPIC), 0)
}

pub(crate) async fn init(call: Call, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let given = match try_init(&call, request).await {
        Ok((producer_id, producer_epoch)) => {
            return InitProducerIdResponse {
                producer_id,
                producer_epoch,
                ..InitProducerIdResponse::default()
            };
        }
        Err(refusal) => code(refusal, call.version, 4),
    };
    InitProducerIdResponse {
        error_code: given.code(),
        producer_epoch: NO_EPOCH,
        ..InitProducerIdResponse::default()
    }
}

async fn try_init(call: &Call, request: InitProducerIdRequest) -> Result<(i64, i16), Refusal> {
    let expected = match (request.producer_id, request.producer_epoch) {
        // Before version 3 there is no epoch to be named.
        (NO_PRODUCER, _) if call.version < 3 => None,
        (NO_PRODUCER, NO_EPOCH) => None,
        (NO_PRODUCER, _) | (_, NO_EPOCH) => return Err(Refusal::InvalidRequest),
        expected => Some(expected),
    };
    match request.transactional_id {
        // A producer that names its id and epoch wants to go on after a failure: a fresh id serves it too.
        None => Ok((coordinator::fresh_id(call.core()).await?, 0)),
        Some(id) => {
            let init = Init {
                id,
                timeout_ms: request.transaction_timeout_ms,
                expected,
                two_phase: request.enable_2_pc,
                keep_prepared: request.keep_prepared_txn,
            };
            coordinator::init(call.core(), init).await
        }
    }
}

pub(crate) async fn add_partitions(
    call: Call,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let mut response = AddPartitionsToTxnResponse::default();
    if call.version < ADD_BATCHED_FROM {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        response.results_by_topic_v3_and_below = add_to_one(&call, &transaction).await;
        return response;
    }
    for transaction in request.transactions {
        let topic_results = add_to_one(&call, &transaction).await;
        response
            .results_by_transaction
            .push(AddPartitionsToTxnResult {
                transactional_id: transaction.transactional_id,
                topic_results,
            });
    }
    response
}

/// Adds partitions to a transaction, all of them or none.
async fn add_to_one(
    call: &Call,
    transaction: &AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topics = &call.core().topics;
    let missing = |place: &Place| {
        if is_internal(&place.0) {
            return Some(ErrorCode::TopicAuthorizationFailed);
        }
        let found = topics.get(&place.0);
        match found.and_then(|topic| topic.partition(place.1)) {
            Some(_) => None,
            None => Some(ErrorCode::UnknownTopicOrPartition),
        }
    };
    let places = places(&transaction.topics);
    if places.iter().any(|place| missing(place).is_some()) {
        return results(&places, |place| {
            missing(place).unwrap_or(ErrorCode::OperationNotAttempted)
        });
    }
    let id = &transaction.transactional_id;
    let producer = (transaction.producer_id, transaction.producer_epoch);
    if transaction.verify_only {
        let transactions = &call.core().transactions;
        return results(&places, |place| {
            match transactions.verified(id, producer, place, || ()) {
                Ok(()) => ErrorCode::None,
                Err(refusal) => code_of(refusal),
            }
        });
    }
    let version = match call.version < ADD_BATCHED_FROM {
        true => Version::V1,
        false => Version::V2,
    };
    let code = match coordinator::add(call.core(), id, producer, &places, version).await {
        Ok(()) => ErrorCode::None,
        Err(refusal) => code(refusal, call.version, 2),
    };
    // As in Apache Kafka, one answer for all keeps the form of the request.
    let told = transaction.topics.iter().map(|topic| {
        let told = topic
            .partitions
            .iter()
            .map(|index| AddPartitionsToTxnPartitionResult {
                partition_index: *index,
                partition_error_code: code.code(),
            });
        AddPartitionsToTxnTopicResult {
            name: topic.name.clone(),
            results_by_partition: told.collect(),
        }
    });
    told.collect()
}

fn places(topics: &[AddPartitionsToTxnTopic]) -> BTreeSet<Place> {
    let of_topic = |topic: &AddPartitionsToTxnTopic| {
        let name: Arc<str> = topic.name.as_str().into();
        let partitions = topic.partitions.clone().into_iter();
        partitions.map(move |index| (name.clone(), index))
    };
    topics.iter().flat_map(of_topic).collect()
}

/// Tells of each partition by itself.
fn results(
    places: &BTreeSet<Place>,
    code: impl Fn(&Place) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut topics: Vec<AddPartitionsToTxnTopicResult> = Vec::new();
    for place in places {
        let result = AddPartitionsToTxnPartitionResult {
            partition_index: place.1,
            partition_error_code: code(place).code(),
        };
        match topics.last_mut().filter(|topic| topic.name == *place.0) {
            Some(topic) => topic.results_by_partition.push(result),
            None => topics.push(AddPartitionsToTxnTopicResult {
                name: place.0.to_string(),
                results_by_partition: vec![result],
            }),
        }
    }
    topics
}

pub(crate) async fn add_offsets(
    call: Call,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let places = BTreeSet::from([place_of_offsets()]);
    let added = coordinator::add(
        call.core(),
        &request.transactional_id,
        (request.producer_id, request.producer_epoch),
        &places,
        Version::V1,
    );
    let code = match added.await {
        Ok(()) => ErrorCode::None,
        Err(refusal) => code(refusal, call.version, 2),
    };
    AddOffsetsToTxnResponse {
        error_code: code.code(),
        ..AddOffsetsToTxnResponse::default()
    }
}

pub(crate) async fn end(call: Call, request: EndTxnRequest) -> EndTxnResponse {
    let end = End {
        producer_id: request.producer_id,
        epoch: request.producer_epoch,
        commit: request.committed,
        version: match call.version < END_V2_FROM {
            true => Version::V1,
            false => Version::V2,
        },
    };
    match coordinator::end(call.core(), &request.transactional_id, end).await {
        Ok((producer_id, producer_epoch)) => EndTxnResponse {
            producer_id,
            producer_epoch,
            ..EndTxnResponse::default()
        },
        Err(refusal) => EndTxnResponse {
            error_code: code(refusal, call.version, 2).code(),
            ..EndTxnResponse::default()
        },
    }
}

pub(crate) async fn commit_offsets(
    call: Call,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let at_ms = clock::now_ms();
    let mut offsets: Vec<(Place, Committed)> = Vec::new();
    let mut any_known = false;
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = call.core().topics.get(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for one in asked.partitions {
            let found = topic
                .as_ref()
                .filter(|topic| topic.partition(one.partition_index).is_some());
            any_known |= found.is_some();
            let metadata = one.committed_metadata.unwrap_or_default();
            let code = match found {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) if metadata.len() > METADATA_BYTES_MAX => ErrorCode::OffsetMetadataTooLarge,
                Some(topic) => {
                    let committed = Committed {
                        offset: one.committed_offset,
                        leader_epoch: one.committed_leader_epoch,
                        metadata,
                        at_ms,
                        order: 0,
                    };
                    offsets.push(((topic.name.clone(), one.partition_index), committed));
                    ErrorCode::None
                }
            };
            partitions.push(TxnOffsetCommitResponsePartition {
                partition_index: one.partition_index,
                error_code: code.code(),
            });
        }
        topics.push(TxnOffsetCommitResponseTopic {
            name: asked.name,
            topic_id: asked.topic_id,
            partitions,
        });
    }
    let commit = TransactionalCommit {
        group_id: request.group_id,
        member_id: request.member_id,
        instance_id: request.group_instance_id,
        generation: request.generation_id,
        producer: (request.producer_id, request.producer_epoch),
        offsets,
    };
    let committed = match any_known {
        true => commit_pending(&call, &request.transactional_id, commit).await,
        false => Ok(()),
    };
    if let Err(code) = committed {
        for one in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if one.error_code != ErrorCode::UnknownTopicOrPartition.code() {
                one.error_code = code.code();
            }
        }
    }
    TxnOffsetCommitResponse {
        topics,
        ..TxnOffsetCommitResponse::default()
    }
}

async fn commit_pending(
    call: &Call,
    id: &str,
    commit: TransactionalCommit,
) -> Result<(), ErrorCode> {
    if commit.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    let core = call.core();
    let (producer, place) = (commit.producer, place_of_offsets());
    let told = |refusal| match refusal {
        Refusal::NotInTransaction if call.version < COMMIT_ABORTABLE_FROM => {
            ErrorCode::InvalidTxnState
        }
        Refusal::Fenced => ErrorCode::InvalidProducerEpoch,
        Refusal::Concurrent => ErrorCode::CoordinatorNotAvailable,
        refusal => code_of(refusal),
    };
    if call.version >= COMMIT_V2_FROM {
        let places = BTreeSet::from([place.clone()]);
        let added = coordinator::add(core, id, producer, &places, Version::V2);
        added.await.map_err(told)?;
    }
    let groups = &core.groups;
    let room = groups.room().await.map_err(groups::code_of)?;
    let queue = || groups.commit_in_transaction(room, commit);
    let queued = core.transactions.verified(id, producer, &place, queue);
    let durable = queued.map_err(told)?.map_err(groups::code_of)?;
    match durable.await {
        Ok(outcome) => outcome.map_err(groups::code_of),
        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

pub(crate) async fn write_markers(
    call: Call,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut markers = Vec::with_capacity(request.markers.len());
    for marker in request.markers {
        markers.push(write_one(&call, marker).await);
    }
    WriteTxnMarkersResponse { markers }
}

async fn write_one(call: &Call, marker: WritableTxnMarker) -> WritableTxnMarkerResult {
    let nobody = marker.producer_id < 0 || marker.producer_epoch < 0;
    let end = Markers {
        producer_id: marker.producer_id,
        epoch: marker.producer_epoch,
        commit: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
    };
    let mut topics = Vec::with_capacity(marker.topics.len());
    for asked in marker.topics {
        let name: Arc<str> = asked.name.as_str().into();
        let indexes = asked.partition_indexes.into_iter();
        let places = indexes.map(|index| (name.clone(), index));
        let written = match nobody {
            true => places
                .map(|place| (place, Err(Rejected::Invalid("no such producer".into()))))
                .collect(),
            false => coordinator::write_markers(call.core(), &end, places).await,
        };
        let partitions = written.into_iter().map(|((_, partition_index), outcome)| {
            WritableTxnMarkerPartitionResult {
                partition_index,
                error_code: match outcome {
                    Ok(()) => ErrorCode::None.code(),
                    Err(rejected) => produce::code_of(&rejected).code(),
                },
            }
        });
        topics.push(WritableTxnMarkerTopicResult {
            name: asked.name,
            partitions: partitions.collect(),
        });
    }
    WritableTxnMarkerResult {
        producer_id: marker.producer_id,
        topics,
    }
}
