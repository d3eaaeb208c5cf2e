//! Ambassador's cases with TLS: Hosts, versions, certificates of clients, redirects behind a proxy.

use std::fmt::Write as _;
use std::net::SocketAddr;

use expect_test::expect;
use testkit::raw;
use testkit::tls::{Ca, Client, Identity};

use super::{Rig, Seen, document};

const LISTENER: &str = "Listener tls: { port: $port1, protocol: HTTPS, securityModel: XFP, hostBinding: { namespace: { from: ALL } } }";

/// Starts with objects in short lines, and Secrets.
fn start(objects: &[&str], secrets: &[(&str, &[(&str, &str)])]) -> Rig {
    let mut documents: Vec<String> = objects.iter().map(|object| document(object)).collect();
    for (name, values) in secrets {
        let mut text =
            format!("apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name} }}\nstringData:");
        for (key, value) in *values {
            _ = write!(text, "\n  {key}: {}", serde_json::Value::from(*value));
        }
        documents.push(text);
    }
    Rig::start_file(&documents.join("\n---\n"), &[])
}

fn pair(identity: &Identity) -> [(&str, &str); 2] {
    [("tls.crt", &identity.chain), ("tls.key", &identity.key)]
}

/// Asks each on a connection of its own for the host's name, and says who answered.
fn answers(client: &Client, address: SocketAddr, requests: &[&str]) -> String {
    let mut told = String::new();
    for request in requests {
        let (host, path) = request.split_once(' ').expect("`host path`");
        let answer = match client.connect(address, host) {
            Err(_) => "no handshake".to_owned(),
            Ok(mut raw) => {
                let head = format!("GET {path} HTTP/1.1\nhost: {host}");
                Seen::of(&raw::ask(&mut raw, &head, "")).told()
            }
        };
        _ = writeln!(told, "{request} -> {answer}");
    }
    told
}

/// Case 46: each Host by HTTPS, whatever it does without.
#[test]
fn hosts_answer_for_their_own_names() {
    let ca = Ca::new();
    let (h1, h2, h3) = (ca.sign("h1.test"), ca.sign("h2.test"), ca.sign("h3.test"));
    let rig = start(
        &[
            LISTENER,
            "Host h1: { hostname: h1.test, tlsSecret: { name: h1 }, requestPolicy: { insecure: { action: Route } } }",
            "Host h2: { hostname: h2.test, tlsSecret: { name: h2 }, requestPolicy: { insecure: { action: Redirect } } }",
            "Host h3: { hostname: h3.test, tlsSecret: { name: h3 }, requestPolicy: { insecure: { action: Reject } } }",
            "Mapping t1: { prefix: /target-1/, hostname: h1.test, service: $a }",
            "Mapping t2: { prefix: /target-2/, hostname: h2.test, service: $a }",
            "Mapping t3: { prefix: /target-3/, hostname: h3.test, service: $a }",
            "Mapping shared: { prefix: /shared/, service: $b }",
            "Mapping acme: { prefix: /.well-known/acme-challenge/, hostname: h3.test, service: $c }",
        ],
        &[("h1", &pair(&h1)), ("h2", &pair(&h2)), ("h3", &pair(&h3))],
    );
    let mut requests = Vec::new();
    for host in ["h1.test", "h2.test", "h3.test"] {
        for path in [
            "/target-1/",
            "/target-2/",
            "/target-3/",
            "/shared/",
            "/.well-known/acme-challenge/x",
        ] {
            requests.push(format!("{host} {path}"));
        }
    }
    requests.push("h4.test /shared/".to_owned());
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    expect![[r#"
        h1.test /target-1/ -> 200 a /
        h1.test /target-2/ -> 404
        h1.test /target-3/ -> 404
        h1.test /shared/ -> 200 b /
        h1.test /.well-known/acme-challenge/x -> 404
        h2.test /target-1/ -> 404
        h2.test /target-2/ -> 200 a /
        h2.test /target-3/ -> 404
        h2.test /shared/ -> 200 b /
        h2.test /.well-known/acme-challenge/x -> 404
        h3.test /target-1/ -> 404
        h3.test /target-2/ -> 404
        h3.test /target-3/ -> 200 a /
        h3.test /shared/ -> 200 b /
        h3.test /.well-known/acme-challenge/x -> 200 c /x
        h4.test /shared/ -> no handshake
    "#]]
    .assert_eq(&answers(&Client::new(&ca), rig.ports[0], &requests));
    // And without, on the same port.
    rig.check_at(
        rig.ports[0],
        &[
            "GET //h1.test/target-1/",
            "GET //h2.test/target-2/",
            "GET //h3.test/target-3/",
            "GET //h3.test/.well-known/acme-challenge/x",
        ],
        expect![[r#"
            GET //h1.test/target-1/ -> 200 a /
            GET //h2.test/target-2/ -> 301 https://h2.test/target-2/
            GET //h3.test/target-3/ -> 404
            GET //h3.test/.well-known/acme-challenge/x -> 200 c /x
        "#]],
    );
    expect![[""]].assert_eq(&rig.told());
}

/// Case 49: the oldest version, certificates that clients must show, and those that are revoked.
#[test]
fn contexts_say_who_gets_in() {
    let (ca, people) = (Ca::new(), Ca::new());
    let shop = ca.sign("shop.test");
    let (alice, eve) = (people.sign("alice"), people.sign("eve"));
    let crl = people.revoke(&[&eve]);
    let rig = start(
        &[
            LISTENER,
            "TLSContext strict: { min_tls_version: v1.3, secret: shop, ca_secret: people, cert_required: true, crl_secret: crl }",
            "Host shop: { hostname: shop.test, tlsContext: { name: strict } }",
            "Mapping x: { prefix: /x/, service: $a }",
        ],
        &[
            ("shop", &pair(&shop)),
            ("people", &[("ca.crt", &people.pem())]),
            ("crl", &[("crl.pem", &crl)]),
        ],
    );
    let old = Client::with(&ca, Some(&alice), &[&rustls::version::TLS12], |_| true);
    let ask = |client: &Client| {
        let mut raw = client.connect(rig.ports[0], "shop.test").ok()?;
        // With TLS 1.3 the client learns of its refusal after the handshake.
        let sent = raw.try_send("GET /x/ HTTP/1.1\r\nhost: shop.test\r\n\r\n");
        let head = raw.try_take_until(b"\r\n\r\n").filter(|_| sent)?;
        Some(head.starts_with(b"HTTP/1.1 200"))
    };
    assert_eq!(ask(&Client::showing(&ca, &alice)), Some(true));
    assert_eq!(ask(&old), None);
    assert_eq!(ask(&Client::showing(&ca, &eve)), None);
    assert_eq!(ask(&Client::new(&ca)), None);
}

/// Case 50, where the hop in front speaks TLS with us: its word counts all the same.
#[test]
fn the_word_of_a_trusted_hop_counts_before_the_connection() {
    let ca = Ca::new();
    let rig = start(
        &[
            "Listener tls: { port: $port1, protocol: HTTPS, securityModel: XFP, l7Depth: 1, hostBinding: { namespace: { from: ALL } } }",
            "Host h: { hostname: h.test, tlsSecret: { name: h } }",
            "Mapping x: { prefix: /x/, service: $a }",
        ],
        &[("h", &pair(&ca.sign("h.test")))],
    );
    let client = Client::new(&ca);
    for (said, expected) in [
        ("\nx-forwarded-proto: http", "301 https://h.test/x/"),
        ("\nx-forwarded-proto: https", "200 a /"),
        ("", "200 a /"),
    ] {
        let mut raw = client.connect(rig.ports[0], "h.test").expect("hands");
        let answer = raw::ask(
            &mut raw,
            &format!("GET /x/ HTTP/1.1\nhost: h.test{said}"),
            "",
        );
        assert_eq!(Seen::of(&answer).told(), expected, "{said}");
    }
}

/// What is wrong with a certificate is told with its place, and the others go on.
#[test]
fn certificates_that_cannot_be_used_are_told() {
    let ca = Ca::new();
    let (good, other) = (ca.sign("good.test"), ca.sign("other.test"));
    let rig = start(
        &[
            LISTENER,
            "Host good: { hostname: good.test, tlsSecret: { name: good } }",
            "Host missing: { hostname: missing.test, tlsSecret: { name: nobody } }",
            "Host wrong: { hostname: wrong.test, tlsSecret: { name: wrong } }",
            "Mapping x: { prefix: /x/, service: $a }",
        ],
        &[
            ("good", &pair(&good)),
            (
                "wrong",
                &[("tls.crt", &good.chain), ("tls.key", &other.key)],
            ),
        ],
    );
    expect![[r#"
        error: TLS for `missing.test`: there is no Secret `nobody.default`
          in Host missing.default, at spec.tlsSecret
        error: TLS for `wrong.test`: the key does not belong to the certificate
          in Host wrong.default, at spec.tlsSecret
    "#]]
    .assert_eq(&rig.told());
    let requests = ["good.test /x/", "missing.test /x/", "wrong.test /x/"];
    expect![[r#"
        good.test /x/ -> 200 a /
        missing.test /x/ -> no handshake
        wrong.test /x/ -> no handshake
    "#]]
    .assert_eq(&answers(&Client::new(&ca), rig.ports[0], &requests));
}
