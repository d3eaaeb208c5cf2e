//! A server for one terminator.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use model::config::Secret;
use model::{Config, TlsContext};
use testkit::tls::{Client, Identity, Saw};
use tls::accept::{Failed, Session, Turns, hello};
use tls::keep::Terminators;
use tls::material::Context;
use tls::server::Terminator;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;

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

/// Lets a client ask a server, and returns what each of them saw.
pub(crate) async fn meet(
    server: &Server,
    terminator: &Terminator,
    client: &Client,
    name: &str,
) -> (Result<Session, Failed>, std::io::Result<Saw>) {
    let (client, address, name) = (client.clone(), server.address(), name.to_owned());
    let asking = tokio::task::spawn_blocking(move || {
        let (mut raw, saw) = client.look(address, &name)?;
        // With TLS 1.3 a client learns of its refusal after the handshake.
        match raw.try_send("x") && raw.take_to_end() == b"x" {
            true => Ok(saw),
            false => Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
    });
    let (session, saw) = tokio::join!(server.serve(terminator), asking);
    (session, saw.expect("the client tells"))
}
