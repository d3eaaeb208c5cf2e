//! Copies of requests for a shadow.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::Rig;

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    testkit::wait::until(what, Duration::from_secs(10), || is_so().then_some(()));
}

fn rules(main: &Echo, shadow: impl std::fmt::Display, more: &str) -> String {
    format!(
        "routes:\n- {{ name: main, prefix: /x/, rewrite: /mark/, service: '{}', add_request_headers: {{ x-a: {{ value: b }} }} }}\n\
         - {{ name: shadow, prefix: /x/, rewrite: /mark/, service: '{shadow}', shadow: true{more} }}",
        main.address()
    )
}

fn copies(rig: &Rig, outcome: &str) -> f64 {
    rig.metric(&format!(
        "nuncio_shadow_requests_total{{outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn a_shadow_gets_what_the_service_gets_under_its_own_name() {
    let (main, shadow) = (Echo::start("main"), Echo::start("shadow"));
    let rig = Rig::start(&rules(&main, shadow.address(), ""));
    let answer = rig.ask(
        "POST /x/y?a=1 HTTP/1.1\nhost: shop:80\nrequested-status: 201",
        "hello",
    );
    assert_eq!(answer.status, 201);
    assert_eq!(answer.json()["backend"], "main");
    until("the copy", || shadow.seen().len() == 1);
    let seen = &shadow.seen()[0];
    assert_eq!(seen["host"], "shop-shadow:80");
    assert_eq!(seen["body"], "hello");
    assert_eq!(seen["headers"]["content-length"][0], "5");
    assert_eq!(seen["headers"]["x-a"][0], "b");
    for field in ["method", "url"] {
        assert_eq!(seen[field], main.seen()[0][field], "{field}");
    }
    assert_eq!(seen["url"]["path"], "/mark/y");
    until("the count", || copies(&rig, "sent") == 1.0);
}

#[test]
fn a_body_in_chunks_is_copied_while_it_streams() {
    let (main, shadow) = (Echo::start("main"), Echo::start("shadow"));
    let rig = Rig::start(&rules(&main, shadow.address(), ""));
    let mut client = rig.connect();
    client.send("POST /x/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.send("6\r\n world\r\n0\r\n\r\n");
    assert_eq!(
        client.take_response().json()["request"]["body"],
        "hello world"
    );
    until("the copy", || shadow.seen().len() == 1);
    assert_eq!(shadow.seen()[0]["body"], "hello world");
}

#[test]
fn a_percentage_is_copied() {
    // Ambassador's own case: about 50 of 500.
    let (main, shadow) = (Echo::start("main"), Echo::start("shadow"));
    let rig = Rig::start(&rules(&main, shadow.address(), ", weight: 10"));
    let mut client = rig.connect();
    for _ in 0..500 {
        client.send("GET /x/ HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.take_response();
        assert_eq!(answer.json()["backend"], "main");
        assert!(answer.header("x-shadowed").is_empty());
    }
    let copied = || copies(&rig, "sent");
    until("all copies", || {
        copied() == shadow.seen().len() as f64 && copied() > 0.0
    });
    assert!((15.0..=100.0).contains(&copied()), "{}", copied());
}

#[test]
fn a_dead_shadow_harms_nobody() {
    let main = Echo::start("main");
    let rig = Rig::start(&rules(&main, "127.0.0.1:1", ""));
    for _ in 0..5 {
        assert_eq!(rig.ask("POST /x/ HTTP/1.1\nhost: a", "hello").status, 200);
    }
    until("the failures are counted", || copies(&rig, "failed") == 5.0);
}

#[test]
fn a_shadow_that_does_not_read_loses_its_copy() {
    let main = Echo::start("main");
    let (stop, stopped) = mpsc::channel::<()>();
    let stopped = Mutex::new(stopped);
    let stuck = Scripted::start(move |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        // Reads nothing more until the test is over; an error says just that.
        _ = stopped.lock().expect("one connection").recv();
    });
    let rig = Rig::start(&rules(&main, stuck.address(), ", timeout_ms: 1000"));
    let body = "a".repeat(8 << 20);
    let answer = rig.ask("POST /x/ HTTP/1.1\nhost: a\nrequested-status: 202", &body);
    assert_eq!(answer.status, 202);
    until("the loss is counted", || {
        copies(&rig, "cut") + copies(&rig, "failed") == 1.0
    });
    drop(stop);
}
