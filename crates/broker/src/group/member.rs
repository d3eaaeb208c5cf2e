//! One member of a group, and what it said when it joined.

use bytes::Bytes;

/// Milliseconds of the clock that drives the group.
pub(crate) type Millis = i64;

/// Names a waiting request, so that its answer finds it.
pub(crate) type Ticket = u64;

/// One way of assigning partitions that a member knows, with what it told about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// One member, from its first join to its end.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub id: String,
    /// Set for static members: the name that outlives the member id.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// When the member is given up unless it is heard from before.
    pub expires_at: Millis,
    /// The join that waits for the generation to begin.
    pub(super) joining: Option<Ticket>,
    /// The sync that waits for the leader's assignment.
    pub(super) syncing: Option<Ticket>,
    /// True until the first generation that this member is part of has begun.
    pub(super) is_new: bool,
    /// True from the beginning of a generation until the member has asked for its assignment.
    pub(super) sync_due: bool,
    /// The generation that it knows, from before the group came back to the classic protocol, until the next begins.
    pub(super) carried: Option<i32>,
}

impl Member {
    /// What the member told for `protocol`; empty when it does not know it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|known| known.name == protocol)
            .map(|known| known.metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|known| known.name == protocol)
    }

    pub(super) fn heard(&mut self, now: Millis) {
        self.expires_at = now + Millis::from(self.session_timeout_ms);
    }
}
