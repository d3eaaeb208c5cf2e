//! When services fail: what the client is told, what is tried again, what is left alone.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gateway::listener::Limits;
use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::{Rig, config};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn route(address: std::net::SocketAddr, more: &str) -> String {
    format!("routes: [{{ prefix: /, service: '{address}'{more} }}]")
}

#[track_caller]
fn check_refused(rig: &Rig, status: u16, body: &str, reason: &str) {
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(
        (answer.status, &*String::from_utf8_lossy(&answer.body)),
        (status, body)
    );
    assert_eq!(answer.header("content-type"), ["text/plain"]);
    assert_eq!(
        rig.metric(&format!("nuncio_refusals_total{{reason=\"{reason}\"}}")),
        1.0
    );
}

#[test]
fn nobody_listening_is_503() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let rig = Rig::start(&route(address, ", stats_name: gone"));
    check_refused(&rig, 503, "upstream connect error", "connect_failed");
    assert_eq!(
        rig.metric("nuncio_upstream_connect_failures_total{upstream=\"gone\"}"),
        1.0
    );
}

#[test]
fn no_endpoint_is_503() {
    let rig = Rig::start("routes: []");
    let mut config = config("routes: [{ prefix: /, service: shop }]");
    config.endpoints.tell("default", "shop", Vec::new());
    rig.gateway.apply(&config, &[]);
    check_refused(&rig, 503, "no healthy upstream", "no_upstream");
}

#[test]
fn a_name_that_nobody_knows_is_503() {
    let rig = Rig::start("routes: [{ prefix: /, service: 'nowhere.invalid', timeout_ms: 30000 }]");
    check_refused(&rig, 503, "no healthy upstream", "no_upstream");
}

#[test]
fn an_answer_that_takes_too_long_is_504() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&route(
        echo.address(),
        ", timeout_ms: 150, stats_name: slow",
    ));
    let answer = rig.ask(
        "GET / HTTP/1.1\nhost: a\nkat-req-http-requested-backend-delay: 3000",
        "",
    );
    assert_eq!(answer.status, 504);
    assert_eq!(answer.body, b"upstream request timeout");
    assert_eq!(
        rig.metric("nuncio_upstream_timeouts_total{upstream=\"slow\"}"),
        1.0
    );
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
}

#[test]
fn an_endpoint_that_does_not_accept_is_503_after_the_connect_timeout() {
    // A listener whose queue is full neither accepts nor refuses.
    let full =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    full.bind(&std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .expect("a free port");
    full.listen(0).expect("it listens");
    let address = full
        .local_addr()
        .expect("its address")
        .as_socket()
        .expect("an IP address");
    let _queued: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)))
        .collect();
    let rig = Rig::start(&route(address, ", connect_timeout_ms: 150"));
    check_refused(&rig, 503, "upstream connect timeout", "connect_timeout");
}

#[test]
fn an_answer_whose_body_takes_too_long_is_cut() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        assert!(raw.closes(), "the gateway gives up");
    });
    for more in [", timeout_ms: 200", ", timeout_ms: 0, idle_timeout_ms: 200"] {
        let rig = Rig::start(&route(upstream.address(), more));
        let mut client = rig.connect();
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let said = String::from_utf8(client.take_to_end()).expect("text");
        assert!(said.ends_with("\r\n\r\nhalf"), "{said}");
    }
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    let upstream = Scripted::answering("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let rig = Rig::start(&route(upstream.address(), ""));
    check_refused(&rig, 502, "upstream protocol error", "upstream_protocol");
}

#[test]
fn a_connection_that_breaks_before_the_answer_is_503() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
    });
    let rig = Rig::start(&route(upstream.address(), ""));
    check_refused(
        &rig,
        503,
        "upstream disconnected before it answered",
        "upstream_reset",
    );
    assert_eq!(
        upstream.connections(),
        1,
        "a new connection that breaks is not tried again"
    );
}

#[test]
fn an_idle_connection_that_the_service_closes_is_no_error() {
    // Each connection answers once, then closes: at once, or when it sees the next request.
    let upstream = Scripted::start(|mut raw, number| {
        raw.take_until(b"\r\n\r\n");
        raw.send(OK);
        if number % 2 == 0 {
            _ = raw.try_take_until(b"\r\n\r\n");
        }
    });
    let rig = Rig::start(&route(upstream.address(), ""));
    let mut client = rig.connect();
    for number in 0..40 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200, "request {number}");
    }
}

#[test]
fn a_post_on_a_connection_that_breaks_is_not_sent_twice() {
    let posts = Arc::new(AtomicUsize::new(0));
    let seen = posts.clone();
    let upstream = Scripted::start(move |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(OK);
        if raw.try_take_until(b"\r\n\r\nbody").is_some() {
            seen.fetch_add(1, Relaxed);
        }
    });
    let rig = Rig::start(&route(
        upstream.address(),
        ", retry_policy: { retry_on: 5xx, num_retries: 3 }",
    ));
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody");
    assert_eq!(client.take_response().status, 503);
    assert_eq!(posts.load(Relaxed), 1);
}

#[test]
fn retries_go_on_until_an_answer_is_good() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = Scripted::start(move |mut raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            if head.starts_with(b"PUT") {
                assert_eq!(raw.take(4), b"body");
            }
            let bad = counted.fetch_add(1, Relaxed) % 3 < 2;
            raw.send(if bad {
                "HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nbad"
            } else {
                OK
            });
        }
    });
    let retry = ", stats_name: flaky, retry_policy: { retry_on: gateway-error, num_retries: 2 }";
    let rig = Rig::start(&route(upstream.address(), retry));
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").body, b"ok");
    assert_eq!(rig.ask("PUT / HTTP/1.1\nhost: a", "body").body, b"ok");
    assert_eq!(count.load(Relaxed), 6);
    assert_eq!(
        rig.metric("nuncio_upstream_retries_total{upstream=\"flaky\"}"),
        4.0
    );
    // What is not idempotent stays as it is, and so does everything after the last try.
    assert_eq!(rig.ask("POST / HTTP/1.1\nhost: a", "body").status, 503);
    let rig = Rig::start(&route(
        upstream.address(),
        ", retry_policy: { retry_on: 5xx }",
    ));
    count.store(0, Relaxed);
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").body, b"bad");
    assert_eq!(count.load(Relaxed), 2);
}

#[test]
fn a_retry_goes_to_another_endpoint() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let dead = free.local_addr().expect("its address");
    drop(free);
    let echo = Echo::start("alive");
    let rig = Rig::start("routes: []");
    let mut config = config(
        "routes: [{ prefix: /, service: shop, retry_policy: { retry_on: connect-failure } }]",
    );
    config
        .endpoints
        .tell("default", "shop", vec![dead, echo.address()]);
    rig.gateway.apply(&config, &[]);
    for _ in 0..6 {
        assert_eq!(rig.ask("POST / HTTP/1.1\nhost: a", "body").status, 200);
    }
}

#[test]
fn one_slow_try_is_replaced() {
    let upstream = Scripted::start(|mut raw, number| {
        raw.take_until(b"\r\n\r\n");
        if number > 0 {
            raw.send(OK);
        }
        raw.closes();
    });
    let retry = ", timeout_ms: 8000, retry_policy: { retry_on: 5xx, per_try_timeout: 150ms }";
    let rig = Rig::start(&route(upstream.address(), retry));
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_client_that_stops_in_its_body_gets_408() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&route(echo.address(), ", idle_timeout_ms: 150"));
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    let answer = client.take_response();
    assert_eq!(
        (answer.status, &*answer.body),
        (408, &b"request body not received in time"[..])
    );
    assert!(client.closes());
}

#[test]
fn too_many_requests_at_once_are_503_with_a_header() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&route(
        echo.address(),
        ", circuit_breakers: [{ max_requests: 1 }]",
    ));
    let mut slow = rig.connect();
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 1000\r\n\r\n");
    testkit::wait::until("the slow request", Duration::from_secs(5), || {
        (rig.metric("nuncio_requests_active{route=\"r0.default\"}") == 1.0).then_some(())
    });
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-envoy-overloaded"), ["true"]);
    assert_eq!(slow.take_response().status, 200);
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
}

#[test]
fn a_client_that_takes_no_bytes_is_let_go() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n");
        // Until the gateway gives up.
        while raw.try_send([0; 64 << 10]) {}
    });
    let mut limits = Limits::default();
    limits.timeouts.stall = Duration::from_millis(300);
    let rig = Rig::with(&route(upstream.address(), ", timeout_ms: 0"), limits, &[]);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let begun = Instant::now();
    testkit::wait::until("the end", Duration::from_secs(8), || {
        (begun.elapsed() > Duration::from_millis(200) && rig.metric("nuncio_connections{}") == 0.0)
            .then_some(())
    });
}
