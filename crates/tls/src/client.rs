//! TLS for those who ask.

mod verify;

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::time::Instant;

use crate::keep::Side;
use crate::material::{Material, certificates, store, system_roots};
use verify::{Names, Trustful, Trusting};

/// The rules and certificates for TLS towards services of one TLSContext, or of none.
#[derive(Default)]
pub struct Originator {
    /// Nothing while there was nothing that could be used.
    current: ArcSwapOption<Current>,
    problem: ArcSwapOption<String>,
}

/// What new connections use.
struct Current {
    /// Offering `http/1.1`, and offering `h2`.
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    /// Since when.
    since: Instant,
}

impl Originator {
    /// Returns what is wrong with what is written now; the last good stays in use.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    /// Returns whether there is something to use.
    pub fn is_ready(&self) -> bool {
        self.current.load().is_some()
    }

    /// Returns when the certificates or rules last changed.
    pub fn since(&self) -> Option<Instant> {
        self.current.load().as_ref().map(|current| current.since)
    }

    /// Returns how a new connection speaks TLS.
    ///
    /// # Errors
    /// When there are no certificates yet.
    pub fn config(&self, http2: bool) -> io::Result<Arc<ClientConfig>> {
        let current = self.current.load();
        let current = current.as_ref().ok_or_else(|| match self.problem() {
            Some(problem) => io::Error::other((*problem).clone()),
            None => io::Error::other("there are no certificates yet"),
        })?;
        Ok(match http2 {
            true => current.http2.clone(),
            false => current.http1.clone(),
        })
    }
}

impl Side for Originator {
    const WHOSE: &str = "services";

    fn change(&self, material: &Material) -> Result<(), String> {
        let config = client_config(material)?;
        self.current.store(Some(Arc::new(Current::new(config))));
        Ok(())
    }

    fn lack(&self, problem: Option<String>) {
        self.problem.store(problem.map(Arc::new));
    }

    fn lacks(&self) -> Option<Arc<String>> {
        self.problem()
    }
}

impl Current {
    fn new(config: ClientConfig) -> Self {
        let offering = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Current {
            http1: offering(b"http/1.1"),
            http2: offering(b"h2"),
            since: Instant::now(),
        }
    }
}

/// Makes of it what connections use.
///
/// # Errors
/// What cannot be used.
fn client_config(material: &Material) -> Result<ClientConfig, String> {
    let provider = Arc::new(material.rules.provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&material.rules.protocol_versions())
        .map_err(|error| format!("these versions and cipher suites do not fit: {error}"))?
        .dangerous()
        .with_custom_certificate_verifier(match (&material.roots, material.system) {
            (Some(roots), _) => {
                let roots = certificates(roots, "CA")?;
                Arc::new(trusting(material, roots, &provider)?)
            }
            (None, true) => Arc::new(trusting(material, system_roots()?.to_vec(), &provider)?),
            (None, false) => Arc::new(Trustful(provider)),
        });
    match material.identities.first() {
        None | Some(None) => Ok(builder.with_no_client_auth()),
        Some(Some(identity)) => {
            let chain = certificates(&identity.chain, "certificate")?;
            let key = PrivateKeyDer::from_pem_slice(&identity.key)
                .map_err(|error| format!("the key of the certificate cannot be read: {error}"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("the certificate cannot be used: {error}"))
        }
    }
}

fn trusting(
    material: &Material,
    roots: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Trusting, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(store(&roots)?, provider.clone())
        .with_crls(material.revoked()?)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| format!("the CA cannot be used: {error}"))?;
    let listed = material.names.iter().map(|name| {
        ServerName::try_from(name.clone()).map_err(|_| format!("`{name}` is no name of a server"))
    });
    let names = match (material.names.is_empty(), material.roots.is_some()) {
        (false, _) => Names::Listed(listed.collect::<Result<_, _>>()?),
        (true, true) => Names::Any,
        (true, false) => Names::Asked,
    };
    Ok(Trusting {
        roots: verifier,
        pinned: match material.roots {
            Some(_) => roots,
            None => Vec::new(),
        },
        names,
    })
}
