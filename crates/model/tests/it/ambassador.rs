//! Ambassador's kinds in both versions.

use expect_test::{Expect, expect};
use model::guard::{Guard, Rule};

use crate::{load, names, problems};

/// Checks the problems of one Mapping of v3alpha1, whose spec is given.
#[track_caller]
fn mapping(spec: &str, expected: Expect) {
    let spec = spec.replace('\n', "\n  ");
    problems(
        &format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: m }}\nspec:\n  {spec}"
        ),
        expected,
    );
}

#[test]
fn required_fields_are_missed_together() {
    mapping(
        "timeout_ms: x",
        expect![[r#"
        a.yaml:5:3: error: spec: the field `prefix` is missing
        a.yaml:5:3: error: spec: the field `service` is missing
        a.yaml:5:15: error: spec.timeout_ms: expected a whole number, not negative, found `x`
    "#]],
    );
}

#[test]
fn unknown_fields_are_all_named() {
    mapping(
        "prefix: /\nservice: s\nprefx: 1\nsevice: 2\nretry_policy: { retry_on: 5xx, retries: 3 }",
        expect![[r#"
            a.yaml:7:3: error: spec.prefx: unknown field `prefx` (did you mean `prefix`?)
            a.yaml:8:3: error: spec.sevice: unknown field `sevice` (did you mean `service`?)
            a.yaml:9:34: error: spec.retry_policy.retries: unknown field `retries` (did you mean `num_retries`?)
        "#]],
    );
}

#[test]
fn types_are_told_in_words() {
    mapping(
        "prefix: [a]\nservice: {}\ntimeout_ms: '5'\nweight: 1.5\nprefix_exact: maybe\nallow_upgrade: websocket\nadd_request_headers: { x: y }\nheaders: [a]\nretry_policy: 5xx",
        expect![[r#"
            a.yaml:5:11: error: spec.prefix: expected text, found a list
            a.yaml:6:12: error: spec.service: expected text, found a map
            a.yaml:7:15: error: spec.timeout_ms: expected a whole number, not negative, found `5` (take the quotes off)
            a.yaml:8:11: error: spec.weight: expected a whole number, not negative, found `1.5`
            a.yaml:9:17: error: spec.prefix_exact: expected `true` or `false`, found `maybe`
            a.yaml:10:18: error: spec.allow_upgrade: expected a list, found `websocket`
            a.yaml:11:29: error: spec.add_request_headers.x: expected a map of fields, found `y`
            a.yaml:12:12: error: spec.headers: expected a map, found a list
            a.yaml:13:17: error: spec.retry_policy: expected a map of fields, found `5xx`
        "#]],
    );
}

#[test]
fn words_are_compared() {
    mapping(
        "prefix: /\nservice: s\nretry_policy: { retry_on: 5XX }\nload_balancer: { policy: roundrobin }",
        expect![[r#"
            a.yaml:7:29: error: spec.retry_policy.retry_on: unknown value `5XX` (did you mean `5xx`?)
            a.yaml:8:28: error: spec.load_balancer.policy: unknown value `roundrobin` (did you mean `round_robin`?)
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nretry_policy: { retry_on: never }",
        expect![[r#"
            a.yaml:7:29: error: spec.retry_policy.retry_on: unknown value `never` (known are `5xx`, `gateway-error`, `reset`, `reset-before-request`, `connect-failure`, `retriable-4xx`, `refused-stream`, `retriable-status-codes`, `retriable-headers`, `envoy-ratelimited`, `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`)
        "#]],
    );
}

#[test]
fn presence_has_another_spelling_in_v3() {
    mapping(
        "prefix: /\nservice: s\nheaders: { x-debug: true }",
        expect![[r#"
            a.yaml:7:23: error: spec.headers.x-debug: expected text, found a boolean (write `regex_headers: { x-debug: ".*" }` to ask for presence, or quotes for the word)
        "#]],
    );
}

#[test]
fn paths_are_checked() {
    mapping(
        "prefix: api\nservice: s",
        expect![[r#"
        a.yaml:5:11: warning: spec.prefix: no path starts with `api`, so it never matches (did you mean `/api`?)
    "#]],
    );
    mapping(
        "prefix: ''\nservice: s",
        expect![[r#"
        a.yaml:5:11: error: spec.prefix: the prefix is empty (write `/` for every path)
    "#]],
    );
    mapping(
        "prefix: /a?b=c\nservice: s",
        expect![[r#"
        a.yaml:5:11: warning: spec.prefix: the path is compared without query, so it never matches (use `query_parameters`)
    "#]],
    );
    mapping(
        "prefix: '/a(b'\nprefix_regex: true\nservice: s\nrewrite: ''",
        expect![[r#"
            a.yaml:5:11: error: spec.prefix: this is no regular expression: unclosed group
        "#]],
    );
    mapping(
        "prefix: '/a)(b'\nprefix_regex: true\nservice: s\nrewrite: ''",
        expect![[r#"
            a.yaml:5:11: error: spec.prefix: this is no regular expression: unopened group
        "#]],
    );
    mapping("prefix: /a/.*\nprefix_regex: true\nservice: s", expect![""]);
    mapping(
        "prefix: /a\nprefix_regex: true\nprefix_exact: true\nservice: s\nrewrite: ''",
        expect![[r#"
            a.yaml:7:17: error: spec.prefix_exact: `prefix_exact` and `prefix_regex` exclude each other
        "#]],
    );
    mapping(
        "prefix: '/((((a{1,200}){1,200}){1,200}){1,200})'\nprefix_regex: true\nservice: s\nrewrite: ''",
        expect![[r#"
            a.yaml:5:11: error: spec.prefix: this regular expression is too large
        "#]],
    );
}

#[test]
fn hosts_are_checked() {
    mapping(
        "prefix: /\nservice: s\nhost: '*'",
        expect![[r#"
        a.yaml:7:9: error: spec.host: `host: *` would have to be an exact name (write `hostname: "*"`)
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhost: '['\nhost_regex: true",
        expect![[r#"
            a.yaml:7:9: error: spec.host: this is no regular expression: unclosed character class
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhost_regex: true",
        expect![[r#"
        a.yaml:7:15: error: spec.host_regex: `host_regex` needs `host`
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhost: a\nhostname: b",
        expect![[r#"
        a.yaml:7:9: warning: spec.host: `hostname` wins, `host` has no effect
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhostname: https://a",
        expect![[r#"
        a.yaml:7:13: error: spec.hostname: `https://a` is no host name, since it has a `/` (write only host and port)
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhostname: '*a*'",
        expect![[r#"
        a.yaml:7:13: error: spec.hostname: `*a*` is no glob (a `*` stands alone, at the start or at the end)
    "#]],
    );
}

#[test]
fn services_are_checked() {
    mapping(
        "prefix: /\nservice: ftp://s",
        expect![[r#"
        a.yaml:6:12: error: spec.service: the scheme `ftp` is neither `http` nor `https` (write `service`, `service.namespace:port` or `https://service`)
    "#]],
    );
    mapping(
        "prefix: /\nservice: s/path",
        expect![[r#"
        a.yaml:6:12: error: spec.service: `/path` does not belong to a service, only host and port do (write `service`, `service.namespace:port` or `https://service`)
    "#]],
    );
    mapping(
        "prefix: /\nservice: s:99999",
        expect![[r#"
        a.yaml:6:12: error: spec.service: `99999` is no port, use 1 to 65535 (write `service`, `service.namespace:port` or `https://service`)
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nresolver: kubernetes-endpoints",
        expect![[r#"
            a.yaml:7:13: error: spec.resolver: unknown resolver `kubernetes-endpoints` (did you mean `kubernetes-endpoint`?)
        "#]],
    );
    mapping(
        "prefix: /\nservice: s:80\nresolver: consul",
        expect![[r#"
            a.yaml:6:12: warning: spec.service: Consul tells the ports, the one that is written has no effect
        "#]],
    );
    mapping(
        "prefix: /\nservice: _http._tcp.s:80\ndns_type: srv",
        expect![[r#"
            a.yaml:6:12: error: spec.service: SRV records tell the ports, `:80` has no effect (write `_http._tcp.s`)
        "#]],
    );
}

#[test]
fn rewrites_and_redirects_are_checked() {
    mapping(
        "prefix: /\nservice: s\nregex_rewrite: { pattern: '/(a)', substitution: '/\\2' }",
        expect![[r#"
            a.yaml:7:51: error: spec.regex_rewrite.substitution: `\2` has no group, the pattern has 1
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nregex_rewrite: { pattern: '/(a)', substitution: '/\\x' }\nrewrite: /b",
        expect![[r#"
            a.yaml:7:51: error: spec.regex_rewrite.substitution: a `\` is followed by the number of a group or by another `\`
            a.yaml:8:12: warning: spec.rewrite: `regex_rewrite` wins, `rewrite` has no effect
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\npath_redirect: /a\nprefix_redirect: /b",
        expect![[r#"
            a.yaml:7:18: warning: spec.path_redirect: `path_redirect` has no effect without `host_redirect` (write `host_redirect: true`)
            a.yaml:8:20: error: spec.prefix_redirect: `path_redirect` and `prefix_redirect` exclude each other
            a.yaml:8:20: warning: spec.prefix_redirect: `prefix_redirect` has no effect without `host_redirect` (write `host_redirect: true`)
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhost_redirect: true\nredirect_response_code: 200",
        expect![[r#"
            a.yaml:8:27: error: spec.redirect_response_code: 200 is no redirect (use 301, 302, 303, 307 or 308)
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nredirect_response_code: 302",
        expect![[r#"
            a.yaml:7:27: warning: spec.redirect_response_code: `redirect_response_code` has no effect without `host_redirect`
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nhost_rewrite: a\nauto_host_rewrite: true",
        expect![[r#"
            a.yaml:8:22: error: spec.auto_host_rewrite: `host_rewrite` and `auto_host_rewrite` exclude each other
        "#]],
    );
}

#[test]
fn headers_and_methods_are_checked() {
    mapping(
        "prefix: /\nservice: s\nmethod: 'GET POST'",
        expect![[r#"
        a.yaml:7:11: error: spec.method: `GET POST` is no method
    "#]],
    );
    mapping(
        "prefix: /\nservice: s\nmethod: '('\nmethod_regex: true",
        expect![[r#"
            a.yaml:7:11: error: spec.method: this is no regular expression: unclosed group
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nheaders: { 'x y': a }\nadd_response_headers: { x: { value: \"a\\nb\" } }\nremove_request_headers: ['a:b']",
        expect![[r#"
            a.yaml:7:21: error: spec.headers.x y: `x y` is no header name
            a.yaml:8:30: error: spec.add_response_headers.x: a header value has no line breaks or control characters
            a.yaml:9:28: error: spec.remove_request_headers[0]: `a:b` is no header name
        "#]],
    );
    mapping(
        "prefix: /\nservice: s\nregex_query_parameters: { a: '*' }",
        expect![[r#"
            a.yaml:7:32: error: spec.regex_query_parameters.a: this is no regular expression: repetition operator missing expression
        "#]],
    );
}

#[test]
fn balancers_need_their_key() {
    let with = |balancer: &str| format!("prefix: /\nservice: s\nload_balancer: {balancer}");
    mapping(&with("{ policy: round_robin }"), expect![""]);
    mapping(
        &with("{ policy: round_robin, header: x }"),
        expect![[r#"
            a.yaml:7:28: error: spec.load_balancer.policy: this policy takes none of `cookie`, `header` and `source_ip`
        "#]],
    );
    mapping(
        &with("{ policy: ring_hash }"),
        expect![[r#"
            a.yaml:7:28: error: spec.load_balancer.policy: this policy needs exactly one of `cookie`, `header` and `source_ip`
        "#]],
    );
    mapping(
        &with("{ policy: ring_hash, header: x, source_ip: true }"),
        expect![[r#"
            a.yaml:7:28: error: spec.load_balancer.policy: this policy needs exactly one of `cookie`, `header` and `source_ip`
        "#]],
    );
    mapping(
        &with("{ policy: rr }"),
        expect![[r#"
        a.yaml:7:28: error: spec.load_balancer.policy: unknown value `rr` (known are `round_robin`, `least_request`, `ring_hash`, `maglev`, `random`)
    "#]],
    );
}

#[test]
fn extensions_of_balancers_have_bounds() {
    let with = |more: &str| format!("prefix: /\nservice: s\nload_balancer: {{ {more} }}");
    mapping(
        &with(
            "policy: least_request, slow_start: { window: 30s, aggression: 1.5, min_weight_percent: 5 }, \
             zone_preference: {}, healthy_panic_threshold: 0",
        ),
        expect![""],
    );
    mapping(
        &with(
            "policy: maglev, cookie: { name: 'a b', path: 'x;y', ttl: 60s }, slow_start: { window: 0, aggression: 11 }, \
             healthy_panic_threshold: 101, zone_preference: { min_healthy_percent: 0 }",
        ),
        expect![[r#"
            a.yaml:7:52: error: spec.load_balancer.cookie.name: `a b` cannot be the name of a cookie
            a.yaml:7:65: error: spec.load_balancer.cookie.path: `x;y` cannot be the path of a cookie
            a.yaml:7:96: error: spec.load_balancer.slow_start: only `round_robin` and `least_request` can start slowly
            a.yaml:7:106: error: spec.load_balancer.slow_start.window: a window of zero starts at once (write `30s`)
            a.yaml:7:121: error: spec.load_balancer.slow_start.aggression: the aggression is out of range (use 0.1 to 10)
            a.yaml:7:152: error: spec.load_balancer.healthy_panic_threshold: 101 is out of range (use 0 to 100)
            a.yaml:7:197: error: spec.load_balancer.zone_preference.min_healthy_percent: 0 is out of range (use 1 to 100)
        "#]],
    );
}

#[test]
fn health_checks_ask_one_thing() {
    let with = |check: &str| format!("prefix: /\nservice: s\nhealth_checks: [{{ {check} }}]");
    for good in [
        "health_check: { http: { path: /healthz, expected_statuses: [{ min: 200, max: 299 }] } }, timeout: 1s",
        "health_check: { grpc: { upstream_name: shop, authority: 'shop:80' } }, interval: 500ms",
        "health_check: { tcp: {} }, unhealthy_threshold: 1, healthy_threshold: 3",
    ] {
        mapping(&with(good), expect![""]);
    }
    mapping(
        &with(
            "health_check: { tcp: {}, http: { path: healthz, expected_statuses: [{ min: 300, max: 200 }] } }, \
             interval: 1ms, timeout: 0, healthy_threshold: 0",
        ),
        expect![[r#"
            a.yaml:7:35: error: spec.health_checks[0].health_check: a health check has exactly one of `http`, `grpc` and `tcp`
            a.yaml:7:60: error: spec.health_checks[0].health_check.http.path: `healthz` is no path (write `/healthz`)
            a.yaml:7:89: error: spec.health_checks[0].health_check.http.expected_statuses[0]: this is no range of statuses (write `{ min: 200, max: 299 }`)
            a.yaml:7:128: error: spec.health_checks[0].interval: checks more often than every 10ms are refused (write `5s`)
            a.yaml:7:142: error: spec.health_checks[0].timeout: nobody answers in no time (write `3s`)
            a.yaml:7:164: error: spec.health_checks[0].healthy_threshold: 0 is out of range (use 1 or more)
        "#]],
    );
}

#[test]
fn outlier_detection_is_an_object_or_its_text() {
    let with = |said: &str| format!("prefix: /\nservice: s\noutlier_detection: {said}");
    mapping(&with("{ consecutive_5xx: 3, interval: 1s }"), expect![""]);
    mapping(&with("'{ \"consecutive_5xx\": 3 }'"), expect![""]);
    mapping(&with("'consecutive_5xx: 3'"), expect![""]);
    mapping(
        &with("'yes please'"),
        expect![[r#"
        a.yaml:7:22: error: spec.outlier_detection: this text is no outlier detection; write a map such as `{ consecutive_5xx: 5, base_ejection_time: 30s }`
    "#]],
    );
    mapping(
        &with(
            "{ consecutive_5x: 3, max_ejection_percent: 200, base_ejection_time: 9s, max_ejection_time: 8s }",
        ),
        expect![[r#"
            a.yaml:7:24: error: spec.outlier_detection.consecutive_5x: unknown field `consecutive_5x` (did you mean `consecutive_5xx`?)
        "#]],
    );
    mapping(
        &with("{ max_ejection_percent: 200, base_ejection_time: 9s, max_ejection_time: 8s }"),
        expect![[r#"
            a.yaml:7:46: error: spec.outlier_detection.max_ejection_percent: 200 is out of range (use 0 to 100)
            a.yaml:7:94: error: spec.outlier_detection.max_ejection_time: `max_ejection_time` is shorter than `base_ejection_time`
        "#]],
    );
}

#[test]
fn fields_without_effect_are_named() {
    mapping(
        "prefix: /\nservice: s\ncors: { origins: ['*'] }\nshadow: false\ncircuit_breakers: []\nauth_context_extensions: { a: b }",
        expect![[r#"
            a.yaml:10:28: warning: spec.auth_context_extensions: `auth_context_extensions` has no effect: it is for an AuthService, which is not supported yet
        "#]],
    );
    problems(
        "apiVersion: getambassador.io/v3alpha1\nkind: Host\nmetadata: { name: h }\nspec: { hostname: a.b, tlsSecret: { name: s }, previewUrl: { enabled: true } }",
        expect![[r#"
            a.yaml:4:60: warning: spec.previewUrl: `previewUrl` is accepted, it has no effect yet
        "#]],
    );
    problems(
        "apiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: { name: ambassador }\nspec: { config: { gzip: {}, merge_slashes: true, mergeslashes: true } }",
        expect![[r#"
            a.yaml:4:50: error: spec.config.mergeslashes: unknown field `mergeslashes` (did you mean `merge_slashes`?)
        "#]],
    );
}

#[test]
fn a_mirror_shares_the_match_of_its_route() {
    let text = "routes:\n- { prefix: /, service: a }\n- { prefix: /, service: b, shadow: true }\n";
    problems(text, expect![""]);
    names(
        text,
        expect![[r#"
            mappings: root.default root-2.default
        "#]],
    );
}

#[test]
fn the_second_version_is_turned_into_the_third() {
    let text = r#"
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: old, namespace: shop, labels: { app: x } }
spec:
  ambassador_id: default
  prefix: /old/
  service: old
  tls: true
  host: old.example.com
  headers: { x-debug: true, x-tenant: a }
  query_parameters: { q: true }
  regex_query_parameters: { r: "[0-9]+" }
  add_request_headers: { x-a: b, x-c: { value: d, append: false } }
  cors: { origins: "http://a, http://b", methods: GET }
"#;
    problems(
        text,
        expect![[r#"
            a.yaml:8:12: warning: spec.service: the certificate of the service is not verified (name a TLSContext in `tls` that has `ca_secret` or `verify: system`)
        "#]],
    );
    let config = load(text).config;
    let mapping = &config.mappings[0];
    expect![[r#"
        old.shop
        service https://old
        headers {"x-tenant": "a"}
        regex_headers {"x-debug": ".*"}
        query {}
        regex_query {"q": ".*", "r": "[0-9]+"}
        add Some({"x-a": AddedHeader { value: "b", append: true }, "x-c": AddedHeader { value: "d", append: false }})
        cors Some(["http://a", "http://b"])
    "#]].assert_eq(&format!(
        "{}\nservice {}\nheaders {:?}\nregex_headers {:?}\nquery {:?}\nregex_query {:?}\nadd {:?}\ncors {:?}\n",
        mapping.full_name(),
        mapping.spec.service,
        mapping.spec.headers,
        mapping.spec.regex_headers,
        mapping.spec.query_parameters,
        mapping.spec.regex_query_parameters,
        mapping.spec.add_request_headers,
        mapping.spec.cors.as_ref().map(|cors| &cors.origins),
    ));
}

#[test]
fn objects_for_other_instances_are_passed_over() {
    let one = |name: &str, id: &str| {
        format!(
            "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: {{ name: {name} }}\nspec: {{ prefix: /{name}, service: s{id} }}\n"
        )
    };
    let text = [
        one("none", ""),
        one("ours", ", ambassador_id: [default, b]"),
        one("theirs", ", ambassador_id: [b], broken: true"),
        one("all", ", ambassador_id: [_automatic_]"),
    ]
    .concat();
    problems(&text, expect![""]);
    names(
        &text,
        expect![[r#"
        mappings: none.default ours.default all.default
    "#]],
    );
}

#[test]
fn a_kind_that_decides_who_may_ask_is_an_error_and_counts() {
    let text = "apiVersion: getambassador.io/v3alpha1\nkind: AuthService\nmetadata: { name: auth }\nspec: { auth_service: a }\n---\n\
                apiVersion: getambassador.io/v3alpha1\nkind: FilterPolicy\nmetadata: { name: other }\nspec: { ambassador_id: [other] }\n";
    problems(
        text,
        expect![[r#"
        a.yaml:2:7: error: kind: the kind `AuthService` is not supported yet: requests are refused with 500, unless their Mapping says `bypass_auth` (take the object away to serve requests without asking it)
    "#]],
    );
    assert_eq!(
        load(text).config.guards,
        [Guard::all("AuthService auth.default")]
    );
    let policy = |rules: &str| {
        let text = format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: FilterPolicy\nmetadata: {{ name: p }}\nspec: {{ rules: {rules} }}\n"
        );
        load(&text).config.guards.remove(0).rules
    };
    let rule = |host: &str, path: &str, asks| Rule {
        host: host.to_owned(),
        path: path.to_owned(),
        asks,
    };
    assert_eq!(
        policy(
            "[{ host: a, path: /x, filters: [{ name: f }] }, { path: /y, filters: [] }, { host: b }]"
        ),
        Some(vec![
            rule("a", "/x", true),
            rule("*", "/y", false),
            rule("b", "*", false)
        ])
    );
    // What cannot be read guards everything, and so does a rule whose filters cannot be read.
    for odd in ["~", "{}", "[x]", "[{ path: [] }]"] {
        assert_eq!(policy(odd), None, "{odd}");
    }
    assert_eq!(policy("[{ filters: x }]"), Some(vec![rule("*", "*", true)]));
}

#[test]
fn the_shorthand_of_labels_is_read() {
    let text = r#"
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: old }
spec:
  prefix: /old/
  service: old
  host: a
  labels:
    ambassador:
    - group:
      - remote_address
      - catalog
      - x-tenant: { header: x-tenant, omit_if_not_present: true }
      - generic_key: fixed
"#;
    problems(
        text,
        expect![[r#"
        a.yaml:10:5: warning: spec.labels: `labels` has no effect: labels are for a RateLimitService, which is not supported yet
    "#]],
    );
    let mapping = &load(text).config.mappings[0];
    let labels = &mapping.spec.labels["ambassador"][0]["group"];
    let shown: Vec<String> = labels
        .iter()
        .map(|label| {
            let remote = label.remote_address.as_ref().map(|label| label.key.clone());
            let fixed = label.generic_key.as_ref().map(|label| label.value.clone());
            let header = label
                .request_headers
                .as_ref()
                .map(|label| label.header_name.clone());
            remote.or(fixed).or(header).unwrap_or_default()
        })
        .collect();
    assert_eq!(shown, ["remote_address", "catalog", "x-tenant", "fixed"]);
}

#[test]
fn fields_that_mean_nothing_here_say_why() {
    problems(
        "apiVersion: getambassador.io/v3alpha1\nkind: Module\nmetadata: { name: ambassador }\nspec: { config: { admin_port: 8001, \
         use_remote_address: true, debug_mode: false, regex_max_size: 500, x_forwarded_proto_redirect: true, \
         gzip: { window_bits: 3, memory_level: 5, compression_level: FAST }, compression: {}, readiness_probe: { prefix: up, service: a } } }",
        expect![[r#"
            a.yaml:4:31: warning: spec.config.admin_port: `admin_port` has no effect: there is no Envoy behind Nuncio
            a.yaml:4:98: warning: spec.config.regex_max_size: `regex_max_size` has no effect: regular expressions take linear time, and 1 MiB compiled is the limit of each
            a.yaml:4:131: warning: spec.config.x_forwarded_proto_redirect: `x_forwarded_proto_redirect` has no effect: `requestPolicy` of the Host and `securityModel` of the Listener decide about redirects
            a.yaml:4:143: error: spec.config.gzip: `gzip` and `compression` exclude each other (`compression` can say all that `gzip` can)
            a.yaml:4:158: error: spec.config.gzip.window_bits: 3 is out of range (use 9 to 15)
            a.yaml:4:175: warning: spec.config.gzip.memory_level: this has no effect: the compressor's memory is the same for all streams
            a.yaml:4:197: error: spec.config.gzip.compression_level: `FAST` is unknown (known are `BEST`, `SPEED`, `DEFAULT`)
            a.yaml:4:249: error: spec.config.readiness_probe.prefix: the path `up` does not begin with `/`
            a.yaml:4:262: warning: spec.config.readiness_probe.service: `service` has no effect, the gateway itself answers the probe (write a Mapping to have a service answer)
        "#]],
    );
}

#[test]
fn policies_are_checked() {
    mapping(
        "prefix: /\nservice: s\ncors: { origins: 'https://a.com, b', methods: 'GET, P T', max_age: long, credentials: true }\n\
         error_response_overrides: [{ on_status_code: 200, body: { text_format: a } }, { on_status_code: 404, body: {} }, { on_status_code: 500, body: { text_format: '%RESPONSE_COD%' } }]\n\
         add_request_headers: { x-a: { value: '%REQ%' } }",
        expect![[r#"
            a.yaml:7:20: warning: spec.cors.origins[1]: no browser sends the origin `b` (write `https://shop.example.com`, `https://*.example.com` or `*`)
            a.yaml:7:49: error: spec.cors.methods[1]: `P T` is no header name
            a.yaml:7:70: error: spec.cors.max_age: `long` is no number of seconds (for example `86400`)
            a.yaml:8:48: error: spec.error_response_overrides[0].on_status_code: 200 is no error (use 400 to 599)
            a.yaml:8:110: error: spec.error_response_overrides[1].body: exactly one of `text_format`, `json_format` and `text_format_source` is needed
            a.yaml:8:160: error: spec.error_response_overrides[2].body.text_format: unknown variable `%RESPONSE_COD%` (did you mean `RESPONSE_CODE`?)
            a.yaml:9:31: error: spec.add_request_headers.x-a: `%REQ%` needs an argument (for example `%REQ(X-NAME)%`)
        "#]],
    );
}

#[test]
fn kinds_and_versions_are_told() {
    let one = |version: &str, kind: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{ name: x }}\nspec: {{}}\n")
    };
    problems(
        &one("getambassador.io/v3alpha1", "TCPMapping"),
        expect![[r#"
        a.yaml:2:7: warning: kind: the kind `TCPMapping` is not supported yet, the object has no effect
    "#]],
    );
    problems(
        &one("getambassador.io/v3alpha1", "Maping"),
        expect![[r#"
        a.yaml:2:7: error: kind: unknown kind `Maping` in `getambassador.io/v3alpha1` (did you mean `Mapping`?)
    "#]],
    );
    problems(
        &one("getambassador.io/v1", "Mapping"),
        expect![[r#"
        a.yaml:1:13: error: apiVersion: unknown version `getambassador.io/v1` (write `getambassador.io/v3alpha1`)
    "#]],
    );
    problems(
        &one("nuncio.dev/v1", "Topic"),
        expect![[r#"
        a.yaml:1:13: error: apiVersion: unknown version `nuncio.dev/v1` (write `nuncio.dev/v1alpha1`)
    "#]],
    );
    problems(
        &one("nuncio.dev/v1alpha1", "Topics"),
        expect![[r#"
        a.yaml:2:7: error: kind: unknown kind `Topics` in `nuncio.dev/v1alpha1` (did you mean `Topic`?)
    "#]],
    );
    problems(
        &one("apps/v1", "Deployment"),
        expect![[r#"
        a.yaml:2:7: warning: kind: `Deployment` of `apps/v1` means nothing to Nuncio, it is passed over
    "#]],
    );
    problems(
        "kind: Mapping\n",
        expect![[r#"
        a.yaml:1:1: error: the field `apiVersion` is missing (for example `apiVersion: getambassador.io/v3alpha1`)
    "#]],
    );
    problems(
        "apiVersion: v1\n",
        expect![[r#"
        a.yaml:1:1: error: the field `kind` is missing
    "#]],
    );
    problems(
        "apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nspec: {}\n",
        expect![[r#"
            a.yaml:1:1: error: metadata: the field `metadata.name` is missing
        "#]],
    );
    problems(
        "apiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: { name: x }\nprefix: /\nservice: s\n",
        expect![[r#"
            a.yaml:4:1: error: prefix: unknown field `prefix` (the fields of a Mapping stand under `spec:`)
        "#]],
    );
}

#[test]
fn listeners_are_checked() {
    let one = |spec: &str| {
        format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: Listener\nmetadata: {{ name: l }}\nspec: {spec}\n"
        )
    };
    let binding = "hostBinding: { namespace: { from: ALL } }";
    problems(
        &one(&format!(
            "{{ port: 8080, protocol: HTTP, securityModel: INSECURE, {binding} }}"
        )),
        expect![""],
    );
    problems(
        &one(&format!(
            "{{ port: 8443, protocol: HTTPS, securityModel: XFP, {binding} }}"
        )),
        expect![""],
    );
    for stack in [
        "[TLS, HTTP, TCP]",
        "[TLS, PROXY, HTTP, TCP]",
        "[PROXY, TLS, HTTP]",
    ] {
        problems(
            &one(&format!(
                "{{ port: 8443, protocolStack: {stack}, securityModel: XFP, {binding} }}"
            )),
            expect![""],
        );
    }
    problems(
        &one(&format!(
            "{{ port: 8443, protocolStack: [HTTP, TLS], securityModel: XFP, {binding} }}"
        )),
        expect![[r#"
            a.yaml:4:36: error: spec.protocolStack: `TLS` comes before HTTP (write `TLS` before `HTTP`)
        "#]],
    );
    problems(
        &one(&format!(
            "{{ port: 8443, protocolStack: [TLS, HTTP, PROXY], securityModel: XFP, {binding} }}"
        )),
        expect![[r#"
            a.yaml:4:36: error: spec.protocolStack: `PROXY` comes before HTTP (write `PROXY` before `HTTP`)
        "#]],
    );
    problems(
        &one(&format!(
            "{{ port: 8443, protocolStack: [TCP, HTTP], securityModel: XFP, {binding} }}"
        )),
        expect![[r#"
            a.yaml:4:36: error: spec.protocolStack: TCP carries everything else (write `TCP` last)
        "#]],
    );
    problems(
        &one(&format!(
            "{{ port: 8443, protocolStack: [TLS, HTTP, UDP], securityModel: XFP, {binding} }}"
        )),
        expect![[r#"
            a.yaml:4:36: warning: spec.protocolStack: HTTP/3 is not spoken yet, nothing listens on UDP port 8443
        "#]],
    );
    problems(
        &one(&format!("{{ port: 8443, securityModel: XFP, {binding} }}")),
        expect![[r#"
            a.yaml:4:7: error: spec: neither `protocol` nor `protocolStack` is written (write `protocol: HTTP`)
        "#]],
    );
    problems(
        &one("{ port: 70000, protocol: http }"),
        expect![[r#"
        a.yaml:4:7: error: spec: the field `hostBinding` is missing
        a.yaml:4:7: error: spec: the field `securityModel` is missing
        a.yaml:4:15: error: spec.port: expected a whole number from 0 to 65535, found `70000`
        a.yaml:4:32: error: spec.protocol: unknown value `http` (did you mean `HTTP`?)
    "#]],
    );
}

#[test]
fn objects_may_not_repeat() {
    let one = "---\napiVersion: getambassador.io/v3alpha1\nkind: Mapping\nmetadata: { name: m }\nspec: { prefix: /a, service: a }\n";
    problems(
        &format!("{one}{one}"),
        expect![[r#"
        a.yaml:10:7: error: spec: the Mapping `m` is written twice (the first one stands in a.yaml:2:1)
    "#]],
    );
    names(
        &format!("{one}{one}"),
        expect![[r#"
        mappings: m.default
    "#]],
    );
}

#[test]
fn weights_add_up() {
    let routes = |weights: &[&str]| {
        let mut text = "routes:\n".to_owned();
        for (index, weight) in weights.iter().enumerate() {
            text.push_str(&format!("- {{ prefix: /a, service: s{index}{weight} }}\n"));
        }
        text
    };
    problems(
        &routes(&[", weight: 60", ", weight: 60"]),
        expect![[r#"
        a.yaml:2:38: error: routes[0].weight: the weights for the same requests are 120 percent in all (the others stand in a.yaml:3:3)
        a.yaml:3:38: error: routes[1].weight: the weights for the same requests are 120 percent in all (the others stand in a.yaml:2:3)
    "#]],
    );
    names(&routes(&[", weight: 60", ", weight: 60"]), expect![""]);
    problems(&routes(&[", weight: 40", ", weight: 40"]), expect![""]);
    problems(&routes(&["", ", weight: 10"]), expect![""]);
    problems(&routes(&[", weight: 40"]), expect![""]);
    problems(
        &routes(&[", weight: 101"]),
        expect![[r#"
        a.yaml:2:38: error: routes[0].weight: a weight of 101 is more than 100 percent
    "#]],
    );
}

#[test]
fn members_of_a_group_agree() {
    problems(
        "routes:\n- { prefix: /a, service: a }\n- { prefix: /a, service: b, prefix_exact: true, connect_timeout_ms: 7 }\n- { prefix: /a, service: c, host_redirect: true }\n",
        expect![[r#"
            a.yaml:3:43: error: routes[1].prefix_exact: `prefix_exact` differs from the other Mapping for the same requests (its requests are shared with the one in a.yaml:2:3)
            a.yaml:3:69: error: routes[1].connect_timeout_ms: `connect_timeout_ms` differs from the other Mapping for the same requests (its requests are shared with the one in a.yaml:2:3)
            a.yaml:4:44: error: routes[2].host_redirect: a redirect and a service cannot share requests (its requests are shared with the one in a.yaml:2:3)
        "#]],
    );
}

#[test]
fn tls_with_clients_is_checked() {
    let host = |spec: &str| {
        format!(
            "apiVersion: getambassador.io/v3alpha1\nkind: Host\nmetadata: {{ name: h }}\nspec: {spec}\n---\n"
        )
    };
    problems(
        &host(
            "{ hostname: a.b, tls: { min_tls_version: v1.3, max_tls_version: v1.2, alpn_protocols: 'h2, spdy', sni: x, cert_required: true }, requestPolicy: { insecure: { additionalPort: 70000 } } }",
        ),
        expect![[r#"
            a.yaml:4:48: error: spec.tls.min_tls_version: the oldest version is newer than the newest
            a.yaml:4:93: error: spec.tls.alpn_protocols: the protocol `spdy` is not spoken inside TLS (known are `h2`, `http/1.1`)
            a.yaml:4:110: warning: spec.tls.sni: `sni` is for TLS towards services, it has no effect in a Host
            a.yaml:4:128: warning: spec.tls.cert_required: a certificate that clients must show needs the CA that it comes from (write `ca_secret`)
            a.yaml:4:181: error: spec.requestPolicy.insecure.additionalPort: a port is a number from 1 to 65535 (-1 stands for none)
        "#]],
    );
    problems(
        &host("{ hostname: a.b, tlsContext: { name: nobody } }"),
        expect![[r#"
            a.yaml:4:44: error: spec.tlsContext.name: unknown TLSContext `nobody`
        "#]],
    );
    let context = "apiVersion: getambassador.io/v3alpha1\nkind: TLSContext\nmetadata: { name: c }\nspec: { hosts: [a.b], secret: one, redirect_cleartext_from: 0 }\n";
    problems(
        context,
        expect![[r#"
        a.yaml:4:61: error: spec.redirect_cleartext_from: a port is a number from 1 to 65535
    "#]],
    );
    let context = context.replace(", redirect_cleartext_from: 0", "");
    let both = "{ hostname: a.b, tlsContext: { name: c }, tlsSecret: { name: other } }";
    problems(
        &(host(both) + &context),
        expect![[r#"
        a.yaml:4:60: error: spec.tlsSecret: the TLSContext `c` has another Secret, `one` (leave one of them away)
    "#]],
    );
    let listener = "apiVersion: getambassador.io/v3alpha1\nkind: Listener\nmetadata: { name: l }\nspec: { port: 80, protocol: HTTP, securityModel: XFP, hostBinding: { namespace: { from: ALL } } }\n";
    problems(
        &(host("{ hostname: a.b, tlsSecret: { name: s } }") + listener),
        expect![[r#"
            a.yaml:4:35: warning: spec.tlsSecret: no Listener that takes this Host speaks TLS, its certificate has no effect (write `protocol: HTTPS` in the Listener)
        "#]],
    );
    problems(
        "tls_contexts: { c: { hosts: [a.b] } }",
        expect![[r#"
        a.yaml:1:29: warning: tls_contexts.c.hosts: names without a certificate are not answered (write `secret`, unless the Hosts that name it have one)
    "#]],
    );
}

#[test]
fn certificates_are_ordered_for_single_names_of_known_authorities() {
    let host = |spec: &str, expected: Expect| {
        problems(
            &format!(
                "apiVersion: getambassador.io/v3alpha1\nkind: Host\nmetadata: {{ name: h }}\nspec: {{ {spec} }}"
            ),
            expected,
        );
    };
    host(
        "hostname: shop.example, acmeProvider: { email: a@shop.example }",
        expect![[""]],
    );
    host(
        "hostname: 'shop.example:8443', acmeProvider: {}",
        expect![[""]],
    );
    host(
        "hostname: '*', acmeProvider: { authority: None }",
        expect![[""]],
    );
    host(
        "hostname: '*.shop.example', acmeProvider: {}",
        expect![[r#"
            a.yaml:4:51: error: spec.acmeProvider: no certificate can be ordered for `*.shop.example`: for more than one name an authority asks for DNS-01, which is not built (write a Host for each name, or `authority: none` and a certificate in `tlsSecret`)
        "#]],
    );
    host(
        "hostname: '*.shop.example', tlsSecret: { name: s }, acmeProvider: {}",
        expect![[r#"
            a.yaml:4:75: warning: spec.acmeProvider: no certificate can be ordered for `*.shop.example`: for more than one name an authority asks for DNS-01, which is not built (write a Host for each name, or `authority: none` and a certificate in `tlsSecret`)
        "#]],
    );
    host(
        "hostname: 192.0.2.1, acmeProvider: {}",
        expect![[r#"
        a.yaml:4:44: error: spec.acmeProvider: no certificate can be ordered for `192.0.2.1`, which is an address and no name (write a Host for each name, or `authority: none` and a certificate in `tlsSecret`)
    "#]],
    );
    host(
        "hostname: a_b.example, acmeProvider: {}",
        expect![[r#"
        a.yaml:4:46: error: spec.acmeProvider: no certificate can be ordered for `a_b.example`, which is no DNS name (write a Host for each name, or `authority: none` and a certificate in `tlsSecret`)
    "#]],
    );
    host(
        "hostname: a.b, acmeProvider: { authority: 'http://acme.example/', email: 'mailto:a@b', registration: x, challenge: dns-01 }",
        expect![[r#"
            a.yaml:4:124: error: spec.acmeProvider.challenge: unknown value `dns-01` (known are `http-01`, `tls-alpn-01`)
        "#]],
    );
    host(
        "hostname: a.b, acmeProvider: { authority: letsencrypt, email: 'mailto:a@b', registration: x }",
        expect![[r#"
            a.yaml:4:51: error: spec.acmeProvider.authority: `letsencrypt` is no address of an authority's directory (it begins with `https://`; `none` orders nothing)
            a.yaml:4:71: error: spec.acmeProvider.email: `mailto:a@b` is no address for email (write it as in `operations@example.com`)
            a.yaml:4:99: warning: spec.acmeProvider.registration: `registration` has no effect: the authority finds the account by its key
        "#]],
    );
    host(
        "hostname: a.b, acmeProvider: { privateKeySecret: { name: k }, externalAccount: { keyId: '', keySecret: { name: e, namespace: n } } }",
        expect![[r#"
            a.yaml:4:88: error: spec.acmeProvider.externalAccount: `externalAccount` is for an account that is made here, `privateKeySecret` has the key of one that is there (leave one of them away)
            a.yaml:4:97: error: spec.acmeProvider.externalAccount.keyId: the key's name is empty
        "#]],
    );
}
