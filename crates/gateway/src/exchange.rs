//! The life of one request, from its head to the head of its answer. The bodies then stream by themselves.

mod back;
mod challenge;
mod check;
mod controls;
mod hedge;
mod proxy;
mod retry;
pub(crate) mod shadow;
mod tunnel;
mod whole;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use observe::flags::Flags;
use tokio::time::timeout_at;

use crate::access::Ticket;
use crate::backend::{Backend, Call};
use crate::body::{RequestBody, ResponseBody};
use crate::format::Asked;
use crate::listener::Connection;
use crate::listener::watch::Decision;
use crate::policy::client_cert::ClientCert;
use crate::policy::grpc::{self, Dialect};
use crate::policy::memory::Before;
use crate::policy::{address, compress, cors, forward};
use crate::refusal::{Flaw, REASON, Refusal};
use crate::route::{self, Found, Miss};
use crate::snapshot::Front;
use crate::upstream::send::OnBehalfOf;

/// Answers one request. It never fails: what goes wrong is an answer too.
///
/// Everything before the backend is done without waiting; a connection keeps room for no more than the wait itself.
pub(crate) async fn exchange(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let front = connection.listener.front.load_full();
    let (mut ticket, mut next) = begin(&connection, &front, request);
    let answer = match &mut next {
        Ok(Next::Answer(response)) => Ok(std::mem::take(response)),
        Ok(Next::Send(sending)) => {
            let ready = match front.settings.buffer {
                Some(bytes_max) => Box::pin(whole::read(&mut sending.request, bytes_max)).await,
                None => Ok(()),
            };
            match ready {
                Ok(()) => sending.answer(&connection, &front, &mut ticket).await,
                Err(refusal) => Err(refusal),
            }
        }
        Ok(Next::Handle(answering)) => answering.await,
        Err(refusal) => Err(*refusal),
    };
    let answer = match answer {
        Ok(response) if ticket.dialect == Dialect::Bridged => {
            Box::pin(grpc::bridge::whole(response)).await
        }
        answer => answer,
    };
    finish(&connection, &front, answer, ticket)
}

/// What a request leads to.
enum Next {
    /// The answer is known.
    Answer(Response<ResponseBody>),
    /// An upstream is asked.
    Send(proxy::Sending),
    /// A handler is asked.
    Handle(Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Refusal>> + Send>>),
}

fn begin(
    connection: &Arc<Connection>,
    front: &Front,
    request: Request<Incoming>,
) -> (Box<Ticket>, Result<Next, Refusal>) {
    let gate = connection.watch.begin();
    let mut ticket = Ticket::begin(connection.clone(), front, &request);
    let next = match gate {
        Some(refusal) => Err(refusal),
        None => main_road(connection, front, request, &mut ticket),
    };
    (ticket, next)
}

fn finish(
    connection: &Connection,
    front: &Front,
    answer: Result<Response<ResponseBody>, Refusal>,
    mut ticket: Box<Ticket>,
) -> Response<ResponseBody> {
    let response = match answer {
        Ok(mut response) => {
            if front.settings.reason_told {
                response.headers_mut().remove(REASON);
            }
            response
        }
        Err(refusal) => refused(refusal, &mut ticket),
    };
    let mut response = back::through_policies(connection, front, response, &mut ticket);
    if let Dialect::Web { text } = ticket.dialect {
        response = grpc::web::response(text, response);
    }
    if ticket.undecided && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        connection.watch.decide(Decision::Plain);
    }
    if front.settings.reason_told
        && let Some(reason) = ticket.reason()
    {
        response
            .headers_mut()
            .insert(REASON, HeaderValue::from_static(reason));
    }
    response
        .headers_mut()
        .insert(header::SERVER, front.settings.server.clone());
    ticket.status(response.status(), response.headers());
    if ticket.head_only {
        response = without_body(response);
    }
    response.map(|body| body.with_ticket(ticket))
}

fn main_road(
    connection: &Arc<Connection>,
    front: &Front,
    mut request: Request<Incoming>,
    ticket: &mut Ticket,
) -> Result<Next, Refusal> {
    let settings = &front.settings;

    // Who is asked for what.
    check::head(&mut request, settings)?;
    if let Some(ordered) = &front.ordered
        && let Some(answer) = challenge::answer(ordered, &request)
    {
        return Ok(Next::Answer(answer));
    }
    if !settings.addresses.pass(
        connection.peer.ip(),
        connection.passed_on_by,
        front.trusted_hops,
        request.headers(),
    ) {
        return Err(Refusal::AddressDenied);
    }
    let host = check::host(&request, front)?;
    let authority = host
        .to_str()
        .map_err(|_| Refusal::Malformed(Flaw::HostMalformed))?;
    if check::is_misdirected(front, connection, authority) {
        return Err(Refusal::Misdirected);
    }
    let target = request.uri().path_and_query().cloned();
    let raw_path = target.as_ref().map_or("/", |target| target.path());
    let query = target.as_ref().and_then(|target| target.query());
    let path = route::path::normalise(raw_path, &settings.path).map_err(|_| Refusal::BadPath)?;
    let secure = check::is_secure(front, connection, request.headers());

    let stopping = connection.listener.stop.is_cancelled();
    if let Some(answer) = settings.probes.answer(&path, stopping) {
        return Ok(Next::Answer(answer));
    }

    // Which route takes it, or whether a browser only asks what it may ask.
    let asked = route::Request {
        authority,
        path: &path,
        query,
        method: request.method(),
        headers: request.headers(),
        secure,
    };
    if cors::is_preflight(asked.method, asked.headers)
        && let Some(answer) = preflight(front, asked, ticket)
    {
        return Ok(Next::Answer(answer));
    }
    let found = match front.table.find(&asked, rand::random::<u32>) {
        Found::Route(found) => found,
        Found::Secure(_) => {
            let location = route::secure_location(&asked);
            return redirect(StatusCode::MOVED_PERMANENTLY, &location);
        }
        Found::None(Miss::Insecure) => return Err(Refusal::Insecure),
        Found::None(_) => {
            back::remember(connection, front, ticket, &asked, &request);
            return Err(Refusal::NoRoute);
        }
    };
    let route = &front.routes[found.route.id];
    ticket.routed(route.clone());
    back::remember(connection, front, ticket, &asked, &request);
    if let Some((status, location)) = found.redirect(&asked) {
        return redirect(status, &location);
    }
    if route.guarded && front.guards.refuses(authority, &path).is_some() {
        return Err(Refusal::AuthUnavailable);
    }
    // Before the peer's address joins those that the proxies in front tell.
    let client = route
        .sticky
        .as_ref()
        .map(|_| address::remote(connection.peer.ip(), front.trusted_hops, request.headers()));
    let mut deadline = route.timeout.map(|timeout| ticket.began + timeout);

    // What it looks like from here on.
    let version = request.version();
    let remote = (front.trusted_hops > 0)
        .then(|| address::remote(connection.peer.ip(), front.trusted_hops, request.headers()));
    let upgrade = ticket
        .undecided
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
    let client_cert = settings
        .client_cert
        .take(headers, connection.tls.as_deref(), trusted);
    forward::identify(
        headers,
        &forward::Client {
            address: &connection.peer_text,
            secure: secure || connection.tls.is_some(),
            trusted,
        },
    );
    ClientCert::put(headers, client_cert);
    forward::request_id(headers, settings.request_id_kept || trusted);
    let trace = forward::trace(headers);
    ticket.identified(headers, trace.trace_id);
    let mut retry = route.retry.clone();
    let controls = trusted.then(|| controls::take(headers, route)).flatten();
    if let Some(controls) = &controls {
        if let Some(millis) = controls.timeout_ms {
            deadline = (millis > 0).then(|| ticket.began + Duration::from_millis(millis));
        }
        retry = controls.retry.clone();
    }

    if settings
        .compression
        .as_ref()
        .is_some_and(|rules| rules.accept_removed)
    {
        headers.remove(header::ACCEPT_ENCODING);
    }
    let body = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        RequestBody::stream(body, route.idle, ticket.receiver())
    };

    let body = match settings.unpacked {
        Some(limits) => compress::decode::apply(limits, headers, body),
        None => body,
    };
    let body = ticket.dialect.translate(headers, body);

    // Who answers it.
    let facts = Before {
        connection,
        version,
        secure,
        began: ticket.began,
        remote,
        trace_id: trace.trace_id,
    };
    Ok(match &route.backend {
        Backend::Service(cluster) => {
            let rewritten = found.rewritten(&path);
            let place = proxy::Place {
                path: &path,
                query,
                host: &host,
                rewritten,
                facts,
            };
            proxy::address(&mut head, front, route, cluster, place)?;
            if let Some(millis) = controls.and_then(|controls| controls.timeout_ms) {
                let headers = &mut head.headers;
                headers.insert(forward::EXPECTED_TIMEOUT, HeaderValue::from(millis));
            }
            let body = match found.shadow {
                Some(shadow) if upgrade.is_none() && shadow::wanted(shadow.weight()) => {
                    let shadow = &front.routes[shadow.id];
                    shadow::send_copy(shadow, connection, &head, body)
                }
                _ => body,
            };
            if let Some(upgrade) = &upgrade {
                upgrade.ask(&mut head.headers);
            }
            let sticky = route.sticky.as_ref().zip(client);
            let sticky = sticky.map(|(key, client)| key.hash(&head.headers, client));
            if cluster.spec.proxy_protocol.is_some() {
                head.extensions.insert(OnBehalfOf(connection.peer));
            }
            Next::Send(proxy::Sending {
                route: route.clone(),
                cluster: cluster.clone(),
                request: Some(Request::from_parts(head, body)),
                upgrade,
                sticky,
                deadline,
                retry,
                trying: None,
                numbered: settings.envoy_headers,
                flags: Flags::NONE,
            })
        }
        Backend::Handler(handler) => {
            let (method, text) = (&head.method, target.as_ref());
            route.request.apply(&mut head.headers, |format, headers| {
                let asked = Asked {
                    version,
                    method,
                    secure,
                    authority,
                    path: text.map_or("/", |target| target.as_str()),
                    headers,
                };
                facts.fill(format, asked, route)
            });
            head.uri = proxy::uri(&path, query)?;
            let params = found.route.params(&path).into_iter();
            let call = Call {
                request: Request::from_parts(head, body),
                params: params
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .collect(),
                authority: authority.to_ascii_lowercase(),
                peer: connection.peer,
                trace,
            };
            let answering = handler.handle(call);
            Next::Handle(match deadline {
                None => Box::pin(async { Ok(answering.await) }),
                Some(deadline) => Box::pin(async move {
                    timeout_at(deadline, answering)
                        .await
                        .map_err(|_| Refusal::UpstreamTimeout)
                }),
            })
        }
        Backend::Fixed(fixed) => {
            if let Some(refusal) = fixed.refusal {
                if ticket.dialect != Dialect::Other {
                    return Err(refusal);
                }
                ticket.refused(refusal);
            }
            let mut response = Response::new(ResponseBody::full(fixed.body.clone()));
            *response.status_mut() = fixed.status;
            if let Some(content_type) = &fixed.content_type {
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, content_type.clone());
            }
            Next::Answer(response)
        }
        // The table has answered it above.
        Backend::Redirect => return Err(Refusal::NoRoute),
    })
}

/// Answers a browser that asks what it may ask, when a route for the question or for what is asked about has rules.
fn preflight(
    front: &Front,
    asked: route::Request<'_>,
    ticket: &mut Ticket,
) -> Option<Response<ResponseBody>> {
    let ruled = |asked: &route::Request<'_>| {
        let Found::Route(found) = front.table.find(asked, rand::random::<u32>) else {
            return None;
        };
        let route = &front.routes[found.route.id];
        Some((route, route.cors.as_ref()?))
    };
    let method = cors::requested_method(asked.headers)?;
    let about = route::Request {
        method: &method,
        ..asked
    };
    let (route, cors) = ruled(&asked).or_else(|| ruled(&about))?;
    ticket.routed(route.clone());
    Some(cors.preflight(asked.headers))
}

fn refused(refusal: Refusal, ticket: &mut Ticket) -> Response<ResponseBody> {
    ticket.refused(refusal);
    let mut response = ticket.dialect.refusal(refusal);
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

fn redirect(status: StatusCode, location: &str) -> Result<Next, Refusal> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    let location = HeaderValue::from_str(location).map_err(|_| Refusal::BadPath)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(Next::Answer(response))
}
