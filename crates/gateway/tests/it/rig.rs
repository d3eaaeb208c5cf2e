//! A gateway on a free port with a configuration in a few lines.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use gateway::backend::Handler;
use gateway::listener::Limits;
use gateway::{Applied, Gateway, Options};
use model::config::Secret;
use model::{Config, Host, Listener, Mapping, Module, Object, Origin, Publish, TlsContext};
use observe::access::AccessLog;
use observe::metrics::Metrics;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use testkit::raw::{Raw, Response};

/// A running gateway.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
}

impl Rig {
    /// Starts a gateway with `routes:`, `publish:` and `module:`.
    #[track_caller]
    pub(crate) fn start(text: &str) -> Rig {
        Self::with(text, Limits::default(), &[])
    }

    #[track_caller]
    pub(crate) fn with(text: &str, limits: Limits, handlers: &[Arc<dyn Handler>]) -> Rig {
        let metrics = Metrics::default();
        let access = AccessLog::off(&metrics);
        Self::observed(text, limits, handlers, metrics, access)
    }

    #[track_caller]
    pub(crate) fn observed(
        text: &str,
        limits: Limits,
        handlers: &[Arc<dyn Handler>],
        metrics: Metrics,
        access: AccessLog,
    ) -> Rig {
        let gateway = Gateway::start(Options {
            addresses: vec![(Ipv4Addr::LOCALHOST, 0).into()],
            threads: 2,
            metrics: metrics.clone(),
            access,
            limits,
            ordered: None,
        })
        .expect("a gateway starts");
        let applied = gateway.apply(&config(text), handlers);
        check_applied(&applied);
        let address = gateway.addresses()[0];
        Rig {
            gateway,
            metrics,
            address,
        }
    }

    /// Swaps the configuration.
    #[track_caller]
    pub(crate) fn apply(&self, text: &str) {
        check_applied(&self.gateway.apply(&config(text), &[]));
    }

    pub(crate) fn connect(&self) -> Raw {
        Raw::connect(self.address)
    }

    /// Sends one request on its own connection: the request line and headers, one a line, and a body.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str, body: &str) -> Response {
        testkit::raw::http(self.address, request, body)
    }

    /// Sends one request whose body is no text.
    #[track_caller]
    pub(crate) fn ask_bytes(&self, request: &str, body: &[u8]) -> Response {
        testkit::raw::http(self.address, request, body)
    }

    /// Returns the value of a metric whose line begins so; 0 when there is none.
    pub(crate) fn metric(&self, beginning: &str) -> f64 {
        let text = self.metrics.encode();
        let line = text.lines().find_map(|line| line.strip_prefix(beginning));
        line.map_or(0.0, |value| {
            value.trim().parse().expect("a metric is a number")
        })
    }
}

#[track_caller]
fn check_applied(applied: &Applied) {
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    assert!(applied.deaf.is_empty(), "{:?}", applied.deaf);
}

/// Reads `routes:`, `hosts:`, `listeners:` and `publish:` (specs, each with a `name` if wanted), `module:`, `secrets:` by
/// their names, and `listener:` for one on a free port behind so many trusted proxies.
pub(crate) fn config(text: &str) -> Config {
    let mut written: BTreeMap<String, Value> =
        serde_saphyr::from_str(text).expect("the test's YAML");
    let module = written
        .remove("module")
        .unwrap_or(Value::Object(Map::new()));
    let listener = written.remove("listener").map(|hops| {
        json!({
            "port": 0, "protocol": "HTTP", "securityModel": "XFP", "l7Depth": hops,
            "hostBinding": { "namespace": { "from": "ALL" } },
        })
    });
    let config = Config {
        hosts: objects::<Host>(written.remove("hosts")),
        listeners: objects::<Listener>(match listener {
            Some(listener) => Some(Value::Array(vec![listener])),
            None => written.remove("listeners"),
        }),
        secrets: secrets(written.remove("secrets")),
        mappings: objects::<Mapping>(written.remove("routes"))
            .into_iter()
            .map(Arc::new)
            .collect(),
        publish: objects::<Publish>(written.remove("publish")),
        tls_contexts: objects::<TlsContext>(written.remove("tls_contexts")),
        module: serde_json::from_value::<Module>(module).expect("the test's module"),
        ..Config::default()
    };
    assert!(written.is_empty(), "nobody reads {:?}", written.keys());
    config
}

/// Reads Secrets of the namespace `default` by their names.
fn secrets(written: Option<Value>) -> BTreeMap<(String, String), Secret> {
    let Some(Value::Object(written)) = written else {
        return BTreeMap::new();
    };
    let one = |(name, values): (String, Value)| {
        let values: BTreeMap<String, String> =
            serde_json::from_value(values).expect("the test's Secret");
        let data = values
            .into_iter()
            .map(|(key, value)| (key, value.into_bytes()));
        let kind = "Opaque".to_owned();
        let secret = Secret {
            kind,
            data: data.collect(),
        };
        (("default".to_owned(), name), secret)
    };
    written.into_iter().map(one).collect()
}

fn objects<T: DeserializeOwned>(written: Option<Value>) -> Vec<Object<T>> {
    let Some(Value::Array(written)) = written else {
        return Vec::new();
    };
    let read = |(index, spec): (usize, Value)| {
        let Value::Object(mut spec) = spec else {
            panic!("a spec is a map")
        };
        let name = spec
            .remove("name")
            .and_then(|name| name.as_str().map(str::to_owned));
        if spec.contains_key("prefix") {
            spec.entry("hostname").or_insert("*".into());
        }
        Object {
            name: name.unwrap_or_else(|| format!("r{index}")),
            namespace: "default".to_owned(),
            labels: BTreeMap::new(),
            origin: Origin::source("test"),
            spec: serde_json::from_value(spec.into()).expect("the test's spec"),
        }
    };
    written.into_iter().enumerate().map(read).collect()
}
