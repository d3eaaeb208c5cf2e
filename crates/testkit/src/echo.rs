//! An upstream that answers with what it saw, in the manner of Ambassador's own tests (KAT).
//!
//! The answer is JSON:
//!
//! ```json
//! {
//!   "backend": "orders",
//!   "request": {
//!     "method": "GET", "host": "shop", "version": "HTTP/1.1",
//!     "url": { "path": "/x/", "rawQuery": "a=1", "query": { "a": ["1"] } },
//!     "headers": { "x-request-id": ["…"] },
//!     "body": "text, or base64 of other bytes after `base64:`", "trailers": {},
//!     "tls": { "enabled": false }
//!   },
//!   "response": { "headers": { "content-type": ["application/json"] } }
//! }
//! ```
//!
//! Request headers steer it, each with `Kat-Req-Http-` in front or without:
//!
//! - `Requested-Status`: the status of the answer;
//! - `Requested-Header`: names of request headers to send back as response headers, with their values;
//! - `Requested-Cookie`: names of cookies to set, each to its own name;
//! - `Requested-Location`: the `location` header;
//! - `Requested-Backend-Delay`: milliseconds to wait before the answer.
//!
//! A request with `upgrade:` is switched to that protocol; then every byte comes back.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::wait;

/// Requests that an upstream remembers.
const SEEN_MAX: usize = 10_000;

/// A running upstream on a port of its own; HTTP/1.1 and HTTP/2 with prior knowledge. It ends when dropped.
pub struct Echo {
    address: SocketAddr,
    state: Arc<State>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

struct State {
    name: String,
    connections: AtomicUsize,
    seen: Mutex<Vec<Value>>,
}

impl Echo {
    /// Starts an upstream that calls itself `name`.
    #[track_caller]
    pub fn start(name: &str) -> Self {
        Self::start_on(name, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts it on a given address, for example one that it had before.
    #[track_caller]
    pub fn start_on(name: &str, address: SocketAddr) -> Self {
        let state = Arc::new(State {
            name: name.to_owned(),
            connections: AtomicUsize::new(0),
            seen: Mutex::new(Vec::new()),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let listener = match runtime.block_on(TcpListener::bind(address)) {
            Ok(listener) => listener,
            Err(error) => panic!("could not listen on {address}: {error}"),
        };
        let address = listener.local_addr().expect("a listener has an address");
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, state.clone());
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serving => (),
                    _ = stopped => (),
                }
            });
            // Ends the connections too.
            runtime.shutdown_background();
        });
        Self {
            address,
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the `request` part of every request so far, in the order they came.
    pub fn seen(&self) -> Vec<Value> {
        self.state
            .seen
            .lock()
            .expect("no thread panics with the list in hand")
            .clone()
    }

    /// Waits until it has seen so many requests, and returns them.
    #[track_caller]
    pub fn wait_seen(&self, count: usize, limit: Duration) -> Vec<Value> {
        wait::until(
            &format!("{count} requests at {}", self.state.name),
            limit,
            || {
                let seen = self.seen();
                (seen.len() >= count).then_some(seen)
            },
        )
    }

    /// Returns how many connections were made to it so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have ended already.
            _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Small answers must not wait for acknowledgements; an error only costs speed.
        _ = stream.set_nodelay(true);
        state.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(connection(stream, state.clone()));
    }
}

async fn connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(move |request| {
        let state = state.clone();
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    let http = auto::Builder::new(TokioExecutor::new());
    // A client that breaks off is a case under test, not an error here.
    _ = http
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

async fn answer(state: &State, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        let upgrade = hyper::upgrade::on(&mut request);
        remember(state, describe(&request, &[], &HeaderMap::new()));
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            // Ends with the connection, in whichever way.
            _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, protocol);
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        return response;
    }

    let (head, body) = request.into_parts();
    let (body, trailers) = match body.collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            (collected.to_bytes(), trailers)
        }
        // The request broke off: nobody reads this answer.
        Err(_) => return Response::new(Full::default()),
    };
    let request = Request::from_parts(head, ());
    let described = describe(&request, &body, &trailers);
    remember(state, described.clone());

    let asked = |name: &str| {
        let headers = request.headers();
        headers
            .get(format!("kat-req-http-requested-{name}"))
            .or(headers.get(format!("requested-{name}")))
    };
    let text = |name: &str| asked(name).and_then(|value| value.to_str().ok());
    if let Some(delay) = text("backend-delay").and_then(|delay| delay.parse().ok()) {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    for name in text("header").unwrap_or_default().split(',').map(str::trim) {
        let Ok(name) = http::HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        for value in request.headers().get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    for name in text("cookie").unwrap_or_default().split(',').map(str::trim) {
        let cookie = HeaderValue::from_str(&format!("{name}={name}"));
        if let (false, Ok(cookie)) = (name.is_empty(), cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    if let Some(location) = asked("location") {
        headers.insert(header::LOCATION, location.clone());
    }
    let status = text("status")
        .and_then(|status| status.parse().ok())
        .unwrap_or(StatusCode::OK);

    let body = json!({
        "backend": state.name,
        "request": described,
        "response": { "status": status.as_u16(), "headers": lists(&headers) },
    });
    let mut response = Response::new(Full::from(format!("{body:#}\n")));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn remember(state: &State, request: Value) {
    let mut seen = state
        .seen
        .lock()
        .expect("no thread panics with the list in hand");
    if seen.len() < SEEN_MAX {
        seen.push(request);
    }
}

fn describe<B>(request: &Request<B>, body: &[u8], trailers: &HeaderMap) -> Value {
    let uri = request.uri();
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or(uri.authority().map(|authority| authority.as_str()));
    let raw = uri.query().unwrap_or_default();
    let mut query = Map::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        push(&mut query, name, value);
    }
    let body = match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64:{}", BASE64_STANDARD.encode(body)),
    };
    json!({
        "method": request.method().as_str(),
        "host": host,
        "version": format!("{:?}", request.version()),
        "url": { "path": uri.path(), "rawQuery": raw, "query": query },
        "headers": lists(request.headers()),
        "body": body,
        "trailers": lists(trailers),
        "tls": { "enabled": false },
    })
}

fn lists(headers: &HeaderMap) -> Value {
    let mut lists = Map::new();
    for (name, value) in headers {
        push(
            &mut lists,
            name.as_str(),
            &String::from_utf8_lossy(value.as_bytes()),
        );
    }
    lists.into()
}

fn push(lists: &mut Map<String, Value>, name: &str, value: &str) {
    let list = lists.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut()
        .expect("only lists are put in")
        .push(value.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::{self, Raw};

    #[test]
    fn tells_what_it_saw() {
        let echo = Echo::start("orders");
        let request = "POST /a/b?x=1&x=2 HTTP/1.1\nhost: shop\nzoo: Zoo\nzoo: Zaz";
        let answer = raw::http(echo.address(), request, "hello");
        assert_eq!(answer.status, 200);
        let seen = &answer.json()["request"];
        assert_eq!(seen["url"]["path"], "/a/b");
        assert_eq!(seen["url"]["query"], json!({ "x": ["1", "2"] }));
        assert_eq!(seen["headers"]["zoo"], json!(["Zoo", "Zaz"]));
        assert_eq!(
            (&seen["body"], &seen["host"]),
            (&json!("hello"), &json!("shop"))
        );
        assert_eq!(answer.json()["backend"], "orders");
        assert_eq!(echo.seen(), std::slice::from_ref(seen));
        assert_eq!(echo.connections(), 1);
    }

    #[test]
    fn obeys_request_headers() {
        let echo = Echo::start("x");
        let request = "GET / HTTP/1.1\nhost: x\nkat-req-http-requested-status: 418\n\
            requested-header: koo, Zoo\nkoo: Koot\nzoo: Z\nrequested-cookie: a, b\n\
            requested-location: /there\nkat-req-http-requested-backend-delay: 1";
        let answer = raw::http(echo.address(), request, "");
        assert_eq!(answer.status, 418);
        assert_eq!(answer.header("koo"), ["Koot"]);
        assert_eq!(answer.header("zoo"), ["Z"]);
        assert_eq!(answer.header("set-cookie"), ["a=a", "b=b"]);
        assert_eq!(answer.header("location"), ["/there"]);
    }

    #[test]
    fn upgrades_and_sends_every_byte_back() {
        let echo = Echo::start("x");
        let mut raw = Raw::connect(echo.address());
        raw.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\n");
        assert_eq!(raw.take_response().status, 101);
        raw.send([0, 255, 7]);
        assert_eq!(raw.take(3), [0, 255, 7]);
        raw.finish();
        assert!(raw.closes());
    }

    #[test]
    fn leaves_its_port_when_dropped() {
        let echo = Echo::start("first");
        let address = echo.address();
        drop(echo);
        let again = Echo::start_on("second", address);
        let answer = raw::http(again.address(), "GET / HTTP/1.1\nhost: x", "");
        assert_eq!(answer.json()["backend"], "second");
    }
}
