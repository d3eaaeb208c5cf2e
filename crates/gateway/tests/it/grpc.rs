//! gRPC's clients that see no trailers: gRPC-Web, gRPC over HTTP/1.1, and what the gateway answers by itself.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::rig::Rig;

/// A message of gRPC: not compressed, three bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";
const MODULE: &str = "module: { enable_grpc_web: true, enable_grpc_http11_bridge: true }";

type Frames =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

/// A service that answers with the message that it got, twice, and with the status that the path tells. It takes gRPC alone.
struct Service {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Service {
    fn start() -> Service {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = runtime.block_on(listener).expect("a free port");
        let address = listener.local_addr().expect("its address");
        runtime.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service_fn(answer)));
            }
        });
        Service {
            address,
            _runtime: runtime,
        }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Frames>, Infallible> {
    let (head, body) = request.into_parts();
    let named = |name: &str| head.headers.get(name).map(HeaderValue::as_bytes);
    let kind = named("content-type").unwrap_or_default().to_vec();
    let is_grpc = kind.starts_with(b"application/grpc")
        && !kind.starts_with(b"application/grpc-web")
        && named("te") == Some(b"trailers");
    let body = body.collect().await.expect("a whole body").to_bytes();
    let status = head.uri.path().trim_start_matches('/').to_owned();
    let good = is_grpc && body == MESSAGE;
    let status = if good { status } else { "3".to_owned() };
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", status.parse().expect("a value"));
    fields.insert("grpc-message", HeaderValue::from_static("so%20it%20is"));
    let response = Response::builder().header("content-type", kind);
    if status == "7" {
        let mut response = response.body(frames(Vec::new())).expect("an answer");
        response.headers_mut().extend(fields);
        return Ok(response);
    }
    let sent = vec![
        Frame::data(body.clone()),
        Frame::data(body),
        Frame::trailers(fields),
    ];
    Ok(response.body(frames(sent)).expect("an answer"))
}

fn frames(frames: Vec<Frame<Bytes>>) -> Frames {
    let frames: Vec<_> = frames.into_iter().map(Ok).collect();
    StreamBody::new(futures_util::stream::iter(frames))
}

fn rig(service: &Service) -> Rig {
    Rig::start(&format!(
        "routes: [{{ prefix: /call/, grpc: true, service: '{}' }}]\n{MODULE}",
        service.address
    ))
}

/// The status as gRPC-Web has it behind the messages.
fn trailers(status: &str) -> Vec<u8> {
    let lines = format!("grpc-status: {status}\r\ngrpc-message: so%20it%20is\r\n");
    let length = u32::try_from(lines.len()).expect("it is short");
    [&[0x80][..], &length.to_be_bytes(), lines.as_bytes()].concat()
}

#[test]
fn browsers_speak_grpc_web() {
    let service = Service::start();
    let rig = rig(&service);
    for status in ["0", "5"] {
        let head = format!(
            "POST /call/{status} HTTP/1.1\nhost: a\ncontent-type: application/grpc-web+proto\nx-grpc-web: 1"
        );
        let answer = rig.ask_bytes(&head, MESSAGE);
        assert_eq!(answer.status, 200);
        let kind = answer.header("content-type");
        assert_eq!(kind, ["application/grpc-web+proto"]);
        let expected = [MESSAGE, MESSAGE, &trailers(status)].concat();
        assert_eq!(answer.body, expected);
    }
}

#[test]
fn browsers_speak_grpc_web_in_base64() {
    let service = Service::start();
    let rig = rig(&service);
    // In two pieces, each with its padding.
    let (one, two) = MESSAGE.split_at(5);
    let body = format!("{}{}", STANDARD.encode(one), STANDARD.encode(two));
    let head = "POST /call/0 HTTP/1.1\nhost: a\ncontent-type: application/grpc-web-text\naccept: application/grpc-web-text";
    let answer = rig.ask(head, &body);
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type");
    assert_eq!(kind, ["application/grpc-web-text"]);
    let mut decoded = Vec::new();
    let text = String::from_utf8(answer.body).expect("base64 is text");
    for piece in text.split_inclusive("=").filter(|piece| *piece != "=") {
        let whole = piece.trim_end_matches('=');
        let padded = format!("{whole}{}", "=".repeat((4 - whole.len() % 4) % 4));
        decoded.extend(STANDARD.decode(padded).expect("base64"));
    }
    let expected = [MESSAGE, MESSAGE, &trailers("0")].concat();
    assert_eq!(decoded, expected, "{text}");
    // What is no base64 reaches no service as a message.
    let answer = rig.ask(head, "????");
    assert_ne!(answer.header("grpc-status"), ["0"]);
    assert!(answer.body.is_empty(), "{:?}", answer.body);
}

#[test]
fn a_call_that_fails_at_once_has_its_status_in_the_head() {
    let service = Service::start();
    let rig = rig(&service);
    let answer = rig.ask_bytes(
        "POST /call/7 HTTP/1.1\nhost: a\ncontent-type: application/grpc-web",
        MESSAGE,
    );
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), ["application/grpc-web"]);
    assert_eq!(answer.header("grpc-status"), ["7"]);
    assert!(answer.body.is_empty());
}

#[test]
fn clients_over_http1_find_the_status_in_the_head() {
    let service = Service::start();
    let rig = rig(&service);
    for (status, http) in [("0", 200), ("5", 503), ("7", 200)] {
        let head = format!("POST /call/{status} HTTP/1.1\nhost: a\ncontent-type: application/grpc");
        let answer = rig.ask_bytes(&head, MESSAGE);
        assert_eq!(answer.status, http, "{}", answer.head);
        assert_eq!(answer.header("grpc-status"), [status]);
        assert_eq!(answer.header("grpc-message"), ["so%20it%20is"]);
        assert_eq!(answer.header("content-type"), ["application/grpc"]);
        if status != "7" {
            assert_eq!(answer.header("content-length"), ["16"]);
            assert_eq!(answer.body, [MESSAGE, MESSAGE].concat());
        }
    }
}

#[test]
fn what_the_gateway_refuses_is_a_status_of_grpc() {
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /call/, grpc: true, service: '127.0.0.1:1' }}]\n{MODULE}"
    ));
    for (path, kind, status, message) in [
        (
            "/call/0",
            "application/grpc",
            "14",
            "upstream connect error",
        ),
        (
            "/call/0",
            "application/grpc-web",
            "14",
            "upstream connect error",
        ),
        (
            "/none",
            "application/grpc-web-text",
            "12",
            "no route matches",
        ),
    ] {
        let head = format!("POST {path} HTTP/1.1\nhost: a\ncontent-type: {kind}");
        let answer = rig.ask_bytes(&head, MESSAGE);
        assert_eq!(answer.status, 200, "{}", answer.head);
        assert_eq!(answer.header("content-type"), [kind]);
        assert_eq!(answer.header("grpc-status"), [status]);
        assert_eq!(answer.header("grpc-message"), [message]);
        assert!(answer.body.is_empty());
    }
    // Others are told in HTTP's words.
    let answer = rig.ask(
        "POST /none HTTP/1.1\nhost: a\ncontent-type: text/plain",
        "x",
    );
    assert_eq!(answer.status, 404);
    assert!(answer.header("grpc-status").is_empty());
}

#[test]
fn nothing_is_translated_unless_it_is_asked_for() {
    let service = Service::start();
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /call/, grpc: true, service: '{}' }}]",
        service.address
    ));
    let answer = rig.ask_bytes(
        "POST /call/0 HTTP/1.1\nhost: a\ncontent-type: application/grpc-web+proto",
        MESSAGE,
    );
    // The service says that it does not know this.
    assert_eq!(
        answer.header("content-type"),
        ["application/grpc-web+proto"]
    );
    assert_eq!(answer.body, [MESSAGE, MESSAGE].concat());
}
