//! Runs the share partitions: feeds requests and time into their machines, and stores what they decide.
//!
//! Each change is written as a whole snapshot, in the order of the changes. What a member acknowledges takes effect once
//! it is flushed; what comes back by itself does at once, and the count of deliveries follows to the disk.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use journal::ReadError;
use journal::producer::Origin;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use super::machine::{Machine, Renewal};
use super::records::{self, Key, Stored};
use super::sessions::{Holder, Sessions};
use super::terms::{
    Acquired, Fetched, Limits, Millis, Refusal, Said, Snapshot, Ticket, UNKNOWN, Wish,
};
use crate::clock;
use crate::group::reset::Reset;
use crate::group::settings::{GroupSettings, Share as Settings};
use crate::ledger;
use crate::partition::{Partition, Rejected};
use crate::writer::{Append, Writer};

/// Most share partitions that are held.
const PARTITIONS_MAX: usize = 100_000;
/// The timer's longest sleep.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// Waiting fetches above which those that gave up are cleared away.
const WAITING_SWEEP: usize = 32;

/// All share partitions, and the sessions that read them.
#[derive(Debug)]
pub(crate) struct Shares {
    pub sessions: Sessions,
    /// The only partition of the topic that holds the state; made with the first share group.
    store: RwLock<Option<Arc<Partition>>>,
    writer: Arc<Writer>,
    held: RwLock<HashMap<Key, Arc<Shared>>>,
    /// What administrators have set for groups.
    settings: Arc<GroupSettings>,
    /// The leader epoch of this run.
    epoch: i32,
    sooner: Notify,
    /// When the timer will look next.
    looks_at: AtomicI64,
    started: (Instant, Millis),
}

/// A partition as one share group reads it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub key: Key,
    inner: Mutex<Inner>,
    waiting: Mutex<Vec<Weak<Notify>>>,
}

#[derive(Debug)]
struct Inner {
    /// `None` until the first fetch, which decides where to begin.
    machine: Option<Machine>,
    /// As it was written last.
    written: Stored,
    /// As it is on disk.
    durable: Stored,
    /// Somebody is reading for a member.
    fetching: bool,
    /// Nobody reads it any more under this key.
    gone: bool,
}

/// Where a share partition begins or goes on, and what it knows of itself on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub start: i64,
    /// Records from the start on that are done; -1 while the start is not known.
    pub done: i32,
    pub leader_epoch: i32,
}

/// A change that is on its way to the disk.
type Writing = oneshot::Receiver<Result<(), Refusal>>;

impl Shares {
    /// Takes up what the log holds, if there is one.
    pub(crate) fn new(
        writer: Arc<Writer>,
        store: Option<Arc<Partition>>,
        settings: Arc<GroupSettings>,
        epoch: i32,
    ) -> Result<Self, ReadError> {
        let loaded = match &store {
            Some(store) => records::load(store)?,
            None => HashMap::new(),
        };
        let each = loaded.into_iter().map(|(key, stored)| {
            let shared = Arc::new(Shared::new(key.clone(), stored));
            (key, shared)
        });
        Ok(Self {
            sessions: Sessions::default(),
            writer,
            held: RwLock::new(each.collect()),
            store: RwLock::new(store),
            settings,
            epoch,
            sooner: Notify::new(),
            looks_at: AtomicI64::new(Millis::MAX),
            started: (Instant::now(), clock::now_ms()),
        })
    }

    /// Keeps the state of what groups know of, and begins anew where there is none: a stop may have come between a change
    /// of the group and that of the state.
    pub(crate) fn adopt(&self, known: &HashSet<Key>) {
        let mut held = self.held.write();
        held.retain(|key, _| known.contains(key));
        for key in known {
            let fresh = || Stored::new(Snapshot::new(UNKNOWN), 0, clock::now_ms());
            held.entry(key.clone())
                .or_insert_with(|| Arc::new(Shared::new(key.clone(), fresh())));
        }
    }

    /// Milliseconds since 1970 as of the start, from a clock that never jumps.
    pub(crate) fn now(&self) -> Millis {
        let (started, at) = self.started;
        at + Millis::try_from(started.elapsed().as_millis()).unwrap_or(Millis::MAX / 2)
    }

    /// Says whether the topic that holds the state is there.
    pub(crate) fn has_store(&self) -> bool {
        self.store.read().is_some()
    }

    /// Takes the topic that holds the state into use.
    pub(crate) fn take_store(&self, store: Arc<Partition>) {
        self.store.write().get_or_insert(store);
    }

    /// Returns what holds for a group now.
    pub(crate) fn settings(&self, group_id: &str) -> Settings {
        self.settings.of(group_id).share.clone()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Shared>> {
        self.held.read().get(key).cloned()
    }

    /// Makes the state of partitions that a group begins to read; those that are there stay as they are. Durable when
    /// this returns.
    pub(crate) async fn begin(&self, keys: Vec<Key>, epoch: i32) -> Result<(), Refusal> {
        let mut writing = Vec::new();
        for key in keys {
            if self.get(&key).is_none() {
                let stored = Stored::new(Snapshot::new(UNKNOWN), epoch, clock::now_ms());
                writing.push((
                    key.clone(),
                    stored.clone(),
                    self.send(&key, Some(&stored), true)?,
                ));
            }
        }
        for (key, stored, outcome) in writing {
            flushed(outcome).await?;
            let mut held = self.held.write();
            if held.len() >= PARTITIONS_MAX {
                warn!(
                    limit = PARTITIONS_MAX,
                    "too many share partitions, a new one is refused"
                );
                return Err(Refusal::NotStored);
            }
            held.entry(key.clone())
                .or_insert_with(|| Arc::new(Shared::new(key, stored)));
        }
        Ok(())
    }

    /// Has a group without members go on elsewhere; durable when this returns.
    pub(crate) async fn set(&self, key: Key, start: i64, epoch: i32) -> Result<(), Refusal> {
        let stored = Stored {
            number: self.get(&key).map_or(0, |shared| {
                shared.inner.lock().written.number.wrapping_add(1)
            }),
            ..Stored::new(Snapshot::new(start), epoch, clock::now_ms())
        };
        let outcome = self.send(&key, Some(&stored), true)?;
        flushed(outcome).await?;
        let shared = Arc::new(Shared::new(key.clone(), stored));
        let before = self.held.write().insert(key, shared);
        if let Some(before) = before {
            before.retire();
        }
        Ok(())
    }

    /// Forgets all that is known of partitions; durable when this returns.
    pub(crate) async fn forget(&self, keys: Vec<Key>) -> Result<(), Refusal> {
        let mut writing = Vec::new();
        for key in keys {
            let found = self.held.write().remove(&key);
            if let Some(found) = found {
                found.retire();
                writing.push(self.send(&key, None, true)?);
            }
        }
        for outcome in writing {
            flushed(outcome).await?;
        }
        Ok(())
    }

    /// Forgets a topic that is gone.
    pub(crate) async fn forget_topic(&self, topic: Uuid) -> Result<(), Refusal> {
        let keys: Vec<Key> = {
            let held = self.held.read();
            held.keys()
                .filter(|key| key.topic == topic)
                .cloned()
                .collect()
        };
        self.forget(keys).await
    }

    /// Returns the partitions of which a group's state is known.
    pub(crate) fn of_group(&self, group_id: &str) -> Vec<Key> {
        let held = self.held.read();
        let mut keys: Vec<Key> = held
            .keys()
            .filter(|key| *key.group == *group_id)
            .cloned()
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Returns what is known of a partition on disk.
    pub(crate) fn summary(&self, key: &Key) -> Option<Summary> {
        let shared = self.get(key)?;
        let inner = shared.inner.lock();
        Some(Summary {
            start: inner.durable.snapshot.start,
            done: inner.durable.snapshot.done,
            leader_epoch: inner.durable.leader_epoch,
        })
    }

    /// Returns how many records members have, or may have after others, over all share partitions of each group.
    pub(crate) fn in_flight(&self) -> HashMap<Arc<str>, i64> {
        let mut each: HashMap<Arc<str>, i64> = HashMap::new();
        for (key, shared) in self.held.read().iter() {
            let inner = shared.inner.lock();
            let count = inner.machine.as_ref().map_or(0, Machine::in_flight);
            *each.entry(key.group.clone()).or_default() += count;
        }
        each
    }

    /// Queues a state in the order of the calls.
    fn send(
        &self,
        key: &Key,
        stored: Option<&Stored>,
        durable: bool,
    ) -> Result<oneshot::Receiver<Result<journal::Appended, Rejected>>, Refusal> {
        let store = self.store.read().clone().ok_or(Refusal::NotStored)?;
        let line = records::line(key, stored, clock::now_ms()).map_err(|_| Refusal::NotStored)?;
        let (done, outcome) = oneshot::channel();
        let batch = ledger::write([&[line][..]].into_iter(), None).pop();
        self.writer.send(Append {
            partition: store,
            batches: batch.ok_or(Refusal::NotStored)?,
            origin: Origin::Coordinator,
            durable,
            done,
        });
        Ok(outcome)
    }

    /// Writes a share partition as it is now; a ticket is told to its machine once that is durable.
    fn write(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        inner: &mut Inner,
        ticket: Option<Ticket>,
        settings: &Settings,
    ) -> Writing {
        let (done, told) = oneshot::channel();
        let Some(machine) = &mut inner.machine else {
            _ = done.send(Ok(())); // the receiver is ours
            return told;
        };
        inner.written.number = inner.written.number.wrapping_add(1);
        inner.written.snapshot = machine.snapshot();
        let stored = inner.written.clone();
        let outcome = match self.send(&shared.key, Some(&stored), ticket.is_some()) {
            Ok(outcome) => outcome,
            Err(refusal) => {
                if let Some(ticket) = ticket {
                    machine.stored(ticket, false, self.now(), settings.into());
                }
                _ = done.send(Err(refusal)); // the receiver is ours
                return told;
            }
        };
        let (shares, shared) = (self.clone(), shared.clone());
        let limits = Limits::from(settings);
        // When the process ends, nobody has to hear of it any more.
        let Ok(runtime) = Handle::try_current() else {
            return told;
        };
        // It goes on whether or not somebody waits for it.
        runtime.spawn(async move {
            let outcome = flushed(outcome).await;
            {
                let mut inner = shared.inner.lock();
                if outcome.is_ok() && inner.durable.number < stored.number {
                    inner.durable = stored;
                }
                let now = shares.now();
                if let (Some(ticket), Some(machine)) = (ticket, &mut inner.machine) {
                    machine.stored(ticket, outcome.is_ok(), now, limits);
                }
            }
            shared.wake();
            _ = done.send(outcome); // the client may have left
        });
        told
    }

    /// Gives records that were read to a member.
    pub(crate) fn acquire(
        &self,
        fetching: &Fetching,
        wish: &Wish,
        fetched: &Fetched,
    ) -> Result<Vec<Acquired>, Refusal> {
        let mut inner = fetching.shared.inner.lock();
        let machine = inner.machine.as_mut().ok_or(Refusal::Unknown)?;
        let acquired = machine.acquire(wish, fetched);
        let moved = !acquired.is_empty() || machine.next_fetch() != fetching.from;
        drop(inner);
        fetching.moved.set(moved);
        if !acquired.is_empty() {
            self.look_by(wish.until);
        }
        Ok(acquired)
    }

    /// Begins to read for a member; nothing when somebody else is reading, or nothing may go out now. Waits for the
    /// disk when it is the first time.
    pub(crate) fn begin_fetch(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        partition: &Arc<Partition>,
        settings: &Settings,
    ) -> Result<Option<Fetching>, Refusal> {
        let mut inner = shared.inner.lock();
        if inner.gone {
            return Err(Refusal::Unknown);
        }
        if inner.fetching {
            return Ok(None);
        }
        if inner.machine.is_none() {
            self.resolve(shared, &mut inner, partition, settings)?;
        }
        let Some(machine) = &mut inner.machine else {
            return Ok(None);
        };
        machine.cut(partition.start());
        if !machine.can_acquire(settings.into()) {
            return Ok(None);
        }
        let from = machine.next_fetch();
        inner.fetching = true;
        drop(inner);
        Ok(Some(Fetching {
            shared: shared.clone(),
            partition: partition.clone(),
            from,
            moved: Cell::new(false),
        }))
    }

    /// Finds out where to read on, or where to begin.
    fn resolve(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        inner: &mut Inner,
        partition: &Partition,
        settings: &Settings,
    ) -> Result<(), Refusal> {
        let end = partition.high_water();
        inner.written.leader_epoch = self.epoch;
        inner.machine = Machine::restore(&inner.written.snapshot, end);
        if inner.machine.is_some() {
            return Ok(());
        }
        let start = match settings.reset {
            Reset::Earliest => partition.start(),
            Reset::Latest => end,
            Reset::ByDuration(age_ms) => {
                let found = partition.at_time(clock::now_ms().saturating_sub(age_ms), end);
                let found = found.map_err(|error| {
                    error!(topic = %partition.topic, partition = partition.index, %error, "could not read");
                    Refusal::NotStored
                })?;
                found.map_or(end, |found| found.offset)
            }
        };
        inner.machine = Some(Machine::new(start));
        if settings.reset != Reset::Earliest {
            // What comes while nobody has acknowledged anything must not be passed over after a restart.
            drop(self.write(shared, inner, None, settings)); // nobody waits for it
        }
        Ok(())
    }

    /// Hears what a member says of records; durable once the answer is there.
    pub(crate) fn acknowledge(
        self: &Arc<Self>,
        key: &Key,
        member: &str,
        said: &[Said],
        settings: &Settings,
    ) -> Result<Option<Writing>, Refusal> {
        let shared = self.get(key).ok_or(Refusal::Unknown)?;
        let renewal = match settings.renewable {
            true => Renewal::Until(self.now() + Millis::from(settings.lock_ms)),
            false => Renewal::Refused,
        };
        let mut inner = shared.inner.lock();
        let Some(machine) = &mut inner.machine else {
            return match inner.gone {
                true => Err(Refusal::Unknown),
                false => Err(Refusal::RecordState),
            };
        };
        let ticket = machine.acknowledge(member, said, renewal, settings.into())?;
        Ok(ticket.map(|ticket| self.write(&shared, &mut inner, Some(ticket), settings)))
    }

    /// Takes back what a member has, everywhere.
    pub(crate) fn release(self: &Arc<Self>, (group, member): &Holder) {
        let all: Vec<Arc<Shared>> = {
            let held = self.held.read();
            held.values()
                .filter(|shared| shared.key.group == *group)
                .cloned()
                .collect()
        };
        for shared in all {
            self.give_up(&shared, |machine, settings| {
                machine.release(member, settings.into())
            });
        }
    }

    fn give_up(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        step: impl FnOnce(&mut Machine, &Settings) -> bool,
    ) {
        let settings = self.settings(&shared.key.group);
        {
            let mut inner = shared.inner.lock();
            let changed = inner
                .machine
                .as_mut()
                .is_some_and(|machine| step(machine, &settings));
            if !changed {
                return;
            }
            drop(self.write(shared, &mut inner, None, &settings)); // nobody waits for it
        }
        shared.wake();
    }

    /// Lets time pass for all share partitions until told to stop.
    pub(crate) async fn run_timer(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let now = self.now();
            let limit = now + Millis::try_from(SLEEP_MAX.as_millis()).unwrap_or(Millis::MAX);
            self.looks_at.store(limit, Ordering::Release);
            let all: Vec<Arc<Shared>> = self.held.read().values().cloned().collect();
            let mut next = limit;
            for shared in all {
                if shared.wakes_at().is_some_and(|at| at <= now) {
                    self.give_up(&shared, |machine, settings| {
                        machine.tick(now, settings.into())
                    });
                }
                next = next.min(shared.wakes_at().unwrap_or(limit));
            }
            let next = next.max(now + 1);
            self.looks_at.store(next, Ordering::Release);
            let wait = Duration::from_millis((next - now).unsigned_abs());
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sooner.notified() => (),
                () = time::sleep(wait) => (),
            }
        }
    }

    /// Makes the timer look sooner than it meant to.
    fn look_by(&self, at: Millis) {
        if at < self.looks_at.load(Ordering::Acquire) {
            self.sooner.notify_one();
        }
    }
}

async fn flushed(
    outcome: oneshot::Receiver<Result<journal::Appended, Rejected>>,
) -> Result<(), Refusal> {
    match outcome.await.unwrap_or(Err(Rejected::Gone)) {
        Ok(_) => Ok(()),
        Err(rejected) => {
            error!(%rejected, "the state of a share partition could not be written");
            Err(Refusal::NotStored)
        }
    }
}

impl Shared {
    fn new(key: Key, stored: Stored) -> Self {
        Self {
            key,
            inner: Mutex::new(Inner {
                machine: None,
                written: stored.clone(),
                durable: stored,
                fetching: false,
                gone: false,
            }),
            waiting: Mutex::default(),
        }
    }

    fn retire(&self) {
        let mut inner = self.inner.lock();
        inner.gone = true;
        inner.machine = None;
        drop(inner);
        self.wake();
    }

    fn wake(&self) {
        for waiting in self.waiting.lock().drain(..) {
            if let Some(waiting) = waiting.upgrade() {
                waiting.notify_one();
            }
        }
    }

    /// Has `waiter` notified once when records may have become available.
    pub(crate) fn wait(&self, waiter: &Arc<Notify>) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING_SWEEP && waiting.len().is_power_of_two() {
            waiting.retain(|waiting| waiting.strong_count() > 0);
        }
        waiting.push(Arc::downgrade(waiter));
    }

    /// Says whether it is known where to read.
    pub(crate) fn is_resolved(&self) -> bool {
        let inner = self.inner.lock();
        inner.machine.is_some() || inner.written.snapshot.start != UNKNOWN
    }

    fn wakes_at(&self) -> Option<Millis> {
        self.inner.lock().machine.as_ref()?.wakes_at()
    }
}

/// A read on behalf of a member; nobody else reads the share partition meanwhile.
#[derive(Debug)]
pub(crate) struct Fetching {
    pub shared: Arc<Shared>,
    pub partition: Arc<Partition>,
    /// Where to read.
    pub from: i64,
    /// The next one who reads finds something else.
    moved: Cell<bool>,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.shared.inner.lock().fetching = false;
        if self.moved.get() {
            self.shared.wake();
        }
    }
}
