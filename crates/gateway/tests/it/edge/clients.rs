//! Certificates that clients show, and what services are told of them.

use serde_json::{Value, json};

use super::*;

const XFCC: &str = "x-forwarded-client-cert";

/// A Host that asks clients for certificates, and one that does not.
fn start(ca: &Ca, people: &Ca, revoked: &[&Identity], module: &str) -> Edge {
    let both = ca.sign_for(&["open.example", "people.example"]);
    let mut text = secrets(&[("both", &both)]);
    secret(&mut text, "people", &[("ca.crt", &people.pem())]);
    secret(
        &mut text,
        "revoked",
        &[("crl.pem", &people.revoke(revoked))],
    );
    Edge::start(&format!(
        "{text}
hosts:
- {{ name: open, hostname: open.example, tlsSecret: {{ name: both }} }}
- {{ name: people, hostname: people.example, tlsSecret: {{ name: both }}, tlsContext: {{ name: people }} }}
tls_contexts: [{{ name: people, ca_secret: people, crl_secret: revoked, cert_required: true }}]
module: {module}"
    ))
}

#[test]
fn only_who_shows_a_good_certificate_gets_in() {
    let (ca, people, strangers) = (Ca::new(), Ca::new(), Ca::new());
    let (alice, eve) = (people.sign("alice"), people.sign("eve"));
    let edge = start(&ca, &people, &[&eve], "{}");
    let get = |client: &Client| {
        let mut raw = client.connect(edge.rig.address, "people.example").ok()?;
        raw.try_send("GET /x HTTP/1.1\r\nhost: people.example\r\n\r\n")
            .then_some(())?;
        // With TLS 1.3 the client learns of its refusal after the handshake.
        let head = raw.try_take_until(b"\r\n\r\n")?;
        Some(head.starts_with(b"HTTP/1.1 200"))
    };
    assert_eq!(get(&Client::showing(&ca, &alice)), Some(true));
    assert_eq!(get(&Client::showing(&ca, &eve)), None, "revoked");
    assert_eq!(get(&Client::showing(&ca, &strangers.sign("mallory"))), None);
    assert_eq!(get(&Client::new(&ca)), None);
    let failed = |name: &str| {
        let address = edge.rig.address.to_string().replace(':', "_");
        let name = format!("envoy_listener_ssl_{name}{{envoy_listener_address=\"{address}\"}}");
        edge.rig.metric(&name)
    };
    testkit::wait::until("the refusals", std::time::Duration::from_secs(30), || {
        (failed("fail_verify_error") == 2.0 && failed("fail_verify_no_cert") == 1.0).then_some(())
    });
    // Who got in elsewhere without one does not get in here.
    let anybody = Client::new(&ca);
    assert_eq!(
        edge.ask(&anybody, "open.example", "open.example").status,
        200
    );
    assert_eq!(
        edge.ask(&anybody, "open.example", "people.example").status,
        421
    );
}

/// What the service is told, where the client has sent `came`.
fn told(edge: &Edge, client: &Client, name: &str, came: &str) -> Value {
    let mut raw = client.connect(edge.rig.address, name).expect("hands");
    let request = format!("GET /x HTTP/1.1\nhost: {name}\n{XFCC}: {came}");
    let answer = raw::ask(&mut raw, &request, "");
    answer.json()["request"]["headers"][XFCC].clone()
}

#[test]
fn services_are_told_of_the_certificate_as_the_module_says() {
    let (ca, people) = (Ca::new(), Ca::new());
    let alice = people.sign("alice.example");
    let (known, anybody) = (Client::showing(&ca, &alice), Client::new(&ca));
    let hash = {
        let raw = alice.der();
        let provider = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
        let suite = provider.tls13().expect("TLS 1.3");
        tls::certificate::hex(suite.common.hash_provider.hash(&raw).as_ref())
    };
    let ours = format!("Hash={hash}");
    let both = format!("Hash=old,{ours}");
    for (said, over_mtls, over_tls) in [
        ("{}", Value::Null, Value::Null),
        (
            "{ forward_client_cert_details: SANITIZE }",
            Value::Null,
            Value::Null,
        ),
        (
            "{ forward_client_cert_details: FORWARD_ONLY }",
            json!(["Hash=old"]),
            Value::Null,
        ),
        (
            "{ forward_client_cert_details: APPEND_FORWARD }",
            json!([both]),
            Value::Null,
        ),
        (
            "{ forward_client_cert_details: SANITIZE_SET }",
            json!([ours]),
            Value::Null,
        ),
        (
            "{ forward_client_cert_details: ALWAYS_FORWARD_ONLY }",
            json!(["Hash=old"]),
            json!(["Hash=old"]),
        ),
    ] {
        let edge = start(&ca, &people, &[], said);
        assert_eq!(
            told(&edge, &known, "people.example", "Hash=old"),
            over_mtls,
            "{said}"
        );
        assert_eq!(
            told(&edge, &anybody, "open.example", "Hash=old"),
            over_tls,
            "{said}"
        );
    }
    let all = "{ forward_client_cert_details: SANITIZE_SET, \
               set_current_client_cert_details: { subject: true, dns: true, cert: true, uri: true } }";
    let edge = start(&ca, &people, &[], all);
    let told = told(&edge, &known, "people.example", "Hash=old");
    let told = told[0].as_str().expect("a header").to_owned();
    let (begin, rest) = told.split_once(";Cert=\"").expect("a certificate");
    let (pem, end) = rest.split_once('"').expect("its end");
    assert_eq!(begin, ours);
    assert_eq!(
        end,
        ";Subject=\"CN=rcgen self signed cert\";DNS=alice.example"
    );
    let pem = percent(pem).replace('\n', "");
    assert_eq!(pem, alice.chain.replace(['\r', '\n'], ""));
}

/// Undoes `%XX`.
fn percent(text: &str) -> String {
    let mut out = String::new();
    let mut parts = text.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (digits, rest) = part.split_at(2);
        out.push(char::from(
            u8::from_str_radix(digits, 16).expect("two digits"),
        ));
        out.push_str(rest);
    }
    out
}
