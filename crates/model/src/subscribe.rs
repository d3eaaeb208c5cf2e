//! Subscribe: records of a topic become HTTP requests to a service.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pushes each record of a topic to a service by HTTP.
///
/// 2xx acknowledges; 408, 425, 429, 5xx and network errors are tried again with back-off; other answers are permanent.
/// Progress is kept in a consumer group.
///
/// ```yaml
/// topic: orders.placed
/// service: mailer
/// path: /on-order
/// order_by: key
/// retry: { attempts_max: 10, backoff_min: 200ms, backoff_max: 30s }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscribe {
    /// The topic.
    pub topic: String,

    /// Where the records go: `[scheme://]host[.namespace][:port]`, as in a Mapping.
    pub service: String,

    /// TLSContext for TLS towards the service, which is spoken with `https://` too. Where it has no CA, or there is none, the
    /// service's certificate must come from a root of the operating system and be for the service's host, unless the
    /// TLSContext says `verify: none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,

    /// Path of the request.
    pub path: String,

    /// Method of the request.
    #[serde(default = "post")]
    pub method: String,

    /// Consumer group that keeps the progress; `nuncio.` and the object's name when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,

    /// Which records wait for each other.
    #[serde(default)]
    pub order_by: OrderBy,

    /// Where a new group begins.
    #[serde(default)]
    pub from: From,

    /// Requests under way at once.
    #[serde(default = "in_flight_max")]
    pub in_flight_max: u32,

    /// How long one try may take.
    #[serde(default = "timeout", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,

    /// When and how often to try again.
    #[serde(default)]
    pub retry: Retry,

    /// Topic for records that cannot be delivered; they are logged, counted and passed over when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

fn in_flight_max() -> u32 {
    16
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

/// Which records wait for each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderBy {
    /// Records of one key go one after the other.
    #[default]
    Key,
    /// Records of one partition go one after the other.
    Partition,
    /// None.
    None,
}

/// Where a new group begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// With the oldest record that is kept.
    #[default]
    Earliest,
    /// With the next record.
    Latest,
}

/// When and how often a delivery is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries in all before the record counts as undeliverable; 0 for no limit.
    #[serde(default = "attempts_max")]
    pub attempts_max: u32,

    /// Wait after the first failure; it doubles with each further one.
    #[serde(default = "backoff_min", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub backoff_min: Duration,

    /// Longest wait between two tries.
    #[serde(default = "backoff_max", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub backoff_max: Duration,
}

fn attempts_max() -> u32 {
    0
}

fn backoff_min() -> Duration {
    Duration::from_millis(200)
}

fn backoff_max() -> Duration {
    Duration::from_secs(30)
}

impl Default for Retry {
    fn default() -> Retry {
        Retry {
            attempts_max: attempts_max(),
            backoff_min: backoff_min(),
            backoff_max: backoff_max(),
        }
    }
}
