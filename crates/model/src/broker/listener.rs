//! The broker's listeners, its users, and what it asks of clients.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls_context::TlsVersion;

/// One address that the broker listens on, what is spoken there, and what it takes on.
///
/// ```yaml
/// name: PUBLIC
/// listen: 0.0.0.0:9093
/// protocol: SASL_SSL
/// advertised: broker.example.com:9093
/// sasl_enabled_mechanisms: [SCRAM-SHA-512]
/// tls: { certificate: /etc/nuncio/broker.crt, key: /etc/nuncio/broker.key }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerListener {
    /// What logs and metrics call it, such as `PUBLIC`; letters, digits, `_` and `-`.
    pub name: String,

    /// Address and port that it listens on, such as `0.0.0.0:9093`.
    pub listen: String,

    /// What is spoken (`listener.security.protocol.map`).
    #[serde(default)]
    pub protocol: SecurityProtocol,

    /// Address told to clients (`advertised.listeners`). When nothing is said it is the one that the client has used: with TLS the name
    /// that it asked for, else the IP address, or a name of the certificate where that is not for the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,

    /// Most connections at a time (`max.connections`), 1 to 1000000.
    #[serde(default = "connections")]
    pub max_connections: u32,

    /// How long a connection may be silent before it is closed (`connections.max.idle.ms`).
    #[serde(default = "idle", with = "kit::human::as_duration")]
    #[schemars(with = "String")]
    pub connections_max_idle: Duration,

    /// Largest request that is taken (`socket.request.max.bytes`), 1KiB to 1GiB.
    #[serde(default = "request_bytes", with = "crate::units::size")]
    #[schemars(with = "String")]
    pub socket_request_max_bytes: u64,

    /// How clients may prove who they are (`sasl.enabled.mechanisms`); both SCRAM mechanisms when nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sasl_enabled_mechanisms: Vec<SaslMechanism>,

    /// After how long a client has to prove again who it is (`connections.max.reauth.ms`), from 1s; never when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(with = "kit::human::as_duration_option")]
    #[schemars(with = "Option<String>")]
    pub connections_max_reauth: Option<Duration>,

    /// Certificate and key, and what is asked of clients' certificates; needed for `SSL` and `SASL_SSL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BrokerTls>,
}

fn connections() -> u32 {
    10_000
}

fn idle() -> Duration {
    Duration::from_mins(10)
}

fn request_bytes() -> u64 {
    100 << 20
}

impl BrokerListener {
    /// Returns how clients may prove who they are.
    pub fn mechanisms(&self) -> Vec<SaslMechanism> {
        match (
            self.protocol.has_sasl(),
            self.sasl_enabled_mechanisms.is_empty(),
        ) {
            (false, _) => Vec::new(),
            (true, true) => vec![SaslMechanism::ScramSha256, SaslMechanism::ScramSha512],
            (true, false) => self.sasl_enabled_mechanisms.clone(),
        }
    }
}

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SecurityProtocol {
    /// Neither TLS nor a proof of who a client is.
    #[default]
    Plaintext,
    /// TLS; a client's certificate, where one is asked for, says who it is.
    Ssl,
    /// SASL without TLS: for networks that nobody else can listen in.
    SaslPlaintext,
    /// SASL within TLS.
    SaslSsl,
}

impl SecurityProtocol {
    /// Returns Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            SecurityProtocol::Plaintext => "PLAINTEXT",
            SecurityProtocol::Ssl => "SSL",
            SecurityProtocol::SaslPlaintext => "SASL_PLAINTEXT",
            SecurityProtocol::SaslSsl => "SASL_SSL",
        }
    }

    /// Returns whether a client must prove by SASL who it is.
    pub fn has_sasl(self) -> bool {
        matches!(
            self,
            SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl
        )
    }

    /// Returns whether it is TLS.
    pub fn has_tls(self) -> bool {
        matches!(self, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl)
    }
}

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// Name and password as they are, of users in the configuration.
    #[serde(rename = "PLAIN")]
    Plain,
    /// A proof that does not tell the password, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// Returns the name that is registered for it.
    pub fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A listener's certificate, and what is asked of those of clients. The files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerTls {
    /// File with the certificate and those between it and its CA, as PEM (`ssl.keystore.location`).
    pub certificate: String,

    /// File with the certificate's key, as PEM without a password.
    pub key: String,

    /// Whether clients have to show a certificate (`ssl.client.auth`). One that is shown makes the client `User:CN=...`, the certificate's
    /// subject, where SASL does not say who it is.
    #[serde(default)]
    pub client_auth: ClientAuth,

    /// File with the CAs that sign clients' certificates, as PEM (`ssl.truststore.location`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<String>,

    /// Lowest version of TLS that is spoken, `v1.2` or `v1.3` (`ssl.enabled.protocols`).
    #[serde(default = "min_version")]
    pub min_version: TlsVersion,
}

fn min_version() -> TlsVersion {
    TlsVersion::V1_2
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    #[default]
    None,
    /// One that they show must be good; without one they are `User:ANONYMOUS`.
    Requested,
    /// They must show a good one.
    Required,
}

/// A user whose password comes from a file or from the environment.
///
/// The password holds for PLAIN, and for SCRAM as long as no other one was stored for the user over the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerUser {
    /// The name by which clients present themselves; the principal is `User:NAME`.
    pub name: String,

    /// File with the password; white space at its end does not count. It is read at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,

    /// Environment variable with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
}

/// What clients may do: rules as those of Apache Kafka (`StandardAuthorizer`), made with its tools and kept by the broker. Publish
/// routes and subscriptions are no clients.
///
/// ```yaml
/// super_users: ["User:admin"]
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerAuthorization {
    /// Who may do everything, as `User:NAME`; for clients' certificates `User:CN=...` (`super.users`).
    pub super_users: Vec<String>,

    /// Whether everybody may do to a resource what no rule speaks of (`allow.everyone.if.no.acl.found`).
    pub allow_everyone_if_no_acl_found: bool,
}
