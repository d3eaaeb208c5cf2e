//! An authority that is down, that limits rates, that forgets nonces, that does not believe us.

use std::fs;
use std::time::Duration;

use testkit::lab;
use testkit::pebble::{Front, Manners, Pebble, Setup};
use testkit::tls::Client;
use testkit::wait;

use super::rig::{self, ISSUED, Rig, host, host_at};

/// Clients are served with a self-signed certificate until the authority is there; it may have forgotten the account meanwhile.
#[test]
fn an_authority_that_was_down_is_asked_again() {
    let rig = Rig::new();
    let Some(mut pebble) = lab::or_skip(Pebble::start(Setup::new(rig.http, rig.tls))) else {
        return;
    };
    let before = host(&pebble, "first.test", "");
    let nuncio = rig.start(std::slice::from_ref(&before));
    rig.issued(&pebble.client(), "first.test");
    pebble.stop();
    let objects = rig.yaml(&[before, host(&pebble, "late.test", "")]);
    fs::write(nuncio.config().join("nuncio.yaml"), objects).expect("the folder takes files");
    wait::until("a failure", ISSUED, || {
        nuncio
            .log()
            .contains("no certificate was issued")
            .then_some(())
    });
    let log = nuncio.log();
    assert!(log.contains("the authority cannot be reached"), "{log}");
    // Somebody who trusts anything would be served.
    let file = testkit::pebble::file(&nuncio.data(), &pebble.directory(), "late.test");
    let shown = fs::read_to_string(&file).expect("a certificate");
    assert!(
        shown.starts_with("# Until the authority has issued one."),
        "{shown}"
    );
    let trusting = Client::trusting(&shown[shown.find("-----BEGIN CERT").expect("PEM")..]);
    trusting.look(rig.tls, "late.test").expect("a handshake");

    pebble.resume();
    rig.issued(&pebble.client(), "late.test");
    let metrics = rig::metrics(&nuncio);
    assert_eq!(
        rig::value(&metrics, "nuncio_acme_orders_total", "late.test").as_deref(),
        Some("1")
    );
}

#[test]
fn limits_are_respected_and_nonces_are_taken_anew() {
    let rig = Rig::new();
    let setup = Setup {
        nonces_refused: 15,
        ..Setup::new(rig.http, rig.tls)
    };
    let Some(pebble) = lab::or_skip(Pebble::start(setup)) else {
        return;
    };
    let front = Front::start(&pebble);
    let limit = Manners {
        path: "/order-plz",
        status: 429,
        problem: "rateLimited",
        after: Some(3),
    };
    front.behave(limit, 2);
    let nonce = Manners {
        path: "/sign-me-up",
        status: 400,
        problem: "badNonce",
        after: None,
    };
    front.behave(nonce, 1);
    let ca_file = front.ca_file().display().to_string();
    let nuncio = rig.start(&[host_at(&front.directory(), &ca_file, "shop.test", "")]);
    rig.issued(&pebble.client(), "shop.test");
    let orders = front.seen("/order-plz");
    assert!(orders.len() >= 3, "two were refused\n{}", nuncio.log());
    for pair in orders.windows(2).take(2) {
        let rest = pair[1] - pair[0];
        assert!(rest >= Duration::from_secs(3), "{rest:?} is too soon");
    }
    let log = nuncio.log();
    assert!(
        log.contains("the authority says: not today (rateLimited)"),
        "{log}"
    );
    assert!(front.seen("/sign-me-up").len() >= 2, "{log}");
}

/// The authority is told to look where nobody is: it says so, and we do.
#[test]
fn a_name_that_leads_elsewhere_gets_no_certificate_and_a_reason() {
    let rig = Rig::new();
    let nowhere = testkit::port::stable();
    let Some(pebble) = lab::or_skip(Pebble::start(Setup::new(nowhere, nowhere))) else {
        return;
    };
    let nuncio = rig.start(&[
        host(&pebble, "shop.test", ""),
        host(&pebble, "blocked.test", ""),
    ]);
    wait::until("both reasons", ISSUED, || {
        let log = nuncio.log();
        let unproven = log.contains("the authority says: Get \"http://shop.test");
        let refused = log.contains("the authority says: Order included");
        (unproven && refused).then_some(())
    });
    // Minutes pass before the next.
    let metrics = rig::metrics(&nuncio);
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later");
    for (name, least) in [("shop.test", 200), ("blocked.test", 3000)] {
        let next = wait::until("the plan", ISSUED, || {
            let next = rig::value(
                &rig::metrics(&nuncio),
                "nuncio_acme_next_order_seconds",
                name,
            )?;
            let next: u64 = next.parse().ok()?;
            (next > now.as_secs() + least).then_some(next)
        });
        assert!(next < now.as_secs() + 86_400, "{metrics}");
    }
}
