//! TLS for those who answer.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use model::Config;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm};
use tracing::warn;

use crate::certificate::Certificate;
use crate::keep::Side;
use crate::material::{Context, Identity, Material, Rules, Said, certificates, store};
use crate::staple::Staple;

/// The rules and certificates for TLS with the clients of some names.
#[derive(Default)]
pub struct Terminator {
    /// Nothing while there was nothing that could be used.
    current: ArcSwapOption<Current>,
    problem: ArcSwapOption<String>,
    /// What sessions are continued with, and under which rules they began.
    tickets: Mutex<Option<(Terms, Arc<dyn ProducesTickets>)>>,
}

/// What new connections use.
struct Current {
    config: Arc<ServerConfig>,
    shown: Arc<Choice>,
    terms: Terms,
}

/// Under which rules a session begins, apart from the certificates that are shown.
#[derive(Clone, PartialEq)]
struct Terms {
    rules: Rules,
    required: bool,
    roots: Option<Vec<u8>>,
    revoked: Option<Vec<u8>>,
}

/// One certificate that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What it says.
    pub certificate: Certificate,
    /// The kind of its key: `rsa`, `ecdsa` or `ed25519`.
    pub kind: &'static str,
}

impl Terminator {
    /// Returns what is wrong with what is written now; the last good stays in use.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    /// Returns how a new connection speaks TLS; `None` while there are no certificates yet.
    pub fn config(&self) -> Option<Arc<ServerConfig>> {
        let current = self.current.load();
        current.as_ref().map(|current| current.config.clone())
    }

    /// Returns whether clients must, or may, show a certificate.
    pub fn asks_clients(&self) -> bool {
        let current = self.current.load();
        current
            .as_ref()
            .is_some_and(|current| current.terms.roots.is_some())
    }

    /// Returns whether a connection by these rules is as good as one by the other's.
    pub fn agrees(&self, other: &Terminator) -> bool {
        match (&*self.current.load(), &*other.current.load()) {
            (Some(one), Some(other)) => one.terms == other.terms,
            _ => false,
        }
    }

    /// Returns whether a certificate that is shown is for this name.
    pub fn covers(&self, name: &str) -> bool {
        let current = self.current.load();
        let Some(current) = current.as_ref() else {
            return false;
        };
        let mut keys = current.shown.keys.iter();
        keys.any(|key| key.shown.certificate.covers(name))
    }

    /// Returns the certificates that are shown.
    pub fn shown(&self) -> Vec<Shown> {
        let current = self.current.load();
        let keys = current.iter().flat_map(|current| &current.shown.keys);
        keys.map(|key| key.shown.clone()).collect()
    }

    /// Finds out whether something could be answered with what these contexts say, files included.
    ///
    /// # Errors
    /// What is missing or cannot be used.
    pub fn try_out(config: &Config, contexts: &[Context]) -> Result<(), String> {
        let said = Said {
            contexts: contexts.to_vec(),
        };
        let material = Material::gather(&said, config)?.with_files(&said)?;
        Terminator::default().change(&material)
    }

    /// Returns what sessions are continued with: what was there before, as long as a client that was let in then would be
    /// let in now.
    fn tickets(&self, terms: &Terms) -> Result<Arc<dyn ProducesTickets>, String> {
        let mut kept = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, tickets)) = &*kept
            && before == terms
        {
            return Ok(tickets.clone());
        }
        // Its keys change every six hours, and count for twelve.
        let tickets = Ticketer::new()
            .map_err(|error| format!("there are no keys for session tickets: {error}"))?;
        *kept = Some((terms.clone(), tickets.clone()));
        Ok(tickets)
    }
}

impl Side for Terminator {
    const WHOSE: &str = "clients";

    fn change(&self, material: &Material) -> Result<(), String> {
        let terms = Terms {
            rules: material.rules.clone(),
            required: material.required,
            roots: material.roots.clone(),
            revoked: material.revoked.clone(),
        };
        let provider = Arc::new(material.rules.provider());
        let shown = Arc::new(Choice::new(material, &provider)?);
        let mut config = server_config(material, &provider, shown.clone())?;
        config.ticketer = self.tickets(&terms)?;
        self.current.store(Some(Arc::new(Current {
            config: Arc::new(config),
            shown,
            terms,
        })));
        Ok(())
    }

    fn lack(&self, problem: Option<String>) {
        self.problem.store(problem.map(Arc::new));
    }

    fn lacks(&self) -> Option<Arc<String>> {
        self.problem()
    }
}

fn server_config(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    shown: Arc<Choice>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&material.rules.protocol_versions())
        .map_err(|error| format!("these versions and cipher suites do not fit: {error}"))?;
    let builder = match &material.roots {
        None if material.required => {
            return Err("clients must show a certificate, and there is no CA".to_owned());
        }
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let roots = store(&certificates(roots, "CA")?)?;
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            if material.revoked.is_some() {
                // As in Envoy: with a list, every CA of the chain needs one that is not out of date.
                verifier = verifier
                    .with_crls(material.revoked()?)
                    .enforce_revocation_expiration();
            }
            if !material.required {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| format!("the CA cannot be used: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(shown);
    config.alpn_protocols = material.alpn.clone();
    // Tickets do it without memory for each client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The certificates of some names, of which each client is shown the one that suits it.
struct Choice {
    keys: Vec<Key>,
}

struct Key {
    shown: Shown,
    bare: Arc<CertifiedKey>,
    /// With its staple, and until when that counts.
    stapled: Option<(Arc<CertifiedKey>, Option<i64>)>,
}

impl Choice {
    fn new(material: &Material, provider: &CryptoProvider) -> Result<Self, String> {
        let identities = material.identities.iter().flatten();
        let mut keys: Vec<Key> = identities
            .map(|identity| Key::new(identity, provider))
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err("there is no certificate".to_owned());
        }
        // The quicker keys first, for clients who take both.
        keys.sort_by_key(|key| key.bare.key.algorithm() == SignatureAlgorithm::RSA);
        Ok(Choice { keys })
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let suits = |key: &&Key| key.bare.key.choose_scheme(schemes).is_some();
        let named = |key: &&Key| match hello.server_name() {
            Some(name) => key.shown.certificate.covers(name),
            None => true,
        };
        let mut suitable = self.keys.iter().filter(suits);
        let best = suitable.clone().find(named).or_else(|| suitable.next());
        // One that does not suit makes a better error than none.
        best.or(self.keys.first()).map(Key::now)
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| &key.shown.certificate.subject))
            .finish()
    }
}

impl Key {
    fn new(identity: &Identity, provider: &CryptoProvider) -> Result<Self, String> {
        let chain = certificates(&identity.chain, "certificate")?;
        let certificate = Certificate::read(&chain[0])
            .map_err(|error| format!("the certificate cannot be used: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(&identity.key)
            .map_err(|error| format!("the key of the certificate cannot be read: {error}"))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| format!("the key of the certificate cannot be used: {error}"))?;
        let own = key.public_key();
        if own.is_some_and(|own| own.as_ref() != certificate.key) {
            return Err("the key does not belong to the certificate".to_owned());
        }
        let kind = match key.algorithm() {
            SignatureAlgorithm::RSA => "rsa",
            SignatureAlgorithm::ECDSA => "ecdsa",
            _ => "ed25519",
        };
        let bare = CertifiedKey::new(chain, key);
        let stapled = match &identity.staple {
            None => None,
            Some(der) => stapled(&bare, &certificate, der)?,
        };
        Ok(Key {
            shown: Shown { certificate, kind },
            bare: Arc::new(bare),
            stapled,
        })
    }

    /// Returns what is shown now: a staple that is out of date would do harm.
    fn now(&self) -> Arc<CertifiedKey> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs() as i64);
        match &self.stapled {
            Some((stapled, until)) if until.is_none_or(|until| now < until) => stapled.clone(),
            _ => self.bare.clone(),
        }
    }
}

type Stapled = Option<(Arc<CertifiedKey>, Option<i64>)>;

fn stapled(bare: &CertifiedKey, certificate: &Certificate, der: &[u8]) -> Result<Stapled, String> {
    let staple = Staple::read(der)?;
    if staple.serial != certificate.serial {
        return Err("the OCSP staple is about another certificate".to_owned());
    }
    if !staple.good {
        warn!(subject = %certificate.subject, "the OCSP staple says that the certificate is revoked, it is not stapled");
        return Ok(None);
    }
    let mut key = bare.clone();
    key.ocsp = Some(der.to_vec());
    Ok(Some((Arc::new(key), staple.until)))
}
