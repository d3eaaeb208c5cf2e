//! How a Kafka cluster in place of the embedded broker is reached: what is read from files for it.

use anyhow::{Context, bail};
use krafka::auth::{AuthConfig, TlsConfig};
use model::Broker;
use model::broker::{BrokerSecurity, SaslMechanism};

/// Returns how this process proves itself to the cluster, and whom it believes.
pub(super) fn security(settings: &Broker) -> anyhow::Result<AuthConfig> {
    match &settings.security {
        None => Ok(AuthConfig::plaintext()),
        Some(security) => auth(security).context("broker.security"),
    }
}

fn auth(security: &BrokerSecurity) -> anyhow::Result<AuthConfig> {
    let mut auth = AuthConfig::plaintext();
    if security.protocol.has_sasl() {
        let user = security.username.as_deref().context("no `username`")?;
        let password = password(security)?;
        let mechanism = security.sasl_mechanism;
        auth = match mechanism.unwrap_or(SaslMechanism::ScramSha512) {
            SaslMechanism::Plain => AuthConfig::sasl_plain(user, password),
            SaslMechanism::ScramSha256 => AuthConfig::sasl_scram_sha256(user, password),
            SaslMechanism::ScramSha512 => AuthConfig::sasl_scram_sha512(user, password),
        };
    }
    if !security.protocol.has_tls() {
        return Ok(auth);
    }
    let mut tls = TlsConfig::new();
    if let Some(ca) = &security.ca {
        tls = tls.with_ca_cert_pem(bytes(ca)?);
    }
    if let (Some(certificate), Some(key)) = (&security.certificate, &security.key) {
        tls = tls.with_client_cert_pem(bytes(certificate)?, bytes(key)?);
    }
    Ok(auth.with_tls(tls))
}

fn password(security: &BrokerSecurity) -> anyhow::Result<String> {
    let password = match (&security.password_file, &security.password_env) {
        (Some(file), _) => {
            std::fs::read_to_string(file).with_context(|| format!("could not read `{file}`"))?
        }
        (None, Some(variable)) => std::env::var(variable)
            .with_context(|| format!("variable `{variable}` has no password"))?,
        (None, None) => bail!("no password"),
    };
    match password.trim_end() {
        "" => bail!("the password is empty"),
        password => Ok(password.to_owned()),
    }
}

fn bytes(file: &str) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("could not read `{file}`"))
}
