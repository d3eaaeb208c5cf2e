//! The life of one transactional id as a pure state machine: `state + input + now → what to store`.
//!
//! ```text
//! Empty ──partitions──▶ Ongoing ──end──▶ PrepareCommit ──markers──▶ CompleteCommit ──┐
//!   ▲                    │   ▲    └────▶ PrepareAbort  ──markers──▶ CompleteAbort ───┤
//!   │                    │   └──────────────────partitions───────────────────────────┤
//!   └────────────────────┼──────────────── a producer starts ────────────────────────┘
//!                        └─ a producer starts, or time is up: the epoch is raised ─▶ PrepareAbort
//! ```
//! A step is told once it is durable: [`Transaction::begin`] holds off all others until
//! [`Transaction::stored`] or [`Transaction::lost`]. The order of checks and the errors are Apache Kafka's.

use std::collections::BTreeSet;

use super::terms::{
    EPOCH_MAX, Metadata, Millis, NO_EPOCH, NO_PRODUCER, Refusal, Rules, State, Version,
};
use crate::group::coordinator::Place;

/// One transactional id.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    now: Metadata,
    /// The state that is being stored.
    pending: Option<State>,
}

/// What follows from a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// It was done before.
    Done,
    /// This has to be stored first.
    Store(Metadata),
}

/// What follows when a producer starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Start {
    /// The producer gets this id and epoch, once that is stored.
    Store(Metadata),
    /// The transaction of the producer before has to be aborted first.
    Abort(Metadata),
}

/// The end of a transaction, as a producer asks for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub producer_id: i64,
    pub epoch: i16,
    pub commit: bool,
    pub version: Version,
}

impl Transaction {
    /// A transactional id that was never used.
    pub(crate) fn new(producer_id: i64, now: Millis) -> Self {
        Self {
            now: Metadata {
                producer_id,
                previous_producer_id: NO_PRODUCER,
                next_producer_id: NO_PRODUCER,
                epoch: NO_EPOCH,
                last_epoch: NO_EPOCH,
                timeout_ms: 0,
                state: State::Empty,
                places: BTreeSet::new(),
                started_at: -1,
                updated_at: now,
                version: Version::V1,
            },
            pending: None,
        }
    }

    /// Brings one back after a restart.
    pub(crate) fn restore(stored: Metadata) -> Self {
        Self {
            now: stored,
            pending: None,
        }
    }

    pub(crate) fn metadata(&self) -> &Metadata {
        &self.now
    }

    /// Whether a step is being stored.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Begins to store a step; no other may begin before it has ended.
    pub(crate) fn begin(&mut self, next: &Metadata) {
        self.pending = Some(next.state);
    }

    /// Hears that a step is durable.
    pub(crate) fn stored(&mut self, next: Metadata) {
        self.now = next;
        self.pending = None;
    }

    /// Hears that a step could not be stored.
    pub(crate) fn lost(&mut self) {
        self.pending = None;
    }

    /// Whether this id has no epoch left that a client may have.
    fn exhausted(&self) -> bool {
        self.now.epoch >= EPOCH_MAX
    }

    /// A producer starts (InitProducerId), or goes on after an error with the id and epoch that it
    /// expects to have (KIP-360).
    pub(crate) fn start(
        &self,
        now: Millis,
        timeout_ms: i32,
        expected: Option<(i64, i16)>,
        fresh: Option<i64>,
    ) -> Result<Start, Refusal> {
        if self.is_pending() {
            return Err(Refusal::Concurrent);
        }
        let ours = &self.now;
        let known = |(producer_id, epoch): (i64, i16)| {
            ours.epoch == NO_EPOCH
                || producer_id == ours.producer_id
                || (producer_id == ours.previous_producer_id && epoch >= EPOCH_MAX)
        };
        if !expected.is_none_or(known) {
            return Err(Refusal::Fenced);
        }
        match ours.state {
            State::PrepareCommit | State::PrepareAbort => return Err(Refusal::Concurrent),
            State::Ongoing => return Ok(Start::Abort(self.fence(now))),
            State::Dead | State::PrepareEpochFence => return Err(Refusal::NotStored),
            State::Empty | State::CompleteCommit | State::CompleteAbort => (),
        }
        let expected = expected.map(|(_, epoch)| epoch);
        let mut next = Metadata {
            state: State::Empty,
            timeout_ms,
            places: BTreeSet::new(),
            started_at: -1,
            updated_at: now,
            ..ours.clone()
        };
        // The last epoch was for fencing: whoever was fenced by it may go on, but under another id.
        let fenced = |epoch| epoch == ours.last_epoch && ours.epoch > EPOCH_MAX;
        if self.exhausted() && expected.is_none_or(|epoch| epoch == ours.epoch || fenced(epoch)) {
            next.producer_id = fresh.ok_or(Refusal::NeedsId)?;
            next.previous_producer_id = ours.producer_id;
            next.epoch = 0;
            next.last_epoch = expected.unwrap_or(NO_EPOCH);
            return Ok(Start::Store(next));
        }
        (next.epoch, next.last_epoch) = match expected {
            None => (ours.epoch + 1, NO_EPOCH),
            Some(epoch) if ours.epoch == NO_EPOCH || epoch == ours.epoch => {
                (ours.epoch + 1, ours.epoch)
            }
            // It asks again, because our answer did not arrive.
            Some(epoch) if epoch == ours.last_epoch => (ours.epoch, ours.last_epoch),
            Some(_) => return Err(Refusal::Fenced),
        };
        Ok(Start::Store(next))
    }

    /// Raises the epoch, so that the producer is refused from now on, and aborts what it has begun.
    fn fence(&self, now: Millis) -> Metadata {
        Metadata {
            state: State::PrepareAbort,
            epoch: self.now.epoch.saturating_add(1),
            last_epoch: self.now.epoch,
            next_producer_id: NO_PRODUCER,
            updated_at: now,
            version: Version::V2,
            ..self.now.clone()
        }
    }

    /// Partitions take part in the transaction, which begins if none is open.
    pub(crate) fn add(
        &self,
        now: Millis,
        producer_id: i64,
        epoch: i16,
        places: &BTreeSet<Place>,
        version: Version,
    ) -> Result<Next, Refusal> {
        if self.is_pending() {
            return Err(Refusal::Concurrent);
        }
        self.owned_by(producer_id, epoch)?;
        let ours = &self.now;
        if ours.state.is_prepared() {
            return Err(Refusal::Concurrent);
        }
        if ours.state == State::Ongoing && places.is_subset(&ours.places) {
            return Ok(Next::Done);
        }
        let mut next = ours.clone();
        if ours.state.is_settled() {
            next.started_at = now;
        }
        next.state = State::Ongoing;
        next.places.extend(places.iter().cloned());
        next.updated_at = now;
        next.version = version;
        Ok(Next::Store(next))
    }

    fn owned_by(&self, producer_id: i64, epoch: i16) -> Result<(), Refusal> {
        if self.now.producer_id != producer_id {
            return Err(Refusal::UnknownMapping);
        }
        if self.now.epoch != epoch {
            return Err(Refusal::Fenced);
        }
        Ok(())
    }

    /// Checks that a producer may write to a partition: it is part of its open transaction.
    pub(crate) fn verify(
        &self,
        producer_id: i64,
        epoch: i16,
        place: &Place,
    ) -> Result<(), Refusal> {
        // More partitions may be joining at this moment; what is in already stays in.
        if self.pending.is_some_and(|state| state != State::Ongoing) {
            return Err(Refusal::Concurrent);
        }
        self.owned_by(producer_id, epoch)?;
        if self.now.state.is_prepared() {
            return Err(Refusal::Concurrent);
        }
        if self.now.state == State::Ongoing && self.now.places.contains(place) {
            return Ok(());
        }
        match self.pending {
            Some(_) => Err(Refusal::Concurrent),
            None => Err(Refusal::NotInTransaction),
        }
    }

    /// The producer ends its transaction.
    pub(crate) fn end(&self, now: Millis, end: End, fresh: Option<i64>) -> Result<Next, Refusal> {
        match end.version {
            Version::V1 => self.end_v1(now, end),
            Version::V2 => self.end_v2(now, end, fresh),
        }
    }

    fn end_v1(&self, now: Millis, end: End) -> Result<Next, Refusal> {
        self.owned_by(end.producer_id, end.epoch)?;
        if self.is_pending() {
            return Err(Refusal::Concurrent);
        }
        match (self.now.state, end.commit) {
            (State::Ongoing, commit) => Ok(Next::Store(Metadata {
                state: prepared(commit),
                updated_at: now,
                version: Version::V1,
                ..self.now.clone()
            })),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(Next::Done),
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => Err(Refusal::Concurrent),
            _ => Err(Refusal::InvalidState),
        }
    }

    fn end_v2(&self, now: Millis, end: End, fresh: Option<i64>) -> Result<Next, Refusal> {
        if self.is_pending() {
            return Err(Refusal::Concurrent);
        }
        let ours = &self.now;
        // The end that raised the epoch is asked for again, because our answer did not arrive.
        // The very last epoch came of fencing and is given to nobody.
        let again = i32::from(ours.epoch) == i32::from(end.epoch) + 1 && ours.epoch <= EPOCH_MAX;
        let again_over_id = ours.previous_producer_id == end.producer_id
            && end.epoch == EPOCH_MAX
            && ours.epoch == 0;
        if ours.producer_id != end.producer_id && !again_over_id {
            return Err(Refusal::UnknownMapping);
        }
        let valid = match ours.state {
            State::PrepareCommit | State::PrepareAbort => again,
            State::CompleteCommit | State::CompleteAbort => {
                again || again_over_id || end.epoch == ours.epoch
            }
            _ => end.epoch == ours.epoch,
        };
        if !valid {
            return Err(Refusal::Fenced);
        }
        let again = again || again_over_id;
        match (ours.state, end.commit) {
            (State::Ongoing, commit) => self.prepare_v2(now, commit, fresh),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if again => {
                Ok(Next::Done)
            }
            // A transaction without a partition: the producer only wants to be sure.
            (State::CompleteCommit | State::CompleteAbort | State::Empty, false) if !again => {
                self.prepare_v2(now, false, fresh)
            }
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => Err(Refusal::Concurrent),
            _ => Err(Refusal::InvalidState),
        }
    }

    fn prepare_v2(&self, now: Millis, commit: bool, fresh: Option<i64>) -> Result<Next, Refusal> {
        let ours = &self.now;
        let next_producer_id = match self.exhausted() {
            true => fresh.ok_or(Refusal::NeedsId)?,
            false => NO_PRODUCER,
        };
        Ok(Next::Store(Metadata {
            state: prepared(commit),
            epoch: ours.epoch.saturating_add(1),
            last_epoch: ours.epoch,
            next_producer_id,
            started_at: match ours.state {
                State::Ongoing => ours.started_at,
                _ => now,
            },
            updated_at: now,
            version: Version::V2,
            ..ours.clone()
        }))
    }

    /// All markers are written: what follows from that, if they were asked for.
    pub(crate) fn complete(&self, now: Millis) -> Option<Metadata> {
        let ours = &self.now;
        if !ours.state.is_prepared() || self.is_pending() {
            return None;
        }
        let mut next = Metadata {
            state: match ours.state {
                State::PrepareCommit => State::CompleteCommit,
                _ => State::CompleteAbort,
            },
            places: BTreeSet::new(),
            updated_at: now,
            ..ours.clone()
        };
        if ours.next_producer_id != NO_PRODUCER {
            next.previous_producer_id = ours.producer_id;
            next.producer_id = ours.next_producer_id;
            next.next_producer_id = NO_PRODUCER;
            next.epoch = 0;
        }
        Some(next)
    }

    /// Lets time pass: a transaction that takes too long is aborted and its producer fenced.
    pub(crate) fn tick(&self, now: Millis) -> Option<Metadata> {
        let ours = &self.now;
        let until = ours.started_at.saturating_add(i64::from(ours.timeout_ms));
        let late = ours.state == State::Ongoing && !self.is_pending() && until < now;
        late.then(|| self.fence(now))
    }

    /// Returns what is to be stored to forget an id that nobody has used for long.
    pub(crate) fn expire(&self, now: Millis, rules: &Rules) -> Option<Metadata> {
        let ours = &self.now;
        let until = ours.updated_at.saturating_add(rules.expiration_ms);
        let idle = ours.state.is_settled() && !self.is_pending() && until <= now;
        idle.then(|| Metadata {
            state: State::Dead,
            places: BTreeSet::new(),
            ..ours.clone()
        })
    }
}

/// The producer id and epoch that a producer goes on with after this end.
pub(crate) fn identity(ended: &Metadata) -> (i64, i16) {
    match ended.next_producer_id {
        NO_PRODUCER => (ended.producer_id, ended.epoch),
        next => (next, 0),
    }
}

fn prepared(commit: bool) -> State {
    match commit {
        true => State::PrepareCommit,
        false => State::PrepareAbort,
    }
}
