//! A service that notes what it gets and answers as the test says.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use testkit::tls::Identity;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::house::LIMIT;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    got: mpsc::UnboundedReceiver<Got>,
}

impl Sink {
    /// Starts a service that answers each request with what `answer` returns for it: `204` or `503 retry-after: 1`.
    pub(crate) async fn start(
        answer: impl Fn(&Got) -> String + Clone + Send + Sync + 'static,
    ) -> Sink {
        Self::serve(None, answer).await
    }

    /// Starts one behind TLS.
    pub(crate) async fn start_tls(
        identity: &Identity,
        answer: impl Fn(&Got) -> String + Clone + Send + Sync + 'static,
    ) -> Sink {
        let acceptor = TlsAcceptor::from(Arc::new(identity.server(None)));
        Self::serve(Some(acceptor), answer).await
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Got) -> String + Clone + Send + Sync + 'static,
    ) -> Sink {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, got) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, tell) = (answer.clone(), tell.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, tell) = (answer.clone(), tell.clone());
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let got = Got {
                            path: head.uri.path().to_owned(),
                            headers: head.headers,
                            body: String::from_utf8(body.to_vec()).unwrap(),
                        };
                        let response = respond(&answer(&got));
                        _ = tell.send(got); // the test may be over
                        Ok::<_, Infallible>(response)
                    }
                });
                let http = http1::Builder::new();
                let tls = tls.clone();
                tokio::spawn(async move {
                    // How a connection ends is its client's business.
                    match tls {
                        None => _ = http.serve_connection(TokioIo::new(stream), service).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                _ = http.serve_connection(TokioIo::new(stream), service).await;
                            }
                        }
                    }
                });
            }
        });
        Sink { address, got }
    }

    /// Waits for the next request.
    pub(crate) async fn next(&mut self) -> Got {
        let next = tokio::time::timeout(LIMIT, self.got.recv()).await;
        next.expect("no request came in time")
            .expect("the service is there")
    }

    /// Returns what came and has not been taken.
    pub(crate) fn rest(&mut self) -> Vec<Got> {
        std::iter::from_fn(|| self.got.try_recv().ok()).collect()
    }
}

fn respond(answer: &str) -> Response<Empty<Bytes>> {
    let (status, headers) = answer.split_once(' ').unwrap_or((answer, ""));
    let mut response = Response::builder().status(status.parse::<u16>().unwrap());
    if let Some((name, value)) = headers.split_once(':') {
        response = response.header(name.trim(), value.trim());
    }
    response.body(Empty::new()).unwrap()
}
