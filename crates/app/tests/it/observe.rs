//! What a running gateway tells about itself: metrics as Prometheus reads them, diagnostics as Ambassador's users know them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::echo::Echo;
use testkit::nuncio::{Nuncio, Setup};
use testkit::raw::{self, Raw, Response};
use testkit::{lab, wait};

const LIMIT: Duration = Duration::from_secs(20);

/// Reads a page with Prometheus' own parsers and prints each sample, its labels sorted. The Python parser of the older format
/// calls every counter's samples `_total`, whatever the page calls them; Prometheus does not.
const PARSE: &str = r#"
import json, re, sys
from prometheus_client.parser import text_string_to_metric_families as plain
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
text = sys.stdin.read()
families = openmetrics(text) if sys.argv[1] == "openmetrics" else plain(text)
names = re.findall(r"^# TYPE (\S+) ", text, re.M)
told = {}
for name, family in zip(names, families, strict=True):
    for sample in family.samples:
        renamed = sys.argv[1] == "plain" and family.type == "counter"
        labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
        key = f"{name if renamed else sample.name}{{{labels}}}"
        assert key not in told, key
        told[key] = sample.value
print(json.dumps(told))
"#;

fn start(yaml: &str) -> Nuncio {
    Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .file("ambassador.yaml", yaml)
        .argument("--role")
        .argument("gateway")
        .start()
}

fn mapping(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: {name} }}\nspec: {{ hostname: '*', {spec} }}\n"
    )
}

fn admin(nuncio: &Nuncio, request: &str) -> Response {
    raw::http(nuncio.admin(), &format!("{request}\nhost: admin"), "")
}

fn json(nuncio: &Nuncio, path: &str) -> Value {
    let answer = admin(nuncio, &format!("GET {path} HTTP/1.1"));
    assert_eq!(answer.status, 200, "{path}");
    answer.json()
}

/// Scrapes and parses. Without Prometheus' parsers on this machine the samples are read line by line.
fn scrape(nuncio: &Nuncio, python: Option<&Path>, openmetrics: bool) -> BTreeMap<String, f64> {
    let (accept, dialect) = match openmetrics {
        true => (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "openmetrics",
        ),
        false => ("text/plain;version=0.0.4", "plain"),
    };
    let answer = admin(nuncio, &format!("GET /metrics HTTP/1.1\naccept: {accept}"));
    assert_eq!(answer.status, 200);
    let told = answer.header("content-type")[0].to_owned();
    assert!(
        told.starts_with(accept.split(';').next().expect("a type")),
        "{told}"
    );
    let text = String::from_utf8(answer.body).expect("text");
    let Some(python) = python else {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let read = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.replace('"', ""), value.parse().expect("a number"))
        };
        return samples.map(read).collect();
    };
    let mut parser = Command::new(python)
        .args(["-c", PARSE, dialect])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python starts");
    let mut stdin = parser.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("python reads");
    drop(stdin);
    let parsed = parser.wait_with_output().expect("python ends");
    assert!(parsed.status.success(), "the parser refuses\n{text}");
    serde_json::from_slice(&parsed.stdout).expect("numbers by their names")
}

/// Case 57, and the names that Ambassador's dashboards ask for.
#[test]
fn dashboards_find_their_numbers() {
    let python = lab::or_skip(lab::scraper());
    let echo = Echo::start("echo");
    let nuncio = start(&format!(
        "{}{}{}",
        mapping(
            "alt",
            &format!(
                "prefix: /alt/, stats_name: alt, service: '{}'",
                echo.address()
            )
        ),
        mapping("unused", "prefix: /unused/, service: '127.0.0.1:9'"),
        mapping(
            "gone",
            "prefix: /gone/, stats_name: gone, service: '127.0.0.1:9'"
        ),
    ));
    let mut client = Raw::connect(nuncio.gateway());
    for _ in 0..1000 {
        client.send("GET /alt/ HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(client.take_response().status, 200);
    }
    for (path, status) in [("/gone/", 503), ("/nowhere", 404)] {
        let answer = raw::http(
            nuncio.gateway(),
            &format!("GET {path} HTTP/1.1\nhost: a"),
            "",
        );
        assert_eq!(answer.status, status);
    }
    drop(client);
    wait::until("the last request to be counted", LIMIT, || {
        let told = scrape(&nuncio, None, false);
        let key = "envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix=ingress_http}";
        (told.get(key) == Some(&1002.0)).then_some(())
    });
    for openmetrics in [true, false] {
        let told = scrape(&nuncio, python.as_deref(), openmetrics);
        let value = |key: &str| {
            *told
                .get(key)
                .unwrap_or_else(|| panic!("{key} in\n{told:#?}"))
        };
        for (key, expected) in [
            (
                "envoy_cluster_upstream_rq_total{envoy_cluster_name=alt}",
                1000.0,
            ),
            (
                "envoy_cluster_upstream_rq_xx{envoy_cluster_name=alt,envoy_response_code_class=2}",
                1000.0,
            ),
            (
                "envoy_cluster_upstream_rq{envoy_cluster_name=alt,envoy_response_code=200}",
                1000.0,
            ),
            (
                "envoy_cluster_upstream_rq_time_count{envoy_cluster_name=alt}",
                1000.0,
            ),
            (
                "envoy_cluster_upstream_cx_total{envoy_cluster_name=alt}",
                1.0,
            ),
            (
                "envoy_cluster_membership_healthy{envoy_cluster_name=alt}",
                1.0,
            ),
            (
                "envoy_cluster_upstream_rq_xx{envoy_cluster_name=gone,envoy_response_code_class=5}",
                1.0,
            ),
            (
                "envoy_cluster_upstream_cx_connect_fail{envoy_cluster_name=gone}",
                1.0,
            ),
            (
                "envoy_cluster_upstream_rq_total{envoy_cluster_name=127_0_0_1_9}",
                0.0,
            ),
            (
                "envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix=ingress_http,envoy_response_code_class=2}",
                1000.0,
            ),
            (
                "envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix=ingress_http,envoy_response_code_class=4}",
                1.0,
            ),
            (
                "envoy_http_no_route{envoy_http_conn_manager_prefix=ingress_http}",
                1.0,
            ),
            (
                "envoy_cluster_upstream_rq_pending_total{envoy_cluster_name=alt}",
                1.0,
            ),
            (
                "envoy_cluster_upstream_rq_pending_failure_eject{envoy_cluster_name=gone}",
                1.0,
            ),
            (
                "envoy_cluster_circuit_breakers_default_remaining_cx{envoy_cluster_name=alt}",
                1023.0,
            ),
            (
                "envoy_cluster_circuit_breakers_high_remaining_rq{envoy_cluster_name=alt}",
                1024.0,
            ),
            ("envoy_cluster_manager_active_clusters{}", 3.0),
            ("envoy_server_live{}", 1.0),
            ("ambassador_diagnostics_errors{}", 0.0),
            ("nuncio_requests_total{class=2xx,route=alt.default}", 1000.0),
            ("nuncio_refusals_total{reason=no_route}", 1.0),
            ("nuncio_config_stale_seconds{}", 0.0),
            ("nuncio_reload_seconds_count{}", 1.0),
        ] {
            let sorted = match &python {
                Some(_) => key.to_owned(),
                None => key.replace("class=2xx,route=alt.default", "route=alt.default,class=2xx"),
            };
            assert_eq!(value(&sorted), expected, "{key}");
        }
        let le = if openmetrics { "5.0" } else { "5" };
        let five =
            format!("envoy_cluster_upstream_rq_time_bucket{{envoy_cluster_name=alt,le={le}}}");
        assert!(value(&five) > 0.0);
        for bytes in [
            "envoy_cluster_upstream_cx_rx_bytes_total{envoy_cluster_name=alt}",
            "envoy_cluster_upstream_cx_tx_bytes_total{envoy_cluster_name=alt}",
            "envoy_http_downstream_cx_rx_bytes_total{envoy_http_conn_manager_prefix=ingress_http}",
            "envoy_http_downstream_cx_tx_bytes_total{envoy_http_conn_manager_prefix=ingress_http}",
        ] {
            assert!(value(bytes) >= 31_000.0, "{bytes}");
        }
        assert!(value("ambassador_process_resident_memory_bytes{}") > 0.0);
    }
}

#[test]
fn diagnostics_tell_what_runs_and_what_is_refused() {
    let echo = Echo::start("echo");
    let good = mapping(
        "good",
        &format!(
            "prefix: /good/, stats_name: good, service: '{}'",
            echo.address()
        ),
    );
    let nuncio = start(&good);
    let errors = "/ambassador/v0/diag/?json=true&filter=errors";
    assert_eq!(json(&nuncio, errors), Value::Array(vec![]));
    let told = json(&nuncio, "/ambassador/v0/diag/?json=true");
    assert_eq!(told["system"]["env_good"], true, "{told:#}");
    assert_eq!(told["route_info"][0]["prefix"], "/good/");
    assert_eq!(told["route_info"][0]["clusters"][0]["name"], "good");
    assert_eq!(
        told["upstreams"][0]["endpoints"][0]["address"],
        echo.address().to_string()
    );
    assert_eq!(told["upstreams"][0]["endpoints"][0]["healthy"], true);
    assert_eq!(told["cluster_stats"]["good"]["healthy_percent"], 100);
    assert_eq!(told["active_elements"][0], "good.default");
    let status = json(&nuncio, "/nuncio/v0/status");
    assert_eq!(status["upstreams"][0]["routes"][0], "good.default");

    let explained = json(&nuncio, "/nuncio/v0/explain?url=http://a/good/x");
    assert_eq!(explained["upstreams"][0]["name"], "good", "{explained:#}");
    let endpoint = &explained["upstreams"][0]["endpoints"][0];
    assert_eq!(endpoint["address"], echo.address().to_string());

    let file = nuncio.config().join("ambassador.yaml");
    let bad = mapping("bad", "prefix: /bad/, service: s, timeout_ms: soon");
    fs::write(&file, format!("{good}{bad}")).expect("the file can be written");
    wait::until("the error to be told", LIMIT, || {
        let told = json(&nuncio, errors);
        let told = told.as_array().expect("a list");
        (!told.is_empty()).then_some(())
    });
    let told = json(&nuncio, errors);
    assert_eq!(told[0][0], "Mapping bad.default", "{told:#}");
    let said = told[0][1].as_str().expect("text");
    assert!(
        said.contains("ambassador.yaml:") && said.contains("timeout_ms"),
        "{said}"
    );
    let page = admin(&nuncio, "GET /ambassador/v0/diag/ HTTP/1.1");
    let page = String::from_utf8(page.body).expect("text");
    assert!(
        page.contains("timeout_ms") && page.contains("/good/"),
        "{page}"
    );
    let metrics = scrape(&nuncio, None, false);
    assert_eq!(metrics["ambassador_diagnostics_errors{}"], 1.0);
}

/// Case 56.
#[test]
fn diagnostics_can_be_switched_off() {
    let nuncio = start(
        "---\napiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: { name: ambassador }\nspec: { config: { diagnostics: { enabled: false } } }\n",
    );
    for (path, status) in [
        ("/ambassador/v0/diag/", 404),
        ("/ambassador/v0/diag/?json=true", 404),
        ("/ambassador/v0/check_alive", 200),
        ("/ambassador/v0/check_ready", 200),
    ] {
        let answer = admin(&nuncio, &format!("GET {path} HTTP/1.1"));
        assert_eq!(answer.status, status, "{path}");
    }
    let public = raw::http(
        nuncio.gateway(),
        "GET /ambassador/v0/diag/ HTTP/1.1\nhost: a",
        "",
    );
    assert_eq!(public.status, 404);
}

#[test]
fn what_is_logged_can_be_changed_while_it_runs() {
    let nuncio = start(&mapping("gone", "prefix: /, service: '127.0.0.1:9'"));
    let log = |level: &str| {
        admin(
            &nuncio,
            &format!("POST /nuncio/v0/log?level={level} HTTP/1.1"),
        )
    };
    assert_eq!(log("nonsense=loud").status, 400);
    assert_eq!(log("debug").status, 200);
    wait::until("a line of level DEBUG", LIMIT, || {
        raw::http(nuncio.gateway(), "GET / HTTP/1.1\nhost: a", "");
        nuncio.log().contains("DEBUG").then_some(())
    });
}
