//! Unmodified clients at listeners that ask who they are.

use std::path::Path;
use std::process::{Command, Stdio};

use testkit::lab;

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
