//! gRPC among the requests: what the gateway answers by itself is told as gRPC's clients expect it, and clients that cannot read
//! trailers are helped by [`web`] and [`bridge`].

pub(crate) mod bridge;
pub(crate) mod web;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::body::{RequestBody, ResponseBody};
use crate::refusal::Refusal;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub(crate) const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web";
const WEB_TEXT: &str = "application/grpc-web-text";

/// What is escaped in `grpc-message` (gRPC over HTTP/2, "Status-Message"); all that is not ASCII is too.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Which kind of gRPC a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// None.
    Other,
    /// gRPC, answered with trailers.
    Plain,
    /// gRPC over HTTP/1.1 by a client that looks for its status among the headers (`enable_grpc_http11_bridge`).
    Bridged,
    /// gRPC-Web (`enable_grpc_web`); `text` says that the answer is in base64.
    Web { text: bool },
}

/// What the Module says about gRPC.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Translated {
    pub(crate) web: bool,
    pub(crate) bridge: bool,
}

impl Dialect {
    /// Returns what a request speaks. Only POST is gRPC, so that all else pays nothing.
    pub(crate) fn of<B>(request: &Request<B>, translated: Translated) -> Self {
        if request.method() != Method::POST {
            return Dialect::Other;
        }
        let headers = request.headers();
        let Some(kind) = text(headers, &header::CONTENT_TYPE) else {
            return Dialect::Other;
        };
        let is_text = is(kind, WEB_TEXT);
        if is_text || is(kind, WEB) {
            return match translated.web {
                true => Dialect::Web {
                    text: wants_text(headers).unwrap_or(is_text),
                },
                false => Dialect::Other,
            };
        }
        if !is(kind, GRPC) {
            return Dialect::Other;
        }
        match request.version() < Version::HTTP_2 && translated.bridge {
            true => Dialect::Bridged,
            false => Dialect::Plain,
        }
    }

    /// Makes a request what a gRPC service reads.
    pub(crate) fn translate(self, headers: &mut HeaderMap, body: RequestBody) -> RequestBody {
        match self {
            Dialect::Other | Dialect::Plain => body,
            Dialect::Bridged => {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
                body
            }
            Dialect::Web { .. } => web::request(headers, body),
        }
    }

    /// Returns what the gateway answers by itself: over HTTP it is 200, and the status of the call tells what is wrong.
    /// Only 421 stays, with which clients ask again over another connection (RFC 9110, 15.5.20).
    pub(crate) fn refusal(self, refusal: Refusal) -> Response<ResponseBody> {
        let mut response = refusal.answer();
        if self == Dialect::Other || refusal == Refusal::Misdirected {
            return response;
        }
        let status = code(response.status());
        *response.status_mut() = StatusCode::OK;
        *response.body_mut() = ResponseBody::empty();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
        headers.insert(STATUS, status.into());
        let message = utf8_percent_encode(&refusal.to_string(), ESCAPED).to_string();
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert(MESSAGE, message);
        }
        response
    }
}

/// Returns the status of a call that was answered with an HTTP status ("HTTP to gRPC Status Code Mapping", as Envoy has it).
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,                   // INTERNAL
        401 => 16,                   // UNAUTHENTICATED
        403 => 7,                    // PERMISSION_DENIED
        404 => 12,                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => 14, // UNAVAILABLE
        _ => 2,                      // UNKNOWN
    }
}

/// Returns whether an answer is of gRPC.
fn is_grpc(headers: &HeaderMap) -> bool {
    text(headers, &header::CONTENT_TYPE).is_some_and(|kind| is(kind, GRPC))
}

/// Returns whether gRPC-Web's client says that it wants base64, or that it does not.
fn wants_text(headers: &HeaderMap) -> Option<bool> {
    let accepted = text(headers, &header::ACCEPT)?;
    let mut kinds = accepted.split(',').map(str::trim);
    kinds.find_map(|kind| match (is(kind, WEB_TEXT), is(kind, WEB)) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Returns whether a content type is this one, whatever messages are written in and whatever parameters follow.
fn is(kind: &str, wanted: &str) -> bool {
    rest(kind, wanted).is_some()
}

/// Returns what follows: nothing, `+proto`, or parameters.
fn rest<'k>(kind: &'k str, wanted: &str) -> Option<&'k str> {
    let (begin, rest) = kind.split_at_checked(wanted.len())?;
    let ends = rest.is_empty() || rest.starts_with(['+', ';', ' ']);
    (ends && begin.eq_ignore_ascii_case(wanted)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_speaks_is_told_by_its_content_type() {
        let all = Translated {
            web: true,
            bridge: true,
        };
        let none = Translated::default();
        let web = |text| Dialect::Web { text };
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        for (version, kind, accept, translated, expected) in [
            (h2, "application/grpc", "", all, Dialect::Plain),
            (h2, "application/grpc+proto", "", none, Dialect::Plain),
            (h1, "application/grpc", "", all, Dialect::Bridged),
            (h1, "application/grpc;x=y", "", none, Dialect::Plain),
            (h1, "application/grpc-web", "", all, web(false)),
            (h2, "Application/gRPC-Web+proto", "", all, web(false)),
            (h1, "application/grpc-web-text", "", all, web(true)),
            (
                h1,
                "application/grpc-web+proto",
                "application/grpc-web-text",
                all,
                web(true),
            ),
            (
                h1,
                "application/grpc-web-text+proto",
                "text/plain, application/grpc-web+proto",
                all,
                web(false),
            ),
            (h1, "application/grpc-web-text", "*/*", all, web(true)),
            (h1, "application/grpc-web", "", none, Dialect::Other),
            (h1, "application/grpc-webs", "", all, Dialect::Other),
            (h1, "application/grpcs", "", all, Dialect::Other),
            (h1, "application/json", "", all, Dialect::Other),
        ] {
            let mut request = Request::post("/").version(version);
            request = request.header("content-type", kind);
            if !accept.is_empty() {
                request = request.header("accept", accept);
            }
            let request = request.body(()).expect("a request");
            assert_eq!(
                Dialect::of(&request, translated),
                expected,
                "{kind} {accept}"
            );
        }
        let get = Request::get("/").header("content-type", "application/grpc");
        let get = get.body(()).expect("a request");
        assert_eq!(Dialect::of(&get, all), Dialect::Other);
    }

    #[test]
    fn who_shall_ask_over_another_connection_is_told_so_in_http() {
        let told = |refusal| {
            let response = Dialect::Web { text: true }.refusal(refusal);
            (
                response.status().as_u16(),
                response.headers().get(STATUS).cloned(),
            )
        };
        assert_eq!(told(Refusal::Misdirected), (421, None));
        let denied = HeaderValue::from_static("7");
        assert_eq!(told(Refusal::AddressDenied), (200, Some(denied)));
    }
}
