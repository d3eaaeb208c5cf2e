//! The life of one request, from its head to the head of its answer. The bodies then stream by themselves.

mod check;
mod proxy;
mod tunnel;

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, timeout_at};

use crate::access::Ticket;
use crate::backend::{Backend, Call};
use crate::body::{RequestBody, ResponseBody};
use crate::listener::Connection;
use crate::listener::watch::Decision;
use crate::policy::forward;
use crate::refusal::{Flaw, Refusal};
use crate::route::{self, Found};
use crate::snapshot::Front;

/// Answers one request. It never fails: what goes wrong is an answer too.
pub(crate) async fn exchange(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let began = Instant::now();
    let front = connection.listener.front.load_full();
    let gate = connection.watch.begin();
    let mut ticket = Ticket::begin(connection.clone(), &request, began);
    // The gate has stopped reading behind such a head until somebody decides.
    let undecided = request.version() == Version::HTTP_11
        && request.headers().contains_key(header::UPGRADE)
        && request.body().is_end_stream();
    let head_only = request.method() == http::Method::HEAD;

    let mut response = match gate {
        Some(refusal) => refused(refusal, &mut ticket),
        None => match serve(&connection, &front, request, &mut ticket, undecided).await {
            Ok(response) => response,
            Err(refusal) => refused(refusal, &mut ticket),
        },
    };

    if undecided && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        connection.watch.decide(Decision::Plain);
    }
    response
        .headers_mut()
        .insert(header::SERVER, front.settings.server.clone());
    ticket.status(response.status());
    if head_only {
        response = without_body(response);
    }
    response.map(|body| body.with_ticket(ticket))
}

/// The main road.
async fn serve(
    connection: &Arc<Connection>,
    front: &Arc<Front>,
    mut request: Request<Incoming>,
    ticket: &mut Ticket,
    undecided: bool,
) -> Result<Response<ResponseBody>, Refusal> {
    let settings = &front.settings;

    // Who is asked for what.
    check::head(&mut request, settings)?;
    if !settings
        .addresses
        .pass(connection.peer.ip(), front.trusted_hops, request.headers())
    {
        return Err(Refusal::AddressDenied);
    }
    let host = check::host(&request, front)?;
    let authority = host
        .to_str()
        .map_err(|_| Refusal::Malformed(Flaw::HostMalformed))?;
    let target = request.uri().path_and_query().cloned();
    let raw_path = target.as_ref().map_or("/", |target| target.path());
    let query = target.as_ref().and_then(|target| target.query());
    let path = route::path::normalise(raw_path, &settings.path).map_err(|_| Refusal::BadPath)?;
    let secure = check::is_secure(front, request.headers());

    // Which route takes it.
    let asked = route::Request {
        authority,
        path: &path,
        query,
        method: request.method(),
        headers: request.headers(),
        secure,
    };
    let found = match front.table.find(&asked, rand::random::<u32>) {
        Found::Route(found) => found,
        Found::Secure(_) => {
            return redirect(
                StatusCode::MOVED_PERMANENTLY,
                &route::secure_location(&asked),
            );
        }
        Found::None(_) => return Err(Refusal::NoRoute),
    };
    let route = &front.routes[found.route.id];
    ticket.routed(route.clone());
    if let Some((status, location)) = found.redirect(&asked) {
        return redirect(status, &location);
    }
    let deadline = route.timeout.map(|timeout| ticket.began + timeout);

    // What it looks like from here on.
    let upgrade = undecided
        .then(|| tunnel::Upgrade::of(&mut request, route))
        .flatten();
    let (mut head, body) = request.into_parts();
    let headers = &mut head.headers;
    forward::strip_hop_by_hop(headers);
    if head.version == Version::HTTP_2 {
        forward::join_cookies(headers);
    }
    headers.remove(header::EXPECT); // answered here, when the body is read
    let trusted = front.trusted_hops > 0;
    forward::identify(
        headers,
        &forward::Client {
            address: &connection.peer_text,
            secure,
            trusted,
        },
    );
    let request_id = forward::request_id(headers, settings.request_id_kept || trusted);
    let trace = forward::trace(headers);
    ticket.identified(&request_id, trace.trace_id);

    let body = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        RequestBody::stream(body, route.idle, ticket.receiver())
    };

    // Who answers it.
    let mut response = match &route.backend {
        Backend::Service(cluster) => {
            let place = proxy::Place {
                path: &path,
                query,
                host: &host,
                rewritten: found.rewritten(&path),
            };
            proxy::address(&mut head, front, route, cluster, place)?;
            if let Some(upgrade) = &upgrade {
                upgrade.ask(&mut head.headers);
            }
            let sending = proxy::Sending {
                connection,
                front,
                route,
                cluster,
                deadline,
            };
            sending
                .send(Request::from_parts(head, body), upgrade, ticket)
                .await?
        }
        Backend::Handler(handler) => {
            let params = found.route.params(&path);
            let params = params
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            let params = params.collect();
            route.request.apply(&mut head.headers);
            head.uri = proxy::uri(&path, query)?;
            let request = Request::from_parts(head, body);
            let authority = authority.to_ascii_lowercase();
            let call = Call {
                request,
                params,
                authority,
                peer: connection.peer,
                trace,
            };
            let answering = handler.handle(call);
            match deadline {
                Some(deadline) => timeout_at(deadline, answering)
                    .await
                    .map_err(|_| Refusal::UpstreamTimeout)?,
                None => answering.await,
            }
        }
        Backend::Fixed(fixed) => {
            let mut response = Response::new(ResponseBody::full(fixed.body.clone()));
            *response.status_mut() = fixed.status;
            if let Some(content_type) = &fixed.content_type {
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, content_type.clone());
            }
            response
        }
        // The table has answered it above.
        Backend::Redirect => return Err(Refusal::NoRoute),
    };
    route.response.apply(response.headers_mut());
    Ok(response)
}

fn refused(refusal: Refusal, ticket: &mut Ticket) -> Response<ResponseBody> {
    ticket.refused(refusal);
    let mut response = refusal.answer();
    if refusal.closes() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Answers to HEAD tell the length of what GET would get.
fn without_body(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if response.body().is_end_stream() {
        return response;
    }
    if let Some(length) = response.body().size_hint().exact() {
        response
            .headers_mut()
            .entry(header::CONTENT_LENGTH)
            .or_insert(length.into());
    }
    response.map(|_| ResponseBody::empty())
}

fn redirect(status: StatusCode, location: &str) -> Result<Response<ResponseBody>, Refusal> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    let location = HeaderValue::from_str(location).map_err(|_| Refusal::BadPath)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
