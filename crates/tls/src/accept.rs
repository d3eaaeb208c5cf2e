//! Shaking hands with clients, whoever they are: their first message has a largest size, and no crowd of them keeps the
//! processor from those who are through. The time that all of it may take is the caller's to limit.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use rustls::server::{Accepted, AcceptedAlert, Acceptor};
use rustls::{
    CipherSuite, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection,
    SupportedCipherSuite,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use crate::certificate::{self, Certificate};

/// The type of the record that every client begins with.
pub const HANDSHAKE: u8 = 22;
/// Largest first message of a client (Envoy's limit); those of today's browsers have two kilobytes.
pub const HELLO_BYTES_MAX: usize = 16 << 10;
/// What is read at once.
const STEP_BYTES: usize = 4 << 10;
/// The fatal alert `unrecognized_name` (RFC 6066), as it is written before there are keys.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The same for `decode_error` (RFC 8446).
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Why no hands were shaken.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The client left, or the network did.
    #[error("the client left before the handshake had ended")]
    Closed(#[source] Option<io::Error>),

    /// The first message is longer than [`HELLO_BYTES_MAX`].
    #[error("the client's first message is too large")]
    HelloTooLarge,

    /// The first message is none of TLS.
    #[error("the client's first message cannot be read")]
    HelloMalformed(#[source] rustls::Error),

    /// Nobody answers for the name that the client asks for.
    #[error("there is no certificate for the name that the client asks for")]
    NameUnknown,

    /// The client has to show a certificate, and has none.
    #[error("the client shows no certificate")]
    CertificateMissing,

    /// The client's certificate is not taken.
    #[error("the client's certificate is not taken")]
    CertificateRefused(#[source] rustls::Error),

    /// The client ends it, for example since it does not trust the certificate that it is shown.
    #[error("the client has ended the handshake")]
    Alert(#[source] rustls::Error),

    /// The two have no version, cipher suite or the like in common.
    #[error("the client and we have nothing in common")]
    Incompatible(#[source] rustls::Error),

    /// Anything else.
    #[error("the handshake broke")]
    Broken(#[source] rustls::Error),
}

impl Failed {
    /// One name of each, for counters.
    pub const NAMES: [&str; 9] = [
        "closed",
        "hello_too_large",
        "hello_malformed",
        "name_unknown",
        "certificate_missing",
        "certificate_refused",
        "alert",
        "incompatible",
        "broken",
    ];

    /// Returns the reason's short name.
    pub fn name(&self) -> &'static str {
        match self {
            Failed::Closed(_) => "closed",
            Failed::HelloTooLarge => "hello_too_large",
            Failed::HelloMalformed(_) => "hello_malformed",
            Failed::NameUnknown => "name_unknown",
            Failed::CertificateMissing => "certificate_missing",
            Failed::CertificateRefused(_) => "certificate_refused",
            Failed::Alert(_) => "alert",
            Failed::Incompatible(_) => "incompatible",
            Failed::Broken(_) => "broken",
        }
    }

    fn of(error: io::Error) -> Self {
        use rustls::Error::*;
        let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref()) else {
            return Failed::Closed(Some(error));
        };
        let tls: rustls::Error = Clone::clone(tls);
        match tls {
            NoCertificatesPresented => Failed::CertificateMissing,
            InvalidCertificate(_) | InvalidCertRevocationList(_) => Failed::CertificateRefused(tls),
            AlertReceived(_) => Failed::Alert(tls),
            PeerIncompatible(_) | NoApplicationProtocol => Failed::Incompatible(tls),
            _ => Failed::Broken(tls),
        }
    }
}

/// Hands the processor to one handshake after the other, so that whoever has shaken hands gets a turn between two.
#[derive(Debug)]
pub struct Turns(Semaphore);

impl Turns {
    /// Returns turns for a runtime with so many threads.
    pub fn new(threads: usize) -> Self {
        Turns(Semaphore::new(threads.max(1)))
    }
}

/// A client that has sent its first message and waits for the answer.
pub struct Hello {
    accepted: Accepted,
    stream: TcpStream,
}

/// Reads a client's first message; `first` was read of it before.
///
/// # Errors
/// When there is none.
pub async fn hello(mut stream: TcpStream, first: Vec<u8>) -> Result<Hello, Failed> {
    let mut acceptor = Acceptor::default();
    let mut bytes = first;
    let mut read = 0;
    loop {
        if !bytes.is_empty() {
            read += bytes.len();
            match feed(&mut acceptor, &bytes) {
                Ok(Some(accepted)) => return Ok(Hello { accepted, stream }),
                Ok(None) if read >= HELLO_BYTES_MAX => return Err(Failed::HelloTooLarge),
                Ok(None) => (),
                Err((error, alert)) => {
                    say(&mut stream, alert).await;
                    return Err(Failed::HelloMalformed(error));
                }
            }
            bytes.clear();
        }
        bytes.reserve(STEP_BYTES);
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return Err(Failed::Closed(None)),
            Ok(_) => (),
            Err(error) => return Err(Failed::Closed(Some(error))),
        }
    }
}

type Said = (rustls::Error, Option<AcceptedAlert>);

/// Takes more of what a client has sent.
fn feed(acceptor: &mut Acceptor, mut bytes: &[u8]) -> Result<Option<Accepted>, Said> {
    while !bytes.is_empty() {
        match acceptor.read_tls(&mut bytes) {
            Ok(0) => break,
            Ok(_) => (),
            Err(error) => return Err((rustls::Error::General(error.to_string()), None)),
        }
        let accepted = acceptor.accept();
        if let Some(accepted) = accepted.map_err(|(error, alert)| (error, Some(alert)))? {
            // What came behind the message was taken with it.
            return match bytes.is_empty() {
                true => Ok(Some(accepted)),
                false => {
                    let what = "more than a first message came at once".to_owned();
                    Err((rustls::Error::General(what), None))
                }
            };
        }
    }
    Ok(None)
}

/// Tells the client what is wrong, if it still listens.
async fn say(stream: &mut TcpStream, alert: Option<AcceptedAlert>) {
    let mut bytes = Vec::new();
    let written = alert.map(|mut alert| alert.write_all(&mut bytes));
    if !matches!(written, Some(Ok(()))) || bytes.is_empty() {
        bytes = DECODE_ERROR.to_vec();
    }
    _ = stream.write_all(&bytes).await;
    _ = stream.shutdown().await;
}

impl Hello {
    /// Returns the name that the client asks for, in lower case.
    pub fn server_name(&self) -> Option<String> {
        let name = self
            .accepted
            .client_hello()
            .server_name()?
            .to_ascii_lowercase();
        Some(name)
    }

    /// Returns whether the client speaks this protocol inside of TLS.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        let hello = self.accepted.client_hello();
        let mut offered = hello.alpn().into_iter().flatten();
        offered.any(|one| one == protocol)
    }

    /// Tells the client that nobody answers for the name that it asks for.
    pub async fn refuse(mut self) -> Failed {
        // The client may have left.
        _ = self.stream.write_all(&UNRECOGNIZED_NAME).await;
        _ = self.stream.shutdown().await;
        Failed::NameUnknown
    }

    /// Shakes hands when it is this client's turn.
    ///
    /// # Errors
    /// Why nothing came of it.
    pub async fn answer(
        self,
        config: Arc<ServerConfig>,
        turns: &Turns,
    ) -> Result<Box<TlsStream<TcpStream>>, Failed> {
        let turn = turns.0.acquire().await;
        // The costly part, signing, is done in here.
        let shaking = StartHandshake::from_parts(self.accepted, self.stream).into_stream(config);
        tokio::task::yield_now().await;
        drop(turn);
        Box::pin(shaking).await.map(Box::new).map_err(Failed::of)
    }
}

/// What was agreed on with a client.
#[derive(Debug, Clone)]
pub struct Session {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite, by OpenSSL's name.
    pub cipher: &'static str,
    /// The name that the client has asked for, in lower case.
    pub server_name: Option<Box<str>>,
    /// Whether it goes on with one that it had before.
    pub resumed: bool,
    /// Who the client is, where it has shown a certificate that was verified.
    pub peer: Option<Box<Peer>>,
}

/// A client by its certificate.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What the certificate says.
    pub certificate: Certificate,
    /// The certificate, and those that lead to its root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The SHA-256 of the certificate, in hexadecimal digits.
    pub hash: String,
}

impl Session {
    /// Returns what was agreed on, once the handshake has ended.
    pub fn of(connection: &ServerConnection) -> Self {
        let name = connection.server_name();
        Session {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "TLSv1.3",
            },
            cipher: connection
                .negotiated_cipher_suite()
                .map_or("", |suite| cipher(suite.suite())),
            server_name: name.map(|name| name.to_ascii_lowercase().into()),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            peer: Peer::of(connection).map(Box::new),
        }
    }
}

impl Peer {
    fn of(connection: &ServerConnection) -> Option<Self> {
        let chain = connection.peer_certificates()?;
        let shown = chain.first()?;
        Some(Peer {
            // Whoever has verified it could read it.
            certificate: Certificate::read(shown).ok()?,
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            hash: hash(shown),
        })
    }
}

fn hash(bytes: &[u8]) -> String {
    match TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => {
            certificate::hex(suite.common.hash_provider.hash(bytes).as_ref())
        }
        SupportedCipherSuite::Tls12(_) => String::new(),
    }
}

/// OpenSSL's name of a cipher suite.
fn cipher(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => {
            let standard = other.as_str().unwrap_or_default();
            let mut known = model::tls_context::CIPHER_SUITES.iter();
            known
                .find(|(_, name)| *name == standard)
                .map_or("", |(openssl, _)| openssl)
        }
    }
}
