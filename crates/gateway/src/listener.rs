//! A listener: a port on every core, the connections it has, and their limits.

pub(crate) mod connection;
pub(crate) mod gate;
pub(crate) mod head;
mod proxied;
pub(crate) mod secured;
pub(crate) mod tcp;
pub(crate) mod watch;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use self::secured::Secured;
use self::watch::Watch;
use crate::Shared;
use crate::meter::ListenerMeters;
use crate::snapshot::Front;

/// What clients may do to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of one listener.
    pub connections_max: usize,
    /// Open connections of one client address; not counted behind trusted proxies (`l7Depth`).
    pub connections_per_client_max: usize,
    /// Handshakes of one listener that are under way.
    pub handshakes_max: usize,
    /// Streams that one HTTP/2 connection may have open.
    pub streams_max: u32,
    /// How long clients may take.
    pub timeouts: Timeouts,
}

/// How long clients may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the start of a connection to the end of its TLS handshake.
    pub handshake: Duration,
    /// From the first byte of a head to its last; also for the first head of a connection.
    pub head: Duration,
    /// Without a request, HTTP/1.1.
    pub idle: Duration,
    /// Without a request, HTTP/2.
    pub idle_http2: Duration,
    /// Without taking a byte of what is sent.
    pub stall: Duration,
    /// From the last answer to the client's own end of the connection.
    pub linger: Duration,
    /// From the stop to the end of all connections.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 10_000,
            connections_per_client_max: 256,
            handshakes_max: 2_000,
            streams_max: 100,
            timeouts: Timeouts {
                handshake: Duration::from_secs(10),
                head: Duration::from_secs(10),
                idle: Duration::from_secs(120),
                idle_http2: Duration::from_secs(300),
                stall: Duration::from_secs(60),
                linger: Duration::from_secs(1),
                drain: Duration::from_secs(30),
            },
        }
    }
}

/// What the cores share about one listener.
pub(crate) struct Listener {
    /// What it serves at present.
    pub(crate) front: ArcSwap<Front>,
    pub(crate) address: SocketAddr,
    /// Cancelled when the listener closes: its connections end with their current request.
    pub(crate) stop: CancellationToken,
    pub(crate) meters: Arc<ListenerMeters>,
    open: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl Listener {
    pub(crate) fn new(
        front: Front,
        address: SocketAddr,
        stop: CancellationToken,
        meters: Arc<ListenerMeters>,
    ) -> Self {
        Listener {
            front: ArcSwap::from_pointee(front),
            address,
            stop,
            meters,
            open: AtomicUsize::new(0),
            clients: Mutex::default(),
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place among the open connections, if there is one.
    fn admit(self: &Arc<Self>, limits: &Limits) -> Option<Admitted> {
        if self.open.fetch_add(1, Relaxed) >= limits.connections_max {
            self.open.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Admitted {
            listener: self.clone(),
            peer: None,
        })
    }
}

/// Returns what counts as one client: an IPv4 address, or the network of 64 bits that an IPv6 client has for itself.
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(peer) => IpAddr::V4(peer),
        IpAddr::V6(peer) => {
            let network = u128::from(peer) & !u128::from(u64::MAX);
            IpAddr::V6(network.into())
        }
    }
}

/// A place among a listener's open connections; it is free again when dropped.
struct Admitted {
    listener: Arc<Listener>,
    peer: Option<IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.listener.open.fetch_sub(1, Relaxed);
        let Some(peer) = self.peer else { return };
        let mut clients = self.listener.clients();
        if let Some(count) = clients.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&peer);
            }
        }
    }
}

impl Admitted {
    /// Counts the connection as this client's, unless proxies in front are trusted with telling who it is. Returns
    /// whether the client may have one more.
    fn count(&mut self, peer: IpAddr, limits: &Limits) -> bool {
        if self.listener.front.load().trusted_hops > 0 {
            return true;
        }
        let peer = client(peer);
        self.peer = Some(peer);
        let mut clients = self.listener.clients();
        let count = clients.entry(peer).or_insert(0);
        *count += 1;
        *count <= limits.connections_per_client_max
    }
}

/// What the exchanges of one connection share.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listener: Arc<Listener>,
    pub(crate) watch: Arc<Watch>,
    /// Which core's pools it uses.
    pub(crate) core: usize,
    /// The client: the connection's peer, or whom that names in its PROXY header.
    pub(crate) peer: SocketAddr,
    /// The connection's peer, where it passes on somebody else's.
    pub(crate) passed_on_by: Option<IpAddr>,
    /// Where the client has connected to.
    pub(crate) local: SocketAddr,
    /// The client's address without its port, as a header.
    pub(crate) peer_text: HeaderValue,
    /// What was agreed on with the client, where it speaks TLS.
    pub(crate) tls: Option<Box<Secured>>,
    _admitted: Admitted,
}
