//! Listeners within TLS.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use testkit::nuncio::{Nuncio, Setup};
use testkit::tls::{Ca, Identity};
use testkit::wait;

use crate::commands::nuncio;

/// Longest time until a changed certificate is shown.
const CHANGED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// SASL says who a client is.
    Users,
    /// Its certificate does.
    Certificates,
}

/// A broker with one listener within TLS, and the files that it needs.
pub(super) struct Encrypted {
    pub(super) nuncio: Nuncio,
    folder: TempDir,
}

impl Encrypted {
    pub(super) fn start(kind: Kind) -> Self {
        Self::start_with(kind, "")
    }

    /// Starts with more settings of the broker.
    pub(super) fn start_with(kind: Kind, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (ca, clients) = (Ca::new(), Ca::new());
        let write = |name: &str, text: &str| {
            fs::write(folder.path().join(name), text).expect("written");
        };
        write("ca.pem", &ca.pem());
        write("clients.pem", &clients.pem());
        let both = |name: &str, identity: &Identity| {
            write(&format!("{name}.pem"), &identity.chain);
            write(&format!("{name}.key"), &identity.key);
            write(
                &format!("{name}.both"),
                &format!("{}{}", identity.key, identity.chain),
            );
        };
        both("broker", &ca.sign("localhost"));
        both("alice", &clients.sign_as("localhost", "alice"));
        let at = folder.path().display();
        let (protocol, asks) = match kind {
            Kind::Users => (
                "protocol: SASL_SSL\n    sasl_enabled_mechanisms: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]",
                String::new(),
            ),
            Kind::Certificates => (
                "protocol: SSL",
                format!(", client_auth: required, client_ca: {at}/clients.pem"),
            ),
        };
        let config = format!(
            "broker:\n  listeners:\n  - name: OUTSIDE\n    listen: 127.0.0.1:0\n    {protocol}\n    \
             tls: {{ certificate: {at}/broker.pem, key: {at}/broker.key{asks} }}\n  \
             users:\n  - {{ name: alice, password_env: ALICE }}\n  - {{ name: carol, password_env: ALICE }}\n\
             {more}topics:\n  orders: {{ partitions: 1 }}\n"
        );
        let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
            .file("nuncio.yaml", &config)
            .environment("ALICE", "open sesame")
            .start();
        Encrypted { nuncio, folder }
    }

    pub(super) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn bootstrap(&self) -> String {
        format!("localhost:{}", self.nuncio.kafka().port())
    }

    /// Returns the properties of a client with a password.
    pub(super) fn properties(&self, mechanism: &str, user: &str, password: &str) -> String {
        let module = match mechanism {
            "PLAIN" => "plain.PlainLoginModule",
            _ => "scram.ScramLoginModule",
        };
        format!(
            "bootstrap.servers={}\nsecurity.protocol=SASL_SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             sasl.mechanism={mechanism}\nsasl.jaas.config=org.apache.kafka.common.security.{module} required \
             username=\"{user}\" password=\"{password}\";\n",
            self.bootstrap(),
            self.file("ca.pem"),
        )
    }

    /// Returns the properties of a client with a certificate.
    pub(super) fn properties_shown(&self) -> String {
        format!(
            "bootstrap.servers={}\nsecurity.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
             ssl.keystore.type=PEM\nssl.keystore.location={}\n",
            self.bootstrap(),
            self.file("ca.pem"),
            self.file("alice.both"),
        )
    }

    /// Runs a command of ours with these properties.
    pub(super) fn command(&self, properties: &str, arguments: &[&str]) -> (bool, String) {
        let file = self.file("client.properties");
        fs::write(&file, properties).expect("written");
        let output = nuncio(&[arguments, &["--properties", &file]].concat(), "");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8_lossy(&told).into_owned();
        (output.status.success(), told)
    }
}

#[test]
fn commands_speak_tls() {
    let users = Encrypted::start(Kind::Users);
    let alice = users.properties("SCRAM-SHA-512", "alice", "open sesame");
    let (done, told) = users.command(&alice, &["topics", "list"]);
    assert!(done && told.contains("orders"), "{told}");
    let wrong = users.properties("PLAIN", "alice", "wrong");
    let (done, told) = users.command(&wrong, &["topics", "list"]);
    assert!(!done && told.contains("no entry at"), "{told}");
    // By options in place of a file.
    let password = users.file("password");
    fs::write(&password, "open sesame\n").expect("written");
    let (at, ca) = (users.bootstrap(), users.file("ca.pem"));
    let options = ["--user", "alice", "--password-file", &password, "--ca", &ca];
    let asked = [&["topics", "list", "-b", &at], &options[..]].concat();
    let output = nuncio(&asked, "");
    assert!(output.status.success(), "{output:?}");

    let certificates = Encrypted::start(Kind::Certificates);
    let shown = certificates.properties_shown();
    let (done, told) = certificates.command(&shown, &["topics", "list"]);
    assert!(done && told.contains("orders"), "{told}");
    // Without a certificate.
    let (at, ca) = (certificates.bootstrap(), certificates.file("ca.pem"));
    let output = nuncio(
        &["topics", "list", "-b", &at, "--ca", &ca, "--timeout", "5s"],
        "",
    );
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn a_changed_certificate_is_shown_without_a_restart() {
    let users = Encrypted::start(Kind::Users);
    let alice = users.properties("SCRAM-SHA-512", "alice", "open sesame");
    let (done, told) = users.command(&alice, &["topics", "list"]);
    assert!(done, "{told}");
    let other = Ca::new();
    let identity = other.sign("localhost");
    fs::write(users.file("broker.key"), &identity.key).expect("written");
    fs::write(users.file("broker.pem"), &identity.chain).expect("written");
    fs::write(users.file("ca.pem"), other.pem()).expect("written");
    wait::until("the other certificate to be shown", CHANGED, || {
        let (done, _) = users.command(&alice, &["topics", "list", "--timeout", "5s"]);
        done.then_some(())
    });
}
