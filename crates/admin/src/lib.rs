//! The admin API: health, metrics, status, explain. It listens on loopback unless told otherwise,
//! because it tells everything.
//!
//! | path | answer |
//! |---|---|
//! | `/ambassador/v0/check_alive` | 200 while the process answers at all |
//! | `/ambassador/v0/check_ready` | 200 once the first configuration runs and the broker is up, 503 before and while stopping |
//! | `/metrics` | our metrics and Envoy's names, in OpenMetrics or Prometheus' text format 0.0.4 as `accept` asks |
//! | `/ambassador/v0/diag/` | a page with problems, routes, hosts and upstreams; `?json=true` for machines, `&filter=errors` for one key of it; 404 where the Module's `diagnostics` are off |
//! | `/nuncio/v0/status` | JSON: addresses, configuration and its problems, upstreams and their endpoints, topics, groups |
//! | `POST /nuncio/v0/log?level=debug` | logs by this filter from now on |
//! | `/nuncio/v0/explain?method=GET&url=http://host/path&header=name:value&client=IP` | JSON: the route and why, its policies, its endpoints as they are now |

mod diag;
mod process;

use std::io;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use observe::metrics::{Dialect, Metrics, Source};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use process::Process;

/// What the admin API tells about: the running whole.
pub trait Subject: Send + Sync + 'static {
    /// Returns why it cannot serve yet, or no longer.
    ///
    /// # Errors
    /// The reason, in the user's words.
    fn ready(&self) -> Result<(), String>;

    /// Returns addresses, configuration, topics and groups.
    fn status(&self) -> Value;

    /// Returns the diagnostics in Emissary's shape; `None` where the Module has switched them off.
    fn diagnose(&self) -> Option<Value>;

    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// When the filter cannot be read, or the log cannot be changed.
    fn log_at(&self, filter: &str) -> Result<(), String>;

    /// Returns the route that a request takes, and why.
    ///
    /// # Errors
    /// What is wrong with the question.
    fn explain(&self, request: &Ask) -> Result<Value, String>;
}

/// A request to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `GET`.
    pub method: String,
    /// `http://host/path?query`.
    pub url: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The client's address, where it matters.
    pub client: Option<String>,
}

#[derive(Clone)]
struct Shared {
    subject: Arc<dyn Subject>,
    metrics: Metrics,
}

/// Serves until told to stop.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    subject: Arc<dyn Subject>,
    metrics: Metrics,
    stop: CancellationToken,
) -> io::Result<()> {
    let process: Arc<dyn Source> = Arc::new(Process::default());
    metrics.ask(Arc::downgrade(&process));
    let routes = Router::new()
        .route("/ambassador/v0/check_alive", get(async || "alive\n"))
        .route("/ambassador/v0/check_ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route(
            "/nuncio/v0/status",
            get(async |State(shared): State<Shared>| Json(shared.subject.status())),
        )
        .route("/ambassador/v0/diag", get(diag::overview))
        .route("/ambassador/v0/diag/", get(diag::overview))
        .route("/nuncio/v0/explain", get(explain))
        .route("/nuncio/v0/log", post(log))
        .with_state(Shared { subject, metrics });
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn ready(State(shared): State<Shared>) -> Response {
    match shared.subject.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        )
            .into_response(),
    }
}

async fn metrics_text(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let dialect = Dialect::asked(accept.and_then(|accept| accept.to_str().ok()));
    let kind = [(header::CONTENT_TYPE, dialect.content_type())];
    (kind, shared.metrics.encode_as(dialect)).into_response()
}

async fn explain(
    State(shared): State<Shared>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Response {
    let mut ask = Ask {
        method: "GET".into(),
        url: String::new(),
        headers: Vec::new(),
        client: None,
    };
    for (name, value) in pairs {
        match name.as_str() {
            "method" => ask.method = value,
            "url" => ask.url = value,
            "client" => ask.client = Some(value),
            "header" => match value.split_once(':') {
                Some((name, value)) => ask
                    .headers
                    .push((name.trim().to_owned(), value.trim().to_owned())),
                None => return bad(&format!("`{value}` is not `name: value`")),
            },
            other => {
                return bad(&format!(
                    "unknown parameter `{other}`: use method, url, header and client"
                ));
            }
        }
    }
    match shared.subject.explain(&ask) {
        Ok(explained) => Json(explained).into_response(),
        Err(why) => bad(&why),
    }
}

async fn log(State(shared): State<Shared>, Query(pairs): Query<Vec<(String, String)>>) -> Response {
    let [(name, level)] = &pairs[..] else {
        return bad("say `?level=` and a filter such as `debug` or `gateway=debug,info`");
    };
    if name != "level" {
        return bad(&format!("unknown parameter `{name}`: use level"));
    }
    match shared.subject.log_at(level) {
        Ok(()) => Json(json!({ "level": level })).into_response(),
        Err(why) => bad(&why),
    }
}

fn bad(why: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": why }))).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    struct Starting;

    impl Subject for Starting {
        fn ready(&self) -> Result<(), String> {
            Err("no configuration yet".into())
        }

        fn status(&self) -> Value {
            json!({ "version": "test" })
        }

        fn diagnose(&self) -> Option<Value> {
            Some(json!({ "errors": [["a", "b"]], "system": {} }))
        }

        fn log_at(&self, filter: &str) -> Result<(), String> {
            match filter {
                "debug" => Ok(()),
                other => Err(format!("no {other}")),
            }
        }

        fn explain(&self, ask: &Ask) -> Result<Value, String> {
            Ok(json!({ "url": ask.url, "headers": ask.headers }))
        }
    }

    /// Returns the answer's status and body.
    async fn get(path: &str) -> (u16, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(
            listener,
            Arc::new(Starting),
            Metrics::default(),
            stop.clone(),
        ));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.cancel();
        served.await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    #[tokio::test]
    async fn alive_is_not_ready() {
        assert_eq!(get("/ambassador/v0/check_alive").await.0, 200);
        let (status, body) = get("/ambassador/v0/check_ready").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "not ready: no configuration yet\n")
        );
    }

    #[tokio::test]
    async fn questions_are_read_from_the_query() {
        let (status, body) =
            get("/nuncio/v0/explain?url=http://a/b&header=x:%20y&header=z:1").await;
        assert_eq!(status, 200);
        assert_eq!(
            body,
            r#"{"headers":[["x","y"],["z","1"]],"url":"http://a/b"}"#
        );
        assert_eq!(get("/nuncio/v0/explain?uri=x").await.0, 400);
        assert_eq!(get("/nuncio/v0/explain?header=x").await.0, 400);
        assert!(get("/metrics").await.1.contains("process_open_fds"));
        let (status, body) = get("/ambassador/v0/diag/?json=true&filter=errors").await;
        assert_eq!((status, body.as_str()), (200, r#"[["a","b"]]"#));
        assert!(get("/ambassador/v0/diag/").await.1.starts_with("<!doctype"));
        assert_eq!(get("/ambassador/v0/diag/?loglevel=shout").await.0, 400);
        assert_eq!(get("/ambassador/v0/diag/?loglevel=debug").await.0, 200);
    }
}
