//! Ambassador's own cases (KAT), against the running binary over real sockets.
//!
//! Each case is written as Ambassador's users write it: Kubernetes objects in YAML, one Host `*` with Route unless the case says
//! otherwise. The upstreams answer with what they saw.

mod addresses;
mod balancers;
mod complaints;
mod cors;
mod errors;
mod example;
mod groups;
mod headers;
mod hosts;
mod limits;
mod listeners;
mod matches;
mod metrics;
mod order;
mod paths;
mod redirects;
mod retries;
mod shadows;
mod timeouts;
mod tls;
mod upgrade;
mod v2;
mod weights;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;

use expect_test::Expect;
use serde_json::Value;
use testkit::{
    echo::Echo,
    nuncio::{Nuncio, Setup},
    port,
    raw::{self, Response},
};

/// The Host that most cases have.
const HOST: &str = "Host all: { hostname: '*', requestPolicy: { insecure: { action: Route } } }";

/// A running gateway before upstreams with the names `a`, `b` and `c`.
struct Rig {
    nuncio: Nuncio,
    upstreams: Vec<Echo>,
    /// Where Listeners may listen.
    ports: Vec<SocketAddr>,
}

impl Rig {
    /// Starts with objects in short lines, `Kind name: spec` or `Kind name key=label: spec`, and the usual Host.
    ///
    /// `$a` in a spec is the address of upstream `a`. A Mapping has the hostname `*`, as in Ambassador's tests, unless its spec
    /// has one or says `hostname: null`.
    #[track_caller]
    fn start(objects: &[&str]) -> Rig {
        Self::start_bare(&[&[HOST], objects].concat())
    }

    /// Like [`Rig::start`], without the usual Host.
    #[track_caller]
    fn start_bare(objects: &[&str]) -> Rig {
        let documents: Vec<String> = objects.iter().map(|object| document(object)).collect();
        Self::start_file(&documents.join("\n---\n"), &[])
    }

    /// Starts with a file as a user has written it, and environment variables. `$a` is the address of upstream `a`, `$port1` and
    /// `$port2` are free ports.
    #[track_caller]
    fn start_file(yaml: &str, environment: &[(&str, &str)]) -> Rig {
        let upstreams: Vec<Echo> = ["a", "b", "c"].map(Echo::start).into();
        let ports = vec![port::stable(), port::stable()];
        let mut setup = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
            .argument("--role")
            .argument("gateway");
        for (name, value) in environment {
            setup = setup.environment(name, value);
        }
        let yaml = filled(yaml, &upstreams, &ports);
        let nuncio = setup.file("ambassador.yaml", &yaml).start();
        Rig {
            nuncio,
            upstreams,
            ports,
        }
    }

    /// Writes its file anew while it runs.
    fn write(&self, objects: &[&str]) {
        let documents: Vec<String> = objects.iter().map(|object| document(object)).collect();
        let yaml = filled(&documents.join("\n---\n"), &self.upstreams, &self.ports);
        let folder = self.nuncio.config();
        std::fs::write(folder.join("new"), yaml).expect("a test's folder takes files");
        std::fs::rename(folder.join("new"), folder.join("ambassador.yaml")).expect("the same");
    }

    /// Returns what `nuncio check` says of its configuration: the message and the object of each problem.
    fn told(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_nuncio"))
            .arg("check")
            .arg(self.nuncio.config())
            .output()
            .expect("the binary was built");
        let text = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        let folder = self.nuncio.config();
        let text = text.replace(&*folder.to_string_lossy(), "config");
        let mut told = String::new();
        for problem in text.split("\n\n") {
            // The list of these can only shrink.
            let waits =
                problem.contains("has no effect yet") || problem.contains("` has no effect: ");
            if waits || !problem.contains(" = note: in ") {
                continue;
            }
            for line in problem.lines().map(str::trim) {
                let (sign, rest) = match line.split_once("= ") {
                    Some(("", rest)) => ("  ", rest.trim_start_matches("note: ")),
                    _ => ("", line),
                };
                if sign == "  " || line.starts_with("error") || line.starts_with("warning") {
                    _ = writeln!(told, "{sign}{rest}");
                }
            }
        }
        told
    }

    /// Asks `METHOD [//authority]/path [name=value]...`. Without an authority the host is `ambassador.test`.
    #[track_caller]
    fn ask(&self, request: &str) -> Response {
        self.ask_at(self.nuncio.gateway(), request)
    }

    /// Like [`Rig::ask`], of one of several Listeners.
    #[track_caller]
    fn ask_at(&self, address: SocketAddr, request: &str) -> Response {
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (authority, path) = match target.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').expect("a path")),
            None => ("ambassador.test", target),
        };
        let mut head = format!("{method} {path} HTTP/1.1\nhost: {authority}\n");
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            _ = writeln!(head, "{name}: {value}");
        }
        raw::http(address, &head, "")
    }

    /// Says for each request who answered, and for an upstream which path it saw.
    #[track_caller]
    fn check(&self, requests: &[&str], expected: Expect) {
        self.check_at(self.nuncio.gateway(), requests, expected);
    }

    /// Like [`Rig::check`], of one of several Listeners.
    #[track_caller]
    fn check_at(&self, address: SocketAddr, requests: &[&str], expected: Expect) {
        expected.assert_eq(&self.answers(address, requests));
    }

    #[track_caller]
    fn answers(&self, address: SocketAddr, requests: &[&str]) -> String {
        let mut told = String::new();
        for request in requests {
            let response = self.ask_at(address, request);
            _ = writeln!(told, "{request} -> {}", Seen::of(&response).told());
        }
        told
    }

    /// Counts the answers of each upstream and status.
    #[track_caller]
    fn shares(&self, request: &str, count: usize) -> impl Fn(&str) -> usize + use<> {
        let told: Vec<String> = (0..count)
            .map(|_| {
                let seen = Seen::of(&self.ask(request));
                seen.backend.unwrap_or(seen.status.to_string())
            })
            .collect();
        move |who: &str| told.iter().filter(|told| *told == who).count()
    }
}

/// An answer, and the request as the upstream saw it when there was one.
struct Seen {
    status: u16,
    location: Option<String>,
    backend: Option<String>,
    request: Value,
}

impl Seen {
    fn of(response: &Response) -> Seen {
        let json: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        Seen {
            status: response.status,
            location: response
                .header("location")
                .first()
                .map(|value| value.to_string()),
            backend: json["backend"].as_str().map(str::to_owned),
            request: json["request"].clone(),
        }
    }

    fn told(&self) -> String {
        match (&self.backend, &self.location) {
            (Some(backend), _) => {
                let path = self.request["url"]["path"].as_str().unwrap_or_default();
                format!("{} {backend} {path}", self.status)
            }
            (None, Some(location)) => format!("{} {location}", self.status),
            (None, None) => self.status.to_string(),
        }
    }

    /// What the upstream saw of a header.
    fn header(&self, name: &str) -> Vec<&str> {
        let values = self.request["headers"][name].as_array();
        values
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect()
    }
}

fn filled(yaml: &str, upstreams: &[Echo], ports: &[SocketAddr]) -> String {
    let mut yaml = yaml.to_owned();
    for (name, upstream) in ["$a", "$b", "$c"].iter().zip(upstreams) {
        yaml = yaml.replace(name, &upstream.address().to_string());
    }
    for (name, port) in ["$port1", "$port2"].iter().zip(ports) {
        yaml = yaml.replace(name, &port.port().to_string());
    }
    yaml
}

/// Writes `Kind name [key=label]...: spec` out as an object.
fn document(object: &str) -> String {
    let (head, spec) = object.split_once(": ").expect("`Kind name: spec`");
    let mut words = head.split(' ');
    let (kind, name) = (words.next().unwrap(), words.next().expect("a name"));
    let labels: Vec<String> = words.map(|label| label.replace('=', ": ")).collect();
    let labels = labels.join(", ");
    let said = spec.contains("hostname:") || spec.contains("host:");
    let spec = match (kind, said) {
        ("Mapping", false) => spec.replacen('{', "{ hostname: '*',", 1),
        _ => spec.replace("hostname: null,", ""),
    };
    let body = match kind {
        "Module" => format!("spec: {{ config: {spec} }}"),
        _ => format!("spec: {spec}"),
    };
    format!(
        "apiVersion: getambassador.io/v3alpha1\nkind: {kind}\n\
         metadata: {{ name: {name}, labels: {{ {labels} }} }}\n{body}"
    )
}
