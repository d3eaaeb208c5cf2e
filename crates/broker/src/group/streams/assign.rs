//! Who shall run which tasks (`sticky`): where they ran before if that is even, then where least is run.
//!
//! Members are the threads of processes. Load is counted by process, as tasks for each of its members; two copies of a
//! task never come to one process. The order of the steps is that of Apache Kafka's assignor of the same name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::member::{Roles, Tasks};
use super::topology::Part;

/// A member as the assignor sees it.
#[derive(Debug, Clone)]
pub(crate) struct Runner<'a> {
    pub process: &'a str,
    pub before: Option<&'a Roles>,
}

/// A task: a part of the topology and a partition.
type Task<'a> = (&'a str, i32);

/// Returns what each member shall run, in their order.
pub(crate) fn assign(
    runners: &[Runner<'_>],
    parts: &BTreeMap<String, Part>,
    standbys: usize,
) -> Vec<Roles> {
    let mut sharing = Sharing::new(runners, parts, standbys);
    if runners.is_empty() {
        return Vec::new();
    }
    let tasks = |stateful: bool| -> Vec<Task<'_>> {
        let parts = parts.iter().filter(|(_, part)| part.stateful || !stateful);
        parts
            .flat_map(|(id, part)| (0..part.tasks).map(|task| (id.as_str(), task)))
            .collect()
    };
    sharing.share_active(tasks(false));
    if standbys > 0 {
        sharing.share_standbys(tasks(true), standbys);
    }
    sharing.shares
}

/// How many tasks a member may have before others come first; what is left is shared out anew among those below it.
struct Quota {
    tasks: usize,
    members: usize,
    each: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        let each = match members {
            0 => 0,
            members => tasks.div_ceil(members),
        };
        Self {
            tasks,
            members,
            each,
        }
    }

    /// Hears how many tasks a member has now.
    fn note(&mut self, tasks: usize) {
        if tasks == self.each && self.members > 0 {
            let left = self.tasks.saturating_sub(tasks);
            *self = Self::new(left, self.members - 1);
        }
    }
}

struct Process<'a> {
    members: Vec<usize>,
    tasks: HashSet<Task<'a>>,
    count: usize,
}

impl Process<'_> {
    /// Tasks for each member, in an order that numbers have too.
    fn load(&self) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "nobody has that many tasks")]
        let load = self.count as f64 / self.members.len() as f64;
        load.to_bits() // loads are not negative
    }
}

struct Sharing<'a> {
    /// The process of each member.
    homes: Vec<usize>,
    processes: Vec<Process<'a>>,
    /// Processes by load.
    line: BTreeSet<(u64, usize)>,
    /// How many tasks each member has.
    counts: Vec<usize>,
    shares: Vec<Roles>,
    active_before: HashMap<Task<'a>, usize>,
    standby_before: HashMap<Task<'a>, Vec<usize>>,
    active: Quota,
    all: Quota,
}

impl<'a> Sharing<'a> {
    fn new(runners: &[Runner<'a>], parts: &BTreeMap<String, Part>, standbys: usize) -> Self {
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut processes: Vec<Process<'a>> = Vec::new();
        let mut homes = Vec::with_capacity(runners.len());
        let (mut active_before, mut standby_before) = (HashMap::new(), HashMap::new());
        for (member, runner) in runners.iter().enumerate() {
            let home = *known.entry(runner.process).or_insert_with(|| {
                processes.push(Process {
                    members: Vec::new(),
                    tasks: HashSet::new(),
                    count: 0,
                });
                processes.len() - 1
            });
            processes[home].members.push(member);
            homes.push(home);
            if let Some(before) = runner.before {
                for task in each(&before.active) {
                    active_before.insert(task, member);
                }
                for task in each(&before.standby) {
                    let members: &mut Vec<usize> = standby_before.entry(task).or_default();
                    members.push(member);
                }
            }
        }
        let count = |part: &Part| usize::try_from(part.tasks).unwrap_or(0);
        let active: usize = parts.values().map(count).sum();
        let stateful = parts.values().filter(|part| part.stateful);
        let copies = stateful.map(count).sum::<usize>() * standbys;
        let line = (0..processes.len()).map(|process| (0, process)).collect();
        Self {
            homes,
            processes,
            line,
            counts: vec![0; runners.len()],
            shares: vec![Roles::default(); runners.len()],
            active_before,
            standby_before,
            active: Quota::new(active, runners.len()),
            all: Quota::new(active + copies, runners.len()),
        }
    }

    fn give(&mut self, member: usize, task: Task<'a>, is_active: bool) {
        let home = self.homes[member];
        let process = &mut self.processes[home];
        self.line.remove(&(process.load(), home));
        process.count += 1;
        process.tasks.insert(task);
        self.line.insert((process.load(), home));
        let share = &mut self.shares[member];
        let role = match is_active {
            true => &mut share.active,
            false => &mut share.standby,
        };
        role.entry(task.0.to_owned()).or_default().insert(task.1);
        self.counts[member] += 1;
        if is_active {
            self.active.note(self.counts[member]);
        }
        self.all.note(self.counts[member]);
    }

    fn share_active(&mut self, mut tasks: Vec<Task<'a>>) {
        // What was shared out by ranges is looked at partition by partition.
        tasks.sort_by_key(|(part, task)| (*task, *part));
        tasks.retain(|task| {
            let before = self.active_before.get(task).copied();
            let fits = before.filter(|member| self.counts[*member] < self.active.each);
            fits.inspect(|member| self.give(*member, *task, true))
                .is_none()
        });
        tasks.retain(|task| {
            let before = self.least_of_standbys(task);
            let fits = before.filter(|member| self.counts[*member] < self.active.each);
            fits.inspect(|member| self.give(*member, *task, true))
                .is_none()
        });
        tasks.sort_unstable();
        for task in tasks {
            if let Some(member) = self.least(None) {
                self.give(member, task, true);
            }
        }
    }

    fn share_standbys(&mut self, mut tasks: Vec<Task<'a>>, standbys: usize) {
        tasks.sort_by_key(|(part, task)| std::cmp::Reverse((*task, *part)));
        let mut rest = Vec::new();
        for task in tasks {
            for copy in 0..standbys {
                let free = |member: &usize| {
                    let process = &self.processes[self.homes[*member]];
                    !process.tasks.contains(&task) && self.counts[*member] < self.all.each
                };
                let active = self.active_before.get(&task).copied().filter(free);
                let before = || self.least_of_standbys(&task).filter(free);
                match active.or_else(before) {
                    Some(member) => self.give(member, task, false),
                    None => {
                        rest.push((task, standbys - copy));
                        break;
                    }
                }
            }
        }
        rest.sort_by_key(|(task, _)| std::cmp::Reverse(*task));
        for (task, copies) in rest {
            for _ in 0..copies {
                let Some(member) = self.least(Some(task)) else {
                    break; // every process has it already
                };
                self.give(member, task, false);
            }
        }
    }

    /// Of those who had a copy of a task, the one that has least to do.
    fn least_of_standbys(&self, task: &Task<'a>) -> Option<usize> {
        let members = self.standby_before.get(task)?.iter().copied();
        let free = members.filter(|member| {
            let process = &self.processes[self.homes[*member]];
            !process.tasks.contains(task)
        });
        free.min_by_key(|member| {
            let process = &self.processes[self.homes[*member]];
            (process.load(), self.counts[*member])
        })
    }

    /// The member that has least to do in the process that has least to do, of those without a task.
    fn least(&self, without: Option<Task<'a>>) -> Option<usize> {
        let mut line = self
            .line
            .iter()
            .map(|(_, process)| &self.processes[*process]);
        let process =
            line.find(|process| without.is_none_or(|task| !process.tasks.contains(&task)))?;
        let members = process.members.iter().copied();
        members.min_by_key(|member| self.counts[*member])
    }
}

fn each(tasks: &Tasks) -> impl Iterator<Item = Task<'_>> {
    tasks
        .iter()
        .flat_map(|(part, tasks)| tasks.iter().map(|task| (part.as_str(), *task)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(counts: &[(i32, bool)]) -> BTreeMap<String, Part> {
        let each = counts.iter().enumerate();
        each.map(|(at, (tasks, stateful))| {
            let part = Part {
                tasks: *tasks,
                stateful: *stateful,
                reads: BTreeSet::new(),
            };
            (at.to_string(), part)
        })
        .collect()
    }

    fn runners<'a>(processes: &'a [String], before: &'a [Roles]) -> Vec<Runner<'a>> {
        let each = processes.iter().enumerate();
        each.map(|(at, process)| Runner {
            process,
            before: before.get(at),
        })
        .collect()
    }

    fn size(tasks: &Tasks) -> usize {
        tasks.values().map(BTreeSet::len).sum()
    }

    fn names(numbers: &[u8]) -> Vec<String> {
        numbers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn tasks_stay_and_copies_become_active() {
        let parts = parts(&[(4, true)]);
        let two = names(&[1, 2]);
        let first = assign(&runners(&two, &[]), &parts, 1);
        assert_eq!(
            first
                .iter()
                .map(|one| size(&one.active))
                .collect::<Vec<_>>(),
            [2, 2]
        );
        assert_eq!(first[0].active, first[1].standby);
        // The second is gone: the first, which stood by, runs all of it.
        let alone = assign(&runners(&two[..1], &first[..1]), &parts, 1);
        assert_eq!(size(&alone[0].active), 4);
        assert_eq!(size(&alone[0].standby), 0);
        // With a third, only as much moves as has to.
        let three = names(&[1, 2, 3]);
        let third = assign(&runners(&three, &first), &parts, 0);
        let kept = |at: usize| size(&third[at].active).min(size(&first[at].active));
        assert_eq!(size(&third[2].active) + kept(0) + kept(1), 4);
        assert_eq!(size(&third[2].active), 1);
    }

    proptest! {
        #[test]
        fn every_task_runs_once_and_evenly(
            counts in prop::collection::vec((0..9i32, any::<bool>()), 1..5),
            first in prop::collection::vec(0..5u8, 1..9),
            second in prop::collection::vec(0..5u8, 1..9),
            standbys in 0..3usize,
        ) {
            let parts = parts(&counts);
            let mut before = Vec::new();
            for processes in [names(&first), names(&second)] {
                let runners = runners(&processes, &before);
                let shares = assign(&runners, &parts, standbys);
                let mut active = BTreeSet::new();
                let mut copies: HashMap<(String, i32), HashSet<&str>> = HashMap::new();
                for (runner, share) in runners.iter().zip(&shares) {
                    prop_assert!(share.warmup.is_empty());
                    for (part, task) in each(&share.active) {
                        prop_assert!(active.insert((part.to_owned(), task)), "{part} {task} runs twice");
                    }
                    for (part, task) in each(&share.active).chain(each(&share.standby)) {
                        let homes = copies.entry((part.to_owned(), task)).or_default();
                        prop_assert!(homes.insert(runner.process), "two copies in one process");
                    }
                }
                let all: usize = parts.values().map(|part| part.tasks as usize).sum();
                prop_assert_eq!(active.len(), all);
                let homes: HashSet<&str> = runners.iter().map(|one| one.process).collect();
                for ((part, _), copies) in &copies {
                    let wanted = match parts[part].stateful {
                        true => (1 + standbys).min(homes.len()),
                        false => 1,
                    };
                    prop_assert_eq!(copies.len(), wanted);
                }
                let again = assign(&self::runners(&processes, &shares), &parts, 0);
                let moved = again.iter().zip(&shares).filter(|(new, old)| new.active != old.active);
                if standbys == 0 {
                    prop_assert_eq!(moved.count(), 0, "nothing moves without a reason");
                }
                before = shares;
            }
        }
    }
}
