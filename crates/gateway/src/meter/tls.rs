//! What is counted about TLS with clients, by the listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use observe::metrics::{Count, Kind, Level, Page, labels};
use tls::accept::{Failed, Session};

use crate::snapshot::Chain;

const VERSIONS: [&str; 2] = ["TLSv1.2", "TLSv1.3"];
/// Reasons besides those of the handshake itself.
const BEFORE: [&str; 2] = ["crowded", "timeout"];

/// Counters of one listener.
pub(crate) struct ListenerMeters {
    address: SocketAddr,
    /// By version, and whether a session went on.
    shaken: [[Count; 2]; VERSIONS.len()],
    /// Without a certificate of the client.
    anonymous: Count,
    /// By the reason.
    failed: Vec<(&'static str, Count)>,
    /// By OpenSSL's name of the cipher suite.
    ciphers: Mutex<BTreeMap<&'static str, u64>>,
    /// Open connections that speak TLS.
    pub(crate) open: Level,
    /// Handshakes under way.
    pub(crate) under_way: AtomicUsize,
}

impl ListenerMeters {
    pub(super) fn new(address: SocketAddr) -> Self {
        let reasons = BEFORE.into_iter().chain(Failed::NAMES);
        ListenerMeters {
            address,
            shaken: Default::default(),
            anonymous: Count::default(),
            failed: reasons.map(|name| (name, Count::default())).collect(),
            ciphers: Mutex::default(),
            open: Level::default(),
            under_way: AtomicUsize::new(0),
        }
    }

    /// A handshake has ended well.
    pub(crate) fn shaken(&self, session: &Session) {
        let version = VERSIONS.iter().position(|name| *name == session.version);
        self.shaken[version.unwrap_or_default()][usize::from(session.resumed)].inc();
        if session.peer.is_none() {
            self.anonymous.inc();
        }
        let mut ciphers = self.ciphers.lock().unwrap_or_else(PoisonError::into_inner);
        *ciphers.entry(session.cipher).or_default() += 1;
    }

    /// A handshake has ended otherwise.
    pub(crate) fn failed(&self, reason: &'static str) {
        if let Some((_, count)) = self.failed.iter().find(|(name, _)| *name == reason) {
            count.inc();
        }
    }

    fn failures(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let counts = self.failed.iter().filter(|(name, _)| wanted(name));
        counts.map(|(_, count)| count.get()).sum()
    }

    fn all(&self) -> u64 {
        self.shaken.iter().flatten().map(Count::get).sum()
    }

    fn resumed(&self) -> u64 {
        self.shaken.iter().map(|version| version[1].get()).sum()
    }

    fn is_used(&self) -> bool {
        self.all() > 0 || self.failures(|_| true) > 0
    }
}

/// Writes what was counted, and until when the certificates count.
pub(super) fn tell(page: &mut Page, listeners: &[Arc<ListenerMeters>], chains: &[Arc<Chain>]) {
    let used: Vec<&ListenerMeters> = listeners
        .iter()
        .map(|listener| &**listener)
        .filter(|listener| listener.is_used())
        .collect();
    ours(page, &used);
    envoys(page, &used);
    expiries(page, chains);
}

fn ours(page: &mut Page, listeners: &[&ListenerMeters]) {
    let label = |listener: &ListenerMeters| listener.address.to_string();
    let mut shaken = page.family(
        "nuncio_tls_handshakes",
        Kind::Counter,
        "TLS handshakes with clients, by version and by whether a session went on.",
    );
    for listener in listeners {
        for (version, counts) in VERSIONS.iter().zip(&listener.shaken) {
            for (resumed, count) in ["false", "true"].iter().zip(counts) {
                let pairs = [
                    ("listener", &*label(listener)),
                    ("version", version),
                    ("resumed", resumed),
                ];
                shaken.value(&labels(&pairs), count.get());
            }
        }
    }
    let mut failed = page.family(
        "nuncio_tls_handshake_failures",
        Kind::Counter,
        "TLS handshakes with clients of which nothing came, by the reason.",
    );
    for listener in listeners {
        for (reason, count) in &listener.failed {
            let pairs = [("listener", &*label(listener)), ("reason", reason)];
            failed.value(&labels(&pairs), count.get());
        }
    }
    let mut open = page.family(
        "nuncio_tls_connections",
        Kind::Gauge,
        "Open connections from clients that speak TLS.",
    );
    for listener in listeners {
        open.value(
            &labels(&[("listener", &label(listener))]),
            listener.open.get(),
        );
    }
}

/// Writes `envoy_listener_ssl_*`.
fn envoys(page: &mut Page, listeners: &[&ListenerMeters]) {
    // As Envoy writes it: `0.0.0.0_8443`.
    let label = |listener: &ListenerMeters| {
        let address = listener.address.to_string().replace(':', "_");
        labels(&[("envoy_listener_address", &address)])
    };
    let mut each = |name: &str, help, value: &dyn Fn(&ListenerMeters) -> u64| {
        let name = format!("envoy_listener_ssl_{name}");
        let mut family = page.foreign(&name, Kind::Counter, help);
        for listener in listeners {
            family.value(&label(listener), value(listener));
        }
    };
    each("handshake", "TLS handshakes.", &ListenerMeters::all);
    each(
        "session_reused",
        "Sessions that went on.",
        &ListenerMeters::resumed,
    );
    each(
        "no_certificate",
        "TLS connections without a certificate of the client.",
        &|listener| listener.anonymous.get(),
    );
    each(
        "connection_error",
        "TLS connections that failed, but for certificates of clients.",
        &|listener| {
            let other = |name: &str| !name.starts_with("certificate_") && name != "closed";
            listener.failures(other)
        },
    );
    each(
        "fail_verify_no_cert",
        "TLS connections that failed because the client had no certificate.",
        &|listener| listener.failures(|name| name == "certificate_missing"),
    );
    each(
        "fail_verify_error",
        "TLS connections that failed because the client's certificate was not taken.",
        &|listener| listener.failures(|name| name == "certificate_refused"),
    );
    let mut versions = page.foreign(
        "envoy_listener_ssl_versions",
        Kind::Counter,
        "TLS connections by the version.",
    );
    for listener in listeners {
        for (version, counts) in VERSIONS.iter().zip(&listener.shaken) {
            let sum: u64 = counts.iter().map(Count::get).sum();
            let labels = format!("{},envoy_ssl_version=\"{version}\"", label(listener));
            versions.value(&labels, sum);
        }
    }
    let mut ciphers = page.foreign(
        "envoy_listener_ssl_ciphers",
        Kind::Counter,
        "TLS connections by the cipher suite.",
    );
    for listener in listeners {
        let counts = listener
            .ciphers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (cipher, count) in counts.iter() {
            let labels = format!("{},envoy_ssl_cipher=\"{cipher}\"", label(listener));
            ciphers.value(&labels, count);
        }
    }
}

fn expiries(page: &mut Page, chains: &[Arc<Chain>]) {
    let mut seconds = page.family(
        "nuncio_certificate_not_after_seconds",
        Kind::Gauge,
        "When a certificate that clients are shown expires, in seconds since 1970.",
    );
    // Listeners may share a name; of certificates with one key's kind the first to expire counts.
    let mut told: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for chain in chains {
        for shown in chain.terminator.shown() {
            let end = shown.certificate.not_after;
            let first = told.entry((&chain.name, shown.kind)).or_insert(end);
            *first = end.min(*first);
        }
    }
    for ((host, key), end) in told {
        seconds.value(&labels(&[("host", host), ("key", key)]), end);
    }
}
