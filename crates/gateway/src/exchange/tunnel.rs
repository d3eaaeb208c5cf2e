//! Upgrades, such as WebSocket: the tunnel opens only after the upstream has said 101.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tracing::debug;

use crate::listener::Connection;
use crate::snapshot::Route;
use crate::upstream::cluster::Entered;

/// What a tunnel holds of each direction.
const BUFFER_BYTES: usize = 16 << 10;

/// A client's wish to speak another protocol, which its route allows.
pub(super) struct Upgrade {
    protocol: HeaderValue,
    client: OnUpgrade,
}

impl Upgrade {
    /// Returns the wish, when there is exactly one and the route allows it.
    pub(super) fn of(request: &mut Request<Incoming>, route: &Route) -> Option<Box<Self>> {
        let headers = request.headers();
        let mut wishes = headers.get_all(header::UPGRADE).iter();
        let protocol = wishes.next().filter(|_| wishes.next().is_none())?;
        let text = protocol.to_str().ok()?;
        let allowed = route
            .upgrades
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(text));
        if !allowed || !says_upgrade(headers) {
            return None;
        }
        let protocol = protocol.clone();
        let client = hyper::upgrade::on(request);
        Some(Box::new(Upgrade { protocol, client }))
    }

    /// Puts the wish into the request to the upstream, whose hop-by-hop headers are gone.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// Returns whether the upstream has switched to what was asked for.
    pub(super) fn granted<B>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let protocol = headers.get(header::UPGRADE);
        says_upgrade(headers)
            && protocol.is_some_and(|protocol| {
                protocol
                    .as_bytes()
                    .eq_ignore_ascii_case(self.protocol.as_bytes())
            })
    }

    /// Puts the upstream's consent into the answer to the client.
    pub(super) fn grant(&self, headers: &mut HeaderMap) {
        self.ask(headers);
    }

    /// Carries bytes both ways until one side ends, or nothing has moved for the time of `idle`.
    pub(super) fn open(
        self: Box<Self>,
        upstream: OnUpgrade,
        connection: Arc<Connection>,
        idle: Duration,
        entered: Entered,
    ) {
        tokio::spawn(async move {
            match run(self.client, upstream, idle).await {
                Ok((up, down)) => debug!(peer = %connection.peer, up, down, "tunnel closed"),
                Err(error) => debug!(peer = %connection.peer, %error, "tunnel broke"),
            }
            drop(entered);
        });
    }
}

fn says_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter();
    let mut options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

async fn run(client: OnUpgrade, upstream: OnUpgrade, idle: Duration) -> io::Result<(u64, u64)> {
    let (client, upstream) = tokio::try_join!(client, upstream).map_err(io::Error::other)?;
    let moved = AtomicU64::new(0);
    let mut client = Counted {
        stream: TokioIo::new(client),
        moved: &moved,
    };
    let mut upstream = TokioIo::new(upstream);
    let copying =
        copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES);
    let quiet = async {
        loop {
            let before = moved.load(Relaxed);
            tokio::time::sleep(idle).await;
            if moved.load(Relaxed) == before {
                return;
            }
        }
    };
    tokio::select! {
        copied = copying => copied,
        () = quiet => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// A stream that tells whether bytes move.
struct Counted<'a, S> {
    stream: S,
    moved: &'a AtomicU64,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.moved.fetch_add(1, Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.moved.fetch_add(1, Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
