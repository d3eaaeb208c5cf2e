//! Certificates that change under load.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::*;

/// How often certificates change.
const ROTATIONS: usize = 1_000;

#[test]
fn a_thousand_rotations_cost_no_handshake_and_no_open_connection() {
    let (ca, client) = ca();
    let text = |identity: &Identity| {
        format!(
            "hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }} }}]\n{}",
            secrets(&[("shop", identity)])
        )
    };
    let identities: Vec<Identity> = (0..8).map(|_| ca.sign("shop.example")).collect();
    let edge = Edge::start(&text(&identities[0]));
    let mut kept = client
        .connect(edge.rig.address, "shop.example")
        .expect("hands");
    let (done, shaken, seen) = (
        AtomicBool::new(false),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    // A client of its own: nothing goes on from before.
                    let client = Client::new(&ca);
                    let (mut raw, saw) = client
                        .look(edge.rig.address, "shop.example")
                        .expect("no failed handshake");
                    let answer = raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: shop.example", "");
                    assert_eq!(answer.status, 200);
                    shaken.fetch_add(1, Relaxed);
                    let which = identities.iter().position(|one| one.is(&saw.certificate));
                    seen.fetch_or(1 << which.expect("one of ours"), Relaxed);
                }
            });
        }
        for turn in 1..=ROTATIONS {
            let told = edge.apply(&text(&identities[turn % identities.len()]));
            assert_eq!(told, [""; 0]);
            if turn % 50 == 0 {
                // On one connection, from the first certificate to the last.
                kept.send("GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n");
                assert_eq!(kept.take_response().status, 200);
            }
        }
        done.store(true, Relaxed);
    });
    assert!(shaken.load(Relaxed) > 0);
    assert!(seen.load(Relaxed).count_ones() > 1, "the change is seen");
    let last = client
        .look(edge.rig.address, "shop.example")
        .expect("hands")
        .1;
    // It goes on with a session of before, or is shown the last one.
    assert!(last.resumed || identities[ROTATIONS % identities.len()].is(&last.certificate));
    let failures: f64 = ["alert", "broken", "incompatible", "name_unknown", "timeout"]
        .iter()
        .map(|reason| {
            let labels = format!("listener=\"{}\",reason=\"{reason}\"", edge.rig.address);
            edge.rig
                .metric(&format!("nuncio_tls_handshake_failures_total{{{labels}}}"))
        })
        .sum();
    assert_eq!(failures, 0.0);
}
