//! What a proxy takes off a message and what it adds: hop-by-hop headers, addresses, ids, the trace.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use observe::trace::TraceContext;
use uuid::Uuid;

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub(crate) const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
pub(crate) const EXPECTED_TIMEOUT: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
pub(crate) const SERVICE_TIME: HeaderName =
    HeaderName::from_static("x-envoy-upstream-service-time");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes off what concerns this connection only (RFC 9110, 7.6.1), framing included: hyper writes the framing anew
/// from what was parsed. `content-length` stays, as a number that the parser has checked.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            // Without these the message would be another one.
            .filter(|name| {
                *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TE
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    headers.remove(HTTP2_SETTINGS);
    if let Some(te) = headers.get(header::TE) {
        let trailers = te
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|part| part.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
}

/// Joins the crumbs into which HTTP/2 may cut cookies (RFC 9113, 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

/// What is known about the client's side of a request.
pub(crate) struct Client<'a> {
    /// The peer's address, as text.
    pub(crate) address: &'a HeaderValue,
    pub(crate) secure: bool,
    /// Whether there are trusted proxies in front, whose word counts.
    pub(crate) trusted: bool,
}

/// Takes off what only trusted proxies may say, and says who the client is.
pub(crate) fn identify(headers: &mut HeaderMap, client: &Client<'_>) {
    if !client.trusted {
        let lies: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_trusted_only(name))
            .cloned()
            .collect();
        for name in lies {
            headers.remove(name);
        }
        headers.insert(X_FORWARDED_FOR, client.address.clone());
        headers.insert(X_FORWARDED_PROTO, proto(client.secure));
        return;
    }
    match headers.get(&X_FORWARDED_FOR) {
        None => _ = headers.insert(X_FORWARDED_FOR, client.address.clone()),
        Some(_) => {
            let all = headers
                .get_all(&X_FORWARDED_FOR)
                .iter()
                .map(HeaderValue::as_bytes);
            let all: Vec<&[u8]> = all.chain([client.address.as_bytes()]).collect();
            if let Ok(all) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
                headers.insert(X_FORWARDED_FOR, all);
            }
        }
    }
    if !headers.contains_key(&X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, proto(client.secure));
    }
}

fn proto(secure: bool) -> HeaderValue {
    HeaderValue::from_static(if secure { "https" } else { "http" })
}

fn is_trusted_only(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || name.starts_with("x-envoy-") || name == "forwarded"
}

/// Gives the request an id, unless the client's is kept.
pub(crate) fn request_id(headers: &mut HeaderMap, kept: bool) {
    if kept && headers.contains_key(&X_REQUEST_ID) {
        return;
    }
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    let id =
        HeaderValue::from_str(text).expect("hexadecimal digits and hyphens are a header value");
    headers.insert(X_REQUEST_ID, id);
}

/// Continues the client's trace, or starts one; returns this request's place in it.
pub(crate) fn trace(headers: &mut HeaderMap) -> TraceContext {
    let mut parents = headers.get_all(&TRACEPARENT).iter();
    let parent = match (parents.next(), parents.next()) {
        (Some(parent), None) => TraceContext::parse(parent.as_bytes()),
        _ => None,
    };
    let here = match parent {
        Some(parent) => parent.child(),
        None => {
            // A state without its parent means nothing.
            headers.remove(&TRACESTATE);
            TraceContext::start(true)
        }
    };
    headers.insert(TRACEPARENT, traceparent(&here));
    here
}

/// Writes what [`TraceContext::header`] writes, without the formatting machinery: every request needs one.
fn traceparent(context: &TraceContext) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&mut text[3..35], context.trace_id);
    write_hex(&mut text[36..52], context.span_id.into());
    write_hex(&mut text[53..55], context.sampled.into());
    HeaderValue::from_bytes(&text).expect("hexadecimal digits and hyphens are a header value")
}

/// Fills the text with the lowest digits.
fn write_hex(text: &mut [u8], mut value: u128) {
    for place in text.iter_mut().rev() {
        *place = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &str) -> HeaderMap {
        let pairs = lines
            .lines()
            .filter_map(|line| line.trim().split_once(": "));
        pairs
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().expect("a name"),
                    value.parse::<HeaderValue>().expect("a value"),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<String> {
        let mut names: Vec<String> = headers.keys().map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn hop_by_hop_headers_go_with_those_that_connection_names() {
        let mut map = headers(
            "host: a\nconnection: close, X-Mine, host\nx-mine: 1\nkeep-alive: 5\nte: gzip\n\
             transfer-encoding: chunked\nupgrade: x\nproxy-connection: y\nx-other: 2\ncontent-length: 3",
        );
        strip_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["content-length", "host", "x-other"]);
    }

    #[test]
    fn te_keeps_trailers_only() {
        let mut map = headers("te: gzip, Trailers");
        strip_hop_by_hop(&mut map);
        assert_eq!(map[header::TE], "trailers");
    }

    #[test]
    fn cookies_are_whole_again() {
        let mut map = headers("cookie: a=b\ncookie: c=d");
        join_cookies(&mut map);
        let whole: Vec<_> = map.get_all("cookie").iter().collect();
        assert_eq!(whole, ["a=b; c=d"]);
    }

    #[test]
    fn an_untrusted_client_cannot_say_who_it_is() {
        let mut map = headers(
            "x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https\nforwarded: for=x\nx-envoy-internal: true",
        );
        let address = HeaderValue::from_static("9.9.9.9");
        identify(
            &mut map,
            &Client {
                address: &address,
                secure: false,
                trusted: false,
            },
        );
        assert_eq!(names(&map), ["x-forwarded-for", "x-forwarded-proto"]);
        assert_eq!(map[X_FORWARDED_FOR], "9.9.9.9");
        assert_eq!(map[X_FORWARDED_PROTO], "http");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_added() {
        let mut map = headers("x-forwarded-for: 1.1.1.1\nx-forwarded-proto: https");
        let address = HeaderValue::from_static("9.9.9.9");
        identify(
            &mut map,
            &Client {
                address: &address,
                secure: false,
                trusted: true,
            },
        );
        assert_eq!(map[X_FORWARDED_FOR], "1.1.1.1, 9.9.9.9");
        assert_eq!(map[X_FORWARDED_PROTO], "https");
    }

    #[test]
    fn a_trace_goes_on_or_begins() {
        let mut map = headers(
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\ntracestate: a=b",
        );
        let here = trace(&mut map);
        assert_eq!(here.trace_id, 0x4bf92f3577b34da6a3ce929d0e0e4736);
        assert_ne!(here.span_id, 0x00f067aa0ba902b7);
        assert_eq!(map[TRACESTATE], "a=b");

        let mut map = headers("traceparent: junk\ntracestate: a=b");
        let here = trace(&mut map);
        assert_eq!(map[TRACEPARENT], here.header());
        assert!(!map.contains_key(TRACESTATE));
    }
}
