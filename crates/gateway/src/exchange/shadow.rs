//! Copies of requests for a shadow: sent beside the request, their answers thrown away.
//!
//! The copy is what the route's service gets, the body included, with `-shadow` behind the host's name, as Envoy does. The
//! body is copied while it streams; the request never waits for its copy. A shadow that is too slow to keep up, or that
//! fails, loses its copy, which is counted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{Authority, Parts, Scheme, Uri};
use http::{Request, Version, request};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::backend::Backend;
use crate::body::{Broken, RequestBody};
use crate::listener::Connection;
use crate::snapshot::Route;
use crate::upstream::answer::Streamed;
use crate::upstream::balance::Choice;
use crate::upstream::cluster::{Cluster, Outcome, Protocol};
use crate::upstream::pool::Lane;
use crate::upstream::send::{self, Failure};

/// Bytes of one body that wait for a shadow; a shadow that is further behind loses its copy.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a copy may take where its route has no timeout.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Whether this request is one of those that are copied.
pub(super) fn wanted(percent: Option<u32>) -> bool {
    match percent {
        None => true,
        Some(percent) => rand::random_range(0..100) < percent,
    }
}

/// Sends a copy of a request that is ready to go upstream, and returns the body that the request itself goes on with.
pub(super) fn send_copy(
    route: &Arc<Route>,
    connection: &Arc<Connection>,
    head: &request::Parts,
    mut body: RequestBody,
) -> RequestBody {
    let Backend::Service(cluster) = &route.backend else {
        return body;
    };
    let Some(head) = copied_head(head, cluster.spec.protocol) else {
        return body;
    };
    let copy = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        let hint = body.size_hint();
        let shared = Arc::new(Mutex::new(Waiting::default()));
        body.copy_to(Tee(shared.clone()));
        RequestBody::boxed(Copied { shared, hint })
    };
    let (route, cluster) = (route.clone(), cluster.clone());
    let connection = connection.clone();
    let request = Request::from_parts(head, copy);
    tokio::spawn(async move {
        let priority = route.priority;
        let core = connection.core;
        let lane = Lane { core, priority };
        let limit = route.timeout.unwrap_or(TIME_MAX);
        let sent = timeout(limit, send_on(&cluster, lane, request, route.idle));
        let outcome = match sent.await {
            Ok(Ok(())) => "sent",
            Ok(Err(Failure::ClientBody)) => "cut",
            Ok(Err(error)) => {
                let upstream = &cluster.spec.name;
                debug!(error = &error as &dyn std::error::Error, %upstream, "no answer of a shadow");
                "failed"
            }
            Err(_) => "failed",
        };
        connection.shared.meters.shadowed(outcome);
    });
    body
}

async fn send_on(
    cluster: &Arc<Cluster>,
    lane: Lane,
    request: Request<RequestBody>,
    idle: Duration,
) -> Result<(), Failure> {
    let began = Instant::now();
    let mut entered = cluster.enter(lane.priority)?;
    let picked = cluster.pick(&Choice::default()).await?;
    let mut request = Some(request);
    let answered = send::send(cluster, &picked.endpoint, lane, &mut request).await;
    let outcome = match &answered {
        Ok((response, _)) => Outcome::Answered(response.status()),
        Err(failure) => Outcome::Failed(failure),
    };
    cluster.report(&picked.endpoint, outcome);
    entered.keep(picked);
    let (response, hold) = answered?;
    cluster.meters.answered(response.status(), began.elapsed());
    let mut body = Streamed::new(response.into_body(), idle, None, hold, entered);
    while let Some(Ok(_)) = body.frame().await {}
    Ok(())
}

/// Returns the head for the shadow, whose protocol may be another one.
fn copied_head(head: &request::Parts, protocol: Protocol) -> Option<request::Parts> {
    let host = match (head.headers.get(header::HOST), head.uri.authority()) {
        (Some(host), _) => host.to_str().ok()?,
        (None, authority) => authority?.as_str(),
    };
    let host = shadow_host(host);
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.headers = head.headers.clone();
    let mut parts = Parts::default();
    parts.path_and_query = head.uri.path_and_query().cloned();
    match protocol {
        Protocol::Http1 => {
            copy.version = Version::HTTP_11;
            let host = HeaderValue::from_str(&host).ok()?;
            copy.headers.insert(header::HOST, host);
        }
        Protocol::Http2 => {
            copy.version = Version::HTTP_2;
            copy.headers.remove(header::HOST);
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(Authority::try_from(host).ok()?);
        }
    }
    copy.uri = Uri::from_parts(parts).ok()?;
    Some(copy)
}

/// `shop:8080` becomes `shop-shadow:8080`.
fn shadow_host(host: &str) -> String {
    let name = crate::route::split_port(host);
    format!("{name}-shadow{}", &host[name.len()..])
}

/// What of a body waits for the shadow.
#[derive(Default)]
struct Waiting {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    state: State,
    waker: Option<Waker>,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Ended,
    Cut,
}

fn lock(shared: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the request's body puts what passes. Dropped before the end, it cuts the copy.
pub(crate) struct Tee(Arc<Mutex<Waiting>>);

impl Tee {
    /// Takes a copy of a frame, as far as there is room.
    pub(crate) fn take(&self, frame: &Frame<Bytes>) {
        let mut waiting = lock(&self.0);
        if waiting.state != State::Open {
            return;
        }
        if let Some(data) = frame.data_ref() {
            if waiting.bytes + data.len() > WAITING_BYTES_MAX {
                waiting.end(State::Cut);
                return;
            }
            waiting.bytes += data.len();
            waiting.frames.push_back(Frame::data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            waiting.frames.push_back(Frame::trailers(trailers.clone()));
        }
        waiting.wake();
    }

    /// The body has ended as it should.
    pub(crate) fn end(&self) {
        let mut waiting = lock(&self.0);
        if waiting.state == State::Open {
            waiting.end(State::Ended);
        }
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        let mut waiting = lock(&self.0);
        if waiting.state == State::Open {
            waiting.end(State::Cut);
        }
    }
}

impl Waiting {
    fn end(&mut self, state: State) {
        if state == State::Cut {
            self.frames.clear();
        }
        self.state = state;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// The copy's body.
struct Copied {
    shared: Arc<Mutex<Waiting>>,
    hint: SizeHint,
}

impl Body for Copied {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut waiting = lock(&self.shared);
        if let Some(frame) = waiting.frames.pop_front() {
            waiting.bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        match waiting.state {
            State::Open => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Ended => Poll::Ready(None),
            State::Cut => Poll::Ready(Some(Err(Broken::Handler("the copy is cut".into())))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Nobody reads it any more, so nothing must wait.
        lock(&self.shared).end(State::Cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_marked_before_its_port() {
        assert_eq!(shadow_host("shop"), "shop-shadow");
        assert_eq!(shadow_host("shop:8080"), "shop-shadow:8080");
        assert_eq!(shadow_host("[::1]:80"), "[::1]-shadow:80");
    }

    #[test]
    fn a_slow_shadow_loses_its_copy_and_holds_nothing() {
        let shared = Arc::new(Mutex::new(Waiting::default()));
        let tee = Tee(shared.clone());
        let piece = Bytes::from(vec![0; WAITING_BYTES_MAX / 4]);
        for _ in 0..4 {
            tee.take(&Frame::data(piece.clone()));
        }
        assert_eq!(lock(&shared).frames.len(), 4);
        tee.take(&Frame::data(Bytes::from_static(b"one more")));
        assert!(lock(&shared).frames.is_empty());
        assert!(lock(&shared).state == State::Cut);
        tee.end();
        assert!(lock(&shared).state == State::Cut);
    }

    #[test]
    fn a_share_is_about_what_is_asked_for() {
        assert!((0..100).all(|_| wanted(None) && wanted(Some(100))));
        assert!(!(0..100).any(|_| wanted(Some(0))));
        let tenth = (0..10_000).filter(|_| wanted(Some(10))).count();
        assert!((700..1300).contains(&tenth), "{tenth}");
    }
}
