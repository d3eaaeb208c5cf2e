//! Consistent hashing by a table, as Google's Maglev and Envoy's `maglev`: more even than a ring, a little less stable.

use xxhash_rust::xxh64::xxh64;

/// Places in the table, a prime number.
const PLACES: usize = 65_537;
/// What stands in a place that nobody has taken.
const FREE: u32 = u32::MAX;

/// The table.
#[derive(Debug)]
pub(crate) struct Maglev(Box<[u32]>);

/// An endpoint while places are given away.
struct Taker {
    offset: usize,
    skip: usize,
    next: usize,
    weight: f64,
    /// Its turn comes when the rounds have reached this.
    target: f64,
}

impl Maglev {
    /// Makes the table. Keys are what endpoints are told apart by, such as their addresses.
    pub(crate) fn of(members: &[(String, u32)]) -> Self {
        let mut places = vec![FREE; PLACES];
        let most = f64::from(members.iter().map(|(_, weight)| *weight).max().unwrap_or(1));
        let mut takers: Vec<Taker> = members
            .iter()
            .map(|(key, weight)| Taker {
                offset: (xxh64(key.as_bytes(), 0) % PLACES as u64) as usize,
                skip: (xxh64(key.as_bytes(), 1) % (PLACES as u64 - 1)) as usize + 1,
                next: 0,
                weight: f64::from(*weight),
                target: 0.0,
            })
            .collect();
        let mut taken = 0;
        let mut round = 0.0;
        while taken < PLACES && !takers.is_empty() {
            round += 1.0;
            for (index, taker) in (0u32..).zip(&mut takers) {
                if taken == PLACES {
                    break;
                }
                if round * taker.weight < taker.target {
                    continue;
                }
                taker.target += most;
                let place = loop {
                    let place = (taker.offset + taker.skip * taker.next) % PLACES;
                    taker.next += 1;
                    if places[place] == FREE {
                        break place;
                    }
                };
                places[place] = index;
                taken += 1;
            }
        }
        Maglev(places.into())
    }

    /// Returns the endpoint for this hash, then others in the order of the table.
    pub(crate) fn from(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let first = (hash % PLACES as u64) as usize;
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|index| *index as usize)
    }
}
