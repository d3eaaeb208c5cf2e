//! Looking at producers: DescribeProducers.

use kafka::error::ErrorCode;
use kafka::messages::describe_producers::{
    DescribeProducersRequest, DescribeProducersResponse, PartitionResponse, ProducerState,
    TopicResponse,
};

use crate::dispatch::Call;

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
