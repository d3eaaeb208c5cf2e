//! Accepts connections until told to stop, then lets the open ones finish.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tls::server::Terminator;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::auth::{Mechanism, Secret};
use crate::core::{Core, Limits};
use crate::metrics::Door;
use crate::{Address, connection};

/// How long open connections may take to answer what they were asked before they are closed.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long we wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is spoken on a listener (`listener.security.protocol.map`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Neither TLS nor a proof of who one is.
    #[default]
    Plaintext,
    /// TLS; a certificate of the client's says who it is.
    Ssl,
    /// SASL without TLS.
    SaslPlaintext,
    /// SASL within TLS.
    SaslSsl,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Protocol; 4] = [
        Protocol::Plaintext,
        Protocol::Ssl,
        Protocol::SaslPlaintext,
        Protocol::SaslSsl,
    ];

    /// Returns Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Plaintext => "PLAINTEXT",
            Protocol::Ssl => "SSL",
            Protocol::SaslPlaintext => "SASL_PLAINTEXT",
            Protocol::SaslSsl => "SASL_SSL",
        }
    }

    /// Returns whether a client must prove by SASL who it is.
    pub fn has_sasl(self) -> bool {
        matches!(self, Protocol::SaslPlaintext | Protocol::SaslSsl)
    }

    /// Returns whether it is TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, Protocol::Ssl | Protocol::SaslSsl)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that is no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT`, `SASL_SSL`")]
pub struct NotAProtocol(String);

impl FromStr for Protocol {
    type Err = NotAProtocol;

    fn from_str(text: &str) -> Result<Self, NotAProtocol> {
        let found = Protocol::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| NotAProtocol(text.to_owned()))
    }
}

/// How one listener serves.
#[derive(Clone)]
pub struct Listener {
    /// What logs and metrics call it.
    pub name: String,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// The address told to clients; `None` tells each client the one that it has used.
    pub advertised: Option<Address>,
    /// How many connections it has at a time (`max.connections`).
    pub connections_max: usize,
    /// How long a connection may be silent (`connections.max.idle.ms`).
    pub idle_max: Duration,
    /// The size of one request (`socket.request.max.bytes`).
    pub request_bytes_max: usize,
    /// How a client may prove who it is (`sasl.enabled.mechanisms`).
    pub mechanisms: Vec<Mechanism>,
    /// After how long a client has to prove it again, where there is SASL (`connections.max.reauth.ms`).
    pub session_max: Option<Duration>,
    /// How TLS is spoken, with the protocols that have it.
    pub tls: Option<Arc<Terminator>>,
    /// The password of this process itself, on a listener of its own: who knows it may do everything, under any name.
    pub house: Option<Secret>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.protocol)
    }
}

impl Listener {
    /// Returns a listener with these limits, which speaks a protocol and tells clients the address that they have used.
    pub fn new(name: impl Into<String>, protocol: Protocol, limits: &Limits) -> Self {
        Self {
            name: name.into(),
            protocol,
            advertised: None,
            connections_max: limits.connections_max,
            idle_max: limits.idle_max,
            request_bytes_max: limits.request_bytes_max,
            mechanisms: Vec::new(),
            session_max: None,
            tls: None,
            house: None,
        }
    }

    /// Returns a listener for this process alone: PLAIN with any name and this password; who knows it may do everything.
    pub fn of_house(password: Secret, limits: &Limits) -> Self {
        Self {
            mechanisms: vec![Mechanism::Plain],
            house: Some(password),
            ..Self::new("(nuncio)", Protocol::SaslPlaintext, limits)
        }
    }
}

/// A listener that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub listener: Listener,
    pub door: Door,
}

/// How long the connection of an address that opens too many is kept waiting before it is closed.
fn turned_away(core: &Core, ip: IpAddr) -> Option<Duration> {
    let quotas = &core.quotas;
    quotas.active().then(|| quotas.connected(ip))?
}

pub(crate) async fn serve(
    core: Arc<Core>,
    socket: TcpListener,
    listener: Listener,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(
        listener.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let door = Door::new(core.metrics.registry(), &listener.name);
    let serving = Arc::new(Serving { listener, door });
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => (), // reap, so that the set stays small
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    let places = room.clone().try_acquire_owned();
                    let places = places.and_then(|own| {
                        core.connections.clone().try_acquire_owned().map(|all| (own, all))
                    });
                    match places {
                        Ok(places) if let Some(wait) = turned_away(&core, peer.ip()) => {
                            // As in Kafka: who opens too many finds the next one closed, and not at once.
                            let stop = stop.clone();
                            connections.spawn(async move {
                                tokio::select! {
                                    () = stop.cancelled() => (),
                                    () = time::sleep(wait) => (),
                                }
                                drop((stream, places));
                            });
                        }
                        Ok(places) => {
                            let serving = serving.clone();
                            let serving =
                                connection::serve(core.clone(), serving, stream, peer, stop.clone());
                            connections.spawn(async move {
                                serving.await;
                                drop(places);
                            });
                        }
                        Err(_) => {
                            serving.door.refused.inc();
                            let listener = &serving.listener.name;
                            warn!(%peer, %listener, "too many connections, closing the new one");
                        }
                    }
                }
                Err(error) => {
                    warn!(%error, "accept failed");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    match time::timeout(DRAIN_MAX, drained).await {
        Ok(()) => info!("kafka listener drained"),
        Err(_) => warn!(after = ?DRAIN_MAX, "kafka connections still open, closing them"),
    }
}
