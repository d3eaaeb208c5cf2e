//! Bodies stream: nothing is gathered, and the slower side sets the pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use testkit::scripted::Scripted;

use crate::rig::Rig;

const BODY: usize = 64 << 20;
/// What the kernel's four socket buffers (up to 6 MiB each by default), hyper and the gateway hold of one body together.
const AHEAD_MAX: usize = 28 << 20;

fn chunk() -> Vec<u8> {
    (0..64 << 10).map(|n: u32| (n % 251) as u8).collect()
}

fn rig(upstream: &Scripted) -> Rig {
    Rig::start(&format!(
        "routes: [{{ prefix: /, timeout_ms: 60000, service: '{}' }}]",
        upstream.address()
    ))
}

#[test]
fn a_large_answer_passes_whole() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n"));
        let chunk = chunk();
        for _ in 0..BODY / chunk.len() {
            raw.send(&chunk);
        }
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    client.take_until(b"\r\n\r\n");
    let chunk = chunk();
    for _ in 0..BODY / chunk.len() {
        assert!(client.take(chunk.len()) == chunk, "the body differs");
    }
}

#[test]
fn a_large_request_passes_whole() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        let chunk = chunk();
        for _ in 0..BODY / chunk.len() {
            assert!(raw.take(chunk.len()) == chunk, "the body differs");
        }
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send(format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n"
    ));
    let chunk = chunk();
    for _ in 0..BODY / chunk.len() {
        client.send(&chunk);
    }
    assert_eq!(client.take_response().body, b"ok");
}

/// Waits until a count does not move any more, and returns it.
fn settled(count: &AtomicUsize) -> usize {
    let mut last = (0, 0);
    testkit::wait::until("the sender to stop", Duration::from_secs(20), || {
        let now = count.load(Relaxed);
        last = if now == last.0 {
            (now, last.1 + 1)
        } else {
            (now, 0)
        };
        (now > 0 && last.1 > 15).then_some(now)
    })
}

#[test]
fn a_slow_client_holds_the_service_back() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    let upstream = Scripted::start(move |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {BODY}\r\n\r\n"));
        let chunk = chunk();
        for _ in 0..BODY / chunk.len() {
            raw.send(&chunk);
            count.fetch_add(chunk.len(), Relaxed);
        }
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let held = settled(&sent);
    assert!(held < AHEAD_MAX, "{held} bytes were taken from the service");
    client.take_until(b"\r\n\r\n");
    for _ in 0..BODY / (64 << 10) {
        client.take(64 << 10);
    }
}

#[test]
fn a_slow_service_holds_the_client_back() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Scripted::start(move |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        wait.lock()
            .expect("one connection")
            .recv()
            .expect("the test goes on");
        for _ in 0..BODY / (64 << 10) {
            raw.take(64 << 10);
        }
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.send(format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n"
            ));
            let chunk = chunk();
            for _ in 0..BODY / chunk.len() {
                client.send(&chunk);
                sent.fetch_add(chunk.len(), Relaxed);
            }
            assert_eq!(client.take_response().body, b"ok");
        });
        let held = settled(&sent);
        assert!(held < AHEAD_MAX, "{held} bytes were taken from the client");
        go.send(()).expect("the service waits");
    });
}

#[test]
fn a_client_that_leaves_in_its_body_ends_the_service_s_request() {
    let (ended, end) = std::sync::mpsc::channel();
    let ended = std::sync::Mutex::new(ended);
    let upstream = Scripted::start(move |mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.take(4);
        ended
            .lock()
            .expect("one connection")
            .send(raw.closes())
            .expect("the test waits");
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
    testkit::wait::until("the request", Duration::from_secs(5), || {
        (upstream.connections() == 1).then_some(())
    });
    drop(client);
    assert!(
        end.recv_timeout(Duration::from_secs(5))
            .expect("the service sees the end")
    );
}

#[test]
fn an_answer_before_the_end_of_the_request_passes() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        raw.take_to_end();
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nbegin");
    assert_eq!(client.take_response().status, 413);
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Scripted::start(|mut raw, _| {
        let head = raw.take_until(b"\r\n\r\n");
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert!(
            head.contains("te: trailers") && head.contains("trailer: t"),
            "{head}"
        );
        assert_eq!(
            raw.take_until(b"\r\n\r\n"),
            b"3\r\nabc\r\n0\r\nt: up\r\n\r\n"
        );
        raw.send("HTTP/1.1 200 OK\r\ntrailer: d\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nd: down\r\n\r\n");
        raw.closes();
    });
    let rig = rig(&upstream);
    let mut client = rig.connect();
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\ntrailer: t\r\ntransfer-encoding: chunked\r\n\r\n\
         3\r\nabc\r\n0\r\nt: up\r\n\r\n",
    );
    client.take_until(b"\r\n\r\n");
    assert_eq!(
        client.take_until(b"\r\n\r\n"),
        b"1\r\nx\r\n0\r\nd: down\r\n\r\n"
    );
}
