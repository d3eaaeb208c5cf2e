//! What a share group does, step by step, and what a restart leaves of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::machine::{Beat, Beaten, Group};
use super::records;
use crate::group::consumer::catalog::Catalog;
use crate::group::consumer::member::Partitions;
use crate::group::settings::Timing;
use crate::group::terms::Refusal;

const TIMING: Timing = Timing {
    session_timeout_ms: 45_000,
    heartbeat_interval_ms: 5_000,
    assignment_interval_ms: 0,
};

fn topic() -> Uuid {
    Uuid::from_u128(7)
}

fn catalog(version: u64, partitions: i32) -> Catalog {
    Catalog::new(version, [(Arc::from("t"), topic(), partitions)])
}

fn joining(member: &str) -> Beat {
    Beat {
        member_id: member.into(),
        topics: Some(vec!["t".into(), "not-there".into()]),
        ..Beat::default()
    }
}

fn alive(member: &str, epoch: i32) -> Beat {
    Beat {
        member_id: member.into(),
        epoch,
        ..Beat::default()
    }
}

fn beat(group: &mut Group, beat: &Beat, catalog: &Catalog) -> Result<Beaten, Refusal> {
    let beaten = group.heartbeat(0, beat, catalog, TIMING);
    beaten.map_err(|refused| refused.refusal)
}

/// Joins, and has the state made that is missing.
fn join(group: &mut Group, member: &str, catalog: &Catalog) -> Beaten {
    let beaten = beat(group, &joining(member), catalog).expect("comes in");
    let unknown = group.unknown(catalog);
    if unknown.is_empty() {
        return beaten;
    }
    group.learn(unknown);
    beat(group, &alive(member, beaten.epoch), catalog).expect("goes on")
}

fn indexes(assignment: &Option<Partitions>) -> Option<Vec<i32>> {
    let assignment = assignment.as_ref()?;
    Some(assignment.values().flatten().copied().collect())
}

#[test]
fn only_partitions_with_a_state_are_assigned() {
    let catalog = catalog(1, 2);
    let mut group = Group::new();
    let first = beat(&mut group, &joining("a"), &catalog).expect("comes in");
    assert_eq!((first.epoch, indexes(&first.assignment)), (2, Some(vec![])));
    let unknown = group.unknown(&catalog);
    assert_eq!(unknown[0].1.partitions, BTreeSet::from([0, 1]));
    group.learn(unknown);
    let second = beat(&mut group, &alive("a", 2), &catalog).expect("goes on");
    assert_eq!(
        (second.epoch, indexes(&second.assignment)),
        (3, Some(vec![0, 1]))
    );
    let third = beat(&mut group, &alive("a", 3), &catalog).expect("goes on");
    assert_eq!((third.epoch, third.assignment), (3, None));
}

#[test]
fn members_share_and_nobody_waits_for_anybody() {
    let catalog = catalog(1, 1);
    let mut group = Group::new();
    assert_eq!(
        indexes(&join(&mut group, "a", &catalog).assignment),
        Some(vec![0])
    );
    assert_eq!(
        indexes(&join(&mut group, "b", &catalog).assignment),
        Some(vec![0])
    );
    let epoch = group.epoch();
    let beaten = beat(&mut group, &alive("a", epoch - 1), &catalog).expect("goes on");
    assert_eq!(
        (beaten.epoch, beaten.assignment),
        (epoch, None),
        "what it has, it has"
    );
    group.leave("b", &catalog).expect("leaves");
    assert_eq!(group.epoch(), epoch + 1);
    assert!(group.leave("b", &catalog).is_err());
    group.tick(45_000, &catalog);
    assert_eq!(group.state(), "Empty");
}

#[test]
fn a_member_of_another_epoch_is_fenced_but_for_the_one_before() {
    let catalog = catalog(1, 1);
    let mut group = Group::new();
    let epoch = join(&mut group, "a", &catalog).epoch;
    for (member, given, expected) in [
        ("a", epoch + 1, Err(Refusal::FencedEpoch)),
        ("a", epoch - 2, Err(Refusal::FencedEpoch)),
        ("b", epoch, Err(Refusal::UnknownMember)),
        ("a", epoch - 1, Ok(epoch)),
        ("a", epoch, Ok(epoch)),
    ] {
        let outcome = beat(&mut group, &alive(member, given), &catalog);
        assert_eq!(
            outcome.map(|beaten| beaten.epoch),
            expected,
            "{member} {given}"
        );
    }
}

#[test]
fn a_topic_grows_and_goes() {
    let mut group = Group::new();
    let epoch = join(&mut group, "a", &catalog(1, 1)).epoch;
    let grown = catalog(2, 3);
    let beaten = beat(&mut group, &alive("a", epoch), &grown).expect("goes on");
    assert_eq!(beaten.assignment, None, "the new ones have no state yet");
    let unknown = group.unknown(&grown);
    assert_eq!(unknown[0].1.partitions, BTreeSet::from([1, 2]));
    group.learn(unknown);
    let beaten = beat(&mut group, &alive("a", beaten.epoch), &grown).expect("goes on");
    assert_eq!(indexes(&beaten.assignment), Some(vec![0, 1, 2]));
    let gone = Catalog::new(3, []);
    let beaten = beat(&mut group, &alive("a", beaten.epoch), &gone).expect("goes on");
    assert_eq!(indexes(&beaten.assignment), Some(vec![]));
    assert!(group.known().is_empty());
}

#[test]
fn a_restart_brings_all_of_it_back() {
    let catalog = catalog(1, 3);
    let mut group = Group::new();
    join(&mut group, "a", &catalog);
    join(&mut group, "b", &catalog);
    group.leave("a", &catalog).expect("leaves");
    let mut stored = BTreeMap::new();
    for item in group.take_touched() {
        let (key, value) = records::record("g", &item, &group).expect("short");
        assert_eq!(records::group_of(&key), Ok(Some("g".to_owned())));
        match value {
            Some(value) => stored.insert(key, value),
            None => stored.remove(&key),
        };
    }
    let mut back = records::restore(&stored, 100, 45_000).expect("reads");
    assert_eq!(back.wakes_at(), Some(45_100));
    assert_eq!(
        format!("{:?}", back.view().epoch),
        format!("{:?}", group.view().epoch)
    );
    assert_eq!(back.known(), group.known());
    let epoch = group.members().next().expect("b").1.epoch;
    let ours = beat(&mut group, &alive("b", epoch), &catalog).expect("goes on");
    let theirs = beat(&mut back, &alive("b", epoch), &catalog).expect("goes on");
    assert_eq!(
        (ours.epoch, ours.assignment),
        (theirs.epoch, theirs.assignment)
    );
}
