//! Client quotas (KIP-13, KIP-546): how much of the broker a user, a client id or an address may have.
//!
//! ```text
//! table   what was set for whom, and what of it holds for a client
//! rate    how fast something goes
//! ```
//! Who goes too fast gets its answer at once, with the time that it has to wait, and is not listened to until then
//! (KIP-219). What was set is kept in `quotas.json`, which is replaced as a whole at each change.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tracing::debug;

mod rate;
pub(crate) mod table;

use self::rate::{Bucket, Millis, Rate, WINDOW_MS};
use self::table::{Entity, Kind, Scope, Table, Values};
use crate::files;

/// Clients whose rates are kept: those beyond share one.
const METERS_MAX: usize = 10_000;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    quotas: Vec<SavedQuota>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedQuota {
    entity: Entity,
    values: Values,
}

/// All quotas, and how much of them is used.
#[derive(Debug)]
pub(crate) struct Quotas {
    path: PathBuf,
    /// False as long as nothing is limited: then nobody looks further.
    active: AtomicBool,
    table: RwLock<Arc<Table>>,
    meters: Mutex<Meters>,
    /// One change at a time; it waits for the disk.
    changes: Mutex<()>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Meters {
    rates: HashMap<(Kind, Scope), Rate>,
    buckets: HashMap<Scope, Bucket>,
    connections: HashMap<IpAddr, Rate>,
}

impl Quotas {
    /// Reads what was set.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("quotas.json");
        let saved: Saved = match files::read(&path)? {
            Some(content) => serde_json::from_slice(&content)?,
            None => Saved::default(),
        };
        let quotas = saved.quotas.into_iter();
        let table = Table::new(quotas.map(|one| (one.entity, one.values)));
        let active = table.kinds().next().is_some();
        Ok(Self {
            path,
            active: AtomicBool::new(active),
            table: RwLock::new(Arc::new(table)),
            meters: Mutex::default(),
            changes: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// Whether anything is limited.
    pub(crate) fn active(&self) -> bool {
        self.active.load(Ordering::Relaxed)
    }

    /// Returns what is set now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().clone()
    }

    /// Replaces what is set; it is durable and holds when this returns. Waits for the disk.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> io::Result<T> {
        let _one = self.changes.lock();
        let now = self.table();
        let mut next = Table::clone(&now);
        let told = change(&mut next);
        if next == *now {
            return Ok(told);
        }
        let saved = Saved {
            quotas: next
                .iter()
                .map(|(entity, values)| SavedQuota {
                    entity: entity.clone(),
                    values: values.clone(),
                })
                .collect(),
        };
        files::replace(&self.path, &serde_json::to_vec_pretty(&saved)?)?;
        let active = next.kinds().next().is_some();
        *self.table.write() = Arc::new(next);
        self.active.store(active, Ordering::Relaxed);
        Ok(told)
    }

    fn now(&self) -> Millis {
        Millis::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// Notes that a client has used some of what is limited, and returns how many milliseconds it has to wait.
    pub(crate) fn used(&self, kind: Kind, user: &str, client: &str, value: f64) -> i32 {
        let Some((scope, limit)) = self.table().limit(kind, user, client) else {
            return 0;
        };
        let now = self.now();
        let mut meters = self.meters.lock();
        let meters = &mut meters.rates;
        let scope = room(
            meters,
            (kind, scope),
            |rate| rate.is_idle(now),
            || (kind, anyone()),
        );
        let rate = meters.entry(scope).or_default();
        rate.record(now, value);
        let mut wait = rate.throttle_ms(now, limit);
        if kind == Kind::Request {
            wait = wait.min(WINDOW_MS); // as in Kafka: a request that took long does not block a client for minutes
        }
        i32::try_from(wait).unwrap_or(i32::MAX)
    }

    /// Whether a client may not produce as fast as it can.
    pub(crate) fn limits_producing(&self, user: &str, client: &str) -> bool {
        let table = self.table();
        let limited = |kind| table.limit(kind, user, client).is_some();
        limited(Kind::Produce) || limited(Kind::Request)
    }

    /// Returns who counts what a client changes of topics and partitions, if that is limited for it.
    pub(crate) fn mutations<'a>(
        &'a self,
        user: &str,
        client: &str,
        strict: bool,
    ) -> Option<Mutations<'a>> {
        let (scope, limit) = self.table().limit(Kind::Mutation, user, client)?;
        Some(Mutations {
            quotas: self,
            scope,
            limit,
            strict,
        })
    }

    fn bucket<T>(&self, scope: &Scope, act: impl FnOnce(&mut Bucket, Millis) -> T) -> T {
        let now = self.now();
        let mut meters = self.meters.lock();
        let meters = &mut meters.buckets;
        let scope = room(meters, scope.clone(), |bucket| bucket.is_idle(now), anyone);
        act(meters.entry(scope).or_default(), now)
    }

    /// Notes that an address opens a connection; returns how long it has to wait before it is turned away, when it
    /// opens too many.
    pub(crate) fn connected(&self, ip: IpAddr) -> Option<Duration> {
        let ip = ip.to_canonical();
        let limit = self.table().connections(ip)?;
        let now = self.now();
        let mut meters = self.meters.lock();
        let meters = &mut meters.connections;
        let any = || IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let ip = room(meters, ip, |rate| rate.is_idle(now), any);
        let rate = meters.entry(ip).or_default();
        rate.record(now, 1.0);
        let wait = rate.throttle_ms(now, limit);
        if wait > 0 {
            rate.take_back(1.0);
        }
        (wait > 0).then(|| Duration::from_millis(wait.unsigned_abs()))
    }
}

/// Whoever finds no room for a rate of its own.
fn anyone() -> Scope {
    Scope {
        user: None,
        client: None,
    }
}

/// Returns the key under which something is counted: its own as long as there is room.
fn room<K: std::hash::Hash + Eq, M>(
    meters: &mut HashMap<K, M>,
    key: K,
    idle: impl Fn(&M) -> bool,
    shared: impl FnOnce() -> K,
) -> K {
    if meters.len() < METERS_MAX || meters.contains_key(&key) {
        return key;
    }
    meters.retain(|_, meter| !idle(meter));
    if meters.len() < METERS_MAX {
        return key;
    }
    debug!(
        limit = METERS_MAX,
        "too many clients with quotas, those that are new share one"
    );
    shared()
}

/// Counts what a client changes of topics and partitions.
#[derive(Debug)]
pub(crate) struct Mutations<'a> {
    quotas: &'a Quotas,
    scope: Scope,
    limit: f64,
    /// Whether what is too much is refused; older clients do not know that, and only have to wait.
    strict: bool,
}

impl Mutations<'_> {
    /// Notes so many partitions; false when they are to be refused.
    pub(crate) fn take(&self, partitions: usize) -> bool {
        self.quotas.bucket(&self.scope, |bucket, now| {
            if self.strict && !bucket.has_some(now, self.limit) {
                return false;
            }
            bucket.take(now, self.limit, partitions as f64);
            true
        })
    }

    /// Returns how many milliseconds the client has to wait.
    pub(crate) fn throttle_ms(&self) -> i32 {
        let wait = self.quotas.bucket(&self.scope, |bucket, now| {
            bucket.throttle_ms(now, self.limit)
        });
        i32::try_from(wait).unwrap_or(i32::MAX)
    }
}

/// What a request takes, noted only while something is limited.
#[derive(Debug)]
pub(crate) struct Metered {
    /// The request's size.
    pub bytes: usize,
    begun: Instant,
    /// Nanoseconds that it was worked on, and when since `begun` the present work began.
    spent: AtomicU64,
    since: AtomicU64,
}

impl Metered {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            begun: Instant::now(),
            spent: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Runs a piece of the work on the request.
    pub(crate) fn work<T>(&self, piece: impl FnOnce() -> T) -> T {
        self.since.store(self.elapsed(), Ordering::Relaxed);
        let done = piece();
        let spent = self.elapsed() - self.since.load(Ordering::Relaxed);
        self.spent.fetch_add(spent, Ordering::Relaxed);
        done
    }

    /// Returns the seconds of a processor's time that went into the request, from within a piece of the work.
    pub(crate) fn seconds(&self) -> f64 {
        let piece = self.elapsed() - self.since.load(Ordering::Relaxed);
        Duration::from_nanos(self.spent.load(Ordering::Relaxed) + piece).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(quotas: &Quotas, kind: Kind, value: Option<f64>) {
        let entity = Entity::from([(table::CLIENT.to_owned(), None)]);
        let change = [(kind.key().to_owned(), value)];
        let altered = quotas.change(|table| table.alter(&entity, &change));
        altered.expect("written").expect("taken");
    }

    #[test]
    fn quotas_outlive_the_process_and_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let quotas = Quotas::open(folder.path()).expect("opens");
        assert!(!quotas.active());
        change(&quotas, Kind::Produce, Some(10.0));
        for quotas in [quotas, Quotas::open(folder.path()).expect("opens")] {
            assert!(quotas.active());
            assert_eq!(quotas.used(Kind::Produce, "u", "c", 100.0), 0);
            assert!(quotas.used(Kind::Produce, "u", "c", 100.0) > 5_000);
            assert_eq!(quotas.used(Kind::Produce, "u", "d", 1.0), 0);
            assert_eq!(quotas.used(Kind::Fetch, "u", "c", 1000.0), 0);
        }
        let quotas = Quotas::open(folder.path()).expect("opens");
        change(&quotas, Kind::Produce, None);
        assert!(!quotas.active());
        assert_eq!(quotas.used(Kind::Produce, "u", "c", 1000.0), 0);
    }

    #[test]
    fn changes_of_topics_are_refused_to_those_who_know_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let quotas = Quotas::open(folder.path()).expect("opens");
        assert!(quotas.mutations("u", "c", true).is_none());
        change(&quotas, Kind::Mutation, Some(1.0));
        let strict = quotas.mutations("u", "c", true).expect("limited");
        assert!(strict.take(20));
        assert!(!strict.take(1));
        assert!((5_000..=9_000).contains(&strict.throttle_ms()));
        let old = quotas.mutations("u", "c", false).expect("limited");
        assert!(old.take(1));
        assert!((5_000..=10_000).contains(&old.throttle_ms()));
    }
}
