//! Passes a request to an upstream and its answer back: the address upstream, the tries, the time.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Scheme, Uri};
use http::{Request, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use observe::flags::Flags;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::tunnel::Upgrade;
use crate::access::Ticket;
use crate::body::{RequestBody, ResponseBody};
use crate::format::Asked;
use crate::listener::Connection;
use crate::listener::watch::Decision;
use crate::policy::memory::Before;
use crate::policy::retry::Retry;
use crate::policy::{HostChange, forward};
use crate::refusal::Refusal;
use crate::route::Rewritten;
use crate::snapshot::{Front, Route};
use crate::upstream::answer::Streamed;
use crate::upstream::balance::Choice;
use crate::upstream::balance::key::Sticky;
use crate::upstream::cluster::{Cluster, Entered, Outcome, Protocol};
use crate::upstream::pool::Lane;
use crate::upstream::send::{self, Answered, Failure, Hold};
use crate::upstream::state::Picked;

/// Other endpoints that a request goes to when it could not be sent to the first.
const ELSEWHERE_MAX: usize = 3;

/// What a request is for, here and upstream.
pub(super) struct Place<'a> {
    /// Normalised.
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) host: &'a HeaderValue,
    pub(super) rewritten: Rewritten<'a>,
    pub(super) facts: Before<'a>,
}

/// Makes the URI.
pub(super) fn uri(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    Rewritten::Same(path).write(query, &mut text);
    Uri::from_maybe_shared(Bytes::from(text)).map_err(|_| Refusal::BadPath)
}

/// Writes path, host and what the service may want to know about them into the head.
pub(super) fn address(
    head: &mut request::Parts,
    front: &Front,
    route: &Route,
    cluster: &Cluster,
    place: Place<'_>,
) -> Result<(), Refusal> {
    let Place {
        path,
        query,
        host,
        rewritten,
        facts,
    } = place;
    if front.settings.envoy_headers {
        if !rewritten.is_same() {
            let original = head.uri.path_and_query().map_or(path, PathAndQuery::as_str);
            if let Ok(original) = HeaderValue::from_str(original) {
                head.headers.insert(forward::ORIGINAL_PATH, original);
            }
        }
        if let Some(timeout) = &route.timeout_header {
            head.headers
                .insert(forward::EXPECTED_TIMEOUT, timeout.clone());
        }
    }
    // An unchanged target is used as it is.
    let unchanged = rewritten.is_same() && head.uri.path() == path;
    let target = match head.uri.path_and_query() {
        Some(target) if unchanged => target.clone(),
        _ => {
            let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 16);
            rewritten.write(query, &mut text);
            PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| Refusal::BadPath)?
        }
    };
    let (method, uri) = (&head.method, &head.uri);
    route.request.apply(&mut head.headers, |format, headers| {
        let asked = Asked {
            version: facts.version,
            method,
            secure: facts.secure,
            authority: host.to_str().unwrap_or_default(),
            path: uri.path_and_query().map_or(path, PathAndQuery::as_str),
            headers,
        };
        facts.fill(format, asked, route)
    });
    let host = match &route.host {
        HostChange::Keep => host,
        HostChange::To(new) => {
            head.headers.insert(forward::X_FORWARDED_HOST, host.clone());
            new
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(target);
    match cluster.spec.protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            head.headers.insert(header::HOST, host.clone());
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            head.headers.remove(header::HOST);
            parts.scheme = Some(match cluster.spec.tls {
                None => Scheme::HTTP,
                Some(_) => Scheme::HTTPS,
            });
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| Refusal::BadPath)?);
        }
    }
    head.uri = Uri::from_parts(parts).map_err(|_| Refusal::BadPath)?;
    Ok(())
}

/// One request on its way to a cluster.
pub(super) struct Sending {
    pub(super) route: Arc<Route>,
    pub(super) cluster: Arc<Cluster>,
    /// Until it is sent.
    pub(super) request: Option<Request<RequestBody>>,
    pub(super) upgrade: Option<Box<Upgrade>>,
    /// What hash policies go by.
    pub(super) sticky: Option<Box<Sticky>>,
    pub(super) deadline: Option<Instant>,
    /// Until the tries begin.
    pub(super) retry: Option<Arc<Retry>>,
    /// The endpoint that works on it.
    pub(super) trying: Option<Picked>,
    /// Whether services are told how often it was tried.
    pub(super) numbered: bool,
    /// That another try was wanted and not allowed.
    pub(super) flags: Flags,
}

/// What an endpoint has answered.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    hold: Hold,
    picked: Picked,
}

impl Sending {
    /// Sends the request, more than once if the route says so, and returns the answer for the client.
    pub(super) async fn answer(
        &mut self,
        connection: &Arc<Connection>,
        front: &Front,
        ticket: &mut Ticket,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let entered = self.cluster.enter(self.route.priority);
        let entered = entered.map_err(|failure| failure.refusal())?;
        let deadline = self.deadline;
        let tries = self.tries(connection.core);
        let answer = match deadline {
            Some(deadline) => match timeout_at(deadline, tries).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.gave_up();
                    Err(Failure::TryTimeout)
                }
            },
            None => tries.await,
        };
        if self.flags != Flags::NONE {
            ticket.flag(self.flags);
        }
        match answer {
            Ok(answer) => self.passed_on(answer, entered, connection, front, ticket),
            Err(failure) => {
                if matches!(failure, Failure::TryTimeout) {
                    self.cluster.meters.timeouts.inc();
                }
                let upstream = &self.cluster.spec.name;
                debug!(error = &failure as &dyn std::error::Error, %upstream, "no answer");
                Err(failure.refusal())
            }
        }
    }

    /// Turns the upstream's answer into the one for the client.
    fn passed_on(
        &mut self,
        answer: Answer,
        mut entered: Entered,
        connection: &Arc<Connection>,
        front: &Front,
        ticket: &mut Ticket,
    ) -> Result<Response<ResponseBody>, Refusal> {
        let Answer {
            mut response,
            hold,
            picked,
        } = answer;
        let after = ticket.began.elapsed();
        ticket.answered(picked.endpoint.address, after);
        entered.keep(picked);
        self.cluster.meters.answered(response.status(), after);

        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let granted = match (&self.upgrade, switching) {
            (Some(upgrade), true) if upgrade.granted(&response) => true,
            (_, true) => return Err(Refusal::UpstreamProtocol),
            (_, false) => false,
        };
        let tunnel = granted.then(|| hyper::upgrade::on(&mut response));
        let (mut head, body) = response.into_parts();
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        forward::strip_hop_by_hop(&mut head.headers);
        if front.settings.envoy_headers {
            let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            head.headers
                .insert(forward::SERVICE_TIME, HeaderValue::from(millis));
        }
        if let Some(cookie) = self.sticky.as_mut().and_then(|it| it.set_cookie.take()) {
            head.headers.append(header::SET_COOKIE, cookie);
        }
        let body = match (self.upgrade.take(), tunnel) {
            (Some(upgrade), Some(tunnel)) => {
                upgrade.grant(&mut head.headers);
                connection.watch.decide(Decision::Tunnel);
                upgrade.open(tunnel, connection.clone(), self.route.tunnel_idle, entered);
                ResponseBody::empty()
            }
            _ => {
                let idle = self.route.idle;
                ResponseBody::upstream(Streamed::new(body, idle, self.deadline, hold, entered))
            }
        };
        head.version = Version::HTTP_11;
        Ok(Response::from_parts(head, body))
    }

    async fn tries(&mut self, core: usize) -> Result<Answer, Failure> {
        if let Some(retry) = self.retry.take() {
            return Box::pin(self.retried(core, retry)).await;
        }
        let picked = self.cluster.pick(&self.choice(&[])).await?;
        let address = picked.endpoint.address;
        match self.once(core, picked).await {
            Err(failure) if self.may_move(&failure) => {
                let mut tried = vec![address];
                Box::pin(self.elsewhere(core, &mut tried, failure)).await
            }
            tried => tried,
        }
    }

    /// Returns whether the request is still here for another endpoint, this one not having seen it.
    pub(super) fn may_move(&self, failure: &Failure) -> bool {
        failure.unsent() && self.request.is_some()
    }

    pub(super) fn choice<'t>(&self, tried: &'t [SocketAddr]) -> Choice<'t> {
        Choice {
            hash: self.sticky.as_ref().and_then(|sticky| sticky.hash),
            tried,
        }
    }

    /// Goes to other endpoints with a request that could not be sent: an endpoint that has just closed is no reason to
    /// fail. This is no retry, since nobody has seen the request.
    pub(super) async fn elsewhere(
        &mut self,
        core: usize,
        tried: &mut Vec<SocketAddr>,
        mut failure: Failure,
    ) -> Result<Answer, Failure> {
        for _ in 0..ELSEWHERE_MAX {
            let picked = self.cluster.pick(&self.choice(tried)).await?;
            let address = picked.endpoint.address;
            if tried.contains(&address) {
                break;
            }
            tried.push(address);
            match self.once(core, picked).await {
                Err(again) if self.may_move(&again) => failure = again,
                tried => return tried,
            }
        }
        Err(failure)
    }

    /// Tries one endpoint, and reports how that ended.
    pub(super) async fn once(&mut self, core: usize, picked: Picked) -> Result<Answer, Failure> {
        let priority = self.route.priority;
        let picked = self.trying.insert(picked);
        let streamed = |request: &Request<RequestBody>| request.body().is_streamed();
        picked.excused = self.request.as_ref().is_some_and(streamed);
        let request = &mut self.request;
        let answered = send::send(
            &self.cluster,
            &picked.endpoint,
            Lane { core, priority },
            request,
        )
        .await;
        let picked = self.trying.take().ok_or(Failure::NoEndpoint)?;
        Answer::of(&self.cluster, picked, answered)
    }

    /// Reports that nobody waits for the endpoint's answer any more.
    pub(super) fn gave_up(&mut self) {
        if let Some(picked) = self.trying.take().filter(|picked| !picked.excused) {
            let outcome = Outcome::Failed(&Failure::TryTimeout);
            self.cluster.report(&picked.endpoint, outcome);
        }
    }
}

impl Answer {
    /// Reports how a try ended.
    pub(super) fn of(
        cluster: &Cluster,
        picked: Picked,
        answered: Result<Answered, Failure>,
    ) -> Result<Answer, Failure> {
        let outcome = match &answered {
            Ok((response, _)) => Outcome::Answered(response.status()),
            Err(failure) => Outcome::Failed(failure),
        };
        cluster.report(&picked.endpoint, outcome);
        let (response, hold) = answered?;
        Ok(Answer {
            response,
            hold,
            picked,
        })
    }
}
