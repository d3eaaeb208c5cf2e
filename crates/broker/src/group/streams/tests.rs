//! The rules of streams groups: who runs what, who has to give up what before, and what outlives the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kafka::messages::streams_group_state::{
    StreamsGroupTopologyValue as Topology, Subtopology, TopicInfo,
};
use proptest::prelude::*;
use uuid::Uuid;

use super::machine::{Beat, Beaten, Group, State};
use super::member::{Roles, Tasks};
use super::records::restore;
use super::topology::Status;
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::records::Stored;
use crate::group::consumer::terms::Refused;
use crate::group::kept::Machine;
use crate::group::settings::{Settings, Streams};
use crate::group::terms::Refusal;

const MEMBERS_MAX: usize = 5;
const PARTS: i32 = 4;

fn settings() -> Streams {
    let mut settings = Settings::default().streams;
    settings.initial_delay_ms = 0;
    settings.timing.assignment_interval_ms = 0;
    settings
}

fn catalog(version: u64, topics: &[(&str, i32)]) -> Catalog {
    let each = topics.iter().enumerate();
    let each = each.map(|(at, (name, count))| {
        let id = Uuid::from_u128(at as u128 + 1);
        (Arc::from(*name), id, *count)
    });
    Catalog::new(version, each)
}

/// Counts what it reads in a store.
fn topology() -> Topology {
    let changelog = TopicInfo {
        name: "changes".into(),
        ..TopicInfo::default()
    };
    Topology {
        epoch: 0,
        subtopologies: vec![Subtopology {
            subtopology_id: "0".into(),
            source_topics: vec!["in".into()],
            state_changelog_topics: vec![changelog],
            ..Subtopology::default()
        }],
    }
}

/// A group, and members that do what they are told.
struct World {
    group: Group,
    catalog: Catalog,
    settings: Streams,
    now: i64,
    /// The epoch and the tasks of each member, as it knows them.
    members: BTreeMap<String, (i32, Roles)>,
    stored: Stored,
    /// Who has not got an answer, and tells everything again.
    lost: BTreeSet<String>,
}

impl World {
    fn new() -> Self {
        Self {
            group: Group::new(),
            catalog: catalog(1, &[("in", PARTS), ("changes", PARTS)]),
            settings: settings(),
            now: 0,
            members: BTreeMap::new(),
            stored: Stored::new(),
            lost: BTreeSet::new(),
        }
    }

    fn beat(&mut self, beat: &Beat) -> Result<Beaten, Refused> {
        let beaten =
            self.group
                .heartbeat(self.now, beat, &self.catalog, MEMBERS_MAX, &self.settings);
        self.store();
        beaten
    }

    fn store(&mut self) {
        for item in self.group.take_touched() {
            match self.group.record("g", &item).expect("it can be written") {
                (key, Some(value)) => _ = self.stored.insert(key, value),
                (key, None) => _ = self.stored.remove(&key),
            }
        }
    }

    /// A heartbeat of a member that is in, or comes in; what it is told it does.
    fn goes_on(&mut self, id: &str) -> Beaten {
        let beat = match self.members.get(id) {
            None => joining(id),
            Some((epoch, owned)) => Beat {
                owned: Some(owned.clone()),
                rebalance_timeout_ms: self.lost.remove(id).then_some(10_000),
                ..alive(id, *epoch)
            },
        };
        let beaten = match self.beat(&beat) {
            // It has lost too much: it gives up all, and comes in again.
            Err(refused) if refused.refusal == Refusal::FencedEpoch => {
                self.members.remove(id);
                self.beat(&joining(id)).expect("it is let in")
            }
            beaten => beaten.expect("it is let in"),
        };
        let member = self.members.entry(id.to_owned()).or_default();
        member.0 = beaten.epoch;
        if let Some(assignment) = &beaten.assignment {
            member.1 = assignment.clone();
        }
        beaten
    }

    fn leaves(&mut self, id: &str) {
        self.members.remove(id);
        self.group.leave(id, false).expect("it was in");
        self.store();
    }

    /// Lets members speak until everyone has what the target gives.
    fn settle(&mut self) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for _ in 0..10 {
            for id in &ids {
                self.goes_on(id);
            }
        }
        if !ids.is_empty() {
            assert_eq!(self.group.state(), State::Stable);
        }
    }

    fn restart(&mut self) {
        let timeout = self.settings.timing.session_timeout_ms;
        self.group = restore(&self.stored, self.now, timeout).expect("it can be read");
    }

    /// No two members may run a task at the same time, even while it moves.
    fn check(&self) {
        let mut active = BTreeSet::new();
        for (id, (_, roles)) in &self.members {
            for (part, tasks) in &roles.active {
                for task in tasks {
                    assert!(active.insert((part, *task)), "{id} runs {task} too");
                }
            }
        }
    }
}

fn joining(id: &str) -> Beat {
    Beat {
        rebalance_timeout_ms: Some(10_000),
        topology: Some(topology()),
        process_id: Some(id.to_owned()),
        owned: Some(Roles::default()),
        ..alive(id, 0)
    }
}

fn alive(id: &str, epoch: i32) -> Beat {
    Beat {
        member_id: id.to_owned(),
        epoch,
        ..Beat::default()
    }
}

fn active(tasks: &[i32]) -> Roles {
    Roles {
        active: Tasks::from([("0".to_owned(), tasks.iter().copied().collect())]),
        ..Roles::default()
    }
}

#[test]
fn a_task_is_given_up_before_another_has_it() {
    let mut world = World::new();
    world.goes_on("a");
    assert_eq!(world.members["a"].1, active(&[0, 1, 2, 3]));
    let second = world.goes_on("b");
    assert_eq!(second.assignment, Some(Roles::default()));
    assert_eq!(world.group.state(), State::Reconciling);
    // The first hears of it, and still has all until it says otherwise.
    let all = world.members["a"].clone();
    let told = world.goes_on("a");
    assert_eq!(told.assignment, Some(active(&[0, 1])));
    world.members.insert("a".into(), all);
    world.goes_on("a");
    assert_eq!(world.goes_on("b").assignment, None);
    world.members.get_mut("a").expect("in").1 = active(&[0, 1]);
    world.goes_on("a");
    assert_eq!(world.goes_on("b").assignment, Some(active(&[2, 3])));
    world.settle();
}

#[test]
fn copies_stand_by_in_other_processes() {
    let mut world = World::new();
    world.settings.standbys = 1;
    world.goes_on("a");
    world.goes_on("b");
    world.settle();
    let (first, second) = (&world.members["a"].1, &world.members["b"].1);
    assert_eq!(first.active, second.standby);
    assert_eq!(second.active, first.standby);
    // The setting is changed: the copies go.
    world.settings.standbys = 0;
    world.settle();
    assert!(world.members["a"].1.standby.is_empty());
}

#[test]
fn missing_topics_are_told_and_nothing_runs() {
    let mut world = World::new();
    world.catalog = catalog(1, &[]);
    let told = world.goes_on("a");
    assert_eq!(told.status[0].0, Status::MissingSourceTopics);
    assert_eq!(world.group.state(), State::NotReady);
    world.catalog = catalog(2, &[("in", 2)]);
    let told = world.goes_on("a");
    assert_eq!(told.status[0].0, Status::MissingInternalTopics);
    assert_eq!(told.missing[0].partitions, 2);
    assert_eq!(world.members["a"].1, Roles::default());
    world.catalog = catalog(3, &[("in", 2), ("changes", 2)]);
    world.goes_on("a");
    assert_eq!(world.members["a"].1, active(&[0, 1]));
    world.catalog = catalog(4, &[("in", 3), ("changes", 2)]);
    let told = world.goes_on("a");
    assert_eq!(told.status[0].0, Status::IncorrectlyPartitionedTopics);
}

#[test]
fn the_first_assignment_waits_for_more_members() {
    let mut world = World::new();
    world.settings.initial_delay_ms = 3_000;
    let told = world.goes_on("a");
    assert_eq!(
        (told.epoch, told.status[0].0),
        (1, Status::AssignmentDelayed)
    );
    world.goes_on("b");
    assert_eq!(world.group.next_at(), Some(3_000));
    world.now = 3_000;
    world.group.tick(world.now);
    assert_eq!(world.goes_on("a").assignment, Some(active(&[0, 2])));
    assert_eq!(world.goes_on("b").assignment, Some(active(&[1, 3])));
    // Later ones wait for the interval only.
    world.settings.timing.assignment_interval_ms = 1_000;
    let told = world.goes_on("c");
    assert_eq!(told.status[0].0, Status::AssignmentDelayed);
    world.now = 4_000;
    assert_eq!(world.goes_on("c").status, []);
    world.settle();
}

#[test]
fn the_silent_and_those_who_keep_their_tasks_are_given_up() {
    let mut world = World::new();
    world.goes_on("a");
    world.goes_on("b");
    world.goes_on("a");
    // It never says that it has given up anything.
    assert_eq!(world.group.next_at(), Some(10_000));
    world.now = 10_000;
    world.group.tick(world.now);
    let refused = world.beat(&alive("a", 2)).map_err(|why| why.refusal);
    assert_eq!(refused, Err(Refusal::UnknownMember));
    world.members.remove("a");
    world.settle();
    assert_eq!(world.members["b"].1, active(&[0, 1, 2, 3]));
    world.now += 45_000;
    world.group.tick(world.now);
    assert_eq!(world.group.state(), State::Empty);
}

#[test]
fn offsets_are_committed_by_who_runs_the_task() {
    let mut world = World::new();
    world.goes_on("a");
    world.goes_on("b");
    world.settle();
    let epoch = world.members["b"].0;
    let may = |member, epoch| {
        let places = [("in", 0), ("in", 2)].into_iter();
        world.group.may_commit(member, epoch, places)
    };
    let stale = Err(Refusal::StaleEpoch);
    assert_eq!(may("b", epoch), Ok(vec![Ok(()), Ok(())]));
    assert_eq!(may("a", epoch - 1), Ok(vec![Ok(()), stale]));
    assert_eq!(may("b", epoch + 1), Err(Refusal::StaleEpoch));
    assert_eq!(may("c", epoch), Err(Refusal::UnknownMember));
    assert_eq!(may("", -1), Err(Refusal::UnknownMember));
}

#[test]
fn all_are_told_to_end() {
    let mut world = World::new();
    world.goes_on("a");
    world.goes_on("b");
    let epoch = world.members["a"].0;
    let beat = Beat {
        shuts_down: true,
        ..alive("a", epoch)
    };
    world.beat(&beat).expect("in");
    let told = world.goes_on("b");
    assert!(
        told.status
            .iter()
            .any(|(status, _)| *status == Status::ShutdownApplication)
    );
    world.leaves("a");
    world.leaves("b");
    assert_eq!(world.goes_on("c").status, []);
}

proptest! {
    /// Whatever happens, nothing runs twice, and it comes to rest with everything run, after a restart as before.
    #[test]
    fn nothing_runs_twice_and_all_of_it_in_the_end(
        steps in prop::collection::vec((0..4usize, 0..12u8), 1..60),
        standbys in 0..3i32,
    ) {
        let mut world = World::new();
        world.settings.standbys = standbys;
        for (member, step) in steps {
            let id = ["a", "b", "c", "d"][member];
            match step {
                0 if world.members.contains_key(id) => world.leaves(id),
                1 => world.restart(),
                2 => {
                    let version = world.catalog.version + 1;
                    let count = PARTS + i32::try_from(version).expect("few").min(4);
                    world.catalog = catalog(version, &[("in", count), ("changes", count)]);
                }
                // An answer is lost: the member says again what it said before.
                3 if world.members.contains_key(id) => {
                    let before = world.members[id].clone();
                    world.goes_on(id);
                    world.members.insert(id.to_owned(), before);
                    world.lost.insert(id.to_owned());
                }
                _ => _ = world.goes_on(id),
            }
            world.check();
        }
        world.goes_on("a");
        world.settle();
        world.restart();
        world.settle();
        world.check();
        let each = world.members.values().flat_map(|(_, roles)| roles.active.values());
        let count = world.catalog.id("in").map_or(0, |id| world.catalog.partitions(id));
        prop_assert_eq!(each.map(BTreeSet::len).sum::<usize>(), count as usize);
    }
}
