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

use bytes::{Buf, Bytes, BytesMut};
use kafka::frame::{self, FrameError};
use tls::accept;
use tls::server::Terminator;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Address;
use crate::auth::{Mechanism, Principal};
use crate::core::Core;
use crate::dispatch::{self, Answer, Client, Failure};
use crate::listener::Serving;
use crate::share::sessions::Connection;
use crate::tally::Tally;

pub(crate) mod sasl;

/// Room that is kept for reading.
const READ_BYTES: usize = 64 * 1024;
/// Most pieces of an answer that go to the socket in one call.
const PIECES_MAX: usize = 64;

/// How long a client may take to read the next bytes of an answer; it holds memory that others need.
const STALL_MAX: Duration = Duration::from_secs(60);

/// How long a client may take to shake hands.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);
/// How long a client is waited for that does not take our goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

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

/// Serves a client, and says goodbye: within TLS an end without that could be anybody's doing.
async fn converse<R, W>(client: Client, reader: R, mut writer: W) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let result = Box::pin(talk(client, reader, &mut writer)).await;
    // A client that has left or does not read need not hear it.
    _ = time::timeout(GOODBYE_MAX, writer.shutdown()).await;
    result
}

async fn talk<R, W>(mut client: Client, reader: R, writer: &mut W) -> Result<(), End>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let core = client.core.clone();
    let listener = &client.serving.clone().listener;
    let stop = client.stop.clone();
    let mut input = Input::new(core.clone(), reader, listener.request_bytes_max);
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
    let mut open = true;
    let mut muted: Option<Instant> = None;
    let mut tally = Tally::new(core.clone());
    loop {
        if !open && pending.is_empty() {
            return Ok(());
        }
        let room = pending.len() < core.limits.requests_in_flight_max;
        let accepting = open && room && muted.is_none();
        tokio::select! {
            biased;
            answer = front(&mut pending), if !pending.is_empty() => {
                pending.pop_front();
                if let Ok(Answer { mute: Some(pause), .. }) = &answer
                    && open
                {
                    muted = muted.max(Some(Instant::now() + *pause));
                }
                if muted.is_none() {
                    advance(&client, &mut tally, &mut pending);
                }
                let answer = answer.map_err(End::Refused)?;
                let size = answer.pieces.iter().map(Bytes::len).sum();
                tally.answered(size, answer.mute);
                send(writer, answer).await?;
                if let Some(session) = &client.session {
                    session.check()?;
                }
            }
            () = stop.cancelled(), if open => {
                open = false;
                muted = None;
                advance(&client, &mut tally, &mut pending);
            }
            () = time::sleep_until(muted.unwrap_or_else(Instant::now)), if muted.is_some() => {
                muted = None;
                advance(&client, &mut tally, &mut pending);
            }
            frame = input.next(), if accepting => match frame? {
                None => open = false,
                Some((frame, memory)) => {
                    pending.push_back(Request { work: Work::Waiting(frame), _memory: memory });
                    advance(&client, &mut tally, &mut pending);
                }
            },
            () = time::sleep(listener.idle_max), if accepting && pending.is_empty() => {
                return Err(End::Idle);
            }
        }
    }
}

/// A request that is not answered yet.
struct Request {
    work: Work,
    /// The share of the memory for requests that this one holds.
    _memory: OwnedSemaphorePermit,
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

/// What has arrived. Reading can be given up at any await and be resumed without loss.
struct Input<R> {
    core: Arc<Core>,
    reader: R,
    /// The size of one request.
    bytes_max: usize,
    received: BytesMut,
    memory: Option<OwnedSemaphorePermit>,
}

impl<R: AsyncRead + Unpin> Input<R> {
    fn new(core: Arc<Core>, reader: R, bytes_max: usize) -> Self {
        Self {
            core,
            reader,
            bytes_max,
            received: BytesMut::new(),
            memory: None,
        }
    }

    /// Returns the next frame, or `None` when the client has closed its side.
    async fn next(&mut self) -> Result<Option<(Bytes, OwnedSemaphorePermit)>, End> {
        let limit = self.bytes_max;
        loop {
            if let Some(length) = self.received.first_chunk()
                && self.memory.is_none()
            {
                let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
                let share = length
                    .clamp(1, limit)
                    .min(self.core.limits.requests_bytes_max);
                let share = u32::try_from(share).unwrap_or(u32::MAX);
                let permit = self
                    .core
                    .request_memory
                    .clone()
                    .acquire_many_owned(share)
                    .await;
                self.memory = permit.ok();
            }
            if let Some(frame) = frame::split(&mut self.received, limit).map_err(End::Frame)?
                && let Some(memory) = self.memory.take()
            {
                return Ok(Some((frame, memory)));
            }
            self.received.reserve(READ_BYTES);
            if self.reader.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(writer: &mut W, answer: Answer) -> Result<(), End> {
    let mut pieces: VecDeque<Bytes> = answer.pieces.into();
    pieces.retain(|piece| !piece.is_empty());
    while !pieces.is_empty() {
        let slices: Vec<io::IoSlice<'_>> = pieces
            .iter()
            .take(PIECES_MAX)
            .map(|piece| io::IoSlice::new(piece))
            .collect();
        let writing = time::timeout(STALL_MAX, writer.write_vectored(&slices));
        let mut written = writing.await.map_err(|_| End::Stalled)??;
        if written == 0 {
            return Err(End::Io(io::ErrorKind::WriteZero.into()));
        }
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
    let flushing = time::timeout(STALL_MAX, writer.flush());
    flushing.await.map_err(|_| End::Stalled)??;
    Ok(())
}
