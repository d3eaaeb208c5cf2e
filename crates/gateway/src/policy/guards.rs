//! Who would have to be asked before a request goes on, and cannot be.
//!
//! A FilterPolicy names requests by globs over host and path: `*` stands for any text, slashes too, `?` for one character,
//! `[a-z]` for one of a set, `{a,b}` for one of several. The first of its rules that matches decides, as in Ambassador.
//! What cannot be read is guarded. So is a path that differs in nothing but upper and lower case, which a Mapping may take
//! for the same, and a host with a dot at its end.

use model::guard::{Guard, Rule as Said};
use regex::Regex;

use crate::route::split_port;

/// Largest regular expression that a glob may make.
const REGEX_BYTES_MAX: usize = 1 << 20;

/// All guards of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Guards(Vec<Compiled>);

#[derive(Debug)]
struct Compiled {
    name: String,
    /// `None` for all requests.
    rules: Option<Vec<Rule>>,
}

#[derive(Debug)]
struct Rule {
    host: Option<Regex>,
    path: Option<Regex>,
    asks: bool,
}

impl Guards {
    /// Compiles what is written.
    pub(crate) fn new(said: &[Guard]) -> Self {
        let guard = |guard: &Guard| Compiled {
            name: guard.name.clone(),
            rules: guard
                .rules
                .as_ref()
                .map(|rules| rules.iter().map(Rule::new).collect()),
        };
        Guards(said.iter().map(guard).collect())
    }

    /// Returns who would have to be asked about a request, if anybody.
    pub(crate) fn refuses(&self, authority: &str, path: &str) -> Option<&str> {
        let asks = |guard: &&Compiled| match &guard.rules {
            None => true,
            Some(rules) => rules
                .iter()
                .find(|rule| rule.matches(authority, path))
                .is_some_and(|rule| rule.asks),
        };
        self.0.iter().find(asks).map(|guard| &*guard.name)
    }
}

impl Rule {
    fn new(said: &Said) -> Self {
        Rule {
            host: compile(&said.host.to_ascii_lowercase(), said.asks),
            path: compile(&said.path, said.asks),
            asks: said.asks,
        }
    }

    fn matches(&self, authority: &str, path: &str) -> bool {
        let host = |host: &Regex| {
            let authority = authority.to_ascii_lowercase();
            let name = split_port(&authority);
            let plain = name.strip_suffix('.').filter(|_| self.asks);
            [Some(&*authority), Some(name), plain]
                .into_iter()
                .flatten()
                .any(|name| host.is_match(name))
        };
        self.path.as_ref().is_none_or(|glob| glob.is_match(path))
            && self.host.as_ref().is_none_or(host)
    }
}

/// Returns nothing where everything matches. What is no glob matches everything when the rule asks, else nothing.
fn compile(glob: &str, asks: bool) -> Option<Regex> {
    if matches!(glob, "*" | "**") {
        return None;
    }
    let build = |pattern: &str| {
        regex::RegexBuilder::new(pattern)
            .dot_matches_new_line(true)
            .case_insensitive(asks)
            .size_limit(REGEX_BYTES_MAX)
            .build()
            .ok()
    };
    match pattern(glob).and_then(|pattern| build(&pattern)) {
        Some(regex) => Some(regex),
        None if asks => None,
        None => build(r"[^\s\S]"),
    }
}

/// Returns the regular expression that a glob means.
fn pattern(glob: &str) -> Option<String> {
    let mut out = String::from(r"\A");
    let mut deep = 0u32;
    let mut rest = glob.chars();
    while let Some(char) = rest.next() {
        match char {
            '*' if out.ends_with(".*") => (),
            '*' => out.push_str(".*"),
            '?' => out.push('.'),
            '{' => {
                deep += 1;
                out.push_str("(?:");
            }
            '}' if deep > 0 => {
                deep -= 1;
                out.push(')');
            }
            ',' if deep > 0 => out.push('|'),
            '[' => {
                let set: String = rest.by_ref().take_while(|char| *char != ']').collect();
                let (not, set) = match set.strip_prefix(['!', '^']) {
                    Some(set) => ("^", set),
                    None => ("", &*set),
                };
                let plain = |char: char| char.is_alphanumeric() || "-_./".contains(char);
                if set.is_empty() || !set.chars().all(plain) {
                    return None;
                }
                out.push_str(&format!("[{not}{set}]"));
            }
            '\\' => out.push_str(&regex::escape(rest.next()?.encode_utf8(&mut [0; 4]))),
            char => out.push_str(&regex::escape(char.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push_str(r"\z");
    (deep == 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[(&str, &str, bool)]) -> Guards {
        let rule = |(host, path, asks): &(&str, &str, bool)| Said {
            host: (*host).to_owned(),
            path: (*path).to_owned(),
            asks: *asks,
        };
        Guards::new(&[Guard {
            name: "FilterPolicy p.default".to_owned(),
            rules: Some(rules.iter().map(rule).collect()),
        }])
    }

    #[track_caller]
    fn check(glob: &str, path: &str, expected: bool) {
        let refused = policy(&[("*", glob, true)]).refuses("a", path).is_some();
        assert_eq!(refused, expected, "{glob} {path}");
    }

    #[test]
    fn globs_name_paths() {
        check("/a/*", "/a/b/c", true);
        check("/a/*", "/a/", true);
        check("/a/*", "/a", false);
        check("/a*", "/a", true);
        check("/a/**", "/a/b/c", true);
        check("/a", "/a/", false);
        check("/a.b", "/aXb", false);
        check("/?/x", "/1/x", true);
        check("/{a,b}/*", "/b/x", true);
        check("/{a,b}/*", "/c/x", false);
        check("/v[12]/*", "/v2/x", true);
        check("/v[!12]/*", "/v2/x", false);
        check(r"/\*", "/*", true);
        check(r"/\*", "/x", false);
        check("/Admin/*", "/ADMIN/x", true);
        let open = policy(&[("*", "/open", false), ("*", "*", true)]);
        assert!(open.refuses("a", "/open").is_none());
        assert!(open.refuses("a", "/OPEN").is_some());
    }

    #[test]
    fn what_is_no_glob_is_guarded() {
        for glob in ["/{a", "/[", r"/a\", "/[]x]"] {
            check(glob, "/whatever", true);
            let exempt = policy(&[("*", glob, false), ("*", "*", true)]);
            assert!(exempt.refuses("a", "/whatever").is_some(), "{glob}");
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let guards = policy(&[
            ("*", "/open/*", false),
            ("shop.example", "*", true),
            ("*.Example", "/x", true),
        ]);
        let refused = |host, path| guards.refuses(host, path).is_some();
        assert!(!refused("shop.example", "/open/1"));
        assert!(refused("shop.example", "/closed"));
        assert!(refused("SHOP.example:8080", "/closed"));
        assert!(refused("shop.example.:8080", "/closed"));
        assert!(!refused("other.example", "/closed"));
        assert!(refused("other.example", "/x"));
        assert!(!refused("other", "/x"));
    }

    #[test]
    fn one_guard_is_enough() {
        let free = Guard {
            name: "FilterPolicy free.default".to_owned(),
            rules: Some(Vec::new()),
        };
        let all = Guard::all("AuthService auth.default");
        let guards = Guards::new(&[free.clone(), all]);
        assert_eq!(guards.refuses("a", "/"), Some("AuthService auth.default"));
        assert_eq!(Guards::new(&[free]).refuses("a", "/"), None);
    }
}
