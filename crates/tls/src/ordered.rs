//! Certificates that are ordered from an authority while we serve: where they are, and what the authority's challenges are
//! answered with. Who orders them puts both here; who answers clients only looks.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

/// What requests of an authority (HTTP-01) begin with; a token follows.
pub const PATH: &str = "/.well-known/acme-challenge/";
/// The protocol that an authority asks for in a handshake (TLS-ALPN-01, RFC 8737).
pub const PROTOCOL: &[u8] = b"acme-tls/1";

/// A folder of certificates that are ordered, and the challenges that are open.
pub struct Ordered {
    folder: PathBuf,
    /// As good as always empty, and then looked at without a lock.
    open: ArcSwap<Open>,
}

/// The challenges that are open.
#[derive(Default, Clone)]
struct Open {
    /// What requests are answered with, by their token.
    requests: HashMap<String, Arc<str>>,
    /// What handshakes are answered with, by the name that they ask for.
    handshakes: HashMap<String, Arc<ServerConfig>>,
}

/// A challenge that is open for as long as this is kept.
pub struct Challenge {
    ordered: Arc<Ordered>,
    key: Key,
}

enum Key {
    Token(String),
    Name(String),
}

impl Ordered {
    /// Keeps certificates in this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Ordered {
            folder: folder.into(),
            open: ArcSwap::default(),
        }
    }

    /// Returns the folder of an authority, by the address of its directory.
    pub fn authority(&self, authority: &str) -> PathBuf {
        let address = authority.trim_start_matches("https://");
        self.folder.join(plain(address))
    }

    /// Returns the file with the key and the certificates for a name.
    pub fn file(&self, authority: &str, name: &str) -> PathBuf {
        self.authority(authority)
            .join(format!("{}.pem", plain(name)))
    }

    /// Returns the folder of all of it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what a request with this token is answered with.
    pub fn answer(&self, token: &str) -> Option<Arc<str>> {
        self.open.load().requests.get(token).cloned()
    }

    /// Returns how an authority that asks for this name is answered.
    pub fn handshake(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.open.load().handshakes.get(name).cloned()
    }

    /// Answers requests with this token from now on.
    pub fn open_request(self: &Arc<Self>, token: &str, answer: &str) -> Challenge {
        self.change(|open| _ = open.requests.insert(token.to_owned(), answer.into()));
        self.challenge(Key::Token(token.to_owned()))
    }

    /// Answers an authority's handshakes for this name with a certificate that was made for it.
    ///
    /// # Errors
    /// When the key cannot be used.
    pub fn open_handshake(
        self: &Arc<Self>,
        name: &str,
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Challenge, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key = provider.key_provider.load_private_key(key)?;
        // It says something critical that only authorities know, so that the usual checks would not let it pass.
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let config = Arc::new(config);
        self.change(|open| _ = open.handshakes.insert(name.to_owned(), config.clone()));
        Ok(self.challenge(Key::Name(name.to_owned())))
    }

    fn challenge(self: &Arc<Self>, key: Key) -> Challenge {
        Challenge {
            ordered: self.clone(),
            key,
        }
    }

    fn change(&self, change: impl Fn(&mut Open)) {
        self.open.rcu(|open| {
            let mut open = Open::clone(open);
            change(&mut open);
            open
        });
    }
}

impl Drop for Challenge {
    fn drop(&mut self) {
        self.ordered.change(|open| match &self.key {
            Key::Token(token) => _ = open.requests.remove(token),
            Key::Name(name) => _ = open.handshakes.remove(name),
        });
    }
}

impl fmt::Debug for Ordered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ordered")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Returns a text as the name of a file: what might mean something to a file system becomes `_`.
pub fn plain(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '@' | '+');
    let mut plain: String = text
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .collect();
    if plain.starts_with('.') {
        plain.insert(0, '_');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_for_as_long_as_it_is_kept() {
        let ordered = Arc::new(Ordered::new("/nowhere"));
        let one = ordered.open_request("one", "one.key");
        let two = ordered.open_request("two", "two.key");
        assert_eq!(ordered.answer("one").as_deref(), Some("one.key"));
        drop(one);
        assert_eq!(ordered.answer("one"), None);
        assert_eq!(ordered.answer("two").as_deref(), Some("two.key"));
        drop(two);
        assert_eq!(ordered.answer("two"), None);
    }

    #[test]
    fn files_lie_in_the_folder_whatever_their_names() {
        let ordered = Ordered::new("/acme");
        let file = |authority, name| ordered.file(authority, name).display().to_string();
        assert_eq!(
            file("https://acme.example:14000/dir", "shop.example"),
            "/acme/acme.example_14000_dir/shop.example.pem"
        );
        assert_eq!(file("https://../..", "../x"), "/acme/_.._../_.._x.pem");
    }
}
