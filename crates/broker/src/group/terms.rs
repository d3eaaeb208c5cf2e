//! What goes into the group machine and what comes out of it.

use bytes::Bytes;

use super::member::{Millis, Protocol, Ticket};

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody is in the group; it may still hold offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All have joined; the leader's assignment is awaited.
    CompletingRebalance,
    /// Everyone has an assignment.
    Stable,
}

impl State {
    /// The name that Kafka's tools show.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// Why the group refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the member is not known to the group")]
    UnknownMember,
    #[error("another member has taken over this instance id")]
    FencedInstance,
    #[error("the generation is not the current one")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("the member has no protocol in common with the group")]
    InconsistentProtocol,
    #[error("join again with the member id that is given here")]
    MemberIdRequired,
    #[error("the session timeout is outside of the allowed range")]
    InvalidSessionTimeout,
    #[error("the group has reached its largest size")]
    GroupFull,
    #[error("the group's state could not be stored")]
    NotStored,
    #[error("the group id is not valid")]
    InvalidGroupId,
    #[error("the group still has members")]
    NonEmpty,
    #[error("the group does not exist")]
    NotFound,
    #[error("the group is subscribed to the topic")]
    Subscribed,
    #[error("a newer instance of the producer has taken over")]
    FencedProducer,
    #[error("the member's epoch is not the one that the group knows")]
    FencedEpoch,
    #[error("the epoch is not the member's current one")]
    StaleEpoch,
    #[error("another member holds this instance id and has not released it")]
    UnreleasedInstance,
    #[error("the pattern of topics is not a valid regular expression")]
    InvalidPattern,
    #[error("members of this group must commit with version 9 or above")]
    OldCommit,
    #[error("the request is not valid")]
    InvalidRequest,
    #[error("the topology of the application is not valid")]
    InvalidTopology,
    #[error("a member's metadata or assignment is larger than the broker takes")]
    TooLarge,
}

/// Bounds and delays that hold for every group.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Waits this long for more members when an empty group is joined (`group.initial.rebalance.delay.ms`).
    pub initial_delay_ms: i64,
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.max.size`
    pub members_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            initial_delay_ms: 0,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            members_max: 10_000,
        }
    }
}

/// A request to take part in the next generation.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub ticket: Ticket,
    /// Empty for a member that has no id yet.
    pub member_id: String,
    /// The id that a member without one is given; it comes from outside because it is random.
    pub fresh_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
    /// Whether a dynamic member must come back with its id before it counts (JoinGroup 4).
    pub id_required: bool,
    /// Whether the leader may be told to keep the assignment (JoinGroup 9).
    pub may_skip_assignment: bool,
}

/// A request for the assignment; the leader brings it along.
#[derive(Debug, Clone)]
pub(crate) struct Sync {
    pub ticket: Ticket,
    pub member_id: String,
    pub instance_id: Option<String>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}

/// A generation as it is told to one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Everybody, for the leader; nobody for the others.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A member's part of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// What has to be done once a snapshot is durable; it comes back through [`Group::stored`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum After {
    /// The leader's assignment is handed out.
    Assign { generation: i32 },
    /// A static member that came back under a new id gets its answer.
    Replace { ticket: Ticket, joined: Joined },
    /// Nobody waits.
    Nothing,
}

/// What the machine wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Answer a join; a refusal carries the member id to answer with.
    Joined(Ticket, Result<Joined, (Refusal, String)>),
    /// Answer a sync.
    Synced(Ticket, Result<Synced, Refusal>),
    /// Make the group's state durable, then say so.
    Store(Snapshot, After),
}

/// The part of a group that outlives the process.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    pub protocol_type: Option<String>,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group came to its present state.
    pub since_ms: Millis,
    pub members: Vec<MemberSnapshot>,
}

/// One member within a [`Snapshot`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct MemberSnapshot {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}
