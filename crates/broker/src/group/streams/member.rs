//! One member of a streams group, and the tasks that it has.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::member::Millis;

/// Tasks by part of the topology: one for each partition. No part without tasks.
pub(crate) type Tasks = BTreeMap<String, BTreeSet<i32>>;
/// Tasks, each with the epoch of the assignment that gave it.
pub(crate) type Epochs = BTreeMap<String, BTreeMap<i32, i32>>;

/// Tasks by what is done with them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Roles<A = Tasks> {
    pub active: A,
    /// Copies of the state that are kept up to date elsewhere.
    pub standby: Tasks,
    /// Copies that are on their way to be active.
    pub warmup: Tasks,
}

/// What a member has.
pub(crate) type Owned = Roles<Epochs>;

impl Owned {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Leaves the epochs out.
    pub(crate) fn plain(&self) -> Roles {
        Roles {
            active: plain(&self.active),
            standby: self.standby.clone(),
            warmup: self.warmup.clone(),
        }
    }
}

impl Roles {
    /// Says whether some of these are among others, in the same role.
    pub(super) fn has_any(&self, others: &Roles) -> bool {
        let any = |mine: &Tasks, others: &Tasks| {
            others
                .iter()
                .any(|(part, some)| mine.get(part).is_some_and(|mine| !mine.is_disjoint(some)))
        };
        any(&self.active, &others.active)
            || any(&self.standby, &others.standby)
            || any(&self.warmup, &others.warmup)
    }

    /// Says whether all of these are among others, in the same role.
    pub(super) fn is_within(&self, others: &Roles) -> bool {
        let all = |mine: &Tasks, others: &Tasks| {
            mine.iter().all(|(part, some)| {
                some.is_empty()
                    || others
                        .get(part)
                        .is_some_and(|others| some.is_subset(others))
            })
        };
        all(&self.active, &others.active)
            && all(&self.standby, &others.standby)
            && all(&self.warmup, &others.warmup)
    }
}

/// Leaves the epochs out.
pub(super) fn plain(epochs: &Epochs) -> Tasks {
    let each = epochs.iter();
    each.map(|(part, tasks)| (part.clone(), tasks.keys().copied().collect()))
        .collect()
}

/// Where a member is on its way to the target, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Standing {
    /// It runs what it shall run as of its epoch.
    #[default]
    Stable = 1,
    /// It is asked to give up tasks, and is not known to have done so.
    Unrevoked = 2,
    /// It is at the target's epoch, but others still have some of what it shall run.
    Unreleased = 3,
}

/// What a member says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub topology_epoch: i32,
    /// The process that it is a thread of: copies of a task never share one.
    pub process_id: String,
    /// Where others may ask the application about its state.
    pub endpoint: Option<(String, u16)>,
    pub tags: BTreeMap<String, String>,
}

/// One member, from its first heartbeat to its end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Member {
    pub profile: Profile,
    pub progress: Progress,
    /// When the member is given up unless it is heard from before.
    pub expires_at: Millis,
    /// When it is given up unless it has given up its tasks.
    pub revoke_until: Option<Millis>,
}

/// What a member has, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub epoch: i32,
    /// The epoch before: an answer with a new one may have been lost.
    pub previous_epoch: i32,
    pub standing: Standing,
    pub assigned: Owned,
    /// What it has to give up.
    pub revoking: Owned,
}

impl Progress {
    /// True when nothing has to happen before the member is where the target wants it.
    pub(super) fn has_arrived(&self, target_epoch: i32) -> bool {
        self.standing == Standing::Stable && self.epoch == target_epoch
    }

    /// The epoch of the assignment that gave an active task, while the member has it.
    pub(super) fn epoch_of(&self, part: &str, task: i32) -> Option<i32> {
        let find = |owned: &Owned| owned.active.get(part)?.get(&task).copied();
        find(&self.assigned).or_else(|| find(&self.revoking))
    }
}
