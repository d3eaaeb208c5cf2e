//! From a frame to the API that answers it: one match.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::Stretch;
use kafka::error::ErrorCode;
use kafka::frame::{self, FrameError, RequestHeader};
use kafka::messages::{ApiKey, Message as _, Request};
use kafka::wire::{DecodeError, EncodeError, Reader};
use kit::memory::{Need, Share};
use tokio_util::sync::CancellationToken;

use crate::Address;
use crate::access::guard::{self, Guard};
use crate::api::{self, versions};
use crate::auth::Principal;
use crate::connection::sasl::Session;
use crate::core::Core;
use crate::listener::Serving;
use crate::quota::Metered;
use crate::quota::table::{Kind, Refused};
use crate::share::sessions::Connection;
use crate::tally::Tally;

/// A client, as far as its connection tells.
pub(crate) struct Client {
    pub core: Arc<Core>,
    /// The listener that it came through.
    pub serving: Arc<Serving>,
    pub peer: SocketAddr,
    /// The address that this client reaches us under.
    pub reached: Address,
    /// Who it is.
    pub principal: Principal,
    /// How long that holds, where it has to be proven again.
    pub session: Option<Session>,
    /// Ends waits when the broker stops.
    pub stop: CancellationToken,
    /// The share sessions that began here.
    pub connection: Arc<Connection>,
}

/// One request's place in the conversation.
#[derive(Clone)]
pub(crate) struct Call {
    pub client: Arc<Client>,
    pub version: i16,
    pub client_id: String,
    correlation_id: i32,
    /// What the request takes, while something is limited.
    metered: Option<Arc<Metered>>,
}

impl Call {
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.client.core
    }

    /// Notes that partitions are made or removed; refused when the client does too much of that, and speaks a
    /// version in which it can be told.
    pub(crate) fn spend(&self, told_from: i16, partitions: usize) -> Result<(), Refused> {
        if self.metered.is_none() {
            return Ok(());
        }
        let told = self.version >= told_from;
        let quotas = &self.core().quotas;
        let spent = quotas.mutations(self.user(), &self.client_id, told);
        match spent.is_none_or(|spent| spent.take(partitions)) {
            true => Ok(()),
            false => Err((
                ErrorCode::ThrottlingQuotaExceeded,
                "The throttling quota has been exceeded.".to_owned(),
            )),
        }
    }

    /// Who sends it.
    pub(crate) fn user(&self) -> &str {
        self.client.principal.name()
    }
}

/// A whole answer, ready for the socket.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Empty when the client wants none.
    pub pieces: Vec<Bytes>,
    /// What goes from files into the gaps between them.
    pub straight: Vec<Stretch>,
    /// How long its client is not listened to afterwards.
    pub mute: Option<Duration>,
    /// What it takes of the memory until it is sent, beyond what is small.
    pub memory: Option<Share>,
}

/// Why a request has no answer; the connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("not a request that can be read: {0}")]
    Frame(#[from] FrameError),
    #[error("not a request that can be read: {0}")]
    Decode(#[from] DecodeError),
    #[error("the answer cannot be written: {0}")]
    Encode(#[from] EncodeError),
    #[error("{} version {version} is not supported", api.name())]
    Version { api: ApiKey, version: i16 },
    #[error("{} is not supported", api.name())]
    Api { api: ApiKey },
    #[error("{} before it is known who the client is", api.name())]
    Unproven { api: ApiKey },
    #[error("{} is not for this client", api.name())]
    Denied { api: ApiKey },
    #[error("the client has not proven in time again who it is")]
    Expired,
    #[error("produce with acks=0 failed: {why}")]
    Unacknowledged { why: &'static str },
}

type Answering = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

/// Begins a request and says whether the next one may begin before this one is answered.
///
/// A Produce request has entered the write path when this returns, unless its partitions have to join a
/// transaction before; any other request begins when its answer is first polled.
pub(crate) fn begin(client: &Arc<Client>, tally: &mut Tally, frame: Bytes) -> (bool, Answering) {
    let read = read(client, &frame);
    if let Ok((_, call, _)) = &read {
        tally.asked(&call.client_id, frame.len());
    }
    match read {
        Err(failure) => (false, Box::pin(async { Err(failure) })),
        Ok((ApiKey::Produce, call, at)) => {
            let started = Instant::now();
            let begin = || produce(&call, &frame, at);
            let begun = match &call.metered {
                Some(metered) => metered.work(begin),
                None => begin(),
            };
            let noted = call.metered.clone();
            // What comes after it is not taken before it is known how long the client has to wait.
            let alone = noted.is_some() && {
                let quotas = &call.core().quotas;
                quotas.limits_producing(call.user(), &call.client_id)
            };
            let deferred = begun.as_ref().is_ok_and(|(deferred, _)| *deferred);
            let answer = async move { timed(begun?.1.await, &call, ApiKey::Produce, started) };
            (!deferred && !alone, metered(noted, answer))
        }
        Ok((key, call, at)) => {
            let noted = call.metered.clone();
            let answer = async move {
                let started = Instant::now();
                let answer = Box::pin(route(key, &call, frame, at)).await;
                timed(answer, &call, key, started)
            };
            (false, metered(noted, answer))
        }
    }
}

/// Notes the time that goes into an answer, while something is limited.
fn metered(
    noted: Option<Arc<Metered>>,
    answer: impl Future<Output = Result<Answer, Failure>> + Send + 'static,
) -> Answering {
    let Some(noted) = noted else {
        return Box::pin(answer);
    };
    let mut answer = Box::pin(answer);
    Box::pin(poll_fn(move |context| {
        noted.work(|| answer.as_mut().poll(context))
    }))
}

fn timed(
    answer: Result<Answer, Failure>,
    call: &Call,
    api: ApiKey,
    started: Instant,
) -> Result<Answer, Failure> {
    call.core().metrics.request(api, started.elapsed());
    answer
}

/// Reads the header; the body follows at the position that is returned.
fn read(client: &Arc<Client>, frame: &Bytes) -> Result<(ApiKey, Call, usize), Failure> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::decode(&mut reader)?;
    if let Some(session) = &client.session {
        session.admit(header.api)?;
    }
    let supported = versions::supported(header.api).ok_or(Failure::Api { api: header.api })?;
    let mut call = Call {
        client: client.clone(),
        version: header.version,
        client_id: header.client_id.unwrap_or_default(),
        correlation_id: header.correlation_id,
        metered: None,
    };
    if !supported.contains(&header.version) && header.api != ApiKey::ApiVersions {
        return Err(Failure::Version {
            api: header.api,
            version: header.version,
        });
    }
    if call.core().quotas.active() && header.api != ApiKey::WriteTxnMarkers {
        call.metered = Some(Arc::new(Metered::new(frame.len())));
    }
    Ok((header.api, call, reader.position()))
}

fn decode<R: Request>(call: &Call, frame: &Bytes, at: usize) -> Result<R, Failure> {
    let body = frame.slice(at..);
    Ok(R::decode(&mut Reader::new(&body), call.version)?)
}

/// Decodes a request, has it answered, and encodes the answer.
async fn answer<R, F>(
    call: &Call,
    frame: Bytes,
    at: usize,
    handle: impl FnOnce(Call, R) -> F,
) -> Result<Answer, Failure>
where
    R: Request,
    F: Future<Output = R::Response>,
{
    let mut request = decode::<R>(call, &frame, at)?;
    drop(frame);
    let missing = match looked_at::<R>(call, &mut request)? {
        Looked::Instead(response) => return encode::<R>(call, response),
        Looked::After(missing) => missing,
    };
    let core = call.core();
    let mut memory = core.memory.share();
    if !waits_for_others(R::KEY) {
        let expected = core.answers.expected(R::KEY);
        memory
            .grow(expected.min(core.memory.due_max()), Need::Ordinary)
            .await;
    }
    let mut response = handle(call.clone(), request).await;
    if let Some(missing) = missing {
        missing(&mut response);
    }
    let mut answer = encode::<R>(call, response)?;
    let size = answer.pieces.iter().map(Bytes::len).sum();
    if size > SMALL_BYTES {
        core.answers.saw(R::KEY, size);
        memory.insist(size);
        memory.shrink(size);
        answer.memory = Some(memory);
    }
    Ok(answer)
}

/// Answers up to this size are not counted: a connection has one of them at a time.
const SMALL_BYTES: usize = 4 * 1024;

/// The largest answer that each API has given: the next one may be as large, and has its memory before it is made.
#[derive(Debug)]
pub(crate) struct Answers([AtomicUsize; ANSWERS]);

/// More than there are APIs that answer much.
const ANSWERS: usize = 128;

impl Default for Answers {
    fn default() -> Self {
        Self([const { AtomicUsize::new(0) }; ANSWERS])
    }
}

impl Answers {
    fn of(&self, api: ApiKey) -> Option<&AtomicUsize> {
        self.0.get(usize::try_from(api as i16).ok()?)
    }

    fn expected(&self, api: ApiKey) -> usize {
        self.of(api).map_or(0, |most| most.load(Ordering::Relaxed))
    }

    fn saw(&self, api: ApiKey, size: usize) {
        if self.expected(api) < size
            && let Some(most) = self.of(api)
        {
            most.fetch_max(size, Ordering::Relaxed);
        }
    }
}

/// Whether an answer waits for what other clients do; it must not hold what they need meanwhile.
fn waits_for_others(api: ApiKey) -> bool {
    matches!(
        api,
        ApiKey::JoinGroup
            | ApiKey::SyncGroup
            | ApiKey::Heartbeat
            | ApiKey::ConsumerGroupHeartbeat
            | ApiKey::ShareGroupHeartbeat
    )
}

/// What the client may not ask has been taken out of a request.
enum Looked<R> {
    /// There is nothing left to be asked.
    Instead(R),
    /// What adds the answers to what was taken out, if anything was.
    After(Option<guard::After>),
}

/// Looks at what a request asks for, where clients may not do everything.
fn looked_at<R: Request>(call: &Call, request: &mut R) -> Result<Looked<R::Response>, Failure> {
    if call.core().access.is_none() || call.client.principal == Principal::House {
        return Ok(Looked::After(None));
    }
    let denied = || Failure::Denied { api: R::KEY };
    match guard::look(call, R::KEY, request) {
        Guard::Pass => Ok(Looked::After(None)),
        Guard::After(missing) => Ok(Looked::After(Some(missing))),
        Guard::Instead(response) => match response.downcast() {
            Ok(response) => Ok(Looked::Instead(*response)),
            Err(_) => Err(denied()),
        },
        Guard::Close => Err(denied()),
    }
}

fn encode<R: Request>(call: &Call, mut response: R::Response) -> Result<Answer, Failure> {
    let written = |response: &R::Response| {
        frame::encode_response::<R>(response, call.version, call.correlation_id)
    };
    let Some(metered) = &call.metered else {
        return Ok(Answer {
            pieces: written(&response)?,
            ..Answer::default()
        });
    };
    let asked = response.throttle_time_ms().map_or(0, |asked| *asked);
    let mut pieces = Vec::new();
    if matches!(R::KEY, ApiKey::Fetch | ApiKey::ShareFetch) {
        pieces = written(&response)?;
    }
    let wait = asked.max(throttled(call, metered, R::KEY, &pieces));
    if let Some(told) = response.throttle_time_ms() {
        *told = wait;
    }
    if pieces.is_empty() || wait > 0 {
        pieces = written(&response)?;
    }
    Ok(Answer {
        pieces,
        mute: pause(wait),
        ..Answer::default()
    })
}

/// Notes what a request has used, and returns how many milliseconds its client has to wait.
fn throttled(call: &Call, metered: &Metered, api: ApiKey, answer: &[Bytes]) -> i32 {
    let used = |kind, value| {
        let quotas = &call.core().quotas;
        quotas.used(kind, call.user(), &call.client_id, value)
    };
    let wait = used(Kind::Request, metered.seconds() * 100.0);
    wait.max(match api {
        ApiKey::Produce => used(Kind::Produce, metered.bytes as f64),
        ApiKey::Fetch | ApiKey::ShareFetch => {
            let bytes: usize = answer.iter().map(Bytes::len).sum();
            used(Kind::Fetch, bytes as f64)
        }
        ApiKey::CreateTopics | ApiKey::DeleteTopics | ApiKey::CreatePartitions => {
            let quotas = &call.core().quotas;
            let spent = quotas.mutations(call.user(), &call.client_id, false);
            spent.map_or(0, |spent| spent.throttle_ms())
        }
        _ => 0,
    })
}

fn pause(wait_ms: i32) -> Option<Duration> {
    let wait = u64::try_from(wait_ms).ok().filter(|wait| *wait > 0)?;
    Some(Duration::from_millis(wait))
}

/// Begins a Produce request; the flag says that it waits for a transaction first.
fn produce(
    call: &Call,
    frame: &Bytes,
    at: usize,
) -> Result<
    (
        bool,
        impl Future<Output = Result<Answer, Failure>> + Send + use<>,
    ),
    Failure,
> {
    use kafka::messages::produce::ProduceRequest;
    let mut request = decode::<ProduceRequest>(call, frame, at)?;
    let missing = match looked_at::<ProduceRequest>(call, &mut request)? {
        // Nothing is left of it in that case: there is an answer all the same.
        Looked::Instead(_) => None,
        Looked::After(missing) => missing,
    };
    let answered = request.acks != 0;
    let begun = api::produce::begin(call, request);
    let call = call.clone();
    let deferred = begun.is_deferred();
    let answer = async move {
        let mut response = begun.finish(&call).await;
        if let Some(missing) = missing {
            missing(&mut response);
        }
        if answered {
            return encode::<ProduceRequest>(&call, response);
        }
        match api::produce::first_error(&response) {
            // A client that wants no answers learns of trouble by losing the connection, as in Kafka.
            Some(error) => Err(Failure::Unacknowledged {
                why: error.message(),
            }),
            None => {
                let metered = call.metered.as_ref();
                let wait =
                    metered.map_or(0, |metered| throttled(&call, metered, ApiKey::Produce, &[]));
                Ok(Answer {
                    mute: pause(wait),
                    ..Answer::default()
                })
            }
        }
    };
    Ok((deferred, answer))
}

async fn route(key: ApiKey, call: &Call, frame: Bytes, at: usize) -> Result<Answer, Failure> {
    match key {
        ApiKey::ApiVersions => api_versions(call, &frame, at),
        ApiKey::Fetch => {
            let request = decode(call, &frame, at)?;
            drop(frame);
            let fetched = api::fetch::handle(call, request).await;
            let answer = encode::<kafka::messages::fetch::FetchRequest>(call, fetched.response)?;
            Ok(Answer {
                straight: fetched.straight,
                memory: fetched.memory,
                ..answer
            })
        }
        ApiKey::ShareFetch => {
            use kafka::messages::share_fetch::ShareFetchRequest;
            let mut request = decode::<ShareFetchRequest>(call, &frame, at)?;
            drop(frame);
            if let Looked::Instead(refused) = looked_at::<ShareFetchRequest>(call, &mut request)? {
                return encode::<ShareFetchRequest>(call, refused);
            }
            let (response, memory) = api::share_fetch::handle(call, request).await;
            let answer = encode::<ShareFetchRequest>(call, response)?;
            Ok(Answer { memory, ..answer })
        }
        ApiKey::ShareGroupHeartbeat => answer(call, frame, at, api::share_groups::heartbeat).await,
        ApiKey::ShareGroupDescribe => answer(call, frame, at, api::share_groups::describe).await,
        ApiKey::DescribeShareGroupOffsets => {
            answer(call, frame, at, api::share_groups::offsets).await
        }
        ApiKey::AlterShareGroupOffsets => answer(call, frame, at, api::share_groups::alter).await,
        ApiKey::DeleteShareGroupOffsets => answer(call, frame, at, api::share_groups::forget).await,
        ApiKey::StreamsGroupHeartbeat => {
            answer(call, frame, at, api::streams_groups::heartbeat).await
        }
        ApiKey::StreamsGroupDescribe => {
            answer(call, frame, at, api::streams_groups::describe).await
        }
        ApiKey::ShareAcknowledge => answer(call, frame, at, api::share_acks::handle).await,
        ApiKey::Metadata => answer(call, frame, at, api::metadata::metadata).await,
        ApiKey::DescribeCluster => answer(call, frame, at, api::metadata::cluster).await,
        ApiKey::DescribeTopicPartitions => answer(call, frame, at, api::metadata::partitions).await,
        ApiKey::ListOffsets => answer(call, frame, at, api::offsets::list).await,
        ApiKey::OffsetForLeaderEpoch => answer(call, frame, at, api::offsets::epochs).await,
        ApiKey::DeleteRecords => answer(call, frame, at, api::offsets::delete_records).await,
        ApiKey::CreateTopics => answer(call, frame, at, api::topics::create).await,
        ApiKey::DeleteTopics => answer(call, frame, at, api::topics::delete).await,
        ApiKey::CreatePartitions => answer(call, frame, at, api::topics::grow).await,
        ApiKey::DescribeConfigs => answer(call, frame, at, api::configs::describe).await,
        ApiKey::AlterConfigs => answer(call, frame, at, api::configs::alter).await,
        ApiKey::IncrementalAlterConfigs => answer(call, frame, at, api::configs::increment).await,
        ApiKey::DescribeLogDirs => answer(call, frame, at, api::log_dirs::describe).await,
        ApiKey::InitProducerId => answer(call, frame, at, api::transactions::init).await,
        ApiKey::AddPartitionsToTxn => {
            answer(call, frame, at, api::transactions::add_partitions).await
        }
        ApiKey::AddOffsetsToTxn => answer(call, frame, at, api::transactions::add_offsets).await,
        ApiKey::EndTxn => answer(call, frame, at, api::transactions::end).await,
        ApiKey::TxnOffsetCommit => answer(call, frame, at, api::transactions::commit_offsets).await,
        ApiKey::WriteTxnMarkers => answer(call, frame, at, api::transactions::write_markers).await,
        ApiKey::DescribeTransactions => answer(call, frame, at, api::describe::transactions).await,
        ApiKey::ListTransactions => answer(call, frame, at, api::describe::list).await,
        ApiKey::DescribeProducers => answer(call, frame, at, api::describe::producers).await,
        ApiKey::FindCoordinator => answer(call, frame, at, api::groups::find).await,
        ApiKey::JoinGroup => answer(call, frame, at, api::groups::join).await,
        ApiKey::SyncGroup => answer(call, frame, at, api::groups::sync).await,
        ApiKey::Heartbeat => answer(call, frame, at, api::groups::heartbeat).await,
        ApiKey::LeaveGroup => answer(call, frame, at, api::groups::leave).await,
        ApiKey::ConsumerGroupHeartbeat => answer(call, frame, at, api::consumers::heartbeat).await,
        ApiKey::ConsumerGroupDescribe => answer(call, frame, at, api::consumers::describe).await,
        ApiKey::DescribeGroups => answer(call, frame, at, api::groups::describe).await,
        ApiKey::ListGroups => answer(call, frame, at, api::groups::list).await,
        ApiKey::DeleteGroups => answer(call, frame, at, api::groups::delete).await,
        ApiKey::OffsetCommit => answer(call, frame, at, api::commits::commit).await,
        ApiKey::OffsetFetch => answer(call, frame, at, api::commits::fetch).await,
        ApiKey::OffsetDelete => answer(call, frame, at, api::commits::delete).await,
        ApiKey::ElectLeaders => answer(call, frame, at, api::moves::elect).await,
        ApiKey::AlterPartitionReassignments => answer(call, frame, at, api::moves::reassign).await,
        ApiKey::ListPartitionReassignments => answer(call, frame, at, api::moves::under_way).await,
        ApiKey::AlterReplicaLogDirs => answer(call, frame, at, api::moves::log_dirs).await,
        ApiKey::DescribeQuorum => answer(call, frame, at, api::quorum::describe).await,
        ApiKey::UpdateFeatures => answer(call, frame, at, api::features::update).await,
        ApiKey::DescribeClientQuotas => answer(call, frame, at, api::quotas::describe).await,
        ApiKey::AlterClientQuotas => answer(call, frame, at, api::quotas::alter).await,
        ApiKey::UnregisterBroker => answer(call, frame, at, api::quorum::unregister).await,
        ApiKey::ListConfigResources => answer(call, frame, at, api::resources::list).await,
        ApiKey::DescribeAcls => answer(call, frame, at, api::security::describe_acls).await,
        ApiKey::CreateAcls => answer(call, frame, at, api::security::create_acls).await,
        ApiKey::DeleteAcls => answer(call, frame, at, api::security::delete_acls).await,
        ApiKey::SaslHandshake => answer(call, frame, at, api::security::handshake).await,
        ApiKey::SaslAuthenticate => answer(call, frame, at, api::security::authenticate).await,
        ApiKey::DescribeUserScramCredentials => answer(call, frame, at, api::users::describe).await,
        ApiKey::AlterUserScramCredentials => answer(call, frame, at, api::users::alter).await,
        ApiKey::CreateDelegationToken => answer(call, frame, at, api::security::create_token).await,
        ApiKey::RenewDelegationToken => answer(call, frame, at, api::security::renew_token).await,
        ApiKey::ExpireDelegationToken => answer(call, frame, at, api::security::expire_token).await,
        ApiKey::DescribeDelegationToken => {
            answer(call, frame, at, api::security::describe_tokens).await
        }
        api => Err(Failure::Api { api }),
    }
}

/// A version of ApiVersions that nobody knows is answered in the form of version 0.
fn api_versions(call: &Call, frame: &Bytes, at: usize) -> Result<Answer, Failure> {
    use kafka::messages::api_versions::ApiVersionsRequest;
    let known =
        versions::supported(ApiKey::ApiVersions).is_some_and(|known| known.contains(&call.version));
    if known {
        decode::<ApiVersionsRequest>(call, frame, at)?;
        return encode::<ApiVersionsRequest>(call, versions::answer(call.version));
    }
    let call = Call {
        version: 0,
        ..call.clone()
    };
    encode::<ApiVersionsRequest>(&call, versions::too_new())
}
