//! SCRAM (RFC 5802, RFC 7677): the client proves that it knows the password, and the broker that it knows the user, and
//! neither says more than that.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::{Mechanism, Refused};

/// Fewest rounds that a password is salted with.
pub(crate) const ITERATIONS_MIN: i32 = 4096;
/// Most of them: they cost the client's time.
pub(crate) const ITERATIONS_MAX: i32 = 16384;
/// How many rounds passwords of the configuration are salted with.
const ITERATIONS: i32 = 8192;

/// Which hash a SCRAM mechanism is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Hash {
    #[serde(rename = "SCRAM-SHA-256")]
    Sha256,
    #[serde(rename = "SCRAM-SHA-512")]
    Sha512,
}

impl Hash {
    pub(crate) const ALL: [Hash; 2] = [Hash::Sha256, Hash::Sha512];

    pub(crate) fn of(mechanism: Mechanism) -> Option<Self> {
        match mechanism {
            Mechanism::Plain => None,
            Mechanism::ScramSha256 => Some(Hash::Sha256),
            Mechanism::ScramSha512 => Some(Hash::Sha512),
        }
    }

    /// Returns the hash that has this number in Kafka's protocol.
    pub(crate) fn from_number(number: i8) -> Option<Self> {
        match number {
            1 => Some(Hash::Sha256),
            2 => Some(Hash::Sha512),
            _ => None,
        }
    }

    pub(crate) fn number(self) -> i8 {
        match self {
            Hash::Sha256 => 1,
            Hash::Sha512 => 2,
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn sign(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        };
        let tag = hmac::sign(&hmac::Key::new(algorithm, key), data);
        tag.as_ref().to_vec()
    }

    fn salted(self, password: &str, salt: &[u8], iterations: NonZeroU32) -> Vec<u8> {
        let (algorithm, length) = match self {
            Hash::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
            Hash::Sha512 => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        };
        let mut out = vec![0; length];
        pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut out);
        out
    }
}

/// What the broker keeps of a password: enough to check a proof, not enough to make one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credential {
    #[serde(with = "text")]
    salt: Vec<u8>,
    #[serde(with = "text")]
    stored_key: Vec<u8>,
    #[serde(with = "text")]
    server_key: Vec<u8>,
    iterations: i32,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} iterations)", self.iterations)
    }
}

/// Bytes in base64.
mod text {
    use base64::Engine as _;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use super::BASE64;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text).map_err(D::Error::custom)
    }
}

impl Credential {
    /// Makes a credential of what a client has salted itself.
    pub(crate) fn of_salted(hash: Hash, salt: &[u8], salted: &[u8], iterations: i32) -> Self {
        let client_key = hash.sign(salted, b"Client Key");
        Self {
            salt: salt.to_vec(),
            stored_key: hash.digest(&client_key),
            server_key: hash.sign(salted, b"Server Key"),
            iterations,
        }
    }

    /// Makes a credential of a password.
    pub(crate) fn of_password(hash: Hash, password: &str, salt: &[u8]) -> Self {
        const ROUNDS: NonZeroU32 = NonZeroU32::new(ITERATIONS as u32).expect("not zero");
        let salted = hash.salted(password, salt, ROUNDS);
        Self::of_salted(hash, salt, &salted, ITERATIONS)
    }

    /// Makes a credential that no proof fits, for a user who does not exist: its salt is always the same, as a real one's is.
    pub(crate) fn of_nobody(hash: Hash, name: &str, secret: &[u8]) -> Self {
        let noise = Hash::Sha512.sign(secret, name.as_bytes());
        Self {
            salt: noise[..16].to_vec(),
            stored_key: hash.sign(secret, &noise),
            server_key: hash.sign(secret, &noise),
            iterations: ITERATIONS_MIN,
        }
    }

    pub(crate) fn iterations(&self) -> i32 {
        self.iterations
    }
}

/// The broker's side of one exchange.
#[derive(Debug)]
pub(crate) enum Scram {
    /// Waits for the client's first message.
    Begin(Hash),
    /// Waits for the proof.
    Challenged(Box<Challenge>),
}

/// What was said so far.
#[derive(Debug)]
pub(crate) struct Challenge {
    hash: Hash,
    name: String,
    credential: Credential,
    known: bool,
    /// What stands before the client's first message, which it repeats.
    binding: String,
    /// The client's and our own part.
    nonce: String,
    client_first: String,
    server_first: String,
}

/// The client's first message: who it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct First<'a> {
    pub name: String,
    binding: &'a str,
    nonce: &'a str,
    bare: &'a str,
}

/// Reads the client's first message.
pub(crate) fn first(message: &[u8]) -> Result<First<'_>, Refused> {
    let text = std::str::from_utf8(message).map_err(|_| Refused::Message("not UTF-8"))?;
    // gs2-header: a flag for channel binding, an optional other name, each with a comma behind.
    let (flag, rest) = text.split_once(',').ok_or(Refused::Message("no header"))?;
    let (other, bare) = rest.split_once(',').ok_or(Refused::Message("no header"))?;
    if !matches!(flag, "n" | "y") {
        return Err(Refused::Message("channel binding is not offered"));
    }
    let mut fields = bare.split(',');
    let name = fields.next().and_then(|field| field.strip_prefix("n="));
    let name = unescape(name.ok_or(Refused::Message("no user name"))?)?;
    let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
    let nonce = nonce
        .filter(|nonce| !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(Refused::Message("no nonce"))?;
    if name.is_empty() {
        return Err(Refused::Message("no user name"));
    }
    if !other.is_empty() {
        let other = other
            .strip_prefix("a=")
            .ok_or(Refused::Message("no header"))?;
        if unescape(other)? != name {
            return Err(Refused::Told(
                "Authentication failed: Client requested an authorization id that is different from username",
            ));
        }
    }
    Ok(First {
        name,
        binding: &text[..text.len() - bare.len()],
        nonce,
        bare,
    })
}

/// Undoes what keeps commas and equal signs out of a name.
fn unescape(name: &str) -> Result<String, Refused> {
    let plain = name.replace("=2C", ",");
    // What is left of equal signs must be their own escape.
    if plain.matches('=').count() != plain.matches("=3D").count() {
        return Err(Refused::Message("a name with a bare `=`"));
    }
    Ok(plain.replace("=3D", "="))
}

/// Answers the first message with salt and nonce. `known` says that the credential is a real one.
pub(crate) fn challenge(
    hash: Hash,
    first: First<'_>,
    credential: Credential,
    known: bool,
    our_nonce: &str,
) -> Challenge {
    let nonce = format!("{}{our_nonce}", first.nonce);
    let salt = BASE64.encode(&credential.salt);
    let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
    Challenge {
        hash,
        name: first.name,
        known,
        binding: first.binding.to_owned(),
        client_first: first.bare.to_owned(),
        nonce,
        server_first,
        credential,
    }
}

impl Challenge {
    /// Returns the message that carries it.
    pub(crate) fn message(&self) -> &str {
        &self.server_first
    }

    /// Checks the proof; returns the user's name and the message that proves the broker.
    pub(crate) fn finish(&self, message: &[u8]) -> Result<(String, String), Refused> {
        let text = std::str::from_utf8(message).map_err(|_| Refused::Message("not UTF-8"))?;
        let (unproven, proof) = text
            .rsplit_once(",p=")
            .ok_or(Refused::Message("no proof"))?;
        let mut fields = unproven.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c="));
        if binding != Some(BASE64.encode(&self.binding).as_str()) {
            return Err(Refused::Message("another header than at first"));
        }
        if fields.next().and_then(|field| field.strip_prefix("r=")) != Some(self.nonce.as_str()) {
            return Err(Refused::Message("another nonce than at first"));
        }
        let proof = BASE64
            .decode(proof)
            .map_err(|_| Refused::Message("no proof"))?;
        let said = format!("{},{},{unproven}", self.client_first, self.server_first);
        let signature = self.hash.sign(&self.credential.stored_key, said.as_bytes());
        if proof.len() != signature.len() {
            return Err(Refused::Message("no proof"));
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let stored_key = self.hash.digest(&client_key);
        let fits = constant_time::verify_slices_are_equal(&stored_key, &self.credential.stored_key);
        if fits.is_err() || !self.known {
            return Err(Refused::Credentials);
        }
        let proof = self.hash.sign(&self.credential.server_key, said.as_bytes());
        Ok((self.name.clone(), format!("v={}", BASE64.encode(proof))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(hash: Hash, credential: Credential, first_message: &str, ours: &str) -> Challenge {
        let first = first(first_message.as_bytes()).expect("a first message");
        challenge(hash, first, credential, true, ours)
    }

    fn salted(hash: Hash, password: &str, salt: &str) -> Credential {
        let salt = BASE64.decode(salt).expect("base64");
        let rounds = NonZeroU32::new(4096).expect("not zero");
        let salted = hash.salted(password, &salt, rounds);
        Credential::of_salted(hash, &salt, &salted, 4096)
    }

    /// The example of RFC 7677, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let challenge = said(
            Hash::Sha256,
            salted(Hash::Sha256, "pencil", "W22ZaJ0SNY7soEsUEjb6gQ=="),
            "n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        );
        assert_eq!(
            challenge.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let (name, proof) = challenge.finish(last.as_bytes()).expect("the proof fits");
        assert_eq!(name, "user");
        assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let wrong = last.replace("dHzb", "dHzc");
        assert_eq!(
            challenge.finish(wrong.as_bytes()),
            Err(Refused::Credentials)
        );
        let other = last.replace("r=rOpr", "r=rOps");
        assert!(challenge.finish(other.as_bytes()).is_err());
        let other = last.replace("c=biws", "c=eSws");
        assert!(challenge.finish(other.as_bytes()).is_err());
    }

    #[test]
    fn nobody_is_never_believed() {
        let real = salted(Hash::Sha512, "p", "c2FsdA==");
        let first = first(b"n,,n=u,r=x").expect("a first message");
        let challenge = challenge(Hash::Sha512, first, real, false, "y");
        // Even with a proof that fits.
        let unproven = format!("c=biws,r={}", challenge.nonce);
        let auth = format!(
            "{},{},{unproven}",
            challenge.client_first, challenge.server_first
        );
        let rounds = NonZeroU32::new(4096).expect("not zero");
        let key = Hash::Sha512.salted("p", b"salt", rounds);
        let client_key = Hash::Sha512.sign(&key, b"Client Key");
        let signature = Hash::Sha512.sign(&Hash::Sha512.digest(&client_key), auth.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(a, b)| a ^ b)
            .collect();
        let last = format!("{unproven},p={}", BASE64.encode(proof));
        assert_eq!(challenge.finish(last.as_bytes()), Err(Refused::Credentials));
        let mut challenge = challenge;
        challenge.known = true;
        assert!(challenge.finish(last.as_bytes()).is_ok());
    }

    #[test]
    fn nobody_looks_like_somebody() {
        let ask = |name| Credential::of_nobody(Hash::Sha256, name, b"secret");
        assert_eq!(ask("a"), ask("a"));
        assert_ne!(ask("a").salt, ask("b").salt);
        assert_eq!(ask("a").stored_key.len(), 32);
    }

    #[test]
    fn first_messages_are_read_with_care() {
        let name = |text: &str| first(text.as_bytes()).map(|first| first.name);
        assert_eq!(name("n,,n=u,r=x"), Ok("u".into()));
        assert_eq!(name("y,,n=u,r=x,tokenauth=false"), Ok("u".into()));
        assert_eq!(name("n,a=u,n=u,r=x"), Ok("u".into()));
        assert_eq!(name("n,,n=a=2Cb=3Dc,r=x"), Ok("a,b=c".into()));
        for wrong in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=u",
            "n,,n=,r=x",
            "n,,n=u,r=",
            "n,,n=u,r=a b",
            "p=tls-unique,,n=u,r=x",
            "n,a=v,n=u,r=x",
            "n,b=u,n=u,r=x",
            "n,,m=1,n=u,r=x",
            "n,,n=a=b,r=x",
        ] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        assert!(first(b"n,,n=\xff,r=x").is_err());
    }
}
