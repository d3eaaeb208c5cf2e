//! Which certificate answers for which name.

use rustls::version::TLS12;

use super::*;

const HOSTS: &str = "
hosts:
- { name: shop, hostname: shop.example, tlsSecret: { name: shop } }
- { name: wild, hostname: '*.eu.example', tlsSecret: { name: wild } }
- { name: start, hostname: 'api.*', tlsSecret: { name: api } }
";

fn start(ca: &Ca) -> Edge {
    let (shop, wild, api) = (
        ca.sign("shop.example"),
        ca.sign("*.eu.example"),
        ca.sign("api.test"),
    );
    let secrets = secrets(&[("shop", &shop), ("wild", &wild), ("api", &api)]);
    Edge::start(&format!("{HOSTS}{secrets}"))
}

#[test]
fn the_name_that_is_asked_for_decides() {
    let (ca, client) = ca();
    let edge = start(&ca);
    for (name, expected) in [
        ("shop.example", "shop.example"),
        ("Shop.Example", "shop.example"),
        ("a.eu.example", "*.eu.example"),
        ("api.test", "api.test"),
    ] {
        let (mut raw, saw) = client
            .look(edge.rig.address, name)
            .expect("hands are shaken");
        assert_eq!(shown(&saw.certificate), expected);
        let answer = raw::ask(&mut raw, &format!("GET /x HTTP/1.1\nhost: {name}"), "");
        assert_eq!(answer.status, 200, "{name}: {}", answer.head);
    }
}

#[test]
fn a_name_that_nobody_answers_for_is_refused() {
    let (ca, client) = ca();
    let edge = start(&ca);
    for (client, name) in [
        (client.clone(), "other.example"),
        (client.nameless(), "shop.example"),
    ] {
        let refused = client
            .connect(edge.rig.address, name)
            .err()
            .expect("a refusal");
        assert!(
            format!("{refused:?}").contains("UnrecognisedName"),
            "{refused:?}"
        );
    }
    let failed = |reason: &str| {
        let labels = format!("listener=\"{}\",reason=\"{reason}\"", edge.rig.address);
        edge.rig
            .metric(&format!("nuncio_tls_handshake_failures_total{{{labels}}}"))
    };
    testkit::wait::until(
        "both to be counted",
        std::time::Duration::from_secs(30),
        || (failed("name_unknown") == 2.0).then_some(()),
    );
}

#[test]
fn the_host_for_all_names_answers_for_the_rest() {
    let ca = Ca::new();
    let (all, shop) = (ca.sign("all.example"), ca.sign("shop.example"));
    let secrets = secrets(&[("all", &all), ("shop", &shop)]);
    let edge = Edge::start(&format!(
        "hosts:
- {{ name: all, hostname: '*', tlsSecret: {{ name: all }} }}
- {{ name: shop, hostname: shop.example, tlsSecret: {{ name: shop }} }}
{secrets}"
    ));
    // A client that says no name verifies all the same.
    let client = Client::new(&ca);
    let (_, saw) = client
        .clone()
        .nameless()
        .look(edge.rig.address, "all.example")
        .expect("hands");
    assert_eq!(shown(&saw.certificate), "all.example");
    let (_, saw) = client
        .look(edge.rig.address, "shop.example")
        .expect("hands");
    assert_eq!(shown(&saw.certificate), "shop.example");
}

#[test]
fn contexts_with_hosts_give_certificates_and_a_choice_of_keys() {
    let ca = Ca::new();
    let (rsa, ecdsa) = (ca.sign_rsa("shop.example"), ca.sign("shop.example"));
    let secrets = secrets(&[("rsa", &rsa), ("ecdsa", &ecdsa)]);
    let edge = Edge::start(&format!(
        "hosts: [{{ name: shop, hostname: shop.example, tlsSecret: {{ name: rsa }} }}]
tls_contexts: [{{ name: more, hosts: [shop.example], secret: ecdsa }}]
{secrets}"
    ));
    for (kind, expected) in [("RSA", &rsa), ("ECDSA", &ecdsa)] {
        let wanted = format!("_{kind}_WITH_AES");
        let client = Client::with(&ca, None, &[&TLS12], |suite| suite.contains(&wanted));
        let (_, saw) = client
            .look(edge.rig.address, "shop.example")
            .expect("hands");
        assert!(expected.is(&saw.certificate), "{kind}");
    }
    let expires = "nuncio_certificate_not_after_seconds{host=\"shop.example\",key=\"rsa\"}";
    assert!(edge.rig.metric(expires) > 1e9);
}

#[test]
fn what_is_wrong_with_one_host_is_told_and_the_others_go_on() {
    let (ca, client) = ca();
    let (shop, other) = (ca.sign("shop.example"), ca.sign("other.example"));
    let mut mixed = shop.clone();
    mixed.key = other.key.clone();
    let hosts = "hosts:
- { name: shop, hostname: shop.example, tlsSecret: { name: shop } }
- { name: other, hostname: other.example, tlsSecret: { name: other } }
";
    let edge = Edge::start("routes: []");
    let told = edge.apply(&format!("{hosts}{}", secrets(&[("shop", &shop)])));
    let missing = "Host other.default spec.tlsSecret: TLS for `other.example`: there is no Secret \
        `other.default`; clients who ask for it are refused until that is mended";
    assert_eq!(told, [missing]);
    let ask = |name: &str| client.connect(edge.rig.address, name).is_ok();
    assert!(ask("shop.example") && !ask("other.example"));

    assert_eq!(
        edge.apply(&format!(
            "{hosts}{}",
            secrets(&[("shop", &shop), ("other", &other)])
        )),
        [""; 0]
    );
    assert!(ask("shop.example") && ask("other.example"));
    let told = edge.apply(&format!(
        "{hosts}{}",
        secrets(&[("shop", &mixed), ("other", &other)])
    ));
    let wrong = "Host shop.default spec.tlsSecret: TLS for `shop.example`: the key does not belong \
        to the certificate; what was there before stays in use";
    assert_eq!(told, [wrong]);
    assert!(ask("shop.example") && ask("other.example"));
}

#[test]
fn the_secret_of_old_answers_where_there_is_no_host() {
    let ca = Ca::new();
    let edge = Edge::start(&secrets(&[(
        "fallback-self-signed-cert",
        &ca.sign("any.example"),
    )]));
    let client = Client::new(&ca);
    let answer = edge.ask(&client, "any.example", "whoever.example");
    assert_eq!(answer.status, 200);
    // Cleartext goes on.
    assert_eq!(edge.rig.ask("GET /x HTTP/1.1\nhost: a", "").status, 200);
}
