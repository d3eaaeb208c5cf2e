//! What each request asks for. What a client may not do is taken out before the API sees it, and answered with Kafka's error.
//!
//! A request of which nothing is known here asks for the right to alter the cluster, so that nothing is forgotten.

mod admin;
mod groups;
mod operator;
mod shares;
mod streams;
mod topics;
mod transactions;

use std::any::Any;

use kafka::error::ErrorCode;
use kafka::messages::{ApiKey, Request};
use uuid::Uuid;

use super::rules::{Kind, Operation};
use crate::dispatch::Call;

/// What becomes of a request.
pub(crate) enum Guard {
    /// Its API answers.
    Pass,
    /// It is answered with this.
    Instead(Box<dyn Any + Send>),
    /// Its API answers what is left of it, and this adds what was taken out.
    After(After),
    /// There is no answer that says it: the connection ends.
    Close,
}

pub(crate) type After = Box<dyn FnOnce(&mut dyn Any) + Send>;

/// What a request is answered with.
type Answer<Q> = <Q as Request>::Response;

/// The same, of one kind of request.
enum Outcome<R> {
    Pass,
    Instead(R),
    After(Box<dyn FnOnce(&mut R) + Send>),
}

fn after<R>(change: impl FnOnce(&mut R) + Send + 'static) -> Outcome<R> {
    Outcome::After(Box::new(change))
}

/// Looks at a request as what it is.
fn of<Q: Request>(
    request: &mut dyn Any,
    look: impl FnOnce(&mut Q) -> Outcome<Q::Response>,
) -> Guard {
    let Some(request) = request.downcast_mut::<Q>() else {
        return Guard::Close;
    };
    match look(request) {
        Outcome::Pass => Guard::Pass,
        Outcome::Instead(response) => Guard::Instead(Box::new(response)),
        Outcome::After(change) => Guard::After(Box::new(move |response| {
            if let Some(response) = response.downcast_mut::<Q::Response>() {
                change(response);
            }
        })),
    }
}

/// Lets a request pass as a whole, or answers it with an error.
fn whole<Q: Request>(
    request: &mut dyn Any,
    refused: Option<ErrorCode>,
    tell: impl FnOnce(&mut Q::Response, i16),
) -> Guard {
    of::<Q>(request, |_| match refused {
        None => Outcome::Pass,
        Some(code) => {
            let mut response = Q::Response::default();
            tell(&mut response, code.code());
            Outcome::Instead(response)
        }
    })
}

/// Takes out what may not be done.
fn take<T>(from: &mut Vec<T>, may: impl Fn(&T) -> bool) -> Vec<T> {
    let (allowed, denied) = std::mem::take(from).into_iter().partition(may);
    *from = allowed;
    denied
}

const TOPIC: ErrorCode = ErrorCode::TopicAuthorizationFailed;
const GROUP: ErrorCode = ErrorCode::GroupAuthorizationFailed;
const CLUSTER: ErrorCode = ErrorCode::ClusterAuthorizationFailed;
const TRANSACTION: ErrorCode = ErrorCode::TransactionalIdAuthorizationFailed;

impl Call {
    fn cluster(&self, operation: Operation) -> Option<ErrorCode> {
        (!self.client.may_cluster(operation)).then_some(CLUSTER)
    }

    fn group(&self, operation: Operation, group: &str) -> Option<ErrorCode> {
        (!self.client.may(operation, Kind::Group, group)).then_some(GROUP)
    }

    /// Whoever joins a group reads it, and may see the topics that it names.
    fn joining<'t>(
        &self,
        group: &str,
        topics: impl IntoIterator<Item = &'t str>,
    ) -> Option<ErrorCode> {
        let mut topics = topics.into_iter();
        let hidden = |topic: &str| !self.may_topic(Operation::Describe, topic);
        self.group(Operation::Read, group)
            .or_else(|| topics.any(hidden).then_some(TOPIC))
    }

    fn transaction(&self, operation: Operation, id: &str) -> Option<ErrorCode> {
        (!self.client.may(operation, Kind::TransactionalId, id)).then_some(TRANSACTION)
    }

    /// Returns whether something may be done to a topic by name or by id; an id that is not known is the API's business.
    fn may_either(&self, operation: Operation, name: &str, id: Uuid) -> bool {
        if id.is_nil() {
            return self.may_topic(operation, name);
        }
        let topic = self.core().topics.by_id(id);
        topic.is_none_or(|topic| self.may_topic(operation, &topic.name))
    }

    /// Returns the bits of what may be done to a resource, of those that it has.
    fn operations(&self, kind: Kind, name: &str, all: i32) -> i32 {
        use Operation::*;
        let every = [
            Read,
            Write,
            Create,
            Delete,
            Alter,
            Describe,
            ClusterAction,
            DescribeConfigs,
            AlterConfigs,
            IdempotentWrite,
        ];
        let bit = |operation: &Operation| 1 << (*operation as i8);
        let may = every
            .iter()
            .filter(|operation| all & bit(operation) != 0)
            .filter(|operation| self.client.may(**operation, kind, name));
        may.map(bit).sum()
    }
}

/// What stands in the place of bits that nobody has asked for.
const NOT_ASKED: i32 = i32::MIN;

/// Looks at a request of a client that may not do everything.
pub(crate) fn look(call: &Call, api: ApiKey, request: &mut dyn Any) -> Guard {
    match api {
        ApiKey::ApiVersions
        | ApiKey::SaslHandshake
        | ApiKey::SaslAuthenticate
        // Its topics are looked at when its session has told them.
        | ApiKey::Fetch
        // There are none, whoever asks.
        | ApiKey::CreateDelegationToken
        | ApiKey::RenewDelegationToken
        | ApiKey::ExpireDelegationToken
        | ApiKey::DescribeDelegationToken => Guard::Pass,
        ApiKey::Produce => topics::produce(call, request),
        ApiKey::Metadata => topics::metadata(call, request),
        ApiKey::DescribeTopicPartitions => topics::partitions(call, request),
        ApiKey::ListOffsets => topics::offsets(call, request),
        ApiKey::OffsetForLeaderEpoch => topics::epochs(call, request),
        ApiKey::CreateTopics => topics::create(call, request),
        ApiKey::DeleteTopics => topics::delete(call, request),
        ApiKey::CreatePartitions => topics::grow(call, request),
        ApiKey::DeleteRecords => topics::delete_records(call, request),
        ApiKey::DescribeProducers => topics::producers(call, request),
        ApiKey::FindCoordinator => groups::find(call, request),
        ApiKey::JoinGroup => groups::join(call, request),
        ApiKey::SyncGroup => groups::sync(call, request),
        ApiKey::Heartbeat => groups::heartbeat(call, request),
        ApiKey::LeaveGroup => groups::leave(call, request),
        ApiKey::ConsumerGroupHeartbeat => groups::consumer_heartbeat(call, request),
        ApiKey::DescribeGroups => groups::describe(call, request),
        ApiKey::ConsumerGroupDescribe => groups::describe_consumers(call, request),
        ApiKey::ListGroups => groups::list(call, request),
        ApiKey::DeleteGroups => groups::delete(call, request),
        ApiKey::OffsetCommit => groups::commit(call, request),
        ApiKey::OffsetFetch => groups::fetch(call, request),
        ApiKey::OffsetDelete => groups::delete_offsets(call, request),
        ApiKey::ShareGroupHeartbeat => shares::heartbeat(call, request),
        ApiKey::ShareGroupDescribe => shares::describe(call, request),
        ApiKey::ShareFetch => shares::fetch(call, request),
        ApiKey::ShareAcknowledge => shares::acknowledge(call, request),
        ApiKey::DescribeShareGroupOffsets => shares::offsets(call, request),
        ApiKey::AlterShareGroupOffsets => shares::alter(call, request),
        ApiKey::DeleteShareGroupOffsets => shares::forget(call, request),
        ApiKey::StreamsGroupHeartbeat => streams::heartbeat(call, request),
        ApiKey::StreamsGroupDescribe => streams::describe(call, request),
        ApiKey::InitProducerId => transactions::init(call, request),
        ApiKey::AddPartitionsToTxn => transactions::add_partitions(call, request),
        ApiKey::AddOffsetsToTxn => transactions::add_offsets(call, request),
        ApiKey::EndTxn => transactions::end(call, request),
        ApiKey::TxnOffsetCommit => transactions::commit(call, request),
        ApiKey::DescribeTransactions => transactions::describe(call, request),
        ApiKey::ListTransactions => transactions::list(call, request),
        _ => admin::look(call, api, request),
    }
}
