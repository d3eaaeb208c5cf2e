//! What policies keep of a request until its answer is there. Most requests need none of it and carry nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, Version};
use jiff::{SignedDuration, Timestamp};
use model::format::Format;
use model::module::Algorithm;
use tokio::time::Instant;

use crate::access::Ticket;
use crate::format::{self, Asked, Facts, Kept};
use crate::listener::Connection;
use crate::snapshot::Route;

/// What policies keep of a request until its answer is there.
#[derive(Debug)]
pub(crate) struct Memory {
    /// For texts with variables.
    pub(crate) kept: Option<Kept>,
    /// The client, behind trusted proxies as they tell it.
    pub(crate) remote: IpAddr,
    /// The origin that may read the answer.
    pub(crate) origin: Option<HeaderValue>,
    /// How the client wants the answer packed.
    pub(crate) packed: Option<Algorithm>,
}

/// Returns what is known about a request when its answer's head is there.
pub(crate) fn facts<'a>(
    connection: &'a Connection,
    ticket: &'a Ticket,
    memory: Option<&'a Memory>,
    status: StatusCode,
    response: Option<&'a HeaderMap>,
) -> Facts<'a> {
    let elapsed = ticket.began.elapsed();
    let route: Option<&'a Route> = ticket.route.as_deref();
    let remote = memory.map_or(connection.peer.ip().to_canonical(), |memory| memory.remote);
    Facts {
        asked: memory.and_then(|memory| Some(memory.kept.as_ref()?.asked())),
        response,
        status: Some(status),
        started: Some(started(elapsed)),
        duration: Some(elapsed),
        response_after: ticket.upstream().map(|(_, after)| after),
        upstream: ticket.upstream().map(|(address, _)| address),
        received: ticket.received(),
        cluster: route.map_or("", Route::cluster_name),
        route: route.map_or("", |route| &route.name),
        details: ticket.details(),
        flags: ticket.flags(),
        ..addresses(connection, remote)
    }
}

/// Returns what is known about a connection.
pub(crate) fn addresses(connection: &Connection, remote: IpAddr) -> Facts<'_> {
    let direct = connection.peer;
    Facts {
        remote: Some(match remote == direct.ip().to_canonical() {
            true => direct,
            false => SocketAddr::new(remote, 0),
        }),
        direct: Some(direct),
        local: Some(connection.local),
        tls: connection.tls.as_ref().map(|tls| &tls.session),
        ..Facts::default()
    }
}

/// What is known besides the request itself before it goes to its backend.
#[derive(Clone, Copy)]
pub(crate) struct Before<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) version: Version,
    pub(crate) secure: bool,
    pub(crate) began: Instant,
    /// Where trusted proxies tell another client than the peer.
    pub(crate) remote: Option<IpAddr>,
    pub(crate) trace_id: u128,
}

impl Before<'_> {
    /// Fills a header of the request; what is not known yet is left out.
    pub(crate) fn fill(&self, format: &Format, asked: Asked<'_>, route: &Route) -> String {
        let elapsed = self.began.elapsed();
        let remote = self
            .remote
            .unwrap_or(self.connection.peer.ip().to_canonical());
        let facts = Facts {
            asked: Some(asked),
            started: Some(started(elapsed)),
            duration: Some(elapsed),
            cluster: route.cluster_name(),
            route: &route.name,
            trace_id: Some(self.trace_id),
            ..addresses(self.connection, remote)
        };
        format::fill(format, &facts, "")
    }
}

fn started(elapsed: Duration) -> Timestamp {
    Timestamp::now() - SignedDuration::try_from(elapsed).unwrap_or_default()
}
