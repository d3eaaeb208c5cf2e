//! Blocking queries against a double of Consul.

use std::net::SocketAddr;

use serde_json::json;
use testkit::consul::{Consul, instance};

use super::client::Instance;
use super::*;
use crate::meter::UpstreamMeters;
use crate::upstream::cluster::{Cluster, Spec};

/// Longest wait for an answer to have its effect.
const WAIT_MAX: Duration = Duration::from_secs(20);

fn cluster() -> Arc<Cluster> {
    let meters = UpstreamMeters::default();
    Arc::new(Cluster::new(Spec::plain("shop"), 1, meters))
}

/// Lets a cluster follow the service `shop`.
fn follow(agents: &Arc<Agents>, consul: &Consul, cluster: &Arc<Cluster>) {
    let question = Question {
        address: consul.address().to_string(),
        datacenter: Some("dc 1".to_owned()),
        service: "shop".to_owned(),
    };
    agents.ask(&question, Feed::plain(cluster, agents.runtime.clone()));
}

fn address(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 8000 + u16::from(last)).into()
}

fn now(cluster: &Cluster) -> Vec<SocketAddr> {
    let endpoints = cluster.endpoints();
    endpoints.iter().map(|endpoint| endpoint.address).collect()
}

async fn wait(done: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let waited = tokio::time::timeout(WAIT_MAX, async {
        while !done() {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{}", otherwise());
}

async fn becomes(cluster: &Cluster, expected: &[SocketAddr]) {
    wait(
        || now(cluster) == expected,
        || format!("{:?} is not {expected:?}", now(cluster)),
    )
    .await;
}

#[tokio::test]
async fn changes_come_at_once_and_are_asked_for_once() {
    let consul = Consul::start();
    consul.tell(
        "shop",
        vec![instance(address(2), 1), instance(address(1), 3)],
    );
    let agents = Agents::new(Handle::current(), Some("secret".to_owned()));
    let (one, two) = (cluster(), cluster());
    follow(&agents, &consul, &one);
    one.wait_known().await;
    assert_eq!(now(&one), [address(1), address(2)]);
    let seen = one.view();
    assert_eq!((seen[0].weight, seen[1].weight), (3, 1));
    follow(&agents, &consul, &two);
    assert_eq!(now(&two), [address(1), address(2)], "known at once");
    for turn in 3..13 {
        consul.tell("shop", vec![instance(address(turn), 1)]);
        becomes(&one, &[address(turn)]).await;
        becomes(&two, &[address(turn)]).await;
    }
    consul.tell("shop", Vec::new());
    becomes(&one, &[]).await;
    let queries = consul.queries();
    assert!(queries.len() <= 13, "{queries:?}");
    assert_eq!(
        queries[0],
        "/v1/health/service/shop?passing=1&dc=dc%201 token=secret"
    );
    assert_eq!(
        queries[1],
        "/v1/health/service/shop?passing=1&dc=dc%201&index=11&wait=60s token=secret"
    );
}

#[tokio::test]
async fn trouble_changes_nothing_and_ends() {
    let consul = Consul::start();
    consul.tell("shop", vec![instance(address(1), 1)]);
    let agents = Agents::new(Handle::current(), None);
    let cluster = cluster();
    follow(&agents, &consul, &cluster);
    becomes(&cluster, &[address(1)]).await;
    consul.fail(Some((500, "No cluster leader")));
    consul.tell("shop", vec![instance(address(2), 1)]);
    let asked = || consul.queries().len();
    let before = asked();
    wait(|| asked() > before, || "it is not asked again".to_owned()).await;
    assert_eq!(now(&cluster), [address(1)]);
    consul.fail(None);
    becomes(&cluster, &[address(2)]).await;
    // An empty list because of missing rights says nothing about the service.
    consul.filter(true);
    let before = asked();
    wait(|| asked() > before, || "it is not asked again".to_owned()).await;
    assert_eq!(now(&cluster), [address(2)]);
    consul.filter(false);
    consul.tell("shop", vec![instance(address(3), 1)]);
    becomes(&cluster, &[address(3)]).await;
}

#[tokio::test]
async fn an_index_that_goes_backwards_is_forgotten() {
    let consul = Consul::start();
    consul.tell("shop", vec![instance(address(1), 1)]);
    let agents = Agents::new(Handle::current(), None);
    let cluster = cluster();
    follow(&agents, &consul, &cluster);
    becomes(&cluster, &[address(1)]).await;
    wait(
        || consul.queries().len() == 2,
        || "it does not wait".to_owned(),
    )
    .await;
    consul.count_anew();
    wait(
        || {
            consul
                .queries()
                .iter()
                .filter(|query| !query.contains("index="))
                .count()
                == 2
        },
        || format!("{:?}", consul.queries()),
    )
    .await;
    consul.tell("shop", vec![instance(address(2), 1)]);
    becomes(&cluster, &[address(2)]).await;
}

#[tokio::test]
async fn nobody_who_answers_is_no_reason_to_wait() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let question = Question {
        address: format!("http://{}", free.local_addr().expect("its address")),
        datacenter: None,
        service: "shop".to_owned(),
    };
    drop(free);
    let agents = Agents::new(Handle::current(), None);
    let cluster = cluster();
    agents.ask(&question, Feed::plain(&cluster, Handle::current()));
    let known = tokio::time::timeout(Duration::from_secs(4), cluster.wait_known());
    known.await.expect("requests are told at once");
    assert_eq!(now(&cluster), []);
}

#[tokio::test]
async fn instances_are_read_as_consul_writes_them() {
    let mut own = instance(address(1), 200);
    own["Service"]["Address"] = json!("10.9.9.9");
    own["Service"]["Locality"] = json!({ "Region": "eu", "Zone": "eu-1" });
    let mut bare = instance(address(2), 100);
    bare["Service"]["Weights"] = json!(null);
    let instances: Vec<Instance> =
        serde_json::from_value(json!([own, bare, instance(address(2), 1)])).expect("instances");
    let members = client::members(instances).await;
    let told: Vec<(String, u32, Option<&str>)> = members
        .iter()
        .map(|member| {
            (
                member.address.to_string(),
                member.weight,
                member.zone.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("10.0.0.2:8002".to_owned(), 1, None),
            ("10.9.9.9:8001".to_owned(), 128, Some("eu-1")),
        ]
    );
}

#[test]
fn addresses_come_from_the_environment() {
    let variable = |name: &str| match name {
        "HOST_IP" => Some("10.1.2.3".to_owned()),
        "CONSUL_HTTP_ADDR" => Some("consul:8501".to_owned()),
        _ => None,
    };
    let at = |address: Option<&str>| {
        let resolver = ConsulResolver {
            address: address.map(str::to_owned),
            ..ConsulResolver::default()
        };
        question(&resolver, "shop", variable).address
    };
    assert_eq!(at(Some("${HOST_IP}:8500")), "10.1.2.3:8500");
    assert_eq!(at(Some("http://$HOST_IP:8500")), "http://10.1.2.3:8500");
    assert_eq!(at(Some("a$")), "a$");
    assert_eq!(at(Some("${NONE}:1$")), "${NONE}:1$");
    assert_eq!(at(None), "consul:8501");
}

#[test]
fn the_pace_keeps_to_the_rules() {
    let mut pace = Pace::default();
    assert_eq!(pace.answered(Some(0)), Wait::SinceBegin(EVERY_MIN));
    assert_eq!(pace.index, 1, "never 0");
    pace.answered(Some(40));
    assert_eq!(pace.index, 40);
    pace.answered(Some(39));
    assert_eq!(pace.index, 0, "backwards");
    assert_eq!(pace.answered(None), Wait::SinceBegin(EVERY_WITHOUT_INDEX));
    pace.answered(Some(7));
    let waits: Vec<Wait> = (0..8).map(|_| pace.failed(1.0)).collect();
    let seconds = [1, 2, 4, 8, 16, 32, 60, 60].map(|s| Wait::FromNow(Duration::from_secs(s)));
    assert_eq!(waits, seconds);
    assert_eq!(pace.index, 0, "who answers next may count anew");
    pace.answered(Some(7));
    assert_eq!(pace.failed(0.5), Wait::FromNow(AGAIN / 2));
    for _ in 0..100 {
        pace.failed(1.0);
    }
    assert_eq!(pace.failed(1.0), Wait::FromNow(AGAIN_MAX));
}
