//! The commands that start nothing, and those that speak to a broker.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

pub(crate) fn nuncio(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_nuncio"))
        .args(arguments)
        .env_remove("KAFKA_BOOTSTRAP_SERVERS")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(input.as_bytes())
        .expect("it reads its input");
    child.wait_with_output().expect("it ends")
}

#[track_caller]
pub(crate) fn good(arguments: &[&str], input: &str) -> String {
    let output = nuncio(arguments, input);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{told}",
        output.status
    );
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
pub(crate) fn bad(arguments: &[&str]) -> String {
    bad_with(arguments, "")
}

#[track_caller]
pub(crate) fn bad_with(arguments: &[&str], input: &str) -> String {
    let output = nuncio(arguments, input);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn check_tells_every_problem_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nuncio.yaml");
    let path = file.to_str().expect("text");
    fs::write(
        &file,
        "routes:\n- { prefx: /a/, service: s }\n- { prefix: /b/, service: s, weight: 200 }\n",
    )
    .expect("written");
    let told = bad(&["check", path]);
    for part in [
        "unknown field `prefx`",
        "did you mean `prefix`?",
        &format!("{path}:2:5"),
        "2 | - { prefx: /a/, service: s }",
        &format!("{path}:3:"),
        "2 errors",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    fs::write(&file, "routes:\n- { prefix: /a/, service: s }\n").expect("written");
    assert_eq!(good(&["check", path], ""), "good: 1 route\n");
    assert!(bad(&["check", "/does/not/exist"]).contains("no file or folder"));
}

#[test]
fn explain_says_who_wins_and_why_others_lose() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nuncio.yaml");
    let path = file.to_str().expect("text");
    let routes = "routes:\n- { prefix: /a/, service: all }\n- { prefix: /a/, service: acme, headers: { x-tenant: acme } }\n";
    fs::write(&file, routes).expect("written");
    let told = good(
        &[
            "explain",
            path,
            "--",
            "GET",
            "http://shop.example/a/b",
            "-H",
            "x-tenant: acme",
        ],
        "",
    );
    assert!(told.contains("acme") && told.contains("others"), "{told}");
    let told = good(
        &["explain", path, "--json", "--", "http://shop.example/a/b"],
        "",
    );
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let taker = &told["outcome"]["routed"][0];
    assert_eq!(
        (
            &taker["destination"]["service"]["service"],
            &taker["destination"]["service"]["path"]
        ),
        (&"all".into(), &"/b".into())
    );
    assert!(bad(&["explain", path, "--", "/nowhere"]).contains("404"));
}

#[test]
fn a_broker_that_is_not_there_is_one_clear_line() {
    let told = bad(&["topics", "list", "--bootstrap", "127.0.0.1:1"]);
    assert!(
        told.starts_with("nuncio: no broker answers at 127.0.0.1:1"),
        "{told}"
    );
}

#[test]
fn a_broker_with_settings_in_doubt_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [
        (
            "broker:\n  listeners:\n  - { name: internal, listen: \"127.0.0.1:0\", security: sasl }\n",
            "nuncio.yaml:3:",
        ),
        ("broker:\n  listeners: [\n", "nuncio.yaml:"),
    ];
    for (yaml, place) in cases {
        fs::write(folder.path().join("nuncio.yaml"), yaml).expect("the folder takes files");
        let any = "127.0.0.1:0";
        let data = folder.path().join("data");
        let folder = folder.path().to_str().expect("the path is text");
        let told = bad(&[
            "serve",
            "--gateway",
            any,
            "--kafka",
            any,
            "--admin",
            any,
            "--data",
            data.to_str().expect("the path is text"),
            folder,
        ]);
        assert!(
            told.contains("in doubt") && told.contains(place),
            "{yaml}: {told}"
        );
        assert!(!data.join("kafka").exists(), "nothing was opened: {told}");
    }
}
