//! Rolling updates under load: endpoints come and go, and no request fails.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use testkit::echo::Echo;
use testkit::raw::Raw;
use testkit::scripted::Scripted;
use testkit::wait;

use crate::balancing::{LONG, at, tell};
use crate::rig::Rig;

/// Seconds of load; a longer run is asked for by this variable.
const SECONDS_VARIABLE: &str = "NUNCIO_ROLLING_SECONDS";
const SECONDS: u64 = 1;
const CLIENTS: usize = 4;
/// Each of the five instances is replaced at least once.
const ROUNDS_MIN: usize = 5;
const REQUESTS_MIN: usize = 100;

/// Replaces one of five instances after the other while clients ask, as `replace` does it.
fn roll(route: &str, requests: &[&str], replace: impl Fn(&Rig, &mut Vec<Echo>, usize, &dyn Fn())) {
    let seconds = std::env::var(SECONDS_VARIABLE).ok();
    let seconds = seconds
        .and_then(|text| text.parse().ok())
        .unwrap_or(SECONDS);
    let rig = Rig::start(route);
    let mut instances: Vec<Echo> = (0..5).map(|n| Echo::start(&format!("v0-{n}"))).collect();
    tell_all(&rig, &instances);
    let stop = AtomicBool::new(false);
    let done: [AtomicUsize; CLIENTS] = Default::default();
    std::thread::scope(|scope| {
        for (client, done) in done.iter().enumerate() {
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || {
                let mut raw = rig.connect();
                while !stop.load(Relaxed) {
                    raw.send(requests[(client + done.load(Relaxed)) % requests.len()]);
                    let answer = raw.take_response();
                    let reason = String::from_utf8_lossy(&answer.body);
                    assert_eq!(answer.status, 200, "after {done:?}: {reason}");
                    done.fetch_add(1, Relaxed);
                }
            });
        }
        // Every request that was under way has ended when each client has had two more answers.
        let settled = || {
            let before: Vec<usize> = done.iter().map(|done| done.load(Relaxed)).collect();
            wait::until("requests to end", LONG, || {
                let mut pairs = done.iter().zip(&before);
                let all = pairs.all(|(now, before)| now.load(Relaxed) >= before + 2);
                all.then_some(())
            });
        };
        let stopping = Stop(&stop);
        let end = Instant::now() + Duration::from_secs(seconds);
        let total = || done.iter().map(|done| done.load(Relaxed)).sum::<usize>();
        // On a busy machine it takes longer until every instance was replaced, and under load.
        for round in 0.. {
            if Instant::now() >= end && round >= ROUNDS_MIN && total() >= REQUESTS_MIN {
                break;
            }
            replace(&rig, &mut instances, round, &settled);
        }
        drop(stopping);
    });
}

/// Ends the clients whatever happens, so that a failure is told and not waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn tell_all(rig: &Rig, instances: &[Echo]) {
    let addresses: Vec<_> = instances.iter().map(Echo::address).collect();
    tell(rig, at(&addresses));
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody";

#[test]
fn instances_that_leave_before_they_end_fail_no_request() {
    for policy in [
        "{ policy: round_robin, slow_start: { window: 1s } }",
        "{ policy: least_request }",
        "{ policy: maglev, header: x-user }",
    ] {
        let route = format!("routes: [{{ prefix: /, service: shop, load_balancer: {policy} }}]");
        roll(&route, &[GET, POST], |rig, instances, round, settled| {
            let old = instances.remove(0);
            instances.push(Echo::start(&format!("v{round}")));
            tell_all(rig, instances);
            settled();
            drop(old);
        });
    }
}

#[test]
fn instances_that_end_before_they_leave_fail_no_request_that_may_be_repeated() {
    let route = "routes: [{ prefix: /, service: shop, retry_policy: { retry_on: 5xx, num_retries: 3 }, \
        circuit_breakers: [{ max_retries: 100 }], \
        health_checks: [{ interval: 50ms, health_check: { http: { path: / } } }], \
        outlier_detection: { consecutive_5xx: 2, interval: 100ms, base_ejection_time: 100ms } }]";
    roll(route, &[GET], |rig, instances, round, settled| {
        // It is gone at once, with everything it was working on; discovery learns of it later.
        drop(instances.remove(0));
        settled();
        instances.push(Echo::start(&format!("v{round}")));
        tell_all(rig, instances);
        settled();
    });
}

#[test]
fn unused_connections_close_when_their_endpoint_leaves_and_busy_ones_finish() {
    let (tell_busy, busy) = mpsc::channel();
    let (go_on, wait_on) = mpsc::channel::<()>();
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let (tell_busy, wait_on) = (
        std::sync::Mutex::new(tell_busy),
        std::sync::Mutex::new(wait_on),
    );
    let old = Scripted::start(move |mut raw: Raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            if head.starts_with(b"GET /slow ") {
                let waiting = wait_on.lock().expect("no thread panics with it");
                let telling = tell_busy.lock().expect("no thread panics with it");
                telling.send(()).expect("the test waits");
                waiting.recv_timeout(LONG).expect("the test goes on");
            }
            raw.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold");
        }
        count.fetch_add(1, Relaxed);
    });
    let rig = Rig::start("routes: [{ prefix: /, service: shop, rewrite: '' }]");
    tell(&rig, at(&[old.address()]));
    let new = Echo::start("new");
    // One connection lies unused while the other one is busy. Both clients are on the same core or on different ones.
    let mut slow = rig.connect();
    slow.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    busy.recv_timeout(LONG).expect("the request arrives");
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").body, b"old");
    tell(&rig, at(&[new.address()]));
    wait::until("the unused connection to close", LONG, || {
        (closed.load(Relaxed) == 1).then_some(())
    });
    assert_eq!(
        rig.ask("GET / HTTP/1.1\nhost: a", "").json()["backend"],
        "new"
    );
    go_on.send(()).expect("the service waits");
    assert_eq!(slow.take_response().body, b"old");
    wait::until("the busy connection to close", LONG, || {
        (closed.load(Relaxed) == 2).then_some(())
    });
}
