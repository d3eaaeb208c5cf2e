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

/// The members of a canary group add what any of them adds (`ambassador.md` 1.1), and the Mapping's own word counts where two
/// say something about one header.
#[test]
fn members_of_a_group_share_the_headers_they_add() {
    let rig = Rig::start(&[
        "Mapping one: { prefix: /x/, service: $a, weight: 50, add_request_headers: { x-one: { value: '1' }, x-who: { value: one } }, add_response_headers: { x-back: { value: one } } }",
        "Mapping other: { prefix: /x/, service: $b, add_request_headers: { x-two: { value: '2' }, x-who: { value: other } } }",
        "Mapping apart: { prefix: /x/y/, service: $a }",
        "Mapping copy: { prefix: /x/, service: $c, shadow: true, add_request_headers: { x-copy: { value: '3' } } }",
    ]);
    let mut members = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let response = rig.ask("GET /x/");
        let seen = Seen::of(&response);
        assert_eq!(seen.header("x-one"), ["1"]);
        assert_eq!(seen.header("x-two"), ["2"]);
        assert_eq!(seen.header("x-copy").len(), 0);
        assert_eq!(response.header("x-back"), ["one"]);
        members.insert(seen.header("x-who").join(","));
    }
    assert_eq!(Vec::from_iter(members), ["one", "other"]);
    let apart = Seen::of(&rig.ask("GET /x/y/"));
    assert_eq!(apart.header("x-one").len() + apart.header("x-two").len(), 0);
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

/// Cases 13 and 38.
#[test]
fn envoys_and_linkerds_headers() {
    let rig = Rig::start(&[
        "Module ambassador: { add_linkerd_headers: true }",
        "Mapping x: { prefix: /x/, service: $a }",
        "Mapping off: { prefix: /off/, service: $a, add_linkerd_headers: false }",
        "Mapping bare: { prefix: /bare/, service: $a, remove_response_headers: [x-envoy-upstream-service-time] }",
    ]);
    let time = |path: &str| {
        rig.ask(&format!("GET {path}"))
            .header("x-envoy-upstream-service-time")
            .len()
    };
    assert_eq!((time("/x/"), time("/bare/")), (1, 0));
    let linkerd = |path: &str| {
        Seen::of(&rig.ask(&format!("GET {path}")))
            .header("l5d-dst-override")
            .join(",")
    };
    assert_eq!(linkerd("/x/"), rig.upstreams[0].address().to_string());
    assert_eq!(linkerd("/off/"), "");
}

/// Envoy's variables have values, and an unknown one is an error of the configuration.
#[test]
fn variables_in_headers() {
    let rig = Rig::start(&[
        "Mapping x: { prefix: /x/, service: $a, add_request_headers: { x-from: { value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%' }, x-proto: { value: '%PROTOCOL% %REQ(x-in)%' } }, add_response_headers: { x-code: { value: '%RESPONSE_CODE%' } } }",
        "Mapping bad: { prefix: /bad/, service: $a, add_request_headers: { x: { value: '%NO_SUCH_THING%' } } }",
    ]);
    let response = rig.ask("GET /x/ x-in=hello");
    let seen = Seen::of(&response);
    assert_eq!(seen.header("x-from"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-proto"), ["HTTP/1.1 hello"]);
    assert_eq!(response.header("x-code"), ["200"]);
    assert_eq!(rig.ask("GET /bad/").status, 404);
    assert!(rig.told().contains("NO_SUCH_THING"), "{}", rig.told());
}
