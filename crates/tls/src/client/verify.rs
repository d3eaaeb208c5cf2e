//! How a service's certificate is verified.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

/// What a service must show.
#[derive(Debug)]
pub(super) enum Names {
    /// A certificate for the name that was asked for.
    Asked,
    /// One for any of these names.
    Listed(Vec<ServerName<'static>>),
    /// One for whatever name.
    Any,
}

/// Verifies where a certificate comes from, and whose it is.
#[derive(Debug)]
pub(super) struct Trusting {
    pub(super) roots: Arc<WebPkiServerVerifier>,
    /// Certificates that are trusted as they are, be they roots or not.
    pub(super) pinned: Vec<CertificateDer<'static>>,
    pub(super) names: Names,
}

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify = |name: &ServerName<'_>| {
            self.roots
                .verify_server_cert(certificate, between, name, ocsp, now)
        };
        // The chain is verified before the name, so that a wrong name means a good chain.
        let chain = || match verify(asked) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            // A service that shows the very certificate that the user trusts, as self-signed ones do.
            Err(Error::InvalidCertificate(error))
                if !is_over(&error) && self.pinned.iter().any(|pin| pin == certificate) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            verified => verified,
        };
        match &self.names {
            Names::Any => chain(),
            Names::Asked => verify(asked),
            Names::Listed(names) => {
                let certificate = rustls::server::ParsedCertificate::try_from(certificate)?;
                let mut wrong = None;
                for name in names {
                    match rustls::client::verify_server_name(&certificate, name) {
                        Ok(()) => return chain(),
                        Err(error) => wrong = Some(error),
                    }
                }
                Err(wrong.unwrap_or(CertificateError::NotValidForName.into()))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

/// Returns whether a certificate may be used no more, or not yet, whoever trusts it.
fn is_over(error: &CertificateError) -> bool {
    use CertificateError::*;
    matches!(
        error,
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } | Revoked
    )
}

/// Takes any certificate, whose key the service must have all the same: what Ambassador does without a CA.
#[derive(Debug)]
pub(super) struct Trustful(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Trustful {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
