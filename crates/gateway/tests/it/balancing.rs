//! Which endpoint requests go to: weights, keys, and endpoints that fail.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use gateway::discovery::Teller;
use model::endpoints::{Endpoint, ServicePort};
use testkit::echo::Echo;
use testkit::scripted::Scripted;
use testkit::wait;

use crate::rig::Rig;

pub(crate) const LONG: Duration = Duration::from_secs(8);

/// Tells the gateway where the service `shop` is.
pub(crate) fn tell(rig: &Rig, endpoints: impl IntoIterator<Item = Endpoint>) {
    let port = ServicePort {
        endpoints: endpoints.into_iter().collect(),
        ..ServicePort::default()
    };
    let directory = rig.gateway.directory();
    directory.tell_service(Teller::Cluster, "default", "shop", Some(vec![port]));
}

pub(crate) fn at(addresses: &[SocketAddr]) -> Vec<Endpoint> {
    addresses.iter().map(|one| Endpoint::at(*one)).collect()
}

fn route(more: &str) -> String {
    format!("routes: [{{ prefix: /, service: shop{more} }}]")
}

fn echoes(count: usize) -> Vec<Echo> {
    let start = |index| Echo::start(&format!("echo{index}"));
    (0..count).map(start).collect()
}

fn addresses(echoes: &[Echo]) -> Vec<SocketAddr> {
    echoes.iter().map(Echo::address).collect()
}

/// Asks with these headers and returns which backend answered.
#[track_caller]
fn asked(rig: &Rig, headers: &str) -> String {
    let answer = rig.ask(&format!("GET / HTTP/1.1\nhost: a{headers}"), "");
    assert_eq!(answer.status, 200);
    let backend = &answer.json()["backend"];
    backend.as_str().expect("a name").to_owned()
}

#[test]
fn weights_are_kept_exactly() {
    let rig = Rig::start(&route(""));
    let echoes = echoes(3);
    let weights = [1, 2, 1];
    tell(
        &rig,
        echoes.iter().zip(weights).map(|(echo, weight)| Endpoint {
            weight,
            ..Endpoint::at(echo.address())
        }),
    );
    let mut counts = BTreeMap::new();
    for _ in 0..20 {
        *counts.entry(asked(&rig, "")).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [5, 10, 5]);
}

#[test]
fn the_own_zone_is_preferred() {
    let rig = Rig::start(
        "module: { zone: here }
routes: [{ prefix: /, service: shop, load_balancer: { policy: least_request, zone_preference: {} } }]",
    );
    let echoes = echoes(3);
    let zones = ["there", "here", "there"];
    tell(
        &rig,
        echoes.iter().zip(zones).map(|(echo, zone)| Endpoint {
            zone: Some(zone.into()),
            ..Endpoint::at(echo.address())
        }),
    );
    let seen: BTreeSet<String> = (0..12).map(|_| asked(&rig, "")).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["echo1"]);
}

#[test]
fn a_header_decides_and_moves_only_when_its_endpoint_leaves() {
    for policy in ["ring_hash", "maglev"] {
        let rig = Rig::start(&route(&format!(
            ", load_balancer: {{ policy: {policy}, header: x-user }}"
        )));
        let echoes = echoes(4);
        tell(&rig, at(&addresses(&echoes)));
        let of = |user: usize| asked(&rig, &format!("\nx-user: {user}"));
        let before: Vec<String> = (0..12).map(of).collect();
        assert!(before.iter().collect::<BTreeSet<_>>().len() > 1);
        let again: Vec<String> = (0..12).map(of).collect();
        assert_eq!(before, again, "{policy}");

        tell(&rig, at(&addresses(&echoes)[..3]));
        if policy == "ring_hash" {
            for (user, before) in before.iter().enumerate().filter(|(_, b)| *b != "echo3") {
                assert_eq!(of(user), *before, "user {user}");
            }
        }
        // Without the header it is any.
        let any: BTreeSet<String> = (0..24).map(|_| asked(&rig, "")).collect();
        assert!(any.len() > 1, "{policy}");
    }
}

#[test]
fn a_cookie_is_made_once_and_keeps_the_client_where_it_is() {
    let with = |more: &str| {
        route(&format!(
            ", load_balancer: {{ policy: maglev, cookie: {{ name: sticky{more} }} }}"
        ))
    };
    let rig = Rig::start(&with(", path: /, ttl: 60s"));
    let echoes = echoes(4);
    tell(&rig, at(&addresses(&echoes)));
    for _ in 0..4 {
        let first = rig.ask("GET / HTTP/1.1\nhost: a", "");
        let cookie = first.header("set-cookie");
        let [cookie] = cookie[..] else {
            panic!("one cookie, not {cookie:?}")
        };
        let (pair, attributes) = cookie.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Max-Age=60; Path=/; HttpOnly");
        for _ in 0..6 {
            let answer = rig.ask(&format!("GET / HTTP/1.1\nhost: a\ncookie: b=c; {pair}"), "");
            assert_eq!(answer.json()["backend"], first.json()["backend"]);
            assert!(answer.header("set-cookie").is_empty());
        }
    }

    rig.apply(&with(""));
    let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert!(answer.header("set-cookie").is_empty(), "no ttl, no cookie");
}

#[test]
fn the_clients_address_decides_as_trusted_proxies_tell_it() {
    let balancer = ", load_balancer: { policy: ring_hash, source_ip: true }";
    let rig = Rig::start(&format!(
        "listener: 1\nhosts: [{{ hostname: '*', requestPolicy: {{ insecure: {{ action: Route }} }}, mappingSelector: {{}} }}]\n{}",
        route(balancer)
    ));
    let echoes = echoes(4);
    tell(&rig, at(&addresses(&echoes)));
    let of = |last: usize| asked(&rig, &format!("\nx-forwarded-for: 10.9.8.7, 10.0.0.{last}"));
    let first: Vec<String> = (0..12).map(of).collect();
    let again: Vec<String> = (0..12).map(of).collect();
    assert_eq!(first, again);
    assert!(first.into_iter().collect::<BTreeSet<_>>().len() > 1);

    let rig = Rig::start(&route(balancer));
    tell(&rig, at(&addresses(&echoes)));
    let forged: BTreeSet<String> = (0..12)
        .map(|last| asked(&rig, &format!("\nx-forwarded-for: 10.0.0.{last}")))
        .collect();
    assert_eq!(forged.len(), 1, "nobody tells where he comes from");
}

#[test]
fn a_dead_endpoint_among_five_costs_no_request() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let dead = free.local_addr().expect("its address");
    drop(free);
    for more in [
        "",
        ", load_balancer: { policy: random }",
        ", load_balancer: { policy: ring_hash, header: x-user }",
        ", retry_policy: { retry_on: retriable-4xx }",
    ] {
        let rig = Rig::start(&route(more));
        let echoes = echoes(4);
        let mut all = addresses(&echoes);
        all.push(dead);
        tell(&rig, at(&all));
        for user in 0..20 {
            let request = format!("POST / HTTP/1.1\nhost: a\nx-user: {user}");
            assert_eq!(rig.ask(&request, "body").status, 200, "{more}");
        }
    }
    let rig = Rig::start(&route(", stats_name: dead"));
    tell(&rig, at(&[dead, dead]));
    assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 503);
}

#[test]
fn a_bad_endpoint_is_put_aside_after_so_many_failures_and_comes_back() {
    const BAD: &str = "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n";
    let bad = Scripted::answering(BAD);
    let echoes = echoes(4);
    let mut all = addresses(&echoes);
    all.push(bad.address());
    let outlier =
        "outlier_detection: { consecutive_5xx: 3, interval: 50ms, base_ejection_time: 400ms }";
    let rig = Rig::start(&route(&format!(", stats_name: bad, {outlier}")));
    tell(&rig, at(&all));
    let ejected = "nuncio_upstream_ejections_total{upstream=\"bad\",reason=\"consecutive_5xx\"}";
    let mut statuses = Vec::new();
    while rig.metric(ejected) < 1.0 {
        statuses.push(rig.ask("GET / HTTP/1.1\nhost: a", "").status);
        assert!(statuses.len() <= 15, "{statuses:?}");
    }
    let failed = statuses.iter().filter(|status| **status == 500).count();
    assert_eq!(failed, 3);
    let aside = "nuncio_upstream_endpoints{upstream=\"bad\",state=\"ejected\"}";
    assert_eq!(rig.metric(aside), 1.0);
    for _ in 0..10 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    }
    wait::until("the endpoint to come back", LONG, || {
        (rig.metric(aside) == 0.0).then_some(())
    });

    // With retries no client sees it at all.
    let retries = "retry_policy: { retry_on: 5xx, num_retries: 2 }";
    let rig = Rig::start(&route(&format!(", {outlier}, {retries}")));
    tell(&rig, at(&all));
    for _ in 0..30 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    }
}

#[test]
fn a_slow_endpoint_is_put_aside_by_its_timeouts() {
    let slow = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        assert!(raw.closes(), "the gateway gives up");
    });
    let echoes = echoes(4);
    let mut all = addresses(&echoes);
    all.push(slow.address());
    let rig = Rig::start(&route(
        ", outlier_detection: { consecutive_gateway_failure: 2 }, \
         retry_policy: { retry_on: 5xx, num_retries: 1, per_try_timeout: 100ms }",
    ));
    tell(&rig, at(&all));
    for _ in 0..30 {
        assert_eq!(rig.ask("GET / HTTP/1.1\nhost: a", "").status, 200);
    }
    assert_eq!(slow.connections(), 2, "two tries, then none for 30 seconds");

    // The route's own time counts too.
    let rig = Rig::start(&route(
        ", timeout_ms: 100, outlier_detection: { consecutive_5xx: 1 }",
    ));
    tell(&rig, at(&all));
    let late = (0..20)
        .filter(|_| rig.ask("GET / HTTP/1.1\nhost: a", "").status == 504)
        .count();
    assert_eq!(late, 1);
}

#[test]
fn clients_that_are_slow_themselves_put_nobody_aside() {
    let rig = Rig::start(&route(
        ", stats_name: slow, timeout_ms: 100, outlier_detection: { consecutive_5xx: 1 }",
    ));
    let echoes = echoes(2);
    tell(&rig, at(&addresses(&echoes)));
    for _ in 0..2 {
        let mut client = rig.connect();
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf");
        assert_eq!(client.take_response().status, 504);
    }
    assert_eq!(
        rig.metric("nuncio_upstream_endpoints{upstream=\"slow\",state=\"healthy\"}"),
        2.0
    );
}

#[test]
fn the_last_endpoint_is_never_put_aside() {
    const BAD: &str = "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
    let bad = Scripted::answering(BAD);
    let rig = Rig::start(&route(
        ", outlier_detection: { consecutive_5xx: 1, max_ejection_percent: 100 }",
    ));
    tell(&rig, at(&[bad.address()]));
    for _ in 0..5 {
        let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
        assert_eq!(
            (answer.status, answer.body.len()),
            (503, 0),
            "its own answer"
        );
    }
}
