//! Consistent hashing on a ring: each endpoint has points on it, as many as its weight says, and a request goes to the
//! first point at or after its hash.
//!
//! Points are named and hashed as Envoy's `ring_hash` does it. Their number is another one: Envoy shares a number of
//! points out among the endpoints, so that everybody gets new ones when somebody leaves, and about a tenth of the
//! requests to others moves. Here an endpoint's points depend on its own weight alone, and nothing of others moves.

use xxhash_rust::xxh64::xxh64;

/// Points for each unit of weight. With two endpoints that makes Envoy's `minimum_ring_size`, 1024.
const POINTS_EACH: u64 = 512;
/// Where the ring would have more points, it has half as many for each unit, and so on.
const POINTS_MAX: u64 = 1 << 17;

/// The points in order.
#[derive(Debug)]
pub(crate) struct Ring(Box<[(u64, u32)]>);

impl Ring {
    /// Makes the ring. Keys are what endpoints are told apart by, such as their addresses.
    pub(crate) fn of(members: &[(String, u32)]) -> Self {
        let total: u64 = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut each = POINTS_EACH;
        while each > 1 && each * total > POINTS_MAX {
            each /= 2;
        }
        let mut points = Vec::with_capacity((each * total) as usize);
        for (index, (key, weight)) in (0u32..).zip(members) {
            let mut name = format!("{key}_");
            let length = name.len();
            for number in 0..each * u64::from(*weight) {
                name.truncate(length);
                name.push_str(&number.to_string());
                points.push((xxh64(name.as_bytes(), 0), index));
            }
        }
        points.sort_unstable();
        Ring(points.into())
    }

    /// Returns the endpoints from this hash on, repeated as often as their points.
    pub(crate) fn from(&self, hash: u64) -> impl Iterator<Item = usize> + '_ {
        let first = self.0.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.0.split_at(first);
        after.iter().chain(before).map(|(_, index)| *index as usize)
    }
}
