//! Runs the transactions: feeds requests and time into the machines, stores their steps, writes markers.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use journal::producer::Origin;
use kafka::record::Marker;
use parking_lot::Mutex;
use tokio::sync::futures::OwnedNotified;
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::machine::{End, Next, Start, Transaction, identity};
use super::store::Store;
use super::terms::{Metadata, NO_EPOCH, Refusal, Rules, State, Version};
use crate::clock;
use crate::core::Core;
use crate::group::coordinator::Place;
use crate::partition::{Partition, Rejected};
use crate::topic::OFFSETS_TOPIC;
use crate::writer::Append;

/// Most transactional ids that are held.
const IDS_MAX: usize = 100_000;
/// Longest wait for an earlier step, before the client is told to try again.
const CONCURRENT_WAIT_MAX: Duration = Duration::from_millis(100);
/// How often transactions that take too long are looked for.
const TIMEOUTS_CHECK: Duration = Duration::from_secs(1);
/// How often ids that nobody uses any more are looked for.
const EXPIRY_CHECK: Duration = Duration::from_secs(60);
/// Pause before the end of a transaction is tried again that the disk has refused.
const END_RETRY: Duration = Duration::from_secs(1);

/// What a client may ask for when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Init {
    pub id: String,
    pub timeout_ms: i32,
    /// The producer id and epoch that it believes to have.
    pub expected: Option<(i64, i16)>,
    pub two_phase: bool,
    pub keep_prepared: bool,
}

/// The transaction coordinator.
#[derive(Debug)]
pub(crate) struct Transactions {
    held: Mutex<HashMap<String, Transaction>>,
    rules: Rules,
    store: Store,
    /// Told when a step has ended.
    changed: Arc<Notify>,
    /// Ends the retries of what the disk has refused.
    stop: CancellationToken,
}

impl Transactions {
    /// Takes up what the log holds.
    pub(crate) fn new(rules: Rules, store: Store, loaded: HashMap<String, Metadata>) -> Self {
        let held = loaded
            .into_iter()
            .map(|(id, stored)| (id, Transaction::restore(stored)))
            .collect();
        Self {
            held: Mutex::new(held),
            rules,
            store,
            changed: Arc::new(Notify::new()),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Returns all ids that were ever stored, with their states, in no order.
    pub(crate) fn all(&self) -> Vec<(String, Metadata)> {
        let held = self.held.lock();
        let stored = held
            .iter()
            .filter(|(_, one)| one.metadata().epoch != NO_EPOCH);
        stored
            .map(|(id, one)| (id.clone(), one.metadata().clone()))
            .collect()
    }

    /// Returns the state of one id.
    pub(crate) fn get(&self, id: &str) -> Result<Metadata, Refusal> {
        let held = self.held.lock();
        let found = held
            .get(id)
            .filter(|one| one.metadata().state != State::Dead);
        Ok(found.ok_or(Refusal::NotFound)?.metadata().clone())
    }

    /// Calls `write` if the partition is part of the producer's open transaction.
    ///
    /// What `write` puts into the write path comes before the transaction's marker there.
    pub(crate) fn verified<T>(
        &self,
        id: &str,
        (producer_id, epoch): (i64, i16),
        place: &Place,
        write: impl FnOnce() -> T,
    ) -> Result<T, Refusal> {
        let held = self.held.lock();
        let found = held.get(id).ok_or(Refusal::UnknownMapping)?;
        found.verify(producer_id, epoch, place)?;
        Ok(write())
    }

    /// Ends the retries of what the disk has refused.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Waits for earlier steps, but not for long.
struct Patience {
    changed: Arc<Notify>,
    deadline: Instant,
}

/// Tells of the next step that ends.
type Change = Pin<Box<OwnedNotified>>;

impl Patience {
    fn new(core: &Core) -> Self {
        Self {
            changed: core.transactions.changed.clone(),
            deadline: Instant::now() + CONCURRENT_WAIT_MAX,
        }
    }

    /// Listens from now on, so that no change is missed.
    fn listen(&self) -> Change {
        let mut change = Box::pin(self.changed.clone().notified_owned());
        change.as_mut().enable();
        change
    }

    async fn wait(&self, change: Change) -> Result<(), Refusal> {
        let waiting = time::timeout_at(self.deadline, change);
        waiting.await.map_err(|_| Refusal::Concurrent)
    }
}

/// A step that is being stored.
type Stored = oneshot::Receiver<Result<Metadata, Refusal>>;

/// Begins to store what `step` wants; `None` when it wants nothing.
///
/// It goes on whether or not somebody waits for it.
fn begin(
    core: &Arc<Core>,
    id: &str,
    step: impl FnOnce(&Transaction) -> Result<Option<Metadata>, Refusal>,
) -> Result<Option<Stored>, Refusal> {
    let next = {
        let mut held = core.transactions.held.lock();
        let found = held.get_mut(id).ok_or(Refusal::UnknownMapping)?;
        let Some(next) = step(found)? else {
            return Ok(None);
        };
        found.begin(&next);
        next
    };
    let (done, stored) = oneshot::channel();
    let (core, id) = (core.clone(), id.to_owned());
    tokio::spawn(async move {
        let outcome = store(&core, &id, next, true).await;
        _ = done.send(outcome); // the client may have left
    });
    Ok(Some(stored))
}

async fn wait(stored: Stored) -> Result<Metadata, Refusal> {
    stored.await.unwrap_or(Err(Refusal::NotStored))
}

/// Stores a step that has begun, and starts what follows from it.
async fn store(
    core: &Arc<Core>,
    id: &str,
    next: Metadata,
    durable: bool,
) -> Result<Metadata, Refusal> {
    let transactions = &core.transactions;
    let stored = transactions.store.store(id, &next, durable).await;
    let outcome = {
        let mut held = transactions.held.lock();
        match (&stored, held.get_mut(id)) {
            (_, None) => Err(Refusal::NotStored),
            (Ok(()), Some(_)) if next.state == State::Dead => {
                held.remove(id);
                Ok(next)
            }
            (Ok(()), Some(found)) => {
                found.stored(next.clone());
                Ok(next)
            }
            (Err(rejected), Some(found)) => {
                error!(id, %rejected, "a transaction's state could not be stored");
                found.lost();
                Err(Refusal::NotStored)
            }
        }
    };
    transactions.changed.notify_waiters();
    if let Ok(next) = &outcome
        && next.state.is_prepared()
    {
        tokio::spawn(finish(core.clone(), id.to_owned(), next.clone()));
    }
    outcome
}

/// Writes the markers of a transaction whose end is stored, then stores that too.
fn finish(
    core: Arc<Core>,
    id: String,
    prepared: Metadata,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(finish_now(core, id, prepared))
}

async fn finish_now(core: Arc<Core>, id: String, prepared: Metadata) {
    let mut end = Markers {
        producer_id: prepared.producer_id,
        epoch: prepared.epoch,
        commit: prepared.state == State::PrepareCommit,
        coordinator_epoch: core.node.epoch(),
    };
    let mut left = prepared.places.clone();
    loop {
        left = write_markers(&core, &end, left)
            .await
            .into_iter()
            .filter(|(place, outcome)| again(&core, &id, &end, place, outcome))
            .map(|(place, _)| place)
            .collect();
        // Nobody else coordinates: a later epoch that a partition knows of fences no one off.
        for place in &left {
            end.coordinator_epoch = end.coordinator_epoch.max(latest_epoch(&core, &end, place));
        }
        if left.is_empty() {
            break;
        }
        if !pause(&core).await {
            return;
        }
    }
    loop {
        let next = {
            let mut held = core.transactions.held.lock();
            let Some(found) = held.get_mut(&id) else {
                return;
            };
            if *found.metadata() != prepared {
                return; // somebody else has stored it
            }
            let Some(next) = found.complete(clock::now_ms()) else {
                return;
            };
            found.begin(&next);
            next
        };
        // Nothing is lost when this does not reach the disk: the next start writes the markers again, and
        // all that the producer stores from now on is stored after it.
        match store(&core, &id, next, false).await {
            Ok(_) => return,
            Err(refusal) => {
                warn!(%id, %refusal, "a transaction has ended, but that could not be stored yet");
            }
        }
        if !pause(&core).await {
            return;
        }
    }
}

/// Waits before what the disk has refused is tried again; says no when told to stop: the next start goes on.
async fn pause(core: &Core) -> bool {
    tokio::select! {
        () = time::sleep(END_RETRY) => true,
        () = core.transactions.stop.cancelled() => false,
    }
}

/// The end of a transaction, as its partitions are told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Markers {
    pub producer_id: i64,
    pub epoch: i16,
    pub commit: bool,
    pub coordinator_epoch: i32,
}

/// Writes a marker to each partition and returns what became of it; all are flushed.
///
/// A coordinator of an epoch that neither this broker nor the partition has seen is none, and is refused:
/// after its marker the partition would refuse ours.
pub(crate) async fn write_markers(
    core: &Arc<Core>,
    end: &Markers,
    places: impl IntoIterator<Item = Place>,
) -> Vec<(Place, Result<(), Rejected>)> {
    let mut writing = Vec::new();
    for place in places {
        let outcome = match partition(core, &place) {
            None => refused(Rejected::Gone),
            Some(_) if end.coordinator_epoch > latest_epoch(core, end, &place) => {
                refused(Rejected::CoordinatorFenced)
            }
            Some(_) if is_offsets(&place) => core.groups.end_transaction(*end).await,
            Some(partition) => append_marker(core, end, partition),
        };
        writing.push((place, outcome));
    }
    let mut written = Vec::with_capacity(writing.len());
    for (place, outcome) in writing {
        let outcome = outcome.await.unwrap_or(Err(Rejected::Gone));
        written.push((place, outcome));
    }
    written
}

/// An outcome that is awaited.
pub(crate) type Outcome = oneshot::Receiver<Result<(), Rejected>>;

fn is_offsets(place: &Place) -> bool {
    &*place.0 == OFFSETS_TOPIC && place.1 == 0
}

fn partition(core: &Core, (topic, index): &Place) -> Option<Arc<Partition>> {
    core.topics.get(topic)?.partition(*index)
}

/// The latest epoch that a coordinator of the producer's transactions has had, as far as is known.
fn latest_epoch(core: &Core, end: &Markers, place: &Place) -> i32 {
    let ours = core.node.epoch();
    let producer = || partition(core, place)?.producer(end.producer_id);
    producer().map_or(ours, |producer| ours.max(producer.coordinator_epoch))
}

/// Whether a producer's transaction waits for its marker in a partition.
fn is_open(core: &Core, producer_id: i64, place: &Place) -> bool {
    let producer = || partition(core, place)?.producer(producer_id);
    producer().is_some_and(|producer| producer.transaction_start.is_some())
        || (is_offsets(place) && core.groups.is_open(producer_id))
}

fn refused(rejected: Rejected) -> Outcome {
    let (told, outcome) = oneshot::channel();
    _ = told.send(Err(rejected)); // the receiver is ours
    outcome
}

fn append_marker(core: &Arc<Core>, end: &Markers, partition: Arc<Partition>) -> Outcome {
    let (told, outcome) = oneshot::channel();
    let (done, appended) = oneshot::channel();
    core.writer.send(Append {
        partition,
        batches: end.batch(),
        origin: Origin::Coordinator,
        durable: true,
        done,
    });
    tokio::spawn(async move {
        let appended = appended.await.unwrap_or(Err(Rejected::Gone));
        _ = told.send(appended.map(|_| ())); // whoever asked may have left
    });
    outcome
}

impl Markers {
    /// Builds the control batch.
    pub(crate) fn batch(&self) -> bytes::Bytes {
        let marker = match self.commit {
            true => Marker::Commit,
            false => Marker::Abort,
        };
        let (id, epoch) = (self.producer_id, self.epoch);
        marker.batch(id, epoch, self.coordinator_epoch, clock::now_ms())
    }
}

/// Whether a marker has to be written again.
fn again(
    core: &Core,
    id: &str,
    end: &Markers,
    place: &Place,
    outcome: &Result<(), Rejected>,
) -> bool {
    let (topic, index) = place;
    match outcome {
        Ok(()) => false,
        // The topic was deleted; or everything is being closed, then the next start goes on.
        Err(Rejected::Gone) => partition(core, place).is_some(),
        // A newer producer or coordinator has ended this transaction there.
        Err(Rejected::InvalidEpoch | Rejected::CoordinatorFenced)
            if !is_open(core, end.producer_id, place) =>
        {
            warn!(%topic, index, id, "a transaction had ended before its marker was written");
            false
        }
        Err(rejected) => {
            warn!(%topic, index, id, %rejected, "a transaction's marker could not be written yet");
            true
        }
    }
}

/// Gives a producer its id and epoch; what the producer before it has left open is aborted.
pub(crate) async fn init(core: &Arc<Core>, init: Init) -> Result<(i64, i16), Refusal> {
    let rules = &core.transactions.rules;
    if init.id.is_empty() {
        return Err(Refusal::InvalidRequest);
    }
    if init.two_phase {
        return Err(Refusal::TwoPhase);
    }
    if init.keep_prepared {
        return Err(Refusal::KeepPrepared);
    }
    if init.timeout_ms <= 0 || init.timeout_ms > rules.timeout_max_ms {
        return Err(Refusal::InvalidTimeout);
    }
    let patience = Patience::new(core);
    let mut fresh = None;
    loop {
        let change = patience.listen();
        match start(core, &init, fresh) {
            Err(Refusal::NeedsId) => fresh = Some(fresh_id(core).await?),
            Err(Refusal::Concurrent) => patience.wait(change).await?,
            Err(refusal) => return Err(refusal),
            Ok((stored, aborts)) => {
                let stored = wait(stored).await?;
                if !aborts {
                    return Ok((stored.producer_id, stored.epoch));
                }
                patience.wait(change).await?;
            }
        }
    }
}

/// Begins a producer's start; the flag says that an abort was begun instead.
fn start(core: &Arc<Core>, init: &Init, fresh: Option<i64>) -> Result<(Stored, bool), Refusal> {
    let now = clock::now_ms();
    {
        let mut held = core.transactions.held.lock();
        if !held.contains_key(&init.id) {
            if held.len() >= IDS_MAX {
                warn!(
                    limit = IDS_MAX,
                    "too many transactional ids, a new one is refused"
                );
                return Err(Refusal::NotStored);
            }
            let fresh = fresh.ok_or(Refusal::NeedsId)?;
            held.insert(init.id.clone(), Transaction::new(fresh, now));
        }
    }
    let mut aborts = false;
    let stored = begin(core, &init.id, |found| {
        match found.start(now, init.timeout_ms, init.expected, fresh)? {
            Start::Store(next) => Ok(Some(next)),
            Start::Abort(next) => {
                aborts = true;
                Ok(Some(next))
            }
        }
    })?;
    Ok((stored.ok_or(Refusal::NotStored)?, aborts))
}

/// Draws a producer id that was never given out before.
pub(crate) async fn fresh_id(core: &Arc<Core>) -> Result<i64, Refusal> {
    let node = core.clone();
    match spawn_blocking(move || node.node.producer_id()).await {
        Ok(Ok(id)) => Ok(id),
        Ok(Err(error)) => {
            error!(%error, "could not reserve producer ids");
            Err(Refusal::NotStored)
        }
        Err(error) => {
            error!(%error, "could not reserve producer ids");
            Err(Refusal::NotStored)
        }
    }
}

/// Partitions join a producer's transaction; durable when this returns.
pub(crate) async fn add(
    core: &Arc<Core>,
    id: &str,
    (producer_id, epoch): (i64, i16),
    places: &BTreeSet<Place>,
    version: Version,
) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(Refusal::InvalidRequest);
    }
    let patience = Patience::new(core);
    loop {
        let change = patience.listen();
        let stored = begin(core, id, |found| {
            let next = found.add(clock::now_ms(), producer_id, epoch, places, version)?;
            Ok(to_store(next))
        });
        match stored {
            Err(Refusal::Concurrent) => patience.wait(change).await?,
            Err(refusal) => return Err(refusal),
            Ok(None) => return Ok(()),
            Ok(Some(stored)) => return wait(stored).await.map(|_| ()),
        }
    }
}

fn to_store(next: Next) -> Option<Metadata> {
    match next {
        Next::Done => None,
        Next::Store(next) => Some(next),
    }
}

/// Ends a producer's transaction; that is decided when this returns. Returns the id and epoch that the
/// producer goes on with.
pub(crate) async fn end(core: &Arc<Core>, id: &str, end: End) -> Result<(i64, i16), Refusal> {
    if id.is_empty() {
        return Err(Refusal::InvalidRequest);
    }
    let patience = Patience::new(core);
    let mut fresh = None;
    loop {
        let change = patience.listen();
        let now = clock::now_ms();
        match begin(core, id, |found| Ok(to_store(found.end(now, end, fresh)?))) {
            Err(Refusal::NeedsId) => fresh = Some(fresh_id(core).await?),
            Err(Refusal::Concurrent) => patience.wait(change).await?,
            Err(refusal) => return Err(refusal),
            Ok(None) => return Ok(identity(&core.transactions.get(id)?)),
            Ok(Some(stored)) => return Ok(identity(&wait(stored).await?)),
        }
    }
}

/// Goes on with what a stop has interrupted, then lets time pass until told to stop.
pub(crate) async fn run(core: Arc<Core>, stop: CancellationToken) {
    for (id, metadata) in core.transactions.all() {
        if metadata.state.is_prepared() {
            info!(%id, state = metadata.state.name(), "finishing a transaction");
            tokio::spawn(finish(core.clone(), id, metadata));
        }
    }
    let mut timeouts = time::interval(TIMEOUTS_CHECK);
    timeouts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut expiry = time::interval_at(Instant::now() + EXPIRY_CHECK, EXPIRY_CHECK);
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timeouts.tick() => {
                let now = clock::now_ms();
                let ended = sweep(&core, |found| found.tick(now)).await;
                if ended > 0 {
                    info!(transactions = ended, "aborted transactions that took too long");
                }
            }
            _ = expiry.tick() => {
                let (now, rules) = (clock::now_ms(), core.transactions.rules.clone());
                let expired = sweep(&core, |found| found.expire(now, &rules)).await;
                if expired > 0 {
                    info!(transactional_ids = expired, "forgot transactional ids that nobody uses");
                }
            }
        }
    }
}

/// Stores what `step` wants, for all transactions; returns how many there were.
async fn sweep(core: &Arc<Core>, step: impl Fn(&Transaction) -> Option<Metadata>) -> usize {
    let due: Vec<String> = {
        let held = core.transactions.held.lock();
        let due = held.iter().filter(|(_, one)| step(one).is_some());
        due.map(|(id, _)| id.clone()).collect()
    };
    let mut storing = JoinSet::new();
    for id in due {
        if let Ok(Some(stored)) = begin(core, &id, |found| Ok(step(found))) {
            storing.spawn(wait(stored));
        }
    }
    let mut count = 0;
    while let Some(outcome) = storing.join_next().await {
        count += usize::from(matches!(outcome, Ok(Ok(_))));
    }
    count
}
