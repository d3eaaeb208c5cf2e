//! Who a client is: SASL mechanisms, users with their credentials, and the conversation that proves one.
//!
//! `scram`, `plain` and `exchange` are state machines without I/O; `users` keeps credentials on disk; `connection/sasl`
//! carries the messages.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub(crate) mod exchange;
mod live;
pub(crate) mod plain;
pub(crate) mod scram;
pub(crate) mod users;

/// A way to prove who one is (`sasl.enabled.mechanisms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mechanism {
    /// Name and password, as they are (RFC 4616).
    Plain,
    /// A salted proof with SHA-256 (RFC 5802, RFC 7677).
    ScramSha256,
    /// A salted proof with SHA-512.
    ScramSha512,
}

impl Mechanism {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Mechanism; 3] = [
        Mechanism::Plain,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
    ];

    /// Returns the name that is registered for it.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mechanism that is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no SASL mechanism that is offered")]
pub struct NotAMechanism(String);

impl FromStr for Mechanism {
    type Err = NotAMechanism;

    fn from_str(text: &str) -> Result<Self, NotAMechanism> {
        let found = Mechanism::ALL.into_iter().find(|one| one.name() == text);
        found.ok_or_else(|| NotAMechanism(text.to_owned()))
    }
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Makes one that nobody can guess; `None` when the system has no random numbers.
    pub fn random() -> Option<Self> {
        use base64::Engine as _;
        let mut bytes = [0; 24];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Self(
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes),
        ))
    }

    /// Returns the text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A user of whom the configuration tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name by which clients present themselves.
    pub name: String,
    /// What proves it.
    pub password: Secret,
}

/// Who speaks on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    /// Nobody has asked.
    Anonymous,
    /// This process itself, which may do everything.
    House,
    /// A name that was proven: a user's, or the subject of a certificate.
    User(Arc<str>),
}

impl Principal {
    pub(crate) fn user(name: impl Into<Arc<str>>) -> Self {
        Self::User(name.into())
    }

    /// Kafka's name of the kind of principal that there is.
    pub(crate) const KIND: &'static str = "User";

    pub(crate) fn name(&self) -> &str {
        match self {
            Principal::Anonymous => "ANONYMOUS",
            Principal::House => "(nuncio)",
            Principal::User(name) => name,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Self::KIND, self.name())
    }
}

/// Why somebody is not believed. What is told to the client does not say whether the user exists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Told(&'static str),
    #[error("the name or the password is wrong")]
    Credentials,
    #[error("the mechanism's message cannot be read: {0}")]
    Message(&'static str),
}
