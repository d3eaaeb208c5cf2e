//! Why the gateway answered by itself instead of a backend, and what the client is told.

use http::{HeaderValue, Response, StatusCode, header};

use crate::body::ResponseBody;

/// Why the gateway answered by itself instead of asking a backend, or gave up asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no HTTP/1.1 request, or one that two servers could read differently.
    #[error("bad request: {0}")]
    Malformed(Flaw),
    /// The body's framing broke after the head was good.
    #[error("bad request: the body's framing is broken")]
    BrokenBody,
    /// HTTP/1.0, unless the Module allows it.
    #[error("HTTP/1.0 is not served, use HTTP/1.1")]
    OldProtocol,
    /// A path that cannot be normalised, or must not be served.
    #[error("bad request: the path holds a forbidden escape")]
    BadPath,
    /// A header name with an underscore, where the Module refuses those.
    #[error("bad request: a header name holds an underscore")]
    Underscore,
    /// More header fields than allowed.
    #[error("too many header fields")]
    HeadersTooMany,
    /// A longer head than allowed.
    #[error("request head too large")]
    HeadTooLarge,
    /// The head did not arrive in time.
    #[error("request head not received in time")]
    HeadTimeout,
    /// The body stopped arriving.
    #[error("request body not received in time")]
    BodyTimeout,
    /// No route wants the request.
    #[error("no route matches")]
    NoRoute,
    /// The Module's `ip_allow` and `ip_deny` do not let the client ask.
    #[error("access denied")]
    AddressDenied,
    /// The method asks for a tunnel, and none is configured.
    #[error("CONNECT is not served")]
    Connect,
    /// The upstream has no address.
    #[error("no healthy upstream")]
    NoUpstream,
    /// No connection to the upstream could be made.
    #[error("upstream connect error")]
    ConnectFailed,
    /// Connecting took too long.
    #[error("upstream connect timeout")]
    ConnectTimeout,
    /// The upstream broke the connection before it answered.
    #[error("upstream disconnected before it answered")]
    UpstreamReset,
    /// The upstream answered with something that is not HTTP.
    #[error("upstream protocol error")]
    UpstreamProtocol,
    /// The whole request took longer than its route allows.
    #[error("upstream request timeout")]
    UpstreamTimeout,
    /// Too many requests or connections towards the upstream are under way.
    #[error("upstream overloaded")]
    Overloaded,
}

/// What was wrong with a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Flaw {
    /// Not `METHOD target HTTP/1.1`.
    #[error("the request line is malformed")]
    RequestLine,
    /// A line that ends with LF alone, or a CR inside a line.
    #[error("a line does not end with CRLF")]
    BareLineFeed,
    /// A header line that continues the one before.
    #[error("a header is folded over lines")]
    Folded,
    /// No colon, an empty name, or a character that names must not have, such as a space before the colon.
    #[error("a header name is malformed")]
    HeaderName,
    /// A control character in a value.
    #[error("a header value holds a control character")]
    HeaderValue,
    /// `content-length` and `transfer-encoding` together.
    #[error("both content-length and transfer-encoding")]
    LengthAndCoding,
    /// More than one `transfer-encoding`, or another than `chunked`.
    #[error("the transfer-encoding is not exactly `chunked`")]
    TransferEncoding,
    /// More than one `content-length`, a list, or not a plain number.
    #[error("the content-length is not one plain number")]
    ContentLength,
    /// No `host`.
    #[error("the host is missing")]
    HostMissing,
    /// More than one `host`.
    #[error("more than one host")]
    HostRepeated,
    /// A `host` with characters that no host has.
    #[error("the host is malformed")]
    HostMalformed,
    /// A target with another authority than `host`.
    #[error("the target and the host name different authorities")]
    HostMismatch,
    /// A chunk size or trailer that is not as the standard asks.
    #[error("the chunked body is malformed")]
    Chunk,
}

impl Refusal {
    /// Returns the status the client gets: the whole mapping, in one place.
    pub fn status(self) -> StatusCode {
        use Refusal::*;
        match self {
            Malformed(_) | BrokenBody | BadPath | Underscore => StatusCode::BAD_REQUEST,
            OldProtocol => StatusCode::UPGRADE_REQUIRED,
            HeadersTooMany | HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadTimeout | BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            NoRoute => StatusCode::NOT_FOUND,
            AddressDenied => StatusCode::FORBIDDEN,
            Connect => StatusCode::METHOD_NOT_ALLOWED,
            UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            UpstreamProtocol => StatusCode::BAD_GATEWAY,
            NoUpstream | ConnectFailed | ConnectTimeout | UpstreamReset | Overloaded => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// Returns the reason's short name for access lines and metrics.
    pub fn name(self) -> &'static str {
        use Refusal::*;
        match self {
            Malformed(_) => "malformed",
            BrokenBody => "broken_body",
            OldProtocol => "old_protocol",
            BadPath => "bad_path",
            Underscore => "underscore",
            HeadersTooMany => "headers_too_many",
            HeadTooLarge => "head_too_large",
            HeadTimeout => "head_timeout",
            BodyTimeout => "body_timeout",
            NoRoute => "no_route",
            AddressDenied => "address_denied",
            Connect => "connect",
            NoUpstream => "no_upstream",
            ConnectFailed => "connect_failed",
            ConnectTimeout => "connect_timeout",
            UpstreamReset => "upstream_reset",
            UpstreamProtocol => "upstream_protocol",
            UpstreamTimeout => "upstream_timeout",
            Overloaded => "overloaded",
        }
    }

    /// All names that [`Refusal::name`] returns, so that each has its counter from the start.
    pub const NAMES: &[&str] = &[
        "malformed",
        "broken_body",
        "old_protocol",
        "bad_path",
        "underscore",
        "headers_too_many",
        "head_too_large",
        "head_timeout",
        "body_timeout",
        "no_route",
        "address_denied",
        "connect",
        "no_upstream",
        "connect_failed",
        "connect_timeout",
        "upstream_reset",
        "upstream_protocol",
        "upstream_timeout",
        "overloaded",
    ];

    /// Returns whether the connection must not carry another request.
    pub(crate) fn closes(self) -> bool {
        use Refusal::*;
        matches!(
            self,
            Malformed(_)
                | BrokenBody
                | OldProtocol
                | HeadersTooMany
                | HeadTooLarge
                | HeadTimeout
                | BodyTimeout
        )
    }

    /// Returns the answer: the status, and the reason as short plain text. A route that does not exist gets an empty
    /// body, as Ambassador's users know it.
    pub(crate) fn answer(self) -> Response<ResponseBody> {
        let body = match self {
            Refusal::NoRoute => ResponseBody::empty(),
            _ => ResponseBody::full(self.to_string()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if self != Refusal::NoRoute {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if self == Refusal::Overloaded {
            headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
        }
        response
    }
}
