//! Looking at producers and transactions: DescribeProducers, DescribeTransactions, ListTransactions.

use std::collections::BTreeMap;

use kafka::error::ErrorCode;
use kafka::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};

use kafka::messages::describe_transactions::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData,
    TransactionState as Described,
};
use kafka::messages::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, TransactionState as Listed,
};
use regex::{Regex, RegexBuilder};

use super::transactions::code_of;
use crate::clock;
use crate::dispatch::Call;
use crate::txn::terms::{Metadata, Refusal, State};

/// Largest program that a pattern of transactional ids may become.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(crate) async fn producers(
    call: Call,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.into_iter().map(|asked| {
        let topic = call.core().topics.get(&asked.name);
        let partition = |index: i32| {
            let found = topic.as_ref().and_then(|topic| topic.partition(index));
            let code = match &found {
                Some(_) => ErrorCode::None,
                None => ErrorCode::UnknownTopicOrPartition,
            };
            let producers = found.map(|partition| partition.producers());
            let active_producers =
                producers
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(producer_id, one)| ProducerState {
                        producer_id,
                        producer_epoch: i32::from(one.epoch),
                        last_sequence: one.batches.back().map_or(-1, |kept| kept.last_sequence),
                        last_timestamp: one.last_timestamp,
                        coordinator_epoch: one.coordinator_epoch,
                        current_txn_start_offset: one.transaction_start.unwrap_or(-1),
                    });
            PartitionResponse {
                partition_index: index,
                error_code: code.code(),
                error_message: None,
                active_producers: active_producers.collect(),
            }
        };
        TopicResponse {
            partitions: asked.partition_indexes.into_iter().map(partition).collect(),
            name: asked.name,
        }
    });
    DescribeProducersResponse {
        topics: topics.collect(),
        ..DescribeProducersResponse::default()
    }
}

pub(crate) async fn transactions(
    call: Call,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let describe = |id: String| {
        let found = match id.as_str() {
            "" => Err(Refusal::InvalidRequest),
            id => call.core().transactions.get(id),
        };
        match found {
            Ok(metadata) => described(id, metadata),
            Err(refusal) => Described {
                error_code: code_of(refusal).code(),
                transactional_id: id,
                ..Described::default()
            },
        }
    };
    let states = request.transactional_ids.into_iter().map(describe);
    DescribeTransactionsResponse {
        transaction_states: states.collect(),
        ..DescribeTransactionsResponse::default()
    }
}

fn described(transactional_id: String, metadata: Metadata) -> Described {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, index) in metadata.places {
        topics.entry(topic.to_string()).or_default().push(index);
    }
    let topics = topics
        .into_iter()
        .map(|(topic, partitions)| TopicData { topic, partitions });
    Described {
        error_code: ErrorCode::None.code(),
        transactional_id,
        transaction_state: metadata.state.name().to_owned(),
        transaction_timeout_ms: metadata.timeout_ms,
        transaction_start_time_ms: metadata.started_at,
        producer_id: metadata.producer_id,
        producer_epoch: metadata.epoch,
        topics: topics.collect(),
    }
}

pub(crate) async fn list(call: Call, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let pattern = match request.transactional_id_pattern.as_deref() {
        None | Some("") => None,
        Some(pattern) => match whole(pattern) {
            Ok(pattern) => Some(pattern),
            Err(_) => {
                return ListTransactionsResponse {
                    error_code: ErrorCode::InvalidRegularExpression.code(),
                    ..ListTransactionsResponse::default()
                };
            }
        },
    };
    let known = |name: &String| State::ALL.iter().any(|state| state.name() == name);
    let now = clock::now_ms();
    let wanted = |id: &str, metadata: &Metadata| {
        let (states, producers) = (&request.state_filters, &request.producer_id_filters);
        let age = now.saturating_sub(metadata.started_at);
        metadata.state != State::Dead
            && (states.is_empty() || states.iter().any(|name| name == metadata.state.name()))
            && (producers.is_empty() || producers.contains(&metadata.producer_id))
            && (request.duration_filter < 0 || age > request.duration_filter)
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    };
    let mut found = call.core().transactions.all();
    found.retain(|(id, metadata)| wanted(id, metadata));
    found.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    let listed = found
        .into_iter()
        .map(|(transactional_id, metadata)| Listed {
            transactional_id,
            producer_id: metadata.producer_id,
            transaction_state: metadata.state.name().to_owned(),
        });
    ListTransactionsResponse {
        transaction_states: listed.collect(),
        unknown_state_filters: {
            let unknown = request.state_filters.iter().filter(|name| !known(name));
            unknown.cloned().collect()
        },
        ..ListTransactionsResponse::default()
    }
}

/// A pattern that has to match the whole text.
fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(PATTERN_BYTES_MAX)
        .build()
}
