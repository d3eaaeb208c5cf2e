//! The ticket of a request: it follows the request to the end of its answer, then counts and writes the access line.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Body;
use jiff::Timestamp;
use observe::access::{Line, Texts, VIA_UPSTREAM};
use observe::flags::Flags;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::body::Broken;
use crate::format::Asked;
use crate::listener::Connection;
use crate::listener::watch::Handed;
use crate::policy::forward::X_REQUEST_ID;
use crate::policy::grpc::Dialect;
use crate::policy::lines::{Lines, Pending};
use crate::policy::memory::Memory;
use crate::refusal::{Cut, Refusal, Told};
use crate::snapshot::{Front, Route};

/// A line under way.
enum Record {
    /// Our own.
    Ours(Box<Line>),
    /// In the form that the Module asks for.
    Asked(Box<Pending>),
}

/// A request from its head to the end of its answer.
pub(crate) struct Ticket {
    connection: Arc<Connection>,
    pub(crate) began: Instant,
    pub(crate) head_only: bool,
    /// The gate has stopped reading behind such a head until somebody decides.
    pub(crate) undecided: bool,
    /// Which kind of gRPC the client speaks.
    pub(crate) dialect: Dialect,
    pub(crate) route: Option<Arc<Route>>,
    status: Option<StatusCode>,
    /// Why the gateway answered by itself, or the answer broke off.
    told: Option<Told>,
    /// What else was special.
    flags: Flags,
    complete: bool,
    sent: u64,
    received: Option<Arc<AtomicU64>>,
    handed: Option<Arc<Handed>>,
    upstream: Option<(SocketAddr, Duration)>,
    /// What policies need of the request when its answer is there.
    pub(crate) memory: Option<Box<Memory>>,
    /// Kept only where access lines are written.
    line: Option<Record>,
}

impl Ticket {
    /// A request begins.
    pub(crate) fn begin<B: Body>(
        connection: Arc<Connection>,
        front: &Front,
        request: &Request<B>,
    ) -> Box<Self> {
        let line = connection
            .shared
            .access
            .enabled()
            .then(|| match &front.settings.lines {
                None => Record::Ours(line(&connection, request)),
                Some(lines) => Record::Asked(Box::new(pending(lines, request))),
            });
        let handed = connection.watch.stream();
        Box::new(Ticket {
            connection,
            began: Instant::now(),
            head_only: request.method() == Method::HEAD,
            undecided: request.version() == Version::HTTP_11
                && request.headers().contains_key(header::UPGRADE)
                && request.body().is_end_stream(),
            dialect: Dialect::of(request, front.settings.grpc),
            route: None,
            status: None,
            told: None,
            flags: Flags::NONE,
            complete: false,
            sent: 0,
            received: None,
            handed,
            upstream: None,
            memory: None,
            line,
        })
    }

    /// The route is known.
    pub(crate) fn routed(&mut self, route: Arc<Route>) {
        route.meters.active.inc();
        self.route = Some(route);
    }

    /// The ids are known.
    pub(crate) fn identified(&mut self, headers: &HeaderMap, trace_id: u128) {
        match &mut self.line {
            None => (),
            Some(Record::Ours(line)) => {
                if let Some(id) = headers.get(&X_REQUEST_ID) {
                    line.texts.identify(&text(id));
                }
                line.trace_id = Some(trace_id);
            }
            Some(Record::Asked(pending)) => pending.identified(headers, trace_id),
        }
    }

    /// Returns where the body's bytes are counted.
    pub(crate) fn receiver(&mut self) -> Arc<AtomicU64> {
        self.received.get_or_insert_default().clone()
    }

    /// The upstream has answered.
    pub(crate) fn answered(&mut self, address: SocketAddr, after: Duration) {
        self.upstream = Some((address, after));
    }

    /// Returns the endpoint that has answered, and after which time.
    pub(crate) fn upstream(&self) -> Option<(SocketAddr, Duration)> {
        self.upstream
    }

    /// Returns how many bytes of the body have come so far.
    pub(crate) fn received(&self) -> u64 {
        let received = self.received.as_ref();
        received.map_or(0, |received| received.load(Relaxed))
    }

    /// Returns Envoy's flags for what was special about the request so far.
    pub(crate) fn flags(&self) -> Flags {
        self.told
            .map_or(self.flags, |told| self.flags.with(told.flags))
    }

    /// Returns where the answer comes from, or why the gateway answers by itself, in Envoy's words.
    pub(crate) fn details(&self) -> &'static str {
        match (self.told, self.upstream) {
            (Some(told), _) => told.details,
            (None, Some(_)) => VIA_UPSTREAM,
            (None, None) => "direct_response",
        }
    }

    /// The gateway answers by itself.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        let told = refusal.told();
        self.told = Some(told);
        self.connection.shared.meters.refused(told.name);
        if matches!(refusal, Refusal::NoRoute) {
            self.connection.listener.front.load().meters.no_route.inc();
        }
        if let Some(route) = &self.route
            && let Backend::Service(cluster) = &route.backend
        {
            cluster.meters.failed(refusal);
        }
    }

    /// Returns the short name of the reason why the gateway answers by itself.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        self.told.map(|told| told.name)
    }

    /// Something was special about the request besides a refusal: its retries ran out, for example.
    pub(crate) fn flag(&mut self, flags: Flags) {
        self.flags = self.flags.with(flags);
    }

    /// The head of the answer is known.
    pub(crate) fn status(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = Some(status);
        if let Some(Record::Asked(pending)) = &mut self.line {
            pending.answered(headers);
        }
        if let Some(handed) = &self.handed {
            handed.out();
        }
    }

    /// The next piece of the answer is asked for.
    pub(crate) fn taken(&self) {
        if let Some(handed) = &self.handed {
            handed.taken();
        }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if let Some(handed) = &self.handed {
            handed.out();
        }
    }

    /// The answer breaks off.
    pub(crate) fn cut(&mut self, broken: &Broken) {
        self.broke(Cut::of(broken));
    }

    fn broke(&mut self, cut: Cut) {
        let told = cut.told();
        self.told = Some(told);
        self.connection.shared.meters.cut(told.name);
    }

    /// The answer has ended as it should.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = Instant::now();
        let duration = now.duration_since(self.began);
        self.connection.watch.end(now);
        let front;
        let meters = match &self.route {
            Some(route) => {
                route.meters.active.dec();
                &route.meters
            }
            None => {
                front = self.connection.listener.front.load();
                &front.meters.unrouted
            }
        };
        if let Some(status) = self.status {
            meters.ended(status, duration);
        }
        if !self.complete && self.told.is_none() {
            meters.aborted.inc();
            self.connection.watch.abandon();
            self.broke(Cut::Client);
        }
        let mut line = match self.line.take() {
            None => return,
            Some(Record::Ours(line)) => line,
            Some(Record::Asked(pending)) => {
                let connection = &self.connection;
                let line = pending.line(connection, self, self.status, duration, self.sent);
                connection.shared.access.write_text(line);
                return;
            }
        };
        line.duration = duration;
        line.status = self.status.map_or(0, |status| status.as_u16());
        line.flags = self.flags();
        line.details = self.details();
        line.reason = self.reason().unwrap_or_default();
        line.route = self.route.as_ref().map(|route| route.name.clone());
        line.upstream = self.upstream.map(|(address, _)| address);
        line.upstream_duration = self.upstream.map(|(_, after)| after);
        line.received_bytes = self.received();
        line.sent_bytes = self.sent;
        self.connection.shared.access.write(line);
    }
}

fn pending<B>(lines: &Arc<Lines>, request: &Request<B>) -> Pending {
    let (headers, uri) = (request.headers(), request.uri());
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = uri.authority().map(|authority| authority.as_str());
    let asked = Asked {
        version: request.version(),
        method: request.method(),
        secure: uri.scheme_str() == Some("https"),
        authority: authority.or(host).unwrap_or_default(),
        path: uri
            .path_and_query()
            .map_or(uri.path(), |target| target.as_str()),
        headers,
    };
    Pending::begin(lines, &asked)
}

fn line<B>(connection: &Connection, request: &Request<B>) -> Box<Line> {
    let headers = request.headers();
    let uri = request.uri();
    let authority = match (uri.authority(), headers.get(header::HOST)) {
        (Some(authority), _) => authority.as_str().into(),
        (None, Some(host)) => text(host),
        (None, None) => Cow::Borrowed(""),
    };
    let path = uri.path_and_query();
    let path = path.map_or(uri.path(), |target| target.as_str());
    let user_agent = headers.get(header::USER_AGENT).map(text);
    let texts = Texts::new(
        request.method().as_str(),
        &authority,
        path,
        &user_agent.unwrap_or_default(),
    );
    Box::new(Line {
        started: Timestamp::now(),
        duration: Duration::ZERO,
        peer: Some(connection.peer),
        texts,
        protocol: match request.version() {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        },
        status: 0,
        reason: "",
        flags: Flags::NONE,
        details: "",
        route: None,
        upstream: None,
        upstream_duration: None,
        received_bytes: 0,
        sent_bytes: 0,
        trace_id: None,
        tls: connection.tls.as_ref().map(|tls| tls.line.clone()),
    })
}

fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}
