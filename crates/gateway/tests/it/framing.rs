//! What two servers could read differently is refused, and never reaches a service.

use std::time::Duration;

use gateway::listener::Limits;
use testkit::echo::Echo;

use crate::rig::Rig;

fn rig() -> (Rig, Echo) {
    let echo = Echo::start("echo");
    let route = format!(
        "routes: [{{ prefix: /, rewrite: '', service: '{}' }}]",
        echo.address()
    );
    (Rig::start(&route), echo)
}

/// Sends the bytes, expects this status (0: closed without an answer) and the end of the connection.
#[track_caller]
fn check_refused(rig: &Rig, bytes: impl AsRef<[u8]>, status: u16) {
    let bytes = bytes.as_ref();
    let mut client = rig.connect();
    client.send(bytes);
    let said = String::from_utf8_lossy(&client.take_to_end()).into_owned();
    let first = said.lines().next().unwrap_or_default();
    let expected = format!("HTTP/1.1 {status} ");
    let good = if status == 0 {
        first.is_empty()
    } else {
        first.starts_with(&expected)
    };
    assert!(good, "{first:?} to {:?}", String::from_utf8_lossy(bytes));
    assert_eq!(
        said.matches("HTTP/1.1").count(),
        usize::from(status > 0),
        "one answer: {said}"
    );
}

#[test]
fn desynchronising_requests_are_refused() {
    let (rig, echo) = rig();
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for headers in [
        "content-length: 0\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 5",
        "content-length: +5",
        "content-length: -5",
        "content-length: 0x5",
        "content-length: 5 5",
        "content-length:",
        "content-length: 18446744073709551616",
        "content-length : 5",
        "content-length\t: 5",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: identity",
        "transfer-encoding: identity, chunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: \u{b}chunked",
        "transfer-encoding:",
        "transfer-encoding : chunked",
        " transfer-encoding: chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\r\n\ttransfer-encoding: chunked",
        "x: y\ntransfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "transfer-encoding\0: chunked",
        "x: \0",
        "host: a",
        "host: b",
        "no colon here",
        ": empty name",
        "spaced name: x",
    ] {
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n\r\n");
        check_refused(&rig, format!("{head}0\r\n\r\n{smuggled}"), 400);
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost: a\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a@b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: \r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.2\r\nhost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET /\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /\t HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /#f HTTP/1.1\r\nhost: a\r\n\r\n",
        "GE\tT / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\0GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        check_refused(&rig, format!("{head}{smuggled}"), 400);
    }
    assert_eq!(echo.seen(), [] as [serde_json::Value; 0]);
    assert!(rig.metric("nuncio_refusals_total{reason=\"malformed\"}") >= 50.0);
}

#[test]
fn a_refusal_waits_for_its_turn() {
    let (rig, echo) = rig();
    let mut client = rig.connect();
    client.send(
        "GET /1 HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 100\r\n\r\n\
         GET /2 HTTP/1.1\r\nhost: a\r\n\r\nGET /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    assert_eq!(
        client.take_response().json()["request"]["url"]["path"],
        "/1"
    );
    assert_eq!(
        client.take_response().json()["request"]["url"]["path"],
        "/2"
    );
    let refused = client.take_response();
    assert_eq!(refused.status, 400);
    assert_eq!(refused.header("connection"), ["close"]);
    assert_eq!(refused.body, b"bad request: the host is missing");
    assert!(client.closes());
    assert_eq!(echo.seen().len(), 2);
}

#[test]
fn a_refusal_is_readable_although_the_client_goes_on_sending() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\n");
    client.send(vec![b'x'; 100 << 10]);
    assert_eq!(client.take_response().status, 400);
    client.finish();
    assert!(client.closes());
}

#[test]
fn broken_chunks_end_the_request_and_the_connection() {
    let (rig, echo) = rig();
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for body in [
        "g\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1;\n\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\r\n x: y\r\n\r\n",
        "0\r\nx : y\r\n\r\n",
        "0\r\n\n",
    ] {
        let mut client = rig.connect();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}{smuggled}"
        ));
        client.finish();
        let said = String::from_utf8_lossy(&client.take_to_end()).into_owned();
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400"),
            "{said} to {body:?}"
        );
    }
    assert_eq!(echo.seen(), [] as [serde_json::Value; 0]);
}

#[test]
fn heads_and_bodies_may_come_in_any_pieces() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    let requests = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nt: v\r\n\r\nPOST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nefg\
        GET /c HTTP/1.1\r\nhost: a\r\n\r\n";
    for byte in requests.as_bytes() {
        client.send([*byte]);
    }
    for (path, body) in [("/a", "abcd"), ("/b", "efg"), ("/c", "")] {
        let seen = client.take_response().json();
        assert_eq!(seen["request"]["url"]["path"], path);
        assert_eq!(seen["request"]["body"], body);
    }
}

#[test]
fn heads_that_are_too_large_are_431() {
    let (rig, _echo) = rig();
    let many = "x: y\r\n".repeat(100);
    check_refused(
        &rig,
        format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        431,
    );
    // The service, too, takes 100, and the gateway adds some.
    let fits = "x: y\r\n".repeat(85);
    let mut client = rig.connect();
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{fits}\r\n"));
    assert_eq!(client.take_response().status, 200);
    let long = "y".repeat(33 << 10);
    check_refused(
        &rig,
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
        431,
    );
    check_refused(
        &rig,
        format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"),
        431,
    );

    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "{{ routes: [{{ prefix: /, service: '{}' }}], module: {{ max_request_headers_kb: 40 }} }}",
        echo.address()
    ));
    let answer = rig.ask(&format!("GET / HTTP/1.1\nhost: a\nx: {long}"), "");
    assert_eq!(answer.status, 200);
}

#[test]
fn paths_are_normalised_before_anything_else() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, rewrite: '', service: '{}' }}]",
        echo.address()
    ));
    let path = |target: &str| {
        let answer = rig.ask(&format!("GET {target} HTTP/1.1\nhost: a"), "");
        match answer.status {
            200 => answer.json()["request"]["url"]["path"]
                .as_str()
                .expect("text")
                .to_owned(),
            status => status.to_string(),
        }
    };
    assert_eq!(path("/need/../x/"), "/x/");
    assert_eq!(path("/x/%2e%2e/y"), "404");
    assert_eq!(path("/x/a%2Fb"), "/x/a%2Fb");
    assert_eq!(path("/x/%00"), "400");
    assert_eq!(path("http://a/x/y"), "/x/y");
    assert_eq!(path("/x/%zz"), "400");
}

#[test]
fn old_and_strange_requests_get_their_own_answer() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    let said = String::from_utf8(client.take_to_end()).expect("text");
    assert!(said.starts_with("HTTP/1.0 426 "), "{said}");
    check_refused(&rig, "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 405);
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "{{ routes: [{{ prefix: /, service: '{}' }}],
            module: {{ enable_http10: true, headers_with_underscores_action: REJECT_REQUEST }} }}",
        echo.address()
    ));
    let mut client = rig.connect();
    client.send("GET / HTTP/1.0\r\nhost: a\r\n\r\n");
    let said = String::from_utf8(client.take_to_end()).expect("text");
    assert!(said.starts_with("HTTP/1.0 200 OK"), "{said}");
    assert_eq!(
        rig.ask("GET / HTTP/1.1\nhost: a\nt_underscore: x", "")
            .status,
        400
    );
}

#[test]
fn slow_heads_are_408_and_silent_connections_close() {
    let mut limits = Limits::default();
    limits.timeouts.head = Duration::from_millis(200);
    limits.timeouts.idle = Duration::from_millis(400);
    let echo = Echo::start("echo");
    let route = format!("routes: [{{ prefix: /, service: '{}' }}]", echo.address());
    let rig = Rig::with(&route, limits, &[]);

    // A first head that does not end, one after a good request, and one that trickles.
    check_refused(&rig, "GET / HTTP/1.1\r\nhost: a\r\n", 408);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.take_response().status, 408);
    assert!(client.closes());
    assert_eq!(
        rig.metric("nuncio_refusals_total{reason=\"head_timeout\"}"),
        2.0
    );

    // Nothing at all.
    assert!(rig.connect().closes());
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
    assert!(client.closes());

    // An exchange that takes longer than any of it is left alone.
    let answer = rig.ask(
        "GET / HTTP/1.1\nhost: a\nkat-req-http-requested-backend-delay: 800",
        "",
    );
    assert_eq!(answer.status, 200);
}

#[test]
fn connections_are_counted() {
    let limits = Limits {
        connections_max: 5,
        connections_per_client_max: 3,
        ..Limits::default()
    };
    let echo = Echo::start("echo");
    let route = format!("routes: [{{ prefix: /, service: '{}' }}]", echo.address());
    let rig = Rig::with(&route, limits, &[]);
    let mut open: Vec<_> = (0..3)
        .map(|_| {
            let mut client = rig.connect();
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert_eq!(client.take_response().status, 200);
            client
        })
        .collect();
    assert!(rig.connect().closes());
    assert_eq!(rig.metric("nuncio_connections_refused_total{}"), 1.0);
    drop(open.pop());
    testkit::wait::until("a free place", Duration::from_secs(5), || {
        (rig.metric("nuncio_connections{}") == 2.0).then_some(())
    });
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
}
