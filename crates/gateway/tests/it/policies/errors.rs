//! Bodies of error answers.

use std::fs;

use testkit::echo::Echo;
use testkit::raw::Response;
use testkit::scripted::Scripted;

use crate::rig::Rig;

const MODULE: &str = r#"
module:
  error_response_overrides:
  - on_status_code: 404
    body: { text_format: 'no %REQ(:PATH)% here (%RESPONSE_CODE%)' }
  - on_status_code: 503
    body: { json_format: { status: '%RESPONSE_CODE%', text: 'code %RESPONSE_CODE%', none: '%REQ(X-NONE)%' } }
"#;

fn rig() -> (Rig, Echo) {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        r#"{MODULE}
routes:
- {{ prefix: /x/, service: '{0}' }}
- {{ prefix: /dead/, service: '127.0.0.1:1' }}
- {{ prefix: /bypass/, service: '{0}', bypass_error_response_overrides: true }}
- prefix: /own/
  service: '{0}'
  error_response_overrides:
  - {{ on_status_code: 418, body: {{ text_format: tea, content_type: text/tea }} }}
"#,
        echo.address()
    ));
    (rig, echo)
}

#[track_caller]
fn check(answer: &Response, status: u16, content_type: &str, body: &str) {
    assert_eq!(answer.status, status);
    assert_eq!(String::from_utf8_lossy(&answer.body), body);
    assert_eq!(answer.header("content-type"), [content_type]);
    assert_eq!(answer.header("content-length"), [body.len().to_string()]);
    assert!(answer.header("transfer-encoding").is_empty());
}

#[test]
fn answers_of_services_and_of_the_gateway_get_the_body() {
    let (rig, _echo) = rig();
    let answer = rig.ask("GET /none?a HTTP/1.1\nhost: s", "");
    check(&answer, 404, "text/plain", "no /none?a here (404)");
    let answer = rig.ask("GET /x/y HTTP/1.1\nhost: s\nrequested-status: 404", "");
    check(&answer, 404, "text/plain", "no /x/y here (404)");
    let json = r#"{"none":null,"status":503,"text":"code 503"}"#;
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s\nrequested-status: 503", "");
    check(&answer, 503, "application/json", json);
    let answer = rig.ask("GET /dead/ HTTP/1.1\nhost: s", "");
    check(&answer, 503, "application/json", json);
    assert_eq!(rig.ask("GET /x/ HTTP/1.1\nhost: s", "").status, 200);
}

#[test]
fn a_mappings_list_replaces_the_modules_and_can_be_passed_over() {
    let (rig, _echo) = rig();
    let answer = rig.ask("GET /own/ HTTP/1.1\nhost: s\nrequested-status: 418", "");
    check(&answer, 418, "text/tea", "tea");
    for path in ["/own/", "/bypass/"] {
        let answer = rig.ask(
            &format!("GET {path} HTTP/1.1\nhost: s\nrequested-status: 404"),
            "",
        );
        assert_eq!(answer.json()["backend"], "echo", "{path}");
    }
}

#[test]
fn head_gets_the_length_alone_and_the_connection_goes_on() {
    let (rig, _echo) = rig();
    let mut client = rig.connect();
    client.send("HEAD /x/y HTTP/1.1\r\nhost: s\r\nrequested-status: 404\r\n\r\n");
    let head = client.take_until(b"\r\n\r\n");
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(head.contains("\r\ncontent-length: 18\r\n"), "{head}");
    client.send("GET /x/ HTTP/1.1\r\nhost: s\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
}

#[test]
fn an_endless_or_encoded_body_of_the_service_is_dropped() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send(
            "HTTP/1.1 404 Not Found\r\ncontent-encoding: gzip\r\netag: \"a\"\r\nx-own: 1\r\n\
             transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        );
        assert!(
            raw.closes(),
            "the connection with the rest of the body is closed"
        );
    });
    let rig = Rig::start(&format!(
        "{MODULE}\nroutes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    ));
    for _ in 0..2 {
        let answer = rig.ask("GET /a HTTP/1.1\nhost: s", "");
        check(&answer, 404, "text/plain", "no /a here (404)");
        assert!(answer.header("content-encoding").is_empty());
        assert!(answer.header("etag").is_empty());
        assert_eq!(answer.header("x-own"), ["1"]);
    }
}

#[test]
fn the_text_may_stand_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("error.html");
    fs::write(&path, "<p>%RESPONSE_CODE%</p>\n").expect("a file is written");
    let rig = Rig::start(&format!(
        "module: {{ error_response_overrides: [{{ on_status_code: 404, body: {{ \
         text_format_source: {{ filename: '{}' }}, content_type: text/html }} }}] }}",
        path.display()
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: s", "");
    check(&answer, 404, "text/html", "<p>404</p>\n");
}
