//! Who shall read which partitions (`simple`): evenly, and then as it was before.
//!
//! With more members than partitions, each partition has several readers, and about as many as any other. Members that
//! read the same topics share all of them out at once; otherwise each topic is shared out by itself.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::group::consumer::member::Partitions;

/// The name of the only assignor.
pub(crate) const SIMPLE: &str = "simple";

/// A member as the assignor sees it.
#[derive(Debug, Clone)]
pub(crate) struct Taker<'a> {
    /// The topics that it reads and that are there.
    pub topics: BTreeSet<Uuid>,
    pub before: Option<&'a Partitions>,
}

/// Returns what each member shall read, in their order, of the partitions that can be read.
pub(crate) fn assign(takers: &[Taker<'_>], readable: &Partitions) -> Vec<Partitions> {
    let mut shares = vec![Partitions::new(); takers.len()];
    let Some(first) = takers.first() else {
        return shares;
    };
    let places = |topic: &Uuid| {
        let partitions = readable.get(topic).into_iter().flatten();
        partitions
            .map(|partition| (*topic, *partition))
            .collect::<Vec<_>>()
    };
    if takers.iter().all(|taker| taker.topics == first.topics) {
        let all: Vec<usize> = (0..takers.len()).collect();
        let places = first.topics.iter().flat_map(places).collect::<Vec<_>>();
        spread(&all, &places, takers, &mut shares);
        return shares;
    }
    let mut readers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
    for (at, taker) in takers.iter().enumerate() {
        for topic in &taker.topics {
            readers.entry(*topic).or_default().push(at);
        }
    }
    for (topic, members) in readers {
        spread(&members, &places(&topic), takers, &mut shares);
    }
    shares
}

/// Shares partitions out among some of the members.
fn spread(
    members: &[usize],
    places: &[(Uuid, i32)],
    takers: &[Taker<'_>],
    shares: &mut [Partitions],
) {
    if places.is_empty() || members.is_empty() {
        return;
    }
    // Readers of each partition, and what each member shall have so that all of these are found.
    let sharing = members.len().div_ceil(places.len());
    let total = sharing * places.len();
    let upto = |member: usize| (total * member).div_ceil(members.len());
    let mut wanted: Vec<usize> = (0..members.len())
        .map(|member| upto(member + 1) - upto(member))
        .collect();
    let mut readers: BTreeMap<(Uuid, i32), BTreeSet<usize>> = places
        .iter()
        .map(|place| (*place, BTreeSet::new()))
        .collect();
    for (member, at) in members.iter().enumerate() {
        let before = takers[*at].before.into_iter().flatten();
        let before =
            before.flat_map(|(topic, partitions)| partitions.iter().map(|one| (*topic, *one)));
        for place in before {
            if let Some(readers) = readers.get_mut(&place)
                && wanted[member] > 0
                && readers.len() < sharing
            {
                readers.insert(member);
                wanted[member] -= 1;
            }
        }
    }
    // Who wants most comes first.
    let mut queue: BTreeSet<(std::cmp::Reverse<usize>, usize)> = wanted
        .iter()
        .enumerate()
        .filter(|(_, wanted)| **wanted > 0)
        .map(|(member, wanted)| (std::cmp::Reverse(*wanted), member))
        .collect();
    for (place, readers) in &mut readers {
        while readers.len() < sharing {
            let next = queue.iter().find(|(_, member)| !readers.contains(member));
            let Some(next) = next.copied() else {
                break; // all who still want some read this one already
            };
            let (std::cmp::Reverse(wanted), member) = next;
            queue.remove(&next);
            if wanted > 1 {
                queue.insert((std::cmp::Reverse(wanted - 1), member));
            }
            readers.insert(member);
        }
        for member in readers.iter() {
            let (topic, partition) = *place;
            let share = &mut shares[members[*member]];
            share.entry(topic).or_default().insert(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOPICS: usize = 4;

    fn topic(index: usize) -> Uuid {
        Uuid::from_u128(index as u128 + 1)
    }

    fn readable(counts: &[i32]) -> Partitions {
        let topics = counts.iter().enumerate();
        let topics = topics.filter(|(_, count)| **count > 0);
        topics
            .map(|(at, count)| (topic(at), (0..*count).collect()))
            .collect()
    }

    fn takers<'a>(reads: &[BTreeSet<usize>], before: &'a [Partitions]) -> Vec<Taker<'a>> {
        let each = reads.iter().enumerate();
        each.map(|(at, topics)| Taker {
            topics: topics.iter().copied().map(topic).collect(),
            before: before.get(at),
        })
        .collect()
    }

    fn size(share: &Partitions) -> usize {
        share.values().map(BTreeSet::len).sum()
    }

    /// Everything that somebody reads has a reader, and nobody reads what it did not ask for.
    fn check(takers: &[Taker<'_>], readable: &Partitions, shares: &[Partitions]) {
        let mut given: BTreeSet<(Uuid, i32)> = BTreeSet::new();
        for (taker, share) in takers.iter().zip(shares) {
            for (topic, partitions) in share {
                assert!(taker.topics.contains(topic));
                assert!(!partitions.is_empty());
                given.extend(partitions.iter().map(|one| (*topic, *one)));
            }
        }
        let read = takers.iter().flat_map(|taker| &taker.topics);
        let all: BTreeSet<(Uuid, i32)> = read
            .filter_map(|topic| Some((topic, readable.get(topic)?)))
            .flat_map(|(topic, partitions)| partitions.iter().map(|one| (*topic, *one)))
            .collect();
        assert_eq!(given, all);
    }

    #[test]
    fn a_partition_is_shared_when_there_are_more_members() {
        let reads = vec![BTreeSet::from([0]); 3];
        let shares = assign(&takers(&reads, &[]), &readable(&[2]));
        assert_eq!(shares.iter().map(size).collect::<Vec<_>>(), [2, 1, 1]);
        let one = assign(&takers(&reads[..1], &shares), &readable(&[2]));
        assert_eq!(size(&one[0]), 2);
    }

    proptest! {
        #[test]
        fn everything_is_read_and_evenly(
            counts in prop::collection::vec(0..6i32, TOPICS),
            reads in prop::collection::vec(prop::collection::btree_set(0..TOPICS, 1..TOPICS), 1..7),
            later in prop::collection::vec(prop::collection::btree_set(0..TOPICS, 1..TOPICS), 1..7),
            members in 1..9usize,
        ) {
            let readable = readable(&counts);
            let first = takers(&reads, &[]);
            let shares = assign(&first, &readable);
            check(&first, &readable, &shares);
            let second = takers(&later, &shares);
            check(&second, &readable, &assign(&second, &readable));

            let same = vec![(0..TOPICS).collect::<BTreeSet<_>>(); members];
            let alike = takers(&same, &shares);
            let shares = assign(&alike, &readable);
            check(&alike, &readable, &shares);
            let most = shares.iter().map(size).max().unwrap_or(0);
            let least = shares.iter().map(size).min().unwrap_or(0);
            prop_assert!(most - least <= 1 || least > 0, "{shares:?}");
            let again = takers(&same, &shares);
            prop_assert_eq!(&assign(&again, &readable), &shares, "nothing moves without a reason");
        }
    }
}
