//! Bodies that are read whole before they go on.

use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::Rig;

fn rules(service: impl std::fmt::Display) -> String {
    format!(
        "module: {{ buffer: {{ max_request_bytes: 10 }} }}\nroutes: [{{ prefix: /, service: '{service}' }}]"
    )
}

#[test]
fn a_body_in_chunks_gets_a_length() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&rules(echo.address()));
    let mut client = rig.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n",
    );
    let seen = client.take_response().json();
    assert_eq!(seen["request"]["body"], "helloworld");
    assert_eq!(seen["request"]["headers"]["content-length"][0], "10");
    assert!(
        seen["request"]["headers"]
            .get("transfer-encoding")
            .is_none()
    );
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
}

#[test]
fn a_longer_body_is_413_and_the_service_is_not_asked() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&rules(echo.address()));
    let answer = rig.ask("POST / HTTP/1.1\nhost: a", "hello world");
    assert_eq!(answer.status, 413);
    assert_eq!(answer.header("x-nuncio-reason"), ["body_too_large"]);
    let mut client = rig.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nb\r\nhello world\r\n",
    );
    assert_eq!(client.take_response().status, 413);
    assert!(echo.seen().is_empty());
}

#[test]
fn nothing_goes_on_before_the_body_is_there() {
    let upstream = Scripted::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let rig = Rig::start(&rules(upstream.address()));
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n");
    // The gateway reads the body, so it says that it wants it.
    assert!(client.take_until(b"\r\n\r\n").starts_with(b"HTTP/1.1 100"));
    client.send("hell");
    assert_eq!(upstream.connections(), 0);
    client.send("o");
    assert_eq!(client.take_response().status, 200);
    assert_eq!(upstream.connections(), 1);
}
