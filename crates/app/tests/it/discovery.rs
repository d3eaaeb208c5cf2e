//! Endpoints come and go under a running gateway.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use testkit::consul::{Consul, instance};
use testkit::echo::Echo;
use testkit::nuncio::{Nuncio, Setup};
use testkit::raw::{Raw, http};
use testkit::tls::Ca;
use testkit::wait;

/// Longest wait for a change to be live; how long it took is looked at apart.
const LIVE: Duration = Duration::from_secs(20);

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { ports: [{ name: http, port: 80, targetPort: web }] }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: orders, namespace: shop }
spec: { prefix: /, hostname: '*', service: orders }
---
apiVersion: getambassador.io/v3alpha1
kind: Host
metadata: { name: all }
spec: { hostname: '*', requestPolicy: { insecure: { action: Route } } }
";

/// A slice with these echoes, each with its conditions.
fn slices(members: &[(&Echo, &str)]) -> String {
    let mut text = String::new();
    for (index, (echo, conditions)) in members.iter().enumerate() {
        let (ip, port) = (echo.address().ip(), echo.address().port());
        text.push_str(&format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: orders-{index}, namespace: shop, labels: {{ kubernetes.io/service-name: orders }} }}
addressType: IPv4
ports: [{{ name: http, port: {port}, protocol: TCP }}]
endpoints: [{{ addresses: ['{ip}'], conditions: {{ {conditions} }}, zone: a }}]
"
        ));
    }
    text
}

const READY: &str = "ready: true, serving: true, terminating: false";
const LEAVING: &str = "ready: false, serving: true, terminating: true";

fn start(slices: &str) -> Nuncio {
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("cluster.yaml", SERVICE)
        .file("slices.yaml", slices)
        .argument("--role")
        .argument("gateway")
        .start()
}

/// Puts another text in the place of the slices, at once.
fn replace(nuncio: &Nuncio, text: &str) {
    let folder = nuncio.config();
    fs::write(folder.join("next"), text).expect("the folder takes files");
    fs::rename(folder.join("next"), folder.join("slices.yaml")).expect("a rename");
}

fn version(nuncio: &Nuncio) -> u64 {
    let status = http(
        nuncio.admin(),
        "GET /nuncio/v0/status HTTP/1.1\nhost: admin",
        "",
    );
    let version = status.json()["configuration"]["version"].clone();
    version.as_u64().expect("a number")
}

#[test]
fn endpoints_come_and_go_under_load_and_no_request_fails() {
    let echoes: Vec<Echo> = ["a", "b", "c", "d", "e"].map(Echo::start).into();
    let ready = |indices: &[usize]| -> String {
        let members: Vec<(&Echo, &str)> = indices.iter().map(|i| (&echoes[*i], READY)).collect();
        slices(&members)
    };
    let nuncio = start(&ready(&[0, 1, 2]));
    let first_version = version(&nuncio);
    let (stop, gateway) = (AtomicBool::new(false), nuncio.gateway());
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Raw::connect(gateway);
                    let mut count = 0;
                    while !stop.load(Relaxed) {
                        client.send("GET /x HTTP/1.1\r\nhost: shop.example\r\n\r\n");
                        let answer = client.take_response();
                        assert_eq!(answer.status, 200, "{}", answer.head);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for turn in 0..30 {
            // One leaves and the one after next comes.
            let members = [turn % 5, (turn + 1) % 5, (turn + 2) % 5];
            let newest = &echoes[members[2]];
            let (before, begun) = (newest.connections(), Instant::now());
            replace(&nuncio, &ready(&members));
            wait::until("the new endpoint to be asked", LIVE, || {
                (turn == 0 || newest.connections() > before).then_some(())
            });
            slowest = slowest.max(begun.elapsed());
        }
        stop.store(true, Relaxed);
        for client in clients {
            assert!(client.join().expect("no request fails") > 30);
        }
    });
    assert_eq!(version(&nuncio), first_version, "no table is built for it");
    // Reading twice to see a file at rest is in it; the machine may be busy.
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
}

#[test]
fn who_leaves_is_asked_only_when_nobody_else_is_there() {
    let (one, two) = (Echo::start("one"), Echo::start("two"));
    let nuncio = start(&slices(&[(&one, READY), (&two, LEAVING)]));
    let ask = || {
        let answer = http(nuncio.gateway(), "GET / HTTP/1.1\nhost: shop.example", "");
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.json()["backend"].as_str().map(str::to_owned)
    };
    for _ in 0..5 {
        assert_eq!(ask().as_deref(), Some("one"));
    }
    replace(&nuncio, &slices(&[(&two, LEAVING)]));
    wait::until("the last one to be asked", LIVE, || {
        (ask().as_deref() == Some("two")).then_some(())
    });
}

#[test]
fn consul_behind_tls_is_asked_once_it_is_trusted() {
    let echo = Echo::start("one");
    let (ca, stranger) = (Ca::new(), Ca::new());
    // It has a certificate and wants one.
    let consul = Consul::start_tls(ca.sign("127.0.0.1").server(Some(&ca)));
    consul.tell("orders", vec![instance(echo.address(), 1)]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let put = |name: &str, text: &str| fs::write(path(name), text).expect("the folder takes files");
    let shown = ca.sign("gateway");
    put("chain", &shown.chain);
    put("key", &shown.key);
    put("ca", &stranger.pem());
    let variable = |name: &str| path(name).display().to_string();
    let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file(
            "consul.yaml",
            &format!(
                "apiVersion: getambassador.io/v3alpha1
kind: ConsulResolver
metadata: {{ name: consul-dc1 }}
spec: {{ address: 'https://{}', datacenter: dc1 }}
---
routes: [{{ prefix: /, service: orders, resolver: consul-dc1 }}]
",
                consul.address()
            ),
        )
        .argument("--role")
        .argument("gateway")
        .environment("CONSUL_CACERT", &variable("ca"))
        .environment("CONSUL_CLIENT_CERT", &variable("chain"))
        .environment("CONSUL_CLIENT_KEY", &variable("key"))
        .start();
    let ask = || {
        let answer = http(nuncio.gateway(), "GET / HTTP/1.1\nhost: shop.example", "");
        answer.status
    };
    assert_eq!(ask(), 503);
    assert_eq!(consul.queries(), [""; 0], "who is not trusted is not asked");
    put("ca", &ca.pem());
    wait::until("Consul to be trusted", LIVE, || {
        (ask() == 200).then_some(())
    });
    consul.tell("orders", Vec::new());
    wait::until("the change to be heard", LIVE, || {
        (ask() == 503).then_some(())
    });
}

#[test]
fn consul_is_followed_and_its_failures_change_nothing() {
    let (one, two) = (Echo::start("one"), Echo::start("two"));
    let consul = Consul::start();
    consul.tell("orders", vec![instance(one.address(), 1)]);
    let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file(
            "consul.yaml",
            "apiVersion: getambassador.io/v3alpha1
kind: ConsulResolver
metadata: { name: consul-dc1 }
spec: { address: '${CONSUL_HOST}', datacenter: dc1 }
---
routes: [{ prefix: /, service: orders, resolver: consul-dc1 }]
",
        )
        .argument("--role")
        .argument("gateway")
        .environment("CONSUL_HOST", &consul.address().to_string())
        .environment("CONSUL_HTTP_TOKEN", "secret")
        .start();
    let mut client = Raw::connect(nuncio.gateway());
    let mut ask = || {
        client.send("GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n");
        let answer = client.take_response();
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.json()["backend"].as_str().map(str::to_owned)
    };
    assert_eq!(ask().as_deref(), Some("one"));
    consul.fail(Some((500, "No cluster leader")));
    for _ in 0..10 {
        assert_eq!(ask().as_deref(), Some("one"));
    }
    consul.tell("orders", vec![instance(two.address(), 1)]);
    consul.fail(None);
    wait::until("the other instance to be asked", LIVE, || {
        (ask().as_deref() == Some("two")).then_some(())
    });
    let begun = Instant::now();
    consul.tell("orders", vec![instance(one.address(), 1)]);
    wait::until("the first one to be asked again", LIVE, || {
        (ask().as_deref() == Some("one")).then_some(())
    });
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let queries = consul.queries();
    let first = "/v1/health/service/orders?passing=1&dc=dc1 token=secret";
    assert_eq!(queries[0], first);
    assert!(queries.len() < 20, "{queries:?}");
}

#[test]
fn an_annotated_service_runs_and_other_instances_objects_do_not() {
    let echo = Echo::start("s");
    let (ip, port) = (echo.address().ip(), echo.address().port());
    let objects = format!(
        "apiVersion: v1
kind: Service
metadata:
  name: orders
  namespace: shop
  labels: {{ team: a }}
  annotations:
    getambassador.io/config: |
      apiVersion: getambassador.io/v2
      kind: Mapping
      name: orders
      prefix: /orders/
      service: orders
      resolver: endpoint
      host: '.*'
      host_regex: true
      ambassador_id: edge
      ---
      apiVersion: getambassador.io/v2
      kind: Mapping
      name: others
      prefix: /others/
      service: orders
      host: '.*'
      host_regex: true
spec: {{ ports: [{{ port: 80 }}] }}
---
apiVersion: v1
kind: Endpoints
metadata: {{ name: orders, namespace: shop, labels: {{ team: a }} }}
subsets: [{{ addresses: [{{ ip: {ip} }}], ports: [{{ port: {port} }}] }}]
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {{ name: unlabelled, namespace: shop }}
spec: {{ prefix: /unlabelled/, service: orders, hostname: '*', ambassador_id: [edge] }}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {{ name: elsewhere, namespace: web, labels: {{ team: a }} }}
spec: {{ prefix: /elsewhere/, service: orders.shop, hostname: '*', ambassador_id: [edge] }}
"
    );
    let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("export.yaml", &objects)
        .argument("--role")
        .argument("gateway")
        .environment("AMBASSADOR_ID", "edge")
        .environment("AMBASSADOR_NAMESPACE", "shop")
        .environment("AMBASSADOR_SINGLE_NAMESPACE", "true")
        .environment("AMBASSADOR_LABEL_SELECTOR", "team in (a, b)")
        .start();
    let status = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\nhost: shop.example");
        http(nuncio.gateway(), &request, "").status
    };
    assert_eq!(status("/orders/1"), 200, "{}", nuncio.log());
    assert_eq!(status("/others/1"), 404);
    assert_eq!(status("/unlabelled/1"), 404);
    assert_eq!(status("/elsewhere/1"), 404);
}

#[test]
fn a_service_that_stands_for_a_name_elsewhere_is_found_there() {
    let echo = Echo::start("elsewhere");
    let named = |name: &str| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{ name: orders, namespace: shop }}
spec: {{ type: ExternalName, externalName: {name} }}
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: {{ name: orders, namespace: shop }}
spec: {{ prefix: /, hostname: '*', service: 'orders:{}', auto_host_rewrite: true }}
---
apiVersion: getambassador.io/v3alpha1
kind: Host
metadata: {{ name: all }}
spec: {{ hostname: '*', requestPolicy: {{ insecure: {{ action: Route }} }} }}
",
            echo.address().port()
        )
    };
    let nuncio = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("slices.yaml", &named("localhost"))
        .argument("--role")
        .argument("gateway")
        .start();
    let ask = || http(nuncio.gateway(), "GET / HTTP/1.1\nhost: shop.example", "");
    let answer = ask();
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert_eq!(answer.json()["backend"], "elsewhere");
    assert_eq!(answer.json()["request"]["host"], "localhost");
    replace(&nuncio, &named("nowhere.invalid"));
    wait::until("the other name to count", LIVE, || {
        (ask().status == 503).then_some(())
    });
}
