//! Which certificate a client is shown, and certificates that change.

use std::fs;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use testkit::tls::{Ca, Client, Identity, Saw};
use tls::certificate::Certificate;

use crate::rig::{Rig, Server, meet};

fn subject(saw: &Saw) -> Certificate {
    Certificate::read(&saw.certificate).expect("a certificate")
}

/// Shakes hands and returns the names of the certificate.
async fn shown(rig: &mut Rig, contexts: &[&str], client: &Client, name: &str) -> Vec<String> {
    let server = Server::new();
    let terminator = rig.apply(contexts);
    assert_eq!(terminator.problem(), None);
    let (session, saw) = meet(&server, &terminator, client, name).await;
    session.expect("hands were shaken");
    subject(&saw.expect("hands were shaken")).names
}

#[tokio::test]
async fn of_several_certificates_the_one_for_the_name_is_shown() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    rig.identity("plain", &ca.sign("shop.example"));
    rig.identity("wild", &ca.sign("*.eu.example"));
    let contexts = ["secret: plain", "secret: wild"];
    let client = Client::new(&ca);
    for (asked, expected) in [
        ("shop.example", "shop.example"),
        ("SHOP.example", "shop.example"),
        ("a.eu.example", "*.eu.example"),
    ] {
        assert_eq!(shown(&mut rig, &contexts, &client, asked).await, [expected]);
    }
}

#[tokio::test]
async fn clients_get_the_kind_of_key_that_they_take() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    rig.identity("rsa", &ca.sign_rsa("shop.example"));
    rig.identity("ecdsa", &ca.sign("shop.example"));
    let terminator = rig.apply(&["secret: rsa", "secret: ecdsa"]);
    let kinds: Vec<&str> = terminator.shown().iter().map(|shown| shown.kind).collect();
    assert_eq!(kinds, ["ecdsa", "rsa"], "the quicker one first");
    let server = Server::new();
    for (client, cipher) in [
        (
            Client::with(&ca, None, &[&TLS12], |suite| {
                suite.contains("RSA_WITH_AES_128")
            }),
            "ECDHE-RSA-AES128-GCM-SHA256",
        ),
        (
            Client::with(&ca, None, &[&TLS12], |suite| {
                suite.contains("ECDSA_WITH_AES_128")
            }),
            "ECDHE-ECDSA-AES128-GCM-SHA256",
        ),
        (
            Client::with(&ca, None, &[&TLS13], |suite| suite.contains("AES_128")),
            "TLS_AES_128_GCM_SHA256",
        ),
    ] {
        let (session, saw) = meet(&server, &terminator, &client, "shop.example").await;
        saw.expect("hands were shaken");
        assert_eq!(session.expect("hands were shaken").cipher, cipher);
    }
}

#[tokio::test]
async fn versions_protocols_and_suites_are_chosen() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    rig.identity("shop", &ca.sign("shop.example"));
    let server = Server::new();
    let old = Client::with(&ca, None, &[&TLS12], |_| true);
    let new = Client::with(&ca, None, &[&TLS13], |_| true);

    let terminator = rig.apply(&["secret: shop"]);
    for (client, version) in [(&old, "TLSv1.2"), (&new, "TLSv1.3")] {
        let (session, _) = meet(&server, &terminator, client, "shop.example").await;
        assert_eq!(session.expect("hands were shaken").version, version);
    }
    let terminator = rig.apply(&["{ secret: shop, min_tls_version: v1.3 }"]);
    let (session, saw) = meet(&server, &terminator, &old, "shop.example").await;
    assert_eq!(session.expect_err("too old").name(), "incompatible");
    assert!(saw.is_err());
    let terminator = rig.apply(&["{ secret: shop, max_tls_version: v1.2 }"]);
    let (session, _) = meet(&server, &terminator, &new, "shop.example").await;
    assert_eq!(session.expect_err("too new").name(), "incompatible");

    let suites = "{ secret: shop, cipher_suites: [ECDHE-ECDSA-CHACHA20-POLY1305] }";
    let terminator = rig.apply(&[suites]);
    let (session, _) = meet(&server, &terminator, &old, "shop.example").await;
    assert_eq!(
        session.expect("hands were shaken").cipher,
        "ECDHE-ECDSA-CHACHA20-POLY1305"
    );

    let client = Client::new(&ca).alpn(&["http/1.1", "h2"]);
    for (context, expected) in [
        ("secret: shop", "h2"),
        ("{ secret: shop, alpn_protocols: http/1.1 }", "http/1.1"),
    ] {
        let terminator = rig.apply(&[context]);
        let (_, saw) = meet(&server, &terminator, &client, "shop.example").await;
        assert_eq!(saw.expect("hands were shaken").alpn, expected);
    }
}

#[tokio::test]
async fn what_is_broken_leaves_the_last_good() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    let (first, second) = (ca.sign("a.example"), ca.sign("b.example"));
    let terminator = rig.apply(&["secret: shop"]);
    let told = |terminator: &tls::server::Terminator| {
        terminator.problem().map(|problem| (*problem).clone())
    };
    assert_eq!(
        told(&terminator).as_deref(),
        Some("there is no Secret `shop.default`")
    );
    let server = Server::new();
    let client = Client::new(&ca);
    let (session, saw) = meet(&server, &terminator, &client, "a.example").await;
    assert_eq!(session.expect_err("no certificate").name(), "name_unknown");
    assert!(saw.is_err());

    rig.identity("shop", &first);
    let same = rig.apply(&["secret: shop"]);
    assert!(std::sync::Arc::ptr_eq(&terminator, &same));
    assert_eq!(told(&terminator), None);
    assert!(terminator.covers("a.example"));

    let mut mixed = first.clone();
    mixed.chain = second.chain.clone();
    rig.identity("shop", &mixed);
    rig.apply(&["secret: shop"]);
    assert_eq!(
        told(&terminator).as_deref(),
        Some("the key does not belong to the certificate")
    );
    assert!(terminator.covers("a.example"), "the one before");
    rig.secret("shop", &[("tls.crt", first.chain.as_bytes())]);
    rig.apply(&["secret: shop"]);
    assert_eq!(
        told(&terminator).as_deref(),
        Some("the Secret `shop.default` has no `tls.key`")
    );
    rig.identity("shop", &second);
    rig.apply(&["secret: shop"]);
    assert_eq!(told(&terminator), None);
    assert!(terminator.covers("b.example") && !terminator.covers("a.example"));
}

#[tokio::test]
async fn files_that_change_are_taken_into_use() {
    let ca = Ca::new();
    let folder = tempfile::tempdir().expect("a folder");
    let put = |identity: &Identity| {
        for (name, text) in [("chain", &identity.chain), ("key", &identity.key)] {
            fs::write(folder.path().join("next"), text).expect("the folder takes files");
            fs::rename(folder.path().join("next"), folder.path().join(name)).expect("a rename");
        }
    };
    put(&ca.sign("a.example"));
    let mut rig = Rig::new();
    let path = folder.path().display();
    let context = format!("{{ cert_chain_file: {path}/chain, private_key_file: {path}/key }}");
    let terminator = rig.apply(&[&context]);
    assert!(terminator.covers("a.example"));
    put(&ca.sign("b.example"));
    let seen = async {
        while !terminator.covers("b.example") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), seen)
        .await
        .expect("the change is seen");
}

#[tokio::test]
async fn sessions_go_on_after_a_rotation_but_not_after_other_rules() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    let server = Server::new();
    for version in [&TLS12, &TLS13] {
        let client = Client::with(&ca, None, &[version], |_| true);
        let mut resumed = Vec::new();
        let mut kept = Vec::new();
        for context in [
            "secret: shop",
            "secret: shop",
            "{ secret: shop, max_tls_version: v1.3 }",
        ] {
            // Another certificate each time.
            rig.identity("shop", &ca.sign("shop.example"));
            let terminator = rig.apply(&[context]);
            let (session, _) = meet(&server, &terminator, &client, "shop.example").await;
            resumed.push(session.expect("hands were shaken").resumed);
            kept.push(terminator);
        }
        assert_eq!(resumed, [false, true, false]);
    }
}
