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

use super::secured::{self, Secured};
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
    let Some(admitted) = listener.admit(&shared.limits) else {
        // Nothing was read, so closing says it all and costs least.
        shared.meters.turned_away.inc();
        return;
    };
    let mut opening = Opening {
        peer,
        passed_on_by: None,
        admitted,
        listener: listener.clone(),
        shared: shared.clone(),
        core,
    };
    let front = listener.front.load();
    if front.proxy_protocol {
        tracker.spawn(passed_on(stream, opening));
        return;
    }
    if !opening.count(&stream) {
        return;
    }
    if front.chains.is_some() {
        tracker.spawn(secured::begin(stream, Vec::new(), opening));
        return;
    }
    let connection = opening.connection(&stream, None);
    tracker.spawn(connection::run(stream, Vec::new(), connection));
}

/// Finds out whose connection a proxy passes on, and serves it.
async fn passed_on(mut stream: TcpStream, mut opening: Opening) {
    let limit = opening.shared.limits.timeouts.head;
    let header = tokio::select! {
        biased;
        () = opening.listener.stop.cancelled() => return,
        header = timeout(limit, proxied::header(&mut stream)) => header,
    };
    let proxy = opening.peer;
    let first = match header {
        Ok(Ok(Some((told, first)))) => {
            if let Told::Client(client) = told {
                opening.peer = client;
            }
            first
        }
        Ok(Ok(None)) => return,
        Ok(Err(Malformed)) | Err(_) => {
            opening.shared.meters.unproxied.inc();
            return;
        }
    };
    if !opening.count(&stream) {
        return;
    }
    opening.passed_on_by = Some(proxy.ip());
    if opening.listener.front.load().chains.is_some() {
        Box::pin(secured::begin(stream, first, opening)).await;
        return;
    }
    let connection = opening.connection(&stream, None);
    connection::run(stream, first, connection).await;
}

/// A connection that is accepted and not served yet.
pub(super) struct Opening {
    /// The client: the connection's peer, or whom that names in its PROXY header.
    peer: SocketAddr,
    passed_on_by: Option<IpAddr>,
    admitted: Admitted,
    pub(super) listener: Arc<Listener>,
    pub(super) shared: Arc<Shared>,
    pub(super) core: usize,
}

impl Opening {
    /// Counts the connection as its client's. Returns whether it is to be served.
    fn count(&mut self, stream: &TcpStream) -> bool {
        if !self.admitted.count(self.peer.ip(), &self.shared.limits) {
            self.shared.meters.turned_away.inc();
            return false;
        }
        // Otherwise the client is gone already.
        stream.set_nodelay(true).is_ok()
    }

    /// Returns what the exchanges on the connection share.
    pub(super) fn connection(
        self,
        stream: &TcpStream,
        tls: Option<Box<Secured>>,
    ) -> Arc<Connection> {
        let Opening {
            peer,
            listener,
            shared,
            ..
        } = self;
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
            shared,
            listener,
            watch: Arc::new(Watch::new(timeouts)),
            core: self.core,
            peer,
            passed_on_by: self.passed_on_by,
            local,
            peer_text,
            tls,
            _admitted: self.admitted,
        })
    }
}
