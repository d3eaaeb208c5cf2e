//! A server for one terminator, and clients that tell what they saw.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use model::config::Secret;
use model::{Config, TlsContext};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use testkit::tls::{Ca, Identity};
use tls::accept::{Failed, Session, Turns, hello};
use tls::keep::Terminators;
use tls::material::Context;
use tls::server::Terminator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

/// What a server reads certificates from, and who keeps them.
pub(crate) struct Rig {
    pub(crate) config: Config,
    terminators: Terminators,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Rig {
            config: Config::default(),
            terminators: Terminators::new(Handle::current()),
        }
    }

    /// Puts a Secret in its place.
    pub(crate) fn secret(&mut self, name: &str, values: &[(&str, &[u8])]) {
        let values = values.iter();
        let data: BTreeMap<String, Vec<u8>> = values
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
            .collect();
        let kind = "Opaque".to_owned();
        let key = ("default".to_owned(), name.to_owned());
        self.config.secrets.insert(key, Secret { kind, data });
    }

    /// Puts a certificate in its place.
    pub(crate) fn identity(&mut self, name: &str, identity: &Identity) {
        let (chain, key) = (identity.chain.as_bytes(), identity.key.as_bytes());
        self.secret(name, &[("tls.crt", chain), ("tls.key", key)]);
    }

    /// Returns the terminator for contexts in YAML, after another configuration.
    pub(crate) fn apply(&mut self, contexts: &[&str]) -> Arc<Terminator> {
        self.terminators.begin();
        let contexts = contexts.iter().map(|text| context(text)).collect();
        let terminator = self.terminators.of(&self.config, "shop", contexts);
        self.terminators.finish();
        terminator
    }
}

pub(crate) fn context(text: &str) -> Context {
    let spec: TlsContext = serde_saphyr::from_str(text).expect("the test's context");
    Context {
        spec,
        namespace: "default".to_owned(),
        secret: None,
    }
}

/// Answers one client, and says what was agreed on.
pub(crate) struct Server {
    listener: tokio::net::TcpListener,
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        Server { listener }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Shakes hands with the next client, and answers a byte with a byte.
    pub(crate) async fn serve(&self, terminator: &Terminator) -> Result<Session, Failed> {
        let (stream, _) = self.listener.accept().await.expect("a client");
        let hello = hello(stream, Vec::new()).await?;
        let Some(config) = terminator.config() else {
            return Err(hello.refuse().await);
        };
        let mut stream = hello.answer(config, &Turns::new(1)).await?;
        let session = Session::of(stream.get_ref().1);
        let mut byte = [0];
        // A client that does not trust us may have left.
        if stream.read_exact(&mut byte).await.is_ok() {
            _ = stream.write_all(&byte).await;
            _ = stream.shutdown().await;
        }
        Ok(session)
    }
}

/// What a client saw.
#[derive(Debug)]
pub(crate) struct Saw {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) alpn: String,
}

/// A client that trusts a CA.
pub(crate) struct Client {
    pub(crate) config: ClientConfig,
}

impl Client {
    pub(crate) fn trusting(ca: &Ca) -> Self {
        Self::with(ca, None, rustls::ALL_VERSIONS, |_| true)
    }

    pub(crate) fn showing(ca: &Ca, identity: &Identity) -> Self {
        Self::with(ca, Some(identity), rustls::ALL_VERSIONS, |_| true)
    }

    /// A client that speaks these versions only, and takes these cipher suites only.
    pub(crate) fn with(
        ca: &Ca,
        identity: Option<&Identity>,
        versions: &[&'static SupportedProtocolVersion],
        suites: impl Fn(&str) -> bool,
    ) -> Self {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        let name = |suite: &rustls::SupportedCipherSuite| format!("{:?}", suite.suite());
        provider.cipher_suites.retain(|suite| suites(&name(suite)));
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(ca.pem().as_bytes()).expect("a root");
        roots.add(root).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes());
                let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(chain, key)
                    .expect("an identity")
            }
        };
        config.resumption = Resumption::in_memory_sessions(8);
        Client { config }
    }

    /// Connects, and waits for the answer to a byte.
    pub(crate) async fn ask(&self, address: SocketAddr, name: &str) -> std::io::Result<Saw> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let mut stream = connector.connect(name, stream).await?;
        stream.write_all(b"x").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        assert_eq!(answer, b"x");
        let connection = stream.get_ref().1;
        let alpn = connection.alpn_protocol().unwrap_or(b"-");
        Ok(Saw {
            chain: connection.peer_certificates().unwrap_or_default().to_vec(),
            alpn: String::from_utf8_lossy(alpn).into_owned(),
        })
    }
}

/// Lets a client ask a server, and returns what each of them saw.
pub(crate) async fn meet(
    server: &Server,
    terminator: &Terminator,
    client: &Client,
    name: &str,
) -> (Result<Session, Failed>, std::io::Result<Saw>) {
    tokio::join!(server.serve(terminator), client.ask(server.address(), name))
}
