use expect_test::expect;

use super::{check, check_shares};

#[test]
fn prefixes_are_plain_text_and_become_a_slash() {
    check(
        "routes: [{ name: man, prefix: /man }, { name: x, prefix: /x/ }]",
        &[
            "GET /man",
            "GET /mankind",
            "GET /x/",
            "GET /need/../x/",
            "GET /x/a?b=c",
            "GET /x",
            "GET /X/",
        ],
        expect![[r#"
            GET /man -> man /
            GET /mankind -> man /kind
            GET /x/ -> x /
            GET /need/../x/ -> x /
            GET /x/a?b=c -> x /a
            GET /x -> 404 no route matches
            GET /X/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn exact_paths_match_whole() {
    check(
        "routes: [{ name: e, prefix: /e, prefix_exact: true, rewrite: '' }, { name: d, prefix: /d, prefix_exact: true }]",
        &["GET /e", "GET /e/", "GET /e?x", "GET /ee", "GET /d"],
        expect![[r#"
            GET /e -> e /e
            GET /e/ -> 404 no route matches
            GET /e?x -> e /e
            GET /ee -> 404 no route matches
            GET /d -> d /
        "#]],
    );
}

#[test]
fn regexes_match_the_whole_path_and_leave_it_alone() {
    check(
        r#"
        routes:
          - { name: r, prefix: "/[a-z]+/[0-9]+", prefix_regex: true }
          - { name: root, prefix: "/root/.*", prefix_regex: true, rewrite: / }
          - { name: bad, prefix: "/(", prefix_regex: true }
        "#,
        &[
            "GET /users/7",
            "GET /users/7?x=y",
            "GET /users/7/",
            "GET /x/users/7",
            "GET /root/a/b",
        ],
        expect![[r#"
            ! Mapping bad.default spec.prefix: regex parse error:
                /(
                 ^
            error: unclosed group
            GET /users/7 -> r /users/7
            GET /users/7?x=y -> r /users/7
            GET /users/7/ -> 404 no route matches
            GET /x/users/7 -> 404 no route matches
            GET /root/a/b -> root /
        "#]],
    );
}

#[test]
fn case_can_be_ignored() {
    check(
        "routes: [{ name: up, prefix: /uP/, case_sensitive: false }, { name: e, prefix: /E, prefix_exact: true, case_sensitive: false }]",
        &[
            "GET /UP/x",
            "GET /up/X",
            "GET /UP",
            "GET /e",
            "GET /E",
            "GET /e/",
        ],
        expect![[r#"
            GET /UP/x -> up /x
            GET /up/X -> up /X
            GET /UP -> 404 no route matches
            GET /e -> e /
            GET /E -> e /
            GET /e/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn longer_prefixes_win_over_everything_but_precedence() {
    check(
        r#"
        routes:
          - { name: short, prefix: /api/, method: GET, headers: { x-version: "2" }, hostname: api.example }
          - { name: long, prefix: /api/v2/ }
          - { name: regex, prefix: "/api/v[0-9]/.*", prefix_regex: true, rewrite: "" }
          - { name: first, prefix: /, precedence: 1, headers: { x-first: "1" } }
        "#,
        &[
            "GET api.example/api/v2/users x-version=2",
            "GET api.example/api/users x-version=2",
            "GET /api/v2/",
            "GET /api/v2/ x-first=1",
            "GET /api/users",
        ],
        expect![[r#"
            GET api.example/api/v2/users x-version=2 -> regex /api/v2/users
            GET api.example/api/users x-version=2 -> short /users
            GET /api/v2/ -> regex /api/v2/
            GET /api/v2/ x-first=1 -> first /api/v2/
            GET /api/users -> 404 no route matches
        "#]],
    );
}

#[test]
fn more_headers_then_more_query_then_text_decide() {
    check(
        r#"
        routes:
          - { name: plain, prefix: /p/ }
          - { name: header, prefix: /p/, headers: { X-Route: target2 } }
          - { name: long-header, prefix: /p/, headers: { X-Route: target2, x-more: "1" } }
          - { name: query, prefix: /p/, query_parameters: { a-very-long-name: with-a-long-value } }
          - { name: post, prefix: /p/, method: POST }
        "#,
        &[
            "GET /p/",
            "GET /p/ x-route=target2",
            "GET /p/ x-route=target2 x-more=1",
            "GET /p/?a-very-long-name=with-a-long-value x-route=target2",
            "GET /p/?a-very-long-name=with-a-long-value",
            "POST /p/",
            "POST /p/ x-route=target2",
        ],
        expect![[r#"
            GET /p/ -> plain /
            GET /p/ x-route=target2 -> header /
            GET /p/ x-route=target2 x-more=1 -> long-header /
            GET /p/?a-very-long-name=with-a-long-value x-route=target2 -> header /
            GET /p/?a-very-long-name=with-a-long-value -> query /
            POST /p/ -> post /
            POST /p/ x-route=target2 -> header /
        "#]],
    );
}

#[test]
fn a_regex_header_is_one_longer() {
    check(
        r#"
        routes:
          - { name: exact, prefix: /p/, headers: { x: ab } }
          - { name: regex, prefix: /p/, regex_headers: { x: a. } }
        "#,
        &["GET /p/ x=ab", "GET /p/ x=ac", "GET /p/ x=abc", "GET /p/"],
        expect![[r#"
            GET /p/ x=ab -> regex /
            GET /p/ x=ac -> regex /
            GET /p/ x=abc -> 404 no route matches
            GET /p/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn methods_are_exact_or_regex() {
    check(
        r#"
        routes:
          - { name: get, prefix: /m/, method: GET }
          - { name: write, prefix: /m/, method: "POST|PUT", method_regex: true }
        "#,
        &["GET /m/", "POST /m/", "PUT /m/", "OUTPUT /m/", "DELETE /m/"],
        expect![[r#"
            GET /m/ -> get /
            POST /m/ -> write /
            PUT /m/ -> write /
            OUTPUT /m/ -> 404 no route matches
            DELETE /m/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn headers_with_several_values_count_as_one() {
    check(
        r#"
        routes:
          - { name: joined, prefix: /h/, headers: { x: "a,b" } }
          - { name: any, prefix: /h/, regex_headers: { x: ".*" } }
        "#,
        &[
            "GET /h/ x=a x=b",
            "GET /h/ x=b x=a",
            "GET /h/ x=a,b",
            "GET /h/ y=a",
        ],
        expect![[r#"
            GET /h/ x=a x=b -> joined /
            GET /h/ x=b x=a -> any /
            GET /h/ x=a,b -> joined /
            GET /h/ y=a -> 404 no route matches
        "#]],
    );
}

#[test]
fn query_parameters_are_exact_regex_or_present() {
    check(
        r#"
        routes:
          - { name: t1, prefix: /q/ }
          - { name: t2, prefix: /q/, query_parameters: { test_param: target2 } }
          - { name: regex, prefix: /r/, regex_query_parameters: { test_param: "^[a-z].*" } }
          - { name: present, prefix: /s/, regex_query_parameters: { test_param: ".*" } }
        "#,
        &[
            "GET /q/?test_param=target2",
            "GET /q/",
            "GET /q/?x&test_param=target2&y",
            "GET /q/?test_param=x",
            "GET /r/?test_param=hello",
            "GET /r/?test_param=HeLlO",
            "GET /r/",
            "GET /s/?test_param=anything",
            "GET /s/?test_param",
            "GET /s/?other=x",
        ],
        expect![[r#"
            GET /q/?test_param=target2 -> t2 /
            GET /q/ -> t1 /
            GET /q/?x&test_param=target2&y -> t2 /
            GET /q/?test_param=x -> t1 /
            GET /r/?test_param=hello -> regex /
            GET /r/?test_param=HeLlO -> 404 no route matches
            GET /r/ -> 404 no route matches
            GET /s/?test_param=anything -> present /
            GET /s/?test_param -> present /
            GET /s/?other=x -> 404 no route matches
        "#]],
    );
}

#[test]
fn exact_hosts_ignore_the_port_unless_they_name_one() {
    check(
        r#"
        routes:
          - { name: h, prefix: /h/, host: inspector.external }
          - { name: p, prefix: /p/, hostname: "inspector.external:8080" }
          - { name: bad, prefix: /b/, host: "*" }
        "#,
        &[
            "GET /h/",
            "GET inspector.internal/h/",
            "GET inspector.external/h/",
            "GET Inspector.External/h/",
            "GET inspector.external:8080/h/",
            "GET inspector.external/p/",
            "GET inspector.external:8080/p/",
        ],
        expect![[r#"
            ! Mapping bad.default spec.host: `*` is compared as it stands, and no host has a `*` in it
            GET /h/ -> 404 no route matches
            GET inspector.internal/h/ -> 404 no route matches
            GET inspector.external/h/ -> h /
            GET Inspector.External/h/ -> h /
            GET inspector.external:8080/h/ -> h /
            GET inspector.external/p/ -> 404 no route matches
            GET inspector.external:8080/p/ -> p /
        "#]],
    );
}

#[test]
fn hostname_globs_and_regexes() {
    check(
        r#"
        routes:
          - { name: any, prefix: /, hostname: "*" }
          - { name: example, prefix: /, hostname: "*.example.com" }
          - { name: shop, prefix: /, hostname: "shop.*" }
          - { name: exact, prefix: /, hostname: shop.example.com }
          - { name: regex, prefix: /, host: "[a-c]\\.example\\.com", host_regex: true }
          - { name: both, prefix: /both/, hostname: both.example, host: other.example }
        "#,
        &[
            "GET x/",
            "GET x.y.example.com/",
            "GET example.com/",
            "GET shop.org/",
            "GET shop.example.com/",
            "GET a.example.com/",
            "GET a.example.com:8080/",
            "GET d.example.com/",
            "GET both.example/both/",
            "GET other.example/both/",
        ],
        expect![[r#"
            GET x/ -> any /
            GET x.y.example.com/ -> example /
            GET example.com/ -> any /
            GET shop.org/ -> shop /
            GET shop.example.com/ -> exact /
            GET a.example.com/ -> regex /
            GET a.example.com:8080/ -> regex /
            GET d.example.com/ -> example /
            GET both.example/both/ -> both /
            GET other.example/both/ -> any /both/
        "#]],
    );
}

#[test]
fn hosts_select_by_name_and_all_labels() {
    check(
        r#"
        hosts:
          - { hostname: a.example, requestPolicy: &r { insecure: { action: Route } } }
          - { hostname: b.example, requestPolicy: *r, mappingSelector: { matchLabels: { team: b, tier: front } } }
          - { hostname: "*.wild.example", requestPolicy: *r, selector: { matchLabels: { team: w } } }
        routes:
          - { name: any, prefix: /any/ }
          - { name: named, prefix: /named/, hostname: a.example }
          - { name: label, prefix: /label/, hostname: ~, labels: { team: b, tier: front, x: z } }
          - { name: half, prefix: /half/, hostname: ~, labels: { team: b } }
          - { name: both, prefix: /both/, labels: { team: b, tier: front } }
          - { name: wild, prefix: /wild/, hostname: x.wild.example, labels: { team: w } }
          - { name: lost, prefix: /lost/, hostname: ~ }
          - { name: nowhere, prefix: /nowhere/, hostname: nowhere.example }
          - { name: regex, prefix: /regex/, host: "[ab].example", host_regex: true, labels: { team: b, tier: front } }
        "#,
        &[
            "GET a.example/any/",
            "GET b.example/any/",
            "GET a.example/named/",
            "GET b.example/named/",
            "GET a.example/label/",
            "GET b.example/label/",
            "GET b.example/half/",
            "GET a.example/both/",
            "GET b.example/both/",
            "GET x.wild.example/wild/",
            "GET y.wild.example/wild/",
            "GET a.example/lost/",
            "GET c.example/any/",
            "GET a.example/regex/",
            "GET b.example/regex/",
        ],
        expect![[r#"
            ! Mapping half.default : no Host takes it: it has no `hostname`, and no Host selects it by its labels
            ! Mapping lost.default : no Host takes it: it has no `hostname`, and no Host selects it by its labels
            ! Mapping nowhere.default : no Host takes it: none has a `hostname` that goes with `nowhere.example`
            GET a.example/any/ -> any /
            GET b.example/any/ -> 404 no route matches
            GET a.example/named/ -> named /
            GET b.example/named/ -> 404 no route matches
            GET a.example/label/ -> 404 no route matches
            GET b.example/label/ -> label /
            GET b.example/half/ -> 404 no route matches
            GET a.example/both/ -> both /
            GET b.example/both/ -> both /
            GET x.wild.example/wild/ -> wild /
            GET y.wild.example/wild/ -> 404 no route matches
            GET a.example/lost/ -> 404 no route matches
            GET c.example/any/ -> 404 no Host has this name
            GET a.example/regex/ -> regex /
            GET b.example/regex/ -> regex /
        "#]],
    );
}

#[test]
fn without_hostname_and_selector_nothing_matches_and_that_is_told() {
    check(
        "routes: [{ name: a, prefix: /a/, hostname: ~ }]",
        &["GET /a/"],
        expect![[r#"
            ! Mapping a.default : no Host takes it: it has no `hostname`, and no Host selects it by its labels
            GET /a/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn cleartext_is_routed_redirected_or_rejected() {
    check(
        r#"
        hosts:
          - { name: h1, hostname: h1, requestPolicy: { insecure: { action: Route } } }
          - { name: h2, hostname: h2 }
          - { name: h3, hostname: h3, requestPolicy: { insecure: { action: Reject } } }
        routes:
          - { name: t1, prefix: /target-1/, hostname: h1 }
          - { name: t2, prefix: /target-2/, hostname: h2 }
          - { name: t3, prefix: /target-3/, hostname: h3 }
          - { name: shared, prefix: /shared/ }
          - { name: acme, prefix: /.well-known/acme-challenge/, hostname: h3 }
        "#,
        &[
            "GET https://h1/target-1/",
            "GET https://h1/target-2/",
            "GET https://h2/target-2/",
            "GET https://h3/target-3/",
            "GET https://h1/shared/",
            "GET https://h2/shared/",
            "GET https://h3/shared/",
            "GET http://h1/target-1/",
            "GET http://h2/target-2/?a=b",
            "GET http://h2:80/shared/",
            "GET http://h2/target-1/",
            "GET http://h3/target-3/",
            "GET http://h3/.well-known/acme-challenge/x",
            "GET http://h2/.well-known/acme-challenge/x",
        ],
        expect![[r#"
            GET https://h1/target-1/ -> t1 /
            GET https://h1/target-2/ -> 404 no route matches
            GET https://h2/target-2/ -> t2 /
            GET https://h3/target-3/ -> t3 /
            GET https://h1/shared/ -> shared /
            GET https://h2/shared/ -> shared /
            GET https://h3/shared/ -> shared /
            GET http://h1/target-1/ -> t1 /
            GET http://h2/target-2/?a=b -> 301 https://h2/target-2/?a=b
            GET http://h2:80/shared/ -> 301 https://h2/shared/
            GET http://h2/target-1/ -> 404 no route matches
            GET http://h3/target-3/ -> 404 the Host rejects requests without TLS
            GET http://h3/.well-known/acme-challenge/x -> acme /x
            GET http://h2/.well-known/acme-challenge/x -> 404 no route matches
        "#]],
    );
}

#[test]
fn redirects_keep_what_is_not_replaced() {
    check(
        r#"
        routes:
          - { prefix: /r/, service: foobar.com, host_redirect: true }
          - { prefix: /r2/, service: foobar.com, host_redirect: true, case_sensitive: false }
          - { prefix: /r3/foo/, service: foobar.com, host_redirect: true, path_redirect: /redirect/, redirect_response_code: 302 }
          - { prefix: /r4/foo/bar/baz, service: foobar.com, host_redirect: true, prefix_redirect: /foobar/baz, redirect_response_code: 307 }
          - { prefix: /r5/, service: "https://foobar.com:8443", host_redirect: true, regex_redirect: { pattern: "/([a-z]+)/([0-9]+)", substitution: '/\2/\1' }, redirect_response_code: 308 }
          - { name: bad, prefix: /r6/, service: foobar.com, host_redirect: true, redirect_response_code: 200 }
        "#,
        &[
            "GET /r/anything?itworked=true",
            "GET /R/anything",
            "GET /R2/anything?itworked=true",
            "GET /r3/foo/anything",
            "GET /r4/foo/bar/baz/anything",
            "GET https://x/r5/abc/12?q",
            "GET https://x/r/",
        ],
        expect![[r#"
            ! Mapping bad.default spec.redirect_response_code: only 301, 302, 303, 307 and 308 are redirects
            GET /r/anything?itworked=true -> 301 http://foobar.com/r/anything?itworked=true
            GET /R/anything -> 404 no route matches
            GET /R2/anything?itworked=true -> 301 http://foobar.com/R2/anything?itworked=true
            GET /r3/foo/anything -> 302 http://foobar.com/redirect/
            GET /r4/foo/bar/baz/anything -> 307 http://foobar.com/foobar/baz/anything
            GET https://x/r5/abc/12?q -> 308 https://foobar.com:8443/r5/12/abc?q
            GET https://x/r/ -> 301 https://foobar.com/r/
        "#]],
    );
}

#[test]
fn rewrites_replace_prefix_or_pattern() {
    check(
        r#"
        routes:
          - { name: a, prefix: /p/, rewrite: /foo }
          - { name: b, prefix: /keep/, rewrite: "" }
          - { name: c, prefix: /foo/, regex_rewrite: { pattern: /foo/baz, substitution: /baz/foo }, rewrite: /never/ }
          - { name: d, prefix: /bad/, regex_rewrite: { pattern: a, substitution: '\1' } }
          - { name: e, prefix: /orders }
        "#,
        &[
            "GET /p/",
            "GET /keep/x",
            "GET /foo/bar",
            "GET /foo/baz",
            "GET /ffoo/",
            "GET /orders",
            "GET /orders/1",
        ],
        expect![[r#"
            ! Mapping d.default spec.regex_rewrite: the substitution uses group `\1`, but the pattern has 0
            GET /p/ -> a /foo
            GET /keep/x -> b /keep/x
            GET /foo/bar -> c /foo/bar
            GET /foo/baz -> c /baz/foo
            GET /ffoo/ -> 404 no route matches
            GET /orders -> e /
            GET /orders/1 -> e /1
        "#]],
    );
}

#[test]
fn weights_share_requests() {
    let canary = |weight: &str| {
        format!(
            "routes: [{{ name: main, prefix: /c/ }}, {{ name: canary, prefix: /c/, weight: {weight} }}]"
        )
    };
    check_shares(
        &canary("0"),
        "GET /c/",
        expect![[r#"
        100 main /
    "#]],
    );
    check_shares(
        &canary("10"),
        "GET /c/",
        expect![[r#"
        10 canary /
        90 main /
    "#]],
    );
    check_shares(
        &canary("50"),
        "GET /c/",
        expect![[r#"
        50 canary /
        50 main /
    "#]],
    );
    check_shares(
        &canary("100"),
        "GET /c/",
        expect![[r#"
        100 canary /
    "#]],
    );
    check_shares(
        "routes: [{ name: single, prefix: /c/, weight: 5 }]",
        "GET /c/",
        expect![[r#"
        100 single /
    "#]],
    );
    check_shares(
        "routes: [{ name: a, prefix: /c/ }, { name: b, prefix: /c/ }, { name: c, prefix: /c/, weight: 40 }, { name: d, prefix: /c/ }]",
        "GET /c/",
        expect![[r#"
            20 a /
            20 b /
            40 c /
            20 d /
        "#]],
    );
}

#[test]
fn what_weights_leave_falls_through() {
    check_shares(
        "routes: [{ name: a, prefix: /c/, weight: 40 }, { name: b, prefix: /c/, weight: 40 }]",
        "GET /c/",
        expect![[r#"
            20 404 no route matches
            40 a /
            40 b /
        "#]],
    );
    check_shares(
        "routes: [{ name: a, prefix: /c/, weight: 40 }, { name: b, prefix: /c/, weight: 40 }, { name: rest, prefix: / }]",
        "GET /c/",
        expect![[r#"
            40 a /
            40 b /
            20 rest /c/
        "#]],
    );
}

#[test]
fn impossible_weights_take_the_whole_group_out() {
    check(
        r#"
        routes:
          - { name: a, prefix: /a/, weight: 60 }
          - { name: b, prefix: /a/, weight: 60 }
          - { name: c, prefix: /c/, weight: 101 }
          - { name: d, prefix: /c/ }
          - { name: rest, prefix: / }
        "#,
        &["GET /a/", "GET /c/"],
        expect![[r#"
            ! Mapping a.default : the weights of these routes make 120 together, but 100 is the whole
            ! Mapping b.default : the weights of these routes make 120 together, but 100 is the whole
            ! Mapping c.default : the weight of `c.default` is 101, but 100 is the whole
            ! Mapping d.default : the weight of `c.default` is 101, but 100 is the whole
            GET /a/ -> rest /a/
            GET /c/ -> rest /c/
        "#]],
    );
}

#[test]
fn group_members_must_agree_on_what_they_share() {
    check(
        r#"
        routes:
          - { name: a, prefix: /a/, bypass_auth: true }
          - { name: b, prefix: /a/, weight: 50 }
          - { name: c, prefix: /a/, prefix_exact: true }
          - { name: d, prefix: /a/, bypass_auth: true, timeout_ms: 1, rewrite: /d/ , weight: 50 }
          - { name: e, prefix: /e/, service: x, host_redirect: true }
          - { name: f, prefix: /e/, service: other, host_redirect: true }
          - { name: g, prefix: /e/ }
        "#,
        &["GET /a/ draw=10", "GET /a/ draw=90", "GET /e/"],
        expect![[r#"
            ! Mapping b.default : `bypass_auth` differs from that of `a.default`, which matches the same
            ! Mapping c.default : `prefix` is an exact path here but a prefix in `a.default`, which matches the same
            ! Mapping f.default : `e.default` redirects the same match already
            ! Mapping g.default : redirects and services cannot share a match, see `e.default`
            GET /a/ draw=10 -> d /d/
            GET /a/ draw=90 -> a /
            GET /e/ -> 301 http://x/e/
        "#]],
    );
}

#[test]
fn case_may_differ_inside_a_group() {
    check(
        r#"
        routes:
          - { name: a, prefix: /a/, weight: 50 }
          - { name: b, prefix: /a/, case_sensitive: false }
        "#,
        &[
            "GET /a/ draw=10",
            "GET /a/ draw=90",
            "GET /A/ draw=10",
            "GET /A/ draw=90",
        ],
        expect![[r#"
            GET /a/ draw=10 -> a /
            GET /a/ draw=90 -> b /
            GET /A/ draw=10 -> b /
            GET /A/ draw=90 -> b /
        "#]],
    );
}

#[test]
fn one_shadow_gets_copies() {
    check(
        r#"
        routes:
          - { name: a, prefix: /a/ }
          - { name: b, prefix: /a/, shadow: true, weight: 10 }
          - { name: c, prefix: /a/, shadow: true }
          - { name: d, prefix: /d/, shadow: true }
        "#,
        &["GET /a/", "GET /d/"],
        expect![[r#"
            ! Mapping c.default : there is another shadow for the same match
            ! Mapping d.default : a shadow needs a route with the same match to copy from
            GET /a/ -> a / shadowed by b.default
            GET /d/ -> 404 no route matches
        "#]],
    );
}

#[test]
fn labels_split_a_group_by_host() {
    check(
        r#"
        hosts:
          - { hostname: all, requestPolicy: &r { insecure: { action: Route } } }
          - { hostname: some, requestPolicy: *r, mappingSelector: { matchLabels: { in: some } } }
        routes:
          - { name: a, prefix: /a/, weight: 50 }
          - { name: b, prefix: /a/, weight: 50, labels: { in: some } }
        "#,
        &[
            "GET all/a/ draw=10",
            "GET all/a/ draw=90",
            "GET some/a/ draw=10",
            "GET some/a/ draw=90",
        ],
        expect![[r#"
            GET all/a/ draw=10 -> a /
            GET all/a/ draw=90 -> b /
            GET some/a/ draw=10 -> b /
            GET some/a/ draw=90 -> b /
        "#]],
    );
}

#[test]
fn publish_routes_rank_like_exact_mappings() {
    check(
        r#"
        routes:
          - { name: all, prefix: /events/ }
          - { name: deep, prefix: /events/special/, rewrite: "" }
        publish:
          - { route: POST /events/orders, topic: orders }
          - { route: "POST /events/{kind}", topic: kinds }
          - { route: "PUT /events/{kind}/{rest...}", topic: puts }
          - { name: twice, route: "POST /events/{other}", topic: never }
        "#,
        &[
            "POST /events/orders",
            "GET /events/orders",
            "POST /events/orders/",
            "POST /events/mails",
            "POST /events/a/b",
            "PUT /events/a/b/c",
            "PUT /events/special/b",
        ],
        expect![[r#"
            ! Publish x.default : `twice.default` matches the same, and a publish route shares with nobody
            POST /events/orders -> orders [] /events/orders
            GET /events/orders -> all /orders
            POST /events/orders/ -> all /orders/
            POST /events/mails -> never [("other", "mails")] /events/mails
            POST /events/a/b -> all /a/b
            PUT /events/a/b/c -> puts [("kind", "a"), ("rest", "b/c")] /events/a/b/c
            PUT /events/special/b -> deep /events/special/b
        "#]],
    );
}

#[test]
fn pseudo_headers_count_as_headers() {
    check(
        r#"
        routes:
          - { name: a, prefix: /a/, headers: { ":authority": a.example } }
          - { name: b, prefix: /a/, regex_headers: { ":path": ".*[?]x=1" } }
          - { name: c, prefix: /a/, headers: { Host: c.example } }
          - { name: bad, prefix: /a/, headers: { "a b": c } }
        "#,
        &[
            "GET a.example:80/a/",
            "GET b/a/?x=1",
            "GET c.example/a/",
            "GET d/a/",
        ],
        expect![[r#"
            ! Mapping bad.default spec.headers: `a b` is no name for a header
            GET a.example:80/a/ -> a /
            GET b/a/?x=1 -> b /
            GET c.example/a/ -> c /
            GET d/a/ -> 404 no route matches
        "#]],
    );
}
