//! TLS towards services.
//!
//! What a TLSContext means is an [`Originator`], which stays the same from one configuration to the next. Its certificates
//! may change: new connections use the new ones, and old connections take no more requests once theirs is answered.
//! They may also be missing at first and come later.

pub(crate) mod load;
mod material;
mod verify;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The rules and certificates for TLS towards services of one TLSContext, or of none.
#[derive(Default)]
pub(crate) struct Originator {
    /// Nothing while there was nothing that could be used.
    current: ArcSwapOption<Current>,
    problem: ArcSwapOption<String>,
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
    /// Uses this from now on.
    fn change(&self, config: ClientConfig) {
        self.current.store(Some(Arc::new(Current::new(config))));
    }

    /// Says what is wrong with what is written now.
    fn lack(&self, problem: Option<String>) {
        self.problem.store(problem.map(Arc::new));
    }

    /// Returns what is wrong with what is written now; the last good stays in use.
    pub(crate) fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    /// Returns whether there is something to use.
    pub(crate) fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// Returns when the certificates or rules last changed.
    pub(super) fn since(&self) -> Option<Instant> {
        self.current.load().as_ref().map(|current| current.since)
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
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        http2: bool,
    ) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::from(stream.peer_addr()?.ip()),
        };
        let current = self.originator.current.load_full();
        let current = current.ok_or_else(|| match self.originator.problem() {
            Some(problem) => io::Error::other((*problem).clone()),
            None => io::Error::other("there are no certificates yet"),
        })?;
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
