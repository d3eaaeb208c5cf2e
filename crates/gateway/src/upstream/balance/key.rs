//! What the hash policies go by: a header, a cookie or the client's address.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use model::mapping::LoadBalancer;
use xxhash_rust::xxh64::xxh64;

/// What is hashed.
#[derive(Debug)]
pub(crate) enum Key {
    Header(HeaderName),
    Cookie(Cookie),
    Address,
}

/// The cookie that keeps a client on its endpoint.
#[derive(Debug)]
pub(crate) struct Cookie {
    name: String,
    path: Option<String>,
    /// `None` when no cookie is made; zero for one that lives as long as the browser.
    ttl: Option<Duration>,
}

/// What a request is hashed to.
#[derive(Debug, Default)]
pub(crate) struct Sticky {
    /// `None` when the request does not have what is hashed.
    pub(crate) hash: Option<u64>,
    /// The cookie that the client gets with the answer.
    pub(crate) set_cookie: Option<HeaderValue>,
}

impl Key {
    /// Returns what a balancer hashes.
    pub(crate) fn of(said: &LoadBalancer) -> Option<Box<Self>> {
        let key = match (&said.header, &said.cookie, said.source_ip) {
            (Some(header), _, _) => Key::Header(header.parse().ok()?),
            (_, Some(cookie), _) => Key::Cookie(Cookie {
                name: cookie.name.clone(),
                path: cookie.path.clone(),
                ttl: cookie.ttl,
            }),
            (_, _, Some(true)) => Key::Address,
            _ => return None,
        };
        Some(Box::new(key))
    }

    /// Hashes a request of this client.
    pub(crate) fn hash(&self, headers: &HeaderMap, client: IpAddr) -> Box<Sticky> {
        Box::new(match self {
            Key::Header(name) => {
                let mut values = headers.get_all(name).iter();
                // Several values go in one after the other.
                let first = values.next().map(|value| xxh64(value.as_bytes(), 0));
                Sticky {
                    hash: values.fold(first, |hash, value| Some(xxh64(value.as_bytes(), hash?))),
                    set_cookie: None,
                }
            }
            Key::Cookie(cookie) => cookie.hash(headers),
            Key::Address => Sticky {
                hash: Some(match client.to_canonical() {
                    IpAddr::V4(ip) => xxh64(&ip.octets(), 0),
                    IpAddr::V6(ip) => xxh64(&ip.octets(), 0),
                }),
                set_cookie: None,
            },
        })
    }
}

impl Cookie {
    fn hash(&self, headers: &HeaderMap) -> Sticky {
        let cookies = headers.get_all(header::COOKIE).iter();
        let mut pairs = cookies
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
            .filter_map(|pair| {
                let equals = pair.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
                (name == self.name.as_bytes()).then_some(value)
            });
        if let Some(value) = pairs.next() {
            let unquoted = value
                .strip_prefix(b"\"")
                .and_then(|value| value.strip_suffix(b"\""));
            return Sticky {
                hash: Some(xxh64(unquoted.unwrap_or(value), 0)),
                set_cookie: None,
            };
        }
        let Some(ttl) = self.ttl else {
            return Sticky::default();
        };
        let value = format!("{:016x}", rand::random::<u64>());
        let mut text = format!("{}={value}", self.name);
        if !ttl.is_zero() {
            text.push_str(&format!("; Max-Age={}", ttl.as_secs().max(1)));
        }
        if let Some(path) = &self.path {
            text.push_str(&format!("; Path={path}"));
        }
        text.push_str("; HttpOnly");
        Sticky {
            hash: Some(xxh64(value.as_bytes(), 0)),
            set_cookie: HeaderValue::from_str(&text).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balancer(yaml: &str) -> Box<Key> {
        let said: LoadBalancer = serde_saphyr::from_str(yaml).expect("a balancer");
        Key::of(&said).expect("a key")
    }

    fn hash(key: &Key, name: &'static str, values: &[&'static str]) -> Sticky {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_static(value));
        }
        *key.hash(&headers, IpAddr::from([10, 0, 0, 1]))
    }

    #[test]
    fn headers_are_hashed_where_they_are() {
        let key = balancer("{ policy: ring_hash, header: X-User }");
        let of = |values| hash(&key, "x-user", values).hash;
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a"]), Some(xxh64(b"a", 0)));
        assert_ne!(of(&["a", "b"]), of(&["b", "a"]));
    }

    #[test]
    fn a_cookie_is_made_only_where_its_life_is_told() {
        let cookie = |more: &str| {
            balancer(&format!(
                "{{ policy: maglev, cookie: {{ name: sticky{more} }} }}"
            ))
        };
        let none = hash(&cookie(""), "cookie", &["other=1"]);
        assert_eq!((none.hash, none.set_cookie), (None, None));

        let made = hash(&cookie(", path: /shop, ttl: 90s"), "cookie", &[]);
        let text = made.set_cookie.expect("a cookie");
        let text = text.to_str().expect("text");
        let value = text
            .strip_prefix("sticky=")
            .and_then(|rest| rest.strip_suffix("; Max-Age=90; Path=/shop; HttpOnly"))
            .expect("name and attributes");
        assert_eq!(made.hash, Some(xxh64(value.as_bytes(), 0)));

        let session = hash(&cookie(", ttl: 0s"), "cookie", &[]).set_cookie;
        let session = session.expect("a cookie");
        assert!(!session.to_str().expect("text").contains("Max-Age"));
    }

    #[test]
    fn a_cookie_that_is_there_is_found_among_others() {
        let key = balancer("{ policy: maglev, cookie: { name: sticky, ttl: 1s } }");
        let expected = Some(xxh64(b"abc", 0));
        for lines in [
            &["sticky=abc"][..],
            &["a=b; sticky=abc"],
            &["xsticky=no;sticky=\"abc\"; sticky=later"],
            &["a=b", "sticky = abc"],
        ] {
            let found = hash(&key, "cookie", lines);
            assert_eq!(
                (found.hash, found.set_cookie),
                (expected, None),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn one_client_is_one_hash_whatever_its_notation() {
        let key = balancer("{ policy: ring_hash, source_ip: true }");
        let of = |ip: &str| {
            key.hash(&HeaderMap::new(), ip.parse().expect("an address"))
                .hash
        };
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
