//! One member, and what it owns.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::group::member::{Millis, Protocol};
use crate::group::settings::Timing;

/// Partitions by topic id; no topic without partitions.
pub(crate) type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;
/// Partitions by topic id, each with the epoch of the assignment that gave it.
pub(crate) type Epochs = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// The epoch of a static member that has left for a while.
pub(crate) const AWAY: i32 = -2;

/// Where a member is on its way to the target, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Standing {
    /// It owns what it shall own as of its epoch.
    #[default]
    Stable = 0,
    /// It is asked to give up partitions, and is not known to have done so.
    Unrevoked = 1,
    /// It is at the target's epoch, but others still own some of what it shall have.
    Unreleased = 2,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    /// Set for static members: the name that outlives the member id.
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub topics: BTreeSet<String>,
    pub pattern: Option<String>,
    pub assignor: Option<String>,
    /// Set for members that speak the classic protocol.
    pub classic: Option<Classic>,
}

/// What a member says of itself in the classic protocol alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Classic {
    pub session_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
}

impl Profile {
    /// The pattern, unless there is none or an empty one, which matches nothing.
    pub(super) fn pattern(&self) -> Option<&str> {
        self.pattern
            .as_deref()
            .filter(|pattern| !pattern.is_empty())
    }
}

/// What a member has, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub epoch: i32,
    /// The epoch before: an answer with a new one may have been lost.
    pub previous_epoch: i32,
    pub standing: Standing,
    pub assigned: Epochs,
    /// What it has to give up; nobody else has it before that.
    pub revoking: Epochs,
}

impl Progress {
    /// True when nothing has to happen before the member is where the target wants it.
    pub(super) fn has_arrived(&self, target_epoch: i32) -> bool {
        self.standing == Standing::Stable && self.epoch == target_epoch
    }

    /// Goes to an epoch, which may be the same.
    pub(super) fn enter(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    /// Every partition that nobody else may have now.
    pub(super) fn held(&self) -> impl Iterator<Item = (Uuid, i32)> {
        let both = self.assigned.iter().chain(&self.revoking);
        both.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    /// The epoch of the assignment that gave a partition, while the member has it.
    pub(super) fn epoch_of(&self, topic: Uuid, partition: i32) -> Option<i32> {
        let find = |epochs: &Epochs| epochs.get(&topic)?.get(&partition).copied();
        find(&self.assigned).or_else(|| find(&self.revoking))
    }
}

/// One member, from its first heartbeat to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Member {
    pub profile: Profile,
    pub progress: Progress,
    /// When the member is given up unless it is heard from before.
    pub expires_at: Millis,
    /// When it is given up unless it has given up its partitions.
    pub revoke_until: Option<Millis>,
    /// When a member of the classic protocol is given up unless it joins again, as it was told to.
    pub join_until: Option<Millis>,
    /// When a member of the classic protocol is given up unless it asks for its assignment.
    pub sync_until: Option<Millis>,
}

impl Member {
    /// How long it may be silent.
    pub(super) fn session_timeout_ms(&self, timing: Timing) -> i32 {
        let classic = self.profile.classic.as_ref();
        classic.map_or(timing.session_timeout_ms, |classic| {
            classic.session_timeout_ms
        })
    }

    /// When it is given up if nothing is heard of it.
    pub(super) fn due_at(&self) -> Millis {
        let limits = [self.revoke_until, self.join_until, self.sync_until];
        let limits = limits.into_iter().flatten();
        limits.fold(self.expires_at, Millis::min)
    }
}

/// Leaves the epochs out.
pub(crate) fn partitions(epochs: &Epochs) -> Partitions {
    epochs
        .iter()
        .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect()))
        .collect()
}
