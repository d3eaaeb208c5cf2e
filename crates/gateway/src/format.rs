//! Fills Envoy's variables with what is known about a request.
//!
//! [`compile`] is for the configuration's time, [`fill`] for each request. What a format needs of a request that is gone by
//! then is kept by [`Kept`]; formats that need nothing cost nothing.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode, Version};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use model::format::{Fact, Format, Moment, Named, Piece, Plain, TimePiece, Wrong};
use observe::flags::Flags;
use tls::accept::{Peer, Session};

/// Parses a text and fills in what no request changes.
///
/// # Errors
/// When a variable is unknown or malformed.
pub(crate) fn compile(text: &str) -> Result<Format, Wrong> {
    let parsed = Format::parse(text)?;
    let mut pieces: Vec<Piece> = Vec::new();
    for piece in parsed.pieces {
        let text = match piece {
            Piece::Fact {
                fact: Fact::Environment(name),
                length_max,
            } => cut(std::env::var(name).unwrap_or_default(), length_max),
            Piece::Fact {
                fact: Fact::Plain(Plain::Hostname),
                length_max,
            } => cut(hostname().to_owned(), length_max),
            Piece::Text(text) => text,
            piece @ Piece::Fact { .. } => {
                pieces.push(piece);
                continue;
            }
        };
        match pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(&text),
            _ => pieces.push(Piece::Text(text)),
        }
    }
    Ok(Format { pieces })
}

fn cut(mut text: String, length_max: Option<usize>) -> String {
    if let Some(most) = length_max
        && let Some((end, _)) = text.char_indices().nth(most)
    {
        text.truncate(end);
    }
    text
}

/// Returns the machine's name.
fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let told = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let told = told.or_else(|| std::env::var("HOSTNAME").ok());
        told.map_or_else(String::new, |name| name.trim().to_owned())
    })
}

/// What is known about a request. What is not known yet, or never, is left at its default.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) asked: Option<Asked<'a>>,
    pub(crate) response: Option<&'a HeaderMap>,
    pub(crate) trailers: Option<&'a HeaderMap>,
    /// The client, with port 0 where a proxy tells it.
    pub(crate) remote: Option<SocketAddr>,
    /// The connection's peer.
    pub(crate) direct: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) duration: Option<Duration>,
    /// Until the first byte of the upstream's answer.
    pub(crate) response_after: Option<Duration>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) status: Option<StatusCode>,
    pub(crate) details: &'a str,
    pub(crate) flags: Flags,
    pub(crate) upstream: Option<SocketAddr>,
    pub(crate) cluster: &'a str,
    pub(crate) attempts: Option<u32>,
    pub(crate) route: &'a str,
    pub(crate) trace_id: Option<u128>,
    pub(crate) local_body: &'a str,
    pub(crate) tls: Option<&'a Session>,
}

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) version: Version,
    pub(crate) method: &'a Method,
    pub(crate) secure: bool,
    pub(crate) authority: &'a str,
    /// With its query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// One fact about one request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told<'a> {
    Nothing,
    Text(Cow<'a, str>),
    Number(u64),
}

/// Fills a format; `absent` stands for what is not known.
pub(crate) fn fill(format: &Format, facts: &Facts<'_>, absent: &str) -> String {
    let mut out = String::new();
    for piece in &format.pieces {
        let (fact, length_max) = match piece {
            Piece::Text(text) => {
                out.push_str(text);
                continue;
            }
            Piece::Fact { fact, length_max } => (fact, *length_max),
        };
        match told(fact, facts) {
            Told::Nothing => out.push_str(absent),
            Told::Number(number) => _ = write!(out, "{number}"),
            Told::Text(text) => match length_max.and_then(|most| text.char_indices().nth(most)) {
                Some((end, _)) => out.push_str(&text[..end]),
                None => out.push_str(&text),
            },
        }
    }
    out
}

/// Fills a format whose value keeps its type when the whole of it is one variable: a number stays a number, and what is not
/// known is null.
pub(crate) fn typed(format: &Format, facts: &Facts<'_>) -> serde_json::Value {
    match format.pieces.as_slice() {
        [Piece::Fact { fact, length_max }] => match told(fact, facts) {
            Told::Nothing => serde_json::Value::Null,
            Told::Number(number) => number.into(),
            Told::Text(text) => cut(text.into_owned(), *length_max).into(),
        },
        _ => fill(format, facts, "-").into(),
    }
}

/// Returns one fact.
pub(crate) fn told<'a>(fact: &Fact, facts: &Facts<'a>) -> Told<'a> {
    match fact {
        Fact::RequestHeader(named) => match &facts.asked {
            Some(asked) => either(named, |name| asked.header(name)),
            None => Told::Nothing,
        },
        Fact::ResponseHeader(named) => match facts.response {
            Some(headers) => either(named, |name| match name {
                ":status" => facts
                    .status
                    .map(|status| status.as_u16().to_string().into()),
                name => header(headers, name),
            }),
            None => Told::Nothing,
        },
        Fact::ResponseTrailer(named) => match facts.trailers {
            Some(trailers) => either(named, |name| header(trailers, name)),
            None => Told::Nothing,
        },
        Fact::QueryParameter(name) => {
            let query = facts
                .asked
                .and_then(|asked| asked.path.split_once('?'))
                .map_or("", |(_, query)| query);
            let pairs = query
                .split('&')
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let mut pairs = pairs.filter(|(key, _)| key == name);
            text(pairs.next().map_or("", |(_, value)| value))
        }
        Fact::Time(moment, format) => {
            let at = match moment {
                Moment::Start => facts.started,
                Moment::Now => Some(Timestamp::now()),
            };
            at.map_or(Told::Nothing, |at| Told::Text(time(format, at).into()))
        }
        // Filled in by `compile`.
        Fact::Environment(_) => Told::Nothing,
        Fact::Plain(plain) => told_plain(*plain, facts),
    }
}

fn told_plain<'a>(plain: Plain, facts: &Facts<'a>) -> Told<'a> {
    use Plain::*;
    let address = |address: Option<SocketAddr>| owned(address.map(canonical));
    let ip = |address: Option<SocketAddr>| owned(address.map(|a| canonical(a).ip()));
    let port = |address: Option<SocketAddr>| number(address.map(|a| a.port().into()));
    match plain {
        RemoteAddress => address(facts.remote),
        RemoteIp => ip(facts.remote),
        RemotePort => port(facts.remote),
        DirectAddress => address(facts.direct),
        DirectIp => ip(facts.direct),
        DirectPort => port(facts.direct),
        LocalAddress => address(facts.local),
        LocalIp => ip(facts.local),
        LocalPort => port(facts.local),
        Protocol => match facts.asked.map(|asked| asked.version) {
            Some(Version::HTTP_2) => text("HTTP/2"),
            Some(Version::HTTP_10) => text("HTTP/1.0"),
            Some(_) => text("HTTP/1.1"),
            None => Told::Nothing,
        },
        ResponseDuration => millis(facts.response_after),
        ResponseTxDuration => millis(
            facts
                .duration
                .zip(facts.response_after)
                .map(|(whole, first)| whole.saturating_sub(first)),
        ),
        Duration => millis(facts.duration),
        BytesReceived => Told::Number(facts.received),
        BytesSent => Told::Number(facts.sent),
        ResponseCode => number(facts.status.map(|status| status.as_u16().into())),
        ResponseCodeDetails => text(facts.details),
        ResponseFlags if facts.flags.is_empty() => Told::Nothing,
        ResponseFlags => Told::Text(facts.flags.to_string().into()),
        ResponseFlagsLong if facts.flags.is_empty() => Told::Nothing,
        ResponseFlagsLong => Told::Text(facts.flags.long().into()),
        UpstreamHost | UpstreamAddress => address(facts.upstream),
        UpstreamIp => ip(facts.upstream),
        UpstreamPort => port(facts.upstream),
        UpstreamCluster | UpstreamClusterRaw => text(facts.cluster),
        UpstreamAttempts => number(facts.attempts.map(u64::from)),
        RouteName => text(facts.route),
        VirtualCluster => Told::Nothing,
        Hostname => text(hostname()),
        StreamId => match &facts.asked {
            Some(asked) => header_told(asked.headers, "x-request-id"),
            None => Told::Nothing,
        },
        TraceId => facts
            .trace_id
            .map_or(Told::Nothing, |id| Told::Text(format!("{id:032x}").into())),
        GrpcStatus => grpc(facts).map_or(Told::Nothing, |number| match GRPC.get(number) {
            Some(name) => text(name),
            None => Told::Number(number as u64),
        }),
        GrpcStatusNumber => number(grpc(facts).map(|number| number as u64)),
        LocalReplyBody => text(facts.local_body),
        ServerName => secured(facts, |tls| tls.server_name.as_deref().unwrap_or_default()),
        TlsVersion => secured(facts, |tls| tls.version),
        TlsCipher => secured(facts, |tls| tls.cipher),
        PeerSubject => peer(facts, |peer| (&*peer.certificate.subject).into()),
        PeerIssuer => peer(facts, |peer| (&*peer.certificate.issuer).into()),
        PeerSerial => peer(facts, |peer| (&*peer.certificate.serial).into()),
        PeerHash => peer(facts, |peer| (&*peer.hash).into()),
        PeerUris => peer(facts, |peer| peer.certificate.uris.join(",").into()),
        PeerNames => peer(facts, |peer| peer.certificate.names.join(",").into()),
    }
}

/// The names of gRPC's statuses, by their number.
const GRPC: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

fn grpc(facts: &Facts<'_>) -> Option<usize> {
    let maps = [facts.trailers, facts.response];
    let value = maps
        .into_iter()
        .flatten()
        .find_map(|map| map.get("grpc-status"))?;
    value.to_str().ok()?.trim().parse().ok()
}

impl<'a> Asked<'a> {
    fn header(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            ":method" => Some(self.method.as_str().into()),
            ":scheme" => Some(if self.secure { "https" } else { "http" }.into()),
            ":authority" | "host" => Some(self.authority.into()),
            ":path" => Some(self.path.into()),
            name => header(self.headers, name),
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<Cow<'a, str>> {
    let mut values = headers.get_all(name).iter();
    let first = String::from_utf8_lossy(values.next()?.as_bytes());
    let mut values = values.peekable();
    if values.peek().is_none() {
        return Some(first);
    }
    let mut joined = first.into_owned();
    for value in values {
        joined.push(',');
        joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    Some(joined.into())
}

fn header_told<'a>(headers: &'a HeaderMap, name: &str) -> Told<'a> {
    header(headers, name).map_or(Told::Nothing, Told::Text)
}

fn either<'a>(named: &Named, find: impl Fn(&str) -> Option<Cow<'a, str>>) -> Told<'a> {
    let found = find(&named.name).or_else(|| find(named.otherwise.as_deref()?));
    found.map_or(Told::Nothing, Told::Text)
}

fn text(text: &str) -> Told<'_> {
    match text {
        "" => Told::Nothing,
        text => Told::Text(text.into()),
    }
}

fn secured<'a>(facts: &Facts<'a>, read: impl Fn(&'a Session) -> &'a str) -> Told<'a> {
    facts.tls.map_or(Told::Nothing, |tls| text(read(tls)))
}

fn peer<'a>(facts: &Facts<'a>, read: impl Fn(&'a Peer) -> Cow<'a, str>) -> Told<'a> {
    match facts.tls.and_then(|tls| tls.peer.as_deref()).map(read) {
        Some(told) if !told.is_empty() => Told::Text(told),
        _ => Told::Nothing,
    }
}

fn owned<'a>(value: Option<impl ToString>) -> Told<'a> {
    value.map_or(Told::Nothing, |value| Told::Text(value.to_string().into()))
}

fn number<'a>(number: Option<u64>) -> Told<'a> {
    number.map_or(Told::Nothing, Told::Number)
}

fn millis<'a>(duration: Option<Duration>) -> Told<'a> {
    number(duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn time(format: &[TimePiece], at: Timestamp) -> String {
    let mut out = String::new();
    let digits = |out: &mut String, digits: u8| {
        let nanos = format!("{:09}", at.subsec_nanosecond().unsigned_abs());
        out.push_str(&nanos[..usize::from(digits.min(9))]);
    };
    let zoned = at.to_zoned(TimeZone::UTC);
    for piece in format {
        match piece {
            TimePiece::Calendar(text) => {
                // The parser has let through only what strftime knows.
                _ = write!(
                    out,
                    "{}",
                    jiff::fmt::strtime::BrokenDownTime::from(&zoned)
                        .to_string(text)
                        .unwrap_or_default()
                );
            }
            TimePiece::Fraction(count) => digits(&mut out, *count),
            TimePiece::Epoch(count) => {
                _ = write!(out, "{}", at.as_second());
                digits(&mut out, *count);
            }
        }
    }
    out
}

/// What formats need of a request after it has gone upstream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Needs {
    headers: Vec<HeaderName>,
}

impl Needs {
    /// Returns what these formats need; nothing when no request changes them.
    pub(crate) fn of<'a>(formats: impl IntoIterator<Item = &'a Format>) -> Option<Self> {
        let mut needs = Needs::default();
        let mut any = false;
        for fact in formats.into_iter().flat_map(Format::facts) {
            any = true;
            match fact {
                Fact::RequestHeader(named) => {
                    let names = [Some(&named.name), named.otherwise.as_ref()];
                    for name in names.into_iter().flatten() {
                        if let Ok(name) = name.parse() {
                            needs.add(name);
                        }
                    }
                }
                Fact::Plain(Plain::StreamId) => needs.add(HeaderName::from_static("x-request-id")),
                _ => (),
            }
        }
        any.then_some(needs)
    }

    fn add(&mut self, name: HeaderName) {
        if !self.headers.contains(&name) {
            self.headers.push(name);
        }
    }
}

/// What is kept of a request for formats that are filled when its answer is there.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    version: Version,
    method: Method,
    secure: bool,
    authority: String,
    path: String,
    headers: HeaderMap,
}

impl Kept {
    pub(crate) fn of(needs: &Needs, asked: &Asked<'_>) -> Self {
        let mut headers = HeaderMap::new();
        for name in &needs.headers {
            for value in asked.headers.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        Kept {
            version: asked.version,
            method: asked.method.clone(),
            secure: asked.secure,
            authority: asked.authority.to_owned(),
            path: asked.path.to_owned(),
            headers,
        }
    }

    /// Takes the headers that are needed once more, after others have changed them.
    pub(crate) fn headers_again(&mut self, needs: &Needs, headers: &HeaderMap) {
        self.headers.clear();
        for name in &needs.headers {
            for value in headers.get_all(name) {
                self.headers.append(name.clone(), value.clone());
            }
        }
    }

    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            version: self.version,
            method: &self.method,
            secure: self.secure,
            authority: &self.authority,
            path: &self.path,
            headers: &self.headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let format = compile(text).expect("the test's format");
        let mut request = HeaderMap::new();
        request.insert("x-a", "1".parse().expect("a value"));
        request.append("x-b", "2".parse().expect("a value"));
        request.append("x-b", "3".parse().expect("a value"));
        let mut response = HeaderMap::new();
        response.insert("grpc-status", "7".parse().expect("a value"));
        let facts = Facts {
            asked: Some(Asked {
                version: Version::HTTP_2,
                method: &Method::GET,
                secure: true,
                authority: "shop",
                path: "/a?b=c&d",
                headers: &request,
            }),
            response: Some(&response),
            remote: Some(([1, 2, 3, 4], 5).into()),
            local: "[::ffff:9.9.9.9]:80".parse().ok(),
            status: Some(StatusCode::NOT_FOUND),
            duration: Some(Duration::from_millis(1234)),
            response_after: Some(Duration::from_millis(1000)),
            started: Some("2016-04-15T20:17:00.310942Z".parse().expect("a time")),
            trace_id: Some(10),
            route: "r0.default",
            sent: 7,
            ..Facts::default()
        };
        assert_eq!(fill(&format, &facts, "-"), expected, "{text}");
        if let [Piece::Fact { .. }] = format.pieces.as_slice() {
            let needs = Needs::of([&format]).expect("a fact is a need");
            let kept = Kept::of(&needs, &facts.asked.expect("asked above"));
            let facts = Facts {
                asked: Some(kept.asked()),
                ..facts
            };
            assert_eq!(fill(&format, &facts, "-"), expected, "{text}, kept");
        }
    }

    #[test]
    fn facts_stand_for_variables() {
        check("plain 100%%", "plain 100%");
        check("%REQ(X-A)%/%REQ(X-B)%/%REQ(X-C)%", "1/2,3/-");
        check("%REQ(X-C?X-A)%", "1");
        check("%REQ(X-C?:PATH)%", "/a?b=c&d");
        check("%REQ(X-C?:PATH):2%", "/a");
        check(
            "%REQ(:METHOD)% %REQ(:SCHEME)%://%REQ(:AUTHORITY)%",
            "GET https://shop",
        );
        check("%QUERY_PARAM(b)%%QUERY_PARAM(x)%", "c-");
        check("%PROTOCOL%", "HTTP/2");
        check("%DOWNSTREAM_REMOTE_ADDRESS%", "1.2.3.4:5");
        check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "1.2.3.4");
        check("%DOWNSTREAM_REMOTE_PORT%", "5");
        check("%DOWNSTREAM_LOCAL_ADDRESS%", "9.9.9.9:80");
        check("%RESPONSE_CODE%", "404");
        check("%RESPONSE_FLAGS%", "-");
        check(
            "%DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%",
            "1234 1000 234",
        );
        check("%BYTES_SENT%", "7");
        check("%ROUTE_NAME%", "r0.default");
        check("%TRACE_ID%", "0000000000000000000000000000000a");
        check("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "PermissionDenied 7");
        check("%RESP(GRPC-STATUS)%%RESP(X)%", "7-");
        check("%UPSTREAM_HOST%%VIRTUAL_CLUSTER_NAME%", "--");
    }

    #[test]
    fn times_are_written_as_told() {
        check("%START_TIME%", "2016-04-15T20:17:00.310Z");
        check("%START_TIME(%Y/%m/%d %H:%M:%S)%", "2016/04/15 20:17:00");
        check("%START_TIME(%s.%6f)%", "1460751420.310942");
        check("%START_TIME(%3s)%", "1460751420310");
        check("%START_TIME(%a, %d %b %Y)%", "Fri, 15 Apr 2016");
    }

    #[test]
    fn alone_in_json_a_number_is_a_number() {
        let facts = Facts {
            status: Some(StatusCode::NOT_FOUND),
            ..Facts::default()
        };
        let typed = |text| super::typed(&compile(text).expect("the test's format"), &facts);
        assert_eq!(typed("%RESPONSE_CODE%"), 404);
        assert_eq!(typed("code %RESPONSE_CODE%"), "code 404");
        assert_eq!(typed("%RESPONSE_FLAGS%"), serde_json::Value::Null);
        assert_eq!(typed("5"), "5");
    }
}
