//! The topics as far as groups care, at one moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use uuid::Uuid;

/// Memory that one compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Names, ids and numbers of partitions.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Rises whenever a topic comes, goes or grows.
    pub version: u64,
    by_name: BTreeMap<Arc<str>, Uuid>,
    by_id: HashMap<Uuid, (Arc<str>, i32)>,
}

impl Catalog {
    pub(crate) fn new(
        version: u64,
        topics: impl IntoIterator<Item = (Arc<str>, Uuid, i32)>,
    ) -> Self {
        let mut catalog = Self {
            version,
            ..Self::default()
        };
        for (name, id, partitions) in topics {
            catalog.by_name.insert(name.clone(), id);
            catalog.by_id.insert(id, (name, partitions));
        }
        catalog
    }

    pub(crate) fn id(&self, name: &str) -> Option<Uuid> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn name(&self, id: Uuid) -> Option<&Arc<str>> {
        self.by_id.get(&id).map(|(name, _)| name)
    }

    /// Returns how many partitions a topic has; none when it is gone.
    pub(crate) fn partitions(&self, id: Uuid) -> i32 {
        self.by_id.get(&id).map_or(0, |(_, partitions)| *partitions)
    }

    /// Returns the names that a pattern matches as a whole.
    pub(super) fn matching(&self, pattern: &Regex) -> BTreeSet<Arc<str>> {
        self.by_name
            .keys()
            .filter(|name| pattern.is_match(name))
            .cloned()
            .collect()
    }

    /// Returns a number that differs when one of these topics has come, gone or grown; 0 when none is there.
    pub(in crate::group) fn fingerprint<'a>(&self, names: impl Iterator<Item = &'a str>) -> i64 {
        // FNV-1a: it is stored, so it must be the same in every build.
        const START: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = START;
        for name in names {
            let Some(id) = self.id(name) else { continue };
            let partitions = self.partitions(id).to_be_bytes();
            for byte in id.as_bytes().iter().chain(&partitions) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
        match hash {
            START => 0,
            _ => hash.cast_signed(),
        }
    }
}

/// Compiles a pattern that has to match a whole name; the error says what is wrong with it.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    // Alone first: what is no pattern by itself must not become one by what stands around it.
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

fn build(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build();
    built.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_and_have_a_limit() {
        let names = ["a", "ab", "b.a"].map(|name| (Arc::from(name), Uuid::new_v4(), 1));
        let catalog = Catalog::new(1, names);
        let found = |pattern: &str| {
            let found = catalog.matching(&compile(pattern).expect("a pattern"));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("a"), ["a"]);
        assert_eq!(found("a|ab"), ["a", "ab"]);
        assert_eq!(found("^.*a$"), ["a", "b.a"]);
        assert!(compile("a)(b").is_err());
        assert!(compile("[").is_err());
        assert!(compile(r"(\w{1000}){1000}").is_err());
    }

    #[test]
    fn a_fingerprint_tells_of_growth_and_of_a_new_topic_with_the_old_name() {
        let id = Uuid::from_u128(7);
        let print = |id, partitions| {
            let catalog = Catalog::new(1, [(Arc::from("t"), id, partitions)]);
            catalog.fingerprint(["t", "gone"].into_iter())
        };
        assert_eq!(print(id, 1), print(id, 1));
        assert_ne!(print(id, 1), print(id, 2));
        assert_ne!(print(id, 1), print(Uuid::from_u128(8), 1));
        assert_eq!(Catalog::default().fingerprint(["t"].into_iter()), 0);
    }
}
