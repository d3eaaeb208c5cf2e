//! Certificates that clients must or may show.

use testkit::tls::{Ca, Client};

use crate::rig::{Rig, Server, meet};

/// Who the client is, or why it was refused.
async fn told(rig: &mut Rig, context: &str, client: &Client) -> String {
    let server = Server::new();
    let terminator = rig.apply(&[context]);
    assert_eq!(terminator.problem(), None);
    match meet(&server, &terminator, client, "shop.example").await.0 {
        Ok(session) => match session.peer {
            Some(peer) => peer.certificate.names.join(" "),
            None => "nobody".to_owned(),
        },
        Err(failed) => failed.name().to_owned(),
    }
}

#[tokio::test]
async fn clients_must_or_may_show_a_certificate_of_the_ca() {
    let (ca, ours, theirs) = (Ca::new(), Ca::new(), Ca::new());
    let mut rig = Rig::new();
    rig.identity("shop", &ca.sign("shop.example"));
    rig.secret("ca", &[("ca.crt", ours.pem().as_bytes())]);
    let silent = Client::new(&ca);
    let good = Client::showing(&ca, &ours.sign("alice.example"));
    let bad = Client::showing(&ca, &theirs.sign("mallory.example"));

    let must = "{ secret: shop, ca_secret: ca, cert_required: true }";
    assert_eq!(told(&mut rig, must, &silent).await, "certificate_missing");
    assert_eq!(told(&mut rig, must, &bad).await, "certificate_refused");
    assert_eq!(told(&mut rig, must, &good).await, "alice.example");
    let may = "{ secret: shop, ca_secret: ca }";
    assert_eq!(told(&mut rig, may, &silent).await, "nobody");
    assert_eq!(told(&mut rig, may, &bad).await, "certificate_refused");
    assert_eq!(told(&mut rig, may, &good).await, "alice.example");
    let need_not = "secret: shop";
    assert_eq!(told(&mut rig, need_not, &bad).await, "nobody");
}

#[tokio::test]
async fn revoked_certificates_are_refused_also_where_their_session_began_before() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let mut rig = Rig::new();
    rig.identity("shop", &ca.sign("shop.example"));
    rig.secret("ca", &[("ca.crt", clients.pem().as_bytes())]);
    let (kept, lost) = (clients.sign("kept.example"), clients.sign("lost.example"));
    let context = "{ secret: shop, ca_secret: ca, crl_secret: crl, cert_required: true }";
    rig.secret("crl", &[("crl.pem", clients.revoke(&[]).as_bytes())]);
    let kept = Client::showing(&ca, &kept);
    let losing = Client::showing(&ca, &lost);
    assert_eq!(told(&mut rig, context, &losing).await, "lost.example");
    rig.secret("crl", &[("crl.pem", clients.revoke(&[&lost]).as_bytes())]);
    assert_eq!(
        told(&mut rig, context, &losing).await,
        "certificate_refused"
    );
    assert_eq!(told(&mut rig, context, &kept).await, "kept.example");
    // With a list of somebody else's nobody knows.
    rig.secret("crl", &[("crl.pem", ca.revoke(&[]).as_bytes())]);
    assert_eq!(told(&mut rig, context, &kept).await, "certificate_refused");
}

#[tokio::test]
async fn a_certificate_cannot_be_asked_for_without_a_ca() {
    let ca = Ca::new();
    let mut rig = Rig::new();
    rig.identity("shop", &ca.sign("shop.example"));
    let terminator = rig.apply(&["{ secret: shop, cert_required: true }"]);
    let problem = terminator.problem().expect("a problem");
    assert!(problem.contains("there is no CA"), "{problem}");
    assert!(terminator.config().is_none());
}
