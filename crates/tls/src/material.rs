//! What TLS is made of: the certificates and rules of TLSContexts, their Secrets and their files, as bytes.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::sync::{Arc, OnceLock};

use model::config::Secret;
use model::tls_context::{CIPHER_SUITES, GROUPS, TlsContext, TlsVersion, Verify};
use model::{Config, Object};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{RootCertStore, SupportedProtocolVersion, version};

/// Largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Where a Secret has a staple.
const STAPLE_KEY: &str = "tls.ocsp-staple";

/// What is written for one side of TLS: the first context has the rules, and all of them have certificates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Said {
    pub(crate) contexts: Vec<Context>,
}

/// A TLSContext, be it written as one or elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// What it says.
    pub spec: TlsContext,
    /// The namespace of the Secrets that it names without one.
    pub namespace: String,
    /// Namespace and name of the Secret with the certificate; stronger than what `spec` says.
    pub secret: Option<(String, String)>,
}

impl Context {
    /// Returns what is written in a TLSContext.
    pub fn of(context: &Object<TlsContext>) -> Self {
        Context {
            spec: context.spec.clone(),
            namespace: context.namespace.clone(),
            secret: None,
        }
    }

    /// Returns whether there should be a certificate.
    pub fn names_certificate(&self) -> bool {
        self.secret.is_some() || self.spec.secret.is_some() || self.spec.cert_chain_file.is_some()
    }

    /// Returns whether the certificate that it names is given: in a Secret that is there, or in a file.
    pub fn has_certificate(&self, config: &Config) -> bool {
        matches!(self.own(config), Ok(Some(_))) || self.spec.cert_chain_file.is_some()
    }

    /// Takes the certificate and its key from one file, whatever else it names.
    pub fn take_file(&mut self, file: &str) {
        self.secret = None;
        self.spec.secret = None;
        self.spec.cert_chain_file = Some(file.to_owned());
        self.spec.private_key_file = Some(file.to_owned());
    }

    /// Returns the Secret that is named.
    fn secret<'c>(
        &self,
        name: &Option<String>,
        config: &'c Config,
    ) -> Result<Option<Held<'c>>, String> {
        let Some(name) = name else { return Ok(None) };
        let (namespace, name) = self.spec.secret_key(name, &self.namespace);
        Held::find(namespace, name, config).map(Some)
    }

    /// Returns the Secret with the certificate.
    fn own<'c>(&self, config: &'c Config) -> Result<Option<Held<'c>>, String> {
        match &self.secret {
            Some((namespace, name)) => Held::find(namespace, name, config).map(Some),
            None => self.secret(&self.spec.secret, config),
        }
    }
}

/// Everything that connections are made of, as bytes.
#[derive(Clone, PartialEq)]
pub(crate) struct Material {
    /// By the place of their contexts.
    pub(crate) identities: Vec<Option<Identity>>,
    pub(crate) roots: Option<Vec<u8>>,
    pub(crate) revoked: Option<Vec<u8>>,
    pub(crate) system: bool,
    /// The other side must show a certificate.
    pub(crate) required: bool,
    pub(crate) names: Vec<String>,
    pub(crate) alpn: Vec<Vec<u8>>,
    pub(crate) rules: Rules,
}

/// Which versions and which cryptography are spoken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rules {
    /// Empty means all.
    suites: Vec<&'static str>,
    groups: Vec<&'static str>,
    versions: (Option<TlsVersion>, Option<TlsVersion>),
}

/// A certificate's chain and its key, as PEM, and the word of its CA that it is not revoked, as DER.
#[derive(Clone, PartialEq)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) staple: Option<Vec<u8>>,
}

impl Said {
    /// Returns the context with the rules.
    fn first(&self) -> &Context {
        &self.contexts[0]
    }

    /// Returns whether some of it is in files.
    pub(crate) fn has_files(&self) -> bool {
        let rules = &self.first().spec;
        let certificate = |context: &Context| {
            context.spec.cert_chain_file.is_some() || context.spec.ocsp_staple_file.is_some()
        };
        rules.cacert_chain_file.is_some()
            || rules.crl_file.is_some()
            || self.contexts.iter().any(certificate)
    }
}

impl Material {
    /// Gathers all that is written or in Secrets; what is in files is not read yet.
    ///
    /// # Errors
    /// Which Secret is missing, or what it lacks.
    pub(crate) fn gather(said: &Said, config: &Config) -> Result<Self, String> {
        let identities = said.contexts.iter().map(|context| {
            let Some(secret) = context.own(config)? else {
                return Ok(None);
            };
            Ok::<_, String>(Some(Identity {
                chain: secret.value(&["tls.crt"])?,
                key: secret.value(&["tls.key"])?,
                staple: secret.value(&[STAPLE_KEY]).ok(),
            }))
        });
        let identities = identities.collect::<Result<_, _>>()?;
        let first = said.first();
        let context = &first.spec;
        let roots = first.secret(&context.ca_secret, config)?;
        let roots = roots.map(|secret| secret.value(&["ca.crt", "tls.crt"]));
        let revoked = first.secret(&context.crl_secret, config)?;
        let revoked = revoked.map(|secret| secret.value(&["crl.pem"]));
        Ok(Material {
            identities,
            roots: roots.transpose()?,
            revoked: revoked.transpose()?,
            system: context.verify == Some(Verify::System),
            required: context.cert_required == Some(true),
            names: context.verify_subject_alt_names.clone(),
            alpn: context
                .protocols()
                .map(|name| name.as_bytes().to_vec())
                .collect(),
            rules: Rules::of(context),
        })
    }

    /// Adds what is in the files that count.
    ///
    /// # Errors
    /// Which one cannot be read.
    pub(crate) fn with_files(mut self, said: &Said) -> Result<Self, String> {
        for (identity, context) in self.identities.iter_mut().zip(&said.contexts) {
            let in_secret = context.secret.is_some() || context.spec.secret.is_some();
            let context = &context.spec;
            if !in_secret
                && let (Some(chain), Some(key)) =
                    (&context.cert_chain_file, &context.private_key_file)
            {
                let bytes = read(chain)?;
                *identity = Some(Identity {
                    // One file for both may be replaced between two reads.
                    key: match key == chain {
                        true => bytes.clone(),
                        false => read(key)?,
                    },
                    chain: bytes,
                    staple: None,
                });
            }
            if let (Some(identity), Some(file)) = (identity, &context.ocsp_staple_file) {
                identity.staple = Some(read(file)?);
            }
        }
        let context = &said.first().spec;
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

    /// Returns the lists of what is revoked.
    pub(crate) fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
        let revoked = self.revoked.as_deref().unwrap_or_default();
        let revoked: Vec<_> = CertificateRevocationListDer::pem_slice_iter(revoked)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the list of revoked certificates cannot be read: {error}"))?;
        if revoked.is_empty() && self.revoked.is_some() {
            return Err("there is no list of revoked certificates in what is given as one".into());
        }
        Ok(revoked)
    }
}

impl Rules {
    fn of(context: &TlsContext) -> Self {
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
        Rules {
            suites: suites.collect(),
            groups: groups.collect(),
            versions: (context.min_tls_version, context.max_tls_version),
        }
    }

    pub(crate) fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if !self.suites.is_empty() {
            // Those of TLS 1.3 are not chosen, as in Envoy.
            provider.cipher_suites.retain(|suite| {
                let name = suite.suite().as_str().unwrap_or_default();
                suite.tls13().is_some() || self.suites.contains(&name)
            });
        }
        if !self.groups.is_empty() {
            let place = |group: &&dyn SupportedKxGroup| {
                let name = format!("{:?}", group.name());
                self.groups.iter().position(|wanted| *wanted == name)
            };
            provider.kx_groups.retain(|group| place(group).is_some());
            provider.kx_groups.sort_by_key(place);
        }
        provider
    }

    pub(crate) fn protocol_versions(&self) -> Vec<&'static SupportedProtocolVersion> {
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

/// A Secret and what it is called.
struct Held<'c> {
    secret: &'c Secret,
    named: String,
}

impl<'c> Held<'c> {
    fn find(namespace: &str, name: &str, config: &'c Config) -> Result<Self, String> {
        let found = config.secrets.get(&(namespace.to_owned(), name.to_owned()));
        let named = format!("{name}.{namespace}");
        match found {
            Some(secret) => Ok(Held { secret, named }),
            None => Err(format!("there is no Secret `{named}`")),
        }
    }

    /// Returns the value of the first key that is there.
    fn value(&self, keys: &[&str]) -> Result<Vec<u8>, String> {
        let found = keys.iter().find_map(|key| self.secret.data.get(*key));
        found
            .cloned()
            .ok_or_else(|| format!("the Secret `{}` has no `{}`", self.named, keys[0]))
    }
}

/// Returns a CA's roots, without those that cannot be read.
pub(crate) fn store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    // A root that cannot be read is passed over, as long as there are others.
    let (added, _) = store.add_parsable_certificates(roots.iter().cloned());
    match added {
        0 => Err("there is no usable certificate among the CA's".to_owned()),
        _ => Ok(Arc::new(store)),
    }
}

pub(crate) fn certificates(pem: &[u8], of: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("the {of} cannot be read: {error}"))?;
    match all.is_empty() {
        true => Err(format!("there is no certificate in the {of}")),
        false => Ok(all),
    }
}

/// The roots that the operating system trusts, read once.
pub(crate) fn system_roots() -> Result<&'static [CertificateDer<'static>], String> {
    static ROOTS: OnceLock<Vec<CertificateDer<'static>>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err("the operating system has no roots".to_owned()),
        false => Ok(roots),
    }
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
