//! Certificates in files: they may come late, change and go while the gateway runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

/// Longest wait for a change to be seen.
const SEEN_MAX: Duration = Duration::from_secs(60);

const TAKEN: &str = "200 shop http/1.1 false 1";

/// Puts a file in its place at once, as tools that rotate certificates do.
fn put(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join("next"), text).expect("the folder takes files");
    fs::rename(folder.join("next"), folder.join(name)).expect("a rename");
}

/// Waits until a configuration that is applied again tells this, and nothing else.
#[track_caller]
fn told(apply: &dyn Fn() -> Vec<String>, part: &str) {
    testkit::wait::until(part, SEEN_MAX, || {
        let problems = apply();
        (problems.len() == 1 && problems[0].contains(part)).then_some(())
    });
}

/// Waits until requests are answered with this status.
#[track_caller]
fn becomes(rig: &Rig, status: u16) {
    testkit::wait::until(&format!("the answer {status}"), SEEN_MAX, || {
        let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
        (answer.status == status).then_some(())
    });
}

#[test]
fn a_file_that_comes_late_is_taken_into_use() {
    let ca = Ca::new();
    let served = Served::start(&ca.sign("shop"), None);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let context = format!(
        "{{ name: c, cacert_chain_file: '{}', crl_file: '{}' }}",
        path("ca"),
        path("crl"),
    );
    let rig = Rig::start("routes: []");
    let apply = || apply(&rig, "shop, tls: c", served.address, &context, &[]);
    let problems = apply();
    assert!(
        problems.len() == 1
            && problems[0].contains("could not read")
            && problems[0].contains("answers 503 until"),
        "{problems:?}"
    );
    let refused = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("x-nuncio-reason"), ["unserved"]);
    let refused = rig.ask(
        "POST / HTTP/1.1\nhost: a\ncontent-type: application/grpc",
        "",
    );
    assert_eq!(
        (refused.status, refused.header("grpc-status")),
        (200, vec!["14"])
    );
    assert_eq!(refused.header("x-nuncio-reason"), ["unserved"]);

    // One is there and is no certificate, the other one is missing.
    put(folder.path(), "ca", "nonsense");
    put(folder.path(), "crl", &ca.revoke(&[]));
    told(&apply, "no certificate in the CA");
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    put(folder.path(), "ca", &ca.pem());
    becomes(&rig, 200);
    check(&rig, TAKEN);
    // The same configuration again tells nothing of what was.
    assert_eq!(apply(), [""; 0]);
    check(&rig, TAKEN);
}

#[test]
fn a_changed_file_counts_for_new_connections_and_breaks_no_request() {
    let (first, second) = (Ca::new(), Ca::new());
    let served = Served::start(&first.sign("shop"), None);
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "ca", &first.pem());
    let file = folder.path().join("ca");
    let context = format!("{{ name: c, cacert_chain_file: '{}' }}", file.display());
    // The request under way takes as long as the machine needs.
    let service = "shop, tls: c, timeout_ms: 0, idle_timeout_ms: 0";
    let rig = rig(service, served.address, &context, &[]);
    let mut client = rig.connect();
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nha");
    testkit::wait::until("the request to be under way", SEEN_MAX, || {
        (served.handshakes.load(Relaxed) == 1).then_some(())
    });
    put(folder.path(), "ca", &second.pem());
    becomes(&rig, 503);
    client.send("lf");
    assert_eq!(client.take_response().status, 200);
    // A file that is gone changes nothing.
    put(folder.path(), "ca", &first.pem());
    becomes(&rig, 200);
    fs::remove_file(&file).expect("a file");
    let handshakes = served.handshakes.load(Relaxed);
    let again = || apply(&rig, service, served.address, &context, &[]);
    told(&again, "stay in use");
    check(&rig, TAKEN);
    // What is back as it was costs no connection.
    put(folder.path(), "ca", &first.pem());
    testkit::wait::until("the file", SEEN_MAX, || again().is_empty().then_some(()));
    check(&rig, TAKEN);
    let others = served.handshakes.load(Relaxed) - handshakes;
    // The gateway's two cores have a connection each.
    assert!(others <= 1, "{others} more handshakes");
}

#[test]
fn a_certificate_and_its_key_change_together() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let served = Served::start(&self_signed("shop"), Some(&ours));
    let (good, bad) = (ours.sign("gateway"), theirs.sign("gateway"));
    let folder = tempfile::tempdir().expect("a folder");
    put(folder.path(), "chain", &bad.chain);
    put(folder.path(), "key", &bad.key);
    let context = format!(
        "{{ name: c, cert_chain_file: '{0}/chain', private_key_file: '{0}/key' }}",
        folder.path().display()
    );
    let rig = rig("shop, tls: c", served.address, &context, &[]);
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
    // With a key that is not its own the certificate is not used.
    put(folder.path(), "chain", &good.chain);
    let again = || apply(&rig, "shop, tls: c", served.address, &context, &[]);
    told(&again, "stay in use");
    put(folder.path(), "key", &good.key);
    becomes(&rig, 200);
    check(&rig, "200 shop http/1.1 true 1");
}
