//! The headers that a Mapping adds, with those of the Mappings that it shares its requests with.
//!
//! As in Ambassador, the members of a group add what any of them adds. Where two say something about one header, the
//! Mapping's own word counts for its own requests; of the others', that of the last in the order of their names.

use std::collections::BTreeMap;

use model::mapping::AddedHeader;
use model::{Config, Mapping};

/// Headers by their names.
type Headers = BTreeMap<String, AddedHeader>;

/// What is added to requests and to answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Added {
    pub(crate) request: Option<Headers>,
    pub(crate) response: Option<Headers>,
}

impl Added {
    /// Returns what a Mapping adds, `peers` being the others of its group.
    pub(crate) fn of<'m>(
        config: &'m Config,
        mapping: &'m Mapping,
        peers: impl Iterator<Item = &'m Mapping> + Clone,
    ) -> Self {
        let defaults = config.module.defaults.as_ref();
        let defaults = defaults.and_then(|defaults| defaults.httpmapping.as_ref());
        let request = |mapping: &'m Mapping| {
            let own = mapping.add_request_headers.as_ref();
            own.or(defaults.and_then(|all| all.add_request_headers.as_ref()))
        };
        let response = |mapping: &'m Mapping| {
            let own = mapping.add_response_headers.as_ref();
            own.or(defaults.and_then(|all| all.add_response_headers.as_ref()))
        };
        let all = peers.chain([mapping]);
        Added {
            request: merged(all.clone().filter_map(request)),
            response: merged(all.filter_map(response)),
        }
    }
}

/// The last word about a header counts; names differ in more than their case.
fn merged<'m>(all: impl Iterator<Item = &'m Headers>) -> Option<Headers> {
    let mut merged: Option<Headers> = None;
    for headers in all {
        let merged = merged.get_or_insert_default();
        let said = |known: &String| headers.keys().any(|name| name.eq_ignore_ascii_case(known));
        merged.retain(|known, _| !said(known));
        merged.extend(headers.clone());
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(request: &str) -> Mapping {
        serde_saphyr::from_str(&format!("{{ prefix: /, service: s{request} }}")).expect("a Mapping")
    }

    #[test]
    fn members_of_a_group_add_what_any_of_them_adds() {
        let one = mapping(", add_request_headers: { x-a: { value: one }, x-one: { value: '1' } }");
        let other =
            mapping(", add_request_headers: { X-A: { value: other }, x-two: { value: '2' } }");
        let silent = mapping("");
        let config = Config::default();
        let told = |mapping: &Mapping, peers: &[&Mapping]| -> Vec<String> {
            let added = Added::of(&config, mapping, peers.iter().copied());
            let headers = added.request.into_iter().flatten();
            headers
                .map(|(name, added)| format!("{name}={}", added.value))
                .collect()
        };
        assert_eq!(
            told(&one, &[&other, &silent]),
            ["x-a=one", "x-one=1", "x-two=2"]
        );
        assert_eq!(told(&other, &[&one]), ["X-A=other", "x-one=1", "x-two=2"]);
        assert_eq!(told(&silent, &[&one]), ["x-a=one", "x-one=1"]);
        assert_eq!(
            Added::of(&config, &silent, [].into_iter()),
            Added::default()
        );
    }
}
