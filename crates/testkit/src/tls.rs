//! Certificates that tests make themselves, and what clients and servers do with them.

mod client;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

pub use client::{Client, Saw};

/// A CA and what it has signed.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub chain: String,
    /// Its key.
    pub key: String,
    serial: u64,
}

impl Ca {
    /// Returns a new CA.
    #[expect(clippy::new_without_default, reason = "no two are the same")]
    pub fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Two with one name could not be told apart.
        let name = format!("CA {}", COUNT.fetch_add(1, Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Ca(CertifiedIssuer::self_signed(params, key).expect("a CA"))
    }

    /// Signs a certificate for a name or an address, with an ECDSA key.
    pub fn sign(&self, name: &str) -> Identity {
        self.sign_key(name, None, KeyPair::generate().expect("a key"))
    }

    /// Signs a certificate whose subject is `CN=subject`.
    pub fn sign_as(&self, name: &str, subject: &str) -> Identity {
        let key = KeyPair::generate().expect("a key");
        self.sign_key(name, Some(subject), key)
    }

    /// Signs a certificate with an RSA key.
    pub fn sign_rsa(&self, name: &str) -> Identity {
        let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("a key");
        self.sign_key(name, None, key)
    }

    /// Signs a certificate for several names, with an ECDSA key.
    pub fn sign_for(&self, names: &[&str]) -> Identity {
        self.sign_all(names, None, KeyPair::generate().expect("a key"))
    }

    fn sign_key(&self, name: &str, subject: Option<&str>, key: KeyPair) -> Identity {
        self.sign_all(&[name], subject, key)
    }

    fn sign_all(&self, names: &[&str], subject: Option<&str>, key: KeyPair) -> Identity {
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Relaxed);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.serial_number = Some(SerialNumber::from(serial));
        if let Some(subject) = subject {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, subject);
        }
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Returns the list of these certificates as revoked ones, as PEM.
    pub fn revoke(&self, revoked: &[&Identity]) -> String {
        let day = date_time_ymd(2024, 1, 1);
        let revoked = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: SerialNumber::from(identity.serial),
            revocation_time: day,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: day,
            next_update: date_time_ymd(2999, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.0).expect("a list");
        list.pem().expect("a list as PEM")
    }

    /// Returns its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }
}

/// Returns a certificate that nobody else has signed.
pub fn self_signed(name: &str) -> Identity {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    Identity {
        chain: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        serial: 0,
    }
}

impl Identity {
    /// Returns the certificate as DER.
    pub fn der(&self) -> Vec<u8> {
        let own = CertificateDer::from_pem_slice(self.chain.as_bytes());
        own.expect("a certificate").to_vec()
    }

    /// Returns whether this certificate, in DER, is its own.
    pub fn is(&self, der: &[u8]) -> bool {
        self.der() == der
    }

    /// Returns how a server with this certificate speaks TLS; with a CA, clients must show a certificate of it.
    pub fn server(&self, clients: Option<&Ca>) -> ServerConfig {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.0.der().clone()).expect("a root");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        builder.with_single_cert(chain, key).expect("an identity")
    }
}
