//! What services are told of a client's certificate: `x-forwarded-client-cert`, as Envoy writes it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::Module;
use model::module::{ClientCertDetails, ForwardClientCert};
use tls::accept::Peer;

use crate::listener::secured::Secured;

const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What the Module says about it.
#[derive(Debug)]
pub(crate) struct ClientCert {
    forward: ForwardClientCert,
    details: ClientCertDetails,
}

impl ClientCert {
    pub(crate) fn of(module: &Module) -> Self {
        let forward = module.forward_client_cert_details;
        ClientCert {
            forward: forward.unwrap_or(ForwardClientCert::Sanitize),
            details: module
                .set_current_client_cert_details
                .clone()
                .unwrap_or_default(),
        }
    }

    /// Takes off what came, before anything else is taken off, and returns what goes on.
    pub(crate) fn take(
        &self,
        headers: &mut HeaderMap,
        tls: Option<&Secured>,
        trusted: bool,
    ) -> Option<HeaderValue> {
        use ForwardClientCert::*;
        if self.forward == Sanitize {
            // What others say goes with everything else that only trusted proxies may say.
            if trusted {
                headers.remove(XFCC);
            }
            return None;
        }
        let came = came(headers);
        headers.remove(XFCC);
        let secured = tls.and_then(|tls| Some((tls, tls.session.peer.as_deref()?)));
        let (tls, peer) = match (self.forward, secured) {
            (AlwaysForwardOnly, _) => return came,
            (_, None) => return None,
            (ForwardOnly, _) => return came,
            (_, Some(secured)) => secured,
        };
        let ours = self.written(tls, peer);
        let whole = match (self.forward, came) {
            (AppendForward, Some(came)) => [came.as_bytes(), b",", ours.as_bytes()].concat(),
            _ => ours.into_bytes(),
        };
        HeaderValue::from_bytes(&whole).ok()
    }

    /// Puts back what goes on.
    pub(crate) fn put(headers: &mut HeaderMap, told: Option<HeaderValue>) {
        if let Some(told) = told {
            headers.insert(XFCC, told);
        }
    }

    /// Writes the client's certificate down.
    fn written(&self, tls: &Secured, peer: &Peer) -> String {
        let mut parts = Vec::new();
        let shown = tls.chain.terminator.shown();
        if let Some(uri) = shown
            .iter()
            .flat_map(|shown| &shown.certificate.uris)
            .next()
        {
            parts.push(format!("By={}", value(uri)));
        }
        parts.push(format!("Hash={}", peer.hash));
        let ClientCertDetails {
            subject,
            cert,
            chain,
            dns,
            uri,
        } = self.details;
        if cert && let Some(shown) = peer.chain.first() {
            parts.push(format!("Cert=\"{}\"", pem(shown)));
        }
        if chain {
            let all: Vec<String> = peer.chain.iter().map(|one| pem(one)).collect();
            parts.push(format!("Chain=\"{}\"", all.concat()));
        }
        if subject {
            parts.push(format!("Subject=\"{}\"", peer.certificate.subject));
        }
        if uri {
            let uris = peer.certificate.uris.iter();
            parts.extend(uris.map(|uri| format!("URI={}", value(uri))));
        }
        if dns {
            let names = peer.certificate.names.iter();
            parts.extend(names.map(|name| format!("DNS={}", value(name))));
        }
        parts.join(";")
    }
}

/// Returns what came, several lines as one.
fn came(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines: Vec<&[u8]> = headers
        .get_all(XFCC)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    match lines.is_empty() {
        true => None,
        false => HeaderValue::from_bytes(&lines.join(&b","[..])).ok(),
    }
}

/// A value that could be taken for more than one stands in quotes; what no header has is left out.
fn value(text: &str) -> String {
    let plain: String = text
        .chars()
        .filter(|c| c.is_ascii_graphic() || *c == ' ')
        .collect();
    match plain.contains([',', ';', '=', '"', ' ']) {
        true => format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\"")),
        false => plain,
    }
}

/// A certificate as PEM, with what may not stand in a header as `%XX`.
fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = String::with_capacity(text.len() * 5 / 4);
    out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, c) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            out.push_str("%0A");
        }
        match c {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            c => out.push(c),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_be_taken_for_more_than_one() {
        assert_eq!(value("spiffe://a/b"), "spiffe://a/b");
        assert_eq!(
            value("a;Subject=\"root\",b\r\n"),
            "\"a;Subject=\\\"root\\\",b\""
        );
    }

    #[test]
    fn certificates_are_written_as_envoy_does() {
        assert_eq!(
            pem(&[0xfb, 0xff]),
            "-----BEGIN%20CERTIFICATE-----%0A%2B%2F8%3D%0A-----END%20CERTIFICATE-----%0A"
        );
        assert_eq!(pem(&[0; 96]).matches("%0A").count(), 4);
    }
}
