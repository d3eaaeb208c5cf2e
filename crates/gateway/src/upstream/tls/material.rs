//! What TLS towards a service is made of: the certificates and rules of a TLSContext, its Secrets and its files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::{Arc, OnceLock};

use model::Config;
use model::config::Secret;
use model::tls_context::{CIPHER_SUITES, GROUPS, TlsContext, TlsVersion, Verify};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::verify::{Names, Trustful, Trusting};

/// Largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Everything that connections are made of, as bytes.
#[derive(Clone, PartialEq)]
pub(super) struct Material {
    /// The certificate's chain and its key, as PEM.
    identity: Option<(Vec<u8>, Vec<u8>)>,
    roots: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
    system: bool,
    names: Vec<String>,
    /// Empty means all.
    suites: Vec<&'static str>,
    groups: Vec<&'static str>,
    versions: (Option<TlsVersion>, Option<TlsVersion>),
}

impl Material {
    /// Gathers all that is written or in Secrets; what is in files is not read yet.
    ///
    /// # Errors
    /// Which Secret is missing, or what it lacks.
    pub(super) fn gather(
        context: &TlsContext,
        namespace: &str,
        config: &Config,
    ) -> Result<Self, String> {
        let secret = |name: &Option<String>| -> Result<Option<(&Secret, String)>, String> {
            let Some(name) = name else { return Ok(None) };
            let (namespace, name) = context.secret_key(name, namespace);
            let found = config.secrets.get(&(namespace.to_owned(), name.to_owned()));
            let named = format!("{name}.{namespace}");
            match found {
                Some(secret) => Ok(Some((secret, named))),
                None => Err(format!("there is no Secret `{named}`")),
            }
        };
        let value = |(secret, named): &(&Secret, String), keys: &[&str]| {
            let found = keys.iter().find_map(|key| secret.data.get(*key));
            found
                .cloned()
                .ok_or_else(|| format!("the Secret `{named}` has no `{}`", keys[0]))
        };
        let identity = secret(&context.secret)?
            .map(|secret| {
                Ok::<_, String>((value(&secret, &["tls.crt"])?, value(&secret, &["tls.key"])?))
            })
            .transpose()?;
        let roots = secret(&context.ca_secret)?;
        let roots = roots
            .map(|secret| value(&secret, &["ca.crt", "tls.crt"]))
            .transpose()?;
        let revoked = secret(&context.crl_secret)?;
        let revoked = revoked
            .map(|secret| value(&secret, &["crl.pem"]))
            .transpose()?;
        let suites = context.suites().filter_map(|name| {
            let known = CIPHER_SUITES
                .iter()
                .find(|(openssl, standard)| name == *openssl || name == *standard);
            known.map(|(_, standard)| *standard)
        });
        let groups = context.ecdh_curves.iter().filter_map(|name| {
            let known = GROUPS.iter().find(|(known, _)| name == known);
            known.map(|(_, standard)| *standard)
        });
        Ok(Material {
            identity,
            roots,
            revoked,
            system: context.verify == Some(Verify::System),
            names: context.verify_subject_alt_names.clone(),
            suites: suites.collect(),
            groups: groups.collect(),
            versions: (context.min_tls_version, context.max_tls_version),
        })
    }

    /// Adds what is in the files that count.
    ///
    /// # Errors
    /// Which one cannot be read.
    pub(super) fn with_files(mut self, context: &TlsContext) -> Result<Self, String> {
        if context.secret.is_none()
            && let (Some(chain), Some(key)) = (&context.cert_chain_file, &context.private_key_file)
        {
            self.identity = Some((read(chain)?, read(key)?));
        }
        if context.ca_secret.is_none()
            && let Some(file) = &context.cacert_chain_file
        {
            self.roots = Some(read(file)?);
        }
        if context.crl_secret.is_none()
            && let Some(file) = &context.crl_file
        {
            self.revoked = Some(read(file)?);
        }
        Ok(self)
    }

    /// Makes of it what connections use.
    ///
    /// # Errors
    /// What cannot be used.
    pub(super) fn client_config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(self.provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&self.protocol_versions())
            .map_err(|error| format!("these versions and cipher suites do not fit: {error}"))?
            .dangerous()
            .with_custom_certificate_verifier(match (&self.roots, self.system) {
                (Some(roots), _) => Arc::new(self.trusting(certificates(roots, "CA")?, &provider)?),
                (None, true) => Arc::new(self.trusting(system_roots()?.to_vec(), &provider)?),
                (None, false) => Arc::new(Trustful(provider)),
            });
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => {
                let chain = certificates(chain, "certificate")?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
                    format!("the key of the certificate cannot be read: {error}")
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("the certificate cannot be used: {error}"))
            }
        }
    }

    fn trusting(
        &self,
        roots: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Trusting, String> {
        let mut store = RootCertStore::empty();
        // A root that cannot be read is passed over, as long as there are others.
        let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
        if added == 0 {
            return Err("there is no usable certificate among the CA's".to_owned());
        }
        let revoked = self.revoked.as_deref().unwrap_or_default();
        let revoked: Vec<_> = CertificateRevocationListDer::pem_slice_iter(revoked)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the list of revoked certificates cannot be read: {error}"))?;
        let mut verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
                .with_crls(revoked);
        verifier = verifier.allow_unknown_revocation_status();
        let verifier = verifier
            .build()
            .map_err(|error| format!("the CA cannot be used: {error}"))?;
        let listed = self.names.iter().map(|name| {
            ServerName::try_from(name.clone())
                .map_err(|_| format!("`{name}` is no name of a server"))
        });
        let names = match (self.names.is_empty(), self.roots.is_some()) {
            (false, _) => Names::Listed(listed.collect::<Result<_, _>>()?),
            (true, true) => Names::Any,
            (true, false) => Names::Asked,
        };
        Ok(Trusting {
            roots: verifier,
            pinned: if self.roots.is_some() {
                roots
            } else {
                Vec::new()
            },
            names,
        })
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            // Those of TLS 1.3 are not chosen, as in Envoy.
            provider.cipher_suites.retain(|suite| {
                let name = suite.suite().as_str().unwrap_or_default();
                suite.tls13().is_some() || self.suites.contains(&name)
            });
        }
        if !self.groups.is_empty() {
            let place = |group: &&dyn rustls::crypto::SupportedKxGroup| {
                let name = format!("{:?}", group.name());
                self.groups.iter().position(|wanted| *wanted == name)
            };
            provider.kx_groups.retain(|group| place(group).is_some());
            provider.kx_groups.sort_by_key(place);
        }
        provider
    }

    fn protocol_versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let (oldest, newest) = self.versions;
        let within = |version: TlsVersion| {
            oldest.is_none_or(|oldest| oldest <= version)
                && newest.is_none_or(|newest| version <= newest)
        };
        let all = [
            (TlsVersion::V1_3, &version::TLS13),
            (TlsVersion::V1_2, &version::TLS12),
        ];
        all.into_iter()
            .filter(|(version, _)| within(*version))
            .map(|(_, version)| version)
            .collect()
    }
}

/// Returns whether some of it is in files.
pub(super) fn has_files(context: &TlsContext) -> bool {
    context.cert_chain_file.is_some()
        || context.cacert_chain_file.is_some()
        || context.crl_file.is_some()
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| format!("could not read `{file}`: {error}");
    // A pipe would keep us waiting.
    if !fs::metadata(file).map_err(told)?.is_file() {
        return Err(format!("`{file}` is no file"));
    }
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(told)?;
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(told)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(format!("`{file}` is too large for certificates")),
        false => Ok(bytes),
    }
}

fn certificates(pem: &[u8], of: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the {of} cannot be read: {error}"))?;
    match all.is_empty() {
        true => Err(format!("there is no certificate in the {of}")),
        false => Ok(all),
    }
}

/// The roots that the operating system trusts, read once.
fn system_roots() -> Result<&'static [CertificateDer<'static>], String> {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("the operating system has no roots".to_owned()),
        false => Ok(roots),
    }
}
