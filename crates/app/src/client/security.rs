//! How a command proves who it is and whom it believes: options of the command line, or a Kafka client's properties file.

mod properties;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use krafka::auth::{AuthConfig, TlsConfig};

use self::properties::Properties;

/// What is said about security; the command line goes before the properties file.
#[derive(clap::Args, Default)]
pub(crate) struct Security {
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; what the other options need when nothing is said.
    #[arg(long, global = true, env = "KAFKA_SECURITY_PROTOCOL")]
    security_protocol: Option<String>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; SCRAM-SHA-512 when nothing is said.
    #[arg(long, global = true, env = "KAFKA_SASL_MECHANISM")]
    sasl_mechanism: Option<String>,
    /// Who you are.
    #[arg(long, global = true, env = "KAFKA_SASL_USERNAME")]
    user: Option<String>,
    /// File with the user's password; else the variable KAFKA_SASL_PASSWORD is asked.
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// File with the CAs that are believed, as PEM; the public ones when nothing is said.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KAFKA_SSL_CA_LOCATION"
    )]
    ca: Option<PathBuf>,
    /// File with the certificate that is shown to the broker, as PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "private_key",
        env = "KAFKA_SSL_CERTIFICATE_LOCATION"
    )]
    certificate: Option<PathBuf>,
    /// File with the certificate's key, as PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "certificate",
        env = "KAFKA_SSL_KEY_LOCATION"
    )]
    private_key: Option<PathBuf>,
    /// A properties file of Kafka's Java clients or of librdkafka.
    #[arg(long, global = true, value_name = "FILE")]
    properties: Option<PathBuf>,
}

/// What a command knows about the broker's security, from all sources.
#[derive(Debug, Default)]
struct Known {
    protocol: Option<String>,
    mechanism: Option<String>,
    user: Option<String>,
    password: Option<String>,
    ca: Option<Vec<u8>>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    believes_all: bool,
}

/// How to connect.
pub(super) struct Secured {
    pub(super) auth: AuthConfig,
    /// Where, when a properties file says it.
    pub(super) bootstrap: Option<String>,
}

impl Security {
    /// Reads the files that are named.
    pub(super) fn read(&self) -> anyhow::Result<Secured> {
        let (mut known, bootstrap) = match &self.properties {
            None => (Known::default(), None),
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("could not read `{}`", file.display()))?;
                let properties = Properties::read(&text);
                let known = Known::of_properties(&properties)
                    .with_context(|| format!("`{}`", file.display()))?;
                (
                    known,
                    properties.get("bootstrap.servers").map(str::to_owned),
                )
            }
        };
        let set = |known: &mut Option<String>, said: &Option<String>| {
            if said.is_some() {
                known.clone_from(said);
            }
        };
        set(&mut known.protocol, &self.security_protocol);
        set(&mut known.mechanism, &self.sasl_mechanism);
        set(&mut known.user, &self.user);
        if let Some(file) = &self.password_file {
            let text = String::from_utf8(bytes(file)?).context("a password that is not text")?;
            known.password = Some(text.trim_end().to_owned());
        } else if let Ok(password) = std::env::var("KAFKA_SASL_PASSWORD") {
            known.password = Some(password);
        }
        if let Some(file) = &self.ca {
            known.ca = Some(bytes(file)?);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.private_key) {
            known.identity = Some((bytes(certificate)?, bytes(key)?));
        }
        let auth = known.auth()?;
        Ok(Secured { auth, bootstrap })
    }
}

fn bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("could not read `{}`", file.display()))
}

impl Known {
    fn of_properties(properties: &Properties) -> anyhow::Result<Self> {
        let get = |names: &[&str]| {
            let mut found = names.iter().filter_map(|name| properties.get(name));
            found.next().map(str::to_owned)
        };
        let file = |names: &[&str]| get(names).map(|file| bytes(Path::new(&file))).transpose();
        let mut known = Known {
            protocol: get(&["security.protocol"]),
            mechanism: get(&["sasl.mechanism", "sasl.mechanisms"]),
            user: get(&["sasl.username"]),
            password: get(&["sasl.password"]),
            ca: file(&["ssl.ca.location"])?,
            believes_all: get(&["enable.ssl.certificate.verification"]).as_deref() == Some("false"),
            ..Known::default()
        };
        if let Some(login) = properties.get("sasl.jaas.config") {
            known.user = properties::of_jaas(login, "username");
            known.password = properties::of_jaas(login, "password");
        }
        if let Some(pem) = properties.get("ssl.ca.pem") {
            known.ca = Some(pem.into());
        }
        let certificate = file(&["ssl.certificate.location"])?;
        let key = file(&["ssl.key.location"])?;
        known.identity = certificate.zip(key);
        known.stores(properties)?;
        if properties.get("ssl.endpoint.identification.algorithm") == Some("") {
            bail!(
                "a broker whose name is not checked: leave `ssl.endpoint.identification.algorithm` out"
            );
        }
        Ok(known)
    }

    /// Takes the stores of Java's clients, where they are PEM.
    fn stores(&mut self, properties: &Properties) -> anyhow::Result<()> {
        let pem = |kind: &str| -> anyhow::Result<Option<Vec<u8>>> {
            let Some(place) = properties.get(&format!("ssl.{kind}.location")) else {
                return Ok(None);
            };
            match properties.get(&format!("ssl.{kind}.type")) {
                Some(kind) if kind.eq_ignore_ascii_case("PEM") => bytes(Path::new(place)).map(Some),
                other => bail!(
                    "`{place}` is a store of type {}, only PEM can be read; `keytool -exportcert -rfc` and `openssl pkcs12` \
                     make PEM of it",
                    other.unwrap_or("JKS")
                ),
            }
        };
        let inline = |name: &str| properties.get(name).map(|text| text.as_bytes().to_vec());
        if let Some(trusted) = pem("truststore")?.or(inline("ssl.truststore.certificates")) {
            self.ca = Some(trusted);
        }
        // One file holds both.
        let store = pem("keystore")?;
        let chain = store.clone().or(inline("ssl.keystore.certificate.chain"));
        let key = store.or(inline("ssl.keystore.key"));
        if let Some(identity) = chain.zip(key) {
            self.identity = Some(identity);
        }
        if self.identity.is_some()
            && (properties.get("ssl.key.password").is_some()
                || properties.get("ssl.keystore.password").is_some())
        {
            bail!("keys with a password cannot be read; `openssl pkey` takes it off");
        }
        Ok(())
    }

    fn auth(self) -> anyhow::Result<AuthConfig> {
        let says_tls = self.ca.is_some() || self.identity.is_some() || self.believes_all;
        let (sasl, tls) = match self.protocol.as_deref().map(str::to_uppercase).as_deref() {
            None => (self.user.is_some(), says_tls),
            Some("PLAINTEXT") => (false, false),
            Some("SSL") => (false, true),
            Some("SASL_PLAINTEXT") => (true, false),
            Some("SASL_SSL") => (true, true),
            Some(other) => bail!(
                "`{other}` is no security protocol; write PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
            ),
        };
        let auth = match sasl {
            false => AuthConfig::plaintext(),
            true => {
                let user = self.user.context("SASL needs `--user`")?;
                let password = self.password.context(
                    "SASL needs a password: `--password-file`, or the variable KAFKA_SASL_PASSWORD",
                )?;
                match self.mechanism.as_deref().unwrap_or("SCRAM-SHA-512") {
                    "PLAIN" => AuthConfig::sasl_plain(user, password),
                    "SCRAM-SHA-256" => AuthConfig::sasl_scram_sha256(user, password),
                    "SCRAM-SHA-512" => AuthConfig::sasl_scram_sha512(user, password),
                    other => bail!(
                        "mechanism `{other}` is not spoken; write PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
                    ),
                }
            }
        };
        if !tls {
            return Ok(auth);
        }
        let mut config = match self.believes_all {
            true => TlsConfig::insecure(),
            false => TlsConfig::new(),
        };
        if let Some(ca) = self.ca {
            config = config.with_ca_cert_pem(ca);
        }
        if let Some((chain, key)) = self.identity {
            config = config.with_client_cert_pem(chain, key);
        }
        Ok(auth.with_tls(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> anyhow::Result<AuthConfig> {
        Known::of_properties(&Properties::read(text))?.auth()
    }

    #[test]
    fn properties_of_java_and_of_librdkafka_mean_the_same() {
        let java = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n\
            sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n  username=\"alice\" password=\"s;e\\\"same\";\n";
        let librdkafka = "security.protocol=sasl_plaintext\nsasl.mechanisms=SCRAM-SHA-256\nsasl.username=alice\nsasl.password=s;e\"same\n";
        for text in [java, librdkafka] {
            let auth = auth(text).expect("reads");
            assert_eq!(
                auth.sasl_mechanism().map(ToString::to_string).as_deref(),
                Some("SCRAM-SHA-256")
            );
            assert!(!auth.requires_tls());
            assert!(auth.scram_credentials().is_some());
        }
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let refused = |text: &str| auth(text).expect_err("refused").to_string();
        assert!(refused("security.protocol=SASL_SSL").contains("--user"));
        assert!(refused("security.protocol=TLS").contains("SASL_SSL"));
        assert!(refused("ssl.truststore.location=/a.jks").contains("PEM"));
        assert!(
            refused("sasl.username=a\nsasl.password=b\nsasl.mechanism=GSSAPI").contains("PLAIN")
        );
        assert!(
            refused("security.protocol=SSL\nssl.endpoint.identification.algorithm=")
                .contains("name")
        );
    }

    #[test]
    fn without_a_word_there_is_no_security() {
        let auth = Known::default().auth().expect("nothing to refuse");
        assert!(!auth.requires_tls() && !auth.requires_sasl());
        let named = Known {
            user: Some("u".into()),
            password: Some("p".into()),
            ca: Some(Vec::new()),
            ..Known::default()
        };
        let auth = named.auth().expect("nothing to refuse");
        assert!(auth.requires_tls() && auth.requires_sasl());
    }
}
