//! Passes a request to an upstream and its answer back: the address upstream, the tries, the time.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response, StatusCode, Version, request};
use http_body::Body as _;
use hyper::body::Incoming;
use model::mapping::RetryOn;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use super::tunnel::Upgrade;
use crate::access::Ticket;
use crate::body::{Broken, RequestBody, ResponseBody};
use crate::format::Asked;
use crate::listener::Connection;
use crate::listener::watch::Decision;
use crate::policy::memory::Before;
use crate::policy::{HostChange, forward};
use crate::refusal::Refusal;
use crate::route::Rewritten;
use crate::snapshot::{Front, Route};
use crate::upstream::answer::Streamed;
use crate::upstream::balance::Choice;
use crate::upstream::cluster::{Cluster, Entered, Outcome, Protocol};
use crate::upstream::send::{self, Failure, Hold};
use crate::upstream::state::Picked;

/// Largest body that is kept to be sent again.
const REPLAY_BYTES_MAX: usize = 64 << 10;
/// The wait before the first retry is below this, and doubles with each.
const BACK_OFF: Duration = Duration::from_millis(25);
const BACK_OFF_MAX: Duration = Duration::from_millis(250);
/// Retries may always be one in so many of the requests under way.
const RETRY_SHARE: u64 = 5;

/// What a request is for, here and upstream.
pub(super) struct Place<'a> {
    /// Normalised.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) host: &'a HeaderValue,
    pub(super) rewritten: Rewritten<'a>,
    pub(super) facts: Before<'a>,
}

/// Makes the URI.
pub(super) fn uri(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    Rewritten::Same(path).write(query, &mut text);
    Uri::from_maybe_shared(Bytes::from(text)).map_err(|_| Refusal::BadPath)
}

/// Writes path, host and what the service may want to know about them into the head.
pub(super) fn address(
    head: &mut request::Parts,
    front: &Front,
    route: &Route,
    cluster: &Cluster,
    place: Place<'_>,
) -> Result<(), Refusal> {
    let Place {
        path,
        query,
        host,
        rewritten,
        facts,
    } = place;
    if front.settings.envoy_headers {
        if !rewritten.is_same() {
            let original = head.uri.path_and_query().map_or(path, PathAndQuery::as_str);
            if let Ok(original) = HeaderValue::from_str(original) {
                head.headers.insert(forward::ORIGINAL_PATH, original);
            }
        }
        if let Some(timeout) = &route.timeout_header {
            head.headers
                .insert(forward::EXPECTED_TIMEOUT, timeout.clone());
        }
    }
    // An unchanged target is used as it is.
    let unchanged = rewritten.is_same() && head.uri.path() == path;
    let target = match head.uri.path_and_query() {
        Some(target) if unchanged => target.clone(),
        _ => {
            let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 16);
            rewritten.write(query, &mut text);
            PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| Refusal::BadPath)?
        }
    };
    let (method, uri) = (&head.method, &head.uri);
    route.request.apply(&mut head.headers, |format, headers| {
        let asked = Asked {
            version: facts.version,
            method,
            secure: facts.secure,
            authority: host.to_str().unwrap_or_default(),
            path: uri.path_and_query().map_or(path, PathAndQuery::as_str),
            headers,
        };
        facts.fill(format, asked, route)
    });
    let host = match &route.host {
        HostChange::Keep => host,
        HostChange::To(new) => {
            head.headers.insert(forward::X_FORWARDED_HOST, host.clone());
            new
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    match cluster.spec.protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            head.headers.insert(header::HOST, host.clone());
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            head.headers.remove(header::HOST);
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| Refusal::BadPath)?);
        }
    }
    head.uri = Uri::from_parts(parts).map_err(|_| Refusal::BadPath)?;
    Ok(())
}

/// One request on its way to a cluster.
pub(super) struct Sending {
    pub(super) route: Arc<Route>,
    pub(super) cluster: Arc<Cluster>,
    /// Until it is sent.
    pub(super) request: Option<Request<RequestBody>>,
    pub(super) upgrade: Option<Box<Upgrade>>,
    pub(super) deadline: Option<Instant>,
}

/// What an endpoint has answered.
struct Answer {
    response: Response<Incoming>,
    hold: Hold,
    picked: Picked,
}

impl Sending {
    /// Sends the request, more than once if the route says so, and returns the answer for the client.
    pub(super) async fn answer(
        &mut self,
        connection: &Arc<Connection>,
        front: &Front,
        ticket: &mut Ticket,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let entered = self.cluster.enter().map_err(|failure| failure.refusal())?;
        let deadline = self.deadline;
        let tries = self.tries(connection.core);
        let answer = match deadline {
            Some(deadline) => timeout_at(deadline, tries)
                .await
                .unwrap_or(Err(Failure::TryTimeout)),
            None => tries.await,
        };
        match answer {
            Ok(answer) => self.passed_on(answer, entered, connection, front, ticket),
            Err(failure) => {
                if matches!(failure, Failure::TryTimeout) {
                    self.cluster.meters.timeouts.inc();
                }
                let upstream = &self.cluster.spec.name;
                debug!(error = &failure as &dyn std::error::Error, %upstream, "no answer");
                Err(failure.refusal())
            }
        }
    }

    /// Turns the upstream's answer into the one for the client.
    fn passed_on(
        &mut self,
        answer: Answer,
        mut entered: Entered,
        connection: &Arc<Connection>,
        front: &Front,
        ticket: &mut Ticket,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let Answer {
            mut response,
            hold,
            picked,
        } = answer;
        let after = ticket.began.elapsed();
        ticket.answered(picked.endpoint.address, after);
        entered.keep(picked);
        self.cluster.meters.answered(response.status(), after);

        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let granted = match (&self.upgrade, switching) {
            (Some(upgrade), true) if upgrade.granted(&response) => true,
            (_, true) => return Err(Refusal::UpstreamProtocol),
            (_, false) => false,
        };
        let tunnel = granted.then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        forward::strip_hop_by_hop(&mut head.headers);
        if front.settings.envoy_headers {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            head.headers
                .insert(forward::SERVICE_TIME, HeaderValue::from(millis));
        }
        let body = match (self.upgrade.take(), tunnel) {
            (Some(upgrade), Some(tunnel)) => {
                upgrade.grant(&mut head.headers);
                connection.watch.decide(Decision::Tunnel);
                upgrade.open(tunnel, connection.clone(), self.route.tunnel_idle, entered);
                ResponseBody::empty()
            }
            _ => {
                let idle = self.route.idle;
                ResponseBody::upstream(Streamed::new(body, idle, self.deadline, hold, entered))
            }
        };
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, body))
    }

    async fn tries(&mut self, core: usize) -> Result<Answer, Failure> {
        if self.route.retry.is_some() {
            return Box::pin(self.retried(core)).await;
        }
        let picked = self.cluster.pick(&Choice::default()).await?;
        self.once(core, picked).await
    }

    /// Tries one endpoint, and reports how that ended.
    async fn once(&mut self, core: usize, picked: Picked) -> Result<Answer, Failure> {
        let sending = send::send(&self.cluster, &picked.endpoint, core, &mut self.request);
        let answered = sending.await;
        let outcome = match &answered {
            Ok((response, _)) => Outcome::Answered(response.status()),
            Err(failure) => Outcome::Failed(failure),
        };
        self.cluster.report(&picked.endpoint, outcome);
        let (response, hold) = answered?;
        Ok(Answer {
            response,
            hold,
            picked,
        })
    }

    async fn retried(&mut self, core: usize) -> Result<Answer, Failure> {
        let cluster = self.cluster.clone();
        let Some(retry) = self.route.retry.clone() else {
            return Err(Failure::NoEndpoint);
        };
        let Some(request) = self.request.take() else {
            return Err(Failure::NoEndpoint);
        };
        let (request, replay) = replayable(request).await?;
        let idempotent = send::is_idempotent(request.method());
        self.request = Some(request);
        let (mut tried, mut failed) = (0, Vec::new());
        loop {
            let choice = Choice {
                tried: &failed,
                ..Choice::default()
            };
            let picked = cluster.pick(&choice).await?;
            let address = picked.endpoint.address;
            let more = tried < retry.tries_max;
            let replay = replay.as_ref().filter(|_| more);
            let next = replay
                .zip(self.request.as_ref())
                .map(|(body, request)| body.again(request));
            let trying = self.once(core, picked);
            let answer = match retry.per_try {
                Some(limit) => timeout(limit, trying)
                    .await
                    .unwrap_or(Err(Failure::TryTimeout)),
                None => trying.await,
            };
            let again = match &answer {
                Ok(answer) => idempotent && wants_retry(retry.on, answer.response.status()),
                Err(failure) => {
                    (idempotent || failure.unsent()) && wants_retry_after(retry.on, failure)
                }
            };
            let (Some(next), true) = (next, again) else {
                return answer;
            };
            let Some(_place) = Retrying::enter(&cluster) else {
                return answer;
            };
            drop(answer);
            tried += 1;
            sleep(back_off(tried)).await;
            failed.push(address);
            self.request = Some(next);
        }
    }
}

/// A body that can be sent again.
struct Replay(Bytes);

impl Replay {
    fn again(&self, request: &Request<RequestBody>) -> Request<RequestBody> {
        let mut again = send::copy(request);
        if !self.0.is_empty() {
            *again.body_mut() = RequestBody::bytes(self.0.clone());
        }
        again
    }
}

/// Keeps a small body, so that the request can be sent again.
async fn replayable(
    request: Request<RequestBody>,
) -> Result<(Request<RequestBody>, Option<Replay>), Failure> {
    if request.body().is_end_stream() {
        return Ok((request, Some(Replay(Bytes::new()))));
    }
    let small = request
        .body()
        .size_hint()
        .upper()
        .is_some_and(|upper| upper <= REPLAY_BYTES_MAX as u64);
    if !small {
        return Ok((request, None));
    }
    let (head, body) = request.into_parts();
    let bytes = match body.collect_max(REPLAY_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(Broken::Idle(_)) => return Err(Failure::ClientIdle),
        Err(_) => return Err(Failure::ClientBody),
    };
    let request = Request::from_parts(head, RequestBody::bytes(bytes.clone()));
    Ok((request, Some(Replay(bytes))))
}

fn wants_retry(on: RetryOn, status: StatusCode) -> bool {
    match on {
        RetryOn::ServerError => status.is_server_error(),
        RetryOn::GatewayError => matches!(status.as_u16(), 502..=504),
        RetryOn::Retriable4xx => status == StatusCode::CONFLICT,
        RetryOn::ConnectFailure | RetryOn::RefusedStream | RetryOn::RetriableStatusCodes => false,
    }
}

fn wants_retry_after(on: RetryOn, failure: &Failure) -> bool {
    use Failure::*;
    match on {
        RetryOn::ServerError | RetryOn::GatewayError => matches!(
            failure,
            Connect(_) | ConnectTimeout | TryTimeout | Broken(_) | RefusedStream | Protocol(_)
        ),
        RetryOn::ConnectFailure => matches!(failure, Connect(_) | ConnectTimeout),
        RetryOn::RefusedStream => matches!(failure, RefusedStream),
        RetryOn::Retriable4xx | RetryOn::RetriableStatusCodes => false,
    }
}

/// Returns a random part of a wait that doubles with each try.
fn back_off(tried: u32) -> Duration {
    let most = (BACK_OFF * 2u32.saturating_pow(tried.min(8) - 1)).min(BACK_OFF_MAX);
    most.mul_f64(rand::random::<f64>())
}

/// A place among the retries under way.
struct Retrying<'a>(&'a Cluster);

impl<'a> Retrying<'a> {
    fn enter(cluster: &'a Cluster) -> Option<Self> {
        let most = cluster
            .spec
            .breaker
            .retries_max
            .max(cluster.active.load(Relaxed) / RETRY_SHARE);
        if cluster.retrying.fetch_add(1, Relaxed) >= most {
            cluster.retrying.fetch_sub(1, Relaxed);
            return None;
        }
        cluster.meters.retries.inc();
        Some(Retrying(cluster))
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.retrying.fetch_sub(1, Relaxed);
    }
}
