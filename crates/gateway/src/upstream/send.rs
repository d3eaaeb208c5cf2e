//! Sends one request to an endpoint and waits for the head of its answer.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::cluster::{Cluster, Protocol};
use super::dial::{Way, dial};
use super::pool::{Endpoint, Lease, Stream};
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
    #[error("the endpoint took too long")]
    TryTimeout,
    /// The connection ended before the answer's head.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
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
}

impl Failure {
    /// Returns what the client is told.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Failure::NoEndpoint => Refusal::NoUpstream,
            Failure::Overloaded => Refusal::Overloaded,
            Failure::Connect(_) => Refusal::ConnectFailed,
            Failure::ConnectTimeout => Refusal::ConnectTimeout,
            Failure::TryTimeout => Refusal::UpstreamTimeout,
            Failure::Broken(_) | Failure::RefusedStream => Refusal::UpstreamReset,
            Failure::Protocol(_) => Refusal::UpstreamProtocol,
            Failure::ClientBody => Refusal::BrokenBody,
            Failure::ClientIdle => Refusal::BodyTimeout,
        }
    }

    /// Returns whether the endpoint cannot have seen the request.
    pub(crate) fn unsent(&self) -> bool {
        matches!(
            self,
            Failure::Connect(_) | Failure::ConnectTimeout | Failure::RefusedStream
        )
    }

    fn of(error: hyper::Error) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(broken) = inner.downcast_ref::<Broken>() {
                return match broken {
                    Broken::Idle(_) => Failure::ClientIdle,
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

/// Sends the request. An open connection that turns out to be broken is replaced once by a new one, when the endpoint
/// cannot have worked on the request or working on it twice does no harm.
pub(crate) async fn send(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    core: usize,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Hold), Failure> {
    let now = Instant::now();
    let open = match cluster.spec.protocol {
        Protocol::Http1 => endpoint.take(core, &cluster.spec, now).map(Way::Http1),
        Protocol::Http2 => endpoint.stream(core, &cluster.spec, now).map(Way::Http2),
    };
    if let Some(way) = open {
        let spare = spare(&request);
        match once(way, request).await {
            Ok(answer) => return Ok(answer),
            Err((Failure::Broken(error), unsent)) => match unsent.or(spare) {
                Some(again) => request = again,
                None => return Err(Failure::Broken(error)),
            },
            Err((failure, _)) => return Err(failure),
        }
    }
    let way = dial(cluster, endpoint, core).await?;
    once(way, request).await.map_err(|(failure, _)| failure)
}

type Lost = (Failure, Option<Request<RequestBody>>);

async fn once(way: Way, request: Request<RequestBody>) -> Result<(Response<Incoming>, Hold), Lost> {
    match way {
        Way::Http1(mut lease) => match lease.sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, Hold::Http1(lease))),
            Err(mut error) => {
                let unsent = error.take_message();
                Err((Failure::of(error.into_error()), unsent))
            }
        },
        Way::Http2(mut stream) => match stream.sender.try_send_request(request).await {
            Ok(answer) => Ok((answer, Hold::Http2(stream))),
            Err(mut error) => {
                let unsent = error.take_message();
                Err((Failure::of(error.into_error()), unsent))
            }
        },
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
    again
}

/// Returns whether doing it twice is as good as doing it once (RFC 9110, 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}
