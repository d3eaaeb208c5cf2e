//! Who shall own what: the two assignors that Kafka brings, as pure functions.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::catalog::Catalog;
use super::member::Partitions;

/// The assignors, the one that is taken when nobody wishes for another first.
pub(crate) const ASSIGNORS: [&str; 2] = [UNIFORM, RANGE];
const UNIFORM: &str = "uniform";
const RANGE: &str = "range";
/// How often the loads are evened out; members with different subscriptions may need more than one round.
const ROUNDS_MAX: usize = 16;

/// A member, as assignors see it.
#[derive(Debug)]
pub(super) struct Taker<'a> {
    pub id: &'a str,
    pub instance_id: Option<&'a str>,
    pub topics: BTreeSet<Uuid>,
    /// What the target gave it last time.
    pub before: Option<&'a Partitions>,
}

/// Returns what each member shall own, in the order of `takers`.
pub(super) fn assign(assignor: &str, takers: &[Taker<'_>], catalog: &Catalog) -> Vec<Partitions> {
    match assignor {
        RANGE => range(takers, catalog),
        _ => uniform(takers, catalog),
    }
}

/// The indexes of the members that read each topic.
fn readers(takers: &[Taker<'_>], order: impl Iterator<Item = usize>) -> BTreeMap<Uuid, Vec<usize>> {
    let mut readers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for at in order {
        for topic in &takers[at].topics {
            readers.entry(*topic).or_default().push(at);
        }
    }
    readers
}

/// Each topic by itself in ranges of neighbours, so that topics with as many partitions are cut alike.
fn range(takers: &[Taker<'_>], catalog: &Catalog) -> Vec<Partitions> {
    let mut order: Vec<usize> = (0..takers.len()).collect();
    order.sort_by_key(|at| {
        let taker = &takers[*at];
        let name = taker.instance_id.unwrap_or(taker.id);
        (taker.instance_id.is_none(), name)
    });
    let mut shares = vec![Partitions::new(); takers.len()];
    for (topic, readers) in readers(takers, order.into_iter()) {
        let partitions = usize::try_from(catalog.partitions(topic)).unwrap_or(0);
        let (each, more) = (partitions / readers.len(), partitions % readers.len());
        let mut start = 0;
        for (turn, reader) in readers.into_iter().enumerate() {
            let end = start + each + usize::from(turn < more);
            let share: BTreeSet<i32> = (start..end)
                .filter_map(|index| i32::try_from(index).ok())
                .collect();
            if !share.is_empty() {
                shares[reader].insert(topic, share);
            }
            start = end;
        }
    }
    shares
}

/// As even as the subscriptions allow, and with as few moves from before as that takes.
fn uniform(takers: &[Taker<'_>], catalog: &Catalog) -> Vec<Partitions> {
    let readers = readers(takers, 0..takers.len());
    let mut shares: Vec<Partitions> = Vec::with_capacity(takers.len());
    let mut taken: BTreeSet<(Uuid, i32)> = BTreeSet::new();
    for taker in takers {
        let mut share = Partitions::new();
        for (topic, partitions) in taker.before.into_iter().flatten() {
            let there = catalog.partitions(*topic);
            let kept: BTreeSet<i32> = partitions
                .iter()
                .copied()
                .filter(|one| *one < there && taker.topics.contains(topic))
                .filter(|one| taken.insert((*topic, *one)))
                .collect();
            if !kept.is_empty() {
                share.insert(*topic, kept);
            }
        }
        shares.push(share);
    }
    let mut loads: Vec<usize> = shares
        .iter()
        .map(|share| share.values().map(BTreeSet::len).sum())
        .collect();

    // Topics with few readers first: they leave the least choice.
    let mut topics: Vec<(&Uuid, &Vec<usize>)> = readers.iter().collect();
    topics.sort_by_key(|(topic, readers)| (readers.len(), **topic));
    for (topic, readers) in &topics {
        let mut queue: BTreeSet<(usize, usize)> =
            readers.iter().map(|at| (loads[*at], *at)).collect();
        for partition in 0..catalog.partitions(**topic) {
            if taken.contains(&(**topic, partition)) {
                continue;
            }
            let Some((load, at)) = queue.pop_first() else {
                break;
            };
            shares[at].entry(**topic).or_default().insert(partition);
            loads[at] = load + 1;
            queue.insert((load + 1, at));
        }
    }
    for _ in 0..ROUNDS_MAX {
        let mut moved = false;
        for (topic, readers) in &topics {
            moved |= even_out(**topic, readers, &mut shares, &mut loads);
        }
        if !moved {
            break;
        }
    }
    shares
}

/// Moves partitions of a topic from those who have most to those who have least, and says whether it did.
fn even_out(
    topic: Uuid,
    readers: &[usize],
    shares: &mut [Partitions],
    loads: &mut [usize],
) -> bool {
    let mut all: BTreeSet<(usize, usize)> = readers.iter().map(|at| (loads[*at], *at)).collect();
    let mut owners: BTreeSet<(usize, usize)> = readers
        .iter()
        .filter(|at| shares[**at].contains_key(&topic))
        .map(|at| (loads[*at], *at))
        .collect();
    let mut moved = false;
    while let (Some(&(least, to)), Some(&(most, from))) = (all.first(), owners.last()) {
        if most - least.min(most) <= 1 {
            break;
        }
        let share = shares[from].entry(topic).or_default();
        let Some(partition) = share.pop_last() else {
            break;
        };
        let emptied = share.is_empty();
        if emptied {
            shares[from].remove(&topic);
        }
        shares[to].entry(topic).or_default().insert(partition);
        (loads[from], loads[to]) = (most - 1, least + 1);
        all.remove(&(most, from));
        all.insert((most - 1, from));
        all.remove(&(least, to));
        all.insert((least + 1, to));
        owners.remove(&(most, from));
        if !emptied {
            owners.insert((most - 1, from));
        }
        owners.remove(&(least, to));
        owners.insert((least + 1, to));
        moved = true;
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const MEMBERS: usize = 6;
    const TOPICS: usize = 5;

    fn topic(index: usize) -> Uuid {
        Uuid::from_u128(index as u128 + 1)
    }

    fn catalog(partitions: &[i32]) -> Catalog {
        let topics = partitions.iter().enumerate();
        let topics =
            topics.map(|(index, count)| (Arc::from(format!("t{index}")), topic(index), *count));
        Catalog::new(1, topics)
    }

    fn takers<'a>(
        names: &'a [String],
        subscriptions: &[BTreeSet<usize>],
        before: &'a [Partitions],
    ) -> Vec<Taker<'a>> {
        let each = subscriptions.iter().enumerate();
        each.map(|(at, topics)| Taker {
            id: &names[at],
            instance_id: None,
            topics: topics.iter().copied().map(topic).collect(),
            before: before.get(at),
        })
        .collect()
    }

    fn names() -> Vec<String> {
        (0..MEMBERS).map(|at| format!("m{at}")).collect()
    }

    fn size(share: &Partitions) -> usize {
        share.values().map(BTreeSet::len).sum()
    }

    /// Every partition that somebody reads is given to exactly one of its readers.
    fn check(takers: &[Taker<'_>], catalog: &Catalog, shares: &[Partitions]) {
        let mut given = BTreeSet::new();
        for (taker, share) in takers.iter().zip(shares) {
            for (topic, partitions) in share {
                assert!(taker.topics.contains(topic), "only what it reads");
                assert!(!partitions.is_empty(), "no empty topics");
                for partition in partitions {
                    assert!(given.insert((*topic, *partition)), "given once");
                }
            }
        }
        let read: BTreeSet<Uuid> = takers
            .iter()
            .flat_map(|taker| taker.topics.clone())
            .collect();
        let all: BTreeSet<(Uuid, i32)> = read
            .iter()
            .flat_map(|topic| (0..catalog.partitions(*topic)).map(|partition| (*topic, partition)))
            .collect();
        assert_eq!(given, all, "all is given");
    }

    #[test]
    fn ranges_are_neighbours_and_static_members_come_first() {
        let names = names();
        let both = BTreeSet::from([0]);
        let mut takers = takers(&names, &[both.clone(), both.clone(), both], &[]);
        takers[2].instance_id = Some("x");
        let shares = assign(RANGE, &takers, &catalog(&[7]));
        let of = |share: &Partitions| share[&topic(0)].iter().copied().collect::<Vec<_>>();
        assert_eq!(of(&shares[2]), [0, 1, 2]);
        assert_eq!(of(&shares[0]), [3, 4]);
        assert_eq!(of(&shares[1]), [5, 6]);
    }

    #[test]
    fn a_newcomer_takes_its_share_and_nothing_else_moves() {
        let names = names();
        let reads = BTreeSet::from([0, 1]);
        let catalog = catalog(&[4, 5]);
        let first = assign(
            UNIFORM,
            &takers(&names, &[reads.clone(), reads.clone()], &[]),
            &catalog,
        );
        let three = [reads.clone(), reads.clone(), reads];
        let second = assign(UNIFORM, &takers(&names, &three, &first), &catalog);
        for (before, after) in first.iter().zip(&second) {
            for (topic, partitions) in after {
                assert!(partitions.is_subset(&before[topic]), "it gains nothing");
            }
        }
        assert_eq!(
            second.iter().map(size).collect::<Vec<_>>(),
            [3, 3, 3],
            "even"
        );
    }

    proptest! {
        #[test]
        fn all_is_given_once_and_evenly(
            partitions in prop::collection::vec(0..9i32, TOPICS),
            subscriptions in prop::collection::vec(prop::collection::btree_set(0..TOPICS, 0..TOPICS), 1..MEMBERS),
            later in prop::collection::vec(prop::collection::btree_set(0..TOPICS, 0..TOPICS), 1..MEMBERS),
            assignor in prop::sample::select(&ASSIGNORS[..]),
        ) {
            let (names, catalog) = (names(), catalog(&partitions));
            let first = takers(&names, &subscriptions, &[]);
            let shares = assign(assignor, &first, &catalog);
            check(&first, &catalog, &shares);
            let second = takers(&names, &later, &shares);
            check(&second, &catalog, &assign(assignor, &second, &catalog));
        }

        #[test]
        fn the_same_subscriptions_get_as_much(
            partitions in prop::collection::vec(0..9i32, TOPICS),
            members in prop::collection::vec(1..MEMBERS, 1..5),
        ) {
            let (names, catalog) = (names(), catalog(&partitions));
            let mut before = Vec::new();
            for count in members {
                let same = vec![(0..TOPICS).collect(); count];
                let takers = takers(&names, &same, &before);
                let shares = assign(UNIFORM, &takers, &catalog);
                check(&takers, &catalog, &shares);
                let most = shares.iter().map(size).max().unwrap_or(0);
                let least = shares.iter().map(size).min().unwrap_or(0);
                prop_assert!(most - least <= 1, "{shares:?}");
                before = shares;
            }
        }
    }
}
