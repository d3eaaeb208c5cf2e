//! The life of one connection from a client: which HTTP it speaks, its timers, its end.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::WaitForCancellationFuture;
use tracing::debug;

use super::Connection;
use super::gate::Gate;
use super::watch::Expired;
use crate::counted::Counted;
use crate::exchange::exchange;
use crate::refusal::{Flaw, Refusal};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What hyper keeps for one connection while bodies pass; a head must fit in too.
const BUFFER_BYTES: usize = 64 << 10;
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Resets by the client that still wait for their stream to be looked at; more of them end the connection.
const RESETS_WAITING_MAX: usize = 20;
/// Errors of the client that cost a stream; more of them end the connection.
const STREAM_ERRORS_MAX: usize = 100;
/// From the polite end of a connection whose time is over to its real end.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a connection's bytes come from: a socket, or TLS over one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves a connection until it ends.
/// `first` was read of it before.
pub(super) async fn run<S: Stream>(mut stream: S, first: Vec<u8>, connection: Arc<Connection>) {
    let meters = connection.listener.front.load().meters.clone();
    meters.accepted.inc();
    meters.connections.inc();
    let head = connection.shared.limits.timeouts.head;
    let first = tokio::select! {
        biased;
        () = connection.listener.stop.cancelled() => None,
        first = timeout(head, sniff(&mut stream, first)) => first.ok().flatten(),
    };
    match first {
        None => (),
        Some((first, is_http2)) => {
            let tally = meters
                .traffic
                .tally(connection.core, connection.shared.cores);
            let stream = Counted::new(stream, &first, tally);
            match is_http2 {
                true => http2(stream, first, &connection).await,
                false => http1(stream, first, &connection).await,
            }
        }
    }
    meters.connections.dec();
}

/// Reads until it is clear whether the client speaks HTTP/2; `None` when it left before.
async fn sniff<S: Stream>(stream: &mut S, mut first: Vec<u8>) -> Option<(Vec<u8>, bool)> {
    let mut more = first.is_empty();
    first.reserve(1024);
    loop {
        if more && stream.read_buf(&mut first).await.ok()? == 0 {
            return None;
        }
        more = true;
        let seen = first.len().min(PREFACE.len());
        if first[..seen] != PREFACE[..seen] {
            return Some((first, false));
        }
        if seen == PREFACE.len() {
            return Some((first, true));
        }
    }
}

async fn http1<S: Stream>(stream: Counted<S>, first: Vec<u8>, connection: &Arc<Connection>) {
    let (head, proper_case) = {
        let front = connection.listener.front.load();
        (front.settings.head, front.settings.proper_case)
    };
    let gate = Gate::http1(stream, first, head, connection.watch.clone());
    let service = {
        let connection = connection.clone();
        service_fn(move |request: Request<Incoming>| {
            let connection = connection.clone();
            async move { Ok::<_, Infallible>(exchange(connection, request).await) }
        })
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None) // the gate's
        .title_case_headers(proper_case)
        .max_buf_size(BUFFER_BYTES.max(head.bytes_max + 1024))
        .serve_connection(TokioIo::new(gate), service)
        .with_upgrades();
    let say_goodbye =
        |serving: Pin<&mut _>| http1::UpgradeableConnection::graceful_shutdown(serving);
    let serving = pin!(serving);
    if let Err(error) = watched(serving, say_goodbye, connection).await {
        if error.is_parse() {
            // What the gate lets through and hyper refuses all the same, with a 400 of its own.
            connection
                .shared
                .meters
                .refused(Refusal::Malformed(Flaw::RequestLine).name());
        }
        debug!(%error, peer = %connection.peer, "connection ended");
    }
}

async fn http2<S: Stream>(stream: Counted<S>, first: Vec<u8>, connection: &Arc<Connection>) {
    let (head, streams_max) = {
        let front = connection.listener.front.load();
        (front.settings.head, front.streams_max)
    };
    let gate = Gate::open(stream, first, connection.watch.clone());
    connection.watch.http2();
    let service = {
        let connection = connection.clone();
        service_fn(move |request: Request<Incoming>| {
            let connection = connection.clone();
            async move { Ok::<_, Infallible>(exchange(connection, request).await) }
        })
    };
    let serving = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max.unwrap_or(connection.shared.limits.streams_max))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES)
        .max_header_list_size(u32::try_from(head.bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_WAITING_MAX)
        .max_local_error_reset_streams(STREAM_ERRORS_MAX)
        .serve_connection(TokioIo::new(gate), service);
    let say_goodbye = |serving: Pin<&mut _>| http2::Connection::graceful_shutdown(serving);
    let serving = pin!(serving);
    if let Err(error) = watched(serving, say_goodbye, connection).await {
        debug!(%error, peer = %connection.peer, "connection ended");
    }
}

async fn watched<S, E>(
    serving: Pin<&mut S>,
    say_goodbye: impl Fn(Pin<&mut S>) + Unpin,
    connection: &Arc<Connection>,
) -> Result<(), E>
where
    S: Future<Output = Result<(), E>>,
{
    let stop = pin!(connection.listener.stop.cancelled());
    Watched {
        serving,
        say_goodbye,
        connection,
        timer: Timer::default(),
        stop: Some(stop),
    }
    .await
}

/// A connection with its timers. They are looked at only when something has happened, so that a request costs none.
struct Watched<'a, 'c, S, G> {
    serving: Pin<&'a mut S>,
    /// Lets the connection end with its current requests.
    say_goodbye: G,
    connection: &'a Arc<Connection>,
    timer: Timer,
    stop: Option<Pin<&'a mut WaitForCancellationFuture<'c>>>,
}

#[derive(Default)]
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
    goodbye: Option<Instant>,
}

impl<S, G, E> Future for Watched<'_, '_, S, G>
where
    S: Future<Output = Result<(), E>>,
    G: Fn(Pin<&mut S>) + Unpin,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(stop) = &mut this.stop
            && stop.as_mut().poll(cx).is_ready()
        {
            this.stop = None;
            (this.say_goodbye)(this.serving.as_mut());
        }
        loop {
            if let Poll::Ready(end) = this.serving.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            let watch = &this.connection.watch;
            let due = match this.timer.goodbye {
                Some(at) => Some((at, Expired::Stalled)),
                None => watch.due(),
            };
            let Some((due, why)) = due else {
                return Poll::Pending;
            };
            if !this.timer.poll(cx, due) {
                return Poll::Pending;
            }
            match why {
                Expired::Stalled => return Poll::Ready(Ok(())),
                Expired::Look if watch.look() => return Poll::Ready(Ok(())),
                Expired::Look => (),
                Expired::Head => watch.expire_head(),
                Expired::Wasteful => {
                    (this.say_goodbye)(this.serving.as_mut());
                    this.timer.goodbye = Some(Instant::now());
                }
                Expired::Idle => {
                    (this.say_goodbye)(this.serving.as_mut());
                    this.timer.goodbye = Some(Instant::now() + GOODBYE);
                }
            }
        }
    }
}

impl Timer {
    /// Returns whether it is time; otherwise wakes the task in time, perhaps too early.
    fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> bool {
        loop {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if !self.armed || due < sleep.deadline() {
                sleep.as_mut().reset(due);
                self.armed = true;
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.armed = false;
            if due <= Instant::now() {
                return true;
            }
        }
    }
}
