//! TLSContext: certificates and rules for TLS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Certificates and rules for TLS: towards services that name it in `tls`, for clients of its `hosts`, and for clients of the
/// Hosts that name it in `tlsContext`.
///
/// This is Ambassador's TLSContext. Several for one name give clients a choice of certificates, for example one with an RSA key
/// and one with an ECDSA key; the rules are those of the Host, or else of the first by name.
///
/// ```yaml
/// ca_secret: internal-ca
/// secret: gateway-client
/// sni: orders.internal
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsContext {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambassador_id: Option<Vec<String>>,

    /// Names that clients ask for and that are answered with this certificate; globs as in a Host's `hostname`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,

    /// Kubernetes Secret with the certificate and its key (`tls.crt`, `tls.key`): `name`, or `name.namespace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,

    /// File with the certificate and those that lead to its root, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_chain_file: Option<String>,

    /// File with the certificate's key, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<String>,

    /// File with the word of the CA that the certificate is not revoked, which is stapled to it: an OCSP response in DER. A
    /// Secret may have it as `tls.ocsp-staple`. Nuncio's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ocsp_staple_file: Option<String>,

    /// Kubernetes Secret with the roots that the other side's certificate must come from (`ca.crt`, or `tls.crt`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,

    /// File with these roots, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cacert_chain_file: Option<String>,

    /// Whether clients must show a certificate of the CA; with a CA and without this they may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_required: Option<bool>,

    /// Kubernetes Secret with the list of certificates that are revoked (`crl.pem`). Of clients' certificates each CA between
    /// them and the root needs a list that is not out of date; services' certificates of which no list speaks pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_secret: Option<String>,

    /// File with this list, as PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crl_file: Option<String>,

    /// Protocols offered to clients inside TLS, with commas between them: `h2`, `http/1.1`; both when nothing is said. Towards
    /// services the one that is spoken is offered, whatever stands here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpn_protocols: Option<String>,

    /// Oldest version of TLS; v1.2 when nothing is said, and nothing older is spoken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_tls_version: Option<TlsVersion>,

    /// Newest version of TLS; v1.3 when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tls_version: Option<TlsVersion>,

    /// Cipher suites of TLS 1.2 by OpenSSL's names, such as `ECDHE-RSA-AES128-GCM-SHA256`; those of TLS 1.3 are not
    /// chosen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,

    /// Groups of the key exchange: X25519MLKEM768, X25519, P-256, P-384.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ecdh_curves: Vec<String>,

    /// Port whose cleartext requests to the context's Hosts are redirected to HTTPS; it is listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_cleartext_from: Option<u16>,

    /// Whether a dot in the name of a Secret stands before its namespace; true when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_namespacing: Option<bool>,

    /// Name that services are asked for; the service's host when nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,

    /// How a service's certificate is verified where no CA is given. Nuncio's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,

    /// Names of which the service's certificate must have one; with a CA of one's own any name will do when nothing is
    /// said. Envoy's; Ambassador has none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verify_subject_alt_names: Vec<String>,
}

/// How a service's certificate is verified where no CA is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Against the roots of the operating system, and its name must be the one asked for.
    System,
    /// Not at all, on purpose.
    None,
}

/// A version of TLS.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum TlsVersion {
    /// TLS 1.0, which is not spoken.
    #[serde(rename = "v1.0")]
    V1_0,
    /// TLS 1.1, which is not spoken.
    #[serde(rename = "v1.1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "v1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "v1.3")]
    V1_3,
}

/// OpenSSL's names of the cipher suites of TLS 1.2 that are spoken, with their standard names.
pub const CIPHER_SUITES: [(&str, &str); 6] = [
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    ),
];

/// Cipher suites that Envoy knows and that are too weak to be spoken here.
pub const WEAK_CIPHER_SUITES: [&str; 8] = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES256-GCM-SHA384",
    "AES256-SHA",
];

/// Protocols that are spoken inside TLS.
pub const PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// Names of the groups of the key exchange, as OpenSSL and the standards have them.
pub const GROUPS: [(&str, &str); 7] = [
    ("X25519MLKEM768", "X25519MLKEM768"),
    ("X25519", "X25519"),
    ("P-256", "secp256r1"),
    ("secp256r1", "secp256r1"),
    ("prime256v1", "secp256r1"),
    ("P-384", "secp384r1"),
    ("secp384r1", "secp384r1"),
];

impl TlsContext {
    /// Returns the cipher suites one by one; `[A|B]` are two that count the same.
    pub fn suites(&self) -> impl Iterator<Item = &str> {
        let split = |text: &'static [char]| move |list| str::split(list, text);
        let lists = self.cipher_suites.iter().map(String::as_str);
        let names = lists.flat_map(split(&['[', ']', '|', ':', ',']));
        names.map(str::trim).filter(|name| !name.is_empty())
    }

    /// Returns the protocols that are offered to clients one by one.
    pub fn protocols(&self) -> impl Iterator<Item = &str> {
        let said = self.alpn_protocols.as_deref();
        let all = said.map_or_else(|| PROTOCOLS.to_vec(), |said| said.split(',').collect());
        all.into_iter()
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// Returns the namespace and the name of a Secret that is written as `secret`.
    pub fn secret_key<'a>(&self, secret: &'a str, own_namespace: &'a str) -> (&'a str, &'a str) {
        match secret.split_once('.') {
            Some((name, namespace)) if self.secret_namespacing != Some(false) => (namespace, name),
            _ => (own_namespace, secret),
        }
    }

    /// Returns whether a service's certificate is verified.
    pub fn verifies(&self) -> bool {
        self.ca_secret.is_some()
            || self.cacert_chain_file.is_some()
            || self.verify == Some(Verify::System)
    }
}
