//! One member's next step towards the target: give up first, then take.
//!
//! An active task is free when no process has it. In any role, a task is free for a process only when that process does
//! not have it already: its files on disk are the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::member::{Epochs, Member, Owned, Progress, Roles, Standing, Tasks};

/// Which process has each task, those that are being given up included.
#[derive(Debug, Default)]
pub(super) struct Holders<'a> {
    active: HashMap<(&'a str, i32), &'a str>,
    /// Tasks that stand by or warm up.
    copies: HashSet<(&'a str, i32, &'a str)>,
}

impl<'a> Holders<'a> {
    pub(super) fn of(members: &'a BTreeMap<String, Member>) -> Self {
        let mut holders = Self::default();
        for member in members.values() {
            let process = member.profile.process_id.as_str();
            for owned in [&member.progress.assigned, &member.progress.revoking] {
                for (part, tasks) in &owned.active {
                    let each = tasks.keys().map(|task| ((part.as_str(), *task), process));
                    holders.active.extend(each);
                }
                for (part, tasks) in owned.standby.iter().chain(&owned.warmup) {
                    let each = tasks.iter().map(|task| (part.as_str(), *task, process));
                    holders.copies.extend(each);
                }
            }
        }
        holders
    }

    fn has_copy(&self, part: &str, task: i32, process: &str) -> bool {
        self.copies.contains(&(part, task, process))
    }

    fn is_free(&self, part: &str, task: i32, process: &str) -> bool {
        !self.active.contains_key(&(part, task)) && !self.has_copy(part, task, process)
    }

    fn is_free_for_copy(&self, part: &str, task: i32, process: &str) -> bool {
        self.active.get(&(part, task)) != Some(&process) && !self.has_copy(part, task, process)
    }
}

/// What a member goes towards, and what it goes by.
pub(super) struct Towards<'a> {
    pub target_epoch: i32,
    pub target: &'a Roles,
    pub process: &'a str,
    /// What the member says that it runs; `None` when it says nothing.
    pub reported: Option<&'a Roles>,
    pub holders: &'a Holders<'a>,
}

/// What of a role stays, goes, comes, and whether there is more that cannot come yet.
#[derive(Default)]
struct Difference {
    kept: Tasks,
    revoking: Tasks,
    coming: Tasks,
    waits: bool,
}

impl Towards<'_> {
    /// Takes one step.
    pub(super) fn step(&self, progress: &mut Progress) {
        match progress.standing {
            Standing::Stable if progress.epoch == self.target_epoch => (),
            Standing::Unrevoked if self.still_runs(&progress.revoking.plain()) => (),
            // It has given up what it was told to, and is one epoch further.
            Standing::Unrevoked => self.next(progress, progress.epoch + 1),
            Standing::Stable | Standing::Unreleased => self.next(progress, progress.epoch),
        }
    }

    /// Whether the member may still run some of these; without a report it may.
    fn still_runs(&self, some: &Roles) -> bool {
        self.reported.is_none_or(|reported| reported.has_any(some))
    }

    fn next(&self, progress: &mut Progress, epoch: i32) {
        let (holders, process) = (self.holders, self.process);
        let assigned = progress.assigned.plain();
        let target = self.target;
        let active = differ(&assigned.active, &target.active, |part, task| {
            holders.is_free(part, task, process)
        });
        let copy = |part: &str, task| holders.is_free_for_copy(part, task, process);
        let standby = differ(&assigned.standby, &target.standby, copy);
        let warmup = differ(&assigned.warmup, &target.warmup, copy);
        let revoking = Roles {
            active: active.revoking,
            standby: standby.revoking,
            warmup: warmup.revoking,
        };
        let none = revoking == Roles::default();
        let epochs = |tasks: &Tasks| -> Epochs {
            let each = tasks.iter().map(|(part, tasks)| {
                let epoch = |task: &i32| progress.epoch_of(part, *task);
                let tasks = tasks.iter();
                let tasks = tasks.map(|task| (*task, epoch(task).unwrap_or(self.target_epoch)));
                (part.clone(), tasks.collect())
            });
            each.collect()
        };
        let (epoch, standing, assigned, revoking) = if !none && self.still_runs(&revoking) {
            let assigned = Owned {
                active: epochs(&active.kept),
                standby: standby.kept,
                warmup: warmup.kept,
            };
            let revoking = Owned {
                active: epochs(&revoking.active),
                standby: revoking.standby,
                warmup: revoking.warmup,
            };
            (epoch, Standing::Unrevoked, assigned, revoking)
        } else {
            let assigned = Owned {
                active: epochs(&merged(active.kept, active.coming)),
                standby: merged(standby.kept, standby.coming),
                warmup: merged(warmup.kept, warmup.coming),
            };
            let standing = match active.waits || standby.waits || warmup.waits {
                true => Standing::Unreleased,
                false => Standing::Stable,
            };
            (self.target_epoch, standing, assigned, Owned::default())
        };
        *progress = Progress {
            epoch,
            previous_epoch: progress.epoch,
            standing,
            assigned,
            revoking,
        };
    }
}

fn differ(current: &Tasks, target: &Tasks, is_free: impl Fn(&str, i32) -> bool) -> Difference {
    let mut all = Difference::default();
    let parts: BTreeSet<&String> = current.keys().chain(target.keys()).collect();
    let nothing = BTreeSet::new();
    for part in parts {
        let has = current.get(part).unwrap_or(&nothing);
        let shall = target.get(part).unwrap_or(&nothing);
        for task in has {
            let side = match shall.contains(task) {
                true => &mut all.kept,
                false => &mut all.revoking,
            };
            side.entry(part.clone()).or_default().insert(*task);
        }
        for task in shall.difference(has) {
            match is_free(part, *task) {
                true => _ = all.coming.entry(part.clone()).or_default().insert(*task),
                false => all.waits = true,
            }
        }
    }
    all
}

fn merged(mut left: Tasks, right: Tasks) -> Tasks {
    for (part, tasks) in right {
        left.entry(part).or_default().extend(tasks);
    }
    left
}
