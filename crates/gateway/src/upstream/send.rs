//! Sends one request to an endpoint and waits for the head of its answer.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::Instant;

use super::cluster::{Cluster, Protocol};
use super::dial;
use super::pool::{Endpoint, Lane, Lease, Stream};
use crate::body::{Broken, RequestBody};
use crate::refusal::Refusal;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no endpoint")]
    NoEndpoint,
    #[error("a limit of the circuit breaker is reached")]
    Overloaded,
    #[error("could not connect")]
    Connect(#[source] io::Error),
    #[error("could not connect in time")]
    ConnectTimeout,
    /// Among others because of a certificate that is not trusted.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// Nothing of what TLS needs could be used so far.
    #[error("TLS towards the service is not set up")]
    TlsMissing,
    #[error("the endpoint took too long")]
    TryTimeout,
    /// The connection ended before the answer's head.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// The connection ended before the request was sent.
    #[error("the connection broke before the request was sent")]
    NotSent(#[source] hyper::Error),
    /// The request was refused before the endpoint worked on it.
    #[error("the endpoint refused the stream")]
    RefusedStream,
    /// The answer is not HTTP.
    #[error("the answer is malformed")]
    Protocol(#[source] hyper::Error),
    /// The client's body ended before its end.
    #[error("the client's body broke off")]
    ClientBody,
    #[error("the client's body did not come in time")]
    ClientIdle,
    #[error("the client's body is too long")]
    ClientTooLong,
}

impl Failure {
    /// Returns what the client is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Failure::NoEndpoint => Refusal::NoUpstream,
            Failure::Overloaded => Refusal::Overloaded,
            Failure::Connect(_) | Failure::Tls(_) => Refusal::ConnectFailed,
            Failure::TlsMissing => Refusal::Unserved,
            Failure::ConnectTimeout => Refusal::ConnectTimeout,
            Failure::TryTimeout => Refusal::UpstreamTimeout,
            Failure::Broken(_) | Failure::NotSent(_) => Refusal::UpstreamReset,
            Failure::RefusedStream => Refusal::UpstreamRefused,
            Failure::Protocol(_) => Refusal::UpstreamProtocol,
            Failure::ClientBody => Refusal::BrokenBody,
            Failure::ClientIdle => Refusal::BodyTimeout,
            Failure::ClientTooLong => Refusal::BodyTooLarge,
        }
    }

    /// Returns whether the endpoint cannot have seen the request.
    pub(crate) fn unsent(&self) -> bool {
        self.unconnected() || matches!(self, Failure::RefusedStream | Failure::NotSent(_))
    }

    /// Returns whether there was no connection for the request.
    pub(crate) fn unconnected(&self) -> bool {
        matches!(
            self,
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::Tls(_)
        )
    }

    /// Returns whether it tells something about the endpoint, not about the client or our own limits.
    pub(crate) fn is_upstreams(&self) -> bool {
        use Failure::*;
        !matches!(
            self,
            NoEndpoint | Overloaded | TlsMissing | ClientBody | ClientIdle | ClientTooLong
        )
    }

    fn of(error: hyper::Error) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(broken) = inner.downcast_ref::<Broken>() {
                return match broken {
                    Broken::Idle(_) => Failure::ClientIdle,
                    Broken::TooLong(_) => Failure::ClientTooLong,
                    _ => Failure::ClientBody,
                };
            }
            if let Some(h2) = inner.downcast_ref::<h2::Error>()
                && h2.reason() == Some(h2::Reason::REFUSED_STREAM)
            {
                return Failure::RefusedStream;
            }
            cause = inner.source();
        }
        if error.is_parse() {
            Failure::Protocol(error)
        } else {
            Failure::Broken(error)
        }
    }
}

/// What the connection of an answer is kept for until its body has ended.
pub(crate) enum Hold {
    Http1(Lease),
    Http2(#[expect(dead_code, reason = "counts the stream until it is dropped")] Stream),
}

/// The head of an answer, and its body's connection.
pub(crate) type Answered = (Response<Incoming>, Hold);

/// Sends the request, which is taken out of its place. An open connection that turns out to be broken is replaced once
/// by a new one, when the endpoint cannot have worked on the request or working on it twice does no harm.
///
/// This future is part of every connection from a client: what is rare in it is boxed, what is large is borrowed.
pub(crate) async fn send(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    lane: Lane,
    request: &mut Option<Request<RequestBody>>,
) -> Result<Answered, Failure> {
    if cluster.spec.protocol == Protocol::Http2 {
        return Box::pin(send_http2(cluster, endpoint, lane, request)).await;
    }
    // Who waits for a connection comes first.
    if !cluster.breaker(lane.priority).is_full()
        && let Some(mut lease) = endpoint.take(lane, &cluster.spec, Instant::now())
    {
        let answering = begin(request, Spare::Kept, |request| {
            lease.sender.try_send_request(request)
        });
        match answering.await {
            Ok(response) => return Ok((response, Hold::Http1(lease))),
            Err(error) => failed(error, request)?,
        }
    }
    let mut lease = Box::pin(dial::http1(cluster, endpoint, lane, client(request))).await?;
    let answering = begin(request, Spare::None, |request| {
        lease.sender.try_send_request(request)
    });
    match answering.await {
        Ok(response) => Ok((response, Hold::Http1(lease))),
        Err(error) => Err(last(error)),
    }
}

async fn send_http2(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    lane: Lane,
    request: &mut Option<Request<RequestBody>>,
) -> Result<Answered, Failure> {
    if !cluster.breaker(lane.priority).is_full()
        && let Some(mut stream) = endpoint.stream(lane, &cluster.spec, Instant::now())
    {
        let answering = begin(request, Spare::Kept, |request| {
            stream.sender.try_send_request(request)
        });
        match answering.await {
            Ok(response) => return Ok((response, Hold::Http2(stream))),
            Err(error) => failed(error, request)?,
        }
    }
    let mut stream = dial::http2(cluster, endpoint, lane, client(request)).await?;
    let answering = begin(request, Spare::None, |request| {
        stream.sender.try_send_request(request)
    });
    match answering.await {
        Ok(response) => Ok((response, Hold::Http2(stream))),
        Err(error) => Err(last(error)),
    }
}

/// Whose request it is, where the endpoint is told by the PROXY protocol. Its connection is for this request only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnBehalfOf(pub(crate) SocketAddr);

fn client(request: &Option<Request<RequestBody>>) -> Option<SocketAddr> {
    let told = request.as_ref()?.extensions().get::<OnBehalfOf>();
    told.map(|OnBehalfOf(client)| *client)
}

/// Whether a copy of the request stays in its place.
#[derive(PartialEq, Eq)]
enum Spare {
    Kept,
    None,
}

fn begin<F>(
    request: &mut Option<Request<RequestBody>>,
    keep: Spare,
    send: impl FnOnce(Request<RequestBody>) -> F,
) -> F {
    let message = request
        .take()
        .expect("a request is in its place until it is sent");
    if keep == Spare::Kept {
        *request = spare(&message);
    }
    send(message)
}

/// Leaves a request in its place when it may be sent on another connection.
fn failed(
    mut error: TrySendError<Request<RequestBody>>,
    request: &mut Option<Request<RequestBody>>,
) -> Result<(), Failure> {
    if let Some(unsent) = error.take_message() {
        *request = Some(unsent);
    }
    match Failure::of(error.into_error()) {
        Failure::Broken(_) if request.is_some() => Ok(()),
        failure => Err(failure),
    }
}

/// Returns why there is no answer on a new connection either.
fn last(mut error: TrySendError<Request<RequestBody>>) -> Failure {
    let sent = error.take_message().is_none();
    match Failure::of(error.into_error()) {
        Failure::Broken(error) if !sent => Failure::NotSent(error),
        failure => failure,
    }
}

/// Returns a second copy of a request that has no body and may be worked on twice.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    (is_idempotent(request.method()) && request.body().is_end_stream()).then(|| copy(request))
}

/// Returns the request once more, without its body.
pub(crate) fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut again = Request::new(RequestBody::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
}

/// Returns whether doing it twice is as good as doing it once (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}
