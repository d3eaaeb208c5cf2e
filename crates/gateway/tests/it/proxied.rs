//! The PROXY protocol, from proxies in front and towards services; TCP keep-alive; `Expect: 100-continue`.

mod peers;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use gateway::listener::Limits;
use serde_json::json;
use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::{Rig, config};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const TCP4: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n";
const LIMIT: Duration = Duration::from_secs(8);

fn rig(module: &str) -> (Rig, Echo) {
    let echo = Echo::start("echo");
    let address = echo.address();
    let rig = Rig::start(&format!(
        "module: {{ use_proxy_proto: true{module} }}\nroutes: [{{ prefix: /, service: '{address}' }}]"
    ));
    (rig, echo)
}

#[track_caller]
fn seen_as(echo: &Echo) -> serde_json::Value {
    echo.seen().last().expect("a request")["headers"]["x-forwarded-for"].clone()
}

#[test]
fn who_is_named_in_front_counts_as_the_client() {
    let (rig, echo) = rig("");
    let v2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\x0a\0\0\x01\x12\x67\0\x50";
    let local: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    for (header, client) in [
        (TCP4.as_bytes(), "192.0.2.7"),
        (v2, "192.0.2.8"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (local, "127.0.0.1"),
    ] {
        let mut client_side = rig.connect();
        client_side.send(header);
        for _ in 0..2 {
            client_side.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(client_side.take_response().status, 200);
            assert_eq!(seen_as(&echo), json!([client]));
        }
        // In one piece, and byte by byte.
        let mut whole = header.to_vec();
        whole.extend(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let mut client_side = rig.connect();
        client_side.send(&whole);
        assert_eq!(client_side.take_response().status, 200);
        let mut client_side = rig.connect();
        for byte in whole {
            client_side.send([byte]);
        }
        assert_eq!(client_side.take_response().status, 200);
        assert_eq!(seen_as(&echo), json!([client]));
    }
}

#[test]
fn http_2_comes_behind_it_too() {
    let (rig, _echo) = rig("");
    let mut client = rig.connect();
    client.send(TCP4);
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    // The server's own settings.
    let head = client.take(9);
    assert_eq!(head[3], 4, "{head:?}");
}

#[test]
fn what_is_no_header_costs_the_connection_and_is_counted() {
    let (rig, echo) = rig("");
    let bad: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c",
        &[b'P'; 200],
    ];
    for (number, bytes) in bad.iter().enumerate() {
        let mut client = rig.connect();
        client.send(bytes);
        assert!(client.closes(), "{number}");
        testkit::wait::until("the count", LIMIT, || {
            let count = rig.metric("nuncio_connections_unproxied_total{}");
            (count == (number + 1) as f64).then_some(())
        });
    }
    assert!(echo.seen().is_empty());
}

#[test]
fn the_header_must_come_in_time() {
    let echo = Echo::start("echo");
    let mut limits = Limits::default();
    limits.timeouts.head = Duration::from_millis(100);
    let text = format!(
        "module: {{ use_proxy_proto: true }}\nroutes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    );
    let rig = Rig::with(&text, limits, &[]);
    let mut client = rig.connect();
    client.send("PROXY ");
    assert!(client.closes());
    assert_eq!(rig.metric("nuncio_connections_unproxied_total{}"), 1.0);
}

#[test]
fn address_rules_tell_the_peer_from_the_client() {
    let ask = |rules: &str| {
        let (rig, _echo) = rig(&format!(", ip_allow: [{rules}]"));
        let mut client = rig.connect();
        client.send(TCP4);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.take_response().status
    };
    assert_eq!(ask("{ peer: 127.0.0.1 }"), 200);
    assert_eq!(ask("{ peer: 192.0.2.7 }"), 403);
    assert_eq!(ask("{ remote: 192.0.2.7 }"), 200);
    assert_eq!(ask("{ remote: 127.0.0.1 }"), 403);
}

#[test]
fn connections_are_counted_for_the_client_not_the_proxy() {
    let echo = Echo::start("echo");
    let limits = Limits {
        connections_per_client_max: 1,
        ..Limits::default()
    };
    let text = format!(
        "module: {{ use_proxy_proto: true }}\nroutes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    );
    let rig = Rig::with(&text, limits, &[]);
    let begin = |client: &str| {
        let mut raw = rig.connect();
        raw.send(format!("PROXY TCP4 {client} 10.0.0.1 1 1\r\n"));
        _ = raw.try_send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        raw
    };
    let (mut one, mut two) = (begin("192.0.2.1"), begin("192.0.2.2"));
    assert_eq!(one.take_response().status, 200);
    assert_eq!(two.take_response().status, 200);
    assert!(begin("192.0.2.1").closes());
}

#[test]
fn services_are_told_the_client_at_the_start_of_each_connection() {
    let upstream = Scripted::start(|mut raw, _| {
        let line = raw.take_until(b"\r\n");
        let line = String::from_utf8(line).expect("text");
        raw.take_until(b"\r\n\r\n");
        raw.send(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}",
            line.len()
        ));
        assert!(raw.closes(), "nobody else's request comes on it");
    });
    let address = upstream.address();
    let text = format!(
        "module: {{ use_proxy_proto: true }}\nroutes: [{{ prefix: /, service: '{address}', proxy_protocol: v1 }}]"
    );
    let rig = Rig::start(&text);
    let mut client = rig.connect();
    client.send(TCP4);
    for number in 1..4 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let body = client.take_response().body;
        let told = format!("PROXY TCP4 192.0.2.7 127.0.0.1 4711 {}\r\n", address.port());
        assert_eq!(String::from_utf8_lossy(&body), told);
        assert_eq!(upstream.connections(), number);
    }

    let upstream = Scripted::start(|mut raw, _| {
        let head = raw.take(28);
        assert_eq!(head[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(head[16..20], [192, 0, 2, 7]);
        raw.take_until(b"\r\n\r\n");
        raw.send(OK);
    });
    rig.apply(&format!(
        "module: {{ use_proxy_proto: true }}\nroutes: [{{ prefix: /, service: '{}', proxy_protocol: v2 }}]",
        upstream.address()
    ));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
}

/// Returns the kernel's keep-alive timer of a connection to this address, as `/proc/net/tcp` tells it.
fn keepalive(to: SocketAddr) -> Option<u64> {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ours = words.get(2)?.ends_with(&port) && words.get(3) == Some(&ESTABLISHED);
        let (kind, jiffies) = words.get(5).filter(|_| ours)?.split_once(':')?;
        (kind == "02").then(|| u64::from_str_radix(jiffies, 16).expect("a number"))
    })
}

#[test]
fn keep_alive_is_as_written() {
    let rig = Rig::start("routes: []");
    let of = |mapping: &str, module: &str| {
        let upstream = Scripted::answering(OK);
        let mut config = config(&format!(
            "module: {{ {module} }}\nroutes: [{{ prefix: /, service: shop{mapping} }}]"
        ));
        let endpoints = &mut config.endpoints;
        endpoints.tell("default", "shop", vec![upstream.address()]);
        assert!(rig.gateway.apply(&config, &[]).problems.is_empty());
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
        // Jiffies of a hundredth second.
        keepalive(upstream.address()).map(|jiffies| jiffies / 100)
    };
    assert_eq!(of("", ""), None);
    let own = ", keepalive: { idle_time: 1000, interval: 10, probes: 3 }";
    let own = of(own, "keepalive: { time: 500 }").expect("keep-alive");
    assert!((900..=1000).contains(&own), "{own}");
    let module = of("", "keepalive: { time: 500 }").expect("keep-alive");
    assert!((400..=500).contains(&module), "{module}");
}

#[test]
fn continue_is_said_when_the_service_can_be_reached() {
    let (tell, told) = mpsc::channel();
    let upstream = Scripted::start(move |mut raw, _| {
        let head = raw.take_until(b"\r\n\r\n");
        tell.send(String::from_utf8(head).expect("text"))
            .expect("the test waits");
        assert_eq!(raw.take(4), b"body");
        raw.send(OK);
    });
    let address = upstream.address();
    let rig = Rig::start(&format!("routes: [{{ prefix: /, service: '{address}' }}]"));
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n");
    let head = told.recv_timeout(LIMIT).expect("the request");
    assert!(!head.to_ascii_lowercase().contains("\r\nexpect:"), "{head}");
    assert_eq!(
        client.take_until(b"\r\n\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.send("body");
    assert_eq!(client.take_response().status, 200);
}

#[test]
fn who_is_refused_or_answered_before_the_body_is_not_told_to_continue() {
    let early = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno");
        _ = raw.closes();
    });
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dead = free.local_addr().expect("its address");
    drop(free);
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /early, service: '{}' }}, {{ prefix: /dead, service: '{dead}' }}]",
        early.address()
    ));
    for (path, status) in [("/none", 404), ("/dead", 503)] {
        let mut client = rig.connect();
        client.send(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        ));
        let head = String::from_utf8(client.take_until(b"\r\n\r\n")).expect("text");
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    // The service's own answer passes, with the 100 before it or without.
    let mut client = rig.connect();
    client.send(
        "POST /early HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
    );
    let mut head = client.take_until(b"\r\n\r\n");
    if head.starts_with(b"HTTP/1.1 100") {
        head = client.take_until(b"\r\n\r\n");
    }
    assert!(head.starts_with(b"HTTP/1.1 417"), "{}", head.escape_ascii());
}
