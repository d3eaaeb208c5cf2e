//! Requests about transactions and producers' ids.

use std::any::Any;

use kafka::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use kafka::messages::add_partitions_to_txn::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    AddPartitionsToTxnTopic, AddPartitionsToTxnTopicResult,
};
use kafka::messages::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TransactionState,
};
use kafka::messages::end_txn::EndTxnRequest;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::list_transactions::{ListTransactionsRequest, ListTransactionsResponse};
use kafka::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
};

use super::{
    Answer, CLUSTER, Guard, Kind, Operation, Outcome, TOPIC, TRANSACTION, after, of, take, whole,
};
use crate::dispatch::Call;
use kafka::error::ErrorCode;

pub(super) fn init(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request
        .downcast_ref()
        .and_then(|request: &InitProducerIdRequest| {
            match request.transactional_id.as_deref() {
                Some(id) => call.transaction(Operation::Write, id),
                None if call.cluster(Operation::IdempotentWrite).is_none() => None,
                // Who may write to some topic may do so once.
                None => {
                    (!call.client.may_somewhere(Operation::Write, Kind::Topic)).then_some(CLUSTER)
                }
            }
        });
    whole::<InitProducerIdRequest>(request, refused, |response, code| {
        response.error_code = code;
        (response.producer_id, response.producer_epoch) = (-1, -1);
    })
}

pub(super) fn add_partitions(call: &Call, request: &mut dyn Any) -> Guard {
    // From version 4 on it is for brokers among themselves.
    if call.version >= 4 {
        let refused = call.cluster(Operation::ClusterAction);
        return whole::<AddPartitionsToTxnRequest>(request, refused, |response, code| {
            response.error_code = code;
        });
    }
    of::<AddPartitionsToTxnRequest>(request, |request| {
        let id = &request.v3_and_below_transactional_id;
        let results = |topics: &[AddPartitionsToTxnTopic], error: &dyn Fn(&str) -> ErrorCode| {
            let result = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
                name: topic.name.clone(),
                results_by_partition: topic
                    .partitions
                    .iter()
                    .map(|index| AddPartitionsToTxnPartitionResult {
                        partition_index: *index,
                        partition_error_code: error(&topic.name).code(),
                    })
                    .collect(),
            };
            AddPartitionsToTxnResponse {
                results_by_topic_v3_and_below: topics.iter().map(result).collect(),
                ..AddPartitionsToTxnResponse::default()
            }
        };
        let topics = &request.v3_and_below_topics;
        if call.transaction(Operation::Write, id).is_some() {
            return Outcome::Instead(results(topics, &|_| TRANSACTION));
        }
        let may = |topic: &str| call.may_topic(Operation::Write, topic);
        if topics.iter().all(|topic| may(&topic.name)) {
            return Outcome::Pass;
        }
        // All or none.
        let error = |topic: &str| match may(topic) {
            true => ErrorCode::OperationNotAttempted,
            false => TOPIC,
        };
        Outcome::Instead(results(topics, &error))
    })
}

pub(super) fn add_offsets(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request
        .downcast_ref()
        .and_then(|request: &AddOffsetsToTxnRequest| {
            let id = call.transaction(Operation::Write, &request.transactional_id);
            id.or_else(|| call.group(Operation::Read, &request.group_id))
        });
    whole::<AddOffsetsToTxnRequest>(request, refused, |response, code| {
        response.error_code = code
    })
}

pub(super) fn end(call: &Call, request: &mut dyn Any) -> Guard {
    let refused = request.downcast_ref().and_then(|request: &EndTxnRequest| {
        call.transaction(Operation::Write, &request.transactional_id)
    });
    whole::<EndTxnRequest>(request, refused, |response, code| {
        response.error_code = code
    })
}

pub(super) fn commit(call: &Call, request: &mut dyn Any) -> Guard {
    of::<TxnOffsetCommitRequest>(request, |request| {
        let id = call.transaction(Operation::Write, &request.transactional_id);
        let whole = id.or_else(|| call.group(Operation::Read, &request.group_id));
        let code = whole.unwrap_or(TOPIC);
        let denied = take(&mut request.topics, |topic| {
            whole.is_none() && call.may_topic(Operation::Read, &topic.name)
        });
        if denied.is_empty() {
            return Outcome::Pass;
        }
        let refused = denied
            .into_iter()
            .map(|topic| TxnOffsetCommitResponseTopic {
                name: topic.name,
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| TxnOffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: code.code(),
                    })
                    .collect(),
                ..TxnOffsetCommitResponseTopic::default()
            });
        let refused: Vec<_> = refused.collect();
        if request.topics.is_empty() {
            return Outcome::Instead(TxnOffsetCommitResponse {
                topics: refused,
                ..TxnOffsetCommitResponse::default()
            });
        }
        after(move |response: &mut Answer<TxnOffsetCommitRequest>| response.topics.extend(refused))
    })
}

pub(super) fn describe(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<DescribeTransactionsRequest>(request, move |request| {
        let denied = take(&mut request.transactional_ids, |id| {
            asking.transaction(Operation::Describe, id).is_none()
        });
        after(move |response: &mut DescribeTransactionsResponse| {
            for state in &mut response.transaction_states {
                state
                    .topics
                    .retain(|topic| asking.may_topic(Operation::Describe, &topic.topic));
            }
            let refused = denied.into_iter().map(|transactional_id| TransactionState {
                error_code: TRANSACTION.code(),
                transactional_id,
                ..TransactionState::default()
            });
            response.transaction_states.extend(refused);
        })
    })
}

pub(super) fn list(call: &Call, request: &mut dyn Any) -> Guard {
    let asking = call.clone();
    of::<ListTransactionsRequest>(request, move |_| {
        after(move |response: &mut ListTransactionsResponse| {
            response.transaction_states.retain(|state| {
                let id = &state.transactional_id;
                asking.transaction(Operation::Describe, id).is_none()
            });
        })
    })
}
