//! Connections that may speak TLS: the first byte tells. Who speaks it is answered by what stands for the name that it asks
//! for; who speaks cleartext is served all the same, and the Host's policy says what becomes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use observe::access;
use rustls::ServerConfig;
use tls::accept::{Failed, HANDSHAKE, Hello, Session, hello};
use tls::ordered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::connection;
use super::tcp::Opening;
use crate::snapshot::Chain;

/// What is read until it is clear what is spoken.
const STEP_BYTES: usize = 1 << 10;

/// What was agreed on with a client that speaks TLS.
pub(crate) struct Secured {
    pub(crate) session: Session,
    /// What has answered it.
    pub(crate) chain: Arc<Chain>,
    /// The same for access lines.
    pub(crate) line: Arc<access::Secured>,
}

impl Secured {
    fn new(session: Session, chain: Arc<Chain>) -> Self {
        let peer = session.peer.as_ref();
        let line = access::Secured {
            version: session.version,
            server_name: session.server_name.clone().unwrap_or_default(),
            subject: peer.map_or_else(Default::default, |peer| {
                peer.certificate.subject.as_str().into()
            }),
        };
        Secured {
            session,
            chain,
            line: Arc::new(line),
        }
    }
}

/// What a client speaks.
enum Spoken {
    Cleartext(TcpStream, Vec<u8>),
    Tls(Box<TlsStream<TcpStream>>, Arc<Chain>),
}

/// Finds out what a client speaks, shakes hands where that is TLS, and serves it. `first` was read before.
pub(super) async fn begin(stream: TcpStream, first: Vec<u8>, opening: Opening) {
    let deadline = Instant::now() + opening.shared.limits.timeouts.handshake;
    let spoken = tokio::select! {
        biased;
        () = opening.listener.stop.cancelled() => return,
        spoken = timeout_at(deadline, Box::pin(speak(stream, first, &opening))) => spoken,
    };
    let meters = opening.listener.meters.clone();
    match spoken {
        Ok(Ok(Spoken::Cleartext(stream, first))) => {
            let connection = opening.connection(&stream, None);
            Box::pin(connection::run(stream, first, connection)).await;
        }
        Ok(Ok(Spoken::Tls(stream, chain))) => {
            let session = Session::of(stream.get_ref().1);
            meters.shaken(&session);
            let secured = Box::new(Secured::new(session, chain));
            let connection = opening.connection(stream.get_ref().0, Some(secured));
            meters.open.inc();
            Box::pin(connection::run(stream, Vec::new(), connection)).await;
            meters.open.dec();
        }
        Ok(Err(Ended::Failed(failed))) => {
            meters.failed(failed.name());
            debug!(error = %failed, address = %opening.listener.address, "no handshake");
        }
        Ok(Err(Ended::Validated)) => {
            debug!(address = %opening.listener.address, "an authority has seen its challenge")
        }
        Ok(Err(Ended::Crowded)) => meters.failed("crowded"),
        // It may have been about to send cleartext; nobody knows.
        Err(_) => meters.failed("timeout"),
        Ok(Err(Ended::Silent)) => (),
    }
}

/// Why a connection is not served.
enum Ended {
    /// The client left without a word.
    Silent,
    /// An authority has seen what it wanted to.
    Validated,
    /// Too many shake hands at once.
    Crowded,
    Failed(Failed),
}

async fn speak(
    mut stream: TcpStream,
    mut first: Vec<u8>,
    opening: &Opening,
) -> Result<Spoken, Ended> {
    // Waiting for the first byte keeps nobody else from shaking hands.
    if first.is_empty() {
        first.reserve(STEP_BYTES);
        match stream.read_buf(&mut first).await {
            Ok(0) | Err(_) => return Err(Ended::Silent),
            Ok(_) => (),
        }
    }
    if first[0] != HANDSHAKE {
        return Ok(Spoken::Cleartext(stream, first));
    }
    let (listener, shared) = (&opening.listener, &opening.shared);
    let under_way = UnderWay::begin(&listener.meters.under_way, shared.limits.handshakes_max);
    let _under_way = under_way.ok_or(Ended::Crowded)?;
    let hello = hello(stream, first).await.map_err(Ended::Failed)?;
    let turns = &shared.turns[opening.core];
    if let Some(config) = challenge(opening, &hello) {
        let answered = hello.answer(config, turns).await;
        let mut stream = answered.map_err(Ended::Failed)?;
        // It has nothing to say, and neither have we (RFC 8737).
        _ = stream.shutdown().await;
        return Err(Ended::Validated);
    }
    let chain = {
        let front = listener.front.load();
        let name = hello.server_name();
        let found = front
            .chains
            .as_ref()
            .and_then(|chains| chains.find(name.as_deref()));
        found.cloned()
    };
    let config = chain.as_ref().and_then(|chain| chain.terminator.config());
    let (Some(chain), Some(config)) = (chain, config) else {
        return Err(Ended::Failed(hello.refuse().await));
    };
    match hello.answer(config, turns).await {
        Ok(stream) => Ok(Spoken::Tls(stream, chain)),
        Err(failed) => Err(Ended::Failed(failed)),
    }
}

/// Returns how an authority that wants to see whose the name is gets its answer.
fn challenge(opening: &Opening, hello: &Hello) -> Option<Arc<ServerConfig>> {
    let front = opening.listener.front.load();
    let ordered = front.ordered.as_ref()?;
    match hello.offers(ordered::PROTOCOL) {
        true => ordered.handshake(&hello.server_name()?),
        false => None,
    }
}

/// One of the handshakes that are under way.
struct UnderWay<'c>(&'c AtomicUsize);

impl<'c> UnderWay<'c> {
    fn begin(count: &'c AtomicUsize, most: usize) -> Option<Self> {
        let one = UnderWay(count);
        (count.fetch_add(1, Relaxed) < most).then_some(one)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
