//! Certificates from a real authority: Pebble, which validates every name by asking us.

mod hurt;
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use testkit::lab;
use testkit::pebble::{Pebble, Setup};
use testkit::raw;
use testkit::tls::Client;
use testkit::wait;

use self::rig::{ISSUED, Rig, host};

/// The account and the certificate are made, clients see it, and a restart orders nothing.
#[test]
fn a_certificate_is_ordered_by_http_and_outlives_a_restart() {
    let rig = Rig::new();
    let Some(pebble) = lab::or_skip(Pebble::start(Setup::new(rig.http, rig.tls))) else {
        return;
    };
    let mut nuncio = rig.start(&[host(
        &pebble,
        "shop.test",
        ", email: a@shop.test, challenge: http-01",
    )]);
    let client = pebble.client();
    let first = rig.issued(&client, "shop.test");
    // Everybody else is redirected, the authority was not.
    let answer = raw::http(rig.http, "GET /x HTTP/1.1\r\nhost: shop.test", "");
    assert_eq!(answer.status, 301, "{}", answer.head);
    let none = "GET /.well-known/acme-challenge/none HTTP/1.1\r\nhost: shop.test";
    assert_eq!(raw::http(rig.http, none, "").status, 200, "the Mapping's");
    for name in [
        "shop.test.pem",
        "shop.test.json",
        "account a@shop.test.json",
    ] {
        let file = testkit::pebble::file(&nuncio.data(), &pebble.directory(), "shop.test");
        let meta = fs::metadata(file.with_file_name(name)).expect("it is kept");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let metrics = rig::metrics(&nuncio);
    let value = |name: &str| rig::value(&metrics, name, "shop.test");
    assert_eq!(value("nuncio_acme_orders_total").as_deref(), Some("1"));
    let until = value("nuncio_acme_not_after_seconds");
    let shown = value("nuncio_certificate_not_after_seconds");
    assert!(until.is_some() && until == shown, "{metrics}");

    nuncio.stop();
    nuncio.restart();
    let again = rig.issued(&client, "shop.test");
    assert_eq!(again, first, "the same certificate");
    let orders = || {
        rig::value(
            &rig::metrics(&nuncio),
            "nuncio_acme_next_order_seconds",
            "shop.test",
        )
    };
    let next = wait::until("the plan", ISSUED, || orders().filter(|at| at != "0"));
    let next: u64 = next.parse().expect("seconds");
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .expect("it is later")
        .as_secs();
    assert!(next > now + 40 * 86_400, "{next} is weeks from {now}");
    assert!(
        !nuncio.log().contains("ordering a certificate"),
        "{}",
        nuncio.log()
    );
}

/// The port for requests leads nowhere, so that only the handshake can prove the name.
#[test]
fn a_certificate_is_ordered_by_a_handshake() {
    let rig = Rig::new();
    let nowhere = testkit::port::stable();
    let Some(pebble) = lab::or_skip(Pebble::start(Setup::new(nowhere, rig.tls))) else {
        return;
    };
    let _nuncio = rig.start(&[host(&pebble, "shop.test", ", challenge: tls-alpn-01")]);
    rig.issued(&pebble.client(), "shop.test");
}

/// Two Hosts at two authorities, a third with a certificate of its own.
#[test]
fn several_hosts_order_from_several_authorities() {
    let rig = Rig::new();
    let setup = || Setup {
        external: Some((
            "kid-1",
            "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W",
        )),
        ..Setup::new(rig.http, rig.tls)
    };
    let Some(one) = lab::or_skip(Pebble::start(Setup::new(rig.http, rig.tls))) else {
        return;
    };
    let Some(bound) = lab::or_skip(Pebble::start(setup())) else {
        return;
    };
    let external = ", externalAccount: { keyId: kid-1, keySecret: { name: eab } }";
    let key = testkit::tls::self_signed("nobody").key;
    let nuncio = rig.start(&[
        host(&one, "a.test", ""),
        host(&one, "d.test", ", email: d@d.test, privateKeySecret: { name: account }"),
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{ name: account }}\nstringData: {{ user.key: {key:?} }}"),
        host(&one, "b.test", ", challenge: tls-alpn-01"),
        host(&bound, "c.test", external),
        "apiVersion: v1\nkind: Secret\nmetadata: { name: eab }\nstringData: { hmac: zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W }".to_owned(),
    ]);
    let (first, second) = (one.client(), bound.client());
    rig.issued(&first, "a.test");
    rig.issued(&first, "b.test");
    rig.issued(&first, "d.test");
    let kept = testkit::pebble::file(&nuncio.data(), &one.directory(), "d.test");
    assert!(
        !kept.with_file_name("account d@d.test.json").exists(),
        "the key is the user's"
    );
    rig.issued(&second, "c.test");
    assert!(first.look(rig.tls, "c.test").is_err(), "{}", nuncio.log());
}

/// Certificates live for a minute and a half: clients shake hands all the while, and none sees one that is not good.
#[test]
fn a_certificate_is_renewed_while_clients_shake_hands() {
    let rig = Rig::new();
    let setup = Setup {
        validity: Duration::from_secs(90),
        ..Setup::new(rig.http, rig.tls)
    };
    let Some(pebble) = lab::or_skip(Pebble::start(setup)) else {
        return;
    };
    let nuncio = rig.start(&[host(&pebble, "shop.test", "")]);
    let root = pebble.root();
    let mut seen = vec![rig.issued(&Client::trusting(&root), "shop.test")];
    let held = Client::trusting(&root).connect(rig.tls, "shop.test");
    let mut held = held.expect("a handshake");
    wait::until("a renewal", Duration::from_secs(240), || {
        // Fails where the certificate is out of date, or no longer trusted.
        // A client of its own each time, since a session that goes on shows what was.
        let looked = Client::trusting(&root).look(rig.tls, "shop.test");
        let (mut raw, saw) = looked.unwrap_or_else(|error| panic!("{error}\n{}", nuncio.log()));
        let answer = raw::ask(&mut raw, "GET / HTTP/1.1\r\nhost: shop.test", "");
        assert_eq!(answer.status, 200);
        // One that is open goes on.
        held.send("GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        assert_eq!(held.take_response().status, 200);
        if seen.last() != Some(&saw.certificate) {
            seen.push(saw.certificate);
        }
        (seen.len() == 2).then_some(())
    });
    let metrics = rig::metrics(&nuncio);
    assert_eq!(
        rig::value(&metrics, "nuncio_acme_orders_total", "shop.test").as_deref(),
        Some("2")
    );
}
