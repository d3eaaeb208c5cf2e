use expect_test::expect;

use super::Rig;

/// Cases 14 and 15, and methods.
#[test]
fn methods_headers_and_query_parameters_choose() {
    let rig = Rig::start(&[
        "Mapping p1: { prefix: /p/, service: $a }",
        "Mapping p2: { prefix: /p/, headers: { X-Route: target2 }, service: $b }",
        "Mapping q1: { prefix: /q/, service: $a }",
        "Mapping q2: { prefix: /q/, query_parameters: { test_param: target2 }, service: $b }",
        "Mapping qr: { prefix: /qr/, regex_query_parameters: { test_param: '^[a-z].*' }, service: $c }",
        "Mapping qp: { prefix: /qp/, regex_query_parameters: { test_param: '.*' }, service: $c }",
        "Mapping hr: { prefix: /hr/, regex_headers: { x-version: '2[.].*' }, service: $b }",
        "Mapping get: { prefix: /m/, method: GET, service: $a }",
        "Mapping write: { prefix: /m/, method: 'POST|PUT', method_regex: true, service: $b }",
    ]);
    rig.check(
        &[
            "GET /p/",
            "GET /p/ X-Route=target2",
            "GET /p/ X-Route=target3",
            "GET /q/",
            "GET /q/?test_param=target2",
            "GET /qr/?test_param=hello",
            "GET /qr/?test_param=HeLlO",
            "GET /qr/",
            "GET /qp/?test_param=anything",
            "GET /qp/",
            "GET /hr/ x-version=2.1",
            "GET /hr/ x-version=12.1",
            "GET /m/",
            "POST /m/",
            "PUT /m/",
            "DELETE /m/",
        ],
        expect![[r#"
            GET /p/ -> 200 a /
            GET /p/ X-Route=target2 -> 200 b /
            GET /p/ X-Route=target3 -> 200 a /
            GET /q/ -> 200 a /
            GET /q/?test_param=target2 -> 200 b /
            GET /qr/?test_param=hello -> 200 c /
            GET /qr/?test_param=HeLlO -> 404
            GET /qr/ -> 404
            GET /qp/?test_param=anything -> 200 c /
            GET /qp/ -> 404
            GET /hr/ x-version=2.1 -> 200 b /
            GET /hr/ x-version=12.1 -> 404
            GET /m/ -> 200 a /
            POST /m/ -> 200 b /
            PUT /m/ -> 200 b /
            DELETE /m/ -> 404
        "#]],
    );
}

#[test]
fn precedence_then_length_decide() {
    let rig = Rig::start(&[
        "Mapping long: { prefix: /api/v2/, service: $a }",
        "Mapping short: { prefix: /api/, headers: { x-h: h }, service: $b }",
        "Mapping first: { prefix: /, precedence: 1, headers: { x-first: '1' }, service: $c }",
    ]);
    rig.check(
        &[
            "GET /api/v2/ x-h=h",
            "GET /api/v1 x-h=h",
            "GET /api/v2/ x-h=h x-first=1",
        ],
        expect![[r#"
            GET /api/v2/ x-h=h -> 200 a /
            GET /api/v1 x-h=h -> 200 b /v1
            GET /api/v2/ x-h=h x-first=1 -> 200 c /api/v2/
        "#]],
    );
}

/// Case 28.
#[test]
fn objects_of_other_instances_are_not_ours() {
    let rig = Rig::start(&[
        "Mapping ours: { prefix: /ours/, ambassador_id: [other, default], service: $a }",
        "Mapping theirs: { prefix: /theirs/, ambassador_id: [other], service: $a }",
    ]);
    rig.check(
        &["GET /ours/", "GET /theirs/"],
        expect![[r#"
            GET /ours/ -> 200 a /
            GET /theirs/ -> 404
        "#]],
    );
}
