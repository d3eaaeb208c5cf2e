//! Active health checks against services that turn ill and well again.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::echo::Echo;
use testkit::scripted::Scripted;
use testkit::wait;

use crate::balancing::{LONG, at, tell};
use crate::rig::Rig;

/// A service that answers with its name and is as healthy as told.
fn service(name: &'static str) -> (Scripted, Arc<AtomicUsize>) {
    let status = Arc::new(AtomicUsize::new(200));
    let told = status.clone();
    let service = Scripted::start(move |mut raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            let (status, body) = match head.starts_with(b"GET /healthz ") {
                true => (told.load(Relaxed), ""),
                false => (200, name),
            };
            let length = body.len();
            raw.send(format!(
                "HTTP/1.1 {status} Is\r\ncontent-length: {length}\r\n\r\n{body}"
            ));
        }
    });
    (service, status)
}

fn route(check: &str) -> String {
    format!(
        "routes: [{{ prefix: /, service: shop, stats_name: shop, \
            health_checks: [{{ interval: 20ms, timeout: 500ms, unhealthy_threshold: 2, health_check: {check} }}] }}]"
    )
}

#[track_caller]
fn becomes(rig: &Rig, state: &str, count: f64) {
    let name = format!("nuncio_upstream_endpoints{{upstream=\"shop\",state=\"{state}\"}}");
    wait::until(&format!("{count} {state} endpoints"), LONG, || {
        (rig.metric(&name) == count).then_some(())
    });
}

/// Returns who answers so many requests.
fn answering(rig: &Rig) -> BTreeSet<String> {
    let ask = |_| {
        let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
        assert_eq!(answer.status, 200);
        String::from_utf8(answer.body).expect("a name")
    };
    (0..12).map(ask).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn who_fails_its_http_check_gets_no_requests_until_it_passes() {
    let rig = Rig::start(&route("{ http: { path: /healthz } }"));
    let ((one, _), (two, status)) = (service("one"), service("two"));
    let both = [one.address(), two.address()];
    tell(&rig, at(&both));
    becomes(&rig, "healthy", 2.0);
    assert_eq!(answering(&rig), names(["one", "two"]));

    status.store(503, Relaxed);
    becomes(&rig, "unhealthy", 1.0);
    assert_eq!(answering(&rig), names(["one"]));
    let failures = "nuncio_upstream_health_check_failures_total{upstream=\"shop\"}";
    assert!(rig.metric(failures) >= 2.0);

    status.store(200, Relaxed);
    becomes(&rig, "unhealthy", 0.0);
    assert_eq!(answering(&rig), names(["one", "two"]));

    // One that joins is not asked before it has passed.
    let (ill, status) = service("ill");
    status.store(500, Relaxed);
    tell(&rig, at(&[one.address(), two.address(), ill.address()]));
    assert_eq!(answering(&rig), names(["one", "two"]));
    status.store(200, Relaxed);
    becomes(&rig, "healthy", 3.0);
    assert_eq!(answering(&rig), names(["ill", "one", "two"]));
}

#[test]
fn when_most_are_ill_all_are_asked() {
    let rig = Rig::start(&route("{ http: { path: /healthz } }"));
    let services = [service("one"), service("two"), service("three")];
    tell(
        &rig,
        at(&services.each_ref().map(|(service, _)| service.address())),
    );
    becomes(&rig, "healthy", 3.0);
    services
        .iter()
        .take(2)
        .for_each(|(_, status)| status.store(500, Relaxed));
    becomes(&rig, "unhealthy", 2.0);
    assert_eq!(answering(&rig), names(["one", "three", "two"]));
}

#[test]
fn the_check_asks_as_it_is_told() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&route(
        "{ http: { path: '/up?deep=1', hostname: shop.example, add_request_headers: { x-check: { value: me } }, \
            remove_request_headers: [user-agent], expected_statuses: [{ min: 200, max: 204 }] } }",
    ));
    tell(&rig, at(&[echo.address()]));
    becomes(&rig, "healthy", 1.0);
    let seen = echo.wait_seen(1, LONG).remove(0);
    assert_eq!(seen["method"], "GET");
    assert_eq!(seen["url"]["path"], "/up");
    assert_eq!(seen["url"]["rawQuery"], "deep=1");
    assert_eq!(seen["host"], "shop.example");
    assert_eq!(seen["headers"]["x-check"][0], "me");
    assert!(seen["headers"]["user-agent"].is_null());
}

#[test]
fn a_tcp_check_follows_who_listens() {
    let rig = Rig::start(&route("{ tcp: {} }"));
    let (one, two) = (Echo::start("one"), Echo::start("two"));
    let address = two.address();
    tell(&rig, at(&[one.address(), address]));
    becomes(&rig, "healthy", 2.0);
    drop(two);
    becomes(&rig, "unhealthy", 1.0);
    let _two = Echo::start_on("two", address);
    becomes(&rig, "healthy", 2.0);
    assert!(rig.metric("nuncio_upstream_health_checks_total{upstream=\"shop\"}") >= 4.0);
}

/// The authority and body of each check.
type Asked = std::sync::Mutex<Vec<(String, Bytes)>>;

/// A gRPC service over HTTP/2 without TLS that knows `grpc.health.v1` alone, and says this status.
struct Grpc {
    address: SocketAddr,
    status: Arc<AtomicU8>,
    asked: Arc<Asked>,
    _runtime: tokio::runtime::Runtime,
}

impl Grpc {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (status, asked) = (Arc::new(AtomicU8::new(1)), Arc::<Asked>::default());
        let state = (status.clone(), Arc::clone(&asked));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (status, asked) = state.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let (status, asked) = (status.clone(), asked.clone());
                    async move { Ok::<_, Infallible>(health(request, &status, &asked).await) }
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // It ends with the client's connection.
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        Grpc {
            address,
            status,
            asked,
            _runtime: runtime,
        }
    }
}

async fn health(
    request: Request<Incoming>,
    status: &AtomicU8,
    asked: &Asked,
) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
    let authority = request.uri().authority().map(ToString::to_string);
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    if path == "/grpc.health.v1.Health/Check" {
        let mut asked = asked.lock().expect("no thread panics with it");
        asked.push((authority.unwrap_or_default(), body));
    }
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, status.load(Relaxed)]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[test]
fn a_grpc_check_asks_the_health_service() {
    let rig = Rig::start(
        "routes: [{ prefix: /, service: shop, stats_name: shop, grpc: true, health_checks: [{ interval: 20ms, \
            health_check: { grpc: { upstream_name: shop.Orders, authority: shop.example } } }] }]",
    );
    let (one, two) = (Grpc::start(), Grpc::start());
    tell(&rig, at(&[one.address, two.address]));
    becomes(&rig, "healthy", 2.0);
    let asked = two.asked.lock().expect("no thread panics with it")[0].clone();
    assert_eq!(asked.0, "shop.example");
    assert_eq!(&asked.1[..], b"\0\0\0\0\x0d\x0a\x0bshop.Orders");
    two.status.store(2, Relaxed);
    becomes(&rig, "unhealthy", 1.0);
    two.status.store(1, Relaxed);
    becomes(&rig, "unhealthy", 0.0);
}

#[test]
fn a_service_that_does_not_answer_is_ill_after_the_timeout() {
    let (well, _) = service("well");
    let silent = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        assert!(raw.closes(), "the check gives up");
    });
    let rig = Rig::start(
        "routes: [{ prefix: /, service: shop, stats_name: shop, \
            health_checks: [{ interval: 20ms, timeout: 50ms, health_check: { http: { path: /healthz } } }] }]",
    );
    tell(&rig, at(&[well.address(), silent.address()]));
    becomes(&rig, "healthy", 1.0);
    let failures = "nuncio_upstream_health_check_failures_total{upstream=\"shop\"}";
    wait::until("a failed check", Duration::from_secs(5), || {
        (rig.metric(failures) >= 1.0).then_some(())
    });
    assert_eq!(answering(&rig), names(["well"]));
}
