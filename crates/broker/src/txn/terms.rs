//! What a transaction is made of, and the words in which it is refused.

use std::collections::BTreeSet;

use crate::group::coordinator::Place;

/// Milliseconds since 1970.
pub(crate) type Millis = i64;

/// A producer id that is none.
pub(crate) const NO_PRODUCER: i64 = -1;
/// A producer epoch that is none.
pub(crate) const NO_EPOCH: i16 = -1;
/// The last epoch that a client may have: one more is kept for fencing it.
pub(crate) const EPOCH_MAX: i16 = i16::MAX - 1;

/// Where a transactional id is in its life; the numbers are those of Kafka's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing was written since the producer's start.
    Empty,
    /// Partitions take part.
    Ongoing,
    /// It will be committed, whatever happens.
    PrepareCommit,
    /// It will be aborted, whatever happens.
    PrepareAbort,
    /// All markers are written.
    CompleteCommit,
    /// All markers are written.
    CompleteAbort,
    /// The transactional id is being forgotten.
    Dead,
    /// The producer is being fenced; never stored.
    PrepareEpochFence,
}

impl State {
    pub(crate) const ALL: [State; 8] = [
        State::Empty,
        State::Ongoing,
        State::PrepareCommit,
        State::PrepareAbort,
        State::CompleteCommit,
        State::CompleteAbort,
        State::Dead,
        State::PrepareEpochFence,
    ];

    /// The number in Kafka's log.
    pub(crate) fn number(self) -> i8 {
        self as i8
    }

    /// The name that Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
            State::Dead => "Dead",
            State::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// Whether markers are to be written.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, State::PrepareCommit | State::PrepareAbort)
    }

    /// Whether nothing is open, so that the id may be forgotten or a transaction begin.
    pub(crate) fn is_settled(self) -> bool {
        matches!(
            self,
            State::Empty | State::CompleteCommit | State::CompleteAbort
        )
    }
}

/// The protocol that a client speaks about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// The producer keeps its epoch from one transaction to the next.
    V1,
    /// Each end raises the epoch, so that nothing late can hit the next transaction (KIP-890).
    V2,
}

impl Version {
    /// `transaction.version`, as it is in the log.
    pub(crate) fn number(self) -> i16 {
        match self {
            Version::V1 => 0,
            Version::V2 => 2,
        }
    }
}

/// All that is known of a transactional id; what is durable of it is in `__transaction_state`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub producer_id: i64,
    /// The id before the last one, when that had no epochs left.
    pub previous_producer_id: i64,
    /// The id that follows when the transaction has ended, when this one has no epochs left.
    pub next_producer_id: i64,
    pub epoch: i16,
    /// The epoch before, when its producer may ask for the present one again; not stored.
    pub last_epoch: i16,
    pub timeout_ms: i32,
    pub state: State,
    pub places: BTreeSet<Place>,
    pub started_at: Millis,
    pub updated_at: Millis,
    pub version: Version,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request contradicts itself")]
    InvalidRequest,
    #[error("the transactional id has another producer id")]
    UnknownMapping,
    #[error("a newer instance of the producer has taken over")]
    Fenced,
    #[error("an earlier step of the transaction is not done yet")]
    Concurrent,
    #[error("the transaction is not in a state for this")]
    InvalidState,
    #[error("the transaction's timeout is larger than the broker allows")]
    InvalidTimeout,
    #[error("the partition is not part of the transaction")]
    NotInTransaction,
    #[error("the transaction's state could not be stored")]
    NotStored,
    #[error("the transactional id is not known")]
    NotFound,
    #[error("two-phase commit is not enabled")]
    TwoPhase,
    #[error("prepared transactions are not kept")]
    KeepPrepared,
    /// Not for clients: the step is tried again with a fresh producer id.
    #[error("a fresh producer id is needed")]
    NeedsId,
}

/// Bounds that hold for all transactions.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// `transaction.max.timeout.ms`
    pub timeout_max_ms: i32,
    /// `transactional.id.expiration.ms`
    pub expiration_ms: Millis,
}
