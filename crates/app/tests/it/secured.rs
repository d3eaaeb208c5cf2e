//! Listeners that ask who a client is, before the command line and unmodified clients.

mod administration;
mod clients;
mod cluster;
mod encrypted;

use testkit::nuncio::{Nuncio, Setup};

use crate::commands::nuncio;

const CONFIG: &str = "\
broker:
  listeners:
  - name: USERS
    listen: 127.0.0.1:0
    protocol: SASL_PLAINTEXT
    sasl_enabled_mechanisms: [PLAIN, SCRAM-SHA-256, SCRAM-SHA-512]
  - { name: OPEN, listen: '127.0.0.1:0' }
  users:
  - { name: alice, password_env: ALICE }
topics:
  orders: { partitions: 1 }
subscribe:
- { topic: orders, service: '127.0.0.1:9', path: /, group: house }
";

fn start() -> Nuncio {
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("nuncio.yaml", CONFIG)
        .environment("ALICE", "open sesame")
        .start()
}

/// Runs a command as alice, by a properties file with this password.
fn asked(nuncio_: &Nuncio, arguments: &[&str], mechanism: &str, password: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("client.properties");
    let text = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism={mechanism}\nbootstrap.servers={}\n\
         sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"alice\" password=\"{password}\";\n",
        nuncio_.kafka()
    );
    std::fs::write(&file, text).expect("written");
    let properties = file.to_str().expect("text");
    let output = nuncio(&[arguments, &["--properties", properties]].concat(), "");
    let told = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&told).into_owned(),
    )
}

#[test]
fn commands_prove_who_asks() {
    let nuncio_ = start();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let (done, told) = asked(&nuncio_, &["topics", "list"], mechanism, "open sesame");
        assert!(done && told.contains("orders"), "{mechanism}: {told}");
        let (done, told) = asked(&nuncio_, &["topics", "list"], mechanism, "open says me");
        assert!(!done && told.contains("no entry at"), "{mechanism}: {told}");
    }
    // Without a proof.
    let address = nuncio_.kafka().to_string();
    let output = nuncio(&["topics", "list", "-b", &address, "--timeout", "2s"], "");
    assert!(!output.status.success());
    // The other listener asks nobody.
    let log = nuncio_.log();
    let open = log
        .lines()
        .find_map(|line| line.split_once("OPEN PLAINTEXT "));
    let (_, open) = open.expect("its address is told");
    let output = nuncio(&["topics", "list", "-b", open.trim()], "");
    assert!(output.status.success(), "{output:?}");
    assert!(!log.contains("sesame") && !nuncio_.log().contains("says me"));
}

#[test]
fn subscriptions_need_no_password() {
    let nuncio_ = start();
    testkit::wait::until(
        "the subscription to join",
        std::time::Duration::from_secs(60),
        || {
            let (done, told) = asked(
                &nuncio_,
                &["groups", "describe", "house"],
                "SCRAM-SHA-256",
                "open sesame",
            );
            (done && told.contains("Stable")).then_some(())
        },
    );
}
