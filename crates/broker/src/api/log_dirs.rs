//! DescribeLogDirs: where partitions lie and how large they are.

use kafka::error::ErrorCode;
use kafka::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};

use crate::dispatch::Call;

pub(crate) async fn describe(
    call: Call,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let core = call.core();
    let wanted = |name: &str, index: i32| match &request.topics {
        None => true,
        Some(topics) => topics
            .iter()
            .any(|topic| topic.topic == name && topic.partitions.contains(&index)),
    };
    let topics = core.topics.all().into_iter().filter_map(|topic| {
        let partitions: Vec<_> = topic
            .partitions()
            .iter()
            .filter(|partition| wanted(&topic.name, partition.index))
            .map(|partition| DescribeLogDirsPartition {
                partition_index: partition.index,
                partition_size: i64::try_from(partition.size()).unwrap_or(i64::MAX),
                offset_lag: 0,
                is_future_key: false,
            })
            .collect();
        (!partitions.is_empty()).then(|| DescribeLogDirsTopic {
            name: topic.name.to_string(),
            partitions,
        })
    });
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            error_code: ErrorCode::None.code(),
            log_dir: core.topics.data_dir().display().to_string(),
            topics: topics.collect(),
            ..DescribeLogDirsResult::default()
        }],
        ..DescribeLogDirsResponse::default()
    }
}
