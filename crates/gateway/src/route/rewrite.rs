//! What happens to the path: rewrites towards the service, and the place a redirect points to.

use std::fmt;

use http::StatusCode;
use regex::Regex;

/// How the path changes on its way to the service.
#[derive(Debug, Clone)]
pub(super) enum Rewrite {
    /// `rewrite: ""`.
    Keep,
    /// The matched prefix gives way to this; for exact and regex routes that is the whole path.
    Prefix(Box<str>),
    /// Every match of the pattern gives way.
    Pattern(Replace),
}

/// A regular expression and its substitution.
#[derive(Debug, Clone)]
pub(super) struct Replace {
    pattern: Regex,
    /// In the spelling of the `regex` crate.
    substitution: Box<str>,
}

/// Why a `regex_rewrite` or `regex_redirect` cannot work.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadReplace {
    #[error(transparent)]
    Pattern(#[from] regex::Error),

    #[error("the substitution uses group `\\{group}`, but the pattern has {groups}")]
    NoSuchGroup { group: usize, groups: usize },

    #[error("the substitution has a `\\` that is not followed by a digit or another `\\`")]
    Backslash,
}

impl Replace {
    /// Compiles RE2's spelling: `\1` is the first group, `\0` the whole match, `\\` a backslash.
    pub(super) fn new(pattern: &str, substitution: &str) -> Result<Self, BadReplace> {
        let pattern = super::rule::regex(pattern)?;
        let groups = pattern.captures_len() - 1;
        let mut ours = String::with_capacity(substitution.len());
        let mut rest = substitution.chars();
        while let Some(character) = rest.next() {
            match character {
                '$' => ours.push_str("$$"),
                '\\' => match rest.next() {
                    Some('\\') => ours.push('\\'),
                    Some(digit) => {
                        let group = digit.to_digit(10).ok_or(BadReplace::Backslash)? as usize;
                        if group > groups {
                            return Err(BadReplace::NoSuchGroup { group, groups });
                        }
                        ours.push_str(&format!("${{{group}}}"));
                    }
                    None => return Err(BadReplace::Backslash),
                },
                _ => ours.push(character),
            }
        }
        Ok(Self {
            pattern,
            substitution: ours.into(),
        })
    }

    fn apply(&self, path: &str) -> Option<String> {
        match self.pattern.replace_all(path, &*self.substitution) {
            std::borrow::Cow::Borrowed(_) => None,
            std::borrow::Cow::Owned(path) => Some(path),
        }
    }
}

/// A path in up to three pieces that follow each other, so that nothing is copied before it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewritten<'a> {
    /// The path stays as it is.
    Same(&'a str),
    /// The new beginning and what is left of the path.
    Joined(&'a str, &'a str),
    /// All of it is new.
    New(String),
}

impl<'a> Rewritten<'a> {
    /// Replaces the first `matched` bytes of `path`.
    ///
    /// Where a prefix without a slash at its end (`/orders`) is replaced by something with one (`/`), the slash that
    /// follows in the path goes: `/orders/1` becomes `/1`, where Ambassador makes `//1` of it.
    fn joined(path: &'a str, matched: usize, head: &'a str) -> Self {
        let (prefix, mut tail) = path.split_at_checked(matched).unwrap_or((path, ""));
        if prefix == head {
            return Rewritten::Same(path);
        }
        if head.ends_with('/') && !prefix.ends_with('/') {
            tail = tail.strip_prefix('/').unwrap_or(tail);
        }
        Rewritten::Joined(head, tail)
    }

    /// Whether the path is what it was.
    pub fn is_same(&self) -> bool {
        matches!(self, Rewritten::Same(_))
    }

    /// Appends the path and the query, as an HTTP request wants them: beginning with a slash.
    pub fn write(&self, query: Option<&str>, out: &mut String) {
        let begin = out.len();
        match self {
            Rewritten::Same(path) => out.push_str(path),
            Rewritten::Joined(head, tail) => {
                out.push_str(head);
                out.push_str(tail);
            }
            Rewritten::New(path) => out.push_str(path),
        }
        if !out[begin..].starts_with('/') && !matches!(self, Rewritten::Same(_)) {
            out.insert(begin, '/');
        }
        if let Some(query) = query {
            let mark = if out[begin..].contains('?') { '&' } else { '?' };
            out.push(mark);
            out.push_str(query);
        }
    }
}

impl fmt::Display for Rewritten<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(None, &mut text);
        out.write_str(&text)
    }
}

impl Rewrite {
    /// Returns the path for the service. `matched` is the length of the matched prefix.
    pub(super) fn apply<'a>(&'a self, path: &'a str, matched: usize) -> Rewritten<'a> {
        match self {
            Rewrite::Keep => Rewritten::Same(path),
            Rewrite::Prefix(head) => Rewritten::joined(path, matched, head),
            Rewrite::Pattern(replace) => replace
                .apply(path)
                .map_or(Rewritten::Same(path), Rewritten::New),
        }
    }
}

/// An answer that sends the client elsewhere (`host_redirect`).
#[derive(Debug, Clone)]
pub(super) struct Redirect {
    pub(super) status: StatusCode,
    /// The scheme of `service` where it has one, else that of the request.
    pub(super) scheme: Option<&'static str>,
    pub(super) authority: Box<str>,
    pub(super) path: RedirectPath,
}

/// The path a redirect points to.
#[derive(Debug, Clone)]
pub(super) enum RedirectPath {
    /// As in the request.
    Keep,
    /// `path_redirect`.
    Whole(Box<str>),
    /// `prefix_redirect` or `regex_redirect`.
    Changed(Rewrite),
}

impl Redirect {
    /// Returns the `Location`. The query goes along, unless `path_redirect` brings its own.
    pub(super) fn location(
        &self,
        secure: bool,
        path: &str,
        matched: usize,
        query: Option<&str>,
    ) -> String {
        let scheme = self.scheme.unwrap_or(if secure { "https" } else { "http" });
        let mut location = format!("{scheme}://{}", self.authority);
        match &self.path {
            RedirectPath::Keep => Rewritten::Same(path).write(query, &mut location),
            RedirectPath::Whole(whole) => {
                let query = query.filter(|_| !whole.contains('?'));
                Rewritten::Joined(whole, "").write(query, &mut location);
            }
            RedirectPath::Changed(rewrite) => {
                rewrite.apply(path, matched).write(query, &mut location)
            }
        }
        location
    }
}

/// Returns the `Location` of the same thing by HTTPS. Port 80 is left out; another port stays.
pub(super) fn secure_location(authority: &str, path: &str, query: Option<&str>) -> String {
    let authority = authority.strip_suffix(":80").unwrap_or(authority);
    let mut location = format!("https://{authority}");
    Rewritten::Same(path).write(query, &mut location);
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_gives_way_without_doubling_slashes() {
        for (prefix, rewrite, path, expected) in [
            ("/x/", "/", "/x/", "/"),
            ("/x/", "/", "/x/foo", "/foo"),
            ("/x/", "/", "/x//foo", "//foo"),
            ("/x", "/", "/x/foo", "/foo"),
            ("/x", "/", "/x", "/"),
            ("/x", "/", "/xfoo", "/foo"),
            ("/p/", "/foo", "/p/", "/foo"),
            ("/p/", "/foo", "/p/bar", "/foobar"),
            ("/p/", "/foo/", "/p/bar", "/foo/bar"),
            ("/p/", "foo/", "/p/bar", "/foo/bar"),
        ] {
            let rewrite = Rewrite::Prefix(rewrite.into());
            assert_eq!(
                rewrite.apply(path, prefix.len()).to_string(),
                expected,
                "{path}"
            );
        }
        assert!(Rewrite::Prefix("/x/".into()).apply("/x/foo", 3).is_same());
        assert!(Rewrite::Keep.apply("/x/foo", 3).is_same());
    }

    #[test]
    fn patterns_replace_every_match_with_groups() {
        for (pattern, substitution, path, expected) in [
            ("/foo/baz", "/baz/foo", "/foo/bar", "/foo/bar"),
            ("/foo/baz", "/baz/foo", "/foo/baz", "/baz/foo"),
            ("^/([a-z]+)/([0-9]+)$", r"/\2/\1/\0", "/u/7", "/7/u//u/7"),
            ("a", "$1", "/aa", "/$1$1"),
            ("a", r"\\", "/a", r"/\"),
        ] {
            let rewrite = Rewrite::Pattern(Replace::new(pattern, substitution).unwrap());
            assert_eq!(rewrite.apply(path, 0).to_string(), expected, "{path}");
        }
        for (pattern, substitution) in [("a", r"\1"), ("(", ""), ("a", r"\"), ("a", r"\x")] {
            assert!(
                Replace::new(pattern, substitution).is_err(),
                "{pattern} {substitution}"
            );
        }
    }

    #[test]
    fn queries_follow_the_new_path() {
        let mut out = String::from("x");
        Rewritten::Joined("/a", "/b").write(Some("q=1"), &mut out);
        assert_eq!(out, "x/a/b?q=1");
    }

    #[test]
    fn https_is_the_same_place() {
        assert_eq!(secure_location("h", "/p", Some("a=b")), "https://h/p?a=b");
        assert_eq!(secure_location("h:80", "/p", None), "https://h/p");
        assert_eq!(secure_location("h:8080", "/p", None), "https://h:8080/p");
    }
}
