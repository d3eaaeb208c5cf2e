use expect_test::expect;

use super::Rig;

/// Case 7.
#[test]
fn redirects_change_what_they_say() {
    let rig = Rig::start(&[
        "Mapping r1: { prefix: /r/, service: foobar.com, host_redirect: true }",
        "Mapping r2: { prefix: /r2/, service: foobar.com, host_redirect: true, case_sensitive: false }",
        "Mapping r3: { prefix: /r3/foo/, service: foobar.com, host_redirect: true, path_redirect: /redirect/, redirect_response_code: 302 }",
        "Mapping r4: { prefix: /r4/foo/bar/baz, service: foobar.com, host_redirect: true, prefix_redirect: /foobar/baz, redirect_response_code: 307 }",
        "Mapping r5: { prefix: /r5/, service: foobar.com, host_redirect: true, regex_redirect: { pattern: '/r5/([0-9]+)', substitution: '/new/\\1' }, redirect_response_code: 308 }",
    ]);
    rig.check(
        &[
            "GET /r/anything?itworked=true",
            "GET /R/anything",
            "GET /R2/anything?itworked=true",
            "GET /r3/foo/anything",
            "GET /r4/foo/bar/baz/anything",
            "GET /r5/17/x?y",
        ],
        expect![[r#"
            GET /r/anything?itworked=true -> 301 http://foobar.com/r/anything?itworked=true
            GET /R/anything -> 404
            GET /R2/anything?itworked=true -> 301 http://foobar.com/R2/anything?itworked=true
            GET /r3/foo/anything -> 302 http://foobar.com/redirect/
            GET /r4/foo/bar/baz/anything -> 307 http://foobar.com/foobar/baz/anything
            GET /r5/17/x?y -> 308 http://foobar.com/new/17/x?y
        "#]],
    );
}
