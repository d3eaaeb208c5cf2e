//! Bodies on their way through: streamed, with a limit on every wait, and nothing kept longer than a frame.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::{BoxBody, UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::access::Ticket;
use crate::exchange::shadow::Tee;
use crate::upstream::answer::Streamed;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other side closed, reset or broke the framing.
    #[error("the body broke off")]
    Read(#[source] hyper::Error),
    /// No byte came for too long.
    #[error("no byte of the body came for {0:?}")]
    Idle(Duration),
    /// The whole request took too long.
    #[error("the body did not end in time")]
    Deadline,
    /// More bytes than the reader takes.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    /// A handler's own failure.
    #[error("the answer could not be made")]
    Handler(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A request's body on its way to a backend.
pub struct RequestBody {
    source: Source,
    idle: Idle,
    received: Option<Arc<AtomicU64>>,
    /// Gets a copy of what passes.
    copy: Option<Tee>,
}

enum Source {
    Empty,
    Bytes(Option<Bytes>),
    Stream(Incoming),
    Boxed(BoxBody<Bytes, Broken>),
}

impl RequestBody {
    pub(crate) fn empty() -> Self {
        RequestBody {
            source: Source::Empty,
            idle: Idle::new(Duration::ZERO),
            received: None,
            copy: None,
        }
    }

    pub(crate) fn bytes(bytes: Bytes) -> Self {
        RequestBody {
            source: Source::Bytes(Some(bytes)),
            idle: Idle::new(Duration::ZERO),
            received: None,
            copy: None,
        }
    }

    pub(crate) fn stream(body: Incoming, idle: Duration, received: Arc<AtomicU64>) -> Self {
        RequestBody {
            source: Source::Stream(body),
            idle: Idle::new(idle),
            received: Some(received),
            copy: None,
        }
    }

    /// Returns a body that is made of another one, with its own limits.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = Broken> + Send + Sync + 'static,
    {
        RequestBody {
            source: Source::Boxed(body.boxed()),
            idle: Idle::new(Duration::ZERO),
            received: None,
            copy: None,
        }
    }

    /// Returns whether more of it may have to come from the client.
    pub(crate) fn is_streamed(&self) -> bool {
        !matches!(self.source, Source::Empty | Source::Bytes(_))
    }

    /// Gives a copy of what passes from now on to somebody else.
    pub(crate) fn copy_to(&mut self, tee: Tee) {
        self.copy = Some(tee);
    }

    /// Reads the next frame from where it comes from.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let body = match &mut self.source {
            Source::Empty => return Poll::Ready(None),
            Source::Bytes(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Source::Boxed(body) => return Pin::new(body).poll_frame(cx),
            Source::Stream(body) => body,
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending => {
                ready!(self.idle.poll(cx));
                Poll::Ready(Some(Err(Broken::Idle(self.idle.limit))))
            }
            Poll::Ready(frame) => {
                self.idle.moved();
                if let (Some(Ok(frame)), Some(received)) = (&frame, &self.received)
                    && let Some(data) = frame.data_ref()
                {
                    received.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Broken::Read)))
            }
        }
    }

    /// Reads the whole body when it has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Broken::TooLong`] as soon as it is known to be longer, and whatever breaks the body before its end.
    pub async fn collect_max(mut self, bytes_max: usize) -> Result<Bytes, Broken> {
        if self.size_hint().lower() > bytes_max as u64 {
            return Err(Broken::TooLong(bytes_max));
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if first.len() + rest.len() + data.len() > bytes_max {
                return Err(Broken::TooLong(bytes_max));
            }
            if first.is_empty() {
                first = data;
            } else {
                rest.extend_from_slice(&data);
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        Ok(whole.freeze())
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let frame = ready!(self.poll_source(cx));
        if let Some(copy) = &self.copy {
            match &frame {
                Some(Ok(frame)) => copy.take(frame),
                Some(Err(_)) => (),
                None => copy.end(),
            }
            if self.is_end_stream() && !matches!(frame, Some(Err(_))) {
                copy.end();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Bytes(None) => true,
            Source::Bytes(Some(_)) => false,
            Source::Stream(body) => body.is_end_stream(),
            Source::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Bytes(None) => SizeHint::with_exact(0),
            Source::Bytes(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Source::Stream(body) => body.size_hint(),
            Source::Boxed(body) => body.size_hint(),
        }
    }
}

/// An answer's body on its way to the client.
pub struct ResponseBody {
    source: Answer,
    /// Told about every frame; writes the access line when the body has ended.
    ticket: Option<Box<Ticket>>,
}

enum Answer {
    Bytes(Option<Bytes>),
    Upstream(Streamed),
    Boxed(UnsyncBoxBody<Bytes, Broken>),
}

impl ResponseBody {
    /// Returns a body without a byte.
    pub fn empty() -> Self {
        ResponseBody {
            source: Answer::Bytes(None),
            ticket: None,
        }
    }

    /// Returns a body of known bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
        ResponseBody {
            source: Answer::Bytes(bytes),
            ticket: None,
        }
    }

    /// Returns a body that is made while it is sent.
    pub fn stream<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let body = body
            .map_err(|error| Broken::Handler(error.into()))
            .boxed_unsync();
        ResponseBody {
            source: Answer::Boxed(body),
            ticket: None,
        }
    }

    /// Returns a body that is made of another one on its way.
    pub(crate) fn boxed<B>(body: B) -> Self
    where
        B: Body<Data = Bytes, Error = Broken> + Send + 'static,
    {
        ResponseBody {
            source: Answer::Boxed(body.boxed_unsync()),
            ticket: None,
        }
    }

    pub(crate) fn upstream(body: Streamed) -> Self {
        ResponseBody {
            source: Answer::Upstream(body),
            ticket: None,
        }
    }

    pub(crate) fn with_ticket(mut self, ticket: Box<Ticket>) -> Self {
        self.ticket = Some(ticket);
        self
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        ResponseBody::empty()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(ticket) = &this.ticket {
            ticket.taken();
        }
        let frame = match &mut this.source {
            Answer::Bytes(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Answer::Upstream(body) => ready!(Pin::new(body).poll_frame(cx)),
            Answer::Boxed(body) => ready!(Pin::new(body).poll_frame(cx)),
        };
        if let Some(ticket) = &mut this.ticket {
            match &frame {
                Some(Ok(frame)) => ticket.sent(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(error)) => ticket.cut(error),
                None => ticket.complete(),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Answer::Bytes(bytes) => bytes.is_none(),
            Answer::Upstream(body) => body.is_end_stream(),
            Answer::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Answer::Bytes(None) => SizeHint::with_exact(0),
            Answer::Bytes(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Answer::Upstream(body) => body.size_hint(),
            Answer::Boxed(body) => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.ticket.is_some()
            && self.is_end_stream()
            && let Some(ticket) = &mut self.ticket
        {
            ticket.complete();
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}

/// A limit on the time between two frames. It costs nothing while frames come without waiting.
pub(crate) struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Idle {
    pub(crate) fn new(limit: Duration) -> Self {
        Idle {
            limit,
            sleep: None,
            waiting: false,
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// A frame came: the next wait starts anew.
    pub(crate) fn moved(&mut self) {
        self.waiting = false;
    }

    /// Is ready when nothing moved for the whole limit.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = Instant::now().checked_add(self.limit) else {
            return Poll::Pending;
        };
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !self.waiting {
                    sleep.as_mut().reset(deadline);
                }
                sleep
            }
            None => self
                .sleep
                .insert(Box::pin(tokio::time::sleep_until(deadline))),
        };
        self.waiting = true;
        sleep.as_mut().poll(cx)
    }
}
