//! HTTP/2 with prior knowledge on the plain port, and HTTP/2 towards services.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gateway::listener::Limits;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::echo::Echo;
use tokio::net::{TcpListener, TcpStream};

use crate::rig::Rig;

type Frames =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn frames(data: &[&'static str], trailers: &[(&'static str, &'static str)]) -> Frames {
    let mut frames: Vec<_> = data
        .iter()
        .map(|data| Ok(Frame::data(Bytes::from_static(data.as_bytes()))))
        .collect();
    if !trailers.is_empty() {
        let trailers: HeaderMap = trailers
            .iter()
            .map(|(name, value)| {
                (
                    name.parse().expect("a name"),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        frames.push(Ok(Frame::trailers(trailers)));
    }
    StreamBody::new(futures_util::stream::iter(frames))
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(20), test)
            .await
            .expect("the test ends in time")
    })
}

async fn connect(address: SocketAddr) -> SendRequest<Frames> {
    let stream = TcpStream::connect(address)
        .await
        .expect("the gateway listens");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Frames> {
    let uri = format!("http://shop{path}");
    Request::get(uri).body(frames(&[], &[])).expect("a request")
}

async fn json(response: Response<Incoming>) -> serde_json::Value {
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn many_streams_share_a_connection_and_reach_an_http1_service() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    run(async {
        let client = connect(rig.address).await;
        let requests = (0..50).map(|n| {
            let mut client = client.clone();
            async move {
                let response = client
                    .send_request(get(&format!("/x/{n}")))
                    .await
                    .expect("an answer");
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.headers()["server"], "envoy");
                let seen = json(response).await;
                assert_eq!(seen["request"]["url"]["path"], format!("/{n}"));
                assert_eq!(seen["request"]["host"], "shop");
                assert_eq!(seen["request"]["version"], "HTTP/1.1");
            }
        });
        futures_util::future::join_all(requests).await;
    });
    assert_eq!(rig.metric("nuncio_connections_accepted_total{}"), 1.0);
}

#[test]
fn refusals_cost_a_stream_not_the_connection() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    run(async {
        let mut client = connect(rig.address).await;
        let status = async |client: &mut SendRequest<Frames>, request| {
            client
                .send_request(request)
                .await
                .expect("an answer")
                .status()
                .as_u16()
        };
        assert_eq!(status(&mut client, get("/none")).await, 404);
        let mut other_host = get("/x/");
        other_host
            .headers_mut()
            .insert("host", HeaderValue::from_static("other"));
        assert_eq!(status(&mut client, other_host).await, 400);
        let mut many = get("/x/");
        for _ in 0..101 {
            many.headers_mut()
                .append("cookie", HeaderValue::from_static("a=b"));
        }
        assert_eq!(status(&mut client, many).await, 431);
        assert_eq!(status(&mut client, get("/x/")).await, 200);
    });
    assert_eq!(rig.metric("nuncio_connections_accepted_total{}"), 1.0);
}

#[test]
fn bodies_and_trailers_pass_from_http2_to_http2() {
    // A gRPC-like service: it answers with what it got, and with trailers.
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let service = service_fn(|request: Request<Incoming>| async move {
                    assert_eq!(request.version(), http::Version::HTTP_2);
                    assert_eq!(request.headers()["te"], "trailers");
                    assert_eq!(request.uri().authority().map(|a| a.as_str()), Some("shop"));
                    let body = request.into_body().collect().await.expect("a whole body");
                    assert_eq!(body.trailers().expect("trailers")["t"], "up");
                    assert_eq!(body.to_bytes(), "hello world");
                    Ok::<_, Infallible>(Response::new(frames(
                        &["he", "y"],
                        &[("grpc-status", "0")],
                    )))
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(http2.serve_connection(TokioIo::new(stream), service));
            }
        });
        let rig = Rig::start(&format!(
            "routes: [{{ prefix: /, grpc: true, service: '{address}' }}]"
        ));
        let mut client = connect(rig.address).await;
        for _ in 0..3 {
            let request = Request::post("http://shop/a.Service/Call")
                .header("te", "trailers")
                .body(frames(&["hello", " world"], &[("t", "up")]))
                .expect("a request");
            let response = client.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            let body = response.into_body().collect().await.expect("a whole body");
            assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
            assert_eq!(body.to_bytes(), "hey");
        }
        let open: Vec<String> = rig
            .metrics
            .encode()
            .lines()
            .filter(|line| line.starts_with("nuncio_upstream_connections{"))
            .map(str::to_owned)
            .collect();
        // One for each core at most.
        let counts: BTreeMap<&str, &str> = open
            .iter()
            .filter_map(|line| line.rsplit_once(' '))
            .collect();
        assert!(
            counts.values().all(|count| ["1", "2"].contains(count)),
            "{open:?}"
        );
    });
}

#[test]
fn a_reset_stream_ends_the_service_s_request() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    run(async {
        let mut client = connect(rig.address).await;
        let mut slow = get("/x/");
        slow.headers_mut()
            .insert("requested-backend-delay", HeaderValue::from_static("3000"));
        let asking = client.send_request(slow);
        let active = "nuncio_requests_active{route=\"r0.default\"}";
        let begun = async {
            while rig.metric(active) < 1.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = asking => panic!("the service is slow"),
            () = begun => (),
        }
        // Dropping the request has reset its stream.
        while rig.metric(active) > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            client
                .send_request(get("/x/"))
                .await
                .expect("an answer")
                .status(),
            StatusCode::OK
        );
    });
}

/// A frame with its head.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("small frames")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[test]
fn floods_of_resets_end_the_connection_and_harm_nobody_else() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    let mut honest = rig.connect();
    // GET http://shop/x/ as HPACK, with end of stream and of headers; then RST_STREAM with CANCEL.
    let head = b"\x82\x86\x04\x03/x/\x01\x04shop";
    let pair = |stream| {
        [
            frame(1, 5, stream, head),
            frame(3, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat()
    };
    let preface = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(4, 0, 0, &[]),
    ]
    .concat();
    for pause in [false, true] {
        let mut client = rig.connect();
        client.send(&preface);
        let mut sent = 0;
        // In one piece streams are reset before they are looked at, with pauses after their request has begun.
        while sent < 5000 && client.try_send(pair(sent * 2 + 1)) {
            sent += 1;
            if pause {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        client.finish();
        let said = client.take_to_end();
        let goaway = said
            .windows(4)
            .any(|window| window[0] == 7 && window[1..] == [0, 0, 0]);
        assert!(goaway, "GOAWAY after {sent} resets");
        assert!(sent < 5000 || !pause, "{sent} resets were taken");
        honest.send("GET /x/ HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(honest.take_response().status, 200);
    }
}

#[test]
fn a_window_that_never_opens_ends_the_connection() {
    let echo = Echo::start("echo");
    let mut limits = Limits::default();
    limits.timeouts.stall = Duration::from_millis(300);
    let route = format!("routes: [{{ prefix: /x/, service: '{}' }}]", echo.address());
    let rig = Rig::with(&route, limits, &[]);
    let mut client = rig.connect();
    // SETTINGS_INITIAL_WINDOW_SIZE is 0.
    let settings = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
    client.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat());
    client.send(frame(1, 5, 1, b"\x82\x86\x04\x03/x/\x01\x04shop"));
    client.take_to_end();
    let active = "nuncio_requests_active{route=\"r0.default\"}";
    testkit::wait::until("the end of the request", Duration::from_secs(5), || {
        (rig.metric(active) == 0.0).then_some(())
    });
}

#[test]
fn a_stop_says_goaway_and_lets_streams_finish() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    run(async {
        let mut client = connect(rig.address).await;
        let mut slow = get("/x/");
        slow.headers_mut()
            .insert("requested-backend-delay", HeaderValue::from_static("300"));
        let active = "nuncio_requests_active{route=\"r0.default\"}";
        let stop = async {
            while rig.metric(active) < 1.0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            rig.gateway.shutdown().await
        };
        let (answer, drained) = tokio::join!(client.send_request(slow), stop);
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
        assert!(drained);
        assert!(client.ready().await.is_err(), "the connection has ended");
    });
}

#[test]
fn a_large_body_passes_in_small_windows() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, grpc: true, timeout_ms: 20000, service: '{}' }}]",
        echo.address()
    ));
    run(async {
        let stream = TcpStream::connect(rig.address)
            .await
            .expect("the gateway listens");
        let (mut client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let body = "x".repeat(2 << 20);
        let request = Request::post("http://shop/")
            .body(Full::new(Bytes::from(body.clone())))
            .expect("a request");
        let response = client.send_request(request).await.expect("an answer");
        let seen = json(response).await;
        assert!(seen["request"]["body"] == body, "the body differs");
    });
}
