//! The body of an upstream's answer while it streams to the client. At its end the connection goes back to the pool.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::cluster::Entered;
use super::send::Hold;
use crate::body::{Broken, Idle};

/// An upstream's body with its limits.
pub(crate) struct Streamed {
    body: Incoming,
    idle: Idle,
    /// When the whole request is over.
    deadline: Option<Instant>,
    deadline_sleep: Option<Pin<Box<Sleep>>>,
    hold: Option<Hold>,
    _entered: Entered,
}

impl Streamed {
    pub(crate) fn new(
        body: Incoming,
        idle: Duration,
        deadline: Option<Instant>,
        hold: Hold,
        entered: Entered,
    ) -> Self {
        let mut streamed = Streamed {
            body,
            idle: Idle::new(idle),
            deadline,
            deadline_sleep: None,
            hold: Some(hold),
            _entered: entered,
        };
        if streamed.body.is_end_stream() {
            streamed.ended();
        }
        streamed
    }

    fn ended(&mut self) {
        if let Some(Hold::Http1(lease)) = self.hold.take() {
            lease.give_back();
        }
    }

    /// Is ready when nothing came for too long, or the request's time is over.
    fn poll_limits(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        if self.idle.poll(cx).is_ready() {
            return Poll::Ready(Broken::Idle(self.idle.limit()));
        }
        if let Some(deadline) = self.deadline {
            let sleep = self
                .deadline_sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if sleep.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Broken::Deadline);
            }
        }
        Poll::Pending
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => return this.poll_limits(cx).map(|broken| Some(Err(broken))),
            Poll::Ready(frame) => frame,
        };
        this.idle.moved();
        match &frame {
            Some(Ok(_)) if this.body.is_end_stream() => this.ended(),
            Some(Ok(_)) => (),
            Some(Err(_)) => this.hold = None,
            None => this.ended(),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Broken::Read)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
