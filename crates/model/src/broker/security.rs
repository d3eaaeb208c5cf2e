//! How a Kafka cluster in place of the embedded broker is reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SaslMechanism, SecurityProtocol};

/// What is spoken with the Kafka cluster that `bootstrap` names, and who this process is there. Files and variables are read at the
/// start.
///
/// ```yaml
/// protocol: SASL_SSL
/// ca: /etc/nuncio/kafka-ca.crt
/// sasl_mechanism: SCRAM-SHA-512
/// username: nuncio
/// password_file: /run/secrets/kafka
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BrokerSecurity {
    /// What is spoken (`security.protocol`).
    pub protocol: SecurityProtocol,

    /// File with the CAs that sign the brokers' certificates, as PEM (`ssl.truststore.location`); the public ones when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,

    /// File with the certificate that is shown to brokers that ask for one, and those between it and its CA, as PEM
    /// (`ssl.keystore.location`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,

    /// File with the certificate's key, as PEM without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,

    /// How this process proves who it is (`sasl.mechanism`); `SCRAM-SHA-512` when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl_mechanism: Option<SaslMechanism>,

    /// The name by which it presents itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,

    /// File with the password; white space at its end does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<String>,

    /// Environment variable with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
}
