//! TLS towards services: who is trusted, what is asked for and shown, and certificates that change.

mod files;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::config::Secret;
use testkit::tls::{Ca, Identity, self_signed};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::rig::{Rig, config};

/// A service behind TLS that answers with what it saw: name asked for, protocol, certificate of the client, version.
struct Served {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

impl Served {
    fn start(identity: &Identity, clients: Option<&Ca>) -> Self {
        let mut tls = identity.server(clients);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let handshakes = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let serving = serve(listener, acceptor, handshakes.clone());
        thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serving => (),
                    _ = stopped => (),
                }
            });
            runtime.shutdown_background();
        });
        Served {
            address,
            handshakes,
            _stop: stop,
        }
    }
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, handshakes: Arc<AtomicUsize>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        let (acceptor, handshakes) = (acceptor.clone(), handshakes.clone());
        tokio::spawn(async move {
            // A client that does not trust us says so here.
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            handshakes.fetch_add(1, Relaxed);
            let (_, tls) = stream.get_ref();
            let said =
                |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
            let seen = format!(
                "{} {} {}",
                tls.server_name().unwrap_or("-"),
                said(tls.alpn_protocol()),
                tls.peer_certificates().is_some(),
            );
            let service = service_fn(move |request: Request<Incoming>| {
                let version = if request.version() == Version::HTTP_2 {
                    "2"
                } else {
                    "1"
                };
                let answer = Full::new(Bytes::from(format!("{seen} {version}")));
                async move {
                    // A body that breaks off is the test's wish.
                    _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(answer))
                }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // How it ends is the gateway's choice.
            _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Secrets<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)])];

/// Starts a gateway whose `shop` is this address.
fn rig(service: &str, address: SocketAddr, contexts: &str, secrets: Secrets<'_>) -> Rig {
    let rig = Rig::start("routes: []");
    apply(&rig, service, address, contexts, secrets);
    rig
}

fn apply(
    rig: &Rig,
    service: &str,
    address: SocketAddr,
    contexts: &str,
    secrets: Secrets<'_>,
) -> Vec<String> {
    let mut config = config(&format!(
        "routes: [{{ prefix: /, service: {service} }}]\ntls_contexts: [{contexts}]"
    ));
    for (name, values) in secrets {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()));
        let secret = Secret {
            kind: "Opaque".to_owned(),
            data: values.collect::<BTreeMap<_, _>>(),
        };
        config
            .secrets
            .insert(("default".to_owned(), (*name).to_owned()), secret);
    }
    config.endpoints.tell("default", "shop", vec![address]);
    let applied = rig.gateway.apply(&config, &[]);
    applied
        .problems
        .into_iter()
        .map(|problem| problem.what)
        .collect()
}

#[track_caller]
fn check(rig: &Rig, expected: &str) {
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    let said = format!(
        "{} {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(said, expected);
}

const REFUSED: &str = "503 upstream connect error";

#[test]
fn without_a_ca_any_certificate_will_do() {
    let served = Served::start(&self_signed("whoever.test"), None);
    check(
        &rig("'https://shop'", served.address, "", &[]),
        "200 shop http/1.1 false 1",
    );
    check(
        &rig("shop, tls: plain", served.address, "{ name: plain }", &[]),
        "200 shop http/1.1 false 1",
    );
    let sni = "{ name: sni, sni: other.test }";
    check(
        &rig("'https://shop', tls: sni", served.address, sni, &[]),
        "200 other.test http/1.1 false 1",
    );
    // An address is no name to ask for.
    let address = served.address;
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: 'https://{address}' }}]"
    ));
    check(&rig, "200 - http/1.1 false 1");
    assert_eq!(served.handshakes.load(Relaxed), 4);
}

#[test]
fn http_2_is_spoken_where_grpc_is_said() {
    let served = Served::start(&self_signed("shop"), None);
    check(
        &rig("'https://shop', grpc: true", served.address, "", &[]),
        "200 shop h2 false 2",
    );
}

#[test]
fn connections_are_kept() {
    let served = Served::start(&self_signed("shop"), None);
    let rig = rig("'https://shop'", served.address, "", &[]);
    let mut client = rig.connect();
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200);
    }
    assert_eq!(served.handshakes.load(Relaxed), 1);
}

#[test]
fn with_a_ca_the_chain_counts_and_the_name_where_it_is_asked_for() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let served = Served::start(&ours.sign("shop.test"), None);
    let address = served.address;
    let (good, bad) = (ours.pem(), theirs.pem());
    let secrets: Secrets<'_> = &[
        ("good", &[("ca.crt", &good)]),
        ("bad", &[("tls.crt", &bad)]),
    ];
    let context = |more: &str| format!("{{ name: c, {more} }}");
    let answer = |more: &str| rig("shop, tls: c", address, &context(more), secrets);
    check(&answer("ca_secret: good"), "200 shop http/1.1 false 1");
    check(
        &answer("ca_secret: good.default"),
        "200 shop http/1.1 false 1",
    );
    check(&answer("ca_secret: bad"), REFUSED);
    check(&answer("verify: system"), REFUSED);
    check(
        &answer("ca_secret: good, verify_subject_alt_names: [a.test, shop.test]"),
        "200 shop http/1.1 false 1",
    );
    check(
        &answer("ca_secret: good, verify_subject_alt_names: [a.test]"),
        REFUSED,
    );
    check(
        &answer("ca_secret: bad, verify_subject_alt_names: [shop.test]"),
        REFUSED,
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &good).expect("a file");
    let file = format!("cacert_chain_file: '{}'", file.display());
    check(&answer(&file), "200 shop http/1.1 false 1");

    // Who signs himself can be trusted by himself.
    let identity = self_signed("shop.test");
    let served = Served::start(&identity, None);
    let secrets: Secrets<'_> = &[("good", &[("ca.crt", &identity.chain)])];
    let rig = rig(
        "shop, tls: c",
        served.address,
        &context("ca_secret: good"),
        secrets,
    );
    check(&rig, "200 shop http/1.1 false 1");
}

#[test]
fn a_certificate_is_shown_to_services_that_ask() {
    let ca = Ca::new();
    let served = Served::start(&self_signed("shop"), Some(&ca));
    let ours = ca.sign("gateway.test");
    let theirs = Ca::new().sign("gateway.test");
    let secrets: Secrets<'_> = &[
        ("ours", &[("tls.crt", &ours.chain), ("tls.key", &ours.key)]),
        (
            "theirs",
            &[("tls.crt", &theirs.chain), ("tls.key", &theirs.key)],
        ),
    ];
    let answer = |more: &str| {
        let context = format!("{{ name: c, {more} }}");
        rig("shop, tls: c", served.address, &context, secrets)
    };
    check(&answer("secret: ours"), "200 shop http/1.1 true 1");
    for other in ["secret: theirs", "verify: none"] {
        let status = answer(other).ask("GET / HTTP/1.1\nhost: a", "").status;
        assert_eq!(status, 503, "{other}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("chain"), &ours.chain).expect("a file");
    std::fs::write(path("key"), &ours.key).expect("a file");
    let (chain, key) = (path("chain"), path("key"));
    let files = format!(
        "cert_chain_file: '{}', private_key_file: '{}'",
        chain.display(),
        key.display()
    );
    check(&answer(&files), "200 shop http/1.1 true 1");
}

#[test]
fn versions_and_suites_are_those_that_are_written() {
    let served = Served::start(&self_signed("shop"), None);
    for more in [
        "max_tls_version: v1.2",
        "min_tls_version: v1.3",
        "max_tls_version: v1.2, cipher_suites: ['[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-RSA-AES128-GCM-SHA256]']",
        "ecdh_curves: [P-256]",
    ] {
        let context = format!("{{ name: c, {more} }}");
        check(
            &rig("shop, tls: c", served.address, &context, &[]),
            "200 shop http/1.1 false 1",
        );
    }
    // Its certificate is one for ECDSA.
    let context =
        "{ name: c, max_tls_version: v1.2, cipher_suites: [ECDHE-RSA-AES128-GCM-SHA256] }";
    check(&rig("shop, tls: c", served.address, context, &[]), REFUSED);
}

#[test]
fn changed_certificates_are_used_by_new_connections_and_broken_ones_by_none() {
    let (first, second) = (Ca::new(), Ca::new());
    let served = Served::start(&first.sign("shop"), None);
    let context = "{ name: c, ca_secret: ca }";
    let (good, other) = (first.pem(), second.pem());
    let with = |rig: &Rig, ca: &str| {
        apply(
            rig,
            "shop, tls: c",
            served.address,
            context,
            &[("ca", &[("ca.crt", ca)])],
        )
    };
    let rig = Rig::start("routes: []");
    assert_eq!(with(&rig, &good), [""; 0]);
    let mut client = rig.connect();
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client.take_response().status
    };
    assert_eq!(
        (ask(), ask(), served.handshakes.load(Relaxed)),
        (200, 200, 1)
    );
    // The same again changes nothing.
    assert_eq!(with(&rig, &good), [""; 0]);
    assert_eq!((ask(), served.handshakes.load(Relaxed)), (200, 1));
    // The open connection takes no more requests, since the service is not trusted any more.
    assert_eq!(with(&rig, &other), [""; 0]);
    assert_eq!(ask(), 503);
    assert_eq!(with(&rig, &good), [""; 0]);
    assert_eq!((ask(), served.handshakes.load(Relaxed)), (200, 2));
    let problems = with(&rig, "nonsense");
    assert!(
        problems[0].contains("no certificate in the CA") && problems[0].contains("stay in use"),
        "{problems:?}"
    );
    assert_eq!((ask(), served.handshakes.load(Relaxed)), (200, 2));
}

#[test]
fn a_revoked_certificate_is_refused() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let (good, revoked) = (ca.sign("shop"), ca.sign("shop"));
    let list = ca.revoke(&[&revoked]);
    // A list that says nothing about the CA changes nothing.
    let other = stranger.revoke(&[&stranger.sign("shop")]);
    let both = format!("{}{}", ca.pem(), revoked.chain);
    let pem = ca.pem();
    let secrets: Secrets<'_> = &[
        ("ca", &[("ca.crt", &pem)]),
        ("both", &[("ca.crt", &both)]),
        ("list", &[("crl.pem", &list)]),
        ("other", &[("crl.pem", &other)]),
    ];
    let (good, revoked) = (Served::start(&good, None), Served::start(&revoked, None));
    let answer = |served: &Served, more: &str| {
        let context = format!("{{ name: c, {more} }}");
        rig("shop, tls: c", served.address, &context, secrets)
    };
    const TAKEN: &str = "200 shop http/1.1 false 1";
    check(&answer(&good, "ca_secret: ca, crl_secret: list"), TAKEN);
    check(&answer(&revoked, "ca_secret: ca"), TAKEN);
    check(
        &answer(&revoked, "ca_secret: ca, crl_secret: list"),
        REFUSED,
    );
    check(&answer(&revoked, "ca_secret: ca, crl_secret: other"), TAKEN);
    // Even where the very certificate is among those that are trusted.
    check(
        &answer(&revoked, "ca_secret: both, crl_secret: list"),
        REFUSED,
    );
}

#[test]
fn what_is_missing_is_told_and_answers_503() {
    let served = Served::start(&self_signed("shop"), None);
    let rig = Rig::start("routes: []");
    for (contexts, told) in [
        ("", "there is no TLSContext `c`"),
        (
            "{ name: c, secret: gone }",
            "there is no Secret `gone.default`",
        ),
        (
            "{ name: c, ca_secret: gone.elsewhere }",
            "there is no Secret `gone.elsewhere`",
        ),
        (
            "{ name: c, ca_secret: gone.elsewhere, secret_namespacing: false }",
            "there is no Secret `gone.elsewhere.default`",
        ),
        (
            "{ name: c, ca_secret: empty }",
            "the Secret `empty.default` has no `ca.crt`",
        ),
        (
            "{ name: c, cacert_chain_file: /nowhere/ca.pem }",
            "could not read `/nowhere/ca.pem`",
        ),
        (
            "{ name: c, cacert_chain_file: /dev/zero }",
            "`/dev/zero` is no file",
        ),
    ] {
        let problems = apply(
            &rig,
            "shop, tls: c",
            served.address,
            contexts,
            &[("empty", &[])],
        );
        assert!(
            problems.iter().any(|problem| problem.contains(told)),
            "{told}: {problems:?}"
        );
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    }
}

/// `openssl s_server`, ended when dropped.
struct Openssl(Child, SocketAddr);

impl Drop for Openssl {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn openssl_is_understood() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("there is no openssl here, nothing is tested");
        return;
    }
    let identity = self_signed("shop.test");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("chain"), &identity.chain).expect("a file");
    std::fs::write(path("key"), &identity.key).expect("a file");
    for version in ["-tls1_2", "-tls1_3"] {
        let address = testkit::port::stable();
        let child = Command::new("openssl")
            .args(["s_server", "-www", version, "-accept", &address.to_string()])
            .arg("-cert")
            .arg(path("chain"))
            .arg("-key")
            .arg(path("key"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let openssl = Openssl(child, address);
        let rig = rig(
            "shop, tls: c",
            openssl.1,
            "{ name: c, ca_secret: ca }",
            &[("ca", &[("ca.crt", &identity.chain)])],
        );
        testkit::wait::until("openssl", Duration::from_secs(10), || {
            let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
            (answer.status == 200).then_some(())
        });
        let page = String::from_utf8(rig.ask("GET / HTTP/1.1\nhost: a", "").body).expect("text");
        let name = if version == "-tls1_2" {
            "TLSv1.2"
        } else {
            "TLSv1.3"
        };
        assert!(page.contains(name), "{page}");
    }
}
