use testkit::raw::Raw;

use super::Rig;

/// Case 5.
#[test]
fn websockets_open_where_the_mapping_allows() {
    let rig = Rig::start(&[
        "Mapping ws: { prefix: /ws/, service: $a, allow_upgrade: [WebSocket] }",
        "Mapping old: { prefix: /old/, service: $a, use_websocket: true }",
        "Mapping plain: { prefix: /plain/, service: $a }",
    ]);
    let upgrade = |path: &str| {
        let mut raw = Raw::connect(rig.nuncio.gateway());
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nhost: h\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ));
        let head = String::from_utf8(raw.take_until(b"\r\n\r\n")).unwrap();
        (raw, head)
    };
    for path in ["/ws/", "/old/"] {
        let (mut raw, head) = upgrade(path);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        for word in ["one", "two", "three"] {
            raw.send(word);
            assert_eq!(raw.take(word.len()), word.as_bytes());
        }
    }
    let (_, head) = upgrade("/plain/");
    assert!(!head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(rig.ask("GET /ws/").status, 200);
}
