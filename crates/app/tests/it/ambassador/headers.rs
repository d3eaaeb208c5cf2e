use super::{Rig, Seen};

/// Case 10.
#[test]
fn response_headers_are_added_or_replaced() {
    let rig = Rig::start(&[
        "Mapping add: { prefix: /x/, service: $a, add_response_headers: { koo: { value: KooK, append: false }, zoo: { value: ZooZ }, test: { value: boo }, foo: { value: Foo } } }",
    ]);
    let response = rig.ask("GET /x/ koo=Koot zoo=Zoo test=Test Requested-Header=koo,zoo,test");
    assert_eq!(response.header("koo"), ["KooK"]);
    assert_eq!(response.header("zoo"), ["Zoo", "ZooZ"]);
    assert_eq!(response.header("test"), ["Test", "boo"]);
    assert_eq!(response.header("foo"), ["Foo"]);
}

/// Cases 12 and 19.
#[test]
fn request_headers_and_the_host_change() {
    let rig = Rig::start(&[
        "Mapping remove: { prefix: /x/, service: $a, remove_request_headers: [zoo, aoo] }",
        "Mapping add: { prefix: /add/, service: $a, add_request_headers: { fruit: { value: orange, append: false } } }",
        "Mapping auto: { prefix: /auto/, service: $a, auto_host_rewrite: true }",
        "Mapping host: { prefix: /host/, service: $a, host_rewrite: inner.example }",
    ]);
    let seen = Seen::of(&rig.ask("GET /x/ zoo=1 aoo=2 foo=3"));
    assert!(seen.header("zoo").is_empty() && seen.header("aoo").is_empty());
    assert_eq!(seen.header("foo"), ["3"]);
    assert_eq!(
        Seen::of(&rig.ask("GET /add/ fruit=banana")).header("fruit"),
        ["orange"]
    );
    let host = |request: &str| Seen::of(&rig.ask(request)).request["host"].clone();
    assert_eq!(host("GET /x/"), "ambassador.test");
    let upstream = rig.upstreams[0].address().to_string();
    let auto = host("GET /auto/");
    assert!(upstream.starts_with(auto.as_str().unwrap()), "{auto}");
    assert_eq!(host("GET /host/"), "inner.example");
}

/// Case 38: `{}` takes the defaults away.
#[test]
fn defaults_are_replaced_even_by_nothing() {
    let rig = Rig::start(&[
        "Module ambassador: { defaults: { httpmapping: { add_request_headers: { fruit: { value: orange } } } } }",
        "Mapping plain: { prefix: /plain/, service: $a }",
        "Mapping own: { prefix: /own/, service: $a, add_request_headers: { fruit: { value: banana } } }",
        "Mapping none: { prefix: /none/, service: $a, add_request_headers: {} }",
    ]);
    let fruit = |path: &str| {
        Seen::of(&rig.ask(&format!("GET {path}")))
            .header("fruit")
            .join(",")
    };
    assert_eq!(fruit("/plain/"), "orange");
    assert_eq!(fruit("/own/"), "banana");
    assert_eq!(fruit("/none/"), "");
}

/// Cases 23 and 27.
#[test]
fn request_ids_and_the_server_name() {
    let rig = Rig::start(&["Mapping x: { prefix: /x/, service: $a }"]);
    let response = rig.ask("GET /x/ x-request-id=hello");
    let seen = Seen::of(&response);
    let [id] = seen.header("x-request-id")[..] else {
        panic!("one id")
    };
    assert!(id != "hello" && id.len() == 36, "{id}");
    assert_eq!(response.header("server"), ["envoy"]);

    let rig = Rig::start(&[
        "Mapping x: { prefix: /x/, service: $a }",
        "Module ambassador: { preserve_external_request_id: true, server_name: test-server }",
    ]);
    let response = rig.ask("GET /x/ x-request-id=hello");
    assert_eq!(Seen::of(&response).header("x-request-id"), ["hello"]);
    assert_eq!(response.header("server"), ["test-server"]);
}
