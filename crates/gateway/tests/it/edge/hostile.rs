//! Clients that shake no hands: too slowly, too much, too often, or not at all.

use std::time::{Duration, Instant};

use gateway::listener::Limits;
use testkit::raw::Raw;

use super::*;

const SEEN_MAX: Duration = Duration::from_secs(60);

fn start(ca: &Ca, limits: Limits) -> (Rig, Echo) {
    let echo = Echo::start("a");
    let text = format!(
        "hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }} }}]\n{}",
        secrets(&[("shop", &ca.sign("shop.example"))])
    );
    let rig = Rig::with(&Edge::filled(&echo, &text), limits, &[]);
    (rig, echo)
}

fn failed(rig: &Rig, reason: &str) -> f64 {
    let labels = format!("listener=\"{}\",reason=\"{reason}\"", rig.address);
    rig.metric(&format!("nuncio_tls_handshake_failures_total{{{labels}}}"))
}

fn quick() -> Limits {
    let mut limits = Limits::default();
    limits.timeouts.handshake = Duration::from_millis(300);
    limits
}

#[track_caller]
fn good(rig: &Rig, client: &Client) {
    let mut raw = client.connect(rig.address, "shop.example").expect("hands");
    let answer = raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: shop.example", "");
    assert_eq!(answer.status, 200);
}

#[test]
fn a_slow_first_message_has_an_end() {
    let (ca, client) = ca();
    let (rig, _echo) = start(&ca, quick());
    let mut silent = rig.connect();
    let mut begun = rig.connect();
    begun.send([22, 3, 1, 2, 0, 1, 0, 1, 0xfc]);
    assert!(silent.closes() && begun.closes());
    testkit::wait::until("both to be counted", SEEN_MAX, || {
        (failed(&rig, "timeout") == 2.0).then_some(())
    });
    // One that has sent its message and says no more is slow too.
    let hello = first_message(&client);
    let mut half = rig.connect();
    half.send(&hello);
    half.take_to_end();
    testkit::wait::until("three to be counted", SEEN_MAX, || {
        (failed(&rig, "timeout") == 3.0).then_some(())
    });
    // Whoever is through has time.
    let mut raw = client.connect(rig.address, "shop.example").expect("hands");
    std::thread::sleep(Duration::from_millis(600));
    let answer = raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: shop.example", "");
    assert_eq!(answer.status, 200);
}

/// What a client begins with.
fn first_message(client: &Client) -> Vec<u8> {
    let name = rustls::pki_types::ServerName::try_from("shop.example").expect("a name");
    let mut connection =
        rustls::ClientConnection::new(client.config(), name).expect("a connection");
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).expect("bytes");
    bytes
}

#[test]
fn garbage_and_endless_messages_are_refused() {
    let (ca, client) = ca();
    let (rig, _echo) = start(&ca, Limits::default());
    let mut garbage = rig.connect();
    garbage.send(b"\x16\x03\x01\x00\x05\xff\x00\x00\x01\x00");
    assert_eq!(garbage.take_to_end().first(), Some(&21), "an alert");
    let mut endless = rig.connect();
    let mut inside = vec![1, 0, 0xff, 0];
    inside.resize(16_000, 0);
    let record = [&[22, 3, 1, 0x3e, 0x80][..], &inside].concat();
    while endless.try_send(&record) {
        inside.fill(0);
    }
    testkit::wait::until("both to be counted", SEEN_MAX, || {
        let all = failed(&rig, "hello_malformed") + failed(&rig, "hello_too_large");
        (all == 2.0).then_some(())
    });
    good(&rig, &client);
}

#[test]
fn so_many_shake_hands_at_once_and_no_more() {
    let (ca, client) = ca();
    let limits = Limits {
        handshakes_max: 3,
        ..Limits::default()
    };
    let (rig, _echo) = start(&ca, limits);
    let mut waiting: Vec<Raw> = Vec::new();
    testkit::wait::until("a refusal", SEEN_MAX, || {
        // One of these may be refused itself, in the place of a client that has just left.
        let mut begun = rig.connect();
        if begun.try_send([22, 3, 1]) {
            waiting.push(begun);
        }
        let refused = client.connect(rig.address, "shop.example").is_err();
        (refused && failed(&rig, "crowded") > 0.0).then_some(())
    });
    // Cleartext is no handshake.
    assert_eq!(
        rig.ask("GET /x HTTP/1.1\nhost: shop.example", "").status,
        301
    );
    waiting.clear();
    testkit::wait::until("room", SEEN_MAX, || {
        client.connect(rig.address, "shop.example").ok().map(drop)
    });
    good(&rig, &client);
}

/// Honest clients on open connections, beside others that do nothing but shake hands.
#[test]
fn a_flood_of_handshakes_leaves_honest_clients_their_turn() {
    let (ca, client) = ca();
    let (rig, _echo) = start(&ca, Limits::default());
    let mut honest = client.connect(rig.address, "shop.example").expect("hands");
    let hello = first_message(&client);
    let address = rig.address;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let stopped = || stop.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut sent = 0;
                    while !stopped() {
                        // Ten at once, none of which ends its handshake.
                        let crowd: Vec<Raw> = (0..10).map(|_| Raw::connect(address)).collect();
                        for mut raw in crowd {
                            sent += usize::from(raw.try_send(&hello));
                        }
                    }
                    sent
                })
            })
            .collect();
        let begun = Instant::now();
        let mut slowest = Duration::ZERO;
        for _ in 0..100 {
            let asked = Instant::now();
            honest.send("GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n");
            assert_eq!(honest.take_response().status, 200);
            slowest = slowest.max(asked.elapsed());
        }
        good(&rig, &client);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let sent: usize = floods
            .into_iter()
            .map(|flood| flood.join().expect("a flood"))
            .sum();
        assert!(sent > 0, "there was a flood");
        // Loose, for slow machines: without turns it is the whole flood that an answer waits for.
        assert!(
            slowest < Duration::from_secs(5),
            "{slowest:?} of {:?}",
            begun.elapsed()
        );
    });
}
