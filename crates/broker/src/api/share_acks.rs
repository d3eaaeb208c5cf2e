//! Acknowledgements of records, which come with ShareFetch or alone (KIP-932): ShareAcknowledge.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::share_acknowledge::{
    PartitionData, ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareAcknowledgeTopicResponse,
};
use tokio::sync::oneshot;

use crate::access::rules::Operation;
use crate::dispatch::Call;
use crate::group::settings::Share as Settings;
use crate::share::records::Key;
use crate::share::sessions::{Holder, LAST, Place};
use crate::share::terms::{Refusal, Said, Verdict};

/// Longest id of a member.
const MEMBER_CHARS_MAX: usize = 36;
/// From this version on, members may ask for more time.
const RENEWALS_FROM: i16 = 2;

/// What became of a partition's acknowledgements.
pub(super) type Outcome = (ErrorCode, Option<String>);
/// First and last offset, and one verdict for all records or one for each, in Kafka's numbers.
pub(super) type Batch = (i64, i64, Vec<i8>);

/// Acknowledgements that are on their way to the disk.
#[derive(Default)]
pub(super) struct Acks {
    decided: Vec<(Place, Outcome)>,
    writing: Vec<(Place, oneshot::Receiver<Result<(), Refusal>>)>,
}

/// Returns who asks, if that is a group and a member as they can be.
pub(super) fn member_of(
    group_id: Option<String>,
    member_id: Option<String>,
) -> Result<Holder, (ErrorCode, Option<&'static str>)> {
    let invalid = |why| (ErrorCode::InvalidRequest, Some(why));
    let group = group_id.ok_or(invalid("Invalid group id in the request."))?;
    let member = member_id
        .filter(|id| !id.is_empty() && id.chars().count() <= MEMBER_CHARS_MAX)
        .ok_or(invalid("Invalid member id in the request."))?;
    Ok((Arc::from(group), Arc::from(member)))
}

/// Begins to store acknowledgements.
pub(super) fn begin(
    call: &Call,
    (group, member): &Holder,
    settings: &Settings,
    renews: bool,
    each: impl Iterator<Item = (Place, Vec<Batch>)>,
) -> Acks {
    let core = call.core();
    let may_renew = call.version >= RENEWALS_FROM && renews;
    let mut acks = Acks::default();
    let told = |code: ErrorCode| (code, Some(code.message().to_owned()));
    for (place, batches) in each {
        let known = core.topics.by_id(place.0);
        let said = match &known {
            None => Err(ErrorCode::UnknownTopicId),
            Some(topic) if !call.may_topic(Operation::Read, &topic.name) => {
                Err(ErrorCode::TopicAuthorizationFailed)
            }
            Some(topic) => said(&batches, may_renew).and_then(|said| {
                let found = topic.partition(place.1);
                found
                    .map(|_| said)
                    .ok_or(ErrorCode::UnknownTopicOrPartition)
            }),
        };
        let said = match said {
            Ok(said) if said.is_empty() => {
                acks.decided.push((place, (ErrorCode::None, None)));
                continue;
            }
            Ok(said) => said,
            Err(code) => {
                acks.decided.push((place, told(code)));
                continue;
            }
        };
        let key = Key {
            group: group.clone(),
            topic: place.0,
            partition: place.1,
        };
        match core.shares.acknowledge(&key, member, &said, settings) {
            Ok(None) => acks.decided.push((place, (ErrorCode::None, None))),
            Ok(Some(writing)) => acks.writing.push((place, writing)),
            Err(refusal) => acks.decided.push((place, outcome(refusal))),
        }
    }
    acks
}

/// Reads what is said of a partition's records, which must be in order.
pub(super) fn said(batches: &[Batch], may_renew: bool) -> Result<Vec<Said>, ErrorCode> {
    let mut before = -1;
    let mut all = Vec::with_capacity(batches.len());
    for (first, last, numbers) in batches {
        let each = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
        let fits = match each {
            0 => false,
            1 => true,
            each => last.checked_sub(*first) == Some(each - 1),
        };
        if first > last || *first < before || !fits {
            return Err(ErrorCode::InvalidRequest);
        }
        let verdicts: Option<Vec<Verdict>> = numbers
            .iter()
            .map(|number| Verdict::from_number(*number))
            .collect();
        let verdicts = verdicts.ok_or(ErrorCode::InvalidRequest)?;
        if !may_renew && verdicts.contains(&Verdict::Renew) {
            return Err(ErrorCode::InvalidRequest);
        }
        before = *last;
        all.push(Said {
            first: *first,
            last: *last,
            verdicts,
        });
    }
    Ok(all)
}

/// Waits until all acknowledgements are decided.
pub(super) async fn acknowledge(acks: Acks) -> Vec<(Place, Outcome)> {
    let Acks {
        mut decided,
        writing,
    } = acks;
    for (place, writing) in writing {
        let stored = writing.await.unwrap_or(Err(Refusal::NotStored));
        decided.push((
            place,
            stored.map_or_else(outcome, |()| (ErrorCode::None, None)),
        ));
    }
    decided
}

/// The whole mapping from refused acknowledgements to Kafka's errors.
fn outcome(refusal: Refusal) -> Outcome {
    let code = match refusal {
        Refusal::RecordState => ErrorCode::InvalidRecordState,
        Refusal::Past => ErrorCode::InvalidRequest,
        Refusal::Unknown => ErrorCode::UnknownTopicOrPartition,
        Refusal::NotStored => ErrorCode::KafkaStorageError,
    };
    (code, Some(refusal.to_string()))
}

pub(crate) async fn handle(
    call: Call,
    mut request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    let refused = |code: ErrorCode, why: Option<&str>| ShareAcknowledgeResponse {
        error_code: code.code(),
        error_message: Some(why.unwrap_or(code.message()).to_owned()),
        ..ShareAcknowledgeResponse::default()
    };
    let holder = match member_of(request.group_id.take(), request.member_id.take()) {
        Ok(holder) => holder,
        Err((code, why)) => return refused(code, why),
    };
    let core = call.core();
    let epoch = request.share_session_epoch;
    if let Err(code) = core.shares.sessions.acknowledge(&holder, epoch) {
        return refused(code, None);
    }
    let settings = core.shares.settings(&holder.0);
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|one| {
            let batches = one.acknowledgement_batches.iter();
            let batches = batches.map(|batch| {
                let verdicts = batch.acknowledge_types.clone();
                (batch.first_offset, batch.last_offset, verdicts)
            });
            ((topic.topic_id, one.partition_index), batches.collect())
        })
    });
    let acks = begin(&call, &holder, &settings, request.is_renew_ack, partitions);
    let acknowledged = acknowledge(acks).await;
    if epoch == LAST {
        core.shares.sessions.end(&holder);
        core.shares.release(&holder);
    }
    let mut topics: BTreeMap<uuid::Uuid, Vec<PartitionData>> = BTreeMap::new();
    for ((topic, partition_index), (code, why)) in acknowledged {
        topics.entry(topic).or_default().push(PartitionData {
            partition_index,
            error_code: code.code(),
            error_message: why,
            ..PartitionData::default()
        });
    }
    ShareAcknowledgeResponse {
        acquisition_lock_timeout_ms: settings.lock_ms,
        responses: topics
            .into_iter()
            .map(|(topic_id, partitions)| ShareAcknowledgeTopicResponse {
                topic_id,
                partitions,
            })
            .collect(),
        ..ShareAcknowledgeResponse::default()
    }
}
