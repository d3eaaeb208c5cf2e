//! A client that speaks TLS over a plain socket.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};

use super::{Ca, Identity};
use crate::raw::{Raw, Wire};

/// Longest wait for the other side.
const LIMIT: Duration = Duration::from_secs(30);

/// A client that trusts one CA. Its sessions go on where the server lets them.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

/// What a client saw of a handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saw {
    /// The server's certificate, as DER.
    pub certificate: Vec<u8>,
    /// The protocol that was agreed on; empty for none.
    pub alpn: String,
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
    /// Whether a session went on.
    pub resumed: bool,
}

impl Client {
    /// Returns one that shows no certificate.
    pub fn new(ca: &Ca) -> Self {
        Self::with(ca, None, rustls::ALL_VERSIONS, |_| true)
    }

    /// Returns one that trusts a root, as PEM.
    pub fn trusting(root: &str) -> Self {
        let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("a root");
        Self::of(root, None, rustls::ALL_VERSIONS, |_| true)
    }

    /// Returns one that shows a certificate.
    pub fn showing(ca: &Ca, identity: &Identity) -> Self {
        Self::with(ca, Some(identity), rustls::ALL_VERSIONS, |_| true)
    }

    /// Returns one that speaks these versions only, and takes these cipher suites only, by their names in the standards.
    pub fn with(
        ca: &Ca,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        suites: impl Fn(&str) -> bool,
    ) -> Self {
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("a root");
        Self::of(root, identity, versions, suites)
    }

    fn of(
        root: CertificateDer<'static>,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        suites: impl Fn(&str) -> bool,
    ) -> Self {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        provider.cipher_suites.retain(|suite| suites(&name(suite)));
        let mut roots = RootCertStore::empty();
        roots.add(root).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
                let config = builder.with_client_auth_cert(chain, key);
                config.expect("an identity")
            }
        };
        Client {
            config: Arc::new(config),
        }
    }

    /// Offers protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        Arc::make_mut(&mut self.config).alpn_protocols = protocols.collect();
        self
    }

    /// Does not say which name it asks for.
    pub fn nameless(mut self) -> Self {
        Arc::make_mut(&mut self.config).enable_sni = false;
        self
    }

    /// Returns its configuration, for other clients.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// Shakes hands, asking for a name.
    ///
    /// # Errors
    /// When nothing comes of it.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Raw> {
        self.look(address, name).map(|(raw, _)| raw)
    }

    /// Shakes hands, and returns what was seen too.
    ///
    /// # Errors
    /// When nothing comes of it.
    pub fn look(&self, address: SocketAddr, name: &str) -> io::Result<(Raw, Saw)> {
        self.over(TcpStream::connect_timeout(&address, LIMIT)?, name)
    }

    /// Shakes hands over a connection that is open already.
    ///
    /// # Errors
    /// When nothing comes of it.
    pub fn over(&self, mut stream: TcpStream, name: &str) -> io::Result<(Raw, Saw)> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connection = ClientConnection::new(self.config.clone(), name);
        let mut connection = connection.map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        let certificates = connection.peer_certificates().unwrap_or_default();
        let alpn = connection.alpn_protocol().unwrap_or_default();
        let saw = Saw {
            certificate: certificates
                .first()
                .map_or_else(Vec::new, |one| one.to_vec()),
            alpn: String::from_utf8_lossy(alpn).into_owned(),
            version: format!("{:?}", connection.protocol_version().expect("a version")),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        Ok((Raw::over(StreamOwned::new(connection, stream)), saw))
    }
}

impl Wire for StreamOwned<ClientConnection, TcpStream> {
    fn finish(&mut self) -> io::Result<()> {
        self.conn.send_close_notify();
        self.conn.complete_io(&mut self.sock).map(drop)
    }
}
