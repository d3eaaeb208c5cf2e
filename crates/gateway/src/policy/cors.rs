//! Cross-origin rules: who may ask from another website, and how browsers are told.
//!
//! A preflight (`OPTIONS` with `Origin` and `Access-Control-Request-Method`) is answered here, before anything else would
//! ask the client who it is. An origin that may not ask is told nothing: the browser then refuses by itself.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response};
use model::mapping::Cors as Said;

use crate::body::ResponseBody;

/// Compiled rules.
#[derive(Debug)]
pub(crate) struct Cors {
    any: bool,
    origins: Vec<Origin>,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    credentials: bool,
}

#[derive(Debug)]
enum Origin {
    Exact(String),
    /// `https://*.example.com`: what stands before and behind the `*`.
    Below {
        scheme: String,
        rest: String,
    },
}

impl Cors {
    /// Compiles what is written and checked.
    pub(crate) fn new(said: &Said) -> Self {
        let joined = |items: &[String]| match items.is_empty() {
            true => None,
            false => HeaderValue::from_str(&items.join(", ")).ok(),
        };
        let origin = |text: &String| match text.split_once("*.") {
            Some((scheme, rest)) => Origin::Below {
                scheme: scheme.to_owned(),
                rest: format!(".{rest}"),
            },
            None => Origin::Exact(text.clone()),
        };
        Cors {
            any: said.origins.iter().any(|origin| origin == "*"),
            origins: said.origins.iter().map(origin).collect(),
            methods: joined(&said.methods),
            headers: joined(&said.headers),
            exposed: joined(&said.exposed_headers),
            max_age: said
                .max_age
                .as_deref()
                .and_then(|age| HeaderValue::from_str(age).ok()),
            credentials: said.credentials,
        }
    }

    /// Returns the request's origin when it may ask.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        let allowed = self.any || self.origins.iter().any(|allowed| allowed.is(text));
        (allowed && !text.is_empty()).then(|| origin.clone())
    }

    /// Answers a preflight.
    pub(crate) fn preflight(&self, headers: &HeaderMap) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        let answer = response.headers_mut();
        if let Some(origin) = self.allowed(headers) {
            self.tell_origin(origin, answer);
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, &self.headers),
                (header::ACCESS_CONTROL_MAX_AGE, &self.max_age),
            ] {
                if let Some(value) = value {
                    answer.insert(name, value.clone());
                }
            }
        }
        vary(answer);
        response
    }

    /// Tells the browser that a page of this origin may read the answer; what the service has told is replaced.
    pub(crate) fn tell(&self, origin: Option<HeaderValue>, answer: &mut HeaderMap) {
        if let Some(origin) = origin {
            self.tell_origin(origin, answer);
            if let Some(exposed) = &self.exposed {
                answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
            }
        }
        vary(answer);
    }

    fn tell_origin(&self, origin: HeaderValue, answer: &mut HeaderMap) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            answer.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        }
    }
}

impl Origin {
    fn is(&self, origin: &str) -> bool {
        match self {
            Origin::Exact(allowed) => allowed == origin,
            Origin::Below { scheme, rest } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|below| below.strip_suffix(rest.as_str()))
                .is_some_and(is_name),
        }
    }
}

/// Whether it is one or more labels of a host name.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    text.split('.').all(label)
}

/// Returns whether a browser asks what it may ask.
pub(crate) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
        && headers.contains_key(header::ORIGIN)
}

/// Returns the method that a preflight asks about.
pub(crate) fn requested_method(headers: &HeaderMap) -> Option<Method> {
    let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).ok()
}

/// The answer depends on the origin, so that a cache must keep one for each.
fn vary(answer: &mut HeaderMap) {
    add_vary(answer, "origin");
}

/// Adds a name to `vary`, unless it is there.
pub(crate) fn add_vary(headers: &mut HeaderMap, name: &'static str) {
    let there = headers
        .get_all(header::VARY)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .any(|part| part == b"*" || part.eq_ignore_ascii_case(name.as_bytes()));
    if !there {
        headers.append(header::VARY, HeaderValue::from_static(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(origins: &[&str], origin: &str, expected: bool) {
        let cors = Cors::new(&Said {
            origins: origins.iter().map(|&origin| origin.to_owned()).collect(),
            ..Said::default()
        });
        let mut headers = HeaderMap::new();
        headers.insert(header::ORIGIN, origin.parse().expect("a value"));
        let allowed = cors.allowed(&headers);
        assert_eq!(allowed.is_some(), expected, "{origin}");
        assert!(allowed.is_none_or(|allowed| allowed == origin));
    }

    #[test]
    fn origins_are_exact_or_any() {
        check(&["https://a.com"], "https://a.com", true);
        check(&["https://a.com"], "https://a.com:444", false);
        check(&["https://a.com"], "http://a.com", false);
        check(&["https://b.com", "https://a.com"], "https://a.com", true);
        check(&["*"], "anything", true);
        check(&["null"], "null", true);
        check(&[], "https://a.com", false);
    }

    #[test]
    fn a_star_stands_for_subdomains_only() {
        let origins = &["https://*.example.com"];
        check(origins, "https://a.example.com", true);
        check(origins, "https://a.b.example.com", true);
        check(origins, "https://example.com", false);
        check(origins, "https://.example.com", false);
        check(origins, "http://a.example.com", false);
        check(origins, "https://a.example.com.evil.com", false);
        check(origins, "https://evil.com/.example.com", false);
        check(origins, "https://evil.com?.example.com", false);
        check(origins, "https://evil.com:1.example.com", false);
        check(origins, "https://a.example.com:8443", false);
        check(
            &["https://*.example.com:8443"],
            "https://a.example.com:8443",
            true,
        );
    }

    #[test]
    fn vary_is_told_once() {
        let mut headers = HeaderMap::new();
        headers.insert(header::VARY, HeaderValue::from_static("accept, Origin"));
        vary(&mut headers);
        assert_eq!(headers.get_all(header::VARY).iter().count(), 1);
        add_vary(&mut headers, "accept-encoding");
        assert_eq!(headers.get_all(header::VARY).iter().count(), 2);
    }
}
