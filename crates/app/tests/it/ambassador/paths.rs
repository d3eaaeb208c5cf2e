use expect_test::expect;

use super::{Rig, Seen};

/// Cases 1, 16, 18, 20.
#[test]
fn prefixes_regexes_and_rewrites() {
    let rig = Rig::start(&[
        "Mapping simple: { prefix: /x/, service: $a }",
        "Mapping exact: { prefix: /exact, prefix_exact: true, service: $a, rewrite: '' }",
        "Mapping regex: { prefix: '/[a-z]+/[0-9]+', prefix_regex: true, service: $b, rewrite: '' }",
        "Mapping folded: { prefix: /up/, case_sensitive: false, service: $c }",
        "Mapping rewritten: { prefix: /p/, rewrite: /foo, service: $a }",
        "Mapping pattern: { prefix: /foo/, regex_rewrite: { pattern: /foo/baz, substitution: /baz/foo }, service: $a }",
        "Mapping man: { prefix: /man, rewrite: '', service: $b }",
    ]);
    rig.check(
        &[
            "GET /x/",
            "GET /need/../x/",
            "GET /x/y?a=b",
            "GET /exact",
            "GET /exact/",
            "GET /abc/123",
            "GET /abc/123/4",
            "GET /UP/",
            "GET /p/",
            "GET /foo/bar",
            "GET /foo/baz",
            "GET /ffoo/",
            "GET /mankind",
        ],
        expect![[r#"
            GET /x/ -> 200 a /
            GET /need/../x/ -> 200 a /
            GET /x/y?a=b -> 200 a /y
            GET /exact -> 200 a /exact
            GET /exact/ -> 404
            GET /abc/123 -> 200 b /abc/123
            GET /abc/123/4 -> 404
            GET /UP/ -> 200 c /
            GET /p/ -> 200 a /foo
            GET /foo/bar -> 200 a /foo/bar
            GET /foo/baz -> 200 a /baz/foo
            GET /ffoo/ -> 404
            GET /mankind -> 200 b /mankind
        "#]],
    );
    let seen = Seen::of(&rig.ask("GET /x/y?a=b"));
    assert_eq!(seen.header("x-envoy-original-path"), ["/x/y?a=b"]);
    assert_eq!(seen.request["url"]["rawQuery"], "a=b");
    assert!(rig.ask("GET /nowhere").body.is_empty());
}

/// Case 36.
#[test]
fn doubled_slashes_stay_or_merge() {
    let mapping = "Mapping status: { prefix: /x/status/, rewrite: /status/, service: $a }";
    let kept = Rig::start(&[mapping]);
    kept.check(
        &["GET /x/status/200", "GET /x//status/200"],
        expect![[r#"
            GET /x/status/200 -> 200 a /status/200
            GET /x//status/200 -> 404
        "#]],
    );
    let merged = Rig::start(&[mapping, "Module ambassador: { merge_slashes: true }"]);
    // Two slashes at the very beginning would be an authority for `Rig::check`.
    let response = testkit::raw::http(
        merged.nuncio.gateway(),
        "GET //x/status/200 HTTP/1.1\nhost: ambassador.test",
        "",
    );
    assert_eq!(Seen::of(&response).told(), "200 a /status/200");
    merged.check(
        &["GET /x//status/200"],
        expect![[r#"
            GET /x//status/200 -> 200 a /status/200
        "#]],
    );
}

/// What must not get past a path match.
#[test]
fn escapes_cannot_get_past_a_match() {
    let objects = [
        "Mapping public: { prefix: /public/, rewrite: '', service: $a }",
        "Mapping admin: { prefix: /admin/, rewrite: '', service: $b }",
    ];
    let rig = Rig::start(&objects);
    rig.check(
        &[
            "GET /public/../admin/",
            "GET /public/%2e%2E/admin/",
            "GET /public/..%2fadmin/",
            "GET /%61dmin/",
            "GET /public/%2%65%2%65/",
            "GET /public/%00",
        ],
        expect![[r#"
            GET /public/../admin/ -> 200 b /admin/
            GET /public/%2e%2E/admin/ -> 200 b /admin/
            GET /public/..%2fadmin/ -> 200 a /public/..%2fadmin/
            GET /%61dmin/ -> 200 b /admin/
            GET /public/%2%65%2%65/ -> 400
            GET /public/%00 -> 400
        "#]],
    );
    let strict = "Module ambassador: { reject_requests_with_escaped_slashes: true }";
    let rig = Rig::start(&[&objects[..], &[strict]].concat());
    rig.check(
        &["GET /public/a%2Fb", "GET /public/a%5cb", "GET /public/a"],
        expect![[r#"
            GET /public/a%2Fb -> 400
            GET /public/a%5cb -> 400
            GET /public/a -> 200 a /public/a
        "#]],
    );
}

/// Rules 2.4, and where we differ: a regular expression without `rewrite` leaves the path as it is.
#[test]
fn default_rewrites() {
    let rig = Rig::start(&[
        "Mapping exact: { prefix: /exact/x, prefix_exact: true, service: $a }",
        "Mapping regex: { prefix: '/r/.*', prefix_regex: true, service: $b }",
        "Mapping whole: { prefix: '/w/.*', prefix_regex: true, rewrite: /, service: $b }",
        "Mapping noslash: { prefix: /orders, service: $c }",
        "Mapping bare: { prefix: /bare/, rewrite: bare, service: $c }",
        "Mapping both: { prefix: /both/, rewrite: /no/, regex_rewrite: { pattern: '/both/([a-z]+)', substitution: '/\\1/both' }, service: $a }",
    ]);
    rig.check(
        &[
            "GET /exact/x",
            "GET /r/a/b?q",
            "GET /w/a/b?q",
            "GET /orders/1",
            "GET /orders",
            "GET /bare/x",
            "GET /both/abc/1",
        ],
        expect![[r#"
            GET /exact/x -> 200 a /
            GET /r/a/b?q -> 200 b /r/a/b
            GET /w/a/b?q -> 200 b /
            GET /orders/1 -> 200 c /1
            GET /orders -> 200 c /
            GET /bare/x -> 200 c /barex
            GET /both/abc/1 -> 200 a /abc/both/1
        "#]],
    );
}
