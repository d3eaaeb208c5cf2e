//! Opens ports and accepts connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::watch::Watch;
use super::{Admitted, Connection, Listener, connection, proxied};
use crate::Shared;
use crate::proxy_protocol::{Malformed, Told};

/// Connections that the kernel keeps for a core that has not accepted them yet.
const BACKLOG: i32 = 1024;
/// Rest after a failed accept, which means that descriptors or memory have run out.
const BREATH: Duration = Duration::from_millis(50);

/// Opens one listening socket for each core on the same port; port 0 becomes a free one.
pub(crate) fn bind(
    mut address: SocketAddr,
    cores: usize,
) -> io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
    let mut sockets = Vec::with_capacity(cores);
    for _ in 0..cores {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        // The cores share the port. Another process must not, so the first socket asks for the port alone.
        if sockets.is_empty() && address.port() != 0 {
            alone(address)?;
        }
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

/// Fails when somebody else listens on the port: with `SO_REUSEPORT` the kernel would share it without a word.
fn alone(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Accepts connections on one core until the listener closes.
pub(crate) async fn accept(
    socket: std::net::TcpListener,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    core: usize,
    tracker: TaskTracker,
) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            warn!(%error, address = %listener.address, "a core cannot listen");
            return;
        }
    };
    loop {
        tokio::select! {
            biased;
            () = listener.stop.cancelled() => return,
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => begin(stream, peer, &listener, &shared, core, &tracker),
                Err(error) => {
                    warn!(%error, "accept failed");
                    tokio::time::sleep(BREATH).await; // out of descriptors: breathe
                }
            },
        }
    }
}

fn begin(
    stream: TcpStream,
    peer: SocketAddr,
    listener: &Arc<Listener>,
    shared: &Arc<Shared>,
    core: usize,
    tracker: &TaskTracker,
) {
    let Some(mut admitted) = listener.admit(&shared.limits) else {
        // Nothing was read, so closing says it all and costs least.
        shared.meters.turned_away.inc();
        return;
    };
    if listener.front.load().proxy_protocol {
        let (listener, shared) = (listener.clone(), shared.clone());
        tracker.spawn(passed_on(stream, peer, admitted, listener, shared, core));
        return;
    }
    if !admitted.count(peer.ip(), &shared.limits) {
        shared.meters.turned_away.inc();
        return;
    }
    if stream.set_nodelay(true).is_err() {
        // The client is gone already.
        return;
    }
    let connection = connection(&stream, peer, None, admitted, listener, shared, core);
    tracker.spawn(connection::run(stream, Vec::new(), connection));
}

/// Finds out whose connection a proxy passes on, and serves it.
async fn passed_on(
    mut stream: TcpStream,
    proxy: SocketAddr,
    mut admitted: Admitted,
    listener: Arc<Listener>,
    shared: Arc<Shared>,
    core: usize,
) {
    let limit = shared.limits.timeouts.head;
    let header = tokio::select! {
        biased;
        () = listener.stop.cancelled() => return,
        header = timeout(limit, proxied::header(&mut stream)) => header,
    };
    let (client, first) = match header {
        Ok(Ok(Some((Told::Client(client), first)))) => (client, first),
        Ok(Ok(Some((Told::Nobody, first)))) => (proxy, first),
        Ok(Ok(None)) => return,
        Ok(Err(Malformed)) | Err(_) => {
            shared.meters.unproxied.inc();
            return;
        }
    };
    if !admitted.count(client.ip(), &shared.limits) {
        shared.meters.turned_away.inc();
        return;
    }
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let by = Some(proxy.ip());
    let connection = connection(&stream, client, by, admitted, &listener, &shared, core);
    connection::run(stream, first, connection).await;
}

fn connection(
    stream: &TcpStream,
    peer: SocketAddr,
    passed_on_by: Option<IpAddr>,
    admitted: Admitted,
    listener: &Arc<Listener>,
    shared: &Arc<Shared>,
    core: usize,
) -> Arc<Connection> {
    let peer_text = HeaderValue::try_from(peer.ip().to_canonical().to_string())
        .expect("an address is digits, dots and colons");
    let mut timeouts = shared.limits.timeouts;
    if let Some(idle) = listener.front.load().settings.idle_max {
        (timeouts.idle, timeouts.idle_http2) = (idle, idle);
    }
    let local = match listener.address.ip().is_unspecified() {
        true => stream.local_addr().unwrap_or(listener.address),
        false => listener.address,
    };
    Arc::new(Connection {
        shared: shared.clone(),
        listener: listener.clone(),
        watch: Arc::new(Watch::new(timeouts)),
        core,
        peer,
        passed_on_by,
        local,
        peer_text,
        _admitted: admitted,
    })
}
