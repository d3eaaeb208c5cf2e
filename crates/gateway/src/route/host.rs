//! Host names: Ambassador's globs, and an index that finds the globs a request's authority matches.
//!
//! A glob is `*`, `*x`, `x*` or a plain name; the star stands for one or more characters, dots included. A port in the
//! authority counts only for globs that name a port themselves.

use std::{borrow::Cow, fmt};

use ahash::HashMap;

/// A host name as written, lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Glob {
    /// `*`
    Any,
    /// `shop.example`; also what has a star in a place where globs have none, which then matches nothing.
    Exact(String),
    /// `*.example`, kept without the star.
    Suffix(String),
    /// `shop.*`, kept without the star.
    Prefix(String),
}

impl Glob {
    /// Reads a glob. Never fails: a star in the middle is an ordinary character, as in Ambassador.
    pub(crate) fn new(text: &str) -> Glob {
        let text = text.to_ascii_lowercase();
        if text == "*" {
            Glob::Any
        } else if let Some(rest) = text.strip_prefix('*') {
            Glob::Suffix(rest.to_owned())
        } else if let Some(rest) = text.strip_suffix('*') {
            Glob::Prefix(rest.to_owned())
        } else {
            Glob::Exact(text)
        }
    }

    /// Whether a request for `authority` is one for this name.
    pub(super) fn matches(&self, authority: &Authority<'_>) -> bool {
        match self {
            Glob::Any => true,
            Glob::Exact(name) => name == authority.seen_by(name),
            Glob::Suffix(end) => ends(authority.seen_by(end), end),
            Glob::Prefix(start) => begins(authority.seen_by(start), start),
        }
    }

    /// Whether some name could match both. This is how Ambassador attaches Mappings to Hosts.
    pub(super) fn overlaps(&self, other: &Glob) -> bool {
        match (self, other) {
            (Glob::Any, _) | (_, Glob::Any) => true,
            (Glob::Exact(a), Glob::Exact(b)) => a == b,
            (Glob::Exact(name), Glob::Suffix(end)) | (Glob::Suffix(end), Glob::Exact(name)) => {
                ends(name, end)
            }
            (Glob::Exact(name), Glob::Prefix(start)) | (Glob::Prefix(start), Glob::Exact(name)) => {
                begins(name, start)
            }
            (Glob::Suffix(a), Glob::Suffix(b)) => {
                a.ends_with(b.as_str()) || b.ends_with(a.as_str())
            }
            (Glob::Prefix(a), Glob::Prefix(b)) => {
                a.starts_with(b.as_str()) || b.starts_with(a.as_str())
            }
            (Glob::Suffix(_), Glob::Prefix(_)) | (Glob::Prefix(_), Glob::Suffix(_)) => true,
        }
    }

    /// Like [`Glob::overlaps`], but a port in one of them does not keep them apart.
    pub(crate) fn overlaps_but_for_port(&self, other: &Glob) -> bool {
        let bare = |glob: &Glob| match glob {
            Glob::Exact(name) => Glob::Exact(split_port(name).to_owned()),
            // Without its port, `*:8500` is any name.
            Glob::Suffix(end) if split_port(end).is_empty() => Glob::Any,
            Glob::Suffix(end) => Glob::Suffix(split_port(end).to_owned()),
            _ => glob.clone(),
        };
        self.overlaps(other) || bare(self).overlaps(&bare(other))
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Glob::Any => out.write_str("*"),
            Glob::Exact(name) => out.write_str(name),
            Glob::Suffix(end) => write!(out, "*{end}"),
            Glob::Prefix(start) => write!(out, "{start}*"),
        }
    }
}

/// The star stands for something, and never for a bare dot.
fn ends(name: &str, end: &str) -> bool {
    name.strip_suffix(end)
        .is_some_and(|star| !matches!(star, "" | "."))
}

fn begins(name: &str, start: &str) -> bool {
    name.len() > start.len() && name.starts_with(start)
}

/// The authority of a request, in lower case, with and without its port.
#[derive(Debug, Clone)]
pub(crate) struct Authority<'a> {
    full: Cow<'a, str>,
    name_len: usize,
}

impl<'a> Authority<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let full = if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(text.to_ascii_lowercase())
        } else {
            Cow::Borrowed(text)
        };
        let name_len = split_port(text).len();
        Self { full, name_len }
    }

    /// As the client sent it, but in lower case.
    pub(super) fn full(&self) -> &str {
        &self.full
    }

    /// Without the port.
    pub(super) fn name(&self) -> &str {
        &self.full[..self.name_len]
    }

    fn has_port(&self) -> bool {
        self.name_len < self.full.len()
    }

    /// What a pattern with this text is compared to: the port counts where the pattern has one.
    fn seen_by(&self, pattern: &str) -> &str {
        if names_port(pattern) {
            self.full()
        } else {
            self.name()
        }
    }
}

/// Returns the authority without its port. Knows `[::1]:80`.
pub fn split_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (!name.contains(':') || name.ends_with(']')) =>
        {
            name
        }
        _ => authority,
    }
}

fn names_port(pattern: &str) -> bool {
    split_port(pattern).len() < pattern.len()
}

/// Things filed under globs. Finding costs a hash look-up for each distinct length of a glob, however many there are.
#[derive(Debug)]
pub(crate) struct Names<T> {
    any: Option<T>,
    exact: HashMap<Box<str>, T>,
    /// Longest first.
    suffixes: Vec<Length<T>>,
    prefixes: Vec<Length<T>>,
}

/// The globs whose text, without the star, has this length.
#[derive(Debug)]
struct Length<T> {
    len: usize,
    globs: HashMap<Box<[u8]>, T>,
}

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self {
            any: None,
            exact: HashMap::default(),
            suffixes: Vec::new(),
            prefixes: Vec::new(),
        }
    }
}

impl<T> Names<T> {
    pub(crate) fn collect(items: impl IntoIterator<Item = (Glob, T)>) -> Self {
        let mut names = Self::default();
        for (glob, item) in items {
            match glob {
                Glob::Any => names.any = Some(item),
                Glob::Exact(name) => _ = names.exact.insert(name.into(), item),
                Glob::Suffix(end) => file(&mut names.suffixes, &end, item),
                Glob::Prefix(start) => file(&mut names.prefixes, &start, item),
            }
        }
        for lengths in [&mut names.suffixes, &mut names.prefixes] {
            lengths.sort_by_key(|length| std::cmp::Reverse(length.len));
        }
        names
    }

    /// Returns the most specific match: a plain name, then the longest `*x`, then the longest `x*`, then `*`.
    pub(crate) fn best(&self, authority: &Authority<'_>) -> Option<&T> {
        self.matches(authority).next()
    }

    /// Returns all matches, the most specific first. Does not allocate.
    pub(super) fn matches<'n>(&'n self, authority: &Authority<'_>) -> impl Iterator<Item = &'n T> {
        let with_port = authority.has_port().then(|| authority.full());
        let seen = move || with_port.into_iter().chain([authority.name()]);
        let exact = seen().filter_map(|name| self.exact.get(name));
        let suffixes = self.suffixes.iter().flat_map(move |Length { len, globs }| {
            seen().filter_map(move |name| {
                let at = name.len().checked_sub(*len)?;
                let (star, end) = name.as_bytes().split_at(at);
                filed(globs, end, name, authority).filter(|_| !matches!(star, b"" | b"."))
            })
        });
        let prefixes = self.prefixes.iter().flat_map(move |Length { len, globs }| {
            seen().filter_map(move |name| {
                let start = name.as_bytes().get(..*len).filter(|_| name.len() > *len)?;
                filed(globs, start, name, authority)
            })
        });
        exact
            .chain(suffixes)
            .chain(prefixes)
            .chain(self.any.as_ref())
    }
}

fn file<T>(lengths: &mut Vec<Length<T>>, text: &str, item: T) {
    let len = text.len();
    let at = lengths
        .iter()
        .position(|length| length.len == len)
        .unwrap_or_else(|| {
            lengths.push(Length {
                len,
                globs: HashMap::default(),
            });
            lengths.len() - 1
        });
    lengths[at].globs.insert(text.as_bytes().into(), item);
}

/// Looks a piece of `name` up, if a glob with that text looks at `name` (and not at the authority's other form).
fn filed<'n, T>(
    globs: &'n HashMap<Box<[u8]>, T>,
    piece: &[u8],
    name: &str,
    authority: &Authority<'_>,
) -> Option<&'n T> {
    let item = globs.get(piece)?;
    let pattern = std::str::from_utf8(piece).ok()?;
    (authority.seen_by(pattern).len() == name.len()).then_some(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ambassador's own truth table.
    #[test]
    fn globs_overlap_as_in_ambassador() {
        for (a, b, expected) in [
            ("*", "example.com", true),
            ("example.com", "EXAMPLE.com", true),
            ("*.example.com", "a.example.com", true),
            ("*example.com", "example.com", false),
            ("*example.com", ".example.com", false),
            ("foo.example*", "foo.example.com.", true),
            ("a.*.com", "a.example.com", false),
            ("*.example.com", "a.b.example.*", true),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "*.example.org", false),
            ("a.*", "b.*", false),
            ("*", "quote.local:8500", true),
            ("quote.*", "*.local:8500", true),
            ("*.local:8500", "quote.local", false),
        ] {
            assert_eq!(Glob::new(a).overlaps(&Glob::new(b)), expected, "{a} {b}");
            assert_eq!(Glob::new(b).overlaps(&Glob::new(a)), expected, "{b} {a}");
        }
    }

    #[test]
    fn the_index_agrees_with_the_globs() {
        let globs = [
            "*",
            "a.example",
            "a.example:80",
            "*.example",
            "*a.example",
            "*.example:80",
            "*:80",
            "a.*",
            "a.example*",
            "a.example:*",
            "b*",
            "[::1]",
            "[::1]:80",
            "*0",
            "*example",
            "a.*.c",
        ];
        let names = Names::collect(globs.iter().map(|text| (Glob::new(text), *text)));
        for text in [
            "a.example",
            "A.Example",
            "a.example:80",
            "a.example:8080",
            "b.a.example:80",
            ".example",
            "b",
            "bb",
            "[::1]",
            "[::1]:80",
            "[::1]:81",
            "",
            ":80",
            "a.",
            "a.x.c",
            "ü.example",
            "x0",
            "x0:80",
            "a.example:",
        ] {
            let authority = Authority::new(text);
            let mut expected: Vec<_> = globs
                .iter()
                .filter(|glob| Glob::new(glob).matches(&authority))
                .copied()
                .collect();
            let mut found: Vec<_> = names.matches(&authority).copied().collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_most_specific_name_wins_and_ports_count_where_named() {
        let names = Names::collect(
            [
                "*",
                "*.com",
                "*.shop.com",
                "a.*",
                "a.shop.com",
                "a.shop.com:81",
            ]
            .map(|text| (Glob::new(text), text)),
        );
        for (authority, expected) in [
            ("a.shop.com", "a.shop.com"),
            ("a.shop.com:80", "a.shop.com"),
            ("a.shop.com:81", "a.shop.com:81"),
            ("b.shop.com", "*.shop.com"),
            ("shop.com", "*.com"),
            ("a.org", "a.*"),
            ("b.org", "*"),
        ] {
            assert_eq!(
                names.best(&Authority::new(authority)),
                Some(&expected),
                "{authority}"
            );
        }
    }
}
