//! One record becomes one request, and its answer an outcome.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use gateway::connect::Secure;
use gateway::discovery::Directory;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use model::endpoints;
use model::target::Target;
use model::{Object, Subscribe};
use observe::trace::TraceContext;

use super::connect::Connector;
use super::lanes::Record;
use super::outcome::{self, Outcome};

/// Bytes read of an answer's body so that its connection can be used again; a longer one costs the connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Record headers that would change the framing or the meaning of the request itself.
const NOT_PASSED_ON: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "traceparent",
];

/// Sends records to the service of one subscription.
pub(super) struct Delivery {
    client: Client<Connector, Full<Bytes>>,
    method: Method,
    path: String,
    topic: String,
    subscription: String,
    namespace: String,
    target: Result<Target, String>,
    timeout: Duration,
    /// Who tells where services are.
    directory: Directory,
    turn: AtomicUsize,
}

impl Delivery {
    pub(super) fn new(
        object: &Object<Subscribe>,
        secure: Option<Secure>,
        directory: Directory,
    ) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(Connector::new(secure.clone()));
        let spec = &object.spec;
        Delivery {
            client,
            method: spec.method.parse().unwrap_or(Method::POST),
            path: spec.path.clone(),
            topic: spec.topic.clone(),
            subscription: object.name.clone(),
            namespace: object.namespace.clone(),
            target: Target::parse(&spec.service).map(|target| Target {
                tls: secure.is_some(),
                ..target
            }),
            timeout: spec.timeout,
            directory,
            turn: AtomicUsize::new(0),
        }
    }

    /// Makes one try. `attempt` starts at 1.
    pub(super) async fn send(&self, record: &Record, attempt: u32) -> Outcome {
        let retry = |why: String| Outcome::Retry {
            after: None,
            slow: false,
            why,
        };
        let request = match self.request(record, attempt) {
            Ok(request) => request,
            Err(why) => return retry(why),
        };
        let answer = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| cause(&error))?;
            let (head, body) = answer.into_parts();
            let outcome = outcome::of_answer(head.status, &head.headers);
            // The status decides; the body is read only to keep the connection.
            _ = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            Ok::<_, String>(outcome)
        };
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => retry(format!("the service could not be reached: {why}")),
            Err(_) => retry(format!(
                "the service did not answer within {:?}",
                self.timeout
            )),
        }
    }

    fn request(&self, record: &Record, attempt: u32) -> Result<Request<Full<Bytes>>, String> {
        let target = self.target.as_ref().map_err(Clone::clone)?;
        let authority = self.authority(target)?;
        let uri = Uri::builder()
            .scheme(if target.tls { "https" } else { "http" })
            .authority(authority)
            .path_and_query(self.path.as_str())
            .build();
        let mut request = Request::new(Full::new(record.value.clone().unwrap_or_default()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = uri.map_err(|error| format!("`{}`: {error}", self.path))?;
        *request.headers_mut() = self.headers(record, attempt);
        let host = match target.port {
            Some(port) => format!("{}:{port}", target.host),
            None => target.host.clone(),
        };
        if let Ok(host) = HeaderValue::try_from(host) {
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(request)
    }

    /// Returns where to connect to: the next of the told endpoints in turn, else the name, for DNS.
    fn authority(&self, target: &Target) -> Result<String, String> {
        let told = |(namespace, name): (String, String)| {
            self.directory.told(&namespace, &name, target.port)
        };
        match endpoints::key(&target.host, &self.namespace).and_then(told) {
            Some(endpoints) if endpoints.is_empty() => {
                Err(format!("service `{}` has no ready endpoint", target.host))
            }
            Some(endpoints) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                Ok(endpoints[turn % endpoints.len()].address.to_string())
            }
            None => match target.ip() {
                Some(ip) => Ok(SocketAddr::new(ip, target.port_or_default()).to_string()),
                None => Ok(format!("{}:{}", target.host, target.port_or_default())),
            },
        }
    }

    fn headers(&self, record: &Record, attempt: u32) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &record.headers {
            let Ok(name) = HeaderName::try_from(name.as_str()) else {
                continue;
            };
            let Ok(value) = HeaderValue::from_bytes(value.as_deref().unwrap_or_default()) else {
                continue;
            };
            // What the bridge itself says about a record cannot be said by the record.
            if !NOT_PASSED_ON.contains(&name.as_str()) && !name.as_str().starts_with("nuncio-") {
                headers.append(name, value);
            }
        }
        let place = format!("{}/{}/{}", self.topic, record.partition, record.offset);
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        set("nuncio-topic", self.topic.clone());
        set("nuncio-partition", record.partition.to_string());
        set("nuncio-offset", record.offset.to_string());
        set("nuncio-timestamp", record.timestamp_ms.to_string());
        set("nuncio-subscription", self.subscription.clone());
        set("nuncio-attempt", attempt.to_string());
        set("idempotency-key", place);
        set("traceparent", trace(record).header());
        if record.value.is_none() {
            set("nuncio-tombstone", "true".to_owned());
        }
        match &record.key {
            None => (),
            // A header carries visible text; any other key goes as base64 under a name of its own.
            Some(key) if key.iter().all(|byte| (0x20..0x7f).contains(byte)) => {
                set("nuncio-key", String::from_utf8_lossy(key).into_owned());
            }
            Some(key) => set("nuncio-key-base64", BASE64.encode(key)),
        }
        headers
            .entry(header::CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/octet-stream"));
        headers
    }
}

/// Returns a new span in the record's trace, or a new trace.
fn trace(record: &Record) -> TraceContext {
    let header = record
        .headers
        .iter()
        .find(|(name, _)| name == "traceparent");
    let parent = header.and_then(|(_, value)| TraceContext::parse(value.as_deref()?));
    parent.map_or_else(|| TraceContext::start(false), |parent| parent.child())
}

/// Returns the innermost cause, which is what a user can act on.
fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
