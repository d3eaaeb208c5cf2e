//! A Nuncio with a port for each way that an authority comes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use testkit::echo::Echo;
use testkit::nuncio::{Nuncio, Setup};
use testkit::pebble::Pebble;
use testkit::tls::Client;
use testkit::{port, raw, wait};

/// Longest wait for a certificate.
pub(super) const ISSUED: Duration = Duration::from_secs(120);

/// Where a Nuncio is to listen, and what is behind it.
pub(super) struct Rig {
    pub(super) http: SocketAddr,
    pub(super) tls: SocketAddr,
    upstream: Echo,
}

impl Rig {
    pub(super) fn new() -> Self {
        Rig {
            http: port::stable(),
            tls: port::stable(),
            upstream: Echo::start("shop"),
        }
    }

    /// Returns the objects that stay the same.
    fn base(&self) -> String {
        let mut text = String::new();
        for (protocol, address) in [("HTTP", self.http), ("HTTPS", self.tls)] {
            let port = address.port();
            _ = write!(
                text,
                "apiVersion: getambassador.io/v3alpha1\nkind: Listener\nmetadata: {{ name: l{port} }}\nspec: {{ port: {port}, protocol: {protocol}, securityModel: XFP, hostBinding: {{ namespace: {{ from: ALL }} }} }}\n---\n"
            );
        }
        let service = self.upstream.address();
        text + &format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: m }}\nspec: {{ hostname: '*', prefix: /, service: '{service}' }}\n"
        )
    }

    /// Returns a configuration with these objects.
    pub(super) fn yaml(&self, objects: &[String]) -> String {
        let mut text = self.base();
        for object in objects {
            _ = write!(text, "---\n{object}\n");
        }
        text
    }

    /// Starts with these objects.
    #[track_caller]
    pub(super) fn start(&self, objects: &[String]) -> Nuncio {
        Setup::new(env!("CARGO_BIN_EXE_nuncio"))
            .argument("--role")
            .argument("gateway")
            .argument("--no-access-log")
            .file("nuncio.yaml", &self.yaml(objects))
            .start()
    }

    /// Waits until clients are shown a certificate of the authority, and returns it.
    #[track_caller]
    pub(super) fn issued(&self, client: &Client, name: &str) -> Vec<u8> {
        wait::until(&format!("the certificate of {name}"), ISSUED, || {
            let (_, saw) = client.look(self.tls, name).ok()?;
            Some(saw.certificate)
        })
    }
}

/// Returns a Host that orders from a Pebble.
pub(super) fn host(pebble: &Pebble, name: &str, more: &str) -> String {
    host_at(
        &pebble.directory(),
        &pebble.own_ca().1.display().to_string(),
        name,
        more,
    )
}

/// Returns a Host that orders from this directory.
pub(super) fn host_at(directory: &str, ca_file: &str, name: &str, more: &str) -> String {
    format!(
        "apiVersion: getambassador.io/v3alpha1\nkind: Host\nmetadata: {{ name: {name} }}\nspec: {{ hostname: {name}, acmeProvider: {{ authority: '{directory}', caFile: '{ca_file}'{more} }} }}"
    )
}

/// Returns everything that it counts.
pub(super) fn metrics(nuncio: &Nuncio) -> String {
    let answer = raw::http(nuncio.admin(), "GET /metrics HTTP/1.1\r\nhost: admin", "");
    String::from_utf8(answer.body).expect("text")
}

/// Returns the first sample of a family about a host.
pub(super) fn value(metrics: &str, family: &str, host: &str) -> Option<String> {
    let start = format!("{family}{{host=\"{host}\"");
    let line = metrics.lines().find(|line| line.starts_with(&start))?;
    line.rsplit(' ').next().map(str::to_owned)
}
