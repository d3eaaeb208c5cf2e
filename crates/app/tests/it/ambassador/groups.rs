//! Rule 2.1: which Mappings form a group, and what its members must agree on.

use expect_test::expect;

use super::Rig;

/// The first by name decides; a later one that disagrees is refused and told.
#[test]
fn members_must_agree_on_what_they_share() {
    let fields = [
        "bypass_auth: true",
        "circuit_breakers: [{ max_connections: 5 }]",
        "cluster_idle_timeout_ms: 5000",
        "cluster_max_connection_lifetime_ms: 5000",
        "connect_timeout_ms: 500",
        "keepalive: { probes: 3 }",
        "labels: { ambassador: [{ g: [{ generic_key: { value: v } }] }] }",
        "prefix_exact: true",
        "prefix_regex: true",
    ];
    let mut objects = Vec::new();
    for (number, field) in fields.iter().enumerate() {
        objects.push(format!(
            "Mapping m{number}-a: {{ prefix: /{number}/, rewrite: '', service: $a }}"
        ));
        objects.push(format!(
            "Mapping m{number}-b: {{ prefix: /{number}/, service: $b, weight: 100, {field} }}"
        ));
    }
    let objects: Vec<&str> = objects.iter().map(String::as_str).collect();
    let rig = Rig::start(&objects);
    for (number, field) in fields.iter().enumerate() {
        let share = rig.shares(&format!("GET /{number}/"), 5);
        assert_eq!(share("a"), 5, "{field}");
    }
    expect![[r#"
        error: `bypass_auth` differs from the other Mapping for the same requests
          in Mapping m0-b.default, at spec.bypass_auth
          help: its requests are shared with the one in config/ambassador.yaml:6:1
        error: `circuit_breakers` differs from the other Mapping for the same requests
          in Mapping m1-b.default, at spec.circuit_breakers
          help: its requests are shared with the one in config/ambassador.yaml:16:1
        error: `cluster_idle_timeout_ms` differs from the other Mapping for the same requests
          in Mapping m2-b.default, at spec.cluster_idle_timeout_ms
          help: its requests are shared with the one in config/ambassador.yaml:26:1
        error: `cluster_max_connection_lifetime_ms` differs from the other Mapping for the same requests
          in Mapping m3-b.default, at spec.cluster_max_connection_lifetime_ms
          help: its requests are shared with the one in config/ambassador.yaml:36:1
        error: `connect_timeout_ms` differs from the other Mapping for the same requests
          in Mapping m4-b.default, at spec.connect_timeout_ms
          help: its requests are shared with the one in config/ambassador.yaml:46:1
        error: `keepalive` differs from the other Mapping for the same requests
          in Mapping m5-b.default, at spec.keepalive
          help: its requests are shared with the one in config/ambassador.yaml:56:1
        error: `labels` differs from the other Mapping for the same requests
          in Mapping m6-b.default, at spec.labels
          help: its requests are shared with the one in config/ambassador.yaml:66:1
        error: `prefix_exact` differs from the other Mapping for the same requests
          in Mapping m7-b.default, at spec.prefix_exact
          help: its requests are shared with the one in config/ambassador.yaml:76:1
        error: `prefix_regex` differs from the other Mapping for the same requests
          in Mapping m8-b.default, at spec.prefix_regex
          help: its requests are shared with the one in config/ambassador.yaml:86:1
    "#]].assert_eq(&rig.told());
}

/// These are the member's own matter.
#[test]
fn members_may_differ_in_the_rest() {
    let rig = Rig::start(&[
        "Mapping a: { prefix: /x/, service: $a, timeout_ms: 1000, rewrite: /one/, case_sensitive: false, weight: 50 }",
        "Mapping b: { prefix: /x/, service: $b, timeout_ms: 2000, rewrite: /two/, host_rewrite: other, weight: 50 }",
    ]);
    let mut seen: Vec<String> = (0..60)
        .map(|_| super::Seen::of(&rig.ask("GET /x/")).told())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["200 a /one/", "200 b /two/"]);
    expect![[""]].assert_eq(&rig.told());
}

/// Method, host, headers, query and precedence keep groups apart, so nothing has to agree.
#[test]
fn what_matches_differently_is_another_group() {
    let rig = Rig::start(&[
        "Mapping a: { prefix: /x/, service: $a, weight: 60 }",
        "Mapping b: { prefix: /x/, service: $b, weight: 60, headers: { x-h: '1' }, connect_timeout_ms: 5 }",
        "Mapping c: { prefix: /x/, service: $c, weight: 60, method: PUT }",
        "Mapping d: { prefix: /x/, service: $b, weight: 60, hostname: d.example }",
        "Mapping e: { prefix: /x/, service: $c, weight: 60, query_parameters: { q: '1' } }",
        "Mapping f: { prefix: /x/, service: $a, weight: 60, precedence: 2, headers: { x-f: '1' } }",
    ]);
    rig.check(
        &[
            "GET /x/",
            "GET /x/ x-h=1",
            "PUT /x/",
            "GET //d.example/x/",
            "GET /x/?q=1",
            "GET //d.example/x/?q=1 x-f=1",
        ],
        expect![[r#"
            GET /x/ -> 200 a /
            GET /x/ x-h=1 -> 200 b /
            PUT /x/ -> 200 c /
            GET //d.example/x/ -> 200 b /
            GET /x/?q=1 -> 200 c /
            GET //d.example/x/?q=1 x-f=1 -> 200 a /
        "#]],
    );
}

#[test]
fn redirects_are_alone() {
    let rig = Rig::start(&[
        "Mapping a1: { prefix: /a/, service: $a }",
        "Mapping a2: { prefix: /a/, service: else.example, host_redirect: true }",
        "Mapping b1: { prefix: /b/, service: one.example, host_redirect: true }",
        "Mapping b2: { prefix: /b/, service: two.example, host_redirect: true }",
    ]);
    rig.check(
        &["GET /a/", "GET /b/"],
        expect![[r#"
            GET /a/ -> 200 a /
            GET /b/ -> 301 http://one.example/b/
        "#]],
    );
    expect![[r#"
        error: a redirect and a service cannot share requests
          in Mapping a2.default, at spec.host_redirect
          help: its requests are shared with the one in config/ambassador.yaml:6:1
        error: a redirect for the same requests exists already
          in Mapping b2.default, at spec.host_redirect
          help: its requests are shared with the one in config/ambassador.yaml:16:1
    "#]]
    .assert_eq(&rig.told());
}
