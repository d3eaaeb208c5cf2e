//! Groups of one host name, filed by the beginning of their path; where many begin alike, by what else sets them apart.
//!
//! What sets groups apart is one value of a header or of a query parameter, or a piece of text that a regular expression for
//! the path or for the host cannot do without. Only what is filed under a value that the request has is looked at.

use std::collections::BTreeMap;

use ahash::HashMap;
use aho_corasick::AhoCorasick;
use http::HeaderName;
use kit::aside::let_others;

use super::{
    Request,
    group::Group,
    host::{Authority, Glob, Names},
    rule::{self, Field, HostRule, PathKind, Rule, Test},
    tree::Tree,
};

/// So many groups with the same beginning are worth filing by what sets them apart. Tests meet it at once.
const ALIKE_MIN: usize = if cfg!(test) { 2 } else { 8 };
/// So few groups need no tree.
const FEW_MAX: usize = if cfg!(test) { 1 } else { 4 };

/// The ranks of groups.
#[derive(Debug)]
pub(super) struct Paths {
    plain: Trees,
    by_field: Vec<ByField>,
    by_text: Vec<ByText>,
}

#[derive(Debug)]
struct Trees {
    exact: Tree,
    /// For what does not tell upper from lower case.
    folded: Tree,
}

/// Groups that ask for this header or query parameter with one exact value.
#[derive(Debug)]
struct ByField {
    field: Place,
    values: HashMap<Box<[u8]>, Bucket>,
}

/// Where the value stands.
#[derive(Debug)]
enum Place {
    Header(HeaderName),
    Query(Box<str>),
}

/// The same on the way there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Name {
    Header(String),
    Query(String),
}

/// Groups with a regular expression that needs a certain text.
#[derive(Debug)]
struct ByText {
    of: Whose,
    texts: AhoCorasick,
    /// In the order of the texts.
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Whose {
    Path,
    Authority,
}

#[derive(Debug)]
enum Bucket {
    /// In ascending order.
    Few(Box<[u32]>),
    Many(Trees),
}

impl Paths {
    /// Returns the lowest rank below `limit` that may match and that `accepts` takes.
    pub(super) fn lowest(
        &self,
        request: &Request<'_>,
        authority: &Authority<'_>,
        limit: u32,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let path = request.path.as_bytes();
        let mut found = self.plain.lowest(path, limit, &mut accepts);
        let mut look = |bucket: Option<&Bucket>| {
            if let Some(bucket) = bucket {
                let limit = found.unwrap_or(limit);
                found = bucket.lowest(path, limit, &mut accepts).or(found);
            }
        };
        for by_field in &self.by_field {
            let values = &by_field.values;
            match &by_field.field {
                Place::Header(name) => {
                    let value = rule::joined(request.headers, name);
                    look(value.and_then(|value| values.get(&*value)));
                }
                Place::Query(name) => {
                    let Some(value) = rule::parameter(request.query, name) else {
                        continue;
                    };
                    look(values.get(value.as_bytes()));
                    if value.contains('%') {
                        look(values.get(&*rule::decoded(value)));
                    }
                }
            }
        }
        for by_text in &self.by_text {
            let text = match by_text.of {
                Whose::Path => request.path,
                Whose::Authority => authority.full(),
            };
            for text in by_text.texts.find_overlapping_iter(text) {
                look(by_text.buckets.get(text.pattern().as_usize()));
            }
        }
        found
    }
}

impl Bucket {
    fn build(entries: &[Entry]) -> Self {
        if entries.len() > FEW_MAX {
            return Bucket::Many(Trees::build(entries));
        }
        let mut ranks: Vec<u32> = entries.iter().map(|entry| entry.rank).collect();
        ranks.sort_unstable();
        Bucket::Few(ranks.into())
    }

    fn lowest(&self, path: &[u8], limit: u32, mut accepts: impl FnMut(u32) -> bool) -> Option<u32> {
        match self {
            Bucket::Few(ranks) => ranks
                .iter()
                .copied()
                .take_while(|&rank| rank < limit)
                .find(|&rank| accepts(rank)),
            Bucket::Many(trees) => trees.lowest(path, limit, accepts),
        }
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
    /// What may set it apart from others that begin alike.
    marks: Vec<Mark>,
}

/// What a request must have to be taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Mark {
    Value(Name, Vec<u8>),
    Text(Whose, Vec<u8>),
}

impl Filing {
    pub(super) fn add(&mut self, rules: &[Rule], group: &Group, rank: u32) {
        for member in &group.members {
            let rule = &rules[member.rule as usize];
            let glob = match &rule.host {
                HostRule::Unsaid | HostRule::Regex(_) => Glob::Any,
                HostRule::Glob(glob) => glob.clone(),
            };
            self.globs.entry(glob).or_default().push(Entry {
                beginning: rule.path.beginning().into_owned(),
                folded: !rule.path.case_sensitive,
                rank,
                marks: marks(rule),
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

fn marks(rule: &Rule) -> Vec<Mark> {
    let headers = rule.headers.iter().filter_map(|header| {
        let (Field::Header(name), Test::Exact(value)) = (&header.name, &header.test) else {
            return None;
        };
        let name = Name::Header(name.as_str().to_owned());
        Some(Mark::Value(name, value.as_bytes().to_vec()))
    });
    let query = rule.query.iter().filter_map(|query| {
        let Test::Exact(value) = &query.test else {
            return None;
        };
        let name = Name::Query(query.name.clone());
        Some(Mark::Value(name, value.as_bytes().to_vec()))
    });
    let mut marks: Vec<Mark> = headers.chain(query).collect();
    if let PathKind::Regex(regex) = &rule.path.kind {
        let texts = regex.texts().into_iter();
        marks.extend(texts.map(|text| Mark::Text(Whose::Path, text)));
    }
    if let HostRule::Regex(regex) = &rule.host {
        let texts = regex.texts().into_iter();
        marks.extend(texts.map(|text| Mark::Text(Whose::Authority, text)));
    }
    marks
}

/// Files each entry under the mark that it shares with the fewest of those that begin alike.
fn file(entries: Vec<Entry>) -> Paths {
    let mut alike: HashMap<(bool, &str), usize> = HashMap::default();
    for entry in &entries {
        *alike.entry((entry.folded, &*entry.beginning)).or_default() += 1;
    }
    let mut sharing: HashMap<(bool, &str, &Mark), usize> = HashMap::default();
    for entry in &entries {
        if alike[&(entry.folded, &*entry.beginning)] >= ALIKE_MIN {
            for mark in &entry.marks {
                let place = (entry.folded, &*entry.beginning, mark);
                *sharing.entry(place).or_default() += 1;
            }
        }
    }
    let best = |entry: &Entry| {
        let all = alike[&(entry.folded, &*entry.beginning)];
        let count = |mark| sharing.get(&(entry.folded, &*entry.beginning, mark));
        let counted = entry
            .marks
            .iter()
            .filter_map(|mark| Some((*count(mark)?, mark)));
        let (count, mark) = counted.min()?;
        (count < all).then(|| mark.clone())
    };
    let best: Vec<Option<Mark>> = entries.iter().map(best).collect();

    let mut plain = Vec::new();
    let mut by_field: BTreeMap<Name, HashMap<Box<[u8]>, Vec<Entry>>> = BTreeMap::new();
    let mut by_text: BTreeMap<Whose, BTreeMap<Vec<u8>, Vec<Entry>>> = BTreeMap::new();
    for (entry, best) in entries.into_iter().zip(best) {
        let_others();
        match best {
            None => plain.push(entry),
            Some(Mark::Value(name, value)) => {
                let values = by_field.entry(name).or_default();
                values.entry(value.into()).or_default().push(entry);
            }
            Some(Mark::Text(of, text)) => {
                let texts = by_text.entry(of).or_default();
                texts.entry(text).or_default().push(entry);
            }
        }
    }
    let by_text =
        by_text
            .into_iter()
            .filter_map(|(of, texts)| match AhoCorasick::new(texts.keys()) {
                Ok(found) => Some(ByText {
                    of,
                    texts: found,
                    buckets: texts.values().map(|all| Bucket::build(all)).collect(),
                }),
                // Too much text for its index: found one by one.
                Err(_) => {
                    plain.extend(texts.into_values().flatten());
                    None
                }
            });
    let by_text = by_text.collect();
    let by_field = by_field.into_iter().map(|(name, values)| ByField {
        field: match name {
            Name::Header(name) => Place::Header(name.parse().expect("it was the name of a header")),
            Name::Query(name) => Place::Query(name.into()),
        },
        values: values
            .into_iter()
            .map(|(value, all)| (value, Bucket::build(&all)))
            .collect(),
    });
    Paths {
        plain: Trees::build(&plain),
        by_field: by_field.collect(),
        by_text,
    }
}
