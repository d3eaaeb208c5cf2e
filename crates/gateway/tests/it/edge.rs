//! TLS with clients: who is answered with what, which requests count as secure, and what hostile clients get.

mod clients;
mod hostile;
mod names;
mod requests;
mod rotation;
mod tools;

use std::fmt::Write as _;

use testkit::echo::Echo;
use testkit::raw::{self, Response};
use testkit::tls::{Ca, Client, Identity};

use crate::rig::{self, Rig};

/// Writes Secrets with certificates as YAML.
fn secrets(identities: &[(&str, &Identity)]) -> String {
    let mut text = String::new();
    for (name, identity) in identities {
        let values = [("tls.crt", &*identity.chain), ("tls.key", &*identity.key)];
        secret(&mut text, name, &values);
    }
    text
}

/// Writes one more Secret.
fn secret(text: &mut String, name: &str, values: &[(&str, &str)]) {
    if text.is_empty() {
        text.push_str("secrets:\n");
    }
    _ = writeln!(text, "  {name}:");
    for (key, value) in values {
        _ = writeln!(text, "    {key}: {}", serde_json::Value::from(*value));
    }
}

/// A gateway before one upstream, for Hosts in YAML.
struct Edge {
    rig: Rig,
    echo: Echo,
}

impl Edge {
    #[track_caller]
    fn start(text: &str) -> Edge {
        let echo = Echo::start("a");
        let rig = Rig::start(&Self::filled(&echo, text));
        Edge { rig, echo }
    }

    /// Adds a route for everything, unless there are routes.
    fn filled(echo: &Echo, text: &str) -> String {
        let service = echo.address();
        match text.contains("routes:") {
            true => text.replace("$a", &service.to_string()),
            false => format!("{text}\nroutes: [{{ prefix: /, service: '{service}' }}]\n"),
        }
    }

    /// Applies another configuration and returns what is wrong with it.
    fn apply(&self, text: &str) -> Vec<String> {
        let config = rig::config(&Self::filled(&self.echo, text));
        let applied = self.rig.gateway.apply(&config, &[]);
        let told = applied.problems.iter().map(|problem| {
            let object = problem.object.clone().unwrap_or_default();
            format!("{object} {}: {}", problem.path, problem.what)
        });
        told.collect()
    }

    /// Asks on a connection for a name, with the host of the request.
    #[track_caller]
    fn ask(&self, client: &Client, name: &str, host: &str) -> Response {
        let connected = client.connect(self.rig.address, name);
        let mut raw = connected.expect("hands are shaken");
        raw::ask(&mut raw, &format!("GET /x HTTP/1.1\nhost: {host}"), "")
    }
}

/// Returns the name that a certificate is for.
fn shown(der: &[u8]) -> String {
    let certificate = tls::certificate::Certificate::read(der).expect("a certificate");
    certificate.names.join(" ")
}

fn ca() -> (Ca, Client) {
    let ca = Ca::new();
    let client = Client::new(&ca);
    (ca, client)
}
