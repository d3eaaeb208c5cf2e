//! What is tried again, how often, and where; tries beside each other; requests that wait for a connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use testkit::echo::Echo;
use testkit::raw::Raw;
use testkit::scripted::Scripted;
use testkit::wait;

use crate::rig::{Rig, config};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LONG: Duration = Duration::from_secs(8);

/// Gives the first answer once, then `200`s, and says how many requests it saw.
fn flaky(first: &'static str) -> (Scripted, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let upstream = Scripted::start(move |mut raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            if head.starts_with(b"POST") {
                assert_eq!(raw.take(4), b"body");
            }
            match (counted.fetch_add(1, Relaxed), first) {
                (0, "") => return,
                (0, first) => raw.send(first),
                _ => raw.send(OK),
            }
        }
    });
    (upstream, count)
}

#[track_caller]
fn check(policy: &str, first: &'static str, method: &str, expected: (u16, usize)) {
    let (upstream, count) = flaky(first);
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}', retry_policy: {policy} }}]",
        upstream.address()
    ));
    let body = if method == "POST" { "body" } else { "" };
    let answer = rig.ask(&format!("{method} / HTTP/1.1\nhost: a"), body);
    assert_eq!(
        (answer.status, count.load(Relaxed)),
        expected,
        "{policy} {first} {method}"
    );
}

#[test]
fn each_condition_is_worth_another_try() {
    const BAD: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    const GATEWAY: &str = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    const CONFLICT: &str = "HTTP/1.1 409 No\r\ncontent-length: 0\r\n\r\n";
    const TEAPOT: &str = "HTTP/1.1 418 No\r\ncontent-length: 0\r\nx-again: yes\r\n\r\n";
    const GRPC: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ngrpc-status: 14\r\n\r\n";
    check("{ retry_on: 5xx }", BAD, "GET", (200, 2));
    check("{ retry_on: 5xx }", "", "GET", (200, 2));
    check("{ retry_on: gateway-error }", BAD, "GET", (500, 1));
    check("{ retry_on: gateway-error }", GATEWAY, "GET", (200, 2));
    check("{ retry_on: reset }", "", "GET", (200, 2));
    check("{ retry_on: reset }", GATEWAY, "GET", (503, 1));
    check("{ retry_on: 'reset,5xx' }", BAD, "GET", (200, 2));
    check(
        "{ retry_on: [connect-failure, retriable-4xx] }",
        CONFLICT,
        "GET",
        (200, 2),
    );
    check(
        "{ retry_on: [connect-failure, refused-stream] }",
        "",
        "GET",
        (503, 1),
    );
    let statuses = "{ retry_on: retriable-status-codes, retriable_status_codes: [418, 425] }";
    check(statuses, TEAPOT, "GET", (200, 2));
    check(statuses, CONFLICT, "GET", (409, 1));
    check(statuses, TEAPOT, "POST", (418, 1));
    let headers = "{ retry_on: retriable-headers, retriable_headers: [X-Again] }";
    check(headers, TEAPOT, "POST", (200, 2));
    check("{ retry_on: unavailable }", GRPC, "POST", (200, 2));
    check("{ retry_on: cancelled }", GRPC, "POST", (200, 1));
    check("{ retry_on: 5xx }", BAD, "POST", (500, 1));
    check(
        "{ retry_on: 5xx, retry_non_idempotent: true }",
        BAD,
        "POST",
        (200, 2),
    );
    check("{ retry_on: 5xx, num_retries: 0 }", BAD, "GET", (500, 1));
}

fn routed(addresses: Vec<SocketAddr>, more: &str) -> Rig {
    let rig = Rig::start("routes: []");
    let mut config = config(&format!(
        "routes: [{{ prefix: /, service: shop, stats_name: shop{more} }}]"
    ));
    config.endpoints.tell("default", "shop", addresses);
    let applied = rig.gateway.apply(&config, &[]);
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    rig
}

#[test]
fn tries_go_round_all_endpoints() {
    let bad: Vec<Scripted> = (0..3)
        .map(|_| Scripted::answering("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"))
        .collect();
    let good = Echo::start("good");
    let mut addresses: Vec<SocketAddr> = bad.iter().map(Scripted::address).collect();
    addresses.push(good.address());
    let more =
        ", retry_policy: { retry_on: 5xx, num_retries: 3, back_off: { base_interval: 1ms } }";
    let rig = routed(addresses, more);
    for _ in 0..8 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    }
    let seen = good.seen();
    let attempt = |request: &serde_json::Value| request["headers"]["x-envoy-attempt-count"].clone();
    assert!(
        seen.iter()
            .any(|request| attempt(request) == serde_json::json!(["4"])),
        "{seen:?}"
    );
}

#[test]
fn a_budget_bounds_the_retries_under_way() {
    let upstream = Scripted::start(|mut raw, _| {
        while raw.try_take_until(b"\r\n\r\n").is_some() {
            raw.send("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let rig = routed(
        vec![upstream.address()],
        ", retry_policy: { retry_on: 5xx, num_retries: 5, \
          budget: { budget_percent: 0, min_retry_concurrency: 0 } }",
    );
    for _ in 0..3 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    }
    assert_eq!(
        rig.metric("nuncio_upstream_retries_total{upstream=\"shop\"}"),
        0.0
    );
    let overflows = "nuncio_upstream_overflows_total{upstream=\"shop\",limit=\"retries\"}";
    assert_eq!(rig.metric(overflows), 3.0);
}

#[test]
fn a_slow_try_goes_on_beside_the_next_one() {
    // The first connection's answer comes only when the second try was made; the second try's never.
    let (tell, told) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let upstream = Scripted::start(move |mut raw, number| {
        raw.take_until(b"\r\n\r\n");
        if number == 0 {
            told.lock()
                .expect("unpoisoned")
                .recv_timeout(LONG)
                .expect("a second try");
            raw.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst");
        } else {
            tell.send(()).expect("the first waits");
            assert!(raw.closes(), "the loser is cancelled");
        }
    });
    let hedge = ", timeout_ms: 8000, hedge: { hedge_on_per_try_timeout: true }, \
                 retry_policy: { retry_on: 5xx, per_try_timeout: 50ms }";
    let rig = routed(vec![upstream.address()], hedge);
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!((answer.status, &*answer.body), (200, &b"first"[..]));
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn the_first_good_answer_of_several_wins() {
    let slow = Scripted::start(|mut raw, _| {
        // The race may be over before the request is here.
        if raw.try_take_until(b"\r\n\r\n").is_some() {
            assert!(raw.closes(), "the loser is cancelled");
        }
    });
    let fast =
        Scripted::start(
            |mut raw, _| {
                while raw.try_take_until(b"\r\n\r\n").is_some() && raw.try_send(OK) {}
            },
        );
    let hedged = ", timeout_ms: 8000, hedge: { initial_requests: 2 }";
    let tries = |rig: &Rig| rig.metric("nuncio_upstream_retries_total{upstream=\"shop\"}");
    let rig = routed(vec![slow.address(), fast.address()], hedged);
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    }
    assert!(begun.elapsed() < LONG);
    assert_eq!(tries(&rig), 4.0, "each has begun another try");
    // A POST is not sent twice.
    let rig = routed(vec![fast.address()], hedged);
    assert_eq!(rig.ask("POST / HTTP/1.1\nhost: a", "").status, 200);
    assert_eq!(tries(&rig), 0.0);
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    assert_eq!(tries(&rig), 1.0);
}

/// Answers each request when the test says so.
fn gated() -> (Scripted, mpsc::Sender<()>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Arc::new(std::sync::Mutex::new(gate));
    let upstream = Scripted::start(move |mut raw, _| {
        while raw.try_take_until(b"\r\n\r\n").is_some() {
            let opened = gate.lock().expect("unpoisoned").recv_timeout(LONG);
            if opened.is_err() || !raw.try_send(OK) {
                return;
            }
        }
    });
    (upstream, open)
}

fn begin(rig: &Rig) -> Raw {
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client
}

fn wait_active(rig: &Rig, count: f64) {
    wait::until("requests under way", LONG, || {
        let active = rig.metric("nuncio_upstream_requests_active{upstream=\"shop\"}");
        (active == count).then_some(())
    });
}

#[test]
fn requests_wait_for_a_connection_and_no_more_than_may() {
    let (upstream, open) = gated();
    let limits =
        ", timeout_ms: 8000, circuit_breakers: [{ max_connections: 1, max_pending_requests: 3 }]";
    let rig = routed(vec![upstream.address()], limits);
    // On both cores, so that the one connection must change hands.
    let mut clients: Vec<Raw> = (0..4)
        .map(|number| {
            let client = begin(&rig);
            wait_active(&rig, f64::from(number + 1));
            client
        })
        .collect();
    wait::until("the queue", LONG, || {
        let waited = "nuncio_upstream_overflows_total{upstream=\"shop\",limit=\"connections\"}";
        (rig.metric(waited) == 3.0).then_some(())
    });
    let over = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(over.status, 503);
    assert_eq!(over.header("x-envoy-overloaded"), ["true"]);
    assert_eq!(
        rig.metric("nuncio_upstream_connections{upstream=\"shop\"}"),
        1.0
    );
    for _ in 0..4 {
        open.send(()).expect("the upstream waits");
    }
    for client in &mut clients {
        assert_eq!(client.take_response().status, 200);
    }
    // Many more than the one connection, from connections on both cores, and all are served.
    for _ in 0..60 {
        open.send(()).expect("the upstream waits");
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = rig.connect();
                for _ in 0..20 {
                    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
                    assert_eq!(client.take_response().status, 200);
                }
            });
        }
    });
}

#[test]
fn who_waits_too_long_for_a_connection_gets_504() {
    let (upstream, open) = gated();
    let limits = ", timeout_ms: 300, circuit_breakers: [{ max_connections: 1 }]";
    let rig = routed(vec![upstream.address()], limits);
    let mut first = begin(&rig);
    wait_active(&rig, 1.0);
    let mut second = begin(&rig);
    assert_eq!(first.take_response().status, 504);
    assert_eq!(second.take_response().status, 504);
    wait_active(&rig, 0.0);
    // The place is free again.
    for _ in 0..3 {
        open.send(()).expect("the upstream waits");
    }
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
}

#[test]
fn each_priority_has_limits_of_its_own() {
    let (upstream, open) = gated();
    let rig = Rig::start("routes: []");
    let breakers = "circuit_breakers: [{ max_requests: 1 }, { priority: high, max_requests: 2 }]";
    let mut config = config(&format!(
        "routes: [{{ prefix: /, service: shop, stats_name: shop, timeout_ms: 8000, {breakers} }}, \
         {{ prefix: /high, service: shop, stats_name: shop, timeout_ms: 8000, priority: high, {breakers} }}]"
    ));
    config
        .endpoints
        .tell("default", "shop", vec![upstream.address()]);
    rig.gateway.apply(&config, &[]);
    let mut clients = vec![begin(&rig)];
    wait_active(&rig, 1.0);
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    for number in 0..2 {
        let mut client = rig.connect();
        client.send("GET /high HTTP/1.1\r\nhost: a\r\n\r\n");
        clients.push(client);
        wait_active(&rig, f64::from(number + 2));
    }
    assert_eq!(rig.ask("GET /high HTTP/1.1\nhost: a", "").status, 503);
    // Whichever connection is let go first: nobody says which client's it is.
    for _ in &clients {
        open.send(()).expect("the upstream waits");
    }
    for client in &mut clients {
        assert_eq!(client.take_response().status, 200);
    }
}

#[test]
fn a_trusted_proxy_says_how_long_and_how_often() {
    let (upstream, count) = flaky("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    let service = upstream.address();
    let asked = "GET / HTTP/1.1\nhost: a\nx-envoy-retry-on: gateway-error\nx-envoy-max-retries: 2";
    let rig = Rig::start(&format!(
        "listener: 1\nroutes: [{{ prefix: /, service: '{service}' }}]"
    ));
    assert_eq!(rig.ask(asked, "").status, 200);
    assert_eq!(count.load(Relaxed), 2);

    // From anybody else it counts for nothing.
    let (upstream, count) = flaky("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    assert_eq!(rig.ask(asked, "").status, 503);
    assert_eq!(count.load(Relaxed), 1);

    let echo = Echo::start("slow");
    let slow = "GET / HTTP/1.1\nhost: a\nkat-req-http-requested-backend-delay: 3000\n\
                x-envoy-upstream-rq-timeout-ms: 100";
    let rig = Rig::start(&format!(
        "listener: 1\nroutes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    ));
    let begun = Instant::now();
    assert_eq!(rig.ask(slow, "").status, 504);
    assert!(begun.elapsed() < Duration::from_millis(2500));
    let headers = &echo.seen()[0]["headers"];
    assert_eq!(
        headers["x-envoy-expected-rq-timeout-ms"],
        serde_json::json!(["100"])
    );
    assert!(headers.get("x-envoy-upstream-rq-timeout-ms").is_none());
}

/// Retries, pending requests and bytes under Envoy's names.
#[test]
fn tries_and_bytes_are_counted_as_envoy_does() {
    const NO: &str = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let told = |rig: &Rig, name: &str| {
        rig.metric(&format!(
            "envoy_cluster_upstream_{name}{{envoy_cluster_name=\"shop\"}}"
        ))
    };
    let start = |upstream: &Scripted, more: &str| {
        Rig::start(&format!(
            "routes: [{{ prefix: /, service: '{}', stats_name: shop, timeout_ms: 0, retry_policy: {more} }}]",
            upstream.address()
        ))
    };

    // Bad once, then good.
    let (upstream, _) = flaky(NO);
    let rig = start(&upstream, "{ retry_on: 5xx }");
    let mut client = rig.connect();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.take_response().status, 200);
    }
    for (name, expected) in [
        ("rq_retry", 1.0),
        ("rq_retry_success", 1.0),
        ("rq_retry_limit_exceeded", 0.0),
        ("rq_per_try_timeout", 0.0),
        ("rq_pending_active", 0.0),
        ("cx_rx_bytes_total", (NO.len() + 3 * OK.len()) as f64),
    ] {
        assert_eq!(told(&rig, name), expected, "{name}");
    }
    assert!(told(&rig, "rq_pending_total") >= 1.0);
    assert!(told(&rig, "cx_tx_bytes_total") > 4.0 * GET.len() as f64);
    let front = |name: &str| {
        rig.metric(&format!(
            "envoy_http_{name}{{envoy_http_conn_manager_prefix=\"ingress_http\"}}"
        ))
    };
    assert_eq!(
        front("downstream_cx_rx_bytes_total"),
        3.0 * GET.len() as f64
    );
    assert!(front("downstream_cx_tx_bytes_total") > 3.0 * OK.len() as f64);
    assert_eq!(front("no_route"), 0.0);

    // Bad for ever.
    let bad = Scripted::answering(NO);
    let rig = start(&bad, "{ retry_on: 5xx, num_retries: 2 }");
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    for (name, expected) in [
        ("rq_retry", 2.0),
        ("rq_retry_success", 0.0),
        ("rq_retry_limit_exceeded", 1.0),
    ] {
        assert_eq!(told(&rig, name), expected, "{name}");
    }

    // Silent once, then good.
    let silent = Scripted::start(|mut raw, number| {
        while raw.try_take_until(b"\r\n\r\n").is_some() {
            if number > 0 && !raw.try_send(OK) {
                return;
            }
        }
    });
    let rig = start(
        &silent,
        "{ retry_on: 5xx, per_try_timeout: 500ms, num_retries: 9 }",
    );
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    assert!(told(&rig, "rq_per_try_timeout") >= 1.0);
    assert_eq!(told(&rig, "rq_retry_success"), 1.0);
}
