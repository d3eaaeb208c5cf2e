//! Fetch: stored batches, byte for byte; waits for more when there is too little.

use std::sync::Arc;
use std::time::Duration;

use journal::ReadError;
use kafka::error::ErrorCode;
use kafka::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchRequest, FetchResponse,
    FetchableTopicResponse, PartitionData,
};
use kafka::record::batches;
use kit::memory::{Need, Share};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant};
use tracing::error;

use super::offsets::check_epoch;
use crate::access::rules::Operation;
use crate::dispatch::Call;
use crate::partition::{Isolation, Partition};
use crate::topic::Topic;

pub(crate) mod session;

/// Longest wait for more records, whatever the client wants.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Reads that may take more than this go to a thread that may wait for the disk; a reader that keeps
/// up asks for less, and finds it in the page cache.
const BYTES_READ_AT_ONCE: usize = 256 << 10;
/// Memory with which something is read, if there is more to be read.
const BYTES_AT_LEAST: usize = 64 << 10;

type Memory = Option<Share>;

/// Answers with the memory that the records take until they are sent.
pub(crate) async fn handle(call: &Call, mut request: FetchRequest) -> (FetchResponse, Memory) {
    let sessions = &call.core().sessions;
    let context = match sessions.begin(call.version, &mut request) {
        Ok(context) => context,
        Err(code) => {
            let refused = FetchResponse {
                error_code: code.code(),
                ..FetchResponse::default()
            };
            return (refused, None);
        }
    };
    let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait).min(WAIT_MAX);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let asked = Arc::new(Asked::new(call, request));

    let (mut response, memory) = wait_for(call, &asked, wait, deadline, bytes_min).await;
    asked.count(&response);
    sessions.finish(context, &mut response);
    (response, memory)
}

async fn wait_for(
    call: &Call,
    asked: &Arc<Asked>,
    wait: u64,
    deadline: Instant,
    bytes_min: usize,
) -> (FetchResponse, Memory) {
    let (response, memory, done) = asked.read(call).await;
    if done || asked.is_empty() || response_bytes(&response) >= bytes_min || wait == 0 {
        return (response, memory);
    }
    drop((response, memory));
    let more = Arc::new(Notify::new());
    loop {
        asked.wait(&more);
        let (response, memory, done) = asked.read(call).await;
        if done || response_bytes(&response) >= bytes_min || Instant::now() >= deadline {
            return (response, memory);
        }
        drop((response, memory));
        tokio::select! {
            () = more.notified() => (),
            () = call.client.stop.cancelled() => return asked.read_now(call).await,
            () = time::sleep_until(deadline) => return asked.read_now(call).await,
        }
    }
}

fn response_bytes(response: &FetchResponse) -> usize {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    partitions
        .filter_map(|one| one.records.as_ref())
        .map(|records| records.len())
        .sum()
}

/// What is asked for, with everything looked up once.
struct Asked {
    topics: Vec<AskedTopic>,
    bytes_max: usize,
    isolation: Isolation,
}

struct AskedTopic {
    topic: Option<Arc<Topic>>,
    answer: FetchableTopicResponse,
    partitions: Vec<(FetchPartition, Result<Arc<Partition>, ErrorCode>)>,
}

impl Asked {
    fn new(call: &Call, request: FetchRequest) -> Self {
        let core = call.core();
        let by_id = call.version >= 13;
        let follower = request.replica_id.max(request.replica_state.replica_id) >= 0;
        let topics = request.topics.into_iter().map(|asked| {
            let (topic, missing) = match by_id {
                true => (core.topics.by_id(asked.topic_id), ErrorCode::UnknownTopicId),
                false => (
                    core.topics.get(&asked.topic),
                    ErrorCode::UnknownTopicOrPartition,
                ),
            };
            let name = topic
                .as_ref()
                .map_or(asked.topic.as_str(), |topic| &topic.name);
            let unknown = by_id && topic.is_none();
            let allowed = match follower {
                true => call.may_follow(),
                false => unknown || call.may_topic(Operation::Read, name),
            };
            let partitions = asked.partitions.into_iter().map(|partition| {
                let found = match &topic {
                    _ if !allowed => Err(ErrorCode::TopicAuthorizationFailed),
                    None => Err(missing),
                    Some(topic) => topic
                        .partition(partition.partition)
                        .ok_or(ErrorCode::UnknownTopicOrPartition),
                };
                let epoch = check_epoch(call, partition.current_leader_epoch);
                let found = found.and_then(|found| epoch.map(|()| found));
                (partition, found)
            });
            AskedTopic {
                partitions: partitions.collect(),
                answer: FetchableTopicResponse {
                    topic: asked.topic,
                    topic_id: asked.topic_id,
                    ..FetchableTopicResponse::default()
                },
                topic,
            }
        });
        Self {
            isolation: Isolation::from_number(request.isolation_level),
            topics: topics.collect(),
            bytes_max: usize::try_from(request.max_bytes)
                .unwrap_or(0)
                .min(core.limits.fetch_bytes_max),
        }
    }

    fn is_empty(&self) -> bool {
        self.topics.iter().all(|topic| topic.partitions.is_empty())
    }

    fn partitions(&self) -> impl Iterator<Item = (&FetchPartition, &Arc<Partition>)> {
        let all = self.topics.iter().flat_map(|topic| &topic.partitions);
        all.filter_map(|(asked, found)| Some((asked, found.as_ref().ok()?)))
    }

    fn wait(&self, waiter: &Arc<Notify>) {
        for (_, partition) in self.partitions() {
            partition.wait(waiter);
        }
    }

    /// The most that reading may take now: what there is, within what the client takes.
    fn expected(&self) -> usize {
        let mut expected: usize = 0;
        for (asked, partition) in self.partitions() {
            if partition.readable(self.isolation) > asked.fetch_offset {
                let most = usize::try_from(asked.partition_max_bytes).unwrap_or(0);
                let there = usize::try_from(partition.size()).unwrap_or(usize::MAX);
                expected = expected.saturating_add(most.min(there));
            }
        }
        expected.min(self.bytes_max)
    }

    async fn read_now(self: &Arc<Self>, call: &Call) -> (FetchResponse, Memory) {
        let (response, memory, _) = self.read(call).await;
        (response, memory)
    }

    /// Reads once, within the memory for fetches; the flag says that something is wrong, so that
    /// waiting is no use.
    async fn read(self: &Arc<Self>, call: &Call) -> (FetchResponse, Memory, bool) {
        let memory = &call.core().memory;
        let mut share = memory.share();
        let mut most = self.expected();
        let mut least = most.min(BYTES_AT_LEAST).min(memory.due_max());
        loop {
            // Where memory is short, an answer has less in it.
            if !share.try_grow(least, most) {
                share.grow(least, Need::Ordinary).await;
            }
            let (response, failed) = self.read_within(call, share.bytes()).await;
            let used = response_bytes(&response);
            if used <= share.bytes() || share.bytes() >= memory.due_max() {
                // The very first batch is answered whatever its size.
                share.insist(used);
                share.shrink(used);
                let share = (used > 0).then_some(share);
                return (response, share, failed);
            }
            // The first batch is larger than that, or new: it waits for what this one needs.
            (least, most) = (used.min(memory.due_max()), used);
        }
    }

    async fn read_within(self: &Arc<Self>, call: &Call, bytes_max: usize) -> (FetchResponse, bool) {
        if bytes_max <= BYTES_READ_AT_ONCE {
            return self.read_all(call, bytes_max);
        }
        let (asked, caller) = (self.clone(), call.clone());
        let reading = spawn_blocking(move || asked.read_all(&caller, bytes_max));
        reading.await.unwrap_or_else(|cause| {
            error!(error = %cause, "could not read");
            let code = ErrorCode::UnknownServerError.code();
            let refused = FetchResponse {
                error_code: code,
                ..FetchResponse::default()
            };
            (refused, true)
        })
    }

    /// Reads up to `bytes_max`, and the first batch whatever its size.
    fn read_all(&self, call: &Call, bytes_max: usize) -> (FetchResponse, bool) {
        let mut left = bytes_max;
        let mut failed = false;
        let mut empty = true;
        let mut responses = Vec::with_capacity(self.topics.len());
        for topic in &self.topics {
            let mut answer = topic.answer.clone();
            for (asked, found) in &topic.partitions {
                let read = match found {
                    Ok(partition) => self.read_one(call, partition, asked, left, empty),
                    Err(code) => Err(*code),
                };
                let data = read.unwrap_or_else(|code| {
                    failed = true;
                    refused(asked, code)
                });
                failed |= data.diverging_epoch != EpochEndOffset::default();
                let bytes = data.records.as_ref().map_or(0, |records| records.len());
                left = left.saturating_sub(bytes);
                empty &= bytes == 0;
                answer.partitions.push(data);
            }
            responses.push(answer);
        }
        let response = FetchResponse {
            responses,
            ..FetchResponse::default()
        };
        (response, failed)
    }

    fn read_one(
        &self,
        call: &Call,
        partition: &Partition,
        asked: &FetchPartition,
        left: usize,
        min_one: bool,
    ) -> Result<PartitionData, ErrorCode> {
        if partition.is_gone() {
            return Err(ErrorCode::UnknownTopicOrPartition);
        }
        // In this order, so that none of them overtakes the next.
        let last_stable = partition.last_stable();
        let high_water = partition.high_water();
        let committed = self.isolation == Isolation::ReadCommitted;
        let mut data = PartitionData {
            partition_index: asked.partition,
            high_watermark: high_water,
            last_stable_offset: last_stable,
            log_start_offset: partition.start(),
            aborted_transactions: committed.then(Vec::new),
            records: Some(bytes::Bytes::new()),
            ..PartitionData::default()
        };
        if asked.last_fetched_epoch >= 0 {
            let (epoch, end_offset) = partition
                .epoch_end(asked.last_fetched_epoch)
                .ok_or(ErrorCode::OffsetOutOfRange)?;
            if epoch < asked.last_fetched_epoch || end_offset < asked.fetch_offset {
                data.diverging_epoch = EpochEndOffset { epoch, end_offset };
                return Ok(data);
            }
        }
        let most = usize::try_from(asked.partition_max_bytes)
            .unwrap_or(0)
            .min(left);
        let up_to = if committed { last_stable } else { high_water };
        let read = || {
            let slice = partition.read_up_to(asked.fetch_offset, most, min_one, up_to)?;
            let aborted = match committed && !slice.bytes.is_empty() {
                true => partition.aborted(asked.fetch_offset, slice.next_offset)?,
                false => Vec::new(),
            };
            Ok((slice, aborted))
        };
        match read() {
            Ok((slice, aborted)) => {
                data.records = Some(slice.bytes);
                let aborted = aborted.iter().map(|aborted| AbortedTransaction {
                    producer_id: aborted.producer_id,
                    first_offset: aborted.first_offset,
                });
                if let Some(told) = &mut data.aborted_transactions {
                    told.extend(aborted);
                }
                Ok(data)
            }
            Err(ReadError::OutOfRange { .. }) => Err(ErrorCode::OffsetOutOfRange),
            Err(ReadError::Damaged { from, to }) => {
                error!(topic = %partition.topic, partition = partition.index, from, to,
                    client = %call.client_id, "records are damaged on disk; a client may go on after them");
                Err(ErrorCode::CorruptMessage)
            }
            Err(ReadError::Disk(cause)) => {
                error!(topic = %partition.topic, partition = partition.index, error = %cause, "could not read");
                Err(ErrorCode::KafkaStorageError)
            }
        }
    }

    fn count(&self, response: &FetchResponse) {
        for (asked, answer) in self.topics.iter().zip(&response.responses) {
            let Some(topic) = &asked.topic else { continue };
            for records in answer
                .partitions
                .iter()
                .filter_map(|one| one.records.as_ref())
            {
                let count = batches(records)
                    .flatten()
                    .map(|batch| batch.record_count())
                    .sum();
                topic.counters.fetched(records.len(), count);
            }
        }
    }
}

fn refused(asked: &FetchPartition, code: ErrorCode) -> PartitionData {
    let missing = matches!(
        code,
        ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::TopicAuthorizationFailed
    );
    PartitionData {
        partition_index: asked.partition,
        error_code: code.code(),
        high_watermark: -1,
        aborted_transactions: missing.then(Vec::new),
        records: Some(bytes::Bytes::new()),
        ..PartitionData::default()
    }
}
