//! What goes into the machine and what comes out of it.

use super::member::{Member, Partitions};
use crate::group::terms::Refusal;

/// What a member says of itself, and that it is alive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub member_id: String,
    /// 0 to come in, else the epoch that it was told last.
    pub epoch: i32,
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// From here on, `None` says that nothing has changed.
    pub rebalance_timeout_ms: Option<i32>,
    pub topics: Option<Vec<String>>,
    pub pattern: Option<String>,
    pub assignor: Option<String>,
    pub owned: Option<Partitions>,
}

impl Beat {
    /// True when the member tells everything: it comes in, or has lost an answer.
    pub(super) fn is_full(&self) -> bool {
        self.rebalance_timeout_ms.is_some()
            && (self.topics.is_some() || self.pattern.is_some())
            && self.owned.is_some()
    }
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Beaten {
    pub member_id: String,
    pub epoch: i32,
    pub heartbeat_interval_ms: i32,
    /// What it may own; `None` when that has not changed.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused, in words where the refusal alone does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub refusal: Refusal,
    pub why: String,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            why: refusal.to_string(),
        }
    }
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody is in the group.
    Empty,
    /// The target is older than the group.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Everyone has what the target gives.
    Stable,
}

impl State {
    /// The name that Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Assigning => "Assigning",
            State::Reconciling => "Reconciling",
            State::Stable => "Stable",
        }
    }
}

/// A group as it is told to whoever asks.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub state: State,
    pub epoch: i32,
    pub target_epoch: i32,
    pub assignor: String,
    /// Each with its id and what the target gives it.
    pub members: Vec<(String, Member, Partitions)>,
}
