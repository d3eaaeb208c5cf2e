//! One route as a rule: what a request must look like, and what happens to it then.

use std::{borrow::Cow, collections::BTreeMap};

use http::{HeaderMap, HeaderName};
use model::publish::Segment;
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::{
    Request,
    host::{Authority, Glob},
    rewrite::{Redirect, Rewrite},
};

/// A compiled regular expression may take this many bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Shorter texts are in too many paths to be worth looking for. Tests want them all.
const TEXT_BYTES_MIN: usize = if cfg!(test) { 1 } else { 3 };

/// What a request must look like, and what happens to it then.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// `name.namespace` of the object that asked for it; orders the members of a group.
    pub(super) name: String,
    /// The labels by which Hosts select.
    pub(super) labels: BTreeMap<String, String>,
    pub(super) host: HostRule,
    pub(super) path: PathRule,
    pub(super) method: Option<Test>,
    /// In the order of their names.
    pub(super) headers: Vec<HeaderRule>,
    pub(super) query: Vec<QueryRule>,
    pub(super) precedence: i32,
    /// Share in percent among the rules that match the same.
    pub(super) weight: Option<u32>,
    /// Gets copies; its answers are thrown away.
    pub(super) shadow: bool,
    /// Settings that rules of one group must agree on, where they differ from the default.
    pub(super) agreed: Vec<(&'static str, String)>,
    pub(super) rewrite: Rewrite,
    /// Set when the rule answers by itself.
    pub(super) redirect: Option<Redirect>,
    pub(super) target: Target,
}

/// Where in the configuration the rule comes from: the index in the list of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    Mapping(usize),
    Publish(usize),
}

/// Which authorities a rule is for.
#[derive(Debug, Clone)]
pub(super) enum HostRule {
    /// Nothing said: labels alone decide.
    Unsaid,
    Glob(Glob),
    Regex(Whole),
}

/// Which paths a rule is for.
#[derive(Debug, Clone)]
pub(super) struct PathRule {
    pub(super) text: String,
    pub(super) kind: PathKind,
    /// Upper and lower ASCII letters differ; always true for regular expressions.
    pub(super) case_sensitive: bool,
}

#[derive(Debug, Clone)]
pub(super) enum PathKind {
    Prefix,
    Exact,
    Regex(Whole),
    /// Segments with names, as a publish route has them.
    Segments(Box<[Segment]>),
}

/// A test on a value.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Present,
    Exact(String),
    Regex(Whole),
}

/// A test on a header. `:authority`, `:method` and `:path` count as headers.
#[derive(Debug, Clone)]
pub(super) struct HeaderRule {
    pub(super) name: Field,
    pub(super) test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Header(HeaderName),
    Authority,
    Method,
    Path,
}

/// A test on a query parameter.
#[derive(Debug, Clone)]
pub(super) struct QueryRule {
    pub(super) name: String,
    pub(super) test: Test,
}

/// A regular expression that has to match all of a text.
#[derive(Debug, Clone)]
pub(super) struct Whole {
    text: Box<str>,
    regex: regex::bytes::Regex,
}

/// Why a rule does not match a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    Host,
    Path,
    Method,
    /// The index in `headers`.
    Header(usize),
    /// The index in `query`.
    Query(usize),
}

impl Rule {
    /// Returns the first reason why the rule does not match, or nothing when it does.
    pub(super) fn loss(&self, request: &Request<'_>, authority: &Authority<'_>) -> Option<Loss> {
        if !self.host.matches(authority) {
            return Some(Loss::Host);
        }
        if !self.path.matches(request.path) {
            return Some(Loss::Path);
        }
        self.loss_but_for_path(request, authority)
    }

    /// Like [`Rule::loss`], when the host's glob is known to match and the path is not of interest.
    pub(super) fn loss_but_for_path(
        &self,
        request: &Request<'_>,
        authority: &Authority<'_>,
    ) -> Option<Loss> {
        if self
            .method
            .as_ref()
            .is_some_and(|test| !test.passes(request.method.as_str().as_bytes()))
        {
            return Some(Loss::Method);
        }
        if let HostRule::Regex(regex) = &self.host
            && !regex.matches(authority.full().as_bytes())
            && !regex.matches(authority.name().as_bytes())
        {
            return Some(Loss::Host);
        }
        if let Some(index) = self
            .headers
            .iter()
            .position(|rule| !rule.passes(request, authority))
        {
            return Some(Loss::Header(index));
        }
        self.query
            .iter()
            .position(|rule| !rule.passes(request.query))
            .map(Loss::Query)
    }
}

impl HostRule {
    pub(super) fn matches(&self, authority: &Authority<'_>) -> bool {
        match self {
            HostRule::Unsaid => true,
            HostRule::Glob(glob) => glob.matches(authority),
            HostRule::Regex(regex) => {
                regex.matches(authority.full().as_bytes())
                    || regex.matches(authority.name().as_bytes())
            }
        }
    }
}

impl PathRule {
    pub(super) fn matches(&self, whole: &str) -> bool {
        let (path, text) = (whole.as_bytes(), self.text.as_bytes());
        match &self.kind {
            PathKind::Regex(regex) => regex.matches(path),
            PathKind::Segments(segments) => segments_match(segments, whole),
            PathKind::Exact if self.case_sensitive => path == text,
            PathKind::Exact => path.eq_ignore_ascii_case(text),
            PathKind::Prefix if self.case_sensitive => path.starts_with(text),
            PathKind::Prefix => path
                .get(..text.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(text)),
        }
    }

    /// Returns how much of a matching path a rewrite replaces.
    pub(super) fn matched(&self, path: &str) -> usize {
        match self.kind {
            PathKind::Prefix => self.text.len(),
            PathKind::Exact | PathKind::Regex(_) | PathKind::Segments(_) => path.len(),
        }
    }

    /// Returns what every matching path begins with.
    pub(super) fn beginning(&self) -> Cow<'_, str> {
        match &self.kind {
            PathKind::Regex(regex) => literal_beginning(&regex.text).into(),
            PathKind::Segments(segments) => {
                let mut beginning = String::from("/");
                for segment in segments {
                    let Segment::Exact(text) = segment else { break };
                    beginning.push_str(text);
                    beginning.push('/');
                }
                // The last slash is only certain when something follows it.
                let last = segments
                    .iter()
                    .all(|segment| matches!(segment, Segment::Exact(_)));
                beginning.truncate(beginning.len() - usize::from(last));
                beginning.into()
            }
            _ if self.case_sensitive => Cow::Borrowed(&self.text),
            _ => self.text.to_ascii_lowercase().into(),
        }
    }
}

impl Test {
    pub(super) fn passes(&self, value: &[u8]) -> bool {
        match self {
            Test::Present => true,
            Test::Exact(text) => text.as_bytes() == value,
            Test::Regex(regex) => regex.matches(value),
        }
    }

    /// As written, and whether it is a regular expression.
    pub(super) fn written(&self) -> (&str, bool) {
        match self {
            Test::Present => (".*", true),
            Test::Exact(text) => (text, false),
            Test::Regex(regex) => (&regex.text, true),
        }
    }
}

impl HeaderRule {
    /// A header that is there several times counts as one, its values joined by commas.
    fn passes(&self, request: &Request<'_>, authority: &Authority<'_>) -> bool {
        let name = match &self.name {
            Field::Header(name) => name,
            Field::Authority => {
                let (full, name) = (authority.full(), authority.name());
                return self.test.passes(full.as_bytes()) || self.test.passes(name.as_bytes());
            }
            Field::Method => return self.test.passes(request.method.as_str().as_bytes()),
            Field::Path => {
                return match request.query {
                    None => self.test.passes(request.path.as_bytes()),
                    Some(query) => self
                        .test
                        .passes(format!("{}?{query}", request.path).as_bytes()),
                };
            }
        };
        joined(request.headers, name).is_some_and(|value| self.test.passes(&value))
    }
}

/// Returns the value of a header; several are joined by commas, as Envoy does.
pub(super) fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut joined = first.to_vec();
    for value in [second].into_iter().chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(joined))
}

impl Field {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Field::Header(name) => name.as_str(),
            Field::Authority => ":authority",
            Field::Method => ":method",
            Field::Path => ":path",
        }
    }
}

impl QueryRule {
    /// The first parameter of that name counts; it passes as it stands or with its escapes decoded.
    fn passes(&self, query: Option<&str>) -> bool {
        parameter(query, &self.name).is_some_and(|value| {
            self.test.passes(value.as_bytes())
                || (value.contains('%') && self.test.passes(&decoded(value)))
        })
    }
}

/// Returns the value of the first parameter of that name, as it stands.
pub(super) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    let mut pairs = query?.split('&').filter(|pair| !pair.is_empty());
    pairs.find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        let same = found == name || (found.contains('%') && *decoded(found) == *name.as_bytes());
        same.then_some(value)
    })
}

/// Decodes escapes.
pub(super) fn decoded(text: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(text).into()
}

impl Whole {
    pub(super) fn new(pattern: &str) -> Result<Self, regex::Error> {
        // On its own first: the error then shows what the user wrote, and nothing can close the group below.
        regex_syntax::parse(pattern).map_err(|error| regex::Error::Syntax(error.to_string()))?;
        let regex = regex::bytes::RegexBuilder::new(&format!(r"\A(?:{pattern})\z"))
            .size_limit(REGEX_BYTES_MAX)
            .build()?;
        Ok(Self {
            text: pattern.into(),
            regex,
        })
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Returns texts that everything it matches has in it, each of some length.
    pub(super) fn texts(&self) -> Vec<Vec<u8>> {
        let mut texts = vec![Vec::new()];
        if let Ok(hir) = regex_syntax::parse(&self.text) {
            collect_texts(&hir, &mut texts);
        }
        texts.retain(|text| text.len() >= TEXT_BYTES_MIN);
        texts
    }

    fn matches(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

/// Compiles a pattern of bounded size that may match anywhere.
pub(super) fn regex(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
}

/// Names take one segment each, which is not empty; a name for the rest takes what is left, even nothing.
fn segments_match(segments: &[Segment], path: &str) -> bool {
    captures(segments, path).is_some()
}

/// Returns what the names in a path stand for, as it is in the path, or nothing when the path does not match.
pub(super) fn captures<'a>(
    segments: &'a [Segment],
    path: &'a str,
) -> Option<impl Iterator<Item = (&'a str, &'a str)>> {
    let walk = move || {
        let mut rest = path.strip_prefix('/');
        segments.iter().map(move |segment| {
            let left = rest?;
            let (head, tail) = match (segment, left.split_once('/')) {
                (Segment::Rest(_), _) | (_, None) => (left, None),
                (_, Some((head, tail))) => (head, Some(tail)),
            };
            rest = tail;
            match segment {
                Segment::Exact(text) => (text == head).then_some((None, head, rest)),
                Segment::One(name) => (!head.is_empty()).then_some((Some(name), head, rest)),
                Segment::Rest(name) => Some((Some(name), head, rest)),
            }
        })
    };
    let mut left = path.strip_prefix('/');
    for step in walk() {
        left = step?.2;
    }
    if left.is_some() && !segments.is_empty() {
        return None;
    }
    Some(
        walk()
            .flatten()
            .filter_map(|(name, value, _)| Some((name?.as_str(), value))),
    )
}

/// Returns the text that everything the whole pattern matches begins with; it may be shorter than possible.
fn literal_beginning(pattern: &str) -> String {
    let Ok(hir) = regex_syntax::parse(pattern) else {
        return String::new();
    };
    let mut literal = Vec::new();
    collect_literal(&hir, &mut literal);
    let whole_characters = match std::str::from_utf8(&literal) {
        Ok(text) => text.len(),
        Err(error) => error.valid_up_to(),
    };
    literal.truncate(whole_characters);
    String::from_utf8(literal).unwrap_or_default()
}

/// Appends the literal begin of `hir`. Returns whether that was all of it.
fn collect_literal(hir: &Hir, literal: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(Look::Start | Look::End) => true,
        HirKind::Literal(text) => {
            literal.extend_from_slice(&text.0);
            true
        }
        HirKind::Capture(capture) => collect_literal(&capture.sub, literal),
        HirKind::Concat(parts) => parts.iter().all(|part| collect_literal(part, literal)),
        _ => false,
    }
}

/// Appends to the last text what follows it for sure, and begins another where something else may stand between.
fn collect_texts(hir: &Hir, texts: &mut Vec<Vec<u8>>) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => (),
        HirKind::Literal(text) => {
            let last = texts.last_mut().expect("there is always one");
            last.extend_from_slice(&text.0);
        }
        HirKind::Capture(capture) => collect_texts(&capture.sub, texts),
        HirKind::Concat(parts) => parts.iter().for_each(|part| collect_texts(part, texts)),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            texts.push(Vec::new());
            collect_texts(&repetition.sub, texts);
            texts.push(Vec::new());
        }
        _ => texts.push(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regexes_have_texts_they_need() {
        for (pattern, expected) in [
            ("/api/v[0-9]+/x", "/api/v /x"),
            ("^/a(/b)/c.*$", "/a/b/c"),
            ("/a|/bc", ""),
            ("/x(ab)+y", "/x ab y"),
            ("/x(ab)*y", "/x y"),
            ("(?i)/ab", "/"),
            (".*", ""),
        ] {
            let texts = Whole::new(pattern).unwrap().texts();
            let texts: Vec<_> = texts
                .iter()
                .map(|text| str::from_utf8(text).unwrap())
                .collect();
            assert_eq!(texts.join(" "), expected, "{pattern}");
        }
    }

    #[test]
    fn regexes_have_literal_beginnings() {
        for (pattern, expected) in [
            ("/api/v[0-9]+/x", "/api/v"),
            ("^/a(/b)/c.*$", "/a/b/c"),
            (r"/a\.b-c\/d?", "/a.b-c/"),
            ("/a|/b", "/"),
            ("/abc|x", ""),
            ("(?i)/abc", "/"),
            ("/ü*", "/"),
            ("/üb+", "/ü"),
            ("/a{2}b", "/"),
            (".*", ""),
            ("", ""),
        ] {
            let found = literal_beginning(pattern);
            assert!(expected.starts_with(&found), "{pattern}: {found}");
            assert!(
                expected == found || pattern.contains('|'),
                "{pattern}: {found}"
            );
        }
    }

    #[test]
    fn segments_take_what_they_name() {
        let told = |route: &str, path: &str| {
            let segments = model::publish::Route::parse(route).unwrap().segments;
            captures(&segments, path).map(|pairs| {
                pairs
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        for (route, path, expected) in [
            ("POST /e/{kind}", "/e/a", Some("kind=a")),
            ("POST /e/{kind}", "/e/", None),
            ("POST /e/{kind}", "/e", None),
            ("POST /e/{kind}", "/e/a/b", None),
            ("POST /e/{kind}/x", "/e/a/x", Some("kind=a")),
            ("POST /e/{kind}/x", "/e/a/y", None),
            (
                "POST /e/{kind}/{rest...}",
                "/e/a/b/c",
                Some("kind=a rest=b/c"),
            ),
            ("POST /e/{rest...}", "/e/", Some("rest=")),
            ("POST /e/{rest...}", "/e", None),
            ("POST /e", "/e", Some("")),
            ("POST /e", "/e/", None),
            ("POST /e/", "/e/", Some("")),
            ("POST /", "/", Some("")),
        ] {
            assert_eq!(told(route, path).as_deref(), expected, "{route} {path}");
            let segments = model::publish::Route::parse(route).unwrap().segments;
            let kind = PathKind::Segments(segments.into());
            let rule = PathRule {
                text: String::new(),
                kind,
                case_sensitive: true,
            };
            assert!(
                expected.is_none() || path.starts_with(&*rule.beginning()),
                "{route}"
            );
        }
    }

    #[test]
    fn whole_means_whole() {
        let regex = Whole::new("a|ab").unwrap();
        assert!(regex.matches(b"ab") && !regex.matches(b"abc") && !regex.matches(b"xa"));
        assert!(Whole::new("a)(b").is_err());
        assert!(Whole::new(&"(a{1000}){1000}".repeat(2)).is_err());
    }

    #[test]
    fn query_values_pass_raw_or_decoded() {
        let rule = |value: &str| QueryRule {
            name: "né".into(),
            test: Test::Exact(value.into()),
        };
        assert!(rule("a b").passes(Some("x&n%c3%A9=a%20b&né=c")));
        assert!(rule("a%20b").passes(Some("né=a%20b")));
        assert!(rule("").passes(Some("né")));
        assert!(!rule("c").passes(Some("né=b&né=c")), "the first one counts");
        assert!(!rule("").passes(None));
    }
}
