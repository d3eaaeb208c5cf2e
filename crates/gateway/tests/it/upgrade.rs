//! Tunnels open only where the route allows it and after the service has said 101.

use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::Rig;

const ASK: &str = "GET /ws/ HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

fn rig(address: std::net::SocketAddr, allowed: &str) -> Rig {
    Rig::start(&format!(
        "routes: [{{ prefix: /ws/, service: '{address}', allow_upgrade: [{allowed}] }}]"
    ))
}

#[test]
fn a_websocket_passes_both_ways() {
    let echo = Echo::start("echo");
    let rig = rig(echo.address(), "websocket");
    let mut client = rig.connect();
    client.send(ASK);
    let answer = client.take_response();
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.header("upgrade"), ["WebSocket"]);
    assert_eq!(answer.header("connection"), ["upgrade"]);
    let seen = &echo.seen()[0];
    assert_eq!(seen["headers"]["sec-websocket-version"][0], "13");
    assert_eq!(seen["headers"]["connection"][0], "upgrade");
    // A masked text frame, and bytes that no HTTP parser would like.
    for frame in [
        &b"\x81\x83\x01\x02\x03\x04ngf"[..],
        b"\0\xff\r\n\r\nGET",
        b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n",
    ] {
        client.send(frame);
        assert_eq!(client.take(frame.len()), frame);
    }
    client.finish();
    assert!(client.closes());
}

#[test]
fn bytes_sent_ahead_of_the_answer_reach_the_service() {
    let echo = Echo::start("echo");
    let rig = rig(echo.address(), "websocket");
    let mut client = rig.connect();
    client.send([ASK.as_bytes(), b"GET \0 ahead"].concat());
    assert_eq!(client.take_response().status, 101);
    assert_eq!(client.take(11), b"GET \0 ahead");
}

#[test]
fn without_leave_the_request_is_an_ordinary_one() {
    for allowed in ["", "spdy/3.1"] {
        // The service would gladly switch, but is never asked.
        let echo = Echo::start("echo");
        let rig = rig(echo.address(), allowed);
        let mut client = rig.connect();
        client.send(ASK);
        let answer = client.take_response();
        assert_eq!(answer.status, 200);
        assert!(answer.json()["request"]["headers"].get("upgrade").is_none());
        // The gate reads on: the next head is checked like any other.
        client.send("GET /ws/ HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200);
        client.send("GET /ws/ HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n");
        assert_eq!(client.take_response().status, 400);
        assert!(client.closes());
    }
}

#[test]
fn requests_pipelined_behind_a_refused_upgrade_are_checked() {
    let upstream = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno");
    let rig = rig(upstream.address(), "websocket");
    let mut client = rig.connect();
    let plain = "GET /ws/ HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(format!("{ASK}{plain}{ASK}{plain}GET /ws/ HTTP/1.1\r\n\r\n"));
    for _ in 0..4 {
        assert_eq!(client.take_response().body, b"no");
    }
    assert_eq!(client.take_response().status, 400);
    assert!(client.closes());
}

#[test]
fn a_service_cannot_switch_unasked() {
    let upstream = Scripted::answering(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    );
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(answer.status, 502);
}
