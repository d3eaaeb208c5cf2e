//! `nuncio serve` as an operator meets it: live changes, bad objects, roles, both doors.

use std::fs;
use std::time::Duration;

use testkit::echo::Echo;
use testkit::nuncio::{Nuncio, Setup};
use testkit::raw::{Raw, http};
use testkit::wait;

/// Longest wait for a change to be live.
const LIVE: Duration = Duration::from_secs(20);

fn setup() -> Setup {
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
}

fn status_of(nuncio: &Nuncio, path: &str) -> u16 {
    http(
        nuncio.gateway(),
        &format!("GET {path} HTTP/1.1\nhost: shop.example"),
        "",
    )
    .status
}

fn admin(nuncio: &Nuncio, path: &str) -> serde_json::Value {
    http(
        nuncio.admin(),
        &format!("GET {path} HTTP/1.1\nhost: admin"),
        "",
    )
    .json()
}

#[test]
fn a_hundred_changes_disturb_no_request() {
    let echo = Echo::start("orders");
    let routes = |generation: usize| {
        let service = echo.address();
        format!(
            "routes:\n- {{ prefix: /, service: \"{service}\", add_request_headers: {{ x-generation: {{ value: \"{generation}\" }} }} }}\n"
        )
    };
    let nuncio = setup().file("nuncio.yaml", &routes(0)).start();
    let file = nuncio.config().join("nuncio.yaml");
    let mut held = Raw::connect(nuncio.gateway());
    let mut generation_seen = || {
        held.send("GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        let response = held.take_response();
        assert_eq!(response.status, 200, "{}", response.head);
        let seen = response.json()["request"]["headers"]["x-generation"][0].clone();
        seen.as_str()
            .and_then(|text| text.parse::<usize>().ok())
            .expect("the echo tells the header")
    };
    assert_eq!(generation_seen(), 0);
    for generation in 1..=100 {
        fs::write(&file, routes(generation)).expect("the folder takes files");
        // Requests flow on the one connection until the change is live.
        wait::until("the change to be live", LIVE, || {
            (generation_seen() == generation).then_some(())
        });
    }
}

#[test]
fn a_bad_object_is_refused_alone_and_named_with_its_line() {
    let echo = Echo::start("s");
    let service = echo.address();
    let yaml = format!(
        "routes:\n- {{ prefix: /good/, service: \"{service}\" }}\n- {{ prefx: /bad/, service: \"{service}\" }}\n- {{ prefix: /also/, service: \"{service}\" }}\n"
    );
    let nuncio = setup().file("nuncio.yaml", &yaml).start();
    assert_eq!(status_of(&nuncio, "/good/"), 200);
    assert_eq!(status_of(&nuncio, "/also/"), 200);
    assert_eq!(status_of(&nuncio, "/bad/"), 404);
    let problems = admin(&nuncio, "/nuncio/v0/status")["configuration"]["problems"].clone();
    let bad = problems
        .as_array()
        .expect("a list")
        .iter()
        .find(|p| p["severity"] == "error")
        .expect("an error");
    assert_eq!(
        (&bad["line"], &bad["hint"]),
        (&3.into(), &"did you mean `prefix`?".into()),
        "{bad}"
    );
}

#[test]
fn the_last_good_version_goes_on_when_an_object_turns_bad() {
    let echo = Echo::start("s");
    let service = echo.address();
    let mapping = |more: &str| {
        format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: m }}\nspec: {{ hostname: \"*\", prefix: /m/, service: \"{service}\"{more} }}\n"
        )
    };
    let nuncio = setup().file("m.yaml", &mapping("")).start();
    assert_eq!(status_of(&nuncio, "/m/"), 200);
    fs::write(
        nuncio.config().join("m.yaml"),
        mapping(", timeout_ms: soon"),
    )
    .expect("the folder takes files");
    wait::until("the problem to be told", LIVE, || {
        let status = admin(&nuncio, "/nuncio/v0/status");
        let problems = status["configuration"]["problems"].as_array()?.clone();
        problems
            .iter()
            .any(|problem| problem["severity"] == "error")
            .then_some(())
    });
    assert_eq!(status_of(&nuncio, "/m/"), 200);
}

#[test]
fn what_a_cluster_would_have_said_counts_from_a_file() {
    let echo = Echo::start("orders");
    let (ip, port) = (echo.address().ip(), echo.address().port());
    let objects = format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: orders, namespace: shop }}
spec: {{ ports: [{{ port: 80, targetPort: {port} }}] }}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: orders-1, namespace: shop, labels: {{ kubernetes.io/service-name: orders }} }}
addressType: IPv4
ports: [{{ port: {port} }}]
endpoints: [{{ addresses: ["{ip}"], conditions: {{ ready: true }} }}]
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: {{ name: orders, namespace: shop }}
spec: {{ prefix: /orders/, service: orders, host: shop.example }}
"#
    );
    let nuncio = setup().file("cluster.yaml", objects.trim_start()).start();
    assert_eq!(status_of(&nuncio, "/orders/1"), 200, "{}", nuncio.log());
    assert_eq!(echo.seen()[0]["url"]["path"], "/1");
}

#[test]
fn each_role_runs_alone() {
    let echo = Echo::start("s");
    let yaml = format!(
        "routes: [{{ prefix: /, service: \"{}\" }}]\n",
        echo.address()
    );
    let gateway = setup()
        .file("nuncio.yaml", &yaml)
        .argument("--role")
        .argument("gateway")
        .start();
    assert_eq!(status_of(&gateway, "/"), 200);
    assert_eq!(
        admin(&gateway, "/nuncio/v0/status")["topics"],
        serde_json::Value::Null
    );
    let broker = setup()
        .file("nuncio.yaml", "topics: { a: { partitions: 2 } }\n")
        .argument("--role")
        .argument("broker")
        .start();
    let topics = admin(&broker, "/nuncio/v0/status")["topics"].clone();
    assert!(
        topics
            .as_array()
            .expect("a list")
            .iter()
            .any(|topic| topic["name"] == "a"),
        "{topics}"
    );
}

#[test]
fn it_says_when_it_is_ready_what_it_counts_and_why_a_route_wins() {
    let echo = Echo::start("s");
    let yaml = format!(
        "routes: [{{ prefix: /a/, service: \"{}\" }}]\n",
        echo.address()
    );
    let mut nuncio = setup().file("nuncio.yaml", &yaml).start();
    let alive = http(
        nuncio.admin(),
        "GET /ambassador/v0/check_alive HTTP/1.1\nhost: admin",
        "",
    );
    assert_eq!(alive.status, 200);
    assert_eq!(status_of(&nuncio, "/a/b"), 200);
    let openmetrics = "GET /metrics HTTP/1.1\nhost: admin\naccept: application/openmetrics-text";
    let metrics = http(nuncio.admin(), openmetrics, "");
    let metrics = String::from_utf8(metrics.body).expect("text");
    assert!(metrics.contains("nuncio_"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    let explained = admin(&nuncio, "/nuncio/v0/explain?url=http://shop.example/a/b");
    assert!(explained["outcome"]["routed"].is_array(), "{explained}");
    nuncio.stop();
}
