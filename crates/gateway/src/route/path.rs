//! One spelling for each path, so that what is matched, what policies see and what the upstream gets are the same.
//!
//! RFC 3986, section 6.2.2: escapes of unreserved characters are decoded, dot segments are removed. Everything else
//! stays as it came, in particular `%2F`, `%5C` and doubled slashes, unless [`Rules`] says otherwise.

use std::borrow::Cow;

/// What the `ambassador` Module says about paths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// `merge_slashes`: `//` becomes `/`.
    pub merge_slashes: bool,

    /// `reject_requests_with_escaped_slashes`: refuse `%2F` and `%5C`.
    pub escaped_slashes_refused: bool,
}

/// Why a path is refused before any route is looked at. The answer is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the path does not begin with `/`")]
    NotAbsolute,

    #[error("the path has a `%` that is not followed by two hexadecimal digits")]
    BrokenEscape,

    #[error("the path has `%00` in it")]
    Nul,

    #[error("the path has an unescaped space or control character in it")]
    Control,

    #[error("the path has an escaped slash (`%2F` or `%5C`) in it")]
    EscapedSlash,
}

/// Returns the one spelling of `raw`, a path without its query. Borrows when nothing changes, which is almost always.
///
/// A `%` that begins no escape is refused: `/%2%65` would otherwise turn into the escape `%2e` by being decoded.
/// `*` (as in `OPTIONS *`) stays as it is.
pub fn normalise<'p>(raw: &'p str, rules: &Rules) -> Result<Cow<'p, str>, Refusal> {
    if raw == "*" {
        return Ok(Cow::Borrowed(raw));
    }
    if raw.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if !raw.starts_with('/') {
        return Err(Refusal::NotAbsolute);
    }
    if is_plain(raw.as_bytes(), rules) {
        return Ok(Cow::Borrowed(raw));
    }
    let mut path = without_dots(&unescaped(raw, rules)?);
    if rules.merge_slashes {
        path = merged(&path);
    }
    Ok(Cow::Owned(path))
}

/// Whether one look is enough to see that nothing has to change.
fn is_plain(path: &[u8], rules: &Rules) -> bool {
    let mut after_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' | 0..=b' ' | 0x7f => return false,
            b'.' if after_slash => return false,
            b'/' if after_slash && rules.merge_slashes => return false,
            _ => after_slash = byte == b'/',
        }
    }
    true
}

/// Decodes what needs no escape and turns `\` into `/`, as browsers and some servers do.
fn unescaped(raw: &str, rules: &Rules) -> Result<String, Refusal> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest
        .find(['%', '\\', '\x7f', ' '])
        .or_else(|| control(rest))
    {
        // The first search may overlook a control character in front of what it finds.
        let at = control(&rest[..at]).unwrap_or(at);
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'\\' => {
                out.push('/');
                rest = &rest[at + 1..];
            }
            b'%' => {
                let escape = rest.get(at..at + 3).ok_or(Refusal::BrokenEscape)?;
                match decoded(&escape.as_bytes()[1..]).ok_or(Refusal::BrokenEscape)? {
                    0 => return Err(Refusal::Nul),
                    b'/' | b'\\' if rules.escaped_slashes_refused => {
                        return Err(Refusal::EscapedSlash);
                    }
                    byte if is_unreserved(byte) => out.push(char::from(byte)),
                    _ => out.push_str(escape),
                }
                rest = &rest[at + 3..];
            }
            _ => return Err(Refusal::Control),
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn control(text: &str) -> Option<usize> {
    text.bytes().position(|byte| byte < b' ')
}

fn decoded(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let dots = match segment {
            "." => true,
            ".." => {
                out.truncate(out.rfind('/').unwrap_or(0));
                true
            }
            _ => false,
        };
        if !dots {
            out.push('/');
            out.push_str(segment);
        } else if segments.peek().is_none() {
            out.push('/');
        }
    }
    out
}

fn merged(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    const MERGE: Rules = Rules {
        merge_slashes: true,
        escaped_slashes_refused: false,
    };
    const STRICT: Rules = Rules {
        merge_slashes: false,
        escaped_slashes_refused: true,
    };

    #[track_caller]
    fn check(rules: Rules, paths: &[&str], expected: Expect) {
        let mut told = String::new();
        for path in paths {
            let result = match normalise(path, &rules) {
                Ok(path) => path.into_owned(),
                Err(refusal) => format!("400 {refusal}"),
            };
            told += &format!("{path:?} -> {result}\n");
        }
        expected.assert_eq(&told);
    }

    #[test]
    fn dot_segments_go_and_slashes_stay() {
        check(
            Rules::default(),
            &[
                "",
                "/",
                "*",
                "/a/b",
                "/need/../x/",
                "/a/./b",
                "/a/..",
                "/a/.",
                "/../../x",
                "/a//b",
                "/a//../b",
                "/...",
                "/.well-known/x",
                "/a/%2e%2E/b",
                "/a\\..\\b",
            ],
            expect![[r#"
                "" -> /
                "/" -> /
                "*" -> *
                "/a/b" -> /a/b
                "/need/../x/" -> /x/
                "/a/./b" -> /a/b
                "/a/.." -> /
                "/a/." -> /a/
                "/../../x" -> /x
                "/a//b" -> /a//b
                "/a//../b" -> /a/b
                "/..." -> /...
                "/.well-known/x" -> /.well-known/x
                "/a/%2e%2E/b" -> /b
                "/a\\..\\b" -> /b
            "#]],
        );
    }

    #[test]
    fn only_unreserved_escapes_are_decoded() {
        check(
            Rules::default(),
            &[
                "/%41%2d%7e",
                "/a%2Fb",
                "/a%5cb",
                "/%20",
                "/%c3%bc",
                "/ü",
                "/%2%65",
                "/%",
                "/%f",
                "/%zz",
                "/%ü",
            ],
            expect![[r#"
                "/%41%2d%7e" -> /A-~
                "/a%2Fb" -> /a%2Fb
                "/a%5cb" -> /a%5cb
                "/%20" -> /%20
                "/%c3%bc" -> /%c3%bc
                "/ü" -> /ü
                "/%2%65" -> 400 the path has a `%` that is not followed by two hexadecimal digits
                "/%" -> 400 the path has a `%` that is not followed by two hexadecimal digits
                "/%f" -> 400 the path has a `%` that is not followed by two hexadecimal digits
                "/%zz" -> 400 the path has a `%` that is not followed by two hexadecimal digits
                "/%ü" -> 400 the path has a `%` that is not followed by two hexadecimal digits
            "#]],
        );
    }

    #[test]
    fn what_has_no_place_in_a_path_is_refused() {
        check(
            STRICT,
            &[
                "/a%00",
                "/a b",
                "/a\u{1}%41",
                "/%41\u{7f}",
                "/a%2fb",
                "/a%5Cb",
                "a/b",
            ],
            expect![[r#"
                "/a%00" -> 400 the path has `%00` in it
                "/a b" -> 400 the path has an unescaped space or control character in it
                "/a\u{1}%41" -> 400 the path has an unescaped space or control character in it
                "/%41\u{7f}" -> 400 the path has an unescaped space or control character in it
                "/a%2fb" -> 400 the path has an escaped slash (`%2F` or `%5C`) in it
                "/a%5Cb" -> 400 the path has an escaped slash (`%2F` or `%5C`) in it
                "a/b" -> 400 the path does not begin with `/`
            "#]],
        );
    }

    #[test]
    fn slashes_merge_when_the_module_says_so() {
        check(
            MERGE,
            &["//x/status/200", "/x//status///200//", "/a//../b", "/"],
            expect![[r#"
                "//x/status/200" -> /x/status/200
                "/x//status///200//" -> /x/status/200/
                "/a//../b" -> /a/b
                "/" -> /
            "#]],
        );
    }

    proptest! {
        #[test]
        fn normal_paths_are_left_alone(raw in "/([a./%\\\\ü]|%2e|%2F|%41|\\.\\.|\\PC){0,24}", merge: bool) {
            let rules = Rules { merge_slashes: merge, escaped_slashes_refused: false };
            if let Ok(path) = normalise(&raw, &rules) {
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path}");
                prop_assert!(!merge || !path.contains("//"));
                let again = normalise(&path, &rules);
                prop_assert_eq!(again.as_deref(), Ok(&*path));
            }
        }

        #[test]
        fn no_path_panics(raw in "\\PC{0,40}") {
            _ = normalise(&raw, &STRICT);
        }
    }
}
