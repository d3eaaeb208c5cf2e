//! What counts as secure, what becomes of requests that are not, and of those that came on the wrong connection.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use observe::access::AccessLog;
use observe::metrics::Metrics;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::*;

/// Two Hosts whose certificates are for both, and one whose is not; one with rules of its own.
fn several(ca: &Ca) -> Edge {
    let both = ca.sign_for(&["a.example", "b.example", "strict.example"]);
    let other = ca.sign("other.example");
    Edge::start(&format!(
        "hosts:
- {{ name: a, hostname: a.example, tlsSecret: {{ name: both }} }}
- {{ name: b, hostname: b.example, tlsSecret: {{ name: both }} }}
- {{ name: other, hostname: other.example, tlsSecret: {{ name: other }} }}
- name: strict
  hostname: strict.example
  tlsSecret: {{ name: both }}
  tls: {{ min_tls_version: v1.3 }}
- {{ name: bare, hostname: bare.example }}
{}",
        secrets(&[("both", &both), ("other", &other)])
    ))
}

#[test]
fn a_connection_takes_requests_for_hosts_that_its_certificate_covers() {
    let (ca, client) = ca();
    let edge = several(&ca);
    for (host, expected) in [
        ("a.example", 200),
        ("A.EXAMPLE:443", 200),
        ("b.example", 200),
        // Its certificate is another one.
        ("other.example", 421),
        // Its rules are others.
        ("strict.example", 421),
        // It has no certificate, and this one is not for it.
        ("bare.example", 421),
        ("nobody.example", 421),
    ] {
        let answer = edge.ask(&client, "a.example", host);
        assert_eq!(answer.status, expected, "{host}");
        if expected == 421 {
            assert_eq!(answer.header("x-nuncio-reason"), ["misdirected"]);
        }
    }
    assert_eq!(
        edge.ask(&client, "strict.example", "strict.example").status,
        200
    );
}

#[test]
fn services_are_told_what_the_client_speaks() {
    let (ca, client) = ca();
    let shop = secrets(&[("shop", &ca.sign("shop.example"))]);
    let host = "hosts: [{ hostname: shop.example, tlsSecret: { name: shop }, \
                requestPolicy: { insecure: { action: Route } } }]\n";
    let edge = Edge::start(&format!("{host}{shop}"));
    let proto = |answer: Response| answer.json()["request"]["headers"]["x-forwarded-proto"].clone();
    let liar = "GET /x HTTP/1.1\nhost: shop.example\nx-forwarded-proto: http";
    let mut raw = client
        .connect(edge.rig.address, "shop.example")
        .expect("hands");
    assert_eq!(
        proto(raw::ask(&mut raw, liar, "")),
        serde_json::json!(["https"])
    );
    let liar = "GET /x HTTP/1.1\nhost: shop.example\nx-forwarded-proto: https";
    assert_eq!(proto(edge.rig.ask(liar, "")), serde_json::json!(["http"]));
    // Where the Listener says that nothing is secure, the client speaks TLS all the same.
    let listener = "listeners: [{ port: 0, protocol: HTTPS, securityModel: INSECURE, \
                    hostBinding: { namespace: { from: ALL } } }]\n";
    let edge = Edge::start(&format!("{host}{shop}{listener}"));
    assert_eq!(
        proto(edge.ask(&client, "shop.example", "shop.example")),
        serde_json::json!(["https"])
    );
}

#[test]
fn cleartext_is_redirected_routed_or_rejected_on_the_same_port() {
    let (ca, client) = ca();
    let names = ["route.example", "redirect.example", "reject.example"];
    let all = ca.sign_for(&names);
    let edge = Edge::start(&format!(
        "hosts:
- {{ name: a, hostname: route.example, tlsSecret: {{ name: all }}, requestPolicy: {{ insecure: {{ action: Route }} }} }}
- {{ name: b, hostname: redirect.example, tlsSecret: {{ name: all }} }}
- {{ name: c, hostname: reject.example, tlsSecret: {{ name: all }}, requestPolicy: {{ insecure: {{ action: Reject }} }} }}
{}",
        secrets(&[("all", &all)])
    ));
    for (name, expected) in names.iter().zip([200, 301, 404]) {
        assert_eq!(edge.ask(&client, name, name).status, 200, "{name} by TLS");
        let answer = edge
            .rig
            .ask(&format!("GET /x?y HTTP/1.1\nhost: {name}"), "");
        assert_eq!(answer.status, expected, "{name} in cleartext");
        if expected == 301 {
            assert_eq!(answer.header("location"), ["https://redirect.example/x?y"]);
        }
    }
}

#[test]
fn hosts_may_ask_for_a_further_port() {
    let (ca, client) = ca();
    let ports = [
        testkit::port::stable(),
        testkit::port::stable(),
        testkit::port::stable(),
    ];
    let [https, additional, redirected] = ports.map(|address| address.port());
    let all = ca.sign_for(&["a.example", "b.example"]);
    let edge = Edge::start(&format!(
        "listeners: [{{ port: {https}, protocol: HTTPS, securityModel: XFP, hostBinding: {{ namespace: {{ from: ALL }} }} }}]
hosts:
- name: a
  hostname: a.example
  tlsSecret: {{ name: all }}
  requestPolicy: {{ insecure: {{ action: Route, additionalPort: {additional} }} }}
- name: b
  hostname: b.example
  tlsContext: {{ name: b }}
  requestPolicy: {{ insecure: {{ action: Route }} }}
tls_contexts: [{{ name: b, secret: all, redirect_cleartext_from: {redirected} }}]
{}",
        secrets(&[("all", &all)])
    ));
    let mut raw = client.connect(ports[0], "b.example").expect("hands");
    assert_eq!(
        raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: b.example", "").status,
        200
    );
    let ask = |address, name: &str| {
        raw::http(address, &format!("GET /x HTTP/1.1\nhost: {name}"), "").status
    };
    assert_eq!(ask(ports[0], "b.example"), 200);
    assert_eq!(ask(ports[1], "a.example"), 200);
    assert_eq!(ask(ports[1], "b.example"), 200);
    assert_eq!(ask(ports[2], "a.example"), 200);
    assert_eq!(ask(ports[2], "b.example"), 301);
    assert_eq!(edge.rig.gateway.addresses().len(), 3);
}

#[test]
fn http_2_is_spoken_where_it_is_agreed_on() {
    let ca = Ca::new();
    let edge = several(&ca);
    let client = Client::new(&ca).alpn(&["h2", "http/1.1"]);
    let (_, saw) = client.look(edge.rig.address, "a.example").expect("hands");
    assert_eq!(saw.alpn, "h2");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let statuses = runtime.expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(edge.rig.address)
            .await
            .expect("a connection");
        let name = ServerName::try_from("a.example").expect("a name");
        let connector = TlsConnector::from(client.config());
        let stream = connector.connect(name, stream).await.expect("hands");
        let handshake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut statuses = Vec::new();
        for host in ["a.example", "b.example", "other.example", "a.example"] {
            let request = http::Request::get(format!("https://{host}/x"));
            let request = request.body(Empty::<Bytes>::new()).expect("a request");
            let answer = sender.send_request(request).await.expect("an answer");
            statuses.push(answer.status().as_u16());
            answer.into_body().collect().await.expect("a body");
        }
        statuses
    });
    assert_eq!(
        statuses,
        [200, 200, 421, 200],
        "a refused stream costs the others nothing"
    );
}

#[test]
fn sessions_go_on_and_versions_are_counted() {
    let ca = Ca::new();
    let edge = several(&ca);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::with(&ca, None, &[version], |_| true);
        let resumed: Vec<bool> = (0..3)
            .map(|_| {
                let (mut raw, saw) = client.look(edge.rig.address, "a.example").expect("hands");
                // The tickets of TLS 1.3 come with the answer.
                let answer = raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: a.example", "");
                assert_eq!(answer.status, 200);
                saw.resumed
            })
            .collect();
        assert_eq!(resumed, [false, true, true]);
    }
    let listener = edge.rig.address;
    let metric = |labels: &str| {
        let labels = format!("{{listener=\"{listener}\",{labels}}}");
        edge.rig
            .metric(&format!("nuncio_tls_handshakes_total{labels}"))
    };
    assert_eq!(metric("version=\"TLSv1.2\",resumed=\"false\""), 1.0);
    assert_eq!(metric("version=\"TLSv1.3\",resumed=\"true\""), 2.0);
    let address = listener.to_string().replace(':', "_");
    let reused =
        format!("envoy_listener_ssl_session_reused{{envoy_listener_address=\"{address}\"}}");
    assert_eq!(edge.rig.metric(&reused), 4.0);
}

#[test]
fn access_lines_tell_how_a_connection_is_secured() {
    let ca = Ca::new();
    let people = Ca::new();
    let echo = testkit::echo::Echo::start("a");
    let mut text = secrets(&[("shop", &ca.sign("shop.example"))]);
    secret(&mut text, "people", &[("ca.crt", &people.pem())]);
    text.push_str(&format!(
        "hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }}, tls: {{ ca_secret: people }} }}]
routes: [{{ prefix: /, service: '{}', add_request_headers: {{ x-tls: {{ value: '%DOWNSTREAM_TLS_VERSION% %REQUESTED_SERVER_NAME% %DOWNSTREAM_PEER_DNS_SAN%' }} }} }}]",
        echo.address()
    ));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let metrics = Metrics::default();
    let access = AccessLog::start(writer, &metrics).expect("a thread");
    let rig = Rig::observed(&text, Default::default(), &[], metrics, access);
    let client = Client::showing(&ca, &people.sign("alice.example"));
    let mut raw = client.connect(rig.address, "shop.example").expect("hands");
    let answer = raw::ask(&mut raw, "GET /x HTTP/1.1\nhost: shop.example", "");
    assert_eq!(
        answer.json()["request"]["headers"]["x-tls"],
        serde_json::json!(["TLSv1.3 shop.example alice.example"])
    );
    drop((raw, rig));
    let lines = std::io::read_to_string(reader).expect("lines");
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&line["tls"], &line["sni"]),
        (&"TLSv1.3".into(), &"shop.example".into())
    );
    assert_eq!(line["client_subject"], "CN=rcgen self signed cert");
    drop(Arc::new(echo));
}

/// A proxy in front says whose connection it is, before the handshake.
#[test]
fn the_proxy_header_comes_before_the_handshake() {
    let (ca, client) = ca();
    let edge = Edge::start(&format!(
        "listeners: [{{ port: 0, protocolStack: [TLS, PROXY, HTTP, TCP], securityModel: XFP, hostBinding: {{ namespace: {{ from: ALL }} }} }}]
hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }}, requestPolicy: {{ insecure: {{ action: Route }} }} }}]
{}",
        secrets(&[("shop", &ca.sign("shop.example"))])
    ));
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 443\r\n";
    let request = "GET /x HTTP/1.1\nhost: shop.example";
    let seen = |answer: Response| {
        let headers = &answer.json()["request"]["headers"];
        (
            headers["x-forwarded-for"][0].clone(),
            headers["x-forwarded-proto"][0].clone(),
        )
    };
    let open = || {
        let mut stream = std::net::TcpStream::connect(edge.rig.address).expect("a connection");
        std::io::Write::write_all(&mut stream, header).expect("a header");
        stream
    };
    let (mut raw, _) = client.over(open(), "shop.example").expect("hands");
    let secured = seen(raw::ask(&mut raw, request, ""));
    assert_eq!(secured, ("192.0.2.7".into(), "https".into()));
    let cleartext = seen(raw::ask(&mut raw::Raw::of(open()), request, ""));
    assert_eq!(cleartext, ("192.0.2.7".into(), "http".into()));
}

/// A tunnel is one inside TLS too.
#[test]
fn upgrades_work_inside_tls() {
    let (ca, client) = ca();
    let edge = Edge::start(&format!(
        "hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }} }}]
routes: [{{ prefix: /, service: $a, allow_upgrade: [websocket] }}]
{}",
        secrets(&[("shop", &ca.sign("shop.example"))])
    ));
    let mut raw = client
        .connect(edge.rig.address, "shop.example")
        .expect("hands");
    raw.send("GET /x HTTP/1.1\r\nhost: shop.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
    let head = raw.take_until(b"\r\n\r\n");
    assert!(
        head.starts_with(b"HTTP/1.1 101"),
        "{}",
        String::from_utf8_lossy(&head)
    );
    // More than one record each way.
    let much: Vec<u8> = (0..100_000_u32).map(|at| at as u8).collect();
    raw.send(&much);
    assert_eq!(raw.take(much.len()), much);
}

/// Bodies of many records, both ways, on a connection that is kept.
#[test]
fn large_bodies_pass_inside_tls() {
    let (ca, client) = ca();
    let edge = Edge::start(&format!(
        "hosts: [{{ hostname: shop.example, tlsSecret: {{ name: shop }} }}]\n{}",
        secrets(&[("shop", &ca.sign("shop.example"))])
    ));
    let mut raw = client
        .connect(edge.rig.address, "shop.example")
        .expect("hands");
    let body = "x".repeat(300_000);
    for _ in 0..3 {
        raw.send(format!(
            "POST /x HTTP/1.1\r\nhost: shop.example\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let answer = raw.take_response();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["request"]["body"].as_str(), Some(&*body));
    }
}
