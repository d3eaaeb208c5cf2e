//! Opens connections to endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use model::mapping::ProxyVersion;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::breaker::{Limited, Priority};
use super::cluster::{Cluster, Protocol, Spec};
use super::pool::{Endpoint, Lane, Lease, Stream};
use super::send::Failure;
use crate::body::RequestBody;
use crate::connect::io::Io;
use crate::counted::Counted;
use crate::proxy_protocol;

/// Bytes read ahead of a slow client, and the longest head of an answer, for each connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// What an HTTP/2 upstream may send ahead on one stream, and on one connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER_MAX: Duration = Duration::from_secs(10);

/// Opens an HTTP/1.1 connection, or waits for one where no more may be opened.
pub(super) async fn http1(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    lane: Lane,
    client: Option<SocketAddr>,
) -> Result<Lease, Failure> {
    let pending = Pending::begin(cluster);
    let free = || endpoint.take(lane, &cluster.spec, Instant::now());
    let open = match place(cluster, lane.priority, free).await? {
        Place::Free(lease) => return Ok(lease),
        Place::New(open) => open,
    };
    let io = pending.opened(connect(cluster, endpoint, lane.core, client).await)?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .title_case_headers(cluster.spec.proper_case)
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
        lane,
        opened,
        lasting: cluster.spec.proxy_protocol.is_none(),
    })
}

/// Opens an HTTP/2 connection and takes its first stream, or waits for a stream where no more connections may be opened.
pub(super) async fn http2(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    lane: Lane,
    client: Option<SocketAddr>,
) -> Result<Stream, Failure> {
    let pending = Pending::begin(cluster);
    let free = || endpoint.stream(lane, &cluster.spec, Instant::now());
    let open = match place(cluster, lane.priority, free).await? {
        Place::Free(stream) => return Ok(stream),
        Place::New(open) => open,
    };
    let io = pending.opened(connect(cluster, endpoint, lane.core, client).await)?;
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
    Ok(endpoint.share(lane, sender, cluster.spec.proxy_protocol.is_none()))
}

/// Opens an HTTP/1.1 connection for a question of our own, apart from the pools and the limits.
pub(super) async fn http1_apart(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
) -> Result<http1::SendRequest<RequestBody>, Failure> {
    let io = connect(cluster, endpoint, 0, None).await?;
    let handshake = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES_MAX)
        .title_case_headers(cluster.spec.proper_case)
        .handshake::<_, RequestBody>(io);
    let (sender, connection) = handshake.await.map_err(Failure::Broken)?;
    let address = endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, %address, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Opens an HTTP/2 connection for a question of our own, apart from the pools and the limits.
pub(super) async fn http2_apart(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
) -> Result<http2::SendRequest<RequestBody>, Failure> {
    let io = connect(cluster, endpoint, 0, None).await?;
    let handshake = http2::Builder::new(TokioExecutor::new()).handshake::<_, RequestBody>(io);
    let (sender, connection) = handshake.await.map_err(Failure::Broken)?;
    let address = endpoint.address;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, %address, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Opens a connection and closes it again.
pub(super) async fn opens(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>) -> Result<(), Failure> {
    connect(cluster, endpoint, 0, None).await.map(drop)
}

/// Connects, with all that comes before the first byte of HTTP, within the time that connecting may take.
async fn connect(
    cluster: &Arc<Cluster>,
    endpoint: &Endpoint,
    core: usize,
    client: Option<SocketAddr>,
) -> Result<TokioIo<Counted<Io>>, Failure> {
    if let Some(tls) = &cluster.spec.tls
        && !tls.originator.is_ready()
    {
        return Err(Failure::TlsMissing);
    }
    let connecting = timeout(
        cluster.spec.connect_timeout,
        reach(&cluster.spec, endpoint.address, client),
    );
    let connected = connecting.await.unwrap_or(Err(Failure::ConnectTimeout));
    if connected.is_err() {
        cluster.meters.connect_failures.inc();
    }
    let tally = cluster.meters.traffic.tally(core, cluster.cores);
    Ok(TokioIo::new(Counted::new(connected?, &[], tally)))
}

/// A request that found no open connection, until it has one.
struct Pending<'c>(&'c Cluster);

impl<'c> Pending<'c> {
    fn begin(cluster: &'c Cluster) -> Self {
        cluster.meters.pending.inc();
        Pending(cluster)
    }

    /// Takes note when there is none.
    fn opened<T>(&self, connected: Result<T, Failure>) -> Result<T, Failure> {
        if connected.is_err() {
            self.0.meters.ejected_while_pending();
        }
        connected
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.meters.pending.dec();
    }
}

async fn reach(
    spec: &Spec,
    address: SocketAddr,
    client: Option<SocketAddr>,
) -> Result<Io, Failure> {
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.map_err(Failure::Connect)?;
    stream.set_nodelay(true).map_err(Failure::Connect)?;
    if let Some(keepalive) = &spec.keepalive {
        let socket = SockRef::from(&stream);
        let set = socket.set_tcp_keepalive(&keepalive.option());
        set.map_err(Failure::Connect)?;
    }
    if let Some(version) = spec.proxy_protocol {
        let header = match (version, client) {
            (ProxyVersion::V1, Some(client)) => proxy_protocol::write_v1(client, address),
            (ProxyVersion::V2, Some(client)) => proxy_protocol::write_v2(client, address),
            // Our own, such as a health check.
            (ProxyVersion::V1, None) => proxy_protocol::NOBODY_V1.to_vec(),
            (ProxyVersion::V2, None) => proxy_protocol::NOBODY_V2.to_vec(),
        };
        let written = stream.write_all(&header).await;
        written.map_err(Failure::Connect)?;
    }
    match &spec.tls {
        None => Ok(Io::Plain(stream)),
        Some(tls) => {
            let http2 = spec.protocol == Protocol::Http2;
            let stream = tls.connect(stream, http2).await.map_err(Failure::Tls)?;
            Ok(Io::Tls(Box::new(stream)))
        }
    }
}

/// What a request without a connection gets.
enum Place<T> {
    /// One that has become free.
    Free(T),
    /// The right to open another one.
    New(Open),
}

/// Returns the right to open a connection. Where there are too many, waits until one is free or closed.
async fn place<T>(
    cluster: &Arc<Cluster>,
    priority: Priority,
    mut free: impl FnMut() -> Option<T>,
) -> Result<Place<T>, Failure> {
    let breaker = cluster.breaker(priority);
    if !breaker.is_full()
        && let Some(open) = Open::enter(cluster, priority)
    {
        return Ok(Place::New(open));
    }
    cluster.meters.overflowed(Limited::Connections);
    let waiting = breaker.wait(|| {
        if let Some(free) = free() {
            return Some(Place::Free(free));
        }
        let open = Open::enter(cluster, priority).or_else(|| {
            // One that lies unused on another core or for another endpoint makes room.
            cluster.close_unused(priority).then(|| {
                breaker.take_over_connection();
                Open::counted(cluster, priority)
            })
        });
        open.map(Place::New)
    });
    let place = waiting.await;
    if place.is_err() {
        cluster.meters.overflowed(Limited::Pending);
    }
    place
}

/// A place among the cluster's open connections.
struct Open {
    cluster: Arc<Cluster>,
    priority: Priority,
}

impl Open {
    fn enter(cluster: &Arc<Cluster>, priority: Priority) -> Option<Self> {
        let breaker = cluster.breaker(priority);
        breaker
            .begin_connection()
            .then(|| Open::counted(cluster, priority))
    }

    fn counted(cluster: &Arc<Cluster>, priority: Priority) -> Self {
        cluster.meters.connections.inc();
        Open {
            cluster: cluster.clone(),
            priority,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.cluster.breaker(self.priority).end_connection();
        self.cluster.meters.connections.dec();
    }
}
