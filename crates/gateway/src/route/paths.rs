//! Groups of one host name, filed by the beginning of their path, and by a header where many begin alike.

use std::collections::BTreeMap;

use ahash::HashMap;
use http::{HeaderMap, HeaderName};

use super::{
    group::Group,
    host::{Glob, Names},
    rule::{self, Field, HostRule, Rule, Test},
    tree::Tree,
};

/// So many groups with the same beginning are worth filing by the header they all ask for. Tests meet it at once.
const ALIKE_MIN: usize = if cfg!(test) { 2 } else { 8 };

/// The ranks of groups.
#[derive(Debug)]
pub(super) struct Paths {
    plain: Trees,
    by_header: Vec<ByHeader>,
}

#[derive(Debug)]
struct Trees {
    exact: Tree,
    /// For what does not tell upper from lower case.
    folded: Tree,
}

/// Groups that ask for this header with one exact value.
#[derive(Debug)]
struct ByHeader {
    name: HeaderName,
    values: HashMap<Box<[u8]>, Trees>,
}

impl Paths {
    /// Returns the lowest rank below `limit` that may match and that `accepts` takes.
    pub(super) fn lowest(
        &self,
        path: &[u8],
        headers: &HeaderMap,
        limit: u32,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut found = self.plain.lowest(path, limit, &mut accepts);
        for by_header in &self.by_header {
            let value = rule::joined(headers, &by_header.name);
            let Some(trees) = value.and_then(|value| by_header.values.get(&*value)) else {
                continue;
            };
            let limit = found.unwrap_or(limit);
            found = trees.lowest(path, limit, &mut accepts).or(found);
        }
        found
    }
}

impl Trees {
    fn build(entries: &[Entry]) -> Self {
        let tree = |folded: bool| {
            let of_kind = entries.iter().filter(|entry| entry.folded == folded);
            Tree::build(of_kind.map(|entry| (entry.beginning.as_bytes(), entry.rank)))
        };
        Self {
            exact: tree(false),
            folded: tree(true),
        }
    }

    fn lowest(&self, path: &[u8], limit: u32, mut accepts: impl FnMut(u32) -> bool) -> Option<u32> {
        let exact = self.exact.lowest(path, false, limit, &mut accepts);
        let limit = exact.unwrap_or(limit);
        self.folded.lowest(path, true, limit, accepts).or(exact)
    }
}

/// Ranks on their way into their places.
#[derive(Default)]
pub(super) struct Filing {
    globs: BTreeMap<Glob, Vec<Entry>>,
}

struct Entry {
    beginning: String,
    folded: bool,
    rank: u32,
    /// A header that must have exactly this value.
    header: Option<(HeaderName, Vec<u8>)>,
}

impl Filing {
    pub(super) fn add(&mut self, rules: &[Rule], group: &Group, rank: u32) {
        for member in &group.members {
            let rule = &rules[member.rule as usize];
            let glob = match &rule.host {
                HostRule::Unsaid | HostRule::Regex(_) => Glob::Any,
                HostRule::Glob(glob) => glob.clone(),
            };
            let header =
                rule.headers
                    .iter()
                    .find_map(|header| match (&header.name, &header.test) {
                        (Field::Header(name), Test::Exact(value)) => {
                            Some((name.clone(), value.as_bytes().to_vec()))
                        }
                        _ => None,
                    });
            self.globs.entry(glob).or_default().push(Entry {
                beginning: rule.path.beginning().into_owned(),
                folded: !rule.path.case_sensitive,
                rank,
                header,
            });
        }
    }

    pub(super) fn finish(self) -> Names<Paths> {
        Names::collect(
            self.globs
                .into_iter()
                .map(|(glob, entries)| (glob, file(entries))),
        )
    }
}

fn file(entries: Vec<Entry>) -> Paths {
    let mut alike: HashMap<(String, HeaderName), usize> = HashMap::default();
    for entry in &entries {
        if let Some((name, _)) = &entry.header {
            *alike
                .entry((entry.beginning.clone(), name.clone()))
                .or_default() += 1;
        }
    }
    let mut plain = Vec::new();
    let mut by_header: HashMap<HeaderName, HashMap<Box<[u8]>, Vec<Entry>>> = HashMap::default();
    for entry in entries {
        match &entry.header {
            Some((name, value)) if alike[&(entry.beginning.clone(), name.clone())] >= ALIKE_MIN => {
                let values = by_header.entry(name.clone()).or_default();
                values
                    .entry(value.as_slice().into())
                    .or_default()
                    .push(entry);
            }
            _ => plain.push(entry),
        }
    }
    let by_header = by_header.into_iter().map(|(name, values)| ByHeader {
        name,
        values: values
            .into_iter()
            .map(|(value, all)| (value, Trees::build(&all)))
            .collect(),
    });
    Paths {
        plain: Trees::build(&plain),
        by_header: by_header.collect(),
    }
}
