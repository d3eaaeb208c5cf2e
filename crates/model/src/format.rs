//! Envoy's variables, such as `%REQ(X-NAME)%`: text with places that each request fills.
//!
//! One grammar serves the headers that are added, the bodies of error answers and the access log:
//! `%NAME%`, `%NAME(argument)%` or `%NAME(argument):LENGTH%`, and `%%` for a plain percent sign.

use crate::shape::alternatives;

/// Largest text with variables.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Text with places that each request fills.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Format {
    /// Its pieces in order; their values, joined, are the result.
    pub pieces: Vec<Piece>,
}

/// One piece of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that stands as it is.
    Text(String),
    /// What only the request tells.
    Fact {
        /// What is told.
        fact: Fact,
        /// Characters after which it is cut.
        length_max: Option<usize>,
    },
}

/// A header by its name, or else another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name in lower case, such as `x-name` or `:path`.
    pub name: String,
    /// Taken where the first is not there; in lower case too.
    pub otherwise: Option<String>,
}

/// Something that is known about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// `REQ(name?otherwise)`
    RequestHeader(Named),
    /// `RESP(name?otherwise)`
    ResponseHeader(Named),
    /// `TRAILER(name?otherwise)`
    ResponseTrailer(Named),
    /// `QUERY_PARAM(name)`
    QueryParameter(String),
    /// `START_TIME(format)`, and `EMIT_TIME(format)` when the line is written.
    Time(Moment, Vec<TimePiece>),
    /// `ENVIRONMENT(name)`
    Environment(String),
    /// One without an argument.
    Plain(Plain),
}

/// Which moment a time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The request began.
    Start,
    /// Now.
    Now,
}

/// A piece of a time's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePiece {
    /// For strftime.
    Calendar(String),
    /// So many digits of the second's fraction.
    Fraction(u8),
    /// Seconds since 1970, with so many digits of the fraction and no point before them.
    Epoch(u8),
}

macro_rules! plain {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A fact without an argument.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Plain {
            $($(#[$doc])* $variant,)*
        }

        const PLAIN: &[(&str, Plain)] = &[$(($name, Plain::$variant),)*];
    };
}

plain! {
    /// The client's address and port, behind trusted proxies the one they tell.
    RemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The client's address.
    RemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The client's port.
    RemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// The connection's peer with its port.
    DirectAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// The connection's peer.
    DirectIp = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The connection's peer's port.
    DirectPort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    /// The address and port that the client connected to.
    LocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// The address that the client connected to.
    LocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// The port that the client connected to.
    LocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// `HTTP/1.1`, `HTTP/2` and so on.
    Protocol = "PROTOCOL",
    /// Milliseconds from the request's start to the first byte of the upstream's answer.
    ResponseDuration = "RESPONSE_DURATION",
    /// Milliseconds from the first byte of the upstream's answer to the last one sent.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// Milliseconds from the request's start to the end of the answer.
    Duration = "DURATION",
    /// Bytes of the request's body.
    BytesReceived = "BYTES_RECEIVED",
    /// Bytes of the answer's body.
    BytesSent = "BYTES_SENT",
    /// The answer's status.
    ResponseCode = "RESPONSE_CODE",
    /// Why the answer is what it is.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Envoy's short flags for what went wrong.
    ResponseFlags = "RESPONSE_FLAGS",
    /// Envoy's long flags for what went wrong.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// Address and port of the endpoint that answered.
    UpstreamHost = "UPSTREAM_HOST",
    /// The same.
    UpstreamAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// Address of the endpoint that answered.
    UpstreamIp = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Port of the endpoint that answered.
    UpstreamPort = "UPSTREAM_REMOTE_PORT",
    /// The upstream's name in metrics.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// The same.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// Times the request was sent to the upstream.
    UpstreamAttempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// The route's name.
    RouteName = "ROUTE_NAME",
    /// Always absent: there are no virtual clusters.
    VirtualCluster = "VIRTUAL_CLUSTER_NAME",
    /// The machine's name.
    Hostname = "HOSTNAME",
    /// The request's id.
    StreamId = "STREAM_ID",
    /// The trace's id.
    TraceId = "TRACE_ID",
    /// The name of the gRPC status.
    GrpcStatus = "GRPC_STATUS",
    /// The number of the gRPC status.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// What the gateway itself would answer.
    LocalReplyBody = "LOCAL_REPLY_BODY",
    /// The name that the client asked for with TLS.
    ServerName = "REQUESTED_SERVER_NAME",
    /// The version of TLS that the client speaks.
    TlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// The cipher suite that is spoken with the client.
    TlsCipher = "DOWNSTREAM_TLS_CIPHER",
    /// Whose certificate the client shows.
    PeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// Who has signed the client's certificate.
    PeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    /// The number of the client's certificate.
    PeerSerial = "DOWNSTREAM_PEER_SERIAL",
    /// The SHA-256 of the client's certificate.
    PeerHash = "DOWNSTREAM_PEER_FINGERPRINT_256",
    /// The URIs of the client's certificate.
    PeerUris = "DOWNSTREAM_PEER_URI_SAN",
    /// The DNS names of the client's certificate.
    PeerNames = "DOWNSTREAM_PEER_DNS_SAN",
}

const WITH_ARGUMENT: [&str; 7] = [
    "REQ",
    "RESP",
    "TRAILER",
    "QUERY_PARAM",
    "START_TIME",
    "EMIT_TIME",
    "ENVIRONMENT",
];

/// Why a text cannot be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong, in the user's words.
    pub what: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Wrong {
    fn new(what: impl Into<String>) -> Wrong {
        Wrong {
            what: what.into(),
            hint: None,
        }
    }

    fn hint(self, hint: impl Into<String>) -> Wrong {
        Wrong {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl Format {
    /// Parses a text with variables.
    ///
    /// # Errors
    /// When a variable is unknown or malformed.
    pub fn parse(text: &str) -> Result<Format, Wrong> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Wrong::new(format!(
                "the text is longer than {TEXT_BYTES_MAX} bytes"
            )));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            let inside = &rest[at + 1..];
            if let Some(after) = inside.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (piece, after) = variable(inside)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Format { pieces })
    }

    /// Returns the text when no request changes it.
    pub fn constant(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the facts in it.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Fact { fact, .. } => Some(fact),
            Piece::Text(_) => None,
        })
    }
}

/// Parses what follows a percent sign; returns what is behind the closing one, too.
fn variable(text: &str) -> Result<(Piece, &str), Wrong> {
    let end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    let malformed = || {
        let shown: String = text.chars().take(30).collect();
        Wrong::new(format!("`%{shown}` is no variable"))
            .hint("a variable looks like `%REQ(X-NAME)%`, and `%%` is a plain percent sign")
    };
    if name.is_empty() {
        return Err(malformed());
    }
    let (argument, after) = match after.strip_prefix('(') {
        None => (None, after),
        Some(inside) => {
            let close = inside
                .match_indices(')')
                .map(|(at, _)| at)
                .find(|&at| ends_variable(&inside[at + 1..]))
                .ok_or_else(malformed)?;
            (Some(&inside[..close]), &inside[close + 1..])
        }
    };
    let (length_max, after) = match after.strip_prefix(':') {
        None => (None, after),
        Some(digits) => {
            let end = digits.find('%').ok_or_else(malformed)?;
            let length = digits[..end].parse().map_err(|_| malformed())?;
            (Some(length), &digits[end..])
        }
    };
    let after = after.strip_prefix('%').ok_or_else(malformed)?;
    let fact = fact(name, argument)?;
    Ok((Piece::Fact { fact, length_max }, after))
}

/// Whether a variable can end here: `%` or `:12%`.
fn ends_variable(text: &str) -> bool {
    match text.strip_prefix(':') {
        None => text.starts_with('%'),
        Some(length) => {
            let digits = length.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && length[digits..].starts_with('%')
        }
    }
}

fn fact(name: &str, argument: Option<&str>) -> Result<Fact, Wrong> {
    if let Some((_, plain)) = PLAIN.iter().find(|(known, _)| *known == name) {
        return match argument {
            None => Ok(Fact::Plain(*plain)),
            Some(_) => Err(Wrong::new(format!("`%{name}%` takes no argument"))),
        };
    }
    let needed = || {
        let given = argument.filter(|argument| !argument.is_empty());
        given.ok_or_else(|| {
            Wrong::new(format!("`%{name}%` needs an argument"))
                .hint(format!("for example `%{name}(X-NAME)%`"))
        })
    };
    match name {
        "REQ" => named(needed()?).map(Fact::RequestHeader),
        "RESP" => named(needed()?).map(Fact::ResponseHeader),
        "TRAILER" => named(needed()?).map(Fact::ResponseTrailer),
        "QUERY_PARAM" => Ok(Fact::QueryParameter(needed()?.to_owned())),
        "ENVIRONMENT" => Ok(Fact::Environment(needed()?.to_owned())),
        "START_TIME" => Ok(Fact::Time(Moment::Start, time(argument)?)),
        "EMIT_TIME" => Ok(Fact::Time(Moment::Now, time(argument)?)),
        _ => {
            let known = PLAIN.iter().map(|(name, _)| *name);
            let known: Vec<&str> = known.chain(WITH_ARGUMENT).collect();
            Err(Wrong::new(format!("unknown variable `%{name}%`")).hint(alternatives(name, &known)))
        }
    }
}

fn named(argument: &str) -> Result<Named, Wrong> {
    let check = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        let bare = name.strip_prefix(':').unwrap_or(name);
        if bare.is_empty() || !bare.bytes().all(plain) {
            return Err(Wrong::new(format!("`{name}` is no header name")));
        }
        Ok(name.to_ascii_lowercase())
    };
    let (name, otherwise) = match argument.split_once('?') {
        None => (argument, None),
        Some((name, otherwise)) => (name, Some(check(otherwise)?)),
    };
    Ok(Named {
        name: check(name)?,
        otherwise,
    })
}

/// What strftime knows of, without padding and the like.
const CALENDAR: &str = "aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ";

/// Parses a time's format; without one it is `2016-04-15T20:17:00.310Z`.
fn time(argument: Option<&str>) -> Result<Vec<TimePiece>, Wrong> {
    let text = argument
        .filter(|text| !text.is_empty())
        .unwrap_or("%Y-%m-%dT%H:%M:%E3SZ");
    let mut pieces = Vec::new();
    let mut calendar = String::new();
    let mut chars = text.chars();
    let mut push = |calendar: &mut String, piece| {
        if !calendar.is_empty() {
            pieces.push(TimePiece::Calendar(std::mem::take(calendar)));
        }
        pieces.extend(piece);
    };
    while let Some(c) = chars.next() {
        if c != '%' {
            calendar.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => calendar.push_str("%%"),
            Some('s') => push(&mut calendar, Some(TimePiece::Epoch(0))),
            Some('f') => push(&mut calendar, Some(TimePiece::Fraction(9))),
            Some(digit @ '1'..='9') => {
                let digits = digit as u8 - b'0';
                let piece = match chars.next() {
                    Some('f') => TimePiece::Fraction(digits),
                    Some('s') => TimePiece::Epoch(digits),
                    _ => return Err(bad_time(text)),
                };
                push(&mut calendar, Some(piece));
            }
            Some('E') => match (chars.next(), chars.next()) {
                (Some(digit @ '1'..='9'), Some('S')) => {
                    calendar.push_str("%S.");
                    let digits = digit as u8 - b'0';
                    push(&mut calendar, Some(TimePiece::Fraction(digits)));
                }
                _ => return Err(bad_time(text)),
            },
            Some(letter) if CALENDAR.contains(letter) => {
                calendar.push('%');
                calendar.push(letter);
            }
            _ => return Err(bad_time(text)),
        }
    }
    push(&mut calendar, None);
    Ok(pieces)
}

fn bad_time(text: &str) -> Wrong {
    Wrong::new(format!("`{text}` is no format for a time"))
        .hint("for example `%Y-%m-%dT%H:%M:%S.%3fZ` or `%s`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match Format::parse(text) {
            Err(wrong) => match wrong.hint {
                Some(hint) => format!("{} ({hint})", wrong.what),
                None => wrong.what,
            },
            Ok(format) => {
                let pieces: Vec<String> = format.pieces.iter().map(show).collect();
                pieces.join(" ")
            }
        };
        assert_eq!(shown, expected, "{text}");
    }

    fn show(piece: &Piece) -> String {
        match piece {
            Piece::Text(text) => format!("'{text}'"),
            Piece::Fact { fact, length_max } => {
                let cut = length_max.map_or(String::new(), |length| format!(":{length}"));
                match fact {
                    Fact::RequestHeader(named) => match &named.otherwise {
                        None => format!("req {}{cut}", named.name),
                        Some(other) => format!("req {} or {other}{cut}", named.name),
                    },
                    Fact::Plain(plain) => format!("{plain:?}{cut}"),
                    fact => format!("{fact:?}{cut}"),
                }
            }
        }
    }

    #[test]
    fn text_and_variables_follow_one_another() {
        check("", "");
        check("plain", "'plain'");
        check("100%%", "'100%'");
        check("%PROTOCOL%", "Protocol");
        check(
            "a%PROTOCOL%b%%%RESPONSE_CODE%",
            "'a' Protocol 'b%' ResponseCode",
        );
        check("%REQ(X-Name)%", "req x-name");
        check("%REQ(X-A?:PATH):10%", "req x-a or :path:10");
        check("%DOWNSTREAM_REMOTE_ADDRESS%", "RemoteAddress");
        check("%RESPONSE_FLAGS:3%", "ResponseFlags:3");
    }

    #[test]
    fn times_have_formats() {
        check(
            "%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%",
            "Time(Start, [Calendar(\"%Y/%m/%dT%H:%M:%S%z \"), Epoch(0)])",
        );
        check(
            "%START_TIME(%s.%3f)%",
            "Time(Start, [Epoch(0), Calendar(\".\"), Fraction(3)])",
        );
        check(
            "%START_TIME%",
            "Time(Start, [Calendar(\"%Y-%m-%dT%H:%M:%S.\"), Fraction(3), Calendar(\"Z\")])",
        );
        check(
            "%START_TIME(%Q)%",
            "`%Q` is no format for a time (for example `%Y-%m-%dT%H:%M:%S.%3fZ` or `%s`)",
        );
    }

    #[test]
    fn what_is_no_variable_is_told() {
        check(
            "50% off",
            "`% off` is no variable (a variable looks like `%REQ(X-NAME)%`, and `%%` is a plain percent sign)",
        );
        check(
            "%PROTOCOL",
            "`%PROTOCOL` is no variable (a variable looks like `%REQ(X-NAME)%`, and `%%` is a plain percent sign)",
        );
        check(
            "%PROTOCOLL%",
            "unknown variable `%PROTOCOLL%` (did you mean `PROTOCOL`?)",
        );
        check(
            "%REQ%",
            "`%REQ%` needs an argument (for example `%REQ(X-NAME)%`)",
        );
        check("%REQ(a b)%", "`a b` is no header name");
        check("%PROTOCOL(x)%", "`%PROTOCOL%` takes no argument");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[%A-Z_():0-9a-z?é ]{0,40}") {
            if let Ok(format) = Format::parse(&text) {
                let plain: usize = format.pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => text.len(),
                    Piece::Fact { .. } => 0,
                }).sum();
                proptest::prop_assert!(plain <= text.len());
            }
        }
    }
}
