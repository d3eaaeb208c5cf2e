//! Broker: settings of the embedded broker, or the address of a Kafka cluster that takes its place.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use listener::{
    BrokerAuthorization, BrokerListener, BrokerTls, BrokerUser, ClientAuth, SaslMechanism,
    SecurityProtocol,
};
pub use security::BrokerSecurity;
pub use settings::{BOUNDS, Bound, BrokerSettings};

mod listener;
mod security;
mod settings;

/// Settings of the embedded broker, or the address of a Kafka cluster that takes its place.
///
/// ```yaml
/// listen: 0.0.0.0:9092
/// advertised: broker.example.com:9092
/// create_topics: true
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Addresses of an existing Kafka cluster, comma-separated; the embedded broker stays off then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<String>,

    /// What is spoken with that cluster, and who this process is there; plain text and nobody when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<BrokerSecurity>,

    /// Address that the embedded broker listens on; `--kafka`, or `127.0.0.1:9092`, when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,

    /// Address told to clients; the one that the client has used when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,

    /// Listeners in place of `listen` and `advertised`: several, with TLS, with users. `--kafka` overrides the address of the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<BrokerListener>,

    /// Users with passwords from files or the environment. Others are made over the protocol, and kept by the broker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<BrokerUser>,

    /// What clients may do; everything when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<BrokerAuthorization>,

    /// Whether a client's first use of a topic creates it.
    #[serde(default = "yes")]
    pub create_topics: bool,

    /// Partitions of topics created without a number.
    #[serde(default = "one")]
    pub default_partitions: u32,

    /// How long records are kept in topics that do not say it.
    #[serde(default = "retention", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub default_retention: Duration,

    /// Most memory for requests that are not answered yet and for their answers, of all clients together
    /// (`queued.max.request.bytes`), 16MiB to 1TiB. Where it is used up, the broker reads no more from its clients until
    /// there is some again; they see no error. One request may take half of it.
    #[serde(default = "queued_bytes", with = "crate::units::size")]
    #[schemars(with = "String")]
    pub queued_max_request_bytes: u64,

    /// Settings of the embedded broker under Kafka's own names.
    #[serde(default, skip_serializing_if = "BrokerSettings::is_empty")]
    pub settings: Box<BrokerSettings>,
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

fn retention() -> Duration {
    Duration::from_hours(7 * 24)
}

fn queued_bytes() -> u64 {
    512 << 20
}

impl Default for Broker {
    fn default() -> Broker {
        Broker {
            bootstrap: None,
            security: None,
            listen: None,
            advertised: None,
            listeners: Vec::new(),
            users: Vec::new(),
            authorization: None,
            create_topics: yes(),
            default_partitions: one(),
            default_retention: retention(),
            queued_max_request_bytes: queued_bytes(),
            settings: Box::default(),
        }
    }
}
