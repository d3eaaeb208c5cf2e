//! Tries that run beside each other: the first good answer wins, the others are cancelled.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Request;
use tokio::time::{Instant, sleep_until, timeout};

use observe::flags::Flags;

use super::proxy::{Answer, Sending};
use super::retry::Again;
use crate::body::RequestBody;
use crate::policy::retry::Retry;
use crate::upstream::breaker::Retrying;
use crate::upstream::cluster::Cluster;
use crate::upstream::pool::Lane;
use crate::upstream::send::{self, Failure};
use crate::upstream::state::Picked;

/// A try under way, with its place in the budget unless it is the first.
type Try = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

/// The tries of one request.
struct Race {
    running: FuturesUnordered<Try>,
    tried: Vec<SocketAddr>,
    /// Tries that were begun after the first one.
    retries: u32,
    /// When another one begins, whatever becomes of those that run.
    next_at: Option<Instant>,
}

impl Sending {
    /// Runs tries beside each other, as many as the route allows.
    pub(super) async fn hedged(
        &mut self,
        core: usize,
        retry: &Arc<Retry>,
        mut again: Again,
    ) -> Result<Answer, Failure> {
        let hedge = retry.hedge.unwrap_or_default();
        let racing = again.may_race(retry);
        let patient = hedge.hedge_on_per_try_timeout && racing;
        let mut race = Race {
            running: FuturesUnordered::new(),
            tried: Vec::new(),
            retries: 0,
            next_at: None,
        };
        self.begin(core, retry, &mut again, &mut race, patient, None)
            .await?;
        for _ in 1..hedge.initial_requests {
            let Some(place) = racing.then(|| self.place(retry, &race)).flatten() else {
                break;
            };
            self.begin(core, retry, &mut again, &mut race, patient, Some(place))
                .await?;
        }
        // What the client gets when nothing better comes.
        let mut last = Err(Failure::NoEndpoint);
        loop {
            let next_at = race.next_at.filter(|_| race.retries < retry.retries_max);
            let begin = tokio::select! {
                biased;
                Some(answer) = race.running.next() => {
                    if !again.is_wanted(retry, &answer) {
                        if race.retries > 0 && answer.is_ok() {
                            self.cluster.meters.retried().successes.inc();
                        }
                        return answer;
                    }
                    last = answer;
                    if race.retries < retry.retries_max {
                        let wait = retry.wait(race.retries + 1, rand::random());
                        race.next_at = Some(Instant::now() + wait);
                        continue;
                    }
                    if self.flags != Flags::URX {
                        self.cluster.meters.retried().exhausted.inc();
                    }
                    self.flags = Flags::URX;
                    false
                }
                () = at(next_at), if next_at.is_some() => true,
                else => return last,
            };
            if begin {
                race.next_at = None;
                match self.place(retry, &race) {
                    Some(place) => {
                        let begun =
                            self.begin(core, retry, &mut again, &mut race, patient, Some(place));
                        if let Err(failure) = begun.await {
                            last = Err(failure);
                        }
                    }
                    None => self.flags = Flags::UO,
                }
            }
            if race.running.is_empty() && race.next_at.is_none() {
                return last;
            }
        }
    }

    fn place(&self, retry: &Retry, race: &Race) -> Option<Retrying> {
        (race.retries < retry.retries_max)
            .then(|| Retrying::enter(&self.cluster, self.route.priority, retry))
            .flatten()
    }

    async fn begin(
        &mut self,
        core: usize,
        retry: &Retry,
        again: &mut Again,
        race: &mut Race,
        patient: bool,
        place: Option<Retrying>,
    ) -> Result<(), Failure> {
        let picked = self.cluster.pick(&self.choice(&race.tried)).await?;
        race.tried.push(picked.endpoint.address);
        race.retries += u32::from(place.is_some());
        let request = again.next(true).ok_or(Failure::NoEndpoint)?;
        // A patient race lets a slow try go on and begins another one; else the limit ends the try.
        let limit = retry.per_try.filter(|_| !patient);
        race.next_at = retry
            .per_try
            .filter(|_| patient)
            .map(|limit| Instant::now() + limit);
        let cluster = self.cluster.clone();
        let priority = self.route.priority;
        let lane = Lane { core, priority };
        race.running.push(Box::pin(async move {
            let _place = place;
            one(cluster, picked, lane, request, limit).await
        }));
        Ok(())
    }
}

async fn one(
    cluster: Arc<Cluster>,
    picked: Picked,
    lane: Lane,
    request: Request<RequestBody>,
    limit: Option<Duration>,
) -> Result<Answer, Failure> {
    let mut request = Some(request);
    let sending = send::send(&cluster, &picked.endpoint, lane, &mut request);
    let answered = match limit {
        Some(limit) => timeout(limit, sending).await.unwrap_or_else(|_| {
            cluster.meters.retried().try_timeouts.inc();
            Err(Failure::TryTimeout)
        }),
        None => sending.await,
    };
    Answer::of(&cluster, picked, answered)
}

/// Waits until then; for ever when there is no such time.
async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}
