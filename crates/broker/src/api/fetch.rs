//! Fetch: stored batches, byte for byte; waits for more when there is too little.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use journal::{Held, ReadError, Stretch};
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
use crate::straight::{self, STRETCH_MAX, STRETCHES_MAX};
use crate::topic::Topic;

pub(crate) mod session;

/// Longest wait for more records, whatever the client wants.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);

/// Reads that may take more than this go to a thread that may wait for the disk; a reader that keeps
/// up asks for less, and finds it in the page cache.
const BYTES_READ_AT_ONCE: usize = 256 << 10;
/// Memory with which something is read, if there is more to be read.
const BYTES_AT_LEAST: usize = 64 << 10;

/// What was fetched.
#[derive(Default)]
pub(crate) struct Fetched {
    pub response: FetchResponse,
    /// What goes right from files into the gaps that the answer has.
    pub straight: Vec<Stretch>,
    /// The memory that the records take until they are sent.
    pub memory: Option<Share>,
    /// Something is wrong, so that waiting is no use.
    failed: bool,
    /// There is more than what was taken.
    cut: bool,
}

impl Fetched {
    fn refused(code: ErrorCode) -> Self {
        let response = FetchResponse {
            error_code: code.code(),
            ..FetchResponse::default()
        };
        Self {
            response,
            failed: true,
            ..Self::default()
        }
    }

    /// Takes what stays in its file; returns what stands for it, and where to read on.
    fn hold(&mut self, stretch: Stretch) -> (Bytes, i64) {
        let gap = straight::gap(self.straight.len(), stretch.len);
        let next = stretch.next_offset;
        self.cut |= stretch.cut;
        self.straight.push(stretch);
        (gap, next)
    }

    fn records(&self) -> impl Iterator<Item = &Bytes> {
        let topics = self.response.responses.iter();
        let partitions = topics.flat_map(|topic| &topic.partitions);
        partitions.filter_map(|one| one.records.as_ref())
    }

    /// Returns whether the answer need not wait for more.
    fn suffices(&self, bytes_min: usize) -> bool {
        self.failed || self.cut || self.bytes() >= bytes_min
    }

    fn bytes(&self) -> usize {
        self.records().map(Bytes::len).sum()
    }

    /// Returns how much of it is in our memory.
    fn bytes_held(&self) -> usize {
        let straight: usize = self.straight.iter().map(|stretch| stretch.len).sum();
        self.bytes().saturating_sub(straight)
    }

    fn record_count(&self, records: &Bytes) -> i32 {
        match straight::number(records).and_then(|number| self.straight.get(number)) {
            Some(stretch) => i32::try_from(stretch.records).unwrap_or(i32::MAX),
            None => batches(records)
                .flatten()
                .map(|batch| batch.record_count())
                .sum(),
        }
    }
}

/// Answers once there is enough, or the client need not wait any longer.
pub(crate) async fn handle(call: &Call, mut request: FetchRequest) -> Fetched {
    let sessions = &call.core().sessions;
    let context = match sessions.begin(call.version, &mut request) {
        Ok(context) => context,
        Err(code) => return Fetched::refused(code),
    };
    let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(wait).min(WAIT_MAX);
    let bytes_min = usize::try_from(request.min_bytes).unwrap_or(0);
    let asked = Arc::new(Asked::new(call, request));

    let mut fetched = wait_for(call, &asked, wait, deadline, bytes_min).await;
    asked.count(&fetched);
    sessions.finish(context, &mut fetched.response);
    fetched
}

async fn wait_for(
    call: &Call,
    asked: &Arc<Asked>,
    wait: u64,
    deadline: Instant,
    bytes_min: usize,
) -> Fetched {
    let fetched = asked.read(call).await;
    if asked.is_empty() || fetched.suffices(bytes_min) || wait == 0 {
        return fetched;
    }
    drop(fetched);
    let more = Arc::new(Notify::new());
    loop {
        asked.wait(&more);
        let fetched = asked.read(call).await;
        if fetched.suffices(bytes_min) || Instant::now() >= deadline {
            return fetched;
        }
        drop(fetched);
        tokio::select! {
            () = more.notified() => (),
            () = call.client.stop.cancelled() => return asked.read(call).await,
            () = time::sleep_until(deadline) => return asked.read(call).await,
        }
    }
}

/// What is asked for, with everything looked up once.
struct Asked {
    topics: Vec<AskedTopic>,
    bytes_max: usize,
    isolation: Isolation,
    /// Records may go right from files to the socket.
    straight: bool,
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
            straight: call.client.serving.listener.tls.is_none(),
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

    /// Reads once, within the memory for requests and answers.
    async fn read(self: &Arc<Self>, call: &Call) -> Fetched {
        let memory = &call.core().memory;
        let mut share = memory.share();
        let mut most = self.expected();
        let mut least = most.min(BYTES_AT_LEAST).min(memory.due_max());
        loop {
            // Where memory is short, an answer has less in it.
            if !share.try_grow(least, most) {
                share.grow(least, Need::Ordinary).await;
            }
            let mut fetched = self.read_within(call, share.bytes()).await;
            let used = fetched.bytes_held();
            if used <= share.bytes() || share.bytes() >= memory.due_max() {
                // The very first batch is answered whatever its size.
                share.insist(used);
                share.shrink(used);
                fetched.memory = (used > 0).then_some(share);
                return fetched;
            }
            // The first batch is larger than that, or new: it waits for what this one needs.
            (least, most) = (used.min(memory.due_max()), used);
        }
    }

    async fn read_within(self: &Arc<Self>, call: &Call, bytes_max: usize) -> Fetched {
        if bytes_max <= BYTES_READ_AT_ONCE {
            return self.read_all(call, bytes_max);
        }
        let (asked, caller) = (self.clone(), call.clone());
        let reading = spawn_blocking(move || asked.read_all(&caller, bytes_max));
        reading.await.unwrap_or_else(|cause| {
            error!(error = %cause, "could not read");
            Fetched::refused(ErrorCode::UnknownServerError)
        })
    }

    /// Reads up to `bytes_max`, and the first batch whatever its size.
    fn read_all(&self, call: &Call, bytes_max: usize) -> Fetched {
        let mut left = bytes_max;
        let mut fetched = Fetched::default();
        let mut empty = true;
        for topic in &self.topics {
            let mut answer = topic.answer.clone();
            for (asked, found) in &topic.partitions {
                let into = &mut fetched;
                let read = match found {
                    Ok(partition) => self.read_one(call, partition, asked, left, empty, into),
                    Err(code) => Err(*code),
                };
                let data = read.unwrap_or_else(|code| {
                    fetched.failed = true;
                    refused(asked, code)
                });
                fetched.failed |= data.diverging_epoch != EpochEndOffset::default();
                let bytes = data.records.as_ref().map_or(0, |records| records.len());
                left = left.saturating_sub(bytes);
                empty &= bytes == 0;
                answer.partitions.push(data);
            }
            fetched.response.responses.push(answer);
        }
        fetched
    }

    fn read_one(
        &self,
        call: &Call,
        partition: &Partition,
        asked: &FetchPartition,
        left: usize,
        min_one: bool,
        into: &mut Fetched,
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
            records: Some(Bytes::new()),
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
        let mut read = || {
            let from = asked.fetch_offset;
            let can = self.straight && into.straight.len() < STRETCHES_MAX && most <= STRETCH_MAX;
            let held = match can {
                true => Some(partition.hold_up_to(from, most, min_one, up_to)?),
                false => None,
            };
            let (bytes, next) = match held {
                Some(Held::InFile(stretch)) if stretch.len <= STRETCH_MAX => into.hold(stretch),
                Some(Held::Bytes(slice)) => (slice.bytes, slice.next_offset),
                // Or a batch alone is that large.
                _ => {
                    let slice = partition.read_up_to(from, most, min_one, up_to)?;
                    (slice.bytes, slice.next_offset)
                }
            };
            let aborted = match committed && !bytes.is_empty() {
                true => partition.aborted(from, next)?,
                false => Vec::new(),
            };
            Ok((bytes, aborted))
        };
        match read() {
            Ok((bytes, aborted)) => {
                data.records = Some(bytes);
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

    fn count(&self, fetched: &Fetched) {
        for (asked, answer) in self.topics.iter().zip(&fetched.response.responses) {
            let Some(topic) = &asked.topic else { continue };
            let all = answer.partitions.iter();
            for records in all.filter_map(|one| one.records.as_ref()) {
                topic
                    .counters
                    .fetched(records.len(), fetched.record_count(records));
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
        records: Some(Bytes::new()),
        ..PartitionData::default()
    }
}
