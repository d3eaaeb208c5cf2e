//! What every request through the gateway relies on.

use std::time::Duration;

use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::{Rig, config};

fn rig() -> (Rig, Echo) {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '{}' }}]",
        echo.address()
    ));
    (rig, echo)
}

#[test]
fn a_request_reaches_the_service_and_comes_back() {
    let (rig, _echo) = rig();
    let answer = rig.ask("GET /x/y?a=1 HTTP/1.1\nhost: shop", "");
    assert_eq!(answer.status, 200);
    let seen = &answer.json()["request"];
    assert_eq!(seen["url"]["path"], "/y");
    assert_eq!(seen["url"]["rawQuery"], "a=1");
    assert_eq!(seen["host"], "shop");
    assert_eq!(seen["headers"]["x-envoy-original-path"][0], "/x/y?a=1");
    assert_eq!(seen["headers"]["x-envoy-expected-rq-timeout-ms"][0], "3000");
    assert_eq!(seen["headers"]["x-forwarded-for"][0], "127.0.0.1");
    assert_eq!(seen["headers"]["x-forwarded-proto"][0], "http");
    assert_eq!(
        seen["headers"]["x-request-id"][0].as_str().map(str::len),
        Some(36)
    );
    assert_eq!(
        seen["headers"]["traceparent"][0].as_str().map(str::len),
        Some(55)
    );
    assert!(seen["headers"].get("connection").is_none());
    assert_eq!(answer.header("server"), ["envoy"]);
    assert_eq!(answer.header("x-envoy-upstream-service-time").len(), 1);
    assert_eq!(answer.header("date").len(), 1);
}

#[test]
fn what_no_route_matches_is_404_without_a_body() {
    let (rig, _echo) = rig();
    let answer = rig.ask("GET /z HTTP/1.1\nhost: shop", "");
    assert_eq!((answer.status, answer.body.len()), (404, 0));
    assert_eq!(
        rig.metric("nuncio_refusals_total{reason=\"no_route\"}"),
        1.0
    );
}

#[test]
fn connections_are_kept_on_both_sides() {
    let (rig, echo) = rig();
    let mut client = rig.connect();
    for _ in 0..20 {
        client.send("GET /x/ HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200);
    }
    assert_eq!(echo.connections(), 1);
    assert_eq!(
        rig.metric("nuncio_requests_total{route=\"r0.default\",class=\"2xx\"}"),
        20.0
    );
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    let requests: String = (0..20)
        .map(|n| format!("GET /x/{n} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    client.send(requests);
    for n in 0..20 {
        let answer = client.take_response().json();
        assert_eq!(answer["request"]["url"]["path"], format!("/{n}"));
    }
}

#[test]
fn bodies_pass_with_a_length_and_in_chunks() {
    let (rig, _echo) = rig();
    let answer = rig.ask("POST /x/ HTTP/1.1\nhost: a", "hello");
    assert_eq!(answer.json()["request"]["body"], "hello");
    assert_eq!(
        answer.json()["request"]["headers"]["content-length"][0],
        "5"
    );

    let mut client = rig.connect();
    client.send(
        "POST /x/ HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
         5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET /x/next HTTP/1.1\r\nhost: a\r\n\r\n",
    );
    let seen = client.take_response().json();
    assert_eq!(seen["request"]["body"], "hello world");
    assert_eq!(
        seen["request"]["headers"]["transfer-encoding"][0],
        "chunked"
    );
    assert_eq!(
        client.take_response().json()["request"]["url"]["path"],
        "/next"
    );
}

#[test]
fn chunked_answers_pass_and_the_connection_stays() {
    let upstream = Scripted::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: timeout=5\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    let mut client = rig.connect();
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        let answer = client.take_response();
        assert_eq!(answer.body, b"abcde");
        assert_eq!(answer.header("transfer-encoding"), ["chunked"]);
        assert!(answer.header("keep-alive").is_empty());
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_answer_that_ends_with_the_connection_is_passed_on() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    });
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(answer.body, b"until the end");
}

#[test]
fn head_and_bodyless_statuses_keep_the_connection_in_step() {
    let upstream = Scripted::start(|mut raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).into_owned();
            raw.send(match head.split(' ').nth(1) {
                Some("/head") => "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\n",
                Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 9\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            });
        }
    });
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, rewrite: '', service: '{}' }}]",
        upstream.address()
    ));
    let mut client = rig.connect();
    client.send("HEAD /head HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = String::from_utf8(client.take_until(b"\r\n\r\n")).expect("a head is text");
    assert!(head.contains("content-length: 42"), "{head}");
    for (path, status) in [("/204", 204), ("/304", 304), ("/", 200)] {
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        assert_eq!(client.take_response().status, status);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_client_that_expects_continue_gets_it() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    client
        .send("POST /x/ HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n");
    assert_eq!(
        client.take_until(b"\r\n\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.send("ok");
    let answer = client.take_response().json();
    assert_eq!(answer["request"]["body"], "ok");
    assert!(answer["request"]["headers"].get("expect").is_none());
}

#[test]
fn hop_by_hop_and_untrusted_headers_do_not_pass() {
    let (rig, _echo) = rig();
    let answer = rig.ask(
        "GET /x/ HTTP/1.1\nhost: a\nconnection: x-mine\nx-mine: 1\nx-forwarded-for: 6.6.6.6\n\
         x-envoy-original-path: /evil\nforwarded: for=6.6.6.6\nx-other: 2\nx-request-id: mine\nte: gzip",
        "",
    );
    let headers = &answer.json()["request"]["headers"];
    assert_eq!(headers["x-other"][0], "2");
    assert_eq!(headers["x-forwarded-for"][0], "127.0.0.1");
    assert_eq!(headers["x-envoy-original-path"][0], "/x/");
    assert_ne!(headers["x-request-id"][0], "mine");
    for gone in ["x-mine", "forwarded", "te"] {
        assert!(headers.get(gone).is_none(), "{gone} passed");
    }
}

#[test]
fn routes_change_headers_and_host() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "
        routes:
          - prefix: /x/
            service: '{0}'
            host_rewrite: other.example
            add_request_headers: {{ fruit: {{ value: orange }}, a: {{ value: new, append: false }} }}
            remove_request_headers: [zoo]
            add_response_headers: {{ koo: {{ value: KooK, append: false }}, zoo: {{ value: ZooZ }} }}
            remove_response_headers: [x-envoy-upstream-service-time]
        module: {{ server_name: me, suppress_envoy_headers: true, preserve_external_request_id: true }}
        ",
        echo.address()
    ));
    let answer = rig.ask(
        "GET /x/ HTTP/1.1\nhost: a\nzoo: Zoo\nkoo: Koot\na: old\nrequested-header: koo,zoo\nx-request-id: mine",
        "",
    );
    let json = answer.json();
    let seen = &json["request"];
    assert_eq!(seen["host"], "other.example");
    assert_eq!(seen["headers"]["x-forwarded-host"][0], "a");
    assert_eq!(seen["headers"]["fruit"][0], "orange");
    assert_eq!(seen["headers"]["a"], serde_json::json!(["new"]));
    assert_eq!(seen["headers"]["x-request-id"][0], "mine");
    assert!(seen["headers"].get("zoo").is_none());
    assert!(seen["headers"].get("x-envoy-original-path").is_none());
    assert_eq!(answer.header("koo"), ["KooK"]);
    assert_eq!(answer.header("zoo"), ["ZooZ"]);
    assert_eq!(answer.header("server"), ["me"]);
    assert!(answer.header("x-envoy-upstream-service-time").is_empty());
}

#[test]
fn endpoints_take_turns() {
    let (one, two) = (Echo::start("one"), Echo::start("two"));
    let mut config = crate::rig::config("routes: [{ prefix: /, service: shop }]");
    config
        .endpoints
        .tell("default", "shop", vec![one.address(), two.address()]);
    let rig = Rig::start("routes: []");
    rig.gateway.apply(&config, &[]);
    let mut client = rig.connect();
    for _ in 0..10 {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200);
    }
    assert_eq!((one.seen().len(), two.seen().len()), (5, 5));
}

#[test]
fn names_are_looked_up() {
    let echo = Echo::start("echo");
    let port = echo.address().port();
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /, service: 'localhost:{port}', auto_host_rewrite: true }}]"
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    assert_eq!(answer.json()["request"]["host"], "localhost");
}

#[test]
fn redirects_are_answered_here() {
    let rig = Rig::start("routes: [{ prefix: /r/, service: foobar.com, host_redirect: true }]");
    let answer = rig.ask("GET /r/anything?itworked=true HTTP/1.1\nhost: a", "");
    assert_eq!(answer.status, 301);
    assert_eq!(
        answer.header("location"),
        ["http://foobar.com/r/anything?itworked=true"]
    );
}

#[test]
fn trusted_proxies_tell_who_asks_and_how() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "{{ listener: 1, hosts: [{{ hostname: '*', requestPolicy: {{ insecure: {{ action: Redirect }} }} }}],
           routes: [{{ prefix: /x/, service: '{}' }}],
           module: {{ ip_deny: [{{ remote: 99.98.0.0/16 }}] }} }}",
        echo.address()
    ));
    let ask = |headers: &str| rig.ask(&format!("GET /x/y HTTP/1.1\nhost: a{headers}"), "");
    let redirected = ask("\nx-forwarded-proto: http");
    assert_eq!(redirected.status, 301);
    assert_eq!(redirected.header("location"), ["https://a/x/y"]);
    let answer = ask("\nx-forwarded-proto: https\nx-forwarded-for: 99.99.0.1\nx-request-id: mine");
    let seen = &answer.json()["request"]["headers"];
    assert_eq!(seen["x-forwarded-for"][0], "99.99.0.1, 127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"][0], "https");
    let denied = ask("\nx-forwarded-proto: https\nx-forwarded-for: 99.98.0.1");
    assert_eq!((denied.status, &*denied.body), (403, &b"access denied"[..]));
}

#[test]
fn what_does_nothing_yet_is_told() {
    let rig = Rig::start("routes: []");
    let text = "{ routes: [{ prefix: /, service: a }, { prefix: /t/, service: 'https://b' }],
        module: { grpc_stats: {}, ip_allow: [{ peer: x }] } }";
    let applied = rig.gateway.apply(&config(text), &[]);
    let told: Vec<String> = applied
        .problems
        .iter()
        .map(|problem| problem.what.clone())
        .collect();
    for what in [
        "`grpc_stats` does nothing yet",
        "`ip_allow`: `x` is no range of addresses such as `10.0.0.0/8`",
    ] {
        assert!(told.iter().any(|told| told == what), "{what} in {told:?}");
    }
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    client
        .send("GET /x/ HTTP/1.1\r\nhost: a\r\nkat-req-http-requested-backend-delay: 2000\r\n\r\n");
    let active = "nuncio_requests_active{route=\"r0.default\"}";
    testkit::wait::until("the request", Duration::from_secs(5), || {
        (rig.metric(active) == 1.0).then_some(())
    });
    drop(client);
    testkit::wait::until("its end", Duration::from_secs(1), || {
        (rig.metric(active) == 0.0).then_some(())
    });
    let open = "nuncio_upstream_connections{upstream=";
    testkit::wait::until("the upstream's end", Duration::from_secs(1), || {
        let text = rig.metrics.encode();
        let line = text.lines().find(|line| line.starts_with(open))?;
        line.ends_with(" 0").then_some(())
    });
    assert_eq!(
        rig.metric("nuncio_requests_total{route=\"r0.default\",class=\"aborted\"}"),
        1.0
    );
}
