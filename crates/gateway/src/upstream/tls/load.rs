//! From a TLSContext, its Secrets and its files to what connections use; and the originators that run.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use model::config::Secret;
use model::tls_context::{CIPHER_SUITES, GROUPS, TlsContext, TlsVersion, Verify};
use model::{Config, Object};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::Originator;
use super::verify::{Names, Trustful, Trusting};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Largest file of certificates that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The originators that run, by the namespace and name of their TLSContext; the empty name stands for none.
pub(crate) struct Originators {
    /// Where files are looked at.
    runtime: Handle,
    running: HashMap<(String, String), Running>,
    /// Those whose certificates are in files.
    watched: Arc<Mutex<Vec<Watched>>>,
    watching: bool,
}

struct Running {
    originator: Arc<Originator>,
    material: Material,
    /// Belongs to the configuration that is being built.
    fresh: bool,
    /// Why what is written now could not be used.
    problem: Option<String>,
}

struct Watched {
    originator: Weak<Originator>,
    context: TlsContext,
    material: Material,
}

impl Originators {
    pub(crate) fn new(runtime: Handle) -> Self {
        Originators {
            runtime,
            running: HashMap::new(),
            watched: Arc::default(),
            watching: false,
        }
    }

    /// Begins another configuration.
    pub(crate) fn begin(&mut self) {
        for running in self.running.values_mut() {
            running.fresh = false;
        }
    }

    /// Ends it: what it does not use any more is forgotten.
    pub(crate) fn finish(&mut self) {
        // Routes that were not built again have theirs too.
        self.running
            .retain(|_, running| Arc::strong_count(&running.originator) > 1);
        lock(&self.watched).retain(|watched| watched.originator.strong_count() > 0);
    }

    /// Returns the originator for a TLSContext, or for none; with it, why what is written now could not be used and the
    /// last good stays.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn of(
        &mut self,
        config: &Config,
        context: Option<&Object<TlsContext>>,
    ) -> Result<(Arc<Originator>, Option<String>), String> {
        let key = context.map_or_else(Default::default, |context| {
            (context.namespace.clone(), context.name.clone())
        });
        if let Some(running) = self.running.get(&key)
            && running.fresh
        {
            return Ok((running.originator.clone(), running.problem.clone()));
        }
        let default = TlsContext::default();
        let spec = context.map_or(&default, |context| &context.spec);
        let material = Material::gather(spec, &key.0, config);
        if let Some(running) = self.running.get_mut(&key) {
            running.fresh = true;
            running.problem = None;
            let made = match &material {
                Ok(material) if *material == running.material => {
                    return Ok((running.originator.clone(), None));
                }
                Ok(material) => material.client_config(),
                Err(problem) => Err(problem.clone()),
            };
            match (made, material) {
                (Ok(made), Ok(material)) => {
                    running.originator.change(made);
                    running.material = material.clone();
                    let originator = running.originator.clone();
                    self.watch(&originator, spec, material);
                    return Ok((originator, None));
                }
                (Err(problem), _) | (_, Err(problem)) => {
                    running.problem = Some(problem.clone());
                    return Ok((running.originator.clone(), Some(problem)));
                }
            }
        }
        let material = material?;
        let originator = Arc::new(Originator::new(material.client_config()?));
        self.watch(&originator, spec, material.clone());
        let running = Running {
            originator: originator.clone(),
            material,
            fresh: true,
            problem: None,
        };
        self.running.insert(key, running);
        Ok((originator, None))
    }

    /// Looks at the files of a context from time to time.
    fn watch(&mut self, originator: &Arc<Originator>, context: &TlsContext, material: Material) {
        let mut all = lock(&self.watched);
        all.retain(|watched| watched.originator.as_ptr() != Arc::as_ptr(originator));
        if !has_files(context) {
            return;
        }
        all.push(Watched {
            originator: Arc::downgrade(originator),
            context: context.clone(),
            material,
        });
        drop(all);
        if !std::mem::replace(&mut self.watching, true) {
            self.runtime.spawn(look(Arc::downgrade(&self.watched)));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes changed files into use until nobody has any.
async fn look(all: Weak<Mutex<Vec<Watched>>>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(all) = all.upgrade() else { return };
        let looking =
            tokio::task::spawn_blocking(move || lock(&all).iter_mut().for_each(Watched::look));
        if let Err(error) = looking.await {
            warn!(%error, "could not look at the files of certificates");
        }
    }
}

impl Watched {
    fn look(&mut self) {
        let Some(originator) = self.originator.upgrade() else {
            return;
        };
        // A file that is gone or half written is looked at again later.
        let mut material = self.material.clone();
        if material.read_files(&self.context).is_err() || material == self.material {
            return;
        }
        match material.client_config() {
            Ok(config) => {
                originator.change(config);
                info!("certificates for services have changed");
            }
            Err(error) => warn!(%error, "changed certificates for services cannot be used"),
        }
        self.material = material;
    }
}

fn has_files(context: &TlsContext) -> bool {
    context.cert_chain_file.is_some()
        || context.cacert_chain_file.is_some()
        || context.crl_file.is_some()
}

/// Everything that connections are made of, as bytes.
#[derive(Clone, PartialEq)]
struct Material {
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
    fn gather(context: &TlsContext, namespace: &str, config: &Config) -> Result<Self, String> {
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
        let mut material = Material {
            identity,
            roots,
            revoked,
            system: context.verify == Some(Verify::System),
            names: context.verify_subject_alt_names.clone(),
            suites: suites.collect(),
            groups: groups.collect(),
            versions: (context.min_tls_version, context.max_tls_version),
        };
        material.read_files(context)?;
        Ok(material)
    }

    /// Reads the files that count.
    fn read_files(&mut self, context: &TlsContext) -> Result<(), String> {
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
        Ok(())
    }

    fn client_config(&self) -> Result<ClientConfig, String> {
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

fn read(file: &str) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("could not read `{file}`: {error}");
    if fs::metadata(file).map_err(told)?.len() > FILE_BYTES_MAX {
        return Err(format!("`{file}` is too large for certificates"));
    }
    fs::read(file).map_err(told)
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
