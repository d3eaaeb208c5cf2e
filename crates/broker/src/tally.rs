//! What each client has asked for and got, by the client id that it says.
//!
//! A connection counts by itself, and nobody else writes to its numbers; they are added up when somebody asks, and kept
//! when the connection ends. Client ids are the clients' own words: beyond a limit they are counted together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use observe::metrics::{Kind, Page, labels};
use parking_lot::Mutex;

use crate::core::Core;

/// Client ids that are counted alone.
const CLIENTS_MAX: usize = 1_000;
/// Longest client id that is told; what follows is left out.
const NAME_BYTES_MAX: usize = 256;
/// Who the others are.
const OTHERS: &str = "(others)";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    requests: u64,
    received: u64,
    sent: u64,
    throttled_ms: u64,
}

/// The numbers of one connection, which alone writes them.
#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    throttled_ms: AtomicU64,
}

impl Counts {
    fn add_to(&self, sums: &mut Sums) {
        sums.requests += self.requests.load(Relaxed);
        sums.received += self.received.load(Relaxed);
        sums.sent += self.sent.load(Relaxed);
        sums.throttled_ms += self.throttled_ms.load(Relaxed);
    }
}

/// Adds to a number that nobody else writes.
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Relaxed).wrapping_add(more), Relaxed);
}

/// The clients of a broker.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What connections that have ended leave behind.
    ended: BTreeMap<Arc<str>, Sums>,
    live: HashMap<u64, (Arc<str>, Arc<Counts>)>,
    next: u64,
}

impl Clients {
    fn open(&self, client_id: &str) -> (u64, Arc<Counts>) {
        let mut end = client_id.len().min(NAME_BYTES_MAX);
        while !client_id.is_char_boundary(end) {
            end -= 1;
        }
        let mut known = self.0.lock();
        let full = known.ended.len() >= CLIENTS_MAX;
        let name = match known.ended.get_key_value(&client_id[..end]) {
            Some((name, _)) => name.clone(),
            None if full => Arc::from(OTHERS),
            None => Arc::from(&client_id[..end]),
        };
        known.ended.entry(name.clone()).or_default();
        known.next += 1;
        let (id, counts) = (known.next, Arc::new(Counts::default()));
        known.live.insert(id, (name, counts.clone()));
        (id, counts)
    }

    fn close(&self, id: u64) {
        let mut known = self.0.lock();
        if let Some((name, counts)) = known.live.remove(&id) {
            counts.add_to(known.ended.entry(name).or_default());
        }
    }

    fn sums(&self) -> BTreeMap<Arc<str>, Sums> {
        let known = self.0.lock();
        let mut sums = known.ended.clone();
        for (name, counts) in known.live.values() {
            counts.add_to(sums.entry(name.clone()).or_default());
        }
        sums
    }

    /// Tells the numbers of all clients.
    pub(crate) fn tell(&self, page: &mut Page) {
        let sums = self.sums();
        let mut family = |name: &str, help: &str, value: fn(&Sums) -> f64| {
            let mut family = page.family(name, Kind::Counter, help);
            for (client, sums) in &sums {
                family.value(&labels(&[("client_id", client)]), value(sums));
            }
        };
        family(
            "nuncio_client_requests",
            "Requests of Kafka clients, by client id",
            |sums| sums.requests as f64,
        );
        family(
            "nuncio_client_received_bytes",
            "Size of the requests of Kafka clients, by client id",
            |sums| sums.received as f64,
        );
        family(
            "nuncio_client_sent_bytes",
            "Size of the answers to Kafka clients, by client id",
            |sums| sums.sent as f64,
        );
        family(
            "nuncio_client_throttled_seconds",
            "Time that Kafka clients had to wait because of their quotas, by client id",
            |sums| sums.throttled_ms as f64 / 1000.0,
        );
    }
}

/// What one connection counts.
pub(crate) struct Tally {
    core: Arc<Core>,
    /// The client id that was said last, and its numbers.
    now: Option<(String, u64, Arc<Counts>)>,
}

impl Tally {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, now: None }
    }

    /// Counts a request.
    pub(crate) fn asked(&mut self, client_id: &str, bytes: usize) {
        if self.now.as_ref().is_none_or(|(name, ..)| name != client_id) {
            self.end();
            let (id, counts) = self.core.clients.open(client_id);
            self.now = Some((client_id.to_owned(), id, counts));
        }
        if let Some((_, _, counts)) = &self.now {
            add(&counts.requests, 1);
            add(&counts.received, bytes as u64);
        }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, bytes: usize, pause: Option<Duration>) {
        if let Some((_, _, counts)) = &self.now {
            add(&counts.sent, bytes as u64);
            if let Some(pause) = pause {
                let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                add(&counts.throttled_ms, millis);
            }
        }
    }

    fn end(&mut self) {
        if let Some((_, id, _)) = self.now.take() {
            self.core.clients.close(id);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_clients_are_counted_together() {
        let clients = Clients::default();
        for number in 0..CLIENTS_MAX + 5 {
            let (id, counts) = clients.open(&format!("c{number}"));
            add(&counts.requests, 1);
            if number % 2 == 0 {
                clients.close(id);
            }
        }
        let (_, counts) = clients.open("c7");
        add(&counts.requests, 1);
        let sums = clients.sums();
        assert_eq!(sums.len(), CLIENTS_MAX + 1);
        assert_eq!(sums[OTHERS].requests, 5);
        assert_eq!((sums["c7"].requests, sums["c8"].requests), (2, 1));
        let (_, counts) = clients.open(&"ü".repeat(200));
        add(&counts.requests, 1);
        assert_eq!(clients.sums()[OTHERS].requests, 6);
    }
}
