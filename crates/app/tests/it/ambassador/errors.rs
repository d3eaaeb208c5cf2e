use expect_test::expect;
use testkit::raw::Response;

use super::{Rig, Seen};

fn told(response: &Response) -> String {
    let kind = response.header("content-type").join(",");
    format!(
        "{} {kind} {}",
        response.status,
        String::from_utf8_lossy(&response.body)
    )
}

/// Rule 2.7.
#[test]
fn failures_answer_as_envoy_does() {
    let rig = Rig::start(&[
        "Mapping gone: { prefix: /gone/, service: '127.0.0.1:1' }",
        "Mapping empty: { prefix: /empty/, service: nobody.invalid }",
        "Mapping slow: { prefix: /slow/, service: $a, timeout_ms: 100 }",
        "Mapping small: { prefix: /small/, service: $b, circuit_breakers: [{ max_requests: 0 }] }",
    ]);
    let nowhere = rig.ask("GET /nowhere/");
    assert_eq!((nowhere.status, nowhere.body.len()), (404, 0));
    let empty = rig.ask("GET /empty/");
    assert_eq!(
        (empty.status, &*empty.body),
        (503, &b"no healthy upstream"[..])
    );
    assert_eq!(rig.ask("GET /gone/").status, 503);
    let slow = rig.ask("GET /slow/ Requested-Backend-Delay=5000");
    assert_eq!(
        (slow.status, &*slow.body),
        (504, &b"upstream request timeout"[..])
    );
    let small = rig.ask("GET /small/");
    assert_eq!(small.status, 503);
    assert_eq!(small.header("x-envoy-overloaded"), ["true"]);
}

/// A Mapping's list takes the place of the Module's; local answers and services' answers both count.
#[test]
fn errors_get_bodies_of_the_users_own() {
    let rig = Rig::start(&[
        "Module ambassador: { error_response_overrides: [{ on_status_code: 404, body: { text_format: 'nothing here' } }, { on_status_code: 503, body: { json_format: { status: '%RESPONSE_CODE%' } } }] }",
        "Mapping plain: { prefix: /plain/, service: $a }",
        "Mapping own: { prefix: /own/, service: $a, error_response_overrides: [{ on_status_code: 429, body: { text_format: '<b>slow</b>', content_type: text/html } }] }",
        "Mapping off: { prefix: /off/, service: $a, bypass_error_response_overrides: true }",
        "Mapping gone: { prefix: /gone/, service: '127.0.0.1:1' }",
    ]);
    let body = |request: &str| told(&rig.ask(request));
    assert_eq!(body("GET /nowhere/"), "404 text/plain nothing here");
    assert_eq!(
        body("GET /plain/ Requested-Status=404"),
        "404 text/plain nothing here"
    );
    assert_eq!(
        body("GET /own/ Requested-Status=429"),
        "429 text/html <b>slow</b>"
    );
    assert_eq!(
        Seen::of(&rig.ask("GET /own/ Requested-Status=404"))
            .backend
            .as_deref(),
        Some("a")
    );
    assert_eq!(
        Seen::of(&rig.ask("GET /off/ Requested-Status=404"))
            .backend
            .as_deref(),
        Some("a")
    );
    let gone = rig.ask("GET /gone/");
    assert_eq!(gone.header("content-type"), ["application/json"]);
    assert_eq!(gone.json()["status"], 503);
}

/// A bad object is left out and told; everything else goes on.
#[test]
fn bad_objects_are_told_and_the_rest_goes_on() {
    let rig = Rig::start(&[
        "Mapping good: { prefix: /good/, service: $a }",
        "Mapping typo: { prefx: /typo/, service: $a }",
        "Mapping regex: { prefix: '/a(', prefix_regex: true, service: $a }",
        "Mapping star: { prefix: /star/, host: '*', service: $a }",
        "Mapping resolver: { prefix: /resolver/, service: $a, resolver: nobody }",
        "Mapping code: { prefix: /code/, service: x, host_redirect: true, redirect_response_code: 200 }",
        "Mapping both: { prefix: /both/, service: x, host_redirect: true, path_redirect: /a, prefix_redirect: /b }",
        "Mapping heavy: { prefix: /heavy/, service: $a, weight: 101 }",
    ]);
    rig.check(
        &[
            "GET /good/",
            "GET /typo/",
            "GET /a(",
            "GET /star/",
            "GET /resolver/",
            "GET /code/",
            "GET /both/",
            "GET /heavy/",
        ],
        expect![[r#"
            GET /good/ -> 200 a /
            GET /typo/ -> 404
            GET /a( -> 404
            GET /star/ -> 404
            GET /resolver/ -> 404
            GET /code/ -> 404
            GET /both/ -> 404
            GET /heavy/ -> 404
        "#]],
    );
    expect![[r#"
        error: unknown field `prefx`
          in Mapping typo.default, at spec.prefx
          help: did you mean `prefix`?
        error: this is no regular expression: unclosed group
          in Mapping regex.default, at spec.prefix
        error: `host: *` would have to be an exact name
          in Mapping star.default, at spec.host
          help: write `hostname: "*"`
        error: unknown resolver `nobody`
          in Mapping resolver.default, at spec.resolver
          help: known are `kubernetes-service`, `kubernetes-endpoint`, `endpoint`, `consul`, `consul-endpoint`
        error: 200 is no redirect
          in Mapping code.default, at spec.redirect_response_code
          help: use 301, 302, 303, 307 or 308
        error: `path_redirect` and `prefix_redirect` exclude each other
          in Mapping both.default, at spec.prefix_redirect
        error: a weight of 101 is more than 100 percent
          in Mapping heavy.default, at spec.weight
    "#]]
    .assert_eq(&rig.told());
}
