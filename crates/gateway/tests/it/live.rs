//! Changes while requests flow: configurations, stops, access lines.

use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use gateway::backend::{Answering, Call, Handler};
use gateway::body::ResponseBody;
use gateway::listener::Limits;
use http::Response;
use observe::access::AccessLog;
use observe::metrics::Metrics;
use testkit::echo::Echo;
use testkit::raw::Raw;

use crate::rig::{Rig, config};

#[test]
fn a_hundred_configurations_pass_under_a_connection_with_no_error() {
    let echo = Echo::start("echo");
    let text = |n: usize| {
        format!(
            "routes: [{{ prefix: /x/, service: '{0}', add_response_headers: {{ n: {{ value: '{n}' }} }} }},
                      {{ name: extra{n}, prefix: /extra{n}/, service: '{0}' }}]",
            echo.address()
        )
    };
    let rig = Rig::start(&text(0));
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let asking = |mut client: Raw| {
            let mut last = 0;
            while !stop.load(Relaxed) {
                client.send("GET /x/ HTTP/1.1\r\nhost: a\r\n\r\n");
                let answer = client.take_response();
                assert_eq!(answer.status, 200);
                let n: usize = answer.header("n")[0].parse().expect("a number");
                assert!(n >= last, "configuration {n} after {last}");
                last = n;
                count.fetch_add(1, Relaxed);
            }
        };
        for _ in 0..2 {
            let client = rig.connect();
            scope.spawn(move || asking(client));
        }
        for n in 1..=100 {
            let before = count.load(Relaxed);
            rig.apply(&text(n));
            testkit::wait::until("a request", Duration::from_secs(5), || {
                (count.load(Relaxed) > before).then_some(())
            });
        }
        stop.store(true, Relaxed);
    });
    // The cluster did not change, so its connections stayed; the routes that are gone are no longer reported.
    assert!(
        echo.connections() <= 2,
        "{} connections",
        echo.connections()
    );
    assert!(!rig.metrics.encode().contains("extra99.default"));
    assert!(rig.metrics.encode().contains("extra100.default"));
}

#[test]
fn listeners_open_and_close_with_the_configuration() {
    let echo = Echo::start("echo");
    let text = format!("routes: [{{ prefix: /, service: '{}' }}]", echo.address());
    let rig = Rig::start(&text);
    let (one, two) = (testkit::port::stable(), testkit::port::stable());
    let listen = |port: u16| {
        model::Object {
        name: format!("l{port}"),
        namespace: "default".into(),
        labels: Default::default(),
        origin: model::Origin::source("test"),
        spec: serde_json::from_value(serde_json::json!({
            "port": port, "protocol": "HTTP", "securityModel": "INSECURE", "hostBinding": {"namespace": {"from": "ALL"}},
        }))
        .expect("a listener"),
    }
    };
    let mut wanted = config(&text);
    wanted.listeners = vec![listen(one.port()), listen(two.port())];
    let mut old = rig.connect();
    rig.gateway.apply(&wanted, &[]);
    assert_eq!(rig.gateway.addresses().len(), 2);
    for address in [one, two] {
        assert_eq!(
            testkit::raw::http(address, "GET / HTTP/1.1\nhost: a", "").status,
            200
        );
    }
    // The default address is closed, its idle connection ended.
    assert!(old.closes());
    wanted.listeners.pop();
    let mut kept = Raw::connect(one);
    rig.gateway.apply(&wanted, &[]);
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(kept.take_response().status, 200);
    testkit::wait::until("the port to close", Duration::from_secs(5), || {
        std::net::TcpStream::connect(two).is_err().then_some(())
    });
}

#[test]
fn a_port_that_is_taken_is_told_and_the_rest_runs() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let echo = Echo::start("echo");
    let metrics = Metrics::default();
    let gateway = gateway::Gateway::start(gateway::Options {
        addresses: vec![
            taken.local_addr().expect("its address"),
            "127.0.0.1:0".parse().expect("an address"),
        ],
        threads: 1,
        access: AccessLog::off(&metrics),
        metrics,
        limits: Limits::default(),
        ordered: None,
    })
    .expect("a gateway starts");
    let applied = gateway.apply(
        &config(&format!(
            "routes: [{{ prefix: /, service: '{}' }}]",
            echo.address()
        )),
        &[],
    );
    assert_eq!(applied.deaf.len(), 1);
    assert_eq!(applied.deaf[0].0, taken.local_addr().expect("its address"));
    assert_eq!(
        testkit::raw::http(gateway.addresses()[0], "GET / HTTP/1.1\nhost: a", "").status,
        200
    );
}

#[test]
fn a_stop_lets_requests_finish() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    ));
    let mut idle = rig.connect();
    idle.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(idle.take_response().status, 200);
    let mut slow = rig.connect();
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 500\r\n\r\n");
    testkit::wait::until("the slow request", Duration::from_secs(5), || {
        (rig.metric("nuncio_requests_active{route=\"r0.default\"}") == 1.0).then_some(())
    });
    let address = rig.address;
    let stopping = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(rig.gateway.shutdown())
    });
    assert!(idle.closes());
    let answer = slow.take_response();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), ["close"]);
    assert!(slow.closes());
    assert!(
        stopping.join().expect("no panic"),
        "all requests have finished"
    );
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let echo = Echo::start("echo");
    let mut limits = Limits::default();
    limits.timeouts.drain = Duration::from_millis(200);
    let rig = Rig::with(
        &format!("routes: [{{ prefix: /, service: '{}' }}]", echo.address()),
        limits,
        &[],
    );
    let mut slow = rig.connect();
    slow.send("GET / HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 2900\r\n\r\n");
    testkit::wait::until("the slow request", Duration::from_secs(5), || {
        (rig.metric("nuncio_requests_active{route=\"r0.default\"}") == 1.0).then_some(())
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    assert!(!runtime.block_on(rig.gateway.shutdown()));
    assert!(slow.closes());
}

#[test]
fn every_request_writes_its_line_when_its_answer_has_ended() {
    let echo = Echo::start("echo");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let metrics = Metrics::default();
    let access = AccessLog::start(writer, &metrics).expect("a thread");
    let rig = Rig::observed(
        &format!(
            "routes: [{{ name: shop, prefix: /x/, service: '{}' }}]",
            echo.address()
        ),
        Limits::default(),
        &[],
        metrics,
        access,
    );
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request =
        format!("POST /x/y?z HTTP/1.1\nhost: Shop:80\nuser-agent: me\ntraceparent: {traceparent}");
    let answer = rig.ask(&request, "hello");
    let seen = answer.json()["request"]["headers"]["traceparent"][0]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(
        seen.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && seen != traceparent,
        "{seen}"
    );
    let mut lines = BufReader::new(reader).lines();
    let mut line = || -> serde_json::Value {
        let line = lines.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    };
    let said = line();
    for (key, value) in [
        ("method", "POST"),
        ("authority", "Shop:80"),
        ("path", "/x/y?z"),
        ("protocol", "HTTP/1.1"),
        ("route", "shop.default"),
        ("user_agent", "me"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ] {
        assert_eq!(said[key], value, "{said}");
    }
    assert_eq!(
        (&said["status"], &said["received"]),
        (&200.into(), &5.into())
    );
    assert_eq!(said["sent"], answer.body.len());
    assert_eq!(said["upstream"], echo.address().to_string());
    assert!(said.get("reason").is_none(), "{said}");

    rig.ask("GET /none HTTP/1.1\nhost: a", "");
    assert_eq!(line()["reason"], "no_route");
    rig.ask("GET / HTTP/1.1\nhost: a\nhost: a", "");
    assert_eq!(line()["reason"], "malformed");
    let mut client = rig.connect();
    client
        .send("GET /x/ HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 2000\r\n\r\n");
    testkit::wait::until("the request", Duration::from_secs(5), || {
        (rig.metric("nuncio_requests_active{route=\"shop.default\"}") == 1.0).then_some(())
    });
    drop(client);
    let said = line();
    assert_eq!(
        (&said["reason"], &said["status"]),
        (&"client_closed".into(), &0.into())
    );
}

struct Hello;

impl Handler for Hello {
    fn handle(&self, call: Call) -> Answering {
        Box::pin(async move {
            let (head, body) = call.request.into_parts();
            let body = match body.collect_max(16).await {
                Ok(body) => body,
                Err(_) => {
                    let mut response = Response::new(ResponseBody::empty());
                    *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                    return response;
                }
            };
            let said = format!(
                "{:?} {} {} {}",
                call.params,
                call.authority,
                head.uri,
                String::from_utf8_lossy(&body)
            );
            Response::new(ResponseBody::full(said))
        })
    }
}

#[test]
fn handlers_answer_publish_routes() {
    let handler: Arc<dyn Handler> = Arc::new(Hello);
    let rig = Rig::with(
        "publish: [{ route: 'POST /events/{kind}', topic: t }]",
        Limits::default(),
        &[handler],
    );
    let answer = rig.ask("POST /events/orders?x=1 HTTP/1.1\nhost: Shop", "hi");
    assert_eq!(answer.status, 200);
    let said = String::from_utf8_lossy(&answer.body);
    assert_eq!(said, r#"[("kind", "orders")] shop /events/orders?x=1 hi"#);
    assert_eq!(answer.header("server"), ["envoy"]);
    let large = rig.ask("POST /events/orders HTTP/1.1\nhost: a", &"x".repeat(17));
    assert_eq!(large.status, 413);
    assert_eq!(
        rig.ask("GET /events/orders HTTP/1.1\nhost: a", "").status,
        404
    );
    assert_eq!(
        rig.metric("nuncio_requests_total{route=\"r0.default\",class=\"2xx\"}"),
        1.0
    );
}
