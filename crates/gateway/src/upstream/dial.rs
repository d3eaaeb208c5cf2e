//! Opens connections to endpoints.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::cluster::Cluster;
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

/// Opens an HTTP/1.1 connection.
pub(super) async fn http1(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    core: usize,
) -> Result<Lease, Failure> {
    let (io, open) = connect(cluster, endpoint).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake::<_, RequestBody>(io)
        .await
        .map_err(Failure::Broken)?;
    let address = endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, %address, "upstream connection ended");
        }
        drop(open);
    });
    let (endpoint, opened) = (endpoint.clone(), Instant::now());
    Ok(Lease {
        sender,
        endpoint,
        core,
        opened,
    })
}

/// Opens an HTTP/2 connection and takes its first stream.
pub(super) async fn http2(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    core: usize,
) -> Result<Stream, Failure> {
    let (io, open) = connect(cluster, endpoint).await?;
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
    let address = endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, %address, "upstream connection ended");
        }
        drop(open);
    });
    Ok(endpoint.share(core, sender))
}

async fn connect(
    cluster: &Arc<Cluster>,
    endpoint: &Endpoint,
) -> Result<(TokioIo<TcpStream>, Open), Failure> {
    let open = Open::enter(cluster)?;
    let connecting = timeout(
        cluster.spec.connect_timeout,
        TcpStream::connect(endpoint.address),
    );
    let failure = match connecting.await {
        Ok(Ok(stream)) => match stream.set_nodelay(true) {
            Ok(()) => return Ok((TokioIo::new(stream), open)),
            Err(error) => Failure::Connect(error),
        },
        Ok(Err(error)) => Failure::Connect(error),
        Err(_) => Failure::ConnectTimeout,
    };
    cluster.meters.connect_failures.inc();
    Err(failure)
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
