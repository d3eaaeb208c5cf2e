//! Publish: a request becomes a record. The 2xx leaves after the record is durable.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway::backend::{Answering, Call, Handler};
use gateway::body::{Broken, ResponseBody};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use model::template::Template;
use observe::metrics::{Counter, Metrics};
use serde_json::json;

use crate::log::{AppendError, Entry, Log, Placed};
use crate::template::Parts;

/// One publish route, ready to answer. Clones share it.
#[derive(Clone)]
pub struct Publisher(Arc<Route>);

struct Route {
    topic: Arc<str>,
    key: Option<Template>,
    key_required: bool,
    headers: Vec<HeaderName>,
    add_headers: Vec<(String, Template)>,
    body_bytes_max: usize,
    timeout: Duration,
    log: Log,
    stored: Counter,
    refused: Counter,
}

/// Why a request has not become a record.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the request has no `{0}`, which the record's key needs")]
    NoKey(String),
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
    #[error("the body could not be read")]
    Broken(#[source] Broken),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("topic `{0}` did not answer in time; the record may have been stored")]
    Late(String),
}

impl Refusal {
    /// The whole mapping from failure to status.
    fn status(&self) -> StatusCode {
        match self {
            Refusal::NoKey(_) | Refusal::Broken(_) => StatusCode::BAD_REQUEST,
            Refusal::TooLong(_) | Refusal::Append(AppendError::TooLarge(_)) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Refusal::Append(AppendError::UnknownTopic(_)) => StatusCode::NOT_FOUND,
            Refusal::Append(AppendError::Denied(_)) => StatusCode::FORBIDDEN,
            Refusal::Append(AppendError::Invalid { .. }) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Append(AppendError::Unavailable { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Append(AppendError::Unknown(_)) | Refusal::Late(_) => {
                StatusCode::GATEWAY_TIMEOUT
            }
        }
    }
}

impl Publisher {
    /// Prepares a route.
    ///
    /// # Errors
    /// When a template or a header's name cannot be read; a checked configuration has none such.
    pub fn new(spec: &model::Publish, log: Log, metrics: &Metrics) -> Result<Self, String> {
        let header = |name: &String| {
            name.parse()
                .map_err(|_| format!("`{name}` is no header name"))
        };
        let labels = [
            ("topic", spec.topic.as_str()),
            ("route", spec.route.as_str()),
        ];
        let add_headers = spec
            .add_headers
            .iter()
            .map(|(name, text)| Ok((name.clone(), Template::parse(text)?)));
        Ok(Publisher(Arc::new(Route {
            topic: spec.topic.as_str().into(),
            key: spec.key.as_deref().map(Template::parse).transpose()?,
            key_required: spec.key_required,
            headers: spec
                .headers
                .iter()
                .map(header)
                .collect::<Result<_, String>>()?,
            add_headers: add_headers.collect::<Result<_, String>>()?,
            body_bytes_max: usize::try_from(spec.body_bytes_max).unwrap_or(usize::MAX),
            timeout: spec.timeout,
            log,
            stored: metrics.counter(
                "nuncio_publish_records",
                "Records stored from HTTP requests.",
                &labels,
            ),
            refused: metrics.counter(
                "nuncio_publish_refused",
                "Publish requests that became no record.",
                &labels,
            ),
        })))
    }
}

impl Route {
    async fn publish(&self, call: Call) -> Result<Placed, Refusal> {
        let (head, body) = call.request.into_parts();
        let body = body
            .collect_max(self.body_bytes_max)
            .await
            .map_err(|error| match error {
                Broken::TooLong(max) => Refusal::TooLong(max),
                error => Refusal::Broken(error),
            })?;
        let asks_json = |template: &Template| template.reads_body();
        let reads_json = self
            .key
            .iter()
            .chain(self.add_headers.iter().map(|(_, t)| t))
            .any(asks_json);
        let json = reads_json
            .then(|| serde_json::from_slice(&body).ok())
            .flatten();
        let parts = Parts {
            params: &call.params,
            query: head.uri.query().unwrap_or_default(),
            headers: &head.headers,
            body: &body,
            json: json.as_ref(),
        };
        let key = match self.key.as_ref().map(|template| parts.fill(template)) {
            None => None,
            Some(Ok(key)) => Some(Bytes::from(key)),
            Some(Err(missing)) if self.key_required => return Err(Refusal::NoKey(missing)),
            Some(Err(_)) => None,
        };
        let mut headers = self.record_headers(&head.headers, &parts);
        // The record carries the trace on to whoever consumes it.
        headers.push(("traceparent".to_owned(), Bytes::from(call.trace.header())));
        if let Some(state) = head.headers.get("tracestate") {
            headers.push((
                "tracestate".to_owned(),
                Bytes::copy_from_slice(state.as_bytes()),
            ));
        }
        let entry = Entry {
            key,
            value: Some(body),
            headers,
        };
        match tokio::time::timeout(self.timeout, self.log.append(&self.topic, entry)).await {
            Ok(placed) => Ok(placed?),
            Err(_) => Err(Refusal::Late(self.topic.to_string())),
        }
    }

    fn record_headers(&self, request: &HeaderMap, parts: &Parts<'_>) -> Vec<(String, Bytes)> {
        let mut headers = Vec::new();
        for name in &self.headers {
            // The trace has its own place in the record, with this hop's span.
            if name == "traceparent" || name == "tracestate" {
                continue;
            }
            for value in request.get_all(name) {
                headers.push((
                    name.as_str().to_owned(),
                    Bytes::copy_from_slice(value.as_bytes()),
                ));
            }
        }
        for (name, template) in &self.add_headers {
            if let Ok(value) = parts.fill(template) {
                headers.push((name.clone(), Bytes::from(value)));
            }
        }
        headers
    }
}

impl Handler for Publisher {
    fn handle(&self, call: Call) -> Answering {
        let route = self.0.clone();
        Box::pin(async move {
            let minimal = prefers_minimal(&call.request);
            match route.publish(call).await {
                Ok(placed) => {
                    route.stored.inc();
                    stored(&placed, minimal)
                }
                Err(refusal) => {
                    route.refused.inc();
                    tracing::debug!(error = %refusal, topic = %route.topic, "publish refused");
                    refused(&refusal)
                }
            }
        })
    }
}

/// Returns whether the request has `Prefer: return=minimal` (RFC 7240).
fn prefers_minimal<B>(request: &Request<B>) -> bool {
    let values = request
        .headers()
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split([',', ';']))
        .any(|part| part.trim().eq_ignore_ascii_case("return=minimal"))
}

fn stored(placed: &Placed, minimal: bool) -> Response<ResponseBody> {
    if minimal {
        let mut answer = Response::new(ResponseBody::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        answer.headers_mut().insert(
            "preference-applied",
            http::HeaderValue::from_static("return=minimal"),
        );
        return answer;
    }
    let body = json!({
        "topic": placed.topic,
        "partition": placed.partition,
        "offset": placed.offset,
        "timestamp": placed.timestamp_ms,
    });
    answer(StatusCode::CREATED, "application/json", &body)
}

/// Says what went wrong as problem details (RFC 9457).
fn refused(refusal: &Refusal) -> Response<ResponseBody> {
    let status = refusal.status();
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "status": status.as_u16(), "title": title, "detail": refusal.to_string() });
    let mut answer = answer(status, "application/problem+json", &body);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, http::HeaderValue::from_static("1"));
    }
    answer
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: &serde_json::Value,
) -> Response<ResponseBody> {
    let mut answer = Response::new(ResponseBody::full(format!("{body}\n")));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        http::HeaderValue::from_static(content_type),
    );
    answer
}

/// Answers for publish routes of a process that has no broker to publish to.
pub struct NoBroker;

impl Handler for NoBroker {
    fn handle(&self, _call: Call) -> Answering {
        Box::pin(std::future::ready({
            let why = "this gateway runs without a broker; `broker.bootstrap` names one".to_owned();
            refused(&Refusal::Append(AppendError::Unavailable {
                topic: String::new(),
                why,
            }))
        }))
    }
}
