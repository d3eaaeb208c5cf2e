//! Interim answers (1xx) of services: they are not passed on, and never harm the answer that follows.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use http::{Response, StatusCode};
use testkit::raw::Raw;
use testkit::scripted::Scripted;
use tokio::net::TcpListener;

use crate::rig::Rig;

const HINT: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A gateway in front of a service that does this with each connection.
fn rig(options: &str, script: impl Fn(Raw, usize) + Send + Sync + 'static) -> (Rig, Scripted) {
    let upstream = Scripted::start(script);
    let address = upstream.address();
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{address}'{options} }}]"
    ));
    (rig, upstream)
}

#[track_caller]
fn check_answered(client: &mut Raw) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = client.take_response();
    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
    assert!(answer.header("link").is_empty(), "{}", answer.head);
}

#[test]
fn the_answer_after_them_comes_as_if_there_were_none() {
    for hints in [1, 2, 1000] {
        for in_pieces in [false, true] {
            let (rig, upstream) = rig("", move |mut raw, _| {
                while raw.try_take_until(b"\r\n\r\n").is_some() {
                    if in_pieces {
                        for _ in 0..hints {
                            let (start, end) = HINT.split_at(20);
                            raw.send(start);
                            raw.send(end);
                        }
                        raw.send(OK);
                    } else {
                        raw.send(HINT.repeat(hints) + OK);
                    }
                }
            });
            let mut client = rig.connect();
            for _ in 0..3 {
                check_answered(&mut client);
            }
            assert_eq!(upstream.connections(), 1, "the connection lasts");
        }
    }
}

#[test]
fn a_flood_ends_with_the_time_that_a_request_may_take() {
    let (rig, _upstream) = rig(", timeout_ms: 1000", |mut raw, number| {
        raw.take_until(b"\r\n\r\n");
        if number > 0 {
            return raw.send(OK);
        }
        let flood = HINT.repeat(100);
        while raw.try_send(&flood) {}
    });
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 504);
    check_answered(&mut client);
}

#[test]
fn nothing_after_them_is_as_no_answer_at_all() {
    let (rig, _upstream) = rig("", |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(HINT);
    });
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx");
    let answer = client.take_response();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-nuncio-reason"), ["upstream_reset"]);
}

#[test]
fn one_that_nobody_asked_for_costs_its_connection_and_no_request() {
    let (rig, upstream) = rig("", |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(format!("{OK}{HINT}"));
        _ = raw.closes();
    });
    let mut client = rig.connect();
    for _ in 0..3 {
        check_answered(&mut client);
    }
    assert_eq!(upstream.connections(), 3);
}

/// A service that speaks HTTP/2 without TLS and sends so many hints before each answer.
fn http2(hints: usize) -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listener = runtime.block_on(listening).expect("a free port");
    let address = listener.local_addr().expect("its address");
    // It ends with the process.
    thread::spawn(move || {
        runtime.block_on(async {
            let (stream, _) = listener.accept().await.expect("the gateway");
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                for _ in 0..hints {
                    let mut hint = Response::new(());
                    *hint.status_mut() = StatusCode::from_u16(103).expect("a status");
                    respond.send_informational(hint).expect("a hint");
                }
                let mut body = respond
                    .send_response(Response::new(()), false)
                    .expect("an answer");
                body.send_data("ok".into(), true).expect("its body");
            }
        });
    });
    address
}

#[test]
fn over_http_2_it_is_the_same() {
    for hints in [1, 1000] {
        let address = http2(hints);
        let rig = Rig::start(&format!(
            "routes: [{{ prefix: /, service: '{address}', grpc: true }}]"
        ));
        let mut client = rig.connect();
        for _ in 0..3 {
            check_answered(&mut client);
        }
    }
}
