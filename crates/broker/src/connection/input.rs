//! What arrives on a connection, within the memory that all connections share.
//!
//! Bytes are counted before they are read: a connection holds what has arrived, whatever it has announced. Where memory
//! is short the socket is not read, and TCP holds the client back; it sees no error. A client that lets us wait with
//! half a frame in hand while others wait for that memory loses its connection.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka::frame;
use kit::memory::{Memory, Need, Share};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{self, Instant};

use super::End;

/// Bytes that are read at once, if there is room for them.
const READ_BYTES: usize = 64 * 1024;
/// Most bytes that room is made for at once while the rest of a large frame is awaited.
const READ_BYTES_MAX: usize = 1 << 20;
/// Bytes that a connection may have when there is no room: enough for most requests that are not Produce.
const PROBE_BYTES: usize = 1024;

/// How long a client may let us wait for the rest of a frame, or not read its answer, while others wait for the memory.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long one may that draws on a reserve.
pub(super) const PATIENCE_FAVOURED: Duration = Duration::from_secs(3);
/// How long one may draw on a reserve in all.
const FAVOUR_MAX: Duration = Duration::from_secs(30);
/// Bytes that must move in that time, so that it does not count as waiting.
pub(super) const PROGRESS_MIN: usize = 64 * 1024;

/// What has arrived. Reading can be given up at any await and be resumed without loss.
pub(super) struct Input<R> {
    reader: R,
    /// The size of one request.
    pub(super) bytes_max: usize,
    received: BytesMut,
    /// What `received` takes.
    share: Share,
    /// Since when we have waited for the rest of a frame, and what of it had arrived by then.
    waiting: Option<(Instant, usize)>,
    favoured: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(memory: &Memory, reader: R, bytes_max: usize) -> Self {
        Self {
            reader,
            bytes_max: bytes_max.min(memory.bound() / 2),
            received: BytesMut::new(),
            share: memory.share(),
            waiting: None,
            favoured: None,
        }
    }

    /// Returns the next frame with the memory that it takes, or `None` when the client has closed its side.
    ///
    /// `alone` says that no earlier request waits for its answer. Where one does, and there is no memory, this waits until
    /// it is given up, for that answer frees some.
    pub(super) async fn next(&mut self, alone: bool) -> Result<Option<(Bytes, Share)>, End> {
        loop {
            let announced = frame::announced(&self.received, self.bytes_max).map_err(End::Frame)?;
            let here = self.received.len();
            let (least, missing) = match announced {
                Some(size) if 4 + size <= here => {
                    let limit = self.bytes_max;
                    let frame = frame::split(&mut self.received, limit).map_err(End::Frame)?;
                    let share = self.share.split(4 + size);
                    (self.waiting, self.favoured) = (None, None);
                    return Ok(frame.map(|frame| (frame, share)));
                }
                Some(size) => ((4 + size - here).min(READ_BYTES), 4 + size - here),
                None => (PROBE_BYTES, READ_BYTES),
            };
            let most = missing
                .max(READ_BYTES)
                .min(here.clamp(READ_BYTES, READ_BYTES_MAX));
            if self.read(least, most, alone).await? == Some(0) {
                return Ok(None);
            }
        }
    }

    /// Reads up to `most` bytes, as soon as there are some, and there is memory for `least` more of them; `None` when it
    /// is worth another try.
    async fn read(&mut self, least: usize, most: usize, alone: bool) -> Result<Option<usize>, End> {
        let here = self.received.len();
        let patience = match self.favoured {
            Some(_) => PATIENCE_FAVOURED,
            None => PATIENCE,
        };
        if here > 0 {
            self.waiting.get_or_insert_with(|| (Instant::now(), here));
        }
        let waited = self.waiting;
        let reading = self.read_when_ready(least, most, alone);
        let (bytes, short) = match waited {
            None => reading.await?,
            Some((began, before)) => match time::timeout_at(began + patience, reading).await {
                Ok(read) => read?,
                Err(_) => {
                    let favour_over = self.favoured.is_some_and(|at| at.elapsed() > FAVOUR_MAX);
                    let stands = here - before < PROGRESS_MIN;
                    if self.share.memory().is_short() && (stands || favour_over) {
                        return Err(End::Hoarding);
                    }
                    self.waiting = None;
                    return Ok(None);
                }
            },
        };
        if bytes > 0 && short {
            let here = self.received.len();
            let whole = frame::announced(&self.received, self.bytes_max).map_err(End::Frame)?;
            if whole.is_none_or(|size| 4 + size > here) {
                let missing = whole.map_or(PROBE_BYTES, |size| 4 + size - here);
                self.share
                    .grow(here + missing.min(READ_BYTES), Need::Pressing)
                    .await;
                if self.share.is_favoured() {
                    self.favoured.get_or_insert_with(Instant::now);
                }
                // It was we who waited.
                self.waiting = None;
            }
        }
        Ok(Some(bytes))
    }

    /// Returns the bytes that were read, and whether there was no memory for more than a few.
    async fn read_when_ready(
        &mut self,
        least: usize,
        most: usize,
        alone: bool,
    ) -> io::Result<(usize, bool)> {
        poll_fn(|context| {
            let here = self.received.len();
            let short = !self.share.try_grow(here + least, here + most);
            let room = match short {
                false => self.share.bytes() - here,
                true if alone => PROBE_BYTES,
                true => return Poll::Pending,
            };
            self.received.reserve(room);
            let mut into = (&mut self.received).limit(room);
            let read = pin!(self.reader.read_buf(&mut into)).poll(context);
            self.share.insist(self.received.len());
            self.share.shrink(self.received.len());
            read.map_ok(|bytes| (bytes, short))
        })
        .await
    }
}
