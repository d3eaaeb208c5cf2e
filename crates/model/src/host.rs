//! Host: a virtual host, which Mappings it takes, and what happens to requests without TLS.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tls_context::{TlsContext, TlsVersion};

/// A virtual host: which names it answers for and which Mappings it takes.
///
/// This is Ambassador's Host. Without any Host a built-in one for `*` takes every Mapping and routes cleartext.
///
/// ```yaml
/// hostname: shop.example.com
/// mappingSelector: { matchLabels: { shop: public } }
/// requestPolicy: { insecure: { action: Route } }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Host {
    /// Instances that take this object; `default` when nothing is said.
    #[serde(
        default,
        rename = "ambassador_id",
        alias = "ambassadorId",
        skip_serializing_if = "Option::is_none"
    )]
    pub ambassador_id: Option<Vec<String>>,

    /// Glob over the authority: `*`, `*.example.com` or `example.*`.
    #[serde(default = "any")]
    pub hostname: String,

    /// Labels that a Mapping must have, all of them; any Mapping whose hostname overlaps when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping_selector: Option<Selector>,

    /// Old spelling of `mappingSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,

    /// The Secret with certificate and key (`tls.crt`, `tls.key`); when it is there, the Host serves TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_secret: Option<SecretRef>,

    /// A TLSContext with the settings for TLS, and with the certificate unless `tlsSecret` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_context: Option<NameRef>,

    /// Settings for TLS, written in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HostTls>,

    /// What happens to requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_policy: Option<RequestPolicy>,

    /// Who issues the certificate, where no other has been given. In Edge Stack a Host without this orders from Let's Encrypt;
    /// here only one that has it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acme_provider: Option<AcmeProvider>,

    /// Developer portal settings of Edge Stack.
    #[serde(
        default,
        rename = "previewUrl",
        skip_serializing_if = "Option::is_none"
    )]
    pub preview_url: Option<serde_json::Value>,
}

fn any() -> String {
    "*".to_owned()
}

impl Host {
    /// Lets a Mapping in that has one of the wanted labels.
    pub(crate) fn loosen(&mut self) {
        let both = [&mut self.mapping_selector, &mut self.selector];
        for selector in both.into_iter().flatten() {
            selector.any = true;
        }
    }

    /// Returns the selector under either of its names.
    pub fn selector(&self) -> Option<&Selector> {
        self.mapping_selector.as_ref().or(self.selector.as_ref())
    }

    /// Returns the field that says that the Host has a certificate.
    pub(crate) fn certificate_path(&self) -> Option<&'static str> {
        let tls = self.tls.as_ref();
        match (&self.tls_secret, &self.tls_context) {
            (Some(_), _) => Some("tlsSecret"),
            (None, Some(_)) => Some("tlsContext"),
            (None, None) => tls
                .and_then(|tls| tls.cert_chain_file.as_ref())
                .map(|_| "tls")
                .or_else(|| self.acme().map(|_| "acmeProvider")),
        }
    }

    /// Returns the hostname as certificates have it: in lower case, without a port.
    pub fn bare_name(&self) -> String {
        let name = match self.hostname.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.hostname,
        };
        name.to_ascii_lowercase()
    }

    /// Returns who issues the certificate, where one can be ordered: for one name, by an authority.
    pub fn acme(&self) -> Option<(&AcmeProvider, &str)> {
        let provider = self.acme_provider.as_ref()?;
        let authority = provider.authority()?;
        is_dns_name(&self.bare_name()).then_some((provider, authority))
    }

    /// Returns the further port for requests without TLS.
    pub fn additional_port(&self) -> Option<u16> {
        let insecure = self.request_policy.as_ref()?.insecure.as_ref()?;
        u16::try_from(insecure.additional_port?).ok()
    }

    /// Returns what happens to requests without TLS.
    pub fn insecure_action(&self) -> InsecureAction {
        let insecure = self
            .request_policy
            .as_ref()
            .and_then(|policy| policy.insecure.as_ref());
        insecure
            .and_then(|insecure| insecure.action)
            .unwrap_or_default()
    }
}

/// Returns whether this is a name that a certificate can be for: neither a glob nor an address.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label) && name.parse::<std::net::IpAddr>().is_err()
}

/// Selects objects by their labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels that must be there with these values, all of them.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,

    /// One of them is enough: `DISABLE_STRICT_LABEL_SELECTORS`, which is said for the whole process and not in the object.
    #[serde(skip)]
    pub any: bool,
}

impl Selector {
    /// Returns whether the wanted labels are there.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.match_labels.iter();
        let there = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        match self.any && !self.match_labels.is_empty() {
            true => wanted.any(there),
            false => wanted.all(there),
        }
    }
}

/// Names a Secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's name.
    pub name: String,

    /// Its namespace; the Host's own when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl SecretRef {
    /// Returns namespace and name of the Secret that an object of this namespace means.
    pub fn key(&self, own_namespace: &str) -> (String, String) {
        let namespace = self.namespace.as_deref().unwrap_or(own_namespace);
        (namespace.to_owned(), self.name.clone())
    }
}

/// Names another object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NameRef {
    /// The object's name.
    pub name: String,
}

/// Settings for TLS, as in a TLSContext.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostTls {
    /// File with the certificate chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_chain_file: Option<String>,

    /// File with the private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_file: Option<String>,

    /// File with an OCSP response in DER, which is stapled to the certificate. Nuncio's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocsp_staple_file: Option<String>,

    /// Secret with the CA for client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<String>,

    /// File with the CA for client certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cacert_chain_file: Option<String>,

    /// Secret with the certificate revocation list, under `crl.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_secret: Option<String>,

    /// File with the certificate revocation list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crl_file: Option<String>,

    /// Whether clients must show a certificate.
    #[serde(default)]
    pub cert_required: bool,

    /// Protocols offered by ALPN, comma-separated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn_protocols: Option<String>,

    /// Oldest TLS version that is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tls_version: Option<TlsVersion>,

    /// Newest TLS version that is spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tls_version: Option<TlsVersion>,

    /// Cipher suites by OpenSSL's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher_suites: Option<Vec<String>>,

    /// Curves by OpenSSL's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecdh_curves: Option<Vec<String>>,

    /// Port whose cleartext requests to the Host are redirected to HTTPS; it is listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_cleartext_from: Option<u16>,

    /// Without effect: a Host originates no TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
}

impl HostTls {
    /// Returns the same as a TLSContext.
    pub fn context(&self) -> TlsContext {
        // Taken apart, so that a new field cannot be forgotten.
        let HostTls {
            cert_chain_file,
            private_key_file,
            ocsp_staple_file,
            ca_secret,
            cacert_chain_file,
            crl_secret,
            crl_file,
            cert_required,
            alpn_protocols,
            min_tls_version,
            max_tls_version,
            cipher_suites,
            ecdh_curves,
            redirect_cleartext_from,
            sni,
        } = self.clone();
        TlsContext {
            cert_chain_file,
            private_key_file,
            ocsp_staple_file,
            ca_secret,
            cacert_chain_file,
            crl_secret,
            crl_file,
            cert_required: Some(cert_required),
            alpn_protocols,
            min_tls_version,
            max_tls_version,
            cipher_suites: cipher_suites.unwrap_or_default(),
            ecdh_curves: ecdh_curves.unwrap_or_default(),
            redirect_cleartext_from,
            sni,
            ..TlsContext::default()
        }
    }
}

/// What happens to requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestPolicy {
    /// What happens to requests without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure: Option<InsecurePolicy>,
}

/// What happens to requests without TLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InsecurePolicy {
    /// Redirect, Route or Reject; Redirect when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<InsecureAction>,

    /// One more port for requests without TLS, which is listened on unless a Listener has it; -1 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_port: Option<i32>,
}

/// What happens to a request without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum InsecureAction {
    /// 301 to `https://` with the same host, path and query, where a Mapping matches.
    #[default]
    Redirect,
    /// The request is routed.
    Route,
    /// 404.
    Reject,
}

/// Who issues certificates by ACME (RFC 8555).
///
/// The account and the certificates are kept in the data folder, under `acme`.
///
/// ```yaml
/// email: operations@example.com
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AcmeProvider {
    /// The address of the authority's directory; Let's Encrypt's when nothing is said. `none` orders nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,

    /// Where the authority writes to the account's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,

    /// Secret with the account's key, in PEM (ECDSA, P-256) under `user.key` or `tls.key`. Without the Secret, a key is made and
    /// kept in the data folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_secret: Option<SecretRef>,

    /// Without effect: the authority finds the account by its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,

    /// How the authority sees that the name is ours: `http-01` by a request to port 80 of the name, `tls-alpn-01` by TLS to its
    /// port 443. When nothing is said HTTP-01 is tried first, and after a failure the two take turns. Nuncio's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<AcmeChallenge>,

    /// The account elsewhere that authorities outside of Let's Encrypt ask for (external account binding). Nuncio's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account: Option<ExternalAccount>,

    /// File with the CA of the authority's own address, in PEM, for authorities inside a company; those that the operating
    /// system trusts when nothing is said. Nuncio's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

impl AcmeProvider {
    /// Returns the address of the authority's directory; nothing when no certificates are ordered.
    pub fn authority(&self) -> Option<&str> {
        match self.authority.as_deref().map(str::trim) {
            None | Some("") => Some(LETS_ENCRYPT),
            Some(none) if none.eq_ignore_ascii_case("none") => None,
            Some(authority) => Some(authority),
        }
    }
}

/// The directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// How an authority sees that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AcmeChallenge {
    /// By a request without TLS (RFC 8555, 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// By a TLS handshake (RFC 8737).
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// An account at the authority that was made elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAccount {
    /// What the authority calls its key.
    pub key_id: String,

    /// Secret with the key, as the authority writes it (base64url), under `hmac`.
    pub key_secret: SecretRef,
}
