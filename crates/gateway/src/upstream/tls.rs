//! How a cluster's connections speak TLS.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tls::client::Originator;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

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
        let config = self.originator.config(http2)?;
        TlsConnector::from(config).connect(name, stream).await
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
