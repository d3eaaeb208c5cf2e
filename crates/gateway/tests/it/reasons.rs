//! Every refusal tells its reason three times: in a header, in the access line, in a counter. They agree.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Lines, PipeReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use gateway::listener::Limits;
use gateway::refusal::{Cut, Refusal};
use observe::access::AccessLog;
use observe::metrics::Metrics;
use serde_json::Value;
use testkit::echo::Echo;
use testkit::scripted::Scripted;

use crate::rig::{Rig, config};

struct Observed {
    rig: Rig,
    lines: Lines<BufReader<PipeReader>>,
}

impl Observed {
    #[track_caller]
    fn start(text: &str) -> Self {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let metrics = Metrics::default();
        let access = AccessLog::start(writer, &metrics).expect("a thread");
        let rig = Rig::observed(text, Limits::default(), &[], metrics, access);
        let lines = BufReader::new(reader).lines();
        Observed { rig, lines }
    }

    fn line(&mut self) -> Value {
        let line = self.lines.next().expect("a line").expect("readable");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Asks, and expects a refusal that is told everywhere.
    #[track_caller]
    fn refused(&mut self, request: &str, status: u16, reason: &str, flags: &str, details: &str) {
        let answer = self.rig.ask(request, "");
        assert_eq!(answer.status, status, "{request}");
        assert_eq!(answer.header("x-nuncio-reason"), [reason], "{request}");
        let line = self.line();
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["reason"], reason, "{line}");
        assert_eq!(line["flags"].as_str().unwrap_or_default(), flags, "{line}");
        assert_eq!(line["details"], details, "{line}");
        assert_eq!(
            self.rig
                .metric(&format!("nuncio_refusals_total{{reason=\"{reason}\"}}")),
            1.0,
            "{request}"
        );
    }
}

fn free() -> SocketAddr {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    free.local_addr().expect("its address")
}

#[test]
fn what_the_client_did_wrong_is_told() {
    let mut gateway = Observed::start(
        "routes: []\nmodule: { headers_with_underscores_action: REJECT_REQUEST, reject_requests_with_escaped_slashes: true }",
    );
    for (request, status, reason, flags, details) in [
        (
            "GET /none HTTP/1.1\nhost: a",
            404,
            "no_route",
            "NR",
            "route_not_found",
        ),
        (
            "GET / HTTP/1.1\nhost: a\nhost: a",
            400,
            "malformed",
            "DPE",
            "http1.codec_error",
        ),
        (
            "GET / HTTP/1.1\nhost: a\na_b: c",
            400,
            "underscore",
            "DPE",
            "http1.unexpected_underscore",
        ),
        (
            "GET /a%2Fb HTTP/1.1\nhost: a",
            400,
            "bad_path",
            "DPE",
            "path_normalization_failed",
        ),
    ] {
        gateway.refused(request, status, reason, flags, details);
    }
}

#[test]
fn what_went_wrong_upstream_is_told() {
    let garbled = Scripted::answering("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    let closing = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
    });
    let echo = Echo::start("echo");
    let mut gateway = Observed::start(&format!(
        "routes:
- {{ prefix: /gone/, service: '{}' }}
- {{ prefix: /garbled/, service: '{}' }}
- {{ prefix: /closing/, service: '{}' }}
- {{ prefix: /slow/, service: '{}', timeout_ms: 100 }}
- {{ prefix: /full/, service: '{}', circuit_breakers: [{{ max_requests: 0 }}] }}
",
        free(),
        garbled.address(),
        closing.address(),
        echo.address(),
        echo.address(),
    ));
    let before = "upstream_reset_before_response_started";
    for (path, status, reason, flags, details) in [
        (
            "/gone/",
            503,
            "connect_failed",
            "UF",
            format!("{before}{{remote_connection_failure}}"),
        ),
        (
            "/garbled/",
            502,
            "upstream_protocol",
            "UPE",
            format!("{before}{{protocol_error}}"),
        ),
        (
            "/closing/",
            503,
            "upstream_reset",
            "UC",
            format!("{before}{{connection_termination}}"),
        ),
        (
            "/slow/",
            504,
            "upstream_timeout",
            "UT",
            "response_timeout".to_owned(),
        ),
        (
            "/full/",
            503,
            "overloaded",
            "UO",
            format!("{before}{{overflow}}"),
        ),
    ] {
        let request =
            format!("GET {path} HTTP/1.1\nhost: a\nkat-req-http-requested-backend-delay: 3000");
        gateway.refused(&request, status, reason, flags, &details);
    }
}

#[test]
fn a_service_without_endpoints_is_told() {
    let mut gateway = Observed::start("routes: []");
    let mut config = config("routes: [{ prefix: /, service: shop }]");
    config.endpoints.tell("default", "shop", Vec::new());
    gateway.rig.gateway.apply(&config, &[]);
    gateway.refused(
        "GET / HTTP/1.1\nhost: a",
        503,
        "no_upstream",
        "UH",
        "no_healthy_upstream",
    );
}

#[test]
fn a_cut_body_is_told_in_the_line_and_counted() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    });
    let mut gateway = Observed::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    let mut client = gateway.rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let said = String::from_utf8(client.take_to_end()).expect("text");
    assert!(said.ends_with("\r\n\r\nhalf"), "{said}");
    let line = gateway.line();
    assert_eq!(line["reason"], "upstream_cut", "{line}");
    assert_eq!(line["flags"], "UC", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    let counted = "nuncio_answers_cut_total{reason=\"upstream_cut\"}";
    assert_eq!(gateway.rig.metric(counted), 1.0);
}

#[test]
fn a_404_of_the_service_is_none_of_ours() {
    let app = Scripted::answering(
        "HTTP/1.1 404 Not Found\r\nx-nuncio-reason: no_route\r\ncontent-length: 0\r\n\r\n",
    );
    let mut gateway = Observed::start(&format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        app.address()
    ));
    let answer = gateway.rig.ask("GET / HTTP/1.1\nhost: a", "");
    assert_eq!(answer.status, 404);
    assert!(answer.header("x-nuncio-reason").is_empty());
    let line = gateway.line();
    assert!(line.get("reason").is_none(), "{line}");
    assert!(line.get("flags").is_none(), "{line}");
}

#[test]
fn the_header_can_be_switched_off() {
    for (module, told) in [
        ("{ refusal_reason_header: false }", false),
        ("{ suppress_envoy_headers: true }", false),
        (
            "{ suppress_envoy_headers: true, refusal_reason_header: true }",
            true,
        ),
    ] {
        let rig = Rig::start(&format!("routes: []\nmodule: {module}"));
        let answer = rig.ask("GET / HTTP/1.1\nhost: a", "");
        assert_eq!(answer.status, 404);
        assert_eq!(
            !answer.header("x-nuncio-reason").is_empty(),
            told,
            "{module}"
        );
    }
}

#[test]
fn lines_look_as_the_module_asks() {
    let echo = Echo::start("echo");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let metrics = Metrics::default();
    let access = AccessLog::start(writer, &metrics).expect("a thread");
    let route = format!(
        "routes: [{{ prefix: /x/, stats_name: shop, service: '{}' }}]",
        echo.address()
    );
    let text = format!("{route}\nmodule: {{ envoy_log_type: text }}");
    let rig = Rig::observed(&text, Limits::default(), &[], metrics, access);
    let mut lines = BufReader::new(reader).lines();
    let mut line = || lines.next().expect("a line").expect("readable");

    let request = "GET /x/y?z HTTP/1.1\nhost: shop\nuser-agent: me";
    assert_eq!(rig.ask(request, "").status, 200);
    let said = line();
    let begins =
        said.starts_with("ACCESS [20") && said.contains("] \"GET /x/y?z HTTP/1.1\" 200 - 0 ");
    let ends = format!("\"shop\" \"{}\"", echo.address());
    assert!(begins && said.ends_with(&ends), "{said}");
    // The client, the agent and the id that the upstream saw.
    let quoted: Vec<&str> = said.split('"').skip(3).step_by(2).collect();
    let (client, agent, id) = (quoted[0], quoted[1], quoted[2]);
    assert_eq!((client, agent, id.len()), ("127.0.0.1", "me", 36), "{said}");
    rig.ask("GET /none HTTP/1.1\nhost: shop", "");
    assert!(line().contains("\" 404 NR 0 0 "));

    rig.apply(&format!(
        "{route}\nmodule: {{ envoy_log_type: typed_json, envoy_log_format: {{ code: '%RESPONSE_CODE%', to: '%UPSTREAM_CLUSTER%', why: '%RESPONSE_CODE_DETAILS%', sent: '%BYTES_SENT%', type: '%RESP(content-type)%' }} }}"
    ));
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: shop", "");
    let said: Value = serde_json::from_str(&line()).expect("JSON");
    let expected = serde_json::json!({
        "code": 200, "to": "shop", "why": "via_upstream", "sent": answer.body.len(),
        "type": answer.header("content-type")[0],
    });
    assert_eq!(said, expected);

    rig.apply(&route);
    rig.ask("GET /x/ HTTP/1.1\nhost: shop", "");
    let said: Value = serde_json::from_str(&line()).expect("JSON");
    assert_eq!(said["route"], "r0.default", "{said}");
}

/// The table of `docs/reference/refusals.md`, as the code has it.
fn reference() -> String {
    let mut text = String::new();
    for refusal in Refusal::ALL {
        let told = refusal.told();
        let status = refusal.status().as_u16();
        let said = match refusal {
            Refusal::Malformed(_) => "bad request: what is wrong with it".to_owned(),
            other => other.to_string(),
        };
        _ = writeln!(
            text,
            "| `{}` | {status} | `{}` | `{}` | {said} |",
            told.name, told.flags, told.details
        );
    }
    text
}

fn cuts() -> String {
    let mut text = String::new();
    for cut in Cut::ALL {
        let told = cut.told();
        _ = writeln!(
            text,
            "| `{}` | `{}` | `{}` |",
            told.name, told.flags, told.details
        );
    }
    text
}

/// `UPDATE_EXPECT=1` writes the tables.
#[test]
fn the_reference_tells_every_reason() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/refusals.md"
    );
    let page = std::fs::read_to_string(path).expect("the page");
    let mut written = String::new();
    let mut tables = [reference(), cuts()].into_iter();
    for (at, part) in page.split_inclusive("|---|\n").enumerate() {
        // What follows a table's head is the table, up to the next empty line.
        let rest = match (at, part.find("\n\n")) {
            (1.., Some(end)) => {
                written += &tables.next().expect("two tables");
                &part[end + 1..]
            }
            _ => part,
        };
        written += rest;
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, &written).expect("the page can be written");
    }
    assert!(
        page == written,
        "docs/reference/refusals.md is behind the code: UPDATE_EXPECT=1 writes it\n{written}"
    );
}
