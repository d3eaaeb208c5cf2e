//! Service: a program that `up` builds, starts, watches and stops.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A program of the user's that `nuncio up` builds, starts, watches and stops.
///
/// It finds where to listen in `HOST` and `PORT`, where to keep things in `DATA_DIR`, the broker in
/// `KAFKA_BOOTSTRAP_SERVERS`, the gateway in `NUNCIO_GATEWAY_URL` and each other service in `<NAME>_URL`.
///
/// ```yaml
/// build: ./orders
/// run: node src/app.js
/// health: /healthz
/// env: { LOG_LEVEL: info }
/// needs: [inventory]
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Folder with the Dockerfile, seen from the file that says so; `run` works in it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,

    /// Command line that runs the service as a process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,

    /// Command line that prepares what `run` needs, done once before it, such as a compiler's call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<String>,

    /// Path that answers 2xx when the service is ready; a TCP connection is enough when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,

    /// Port that the service listens on; a free one is picked and told in `PORT` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,

    /// Variables of the service's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,

    /// Services that must be ready before this one starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,

    /// How long the service may take to become ready.
    #[serde(default = "start_timeout", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub start_timeout: Duration,

    /// How long the service may take to end after SIGTERM before it is killed.
    #[serde(default = "stop_timeout", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub stop_timeout: Duration,
}

fn start_timeout() -> Duration {
    Duration::from_secs(60)
}

fn stop_timeout() -> Duration {
    Duration::from_secs(10)
}
