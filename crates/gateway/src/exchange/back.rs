//! The way back: what policies do to an answer, whoever has made it, before the client gets it.

use http::{HeaderMap, Request, Response};
use model::format::Format;

use crate::access::Ticket;
use crate::body::ResponseBody;
use crate::format::{self, Asked, Kept};
use crate::listener::Connection;
use crate::policy::address;
use crate::policy::memory::{self, Memory};
use crate::route;
use crate::snapshot::{Front, Route};

/// Keeps what the policies need of the request when its answer is there; mostly that is nothing.
pub(super) fn remember<B>(
    connection: &Connection,
    front: &Front,
    ticket: &mut Ticket,
    asked: &route::Request<'_>,
    request: &Request<B>,
) {
    let route = ticket.route.as_deref();
    let (needs, cors) = match route {
        Some(route) => (route.needs.as_deref(), route.cors.as_ref()),
        None => (front.settings.needs.as_ref(), None),
    };
    let compression = front.settings.compression.as_ref();
    let packed = compression.and_then(|rules| rules.wanted(asked.headers));
    if needs.is_none() && cors.is_none() && packed.is_none() {
        return;
    }
    let whole = Asked {
        version: request.version(),
        method: asked.method,
        secure: asked.secure,
        authority: asked.authority,
        path: request
            .uri()
            .path_and_query()
            .map_or(asked.path, |target| target.as_str()),
        headers: asked.headers,
    };
    let hops = front.trusted_hops;
    ticket.memory = Some(Box::new(Memory {
        kept: needs.map(|needs| Kept::of(needs, &whole)),
        remote: address::remote(connection.peer.ip().to_canonical(), hops, asked.headers),
        origin: cors.and_then(|cors| cors.allowed(asked.headers)),
        packed,
    }));
}

/// Takes the answer back through the policies.
pub(super) fn through_policies(
    connection: &Connection,
    front: &Front,
    mut response: Response<ResponseBody>,
    ticket: &mut Ticket,
) -> Response<ResponseBody> {
    let mut memory = ticket.memory.take();
    let status = response.status();
    let errors = match &ticket.route {
        Some(route) => &route.errors,
        None => &front.settings.errors,
    };
    if let Some(errors) = errors
        && errors.has(status)
    {
        let facts = memory::facts(connection, ticket, memory.as_deref(), status, None);
        response = errors.apply(response, &facts);
    }
    if let Some(route) = &ticket.route {
        response = changed(connection, ticket, route, memory.as_deref_mut(), response);
    }
    match &front.settings.compression {
        Some(rules) => {
            let packed = memory.and_then(|memory| memory.packed);
            rules.apply(packed, ticket.head_only, response)
        }
        None => response,
    }
}

/// Makes the route's own changes.
fn changed(
    connection: &Connection,
    ticket: &Ticket,
    route: &Route,
    memory: Option<&mut Memory>,
    mut response: Response<ResponseBody>,
) -> Response<ResponseBody> {
    let status = response.status();
    let known = memory.as_deref();
    let fill = |format: &Format, headers: &HeaderMap| {
        let facts = memory::facts(connection, ticket, known, status, Some(headers));
        format::fill(format, &facts, "")
    };
    route.response.apply(response.headers_mut(), fill);
    if let Some(cors) = &route.cors {
        let origin = memory.and_then(|memory| memory.origin.take());
        cors.tell(origin, response.headers_mut());
    }
    response
}
