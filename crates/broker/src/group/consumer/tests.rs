//! The rules one by one: who is let in, who is fenced, and what each is told.

use std::sync::Arc;

use expect_test::{Expect, expect};
use uuid::Uuid;

use super::catalog::Catalog;
use super::machine::Group;
use super::member::Partitions;
use super::terms::{Beat, Beaten, Refused};
use crate::group::settings::Timing;
use crate::group::terms::Refusal;

const MEMBERS_MAX: usize = 3;

fn topic(index: u128) -> Uuid {
    Uuid::from_u128(index)
}

fn catalog(version: u64, topics: &[(u128, i32)]) -> Catalog {
    let topics = topics.iter();
    let topics = topics.map(|(id, count)| (Arc::from(format!("t{id}")), topic(*id), *count));
    Catalog::new(version, topics)
}

struct World {
    group: Group,
    catalog: Catalog,
    now: i64,
    timing: Timing,
}

impl World {
    fn new() -> Self {
        Self {
            group: Group::new(),
            catalog: catalog(1, &[(1, 4)]),
            now: 0,
            timing: Timing::default(),
        }
    }

    fn beat(&mut self, beat: Beat) -> Result<Beaten, Refused> {
        self.group
            .heartbeat(self.now, &beat, &self.catalog, MEMBERS_MAX, self.timing)
    }

    #[track_caller]
    fn check(&mut self, beat: Beat, expected: Expect) {
        let text = match self.beat(beat) {
            Err(refused) => format!("{:?}", refused.refusal),
            Ok(beaten) => format!("epoch {} {}", beaten.epoch, shown(beaten.assignment)),
        };
        expected.assert_eq(&text);
    }
}

fn shown(assignment: Option<Partitions>) -> String {
    let Some(assignment) = assignment else {
        return "unchanged".to_owned();
    };
    let each = assignment
        .iter()
        .map(|(topic, some)| format!("t{}{some:?}", topic.as_u128()));
    format!("has [{}]", each.collect::<Vec<_>>().join(" "))
}

fn join(id: &str) -> Beat {
    Beat {
        member_id: id.into(),
        rebalance_timeout_ms: Some(30_000),
        topics: Some(vec!["t1".into()]),
        owned: Some(Partitions::new()),
        ..Beat::default()
    }
}

fn beat(id: &str, epoch: i32) -> Beat {
    Beat {
        member_id: id.into(),
        epoch,
        ..Beat::default()
    }
}

fn owning(id: &str, epoch: i32, some: &[i32]) -> Beat {
    let owned = match some {
        [] => Partitions::new(),
        some => Partitions::from([(topic(1), some.iter().copied().collect())]),
    };
    Beat {
        owned: Some(owned),
        ..beat(id, epoch)
    }
}

fn fixed(id: &str) -> Beat {
    Beat {
        instance_id: Some("i".into()),
        ..join(id)
    }
}

#[test]
fn partitions_go_over_after_they_were_given_up() {
    let mut world = World::new();
    world.check(join("a"), expect!["epoch 2 has [t1{0, 1, 2, 3}]"]);
    world.check(beat("a", 2), expect!["epoch 2 unchanged"]);
    world.check(join("b"), expect!["epoch 3 has []"]);
    world.check(beat("a", 2), expect!["epoch 2 has [t1{0, 1}]"]);
    world.check(beat("b", 3), expect!["epoch 3 unchanged"]);
    world.check(owning("a", 2, &[0, 1, 2, 3]), expect!["epoch 2 unchanged"]);
    world.check(owning("a", 2, &[0, 1]), expect!["epoch 3 unchanged"]);
    world.check(beat("b", 3), expect!["epoch 3 has [t1{2, 3}]"]);
}

#[test]
fn an_assignment_stays_for_a_while() {
    let mut world = World::new();
    world.timing.assignment_interval_ms = 1000;
    world.now = 5000;
    world.check(join("a"), expect!["epoch 2 has [t1{0, 1, 2, 3}]"]);
    world.now = 5999;
    world.check(join("b"), expect!["epoch 2 has []"]);
    world.check(beat("a", 2), expect!["epoch 2 unchanged"]);
    world.now = 6000;
    world.check(beat("a", 2), expect!["epoch 2 has [t1{0, 1}]"]);
    world.check(owning("a", 2, &[0, 1]), expect!["epoch 3 unchanged"]);
    world.check(beat("b", 2), expect!["epoch 3 has [t1{2, 3}]"]);
}

#[test]
fn epochs_fence() {
    let mut world = World::new();
    world.check(beat("a", 2), expect!["UnknownMember"]);
    world.check(join("a"), expect!["epoch 2 has [t1{0, 1, 2, 3}]"]);
    world.check(beat("a", 3), expect!["FencedEpoch"]);
    world.check(join("b"), expect!["epoch 3 has []"]);
    world.check(owning("a", 2, &[0, 1]), expect!["epoch 3 has [t1{0, 1}]"]);
    // The answer was lost: the epoch before is taken from a member that owns nothing else.
    world.check(beat("a", 2), expect!["FencedEpoch"]);
    world.check(owning("a", 2, &[0, 1, 2]), expect!["FencedEpoch"]);
    world.check(owning("a", 2, &[0, 1]), expect!["epoch 3 unchanged"]);
    // Joining again is always allowed, and tells everything.
    world.check(join("a"), expect!["epoch 3 has [t1{0, 1}]"]);
}

#[test]
fn a_group_takes_so_many_and_no_more() {
    let mut world = World::new();
    for id in ["a", "b", "c"] {
        world.beat(join(id)).expect("room");
    }
    world.check(join("d"), expect!["GroupFull"]);
    world.check(join("a"), expect!["epoch 4 has [t1{0, 1}]"]);
}

#[test]
fn a_static_member_keeps_its_place_while_it_is_away() {
    let mut world = World::new();
    world.check(fixed("a"), expect!["epoch 2 has [t1{0, 1, 2, 3}]"]);
    world.check(fixed("b"), expect!["UnreleasedInstance"]);
    let other = Beat {
        instance_id: Some("i".into()),
        ..beat("b", 2)
    };
    world.check(other, expect!["FencedInstance"]);
    let leave = world.group.leave("a", Some("i"), -2, &world.catalog);
    leave.expect("it may");
    world.check(join("c"), expect!["epoch 3 has []"]);
    world.check(fixed("b"), expect!["epoch 3 has [t1{0, 1}]"]);
    assert_eq!(world.group.members().len(), 2);
    let gone = world.group.leave("a", Some("i"), -2, &world.catalog);
    assert_eq!(gone.expect_err("replaced").refusal, Refusal::FencedInstance);
}

#[test]
fn the_silent_and_the_stubborn_are_given_up() {
    let mut world = World::new();
    world.beat(join("a")).expect("room");
    world.now = 20_000;
    world.beat(join("b")).expect("room");
    world.check(beat("a", 2), expect!["epoch 2 has [t1{0, 1}]"]);
    world.now = 49_999;
    world.beat(owning("a", 2, &[0, 1, 2, 3])).expect("alive");
    world.beat(beat("b", 3)).expect("alive");
    world.group.tick(world.now, &world.catalog);
    assert_eq!(world.group.members().len(), 2);
    world.now = 50_000;
    world.group.tick(world.now, &world.catalog);
    world.check(beat("a", 2), expect!["UnknownMember"]);
    world.check(beat("b", 3), expect!["epoch 4 has [t1{0, 1, 2, 3}]"]);
    world.now = 95_000;
    world.group.tick(world.now, &world.catalog);
    assert_eq!(world.group.members().len(), 0);
}

#[test]
fn patterns_find_topics_that_come_later() {
    let mut world = World::new();
    let pattern = |pattern: &str| Beat {
        topics: None,
        pattern: Some(pattern.into()),
        ..join("a")
    };
    world.check(pattern("t["), expect!["InvalidPattern"]);
    assert_eq!(world.group.members().len(), 0);
    world.check(pattern("t[12]"), expect!["epoch 2 has [t1{0, 1, 2, 3}]"]);
    world.catalog = catalog(2, &[(1, 4), (2, 1), (3, 1)]);
    world.check(beat("a", 2), expect!["epoch 3 has [t1{0, 1, 2, 3} t2{0}]"]);
    world.catalog = catalog(3, &[(1, 5), (2, 1)]);
    world.check(
        beat("a", 3),
        expect!["epoch 4 has [t1{0, 1, 2, 3, 4} t2{0}]"],
    );
    world.check(
        Beat {
            pattern: Some(String::new()),
            ..beat("a", 4)
        },
        expect!["epoch 4 has []"],
    );
}

#[test]
fn a_member_commits_what_it_has_had_since_then() {
    let mut world = World::new();
    world.beat(join("a")).expect("room");
    world.beat(join("b")).expect("room");
    world.beat(owning("a", 2, &[0, 1])).expect("alive");
    let may = |epoch, partition| {
        let places = [("t1", partition)].into_iter();
        world.group.may_commit("a", epoch, &world.catalog, places)
    };
    assert_eq!(may(3, 0), Ok(vec![Ok(())]));
    assert_eq!(may(2, 0), Ok(vec![Ok(())]), "it has it since then");
    assert_eq!(may(2, 2), Ok(vec![Err(Refusal::StaleEpoch)]));
    assert_eq!(may(1, 0), Ok(vec![Err(Refusal::StaleEpoch)]));
    assert_eq!(may(4, 0), Err(Refusal::StaleEpoch));
    assert_eq!(world.group.may_fetch(Some("a"), 3), Ok(()));
    assert_eq!(
        world.group.may_fetch(Some("a"), 2),
        Err(Refusal::StaleEpoch)
    );
    assert_eq!(
        world.group.may_fetch(Some("x"), 2),
        Err(Refusal::UnknownMember)
    );
    assert_eq!(world.group.may_fetch(None, -1), Ok(()));
}
