//! One member's next step towards the target: give up first, then take.
//!
//! ```text
//!            newer target takes something away           reported without it
//! Stable ───────────────────────────────────▶ Unrevoked ─────────────────────┐
//!   ▲  └── newer target ──┐                                                  │
//!   │                     ▼                  all of the target is free       │
//!   └─────────────── next assignment ◀──────────────────────────── Unreleased│
//!                         ▲  │ others still own some of it            ▲      │
//!                         │  └────────────────────────────────────────┘      │
//!                         └──────────────────────────────────────────────────┘
//! ```

use std::collections::BTreeSet;

use uuid::Uuid;

use super::member::{Epochs, Partitions, Progress, Standing};

/// What a member goes towards, and what it goes by.
pub(super) struct Towards<'a> {
    pub target_epoch: i32,
    pub target: &'a Partitions,
    /// The topics that it reads, as of now.
    pub subscribed: &'a BTreeSet<Uuid>,
    /// Whether that has changed with this heartbeat: what it does not read any more has to go at once.
    pub subscription_changed: bool,
    /// What the member says that it owns; `None` when it says nothing.
    pub reported: Option<&'a Partitions>,
    /// Whether nobody but this member has a partition.
    pub is_free: &'a dyn Fn(Uuid, i32) -> bool,
}

impl Towards<'_> {
    /// Takes one step.
    pub(super) fn step(&self, progress: &mut Progress) {
        match progress.standing {
            Standing::Stable if progress.epoch != self.target_epoch => self.next(progress),
            Standing::Stable if self.subscription_changed => self.drop_unsubscribed(progress),
            Standing::Stable => (),
            Standing::Unrevoked if self.still_owns(&progress.revoking) => {
                if self.subscription_changed {
                    self.drop_unsubscribed(progress);
                }
            }
            Standing::Unrevoked | Standing::Unreleased => self.next(progress),
        }
    }

    /// Whether the member may still own some of these; without a report it may.
    fn still_owns(&self, some: &Epochs) -> bool {
        let Some(reported) = self.reported else {
            return true;
        };
        some.iter().any(|(topic, partitions)| {
            reported
                .get(topic)
                .is_some_and(|owned| partitions.keys().any(|one| owned.contains(one)))
        })
    }

    fn drop_unsubscribed(&self, progress: &mut Progress) {
        let (kept, dropped): (Epochs, Epochs) = progress
            .assigned
            .clone()
            .into_iter()
            .partition(|(topic, _)| self.subscribed.contains(topic));
        if dropped.is_empty() {
            return;
        }
        progress.assigned = kept;
        let mut revoking = progress.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        if self.still_owns(&revoking) {
            progress.standing = Standing::Unrevoked;
            progress.revoking = revoking;
        }
        progress.enter(progress.epoch);
    }

    fn next(&self, progress: &mut Progress) {
        let mut assigned = Epochs::new();
        let mut revoking = Epochs::new();
        for (topic, partitions) in &progress.assigned {
            for (partition, epoch) in partitions {
                let kept = self.wants(*topic, *partition);
                let side = if kept { &mut assigned } else { &mut revoking };
                side.entry(*topic).or_default().insert(*partition, *epoch);
            }
        }
        if !revoking.is_empty() && self.still_owns(&revoking) {
            progress.standing = Standing::Unrevoked;
            progress.enter(progress.epoch);
            progress.assigned = assigned;
            progress.revoking = revoking;
            return;
        }
        let mut waits = false;
        for (topic, partitions) in self.target {
            if !self.subscribed.contains(topic) {
                continue;
            }
            for partition in partitions {
                if progress.epoch_of(*topic, *partition).is_none()
                    && !(self.is_free)(*topic, *partition)
                {
                    waits = true;
                    continue;
                }
                let owned = assigned.entry(*topic).or_default();
                owned.entry(*partition).or_insert(self.target_epoch);
            }
        }
        progress.standing = match waits {
            true => Standing::Unreleased,
            false => Standing::Stable,
        };
        progress.enter(self.target_epoch);
        progress.assigned = assigned;
        progress.revoking = Epochs::new();
    }

    fn wants(&self, topic: Uuid, partition: i32) -> bool {
        self.subscribed.contains(&topic)
            && self
                .target
                .get(&topic)
                .is_some_and(|partitions| partitions.contains(&partition))
    }
}
