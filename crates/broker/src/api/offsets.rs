//! Where partitions begin and end: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use std::collections::HashMap;
use std::sync::Arc;

use journal::CutError;
use kafka::error::ErrorCode;
use kafka::messages::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use kafka::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use kafka::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::dispatch::Call;
use crate::partition::{Isolation, Partition};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The oldest that is not in remote storage yet, of which there is none.
const EARLIEST_PENDING: i64 = -6;

/// Returns the first version of ListOffsets that knows this special timestamp.
fn known_from(timestamp: i64) -> Option<i16> {
    match timestamp {
        EARLIEST.. => Some(1),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        EARLIEST_PENDING => Some(11),
        _ => None,
    }
}

/// Compares the leader epoch that a client knows with ours; -1 is a client that does not say.
pub(crate) fn check_epoch(call: &Call, known: i32) -> Result<(), ErrorCode> {
    let ours = call.core().node.epoch();
    match known {
        -1 => Ok(()),
        old if old < ours => Err(ErrorCode::FencedLeaderEpoch),
        new if new > ours => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn find(call: &Call, topic: &str, index: i32) -> Result<Arc<Partition>, ErrorCode> {
    let topic = call
        .core()
        .topics
        .get(topic)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    topic
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

pub(crate) async fn list(call: Call, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = Isolation::from_number(request.isolation_level);
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        let mut times: HashMap<i32, usize> = HashMap::new();
        for one in &asked.partitions {
            *times.entry(one.partition_index).or_default() += 1;
        }
        for one in asked.partitions {
            let index = one.partition_index;
            let found = match times.remove(&index) {
                None => continue, // told already
                Some(1) => list_one(&call, &asked.name, one, isolation).await,
                Some(_) => Err(ErrorCode::InvalidRequest),
            };
            partitions.push(found.unwrap_or_else(|code| ListOffsetsPartitionResponse {
                partition_index: index,
                error_code: code.code(),
                ..ListOffsetsPartitionResponse::default()
            }));
        }
        topics.push(ListOffsetsTopicResponse {
            name: asked.name,
            partitions,
        });
    }
    ListOffsetsResponse {
        topics,
        ..ListOffsetsResponse::default()
    }
}

async fn list_one(
    call: &Call,
    topic: &str,
    asked: ListOffsetsPartition,
    isolation: Isolation,
) -> Result<ListOffsetsPartitionResponse, ErrorCode> {
    let partition = find(call, topic, asked.partition_index)?;
    if known_from(asked.timestamp).is_none_or(|from| call.version < from) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    check_epoch(call, asked.current_leader_epoch)?;
    let nothing = ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        ..ListOffsetsPartitionResponse::default()
    };
    let at = |offset, leader_epoch| ListOffsetsPartitionResponse {
        offset,
        leader_epoch,
        ..nothing.clone()
    };
    let by_time = match asked.timestamp {
        LATEST => return Ok(at(partition.readable(isolation), call.core().node.epoch())),
        EARLIEST | EARLIEST_LOCAL => {
            let start = partition.start();
            let epoch = partition
                .epoch_at(start)
                .unwrap_or_else(|| call.core().node.epoch());
            return Ok(at(start, epoch));
        }
        LATEST_TIERED | EARLIEST_PENDING => return Ok(nothing),
        MAX_TIMESTAMP => None,
        timestamp => Some(timestamp),
    };
    let name = partition.topic.clone();
    let up_to = partition.readable(isolation);
    let found = spawn_blocking(move || match by_time {
        Some(timestamp) => partition.at_time(timestamp, up_to),
        None => Ok(partition.latest()?.filter(|found| found.offset < up_to)),
    });
    match found.await {
        Ok(Ok(None)) => Ok(nothing),
        Ok(Ok(Some(found))) => Ok(ListOffsetsPartitionResponse {
            timestamp: found.timestamp,
            ..at(found.offset, found.leader_epoch)
        }),
        Ok(Err(cause)) => {
            error!(topic = %name, error = %cause, "could not look for a time");
            Err(ErrorCode::KafkaStorageError)
        }
        Err(cause) => {
            error!(topic = %name, error = %cause, "could not look for a time");
            Err(ErrorCode::UnknownServerError)
        }
    }
}

pub(crate) async fn epochs(
    call: Call,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let ours = call.core().node.epoch();
    let topics = request.topics.into_iter().map(|asked| {
        let end = |partition: i32, wanted: i32, known: i32| -> Result<(i32, i64), ErrorCode> {
            let partition = find(&call, &asked.topic, partition)?;
            check_epoch(&call, known)?;
            if wanted == ours {
                return Ok((ours, partition.end()));
            }
            let known = (0..ours)
                .contains(&wanted)
                .then(|| partition.epoch_end(wanted))
                .flatten();
            Ok(known.unwrap_or((-1, -1)))
        };
        let partitions = asked.partitions.iter().map(|one| {
            let end = end(one.partition, one.leader_epoch, one.current_leader_epoch);
            let (code, (leader_epoch, end_offset)) = match end {
                Ok(end) => (ErrorCode::None, end),
                Err(code) => (code, (-1, -1)),
            };
            EpochEndOffset {
                error_code: code.code(),
                partition: one.partition,
                leader_epoch,
                end_offset,
            }
        });
        OffsetForLeaderTopicResult {
            partitions: partitions.collect(),
            topic: asked.topic.clone(),
        }
    });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}

pub(crate) async fn delete_records(
    call: Call,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for one in asked.partitions {
            let deleted = delete_before(&call, &asked.name, one.partition_index, one.offset).await;
            let (code, low_watermark) = match deleted {
                Ok(start) => (ErrorCode::None, start),
                Err(code) => (code, -1),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: one.partition_index,
                low_watermark,
                error_code: code.code(),
            });
        }
        topics.push(DeleteRecordsTopicResult {
            name: asked.name,
            partitions,
        });
    }
    DeleteRecordsResponse {
        topics,
        ..DeleteRecordsResponse::default()
    }
}

async fn delete_before(
    call: &Call,
    topic: &str,
    index: i32,
    offset: i64,
) -> Result<i64, ErrorCode> {
    let found = call
        .core()
        .topics
        .get(topic)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if found.is_internal() {
        return Err(ErrorCode::InvalidTopicException);
    }
    let settings = found.settings();
    if settings.compact && !settings.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let partition = found
        .partition(index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let offset = match offset {
        -1 => partition.high_water(),
        negative if negative < 0 => return Err(ErrorCode::OffsetOutOfRange),
        offset => offset,
    };
    match spawn_blocking(move || partition.delete_before(offset)).await {
        Ok(Ok(start)) => Ok(start),
        Ok(Err(CutError::OutOfRange { .. })) => Err(ErrorCode::OffsetOutOfRange),
        Ok(Err(CutError::Disk(cause))) => {
            error!(topic, index, error = %cause, "could not delete records");
            Err(ErrorCode::KafkaStorageError)
        }
        Err(cause) => {
            error!(topic, index, error = %cause, "could not delete records");
            Err(ErrorCode::UnknownServerError)
        }
    }
}
