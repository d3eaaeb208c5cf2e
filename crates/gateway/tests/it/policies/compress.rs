//! Answers packed for clients, requests unpacked for services.

use std::io::Cursor;

use async_compression::tokio::bufread as pack;
use testkit::echo::Echo;
use testkit::scripted::Scripted;
use tokio::io::AsyncReadExt as _;

use crate::rig::Rig;

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(work)
}

fn unpacked(coding: &str, bytes: &[u8]) -> String {
    let source = Cursor::new(bytes.to_vec());
    let mut out = String::new();
    run(async {
        let read = match coding {
            "gzip" => {
                pack::GzipDecoder::new(source)
                    .read_to_string(&mut out)
                    .await
            }
            "br" => {
                pack::BrotliDecoder::new(source)
                    .read_to_string(&mut out)
                    .await
            }
            _ => {
                pack::ZstdDecoder::new(source)
                    .read_to_string(&mut out)
                    .await
            }
        };
        read.expect("a packed text");
    });
    out
}

fn packed(coding: &str, bytes: &[u8]) -> Vec<u8> {
    let source = Cursor::new(bytes.to_vec());
    let mut out = Vec::new();
    run(async {
        let read = match coding {
            "gzip" => pack::GzipEncoder::new(source).read_to_end(&mut out).await,
            "br" => pack::BrotliEncoder::new(source).read_to_end(&mut out).await,
            _ => pack::ZstdEncoder::new(source).read_to_end(&mut out).await,
        };
        read.expect("bytes to pack");
    });
    out
}

fn rules(module: &str, service: impl std::fmt::Display) -> String {
    format!("module: {{ {module} }}\nroutes: [{{ prefix: /, service: '{service}' }}]")
}

#[test]
fn an_answer_is_packed_as_the_client_likes_it() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&rules("compression: {}", echo.address()));
    for coding in ["gzip", "br", "zstd"] {
        let answer = rig.ask(
            &format!("GET /a HTTP/1.1\nhost: s\naccept-encoding: {coding}"),
            "",
        );
        assert_eq!(answer.header("content-encoding"), [coding]);
        assert_eq!(answer.header("vary"), ["accept-encoding"]);
        let text = unpacked(coding, &answer.body);
        let seen: serde_json::Value = serde_json::from_str(&text).expect("the echo's JSON");
        assert_eq!(seen["request"]["headers"]["accept-encoding"][0], coding);
    }
    let answer = rig.ask("GET /a HTTP/1.1\nhost: s", "");
    assert!(answer.header("content-encoding").is_empty());
    assert_eq!(answer.header("vary"), ["accept-encoding"]);
    assert_eq!(answer.json()["backend"], "echo");
}

#[test]
fn ambassadors_gzip_packs_what_it_says() {
    let upstream = Scripted::start(|mut raw, _| {
        while let Some(head) = raw.try_take_until(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            assert!(!head.contains("accept-encoding"), "{head}");
            let kind = if head.starts_with("get /png") {
                "image/png"
            } else {
                "text/plain"
            };
            let body = if head.starts_with("get /short") {
                31
            } else {
                32
            };
            raw.send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\netag: \"a\"\r\ncontent-length: {body}\r\n\r\n{}",
                "a".repeat(body)
            ));
        }
    });
    let module = "gzip: { min_content_length: 32, content_type: [text/plain], remove_accept_encoding_header: true }";
    let rig = Rig::start(&rules(module, upstream.address()));
    let ask =
        |path: &str, accept: &str| rig.ask(&format!("GET {path} HTTP/1.1\nhost: s{accept}"), "");
    let answer = ask("/", "\naccept-encoding: gzip, br");
    assert_eq!(answer.header("content-encoding"), ["gzip"]);
    assert_eq!(answer.header("etag"), ["W/\"a\""]);
    assert!(answer.header("content-length").is_empty());
    assert_eq!(unpacked("gzip", &answer.body), "a".repeat(32));
    for (path, accept) in [
        ("/", ""),
        ("/png", "\naccept-encoding: gzip"),
        ("/short", "\naccept-encoding: gzip"),
    ] {
        let answer = ask(path, accept);
        assert!(
            answer.header("content-encoding").is_empty(),
            "{path}{accept}"
        );
        assert_eq!(answer.header("etag"), ["\"a\""]);
    }
}

#[test]
fn events_are_not_held_back() {
    let upstream = Scripted::start(|mut raw, _| {
        raw.take_until(b"\r\n\r\n");
        raw.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        raw.send("7\r\nfirst\n\n\r\n");
        // Nothing more comes before the client has gone.
        assert!(raw.closes());
    });
    let module = "compression: { algorithms: [gzip], content_type: [text/event-stream] }";
    let rig = Rig::start(&rules(module, upstream.address()));
    let mut client = rig.connect();
    client.send("GET / HTTP/1.1\r\nhost: s\r\naccept-encoding: gzip\r\n\r\n");
    let head = client.take_until(b"\r\n\r\n");
    assert!(String::from_utf8_lossy(&head).contains("content-encoding: gzip"));
    // The flush of the first event: the gzip head and the event, then the empty block that a flush ends with.
    let flushed = client.take_until(b"\x00\x00\xff\xff");
    assert!(flushed.len() > 10, "{flushed:?}");
}

#[test]
fn a_long_answer_is_packed_whole_and_head_gets_none() {
    let body = "0123456789abcdef".repeat(64 << 10);
    let echo = Echo::start("echo");
    let rig = Rig::start(&rules("compression: {}", echo.address()));
    for coding in ["gzip", "br", "zstd"] {
        let answer = rig.ask(
            &format!("POST / HTTP/1.1\nhost: s\naccept-encoding: {coding}"),
            &body,
        );
        let text = unpacked(coding, &answer.body);
        let seen: serde_json::Value = serde_json::from_str(&text).expect("the echo's JSON");
        assert_eq!(
            seen["request"]["body"].as_str().map(str::len),
            Some(body.len())
        );
    }
    let mut client = rig.connect();
    client.send("HEAD / HTTP/1.1\r\nhost: s\r\naccept-encoding: gzip\r\n\r\n");
    let head = client.take_until(b"\r\n\r\n");
    assert!(!String::from_utf8_lossy(&head).contains("content-encoding"));
    client.send("GET / HTTP/1.1\r\nhost: s\r\n\r\n");
    assert_eq!(client.take_response().status, 200);
}

#[test]
fn a_request_is_unpacked_for_the_service() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&rules("decompress_requests: {}", echo.address()));
    for coding in ["gzip", "br", "zstd"] {
        let answer = rig.ask_bytes(
            &format!("POST / HTTP/1.1\nhost: s\ncontent-encoding: {coding}"),
            &packed(coding, b"hello world"),
        );
        let seen = &answer.json()["request"];
        assert_eq!(seen["body"], "hello world", "{coding}");
        assert!(seen["headers"].get("content-encoding").is_none());
    }
    let answer = rig.ask("POST / HTTP/1.1\nhost: s\ncontent-encoding: other", "hello");
    assert_eq!(
        answer.json()["request"]["headers"]["content-encoding"][0],
        "other"
    );
}

#[test]
fn a_bomb_is_413_and_junk_is_400() {
    let echo = Echo::start("echo");
    let zeros = vec![0; 4 << 20];
    for (module, coding) in [
        ("decompress_requests: {}", "gzip"),
        ("decompress_requests: {}", "zstd"),
        ("decompress_requests: {}", "br"),
        (
            "decompress_requests: { max_bytes: 100000, max_ratio: 1000000 }",
            "gzip",
        ),
    ] {
        let rig = Rig::start(&rules(module, echo.address()));
        let answer = rig.ask_bytes(
            &format!("POST / HTTP/1.1\nhost: s\ncontent-encoding: {coding}"),
            &packed(coding, &zeros),
        );
        assert_eq!(answer.status, 413, "{module} {coding}");
    }
    let rig = Rig::start(&rules("decompress_requests: {}", echo.address()));
    let answer = rig.ask(
        "POST / HTTP/1.1\nhost: s\ncontent-encoding: gzip",
        "not packed",
    );
    assert_eq!(answer.status, 400);
    let mut more = packed("br", b"hello");
    more.extend_from_slice(b"junk");
    let answer = rig.ask_bytes("POST / HTTP/1.1\nhost: s\ncontent-encoding: br", &more);
    assert_eq!(answer.status, 400);
}
