//! Unmodified clients at listeners that ask who they are.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::lab;

use super::encrypted::{Encrypted, Kind};
use super::start;

fn script(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/secured/scripts");
    folder.join(name).display().to_string()
}

/// Runs a client and returns what it says; it must end well.
#[track_caller]
fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    said
}

#[test]
fn python_clients_prove_who_they_are() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let nuncio = start();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        for client in ["confluent", "kafka-python", "aiokafka"] {
            for (password, expected) in [("open sesame", "read"), ("wrong", "refused")] {
                // It tries again for half a minute and says then that it cannot connect.
                if client == "kafka-python" && expected == "refused" {
                    continue;
                }
                let mut command = Command::new(&python);
                command.arg(script("secured.py"));
                command.args([client, &nuncio.kafka().to_string(), "SASL_PLAINTEXT"]);
                command.args([mechanism, "alice", password]);
                let said = run(command);
                assert_eq!(said.trim(), expected, "{client} {mechanism}");
            }
        }
    }
    lab::say("confluent-kafka, kafka-python and aiokafka: PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512");
}

#[test]
fn python_clients_speak_tls() {
    let Some(python) = lab::or_skip(lab::python()) else {
        return;
    };
    let users = Encrypted::start(Kind::Users);
    let certificates = Encrypted::start(Kind::Certificates);
    for client in ["confluent", "kafka-python", "aiokafka"] {
        let ask = |at: &Encrypted, protocol: &str, identity: bool| {
            let mut command = Command::new(&python);
            command.arg(script("secured.py"));
            // By name: what the broker answers is where the client came from, so that the certificate is good again.
            command.args([
                client,
                &format!("localhost:{}", at.nuncio.kafka().port()),
                protocol,
            ]);
            command.args(["SCRAM-SHA-512", "alice", "open sesame"]);
            command.arg(at.file("ca.pem"));
            if identity {
                command.args([at.file("alice.pem"), at.file("alice.key")]);
            }
            run(command).trim().to_owned()
        };
        assert_eq!(ask(&users, "SASL_SSL", false), "read", "{client}");
        assert_eq!(ask(&certificates, "SSL", true), "read", "{client}");
    }
    lab::say("confluent-kafka, kafka-python and aiokafka: SASL_SSL and SSL with certificates");
}

/// The Java client with its own properties file.
struct Java {
    class_path: String,
    folder: tempfile::TempDir,
}

impl Java {
    fn new() -> Option<Self> {
        let class_path = lab::or_skip(lab::java())?;
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/secured/scripts/Secured.java");
        Some(Java {
            class_path: lab::or_skip(lab::javac(&source, &class_path))?,
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    #[track_caller]
    fn ask(&self, properties: &str, what: &[&str]) -> String {
        let file = self.folder.path().join("client.properties");
        std::fs::write(&file, properties).expect("written");
        let mut command = Command::new("java");
        command.args([
            "-Xmx128m",
            "-XX:+UseSerialGC",
            "-cp",
            &self.class_path,
            "Secured",
        ]);
        command.arg(&file).args(what);
        run(command).trim().to_owned()
    }
}

#[test]
fn the_java_client_and_its_administration() {
    let Some(java) = Java::new() else { return };
    let users = Encrypted::start(Kind::Users);
    let alice = users.properties("SCRAM-SHA-512", "alice", "open sesame");
    assert_eq!(java.ask(&alice, &["trip", "orders"]), "read");
    let wrong = users.properties("SCRAM-SHA-256", "alice", "wrong");
    assert_eq!(
        java.ask(&wrong, &["trip", "orders"]),
        "refused SaslAuthenticationException"
    );
    // The Java client logs in with one login for both mechanisms.
    let plain = users.properties("PLAIN", "alice", "open sesame");
    assert_eq!(java.ask(&plain, &["trip", "orders"]), "read");
    // Users are made, seen, used and forgotten.
    assert_eq!(java.ask(&alice, &["user", "bob", "bread"]), "made");
    let told = java.ask(&alice, &["users"]);
    assert!(told.contains("bob[ SCRAM-SHA-512/8192]"), "{told}");
    let bob = users.properties("SCRAM-SHA-512", "bob", "bread");
    assert_eq!(java.ask(&bob, &["trip", "orders"]), "read");
    assert_eq!(java.ask(&alice, &["forget", "bob"]), "forgotten");
    assert_eq!(
        java.ask(&bob, &["users"]),
        "refused SaslAuthenticationException"
    );

    let certificates = Encrypted::start(Kind::Certificates);
    let shown = certificates.properties_shown();
    assert_eq!(java.ask(&shown, &["trip", "orders"]), "read");
    lab::say("Java client: SASL_SSL with SCRAM and PLAIN, certificates, users");
}

#[test]
fn the_java_client_and_its_rules() {
    let Some(java) = Java::new() else { return };
    let users = Encrypted::start_with(
        Kind::Users,
        "  authorization:\n    super_users: ['User:alice']\n",
    );
    let alice = users.properties("SCRAM-SHA-512", "alice", "open sesame");
    let carol = users.properties("SCRAM-SHA-512", "carol", "open sesame");
    assert_eq!(java.ask(&alice, &["rules"]), "[]");
    assert_eq!(
        java.ask(&carol, &["trip", "orders"]),
        "denied TopicAuthorizationException"
    );
    assert_eq!(
        java.ask(&carol, &["rules"]),
        "denied ClusterAuthorizationException"
    );
    assert_eq!(
        java.ask(&carol, &["clear", "User:alice"]),
        "denied ClusterAuthorizationException"
    );
    for operation in ["READ", "WRITE"] {
        let rule = [
            "allow",
            "User:carol",
            operation,
            "TOPIC",
            "ord",
            "PREFIXED",
            "ALLOW",
        ];
        assert_eq!(java.ask(&alice, &rule), "made");
    }
    assert_eq!(java.ask(&carol, &["trip", "orders"]), "read");
    let rule = [
        "allow",
        "User:carol",
        "WRITE",
        "TOPIC",
        "orders",
        "LITERAL",
        "DENY",
    ];
    assert_eq!(java.ask(&alice, &rule), "made");
    assert_eq!(
        java.ask(&carol, &["trip", "orders"]),
        "denied TopicAuthorizationException"
    );
    let told = java.ask(&alice, &["rules"]);
    for part in [
        "patternType=PREFIXED), entry=(principal=User:carol, host=*, operation=READ, permissionType=ALLOW)",
        "name=orders, patternType=LITERAL), entry=(principal=User:carol, host=*, operation=WRITE, permissionType=DENY)",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert_eq!(java.ask(&alice, &["clear", "User:carol"]), "gone 3");
    assert_eq!(java.ask(&alice, &["rules"]), "[]");
    lab::say("Java client: rules by the AdminClient");
}
