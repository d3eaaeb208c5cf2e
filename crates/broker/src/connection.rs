//! One client's connection: frames come in, answers go out in the order of the requests.
//!
//! As in Kafka, a request begins when those before it are answered. Produce requests are the
//! exception: those that follow each other enter the write path at once, in order, so that one flush serves
//! many.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use kafka::frame::FrameError;
use kit::memory::{Memory, Share};
use tls::accept;
use tls::server::Terminator;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Address;
use crate::auth::{Mechanism, Principal};
use crate::core::Core;
use crate::dispatch::{self, Answer, Client, Failure};
use crate::listener::Serving;
use crate::share::sessions::Connection;
use crate::straight::{self, Sink};
use crate::tally::Tally;

use input::{Input, PATIENCE, PATIENCE_FAVOURED, PROGRESS_MIN};

mod input;
pub(crate) mod sasl;

/// Most pieces of an answer that go to the socket in one call.
const PIECES_MAX: usize = 64;

/// How long a client may take to read the next bytes of an answer; it holds memory that others need.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to shake hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How long a client is waited for that does not take our goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// How long a client that sends nothing more, and may have left, is still given answers that wait for something.
const LEFT_MAX: Duration = Duration::from_secs(10);

type Pending = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

/// Serves one connection until the client leaves, misbehaves, is idle for too long, or we stop.
pub(crate) async fn serve(
    core: Arc<Core>,
    serving: Arc<Serving>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    core.metrics.connections.inc();
    serving.door.connections.inc();
    let listener = &serving.listener.name;
    match open(&core, &serving, stream, peer, stop).await {
        Ok(()) => (),
        Err(End::Io(error)) => debug!(%peer, %error, "connection broke"),
        Err(End::Refused(Failure::Expired)) => {
            serving.door.expired.inc();
            debug!(%peer, %listener, "closing a connection whose session is over");
        }
        Err(End::Refused(failure)) => warn!(%peer, %listener, %failure, "closing the connection"),
        Err(End::Frame(error)) => warn!(%peer, %listener, %error, "closing the connection"),
        Err(End::Stalled) => warn!(%peer, after = ?STALL_MAX, "client does not read, closing"),
        Err(End::Hoarding) => {
            core.metrics.hoarders.inc();
            warn!(%peer, %listener, after = ?PATIENCE, "client holds memory that others wait for, closing");
        }
        Err(End::Idle) => debug!(%peer, "closing an idle connection"),
        Err(End::Slow(after)) => {
            warn!(%peer, %listener, ?after, "client does not say who it is, closing");
        }
        Err(End::Certificate) => {
            warn!(%peer, %listener, "there is no certificate that can be shown, closing the connection");
        }
        Err(End::Handshake(error)) => {
            serving.door.shaken_in_vain(error.name());
            let why = std::error::Error::source(&error).map(ToString::to_string);
            debug!(%peer, %listener, %error, why, "no TLS came about");
        }
        Err(End::Unproven { mechanism, why }) => {
            serving.door.failed(mechanism);
            let mechanism = mechanism.map_or("none", Mechanism::name);
            warn!(%peer, %listener, mechanism, %why, "authentication failed, closing the connection");
        }
    }
    serving.door.connections.dec();
    core.metrics.connections.dec();
}

/// Why a connection ends before the client closes it.
enum End {
    Io(io::Error),
    Frame(FrameError),
    Refused(Failure),
    Idle,
    Stalled,
    /// It lets us wait while others wait for the memory that it holds.
    Hoarding,
    Slow(Duration),
    /// There is none to be shown.
    Certificate,
    Handshake(accept::Failed),
    /// It is not known who the client is.
    Unproven {
        mechanism: Option<Mechanism>,
        why: String,
    },
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Io(error)
    }
}

async fn open(
    core: &Arc<Core>,
    serving: &Arc<Serving>,
    stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) -> Result<(), End> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let reached = serving
        .listener
        .advertised
        .clone()
        .unwrap_or_else(|| Address {
            host: local.ip().to_canonical().to_string(),
            port: local.port(),
        });
    let client = Client {
        core: core.clone(),
        serving: serving.clone(),
        peer,
        reached,
        principal: Principal::Anonymous,
        session: None,
        stop,
        connection: Arc::new(Connection::new(core.shares.clone())),
    };
    if let Some(terminator) = &serving.listener.tls {
        return encrypted(client, terminator, stream).await;
    }
    let (reader, writer) = stream.into_split();
    converse(client, reader, writer).await
}

/// Shakes hands first; a certificate of the client's says who it is, and the name that it asks for where it reaches us.
async fn encrypted(
    mut client: Client,
    terminator: &Terminator,
    stream: TcpStream,
) -> Result<(), End> {
    let serving = client.serving.clone();
    let config = terminator.config().ok_or(End::Certificate)?;
    let shaking = async {
        let hello = accept::hello(stream, Vec::new()).await?;
        hello.answer(config, &client.core.turns).await
    };
    let limit = HANDSHAKE_MAX.min(serving.listener.idle_max);
    let shaken = time::timeout(limit, shaking).await;
    let stream = shaken
        .map_err(|_| End::Slow(limit))?
        .map_err(End::Handshake)?;
    serving.door.handshakes.inc();
    let session = accept::Session::of(stream.get_ref().1);
    if serving.listener.advertised.is_none() {
        let name = session.server_name.map(String::from);
        if let Some(name) = name.or_else(|| named(terminator, &client.reached.host)) {
            client.reached.host = name;
        }
    }
    if let Some(peer) = session.peer {
        client.principal = Principal::user(peer.certificate.principal);
    }
    let (reader, writer) = tokio::io::split(stream);
    converse(client, reader, writer).await
}

/// Returns a name that the certificate is for, where it is not for the address that a client has used. Java asks for no name that
/// has no dot.
fn named(terminator: &Terminator, address: &str) -> Option<String> {
    if terminator.covers(address) {
        return None;
    }
    let shown = terminator.shown();
    let mut names = shown.iter().flat_map(|shown| &shown.certificate.names);
    names.find(|name| !name.starts_with('*')).cloned()
}

/// Serves a client that is reached without a socket; returns whether it has behaved.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn serve_apart<R, W>(client: Client, reader: R, writer: W) -> bool
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    converse(client, reader, writer).await.is_ok()
}

/// Serves a client, and says goodbye: within TLS an end without that could be anybody's doing.
async fn converse<R, W>(client: Client, reader: R, mut writer: W) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    let result = Box::pin(talk(client, reader, &mut writer)).await;
    // A client that has left or does not read need not hear it.
    _ = time::timeout(GOODBYE_MAX, writer.shutdown()).await;
    result
}

async fn talk<R, W>(mut client: Client, reader: R, writer: &mut W) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    let core = client.core.clone();
    let listener = &client.serving.clone().listener;
    let stop = client.stop.clone();
    let mut input = Input::new(&core.memory, reader, listener.request_bytes_max);
    if listener.protocol.has_sasl() {
        let proving = sasl::prove(&mut client, &mut input, writer);
        let proven = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            proven = proving => proven,
        };
        if !proven? {
            return Ok(());
        }
    }
    let client = Arc::new(client);
    let mut pending: VecDeque<Request> = VecDeque::new();
    let talked = exchange(&core, &client, &mut input, writer, &mut pending).await;
    leave(pending);
    talked
}

async fn exchange<R, W>(
    core: &Arc<Core>,
    client: &Arc<Client>,
    input: &mut Input<R>,
    writer: &mut W,
    pending: &mut VecDeque<Request>,
) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: Sink,
{
    let listener = &client.serving.listener;
    let stop = &client.stop;
    let mut open = true;
    let mut left: Option<Instant> = None;
    let mut muted: Option<Instant> = None;
    let mut tally = Tally::new(core.clone());
    loop {
        if !open && pending.is_empty() {
            return Ok(());
        }
        let held: usize = pending.iter().map(|request| request.memory.bytes()).sum();
        let room = pending.len() < core.limits.requests_in_flight_max
            && held < core.limits.connection_bytes_max;
        let accepting = open && room && muted.is_none();
        let alone = pending.is_empty();
        tokio::select! {
            biased;
            answer = front(pending), if !pending.is_empty() => {
                let request = pending.pop_front();
                if let Ok(Answer { mute: Some(pause), .. }) = &answer
                    && open
                {
                    muted = muted.max(Some(Instant::now() + *pause));
                }
                if muted.is_none() {
                    advance(client, &mut tally, pending);
                }
                let answer = answer.map_err(End::Refused)?;
                let size = answer.pieces.iter().map(Bytes::len).sum();
                tally.answered(size, answer.mute);
                send(writer, Some(&core.memory), answer).await?;
                drop(request);
                if let Some(session) = &client.session {
                    session.check()?;
                }
            }
            () = stop.cancelled(), if open => {
                open = false;
                muted = None;
                advance(client, &mut tally, pending);
            }
            () = time::sleep_until(muted.unwrap_or_else(Instant::now)), if muted.is_some() => {
                muted = None;
                advance(client, &mut tally, pending);
            }
            frame = input.next(alone), if accepting => match frame? {
                None => {
                    open = false;
                    left = Some(Instant::now() + LEFT_MAX);
                }
                Some((frame, memory)) => {
                    pending.push_back(Request { work: Work::Waiting(frame), memory });
                    advance(client, &mut tally, pending);
                }
            },
            () = time::sleep_until(left.unwrap_or_else(Instant::now)), if left.is_some() => {
                return Ok(());
            }
            () = time::sleep(listener.idle_max), if accepting && alone => {
                return Err(End::Idle);
            }
        }
    }
}

/// A request that is not answered yet.
struct Request {
    work: Work,
    /// The share of the memory for requests that this one holds.
    memory: Share,
}

enum Work {
    Waiting(Bytes),
    /// The flag says that the next one need not wait for the answer.
    Begun(bool, Pending),
}

/// Begins the requests that need not wait for an answer to an earlier one.
fn advance(client: &Arc<Client>, tally: &mut Tally, pending: &mut VecDeque<Request>) {
    for request in pending {
        if let Work::Waiting(frame) = &mut request.work {
            let (passes, answer) = dispatch::begin(client, tally, std::mem::take(frame));
            request.work = Work::Begun(passes, answer);
        }
        if let Work::Begun(false, _) = request.work {
            return;
        }
    }
}

async fn front(pending: &mut VecDeque<Request>) -> Result<Answer, Failure> {
    poll_fn(|context| match pending.front_mut() {
        Some(Request {
            work: Work::Begun(_, answer),
            ..
        }) => answer.as_mut().poll(context),
        _ => std::task::Poll::Pending,
    })
    .await
}

/// Finishes what was begun for a client that has left: its records are on their way, and hold their memory until they are there.
fn leave(pending: VecDeque<Request>) {
    let begun: Vec<Request> = pending
        .into_iter()
        .filter(|request| matches!(request.work, Work::Begun(true, _)))
        .collect();
    if begun.is_empty() {
        return;
    }
    tokio::spawn(async move {
        for request in begun {
            if let Work::Begun(_, answer) = request.work {
                _ = answer.await; // nobody is there to be told
            }
        }
    });
}

async fn send<W: Sink>(writer: &mut W, memory: Option<&Memory>, answer: Answer) -> Result<(), End> {
    let mut pace = Pace::new(answer.memory.as_ref());
    let mut pieces: VecDeque<Bytes> = answer.pieces.into();
    pieces.retain(|piece| !piece.is_empty());
    let straight = |piece: &Bytes| match answer.straight.is_empty() {
        true => None,
        false => answer.straight.get(straight::number(piece)?),
    };
    while let Some(first) = pieces.front() {
        if let Some(stretch) = straight(first) {
            let mut sent = 0;
            while sent < stretch.len {
                let sending = straight::send(writer, stretch, sent);
                let Ok(more) = time::timeout_at(pace.until, sending).await else {
                    pace.check(memory.is_some_and(Memory::is_short))?;
                    continue;
                };
                let more = more?;
                pace.moved += more;
                sent += more;
            }
            pieces.pop_front();
            continue;
        }
        let slices: Vec<io::IoSlice<'_>> = pieces
            .iter()
            .take(PIECES_MAX)
            .take_while(|piece| straight(piece).is_none())
            .map(|piece| io::IoSlice::new(piece))
            .collect();
        let writing = time::timeout_at(pace.until, writer.write_vectored(&slices));
        let Ok(written) = writing.await else {
            pace.check(memory.is_some_and(Memory::is_short))?;
            continue;
        };
        let mut written = written?;
        if written == 0 {
            return Err(End::Io(io::ErrorKind::WriteZero.into()));
        }
        pace.moved += written;
        while let Some(piece) = pieces.front_mut() {
            if piece.len() > written {
                piece.advance(written);
                break;
            }
            written -= piece.len();
            pieces.pop_front();
        }
    }
    // TLS keeps what does not fill a record.
    loop {
        match time::timeout_at(pace.until, writer.flush()).await {
            Ok(flushed) => return Ok(flushed?),
            Err(_) => pace.check(memory.is_some_and(Memory::is_short))?,
        }
    }
}

/// How a client takes its answer.
struct Pace {
    patience: Duration,
    /// Until when it is not looked at.
    until: Instant,
    /// When it has last taken something, as far as we know.
    took: Instant,
    /// What it has taken since it was looked at.
    moved: usize,
}

impl Pace {
    fn new(memory: Option<&Share>) -> Self {
        let now = Instant::now();
        let patience = match memory.is_some_and(Share::is_favoured) {
            true => PATIENCE_FAVOURED,
            false => PATIENCE,
        };
        Self {
            patience,
            until: now + patience,
            took: now,
            moved: 0,
        }
    }

    fn check(&mut self, short: bool) -> Result<(), End> {
        let now = Instant::now();
        if self.moved == 0 && now >= self.took + STALL_MAX {
            return Err(End::Stalled);
        }
        if self.moved < PROGRESS_MIN && short {
            return Err(End::Hoarding);
        }
        if self.moved > 0 {
            self.took = now;
        }
        (self.moved, self.until) = (0, now + self.patience);
        Ok(())
    }
}
