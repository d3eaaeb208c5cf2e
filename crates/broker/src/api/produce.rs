//! Produce: records into partitions.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use journal::Appended;
use journal::producer::Origin;
use kafka::error::ErrorCode;
use kafka::messages::produce::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use kafka::record::{Batch, Error, check};
use tokio::sync::oneshot;

use super::transactions::code_of as code_of_transaction;
use crate::clock;
use crate::dispatch::Call;
use crate::group::coordinator::Place;
use crate::intake::{self, Unfit};
use crate::partition::{Partition, Rejected};
use crate::topic::Topic;
use crate::topic::config::Settings;
use crate::txn::coordinator;
use crate::txn::terms::{Refusal, Version};
use crate::writer::Append;

/// Produce requests from this version on may carry zstd.
const ZSTD_FROM: i16 = 7;

/// From this version on, a client knows TRANSACTION_ABORTABLE.
const ABORTABLE_FROM: i16 = 11;
/// From this version on, writing to a partition makes it part of the transaction.
const JOINS_FROM: i16 = 12;

/// A Produce request whose records are in the write path.
pub(crate) struct Begun {
    transactional_id: Option<String>,
    topics: Vec<BegunTopic>,
}

struct BegunTopic {
    answer: TopicProduceResponse,
    topic: Option<Arc<Topic>>,
    partitions: Vec<BegunPartition>,
}

struct BegunPartition {
    index: i32,
    state: State,
}

enum State {
    Refused(Refused),
    /// The partition has to join the transaction before (Produce 12 and later).
    Joining {
        partition: Arc<Partition>,
        append: Append,
        producer: (i64, i16),
        outcome: oneshot::Receiver<Result<Appended, Rejected>>,
        bytes: usize,
        records: i32,
    },
    Written {
        partition: Arc<Partition>,
        outcome: oneshot::Receiver<Result<Appended, Rejected>>,
        bytes: usize,
        records: i32,
    },
}

struct Refused {
    code: ErrorCode,
    message: Option<String>,
    /// Where the log begins, when it was the log that refused; else -1.
    log_start: i64,
    /// Places of the records that are to blame, with what is wrong with each.
    records: Vec<(i32, String)>,
}

impl Refused {
    fn new(code: ErrorCode, message: String) -> Self {
        Refused {
            message: Some(message),
            ..code.into()
        }
    }

    /// Says that it was the log that refused.
    fn by_log(self, log_start: i64) -> Self {
        Refused { log_start, ..self }
    }
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Refused {
            code,
            message: None,
            log_start: -1,
            records: Vec::new(),
        }
    }
}

impl From<Unfit> for Refused {
    fn from(unfit: Unfit) -> Self {
        Refused {
            records: unfit.records,
            ..Refused::new(unfit.code, unfit.why)
        }
    }
}

/// Checks the batches and puts them into the write path, in order, without waiting.
pub(crate) fn begin(call: &Call, request: ProduceRequest) -> Begun {
    let context = Context {
        call,
        acks: request.acks,
        transactional_id: request.transactional_id.as_deref(),
        inflated_left: Cell::new(intake::INFLATED_REQUEST_MAX),
    };
    let topics = request
        .topic_data
        .into_iter()
        .map(|topic| context.topic(topic))
        .collect();
    Begun {
        topics,
        transactional_id: request.transactional_id,
    }
}

/// What may be stored.
struct Fit {
    batches: Bytes,
    records: i32,
    /// The producer in whose transaction it is.
    producer: Option<(i64, i16)>,
}

struct Context<'a> {
    call: &'a Call,
    acks: i16,
    transactional_id: Option<&'a str>,
    /// Bytes that its batches may yet inflate to.
    inflated_left: Cell<usize>,
}

impl Context<'_> {
    fn topic(&self, data: TopicProduceData) -> BegunTopic {
        let topics = &self.call.core().topics;
        let by_id = self.call.version >= 13;
        let (topic, missing) = match by_id {
            true => (topics.by_id(data.topic_id), ErrorCode::UnknownTopicId),
            false => (topics.get(&data.name), ErrorCode::UnknownTopicOrPartition),
        };
        let partitions = data
            .partition_data
            .into_iter()
            .map(|data| BegunPartition {
                index: data.index,
                state: match &topic {
                    None => State::Refused(missing.into()),
                    Some(topic) => self.partition(topic, data).unwrap_or_else(State::Refused),
                },
            })
            .collect();
        let answer = TopicProduceResponse {
            name: data.name,
            topic_id: data.topic_id,
            ..TopicProduceResponse::default()
        };
        BegunTopic {
            answer,
            topic,
            partitions,
        }
    }

    fn partition(&self, topic: &Topic, data: PartitionProduceData) -> Result<State, Refused> {
        if !(-1..=1).contains(&self.acks) {
            return Err(ErrorCode::InvalidRequiredAcks.into());
        }
        if topic.is_internal() {
            return Err(ErrorCode::InvalidTopicException.into());
        }
        let partition = topic
            .partition(data.index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let settings = topic.settings();
        if self.acks == -1 && settings.replicas_min > 1 {
            return Err(ErrorCode::NotEnoughReplicas.into());
        }
        let batches = data.records.unwrap_or_default();
        let Fit {
            batches,
            records,
            producer,
        } = self.check(&settings, batches, partition.start())?;
        let (done, outcome) = oneshot::channel();
        let bytes = batches.len();
        let append = Append {
            partition: partition.clone(),
            batches,
            origin: Origin::Client,
            durable: self.acks == -1,
            done,
        };
        if let Some(producer) = producer {
            return self.in_transaction(State::Joining {
                partition,
                append,
                producer,
                outcome,
                bytes,
                records,
            });
        }
        self.call.core().writer.send(append);
        Ok(State::Written {
            partition,
            outcome,
            bytes,
            records,
        })
    }

    /// Writes records of a transaction, if their partition is part of it (KIP-890).
    fn in_transaction(&self, joining: State) -> Result<State, Refused> {
        let State::Joining {
            partition,
            append,
            producer,
            outcome,
            bytes,
            records,
        } = joining
        else {
            return Ok(joining);
        };
        let id = self
            .transactional_id
            .ok_or(ErrorCode::TransactionalIdAuthorizationFailed)?;
        let place = (partition.topic.clone(), partition.index);
        let core = self.call.core();
        let mut append = Some(append);
        let write = || append.take().map(|append| core.writer.send(append));
        match core.transactions.verified(id, producer, &place, write) {
            Ok(_) => Ok(State::Written {
                partition,
                outcome,
                bytes,
                records,
            }),
            Err(Refusal::NotInTransaction | Refusal::Concurrent)
                if self.call.version >= JOINS_FROM =>
            {
                let append = append.ok_or(ErrorCode::UnknownServerError)?;
                Ok(State::Joining {
                    partition,
                    append,
                    producer,
                    outcome,
                    bytes,
                    records,
                })
            }
            Err(refusal) => Err(refused(refusal, self.call.version)),
        }
    }

    /// Checks the header and the checksum, and what else the topic asks for.
    fn check(&self, settings: &Settings, bytes: Bytes, log_start: i64) -> Result<Fit, Refused> {
        if bytes.len() > settings.max_message_bytes {
            let (size, max) = (bytes.len(), settings.max_message_bytes);
            let why = format!("the batch has {size} bytes, the topic takes {max}");
            return Err(Refused::new(ErrorCode::MessageTooLarge, why));
        }
        let batch = check::produced(&bytes, self.call.version >= ZSTD_FROM).map_err(|error| {
            // Whose transaction it is comes before whether it has a producer.
            let transactional =
                || Batch::split_first(&bytes).is_ok_and(|(one, _)| one.transactional());
            if matches!(error, Error::Sequence { .. })
                && self.transactional_id.is_none()
                && transactional()
            {
                return Refused::from(ErrorCode::TransactionalIdAuthorizationFailed);
            }
            let log_start = if shapeless(&error) { -1 } else { log_start };
            Refused::from(Unfit::from(error)).by_log(log_start)
        })?;
        let producer = batch
            .transactional()
            .then(|| (batch.producer_id(), batch.producer_epoch()));
        let records = batch.record_count();
        let stored = intake::examine(settings, &batch, clock::now_ms(), &self.inflated_left)
            .map_err(|unfit| Refused::from(unfit).by_log(log_start))?;
        Ok(Fit {
            batches: stored.unwrap_or(bytes),
            records,
            producer,
        })
    }
}

/// The whole mapping from what a transaction refuses to Produce's errors.
fn refused(refusal: Refusal, version: i16) -> Refused {
    let code = match refusal {
        Refusal::NotInTransaction if version < ABORTABLE_FROM => ErrorCode::InvalidTxnState,
        Refusal::Fenced => ErrorCode::InvalidProducerEpoch,
        // Every client tries again after this one, without asking for metadata.
        Refusal::Concurrent | Refusal::NotStored => ErrorCode::NotEnoughReplicas,
        refusal => code_of_transaction(refusal),
    };
    Refused::new(code, refusal.to_string())
}

impl Begun {
    /// Says whether partitions have to join a transaction before all records are in the write path.
    pub(crate) fn is_deferred(&self) -> bool {
        let mut partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.any(|one| matches!(one.state, State::Joining { .. }))
    }

    /// Has partitions join the transaction, then puts their records into the write path.
    async fn join(&mut self, call: &Call) {
        let mut joining: BTreeMap<(i64, i16), BTreeSet<Place>> = BTreeMap::new();
        for one in self.topics.iter().flat_map(|topic| &topic.partitions) {
            if let State::Joining {
                partition,
                producer,
                ..
            } = &one.state
            {
                let place = (partition.topic.clone(), partition.index);
                joining.entry(*producer).or_default().insert(place);
            }
        }
        let id = self.transactional_id.as_deref().unwrap_or_default();
        let mut added = BTreeMap::new();
        for (producer, places) in joining {
            let outcome = coordinator::add(call.core(), id, producer, &places, Version::V2);
            added.insert(producer, outcome.await);
        }
        let context = Context {
            call,
            inflated_left: Cell::new(0), // they were looked into before
            acks: -1,
            transactional_id: Some(id),
        };
        for one in self
            .topics
            .iter_mut()
            .flat_map(|topic| &mut topic.partitions)
        {
            let nothing = State::Refused(ErrorCode::UnknownServerError.into());
            let state = std::mem::replace(&mut one.state, nothing);
            let failed = match &state {
                State::Joining { producer, .. } => added.get(producer).and_then(|one| one.err()),
                _ => None,
            };
            let joined = match failed {
                Some(refusal) => Err(refused(refusal, call.version)),
                None => context.in_transaction(state),
            };
            one.state = match joined {
                // It has ended at this moment: the client tries again.
                Ok(State::Joining { .. }) => {
                    State::Refused(refused(Refusal::Concurrent, call.version))
                }
                Ok(state) => state,
                Err(refused) => State::Refused(refused),
            };
        }
    }

    /// Waits until the records are where `acks` wants them.
    pub(crate) async fn finish(mut self, call: &Call) -> ProduceResponse {
        if self.is_deferred() {
            self.join(call).await;
        }
        let mut responses = Vec::with_capacity(self.topics.len());
        for BegunTopic {
            mut answer,
            topic,
            partitions,
        } in self.topics
        {
            for partition in partitions {
                let told = finish_one(topic.as_deref(), partition).await;
                answer.partition_responses.push(told);
            }
            responses.push(answer);
        }
        ProduceResponse {
            responses,
            ..ProduceResponse::default()
        }
    }
}

async fn finish_one(topic: Option<&Topic>, begun: BegunPartition) -> PartitionProduceResponse {
    let refused = match begun.state {
        State::Refused(refused) => refused,
        State::Joining { .. } => ErrorCode::NotEnoughReplicas.into(),
        State::Written {
            partition,
            outcome,
            bytes,
            records,
        } => match outcome.await.unwrap_or(Err(Rejected::Gone)) {
            Ok(appended) => {
                if let Some(topic) = topic {
                    topic.counters.produced(bytes, records);
                }
                return PartitionProduceResponse {
                    index: begun.index,
                    base_offset: appended.base_offset,
                    log_append_time_ms: appended.append_time.unwrap_or(-1),
                    log_start_offset: partition.start(),
                    ..PartitionProduceResponse::default()
                };
            }
            Err(rejected) => {
                Refused::new(code_of(&rejected), rejected.to_string()).by_log(partition.start())
            }
        },
    };
    PartitionProduceResponse {
        index: begun.index,
        error_code: refused.code.code(),
        error_message: refused.message,
        record_errors: refused
            .records
            .into_iter()
            .map(|(index, message)| BatchIndexAndErrorMessage {
                batch_index: index,
                batch_index_error_message: Some(message),
            })
            .collect(),
        base_offset: -1,
        log_start_offset: refused.log_start,
        ..PartitionProduceResponse::default()
    }
}

/// Returns the first error in a response, for clients that see no response.
pub(crate) fn first_error(response: &ProduceResponse) -> Option<ErrorCode> {
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partition_responses);
    let code = partitions
        .map(|one| one.error_code)
        .find(|code| *code != 0)?;
    Some(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError))
}

/// Returns whether the bytes were refused before a log was asked.
fn shapeless(error: &Error) -> bool {
    matches!(
        error,
        Error::CutShort
            | Error::NotOneBatch
            | Error::OldMagic { .. }
            | Error::UnknownMagic { .. }
            | Error::Length { .. }
            | Error::Checksum { .. }
    )
}

/// The whole mapping from what a partition rejects to Kafka's errors.
pub(super) fn code_of(rejected: &Rejected) -> ErrorCode {
    match rejected {
        Rejected::Invalid(_) => ErrorCode::InvalidRecord,
        Rejected::TooLarge { .. } => ErrorCode::MessageTooLarge,
        Rejected::OutOfOrder => ErrorCode::OutOfOrderSequenceNumber,
        Rejected::InvalidEpoch => ErrorCode::InvalidProducerEpoch,
        Rejected::OutsideTransaction => ErrorCode::InvalidTxnState,
        Rejected::CoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
        Rejected::Disk => ErrorCode::KafkaStorageError,
        Rejected::Gone => ErrorCode::UnknownTopicOrPartition,
    }
}
