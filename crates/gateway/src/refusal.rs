//! Why the gateway answered by itself instead of a backend, and what the client is told.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use observe::flags::Flags;

use crate::body::{Broken, ResponseBody};

/// The header that tells the client why the gateway answered by itself. Only the gateway can have set it.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-nuncio-reason");

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
    /// The body is longer than the Module's `buffer` or `decompress_requests` allow.
    #[error("request body too large")]
    BodyTooLarge,
    /// An AuthService or a FilterPolicy is configured, and the gateway cannot ask it.
    #[error("the gateway cannot tell who may ask")]
    AuthUnavailable,
    /// No route wants the request.
    #[error("no route matches")]
    NoRoute,
    /// A Host with `requestPolicy.insecure.action: Reject` was asked without TLS.
    #[error("TLS is required here")]
    Insecure,
    /// The Module's `ip_allow` and `ip_deny` do not let the client ask.
    #[error("access denied")]
    AddressDenied,
    /// A connection whose certificate is not for the Host that is asked for, or that was made under other rules.
    #[error("another connection is needed for this host")]
    Misdirected,
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
    /// The upstream refused the stream before it worked on it.
    #[error("upstream refused the stream")]
    UpstreamRefused,
    /// Too many requests or connections towards the upstream are under way.
    #[error("upstream overloaded")]
    Overloaded,
    /// The route's service cannot be served: its address is malformed, or it needs what is not built.
    #[error("the route's service cannot be served")]
    Unserved,
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

/// What is told about a refusal, in all the places that tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The short name in the header `x-nuncio-reason`, in access lines and metrics.
    pub name: &'static str,
    /// Envoy's response flags.
    pub flags: Flags,
    /// Envoy's response code details.
    pub details: &'static str,
}

const fn told(name: &'static str, flags: Flags, details: &'static str) -> Told {
    Told {
        name,
        flags,
        details,
    }
}

impl Refusal {
    /// One of each, so that each has its counter from the start and its line in the reference.
    pub const ALL: &[Refusal] = &[
        Refusal::Malformed(Flaw::RequestLine),
        Refusal::BrokenBody,
        Refusal::OldProtocol,
        Refusal::BadPath,
        Refusal::Underscore,
        Refusal::HeadersTooMany,
        Refusal::HeadTooLarge,
        Refusal::HeadTimeout,
        Refusal::BodyTimeout,
        Refusal::BodyTooLarge,
        Refusal::AuthUnavailable,
        Refusal::NoRoute,
        Refusal::Insecure,
        Refusal::AddressDenied,
        Refusal::Misdirected,
        Refusal::Connect,
        Refusal::NoUpstream,
        Refusal::ConnectFailed,
        Refusal::ConnectTimeout,
        Refusal::UpstreamReset,
        Refusal::UpstreamRefused,
        Refusal::UpstreamProtocol,
        Refusal::UpstreamTimeout,
        Refusal::Overloaded,
        Refusal::Unserved,
    ];

    /// Returns the status the client gets: the whole mapping, in one place.
    pub fn status(self) -> StatusCode {
        use Refusal::*;
        match self {
            Malformed(_) | BrokenBody | BadPath | Underscore => StatusCode::BAD_REQUEST,
            OldProtocol => StatusCode::UPGRADE_REQUIRED,
            HeadersTooMany | HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadTimeout | BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            AuthUnavailable => StatusCode::INTERNAL_SERVER_ERROR,
            NoRoute | Insecure => StatusCode::NOT_FOUND,
            AddressDenied => StatusCode::FORBIDDEN,
            Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Connect => StatusCode::METHOD_NOT_ALLOWED,
            UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            UpstreamProtocol => StatusCode::BAD_GATEWAY,
            NoUpstream | ConnectFailed | ConnectTimeout | UpstreamReset | UpstreamRefused
            | Overloaded | Unserved => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns what is told about it: the whole vocabulary, in one place. The details are those of Envoy where it has
    /// the case, and the flags too; where Envoy sets no flag for a client's fault, this is `DPE`.
    pub fn told(self) -> Told {
        use Refusal::*;
        match self {
            Malformed(flaw) => told("malformed", Flags::DPE, flaw.details()),
            BrokenBody => told("broken_body", Flags::DPE, "http1.codec_error"),
            OldProtocol => told("old_protocol", Flags::DPE, "low_version"),
            BadPath => told("bad_path", Flags::DPE, "path_normalization_failed"),
            Underscore => told("underscore", Flags::DPE, "http1.unexpected_underscore"),
            HeadersTooMany => told("headers_too_many", Flags::DPE, "http1.too_many_headers"),
            HeadTooLarge => told("head_too_large", Flags::DPE, "http1.headers_too_large"),
            HeadTimeout => told("head_timeout", Flags::SI, "request_header_timeout"),
            BodyTimeout => told("body_timeout", Flags::SI, "stream_idle_timeout"),
            BodyTooLarge => told("body_too_large", Flags::NONE, "request_payload_too_large"),
            AuthUnavailable => told("auth_unavailable", Flags::UAEX, "ext_authz_error"),
            NoRoute => told("no_route", Flags::NR, "route_not_found"),
            Insecure => told("insecure", Flags::NR, "route_not_found"),
            AddressDenied => told(
                "address_denied",
                Flags::NONE,
                "rbac_access_denied_matched_policy[none]",
            ),
            Misdirected => told("misdirected", Flags::NR, "misdirected_request"),
            Connect => told("connect", Flags::NR, "route_not_found"),
            NoUpstream => told("no_upstream", Flags::UH, "no_healthy_upstream"),
            ConnectFailed => told(
                "connect_failed",
                Flags::UF,
                "upstream_reset_before_response_started{remote_connection_failure}",
            ),
            ConnectTimeout => told(
                "connect_timeout",
                Flags::UF,
                "upstream_reset_before_response_started{connection_timeout}",
            ),
            UpstreamReset => told(
                "upstream_reset",
                Flags::UC,
                "upstream_reset_before_response_started{connection_termination}",
            ),
            UpstreamRefused => told(
                "upstream_refused",
                Flags::UR,
                "upstream_reset_before_response_started{remote_refused_stream_reset}",
            ),
            UpstreamProtocol => told(
                "upstream_protocol",
                Flags::UPE,
                "upstream_reset_before_response_started{protocol_error}",
            ),
            UpstreamTimeout => told("upstream_timeout", Flags::UT, "response_timeout"),
            Overloaded => told(
                "overloaded",
                Flags::UO,
                "upstream_reset_before_response_started{overflow}",
            ),
            Unserved => told("unserved", Flags::NC, "cluster_not_found"),
        }
    }

    /// Returns the reason's short name for access lines and metrics.
    pub fn name(self) -> &'static str {
        self.told().name
    }

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
                | BodyTooLarge
        )
    }

    /// Returns the answer: the status, and the reason as short plain text. A route that does not exist gets an empty
    /// body, as Ambassador's users know it.
    pub(crate) fn answer(self) -> Response<ResponseBody> {
        let body = match self {
            Refusal::NoRoute | Refusal::Insecure => ResponseBody::empty(),
            _ => ResponseBody::full(self.to_string()),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if !matches!(self, Refusal::NoRoute | Refusal::Insecure) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if self == Refusal::Overloaded {
            headers.insert("x-envoy-overloaded", HeaderValue::from_static("true"));
        }
        response
    }
}

impl Flaw {
    /// Envoy's words for it.
    fn details(self) -> &'static str {
        match self {
            Flaw::HostMissing => "missing_host_header",
            Flaw::Chunk => "http1.body_disallowed_or_malformed",
            Flaw::LengthAndCoding => "http1.content_length_and_chunked_not_allowed",
            Flaw::TransferEncoding => "http1.invalid_transfer_encoding",
            Flaw::HeaderName | Flaw::HeaderValue => "http1.invalid_characters",
            Flaw::RequestLine => "http1.invalid_url",
            _ => "http1.codec_error",
        }
    }
}

/// Why an answer ended before its end, its head being with the client already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The upstream broke the connection, or the framing.
    Upstream,
    /// The upstream sent nothing for too long.
    UpstreamIdle,
    /// The route's time was over.
    UpstreamTimeout,
    /// The code behind the route failed.
    Handler,
    /// The client left.
    Client,
}

impl Cut {
    /// One of each.
    pub const ALL: &[Cut] = &[
        Cut::Upstream,
        Cut::UpstreamIdle,
        Cut::UpstreamTimeout,
        Cut::Handler,
        Cut::Client,
    ];

    /// Returns what is told about it.
    pub fn told(self) -> Told {
        match self {
            Cut::Upstream => told(
                "upstream_cut",
                Flags::UC,
                "upstream_reset_after_response_started{connection_termination}",
            ),
            Cut::UpstreamIdle => told("upstream_idle", Flags::SI, "stream_idle_timeout"),
            Cut::UpstreamTimeout => told("upstream_timeout", Flags::UT, "response_timeout"),
            Cut::Handler => told("handler_failed", Flags::LR, "handler_failed"),
            Cut::Client => told("client_closed", Flags::DC, "downstream_remote_disconnect"),
        }
    }

    pub(crate) fn of(broken: &Broken) -> Self {
        match broken {
            Broken::Read(_) => Cut::Upstream,
            Broken::Idle(_) => Cut::UpstreamIdle,
            Broken::Deadline => Cut::UpstreamTimeout,
            Broken::TooLong(_) | Broken::Handler(_) => Cut::Handler,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_a_name_of_its_own_and_says_what_envoy_would() {
        let mut names = BTreeSet::new();
        for refusal in Refusal::ALL {
            let told = refusal.told();
            assert!(names.insert(told.name), "{} stands twice", told.name);
            assert!(!told.details.is_empty(), "{}", told.name);
            assert!(HeaderValue::from_str(told.name).is_ok());
        }
    }
}
