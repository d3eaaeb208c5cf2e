//! Routes and subscriptions over a Kafka cluster that asks who one is: another of our processes, and Apache Kafka.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::apache::{Apache, Users};
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};
use testkit::wait;

use super::encrypted::{Encrypted, Kind};

const APACHE_HEAP_MB: u32 = 320;
const PASSWORD: &str = "open sesame";
const LIMIT: Duration = Duration::from_secs(60);

/// Starts a gateway whose topics are elsewhere.
fn gateway(bootstrap: &str, security: &str, password: &str) -> Nuncio {
    let config = format!(
        "broker:\n  bootstrap: {bootstrap}\n  security: {{ {security} }}\n\
         topics:\n  orders: {{ partitions: 1 }}\n\
         publish:\n- {{ route: POST /orders, topic: orders }}\n"
    );
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("nuncio.yaml", &config)
        .environment("BRIDGE", password)
        .argument("--role")
        .argument("gateway")
        .start()
}

/// Publishes a record over HTTP and returns the answer's status line.
fn publish(gateway: &Nuncio) -> String {
    let mut stream = TcpStream::connect(gateway.gateway()).expect("connects");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    let request =
        "POST /orders HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx";
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

fn takes(gateway: &Nuncio) {
    wait::until("a record to be taken", LIMIT, || {
        let status = publish(gateway);
        status.contains(" 20").then_some(())
    });
    assert!(!gateway.log().contains(PASSWORD));
}

#[test]
fn a_cluster_that_asks_within_tls() {
    let users = Encrypted::start(Kind::Users);
    let bootstrap = |at: &Encrypted| format!("localhost:{}", at.nuncio.kafka().port());
    let security = format!(
        "protocol: SASL_SSL, ca: {}, username: alice, password_env: BRIDGE",
        users.file("ca.pem")
    );
    takes(&gateway(&bootstrap(&users), &security, PASSWORD));
    // Who has another password stores nothing, and is told that it is not stored.
    let refused = gateway(&bootstrap(&users), &security, "wrong");
    let status = publish(&refused);
    assert!(status.contains(" 50"), "{status}");

    let certificates = Encrypted::start(Kind::Certificates);
    let security = format!(
        "protocol: SSL, ca: {}, certificate: {}, key: {}",
        certificates.file("ca.pem"),
        certificates.file("alice.pem"),
        certificates.file("alice.key")
    );
    takes(&gateway(&bootstrap(&certificates), &security, PASSWORD));
}

#[test]
fn an_apache_kafka_that_asks() {
    let users = Users {
        names: &["bridge"],
        password: PASSWORD,
    };
    let Some(apache) = lab::or_skip(Apache::start_secured(APACHE_HEAP_MB, &users)) else {
        return;
    };
    let security =
        "protocol: SASL_PLAINTEXT, sasl_mechanism: PLAIN, username: bridge, password_env: BRIDGE";
    let bootstrap = apache.secured_address().to_string();
    takes(&gateway(&bootstrap, security, PASSWORD));
    lab::say("Apache Kafka: records published with SASL");
}
