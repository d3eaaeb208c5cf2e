//! TLS towards services.
//!
//! What a TLSContext means is an [`Originator`], which stays the same from one configuration to the next. Its certificates
//! may change: new connections use the new ones, and old connections take no more requests.

pub(crate) mod load;
mod verify;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The rules and certificates for TLS towards services of one TLSContext, or of none.
pub(crate) struct Originator {
    current: ArcSwap<Current>,
}

/// What new connections use.
struct Current {
    /// Offering `http/1.1`, and offering `h2`.
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Since when.
    since: Instant,
}

impl Originator {
    pub(crate) fn new(config: ClientConfig) -> Self {
        Originator {
            current: ArcSwap::from_pointee(Current::new(config)),
        }
    }

    /// Uses this from now on.
    pub(crate) fn change(&self, config: ClientConfig) {
        self.current.store(Arc::new(Current::new(config)));
    }

    /// Returns when the certificates or rules last changed.
    pub(super) fn since(&self) -> Instant {
        self.current.load().since
    }
}

impl Current {
    fn new(config: ClientConfig) -> Self {
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Current {
            http1: offering(b"http/1.1"),
            http2: offering(b"h2"),
            since: Instant::now(),
        }
    }
}

/// How a cluster's connections speak TLS.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) originator: Arc<Originator>,
    /// The name that is asked for; without one the endpoint's address stands in.
    pub(crate) name: Option<ServerName<'static>>,
}

impl Tls {
    /// Shakes hands.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        http2: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::from(stream.peer_addr()?.ip()),
        };
        let current = self.originator.current.load_full();
        let config = if http2 {
            &current.http2
        } else {
            &current.http1
        };
        TlsConnector::from(config.clone())
            .connect(name, stream)
            .await
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.originator, &other.originator) && self.name == other.name
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.originator).hash(state);
        self.name.hash(state);
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
