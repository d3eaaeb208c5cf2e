//! Opens connections to endpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::cluster::{Cluster, Protocol};
use super::pool::{Endpoint, Lease, Stream};
use super::send::Failure;
use crate::body::RequestBody;

/// Bytes read ahead of a slow client, and the longest head of an answer, for each connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// What an HTTP/2 upstream may send ahead on one stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);

/// A way to send one request.
pub(super) enum Way {
    Http1(Lease),
    Http2(Stream),
}

/// Opens a connection of the cluster's protocol.
pub(super) async fn dial(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    core: usize,
) -> Result<Way, Failure> {
    let open = Open::enter(cluster)?;
    let connect_failed = |error| {
        cluster.meters.connect_failures.inc();
        Failure::Connect(error)
    };
    let connecting = TcpStream::connect(endpoint.address);
    let stream = match timeout(cluster.spec.connect_timeout, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connect_failed(error)),
        Err(_) => {
            cluster.meters.connect_failures.inc();
            return Err(Failure::ConnectTimeout);
        }
    };
    stream.set_nodelay(true).map_err(connect_failed)?;
    let io = TokioIo::new(stream);
    let address = endpoint.address;
    match cluster.spec.protocol {
        Protocol::Http1 => {
            let (sender, connection) = http1::Builder::new()
                .max_buf_size(BUFFER_BYTES_MAX)
                .handshake::<_, RequestBody>(io)
                .await
                .map_err(Failure::Broken)?;
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    debug!(%error, %address, "upstream connection ended");
                }
                drop(open);
            });
            let (endpoint, opened) = (endpoint.clone(), Instant::now());
            Ok(Way::Http1(Lease {
                sender,
                endpoint,
                core,
                opened,
            }))
        }
        Protocol::Http2 => {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_ANSWER_MAX)
                .max_send_buf_size(BUFFER_BYTES_MAX)
                .handshake::<_, RequestBody>(io)
                .await
                .map_err(Failure::Broken)?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    debug!(%error, %address, "upstream connection ended");
                }
                drop(open);
            });
            Ok(Way::Http2(endpoint.share(core, sender)))
        }
    }
}

/// A place among the cluster's open connections.
struct Open(Arc<Cluster>);

impl Open {
    fn enter(cluster: &Arc<Cluster>) -> Result<Self, Failure> {
        if cluster.open.fetch_add(1, Relaxed) >= cluster.spec.breaker.connections_max {
            cluster.open.fetch_sub(1, Relaxed);
            return Err(Failure::Overloaded);
        }
        cluster.meters.connections.inc();
        Ok(Open(cluster.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        self.0.meters.connections.dec();
    }
}
