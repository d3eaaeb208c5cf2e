//! The latest offset of each key, in bounded memory.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The map. Keys are known by a hash of 128 bits, of which no two in one topic are alike.
#[derive(Debug)]
pub(super) struct Keys {
    offsets: HashMap<[u64; 2], i64, BuildHasherDefault<Half>>,
    seed: u64,
    max: usize,
}

impl Keys {
    /// Returns an empty map for at most `max` keys.
    pub(super) fn new(max: usize) -> Keys {
        Keys {
            offsets: HashMap::default(),
            seed: RandomState::new().hash_one(0),
            max,
        }
    }

    /// Notes the offset of a key, which is later than any before; false when there is no room.
    pub(super) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        if self.offsets.len() >= self.max && !self.offsets.contains_key(&hash) {
            return false;
        }
        self.offsets.insert(hash, offset);
        true
    }

    /// Returns the latest offset of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<i64> {
        self.offsets.get(&self.hash(key)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let hash = xxh3_128_with_seed(key, self.seed);
        [hash as u64, (hash >> 64) as u64]
    }
}

/// Takes what is a hash already.
#[derive(Debug, Default)]
struct Half(u64);

impl Hasher for Half {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }

    fn write_usize(&mut self, _length: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_offset_counts_and_the_room_is_bounded() {
        let mut keys = Keys::new(2);
        assert!(keys.put(b"a", 1) && keys.put(b"b", 2) && keys.put(b"a", 3));
        assert!(!keys.put(b"c", 4));
        assert!(keys.put(b"b", 5));
        assert_eq!(keys.get(b"a"), Some(3));
        assert_eq!(keys.get(b"b"), Some(5));
        assert_eq!(keys.get(b"c"), None);
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn many_keys_are_told_apart() {
        let mut keys = Keys::new(usize::MAX);
        for number in 0..20_000i64 {
            assert!(keys.put(&number.to_be_bytes(), number));
        }
        assert_eq!(keys.len(), 20_000);
        assert!((0..20_000i64).all(|number| keys.get(&number.to_be_bytes()) == Some(number)));
    }
}
