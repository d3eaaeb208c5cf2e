//! Ambassador's own cases (KAT), against the running binary over real sockets.
//!
//! Each case is written as Ambassador's users write it: Kubernetes objects in YAML, one Host `*` with Route unless the case says
//! otherwise. The upstreams answer with what they saw.

mod headers;
mod hosts;
mod limits;
mod matches;
mod paths;
mod redirects;
mod timeouts;
mod upgrade;
mod weights;

use std::fmt::Write as _;

use expect_test::Expect;
use serde_json::Value;
use testkit::{
    echo::Echo,
    nuncio::{Nuncio, Setup},
    raw::{self, Response},
};

/// The Host that most cases have.
const HOST: &str = "Host all: { hostname: '*', requestPolicy: { insecure: { action: Route } } }";

/// A running gateway before upstreams with the names `a`, `b` and `c`.
struct Rig {
    nuncio: Nuncio,
    upstreams: Vec<Echo>,
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
        let upstreams: Vec<Echo> = ["a", "b", "c"].map(Echo::start).into();
        let mut yaml = String::new();
        for object in objects {
            let mut object = object.to_string();
            for (name, upstream) in ["$a", "$b", "$c"].iter().zip(&upstreams) {
                object = object.replace(name, &upstream.address().to_string());
            }
            _ = writeln!(yaml, "---\n{}", document(&object));
        }
        let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
            .file("ambassador.yaml", &yaml)
            .argument("--role")
            .argument("gateway")
            .start();
        Rig { nuncio, upstreams }
    }

    /// Asks `METHOD [//authority]/path [name=value]...`. Without an authority the host is `ambassador.test`.
    #[track_caller]
    fn ask(&self, request: &str) -> Response {
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
        raw::http(self.nuncio.gateway(), &head, "")
    }

    /// Says for each request who answered, and for an upstream which path it saw.
    #[track_caller]
    fn check(&self, requests: &[&str], expected: Expect) {
        let mut told = String::new();
        for request in requests {
            let response = self.ask(request);
            _ = writeln!(told, "{request} -> {}", Seen::of(&response).told());
        }
        expected.assert_eq(&told);
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
