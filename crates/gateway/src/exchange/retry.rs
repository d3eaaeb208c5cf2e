//! Tries a request until an answer is good enough: each time on another endpoint, after a wait, within the budget.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body::Body as _;
use tokio::time::{sleep, timeout};

use observe::flags::Flags;

use super::proxy::{Answer, Sending};
use crate::body::{Broken, RequestBody};
use crate::policy::retry::Retry;
use crate::upstream::breaker::Retrying;
use crate::upstream::send::{self, Failure};

/// Largest body that is kept to be sent again.
const REPLAY_BYTES_MAX: usize = 64 << 10;
const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");

impl Sending {
    /// Tries one endpoint after the other.
    pub(super) async fn retried(
        &mut self,
        core: usize,
        retry: Arc<Retry>,
    ) -> Result<Answer, Failure> {
        let mut again = Again::prepare(self.request.take(), self.numbered).await?;
        if retry.hedge.is_some() && again.is_repeatable() {
            return self.hedged(core, &retry, again).await;
        }
        let (mut retries, mut tried, mut place) = (0, Vec::new(), None);
        loop {
            let more = retries < retry.retries_max && again.is_repeatable();
            self.request = again.next(more);
            let picked = self.cluster.pick(&self.choice(&tried)).await?;
            tried.push(picked.endpoint.address);
            let trying = async {
                match self.once(core, picked).await {
                    Err(failure) if self.may_move(&failure) => {
                        Box::pin(self.elsewhere(core, &mut tried, failure)).await
                    }
                    tried => tried,
                }
            };
            let answer = match retry.per_try {
                None => trying.await,
                Some(limit) => match timeout(limit, trying).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.cluster.meters.retried().try_timeouts.inc();
                        self.gave_up();
                        Err(Failure::TryTimeout)
                    }
                },
            };
            drop(place.take());
            if !again.is_wanted(&retry, &answer) {
                if retries > 0 && answer.is_ok() {
                    self.cluster.meters.retried().successes.inc();
                }
                return answer;
            }
            if !more {
                if retries >= retry.retries_max {
                    self.cluster.meters.retried().exhausted.inc();
                }
                self.flags = Flags::URX;
                return answer;
            }
            place = Retrying::enter(&self.cluster, self.route.priority, &retry);
            if place.is_none() {
                self.flags = Flags::UO;
                return answer;
            }
            drop(answer);
            retries += 1;
            sleep(retry.wait(retries, rand::random())).await;
        }
    }
}

/// A request that may be sent several times.
pub(super) struct Again {
    /// Until it is sent for the last time.
    request: Option<Request<RequestBody>>,
    /// The whole body, if it is small.
    body: Option<Bytes>,
    /// Whether working on it twice is as good as once.
    harmless: bool,
    /// How often it was sent, where services are told.
    sent: Option<u32>,
}

impl Again {
    /// Keeps a small body, so that the request can be sent again.
    async fn prepare(
        request: Option<Request<RequestBody>>,
        numbered: bool,
    ) -> Result<Self, Failure> {
        let request = request.expect("a request is in its place until it is sent");
        let mut again = Again {
            harmless: send::is_idempotent(request.method()),
            request: None,
            body: None,
            sent: numbered.then_some(0),
        };
        let (head, body) = request.into_parts();
        let upper = body.size_hint().upper();
        again.request = Some(if body.is_end_stream() {
            again.body = Some(Bytes::new());
            Request::from_parts(head, body)
        } else if upper.is_some_and(|upper| upper <= REPLAY_BYTES_MAX as u64) {
            let bytes = match body.collect_max(REPLAY_BYTES_MAX).await {
                Ok(bytes) => bytes,
                Err(Broken::Idle(_)) => return Err(Failure::ClientIdle),
                Err(_) => return Err(Failure::ClientBody),
            };
            again.body = Some(bytes.clone());
            Request::from_parts(head, RequestBody::bytes(bytes))
        } else {
            Request::from_parts(head, body)
        });
        Ok(again)
    }

    pub(super) fn is_repeatable(&self) -> bool {
        self.body.is_some()
    }

    /// Returns the request for the next try; it can be had once more only if `more` is said.
    pub(super) fn next(&mut self, more: bool) -> Option<Request<RequestBody>> {
        let mut next = match (&self.request, &self.body) {
            (Some(request), Some(body)) if more => {
                let mut next = send::copy(request);
                if !body.is_empty() {
                    *next.body_mut() = RequestBody::bytes(body.clone());
                }
                next
            }
            _ => self.request.take()?,
        };
        if let Some(sent) = &mut self.sent {
            *sent += 1;
            next.headers_mut()
                .insert(ATTEMPT_COUNT, HeaderValue::from(*sent));
        }
        Some(next)
    }

    /// Returns whether what came of a try is worth another one.
    pub(super) fn is_wanted(&self, retry: &Retry, answer: &Result<Answer, Failure>) -> bool {
        match answer {
            Ok(Answer { response, .. }) => {
                retry.wants_after_answer(self.harmless, response.status(), response.headers())
            }
            Err(failure) => retry.wants_after_failure(self.harmless, failure),
        }
    }

    /// Returns whether it does no harm that two endpoints work on it at the same time.
    pub(super) fn may_race(&self, retry: &Retry) -> bool {
        self.harmless || retry.any_method
    }
}
