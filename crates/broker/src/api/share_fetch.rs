//! ShareFetch: records that wait for a member of a share group (KIP-932).
//!
//! A request may bring acknowledgements for what came before; they are stored while it waits for more.

use std::sync::Arc;
use std::time::Duration;

use kafka::error::ErrorCode;
use kafka::messages::share_fetch::{
    AcknowledgementBatch, AcquiredRecords, PartitionData, ShareFetchRequest, ShareFetchResponse,
    ShareFetchableTopicResponse,
};
use kit::memory::Share;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant};
use tracing::error;

use super::share_acks::{Acks, Outcome, acknowledge, begin, member_of};
use crate::access::rules::Operation;
use crate::dispatch::Call;
use crate::group::reset::Reset;
use crate::group::settings::Share as Settings;
use crate::share::partitions::Fetching;
use crate::share::records::Key;
use crate::share::sessions::{Change, FIRST, Holder, LAST, Place};
use crate::share::terms::{Acquired, Fetched, Millis, Mode, Refusal, Wish};

mod read;

/// Longest wait for more records, whatever the client wants.
const WAIT_MAX: Duration = Duration::from_secs(5 * 60);
/// From this version on, members may ask for more time.
const RENEWALS_FROM: i16 = 2;

type Memory = Option<Share>;

/// Answers with the memory that the records take until they are sent.
pub(crate) async fn handle(
    call: &Call,
    request: ShareFetchRequest,
) -> (ShareFetchResponse, Memory) {
    match fetch(call, request).await {
        Ok(answered) => answered,
        Err((code, why)) => {
            let refused = ShareFetchResponse {
                error_code: code.code(),
                error_message: why.map(str::to_owned),
                ..ShareFetchResponse::default()
            };
            (refused, None)
        }
    }
}

type Refused = (ErrorCode, Option<&'static str>);

async fn fetch(
    call: &Call,
    mut request: ShareFetchRequest,
) -> Result<(ShareFetchResponse, Memory), Refused> {
    let core = call.core();
    let holder = member_of(request.group_id.take(), request.member_id.take())?;
    let renews = call.version >= RENEWALS_FROM && request.is_renew_ack;
    let wants = [
        request.max_bytes,
        request.min_bytes,
        request.max_records,
        request.max_wait_ms,
    ];
    if renews && wants.iter().any(|number| *number != 0) {
        let why = "a request that renews acquisition locks must not ask for records";
        return Err((ErrorCode::InvalidRequest, Some(why)));
    }
    let mode = match request.share_acquire_mode {
        0 => Mode::Batches,
        1 => Mode::Records,
        _ => {
            return Err((
                ErrorCode::InvalidRequest,
                Some("unknown share acquire mode"),
            ));
        }
    };
    let epoch = request.share_session_epoch;
    let partitions = || {
        let topics = request.topics.iter();
        topics.flat_map(|topic| topic.partitions.iter().map(|one| (topic.topic_id, one)))
    };
    let acknowledges = partitions().any(|(_, one)| !one.acknowledgement_batches.is_empty());
    let forgotten = request.forgotten_topics_data.iter();
    let change = Change {
        epoch,
        named: partitions()
            .map(|(topic, one)| (topic, one.partition_index))
            .collect(),
        forgotten: forgotten
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|index| (topic.topic_id, *index))
            })
            .collect(),
        acknowledges,
    };
    let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
    let wait = Duration::from_millis(wait).min(WAIT_MAX);
    let connection = &call.client.connection;
    let places = match core.shares.sessions.fetch(&holder, change, connection.id()) {
        Ok(places) => places,
        Err(code) => {
            if code == ErrorCode::ShareSessionLimitReached {
                pause(call, wait).await; // it would ask again at once
            }
            return Err((code, None));
        }
    };
    if epoch == FIRST {
        connection.began(&holder);
    }

    let settings = core.shares.settings(&holder.0);
    let acks = match acknowledges {
        false => Acks::default(),
        true => begin(
            call,
            &holder,
            &settings,
            renews,
            partitions().map(|(topic, one)| {
                let batches = one.acknowledgement_batches.iter();
                ((topic, one.partition_index), batches.map(batch).collect())
            }),
        ),
    };
    let asked = Asked {
        call: call.clone(),
        member: holder.1.clone(),
        mode,
        records_max: i64::from(request.max_records),
        batch_size: i64::from(request.batch_size.max(1)),
        bytes_max: usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(core.limits.fetch_bytes_max),
        bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
        wait,
        settings,
    };
    let reading = match renews {
        true => Vec::new(), // what was renewed must not wait for records
        false => rotated(places, epoch),
    };
    let (mut told, memory) = asked.read(&holder, &reading).await;
    let acknowledged = acknowledge(acks).await;
    if epoch > FIRST {
        told.retain(|(place, data)| core.shares.sessions.tells(&holder, *place, data));
    }
    if epoch == LAST {
        core.shares.sessions.end(&holder);
        core.shares.release(&holder);
    }
    let response = ShareFetchResponse {
        acquisition_lock_timeout_ms: asked.settings.lock_ms,
        responses: combined(told, acknowledged),
        ..ShareFetchResponse::default()
    };
    Ok((response, memory))
}

fn batch(batch: &AcknowledgementBatch) -> super::share_acks::Batch {
    (
        batch.first_offset,
        batch.last_offset,
        batch.acknowledge_types.clone(),
    )
}

/// Each request begins with another partition, so that all have their turn.
fn rotated(mut places: Vec<Place>, epoch: i32) -> Vec<Place> {
    if let Ok(epoch) = usize::try_from(epoch)
        && !places.is_empty()
    {
        let by = epoch % places.len();
        places.rotate_left(by);
    }
    places
}

async fn pause(call: &Call, wait: Duration) {
    tokio::select! {
        () = time::sleep(wait) => (),
        () = call.client.stop.cancelled() => (),
    }
}

/// Puts what was read and what became of acknowledgements into one answer.
fn combined(
    told: Vec<(Place, PartitionData)>,
    mut acknowledged: Vec<(Place, Outcome)>,
) -> Vec<ShareFetchableTopicResponse> {
    let mut responses: Vec<ShareFetchableTopicResponse> = Vec::new();
    let mut add = |(topic_id, _): Place, data: PartitionData| {
        let known = responses
            .iter_mut()
            .rfind(|topic| topic.topic_id == topic_id);
        match known {
            Some(topic) => topic.partitions.push(data),
            None => responses.push(ShareFetchableTopicResponse {
                topic_id,
                partitions: vec![data],
            }),
        }
    };
    acknowledged.sort_by_key(|(place, _)| *place);
    let outcome = |acknowledged: &mut Vec<(Place, Outcome)>, place: &Place| {
        let at = acknowledged.binary_search_by_key(place, |(place, _)| *place);
        at.ok().map(|at| acknowledged.remove(at).1)
    };
    for (place, mut data) in told {
        if let Some((code, why)) = outcome(&mut acknowledged, &place) {
            data.acknowledge_error_code = code.code();
            data.acknowledge_error_message = why;
        }
        add(place, data);
    }
    for (place, (code, why)) in acknowledged {
        let data = PartitionData {
            partition_index: place.1,
            acknowledge_error_code: code.code(),
            acknowledge_error_message: why,
            records: bytes::Bytes::new(),
            ..PartitionData::default()
        };
        add(place, data);
    }
    responses
}

/// What a member wants.
struct Asked {
    call: Call,
    member: Arc<str>,
    mode: Mode,
    records_max: i64,
    batch_size: i64,
    bytes_max: usize,
    bytes_min: usize,
    wait: Duration,
    settings: Settings,
}

/// What is told of each partition, with the memory that the records take.
type Told = (Vec<(Place, PartitionData)>, Memory);

impl Asked {
    /// Reads until there is something for the member, or the time is over.
    async fn read(&self, holder: &Holder, places: &[Place]) -> Told {
        let core = self.call.core();
        let mut failed = Vec::new();
        let mut found = Vec::new();
        for place in places {
            match find(&self.call, place) {
                Err(code) => failed.push((*place, refused(place.1, code))),
                Ok(partition) => {
                    let key = Key {
                        group: holder.0.clone(),
                        topic: place.0,
                        partition: place.1,
                    };
                    match core.shares.get(&key) {
                        Some(shared) => found.push((*place, shared, partition)),
                        // Nobody has told the coordinator that the group reads it.
                        None => {
                            failed.push((*place, refused(place.1, ErrorCode::UnknownServerError)));
                        }
                    }
                }
            }
        }
        if found.is_empty() || self.records_max <= 0 || self.bytes_max == 0 {
            return (failed, None);
        }
        let deadline = Instant::now() + self.wait;
        loop {
            let more = Arc::new(Notify::new());
            for (_, shared, partition) in &found {
                shared.wait(&more);
                partition.wait(&more);
            }
            let late = Instant::now() >= deadline || self.call.client.stop.is_cancelled();
            let (told, memory) = self.try_read(&found, late).await;
            let answers = told.iter().any(|(_, data)| {
                !data.acquired_records.is_empty() || data.error_code != ErrorCode::None.code()
            });
            if answers || late {
                failed.extend(told);
                return (failed, memory);
            }
            drop((told, memory));
            tokio::select! {
                () = more.notified() => (),
                () = self.call.client.stop.cancelled() => (),
                () = time::sleep_until(deadline) => (),
            }
        }
    }
}

fn find(
    call: &Call,
    (topic, index): &Place,
) -> Result<Arc<crate::partition::Partition>, ErrorCode> {
    let topic = call
        .core()
        .topics
        .by_id(*topic)
        .ok_or(ErrorCode::UnknownTopicId)?;
    if !call.may_topic(Operation::Read, &topic.name) {
        return Err(ErrorCode::TopicAuthorizationFailed);
    }
    topic
        .partition(*index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn refused(index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index: index,
        error_code: code.code(),
        error_message: Some(code.message().to_owned()),
        records: bytes::Bytes::new(),
        ..PartitionData::default()
    }
}
