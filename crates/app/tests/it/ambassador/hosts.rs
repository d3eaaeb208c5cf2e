use expect_test::expect;

use super::Rig;

/// Case 2; a port in the request's host counts only where the Mapping names one.
#[test]
fn hosts_of_mappings() {
    let rig = Rig::start(&[
        "Mapping inspector: { prefix: /h/, host: inspector.external, service: $a }",
        "Mapping regex: { prefix: /r/, host: '[ab][.]example', host_regex: true, service: $b }",
        "Mapping glob: { prefix: /g/, hostname: '*.shop.example', service: $c }",
        "Mapping port: { prefix: /port/, hostname: 'inspector.external:8080', service: $c }",
    ]);
    rig.check(
        &[
            "GET /h/",
            "GET //inspector.internal/h/",
            "GET //inspector.external/h/",
            "GET //INSPECTOR.external/h/",
            "GET //inspector.external:8080/h/",
            "GET //a.example/r/",
            "GET //c.example/r/",
            "GET //x.y.shop.example/g/",
            "GET //shop.example/g/",
            "GET //inspector.external:8080/port/",
            "GET //inspector.external/port/",
        ],
        expect![[r#"
            GET /h/ -> 404
            GET //inspector.internal/h/ -> 404
            GET //inspector.external/h/ -> 200 a /
            GET //INSPECTOR.external/h/ -> 200 a /
            GET //inspector.external:8080/h/ -> 200 a /
            GET //a.example/r/ -> 200 b /
            GET //c.example/r/ -> 404
            GET //x.y.shop.example/g/ -> 200 c /
            GET //shop.example/g/ -> 404
            GET //inspector.external:8080/port/ -> 200 c /
            GET //inspector.external/port/ -> 404
        "#]],
    );
}

/// Cases 46 (its cleartext half) and 48.
#[test]
fn hosts_route_redirect_or_reject_and_select_by_labels() {
    let rig = Rig::start_bare(&[
        "Host h1: { hostname: h1, requestPolicy: { insecure: { action: Route } } }",
        "Host h2: { hostname: h2, requestPolicy: { insecure: { action: Redirect } } }",
        "Host h3: { hostname: h3, requestPolicy: { insecure: { action: Reject } } }",
        "Host h4: { hostname: h4, mappingSelector: { matchLabels: { team: four, tier: front } }, requestPolicy: { insecure: { action: Route } } }",
        "Mapping t1: { prefix: /target-1/, hostname: h1, service: $a }",
        "Mapping t2: { prefix: /target-2/, hostname: h2, service: $a }",
        "Mapping t3: { prefix: /target-3/, hostname: h3, service: $a }",
        "Mapping shared: { prefix: /shared/, service: $b }",
        "Mapping acme: { prefix: /.well-known/acme-challenge/, hostname: h3, service: $c }",
        "Mapping labelled team=four tier=front: { hostname: null, prefix: /labelled/, service: $c }",
        "Mapping half team=four: { hostname: null, prefix: /half/, service: $c }",
        "Mapping lost: { hostname: null, prefix: /lost/, service: $c }",
    ]);
    rig.check(
        &[
            "GET //h1/target-1/",
            "GET //h1/target-2/",
            "GET //h1/shared/",
            "GET //h2/target-2/?a=b",
            "GET //h2/target-1/",
            "GET //h3/target-3/",
            "GET //h3/.well-known/acme-challenge/x",
            "GET //h4/labelled/",
            "GET //h4/half/",
            "GET //h4/shared/",
            "GET //h1/labelled/",
            "GET //h1/lost/",
            "GET //h5/shared/",
        ],
        expect![[r#"
            GET //h1/target-1/ -> 200 a /
            GET //h1/target-2/ -> 404
            GET //h1/shared/ -> 200 b /
            GET //h2/target-2/?a=b -> 301 https://h2/target-2/?a=b
            GET //h2/target-1/ -> 404
            GET //h3/target-3/ -> 404
            GET //h3/.well-known/acme-challenge/x -> 200 c /x
            GET //h4/labelled/ -> 200 c /
            GET //h4/half/ -> 404
            GET //h4/shared/ -> 404
            GET //h1/labelled/ -> 404
            GET //h1/lost/ -> 404
            GET //h5/shared/ -> 404
        "#]],
    );
}

/// Rule 2.5: which Hosts a Mapping goes to.
#[test]
fn globs_of_hosts_and_mappings_overlap() {
    let rig = Rig::start_bare(&[
        "Host h1: { hostname: '*.shop.example', requestPolicy: { insecure: { action: Route } } }",
        "Host h2: { hostname: 'quote.*', requestPolicy: { insecure: { action: Route } } }",
        "Host h3: { hostname: exact.example, requestPolicy: { insecure: { action: Route } } }",
        "Mapping all: { hostname: '*', prefix: /all/, service: $a }",
        "Mapping wide: { hostname: '*.example', prefix: /wide/, service: $b }",
        "Mapping narrow: { hostname: '*.eu.shop.example', prefix: /narrow/, service: $c }",
        "Mapping regex: { host: '.*', host_regex: true, prefix: /regex/, service: $a }",
        "Mapping port: { hostname: '*:8500', prefix: /port/, service: $b }",
        "Mapping exact: { host: exact.example, prefix: /exact/, service: $c }",
    ]);
    rig.check(
        &[
            "GET //a.shop.example/all/",
            "GET //quote.local/all/",
            "GET //exact.example/all/",
            "GET //nobody.example/all/",
            "GET //a.shop.example/wide/",
            "GET //a.b.shop.example/wide/",
            "GET //exact.example/wide/",
            "GET //quote.example/wide/",
            "GET //a.eu.shop.example/narrow/",
            "GET //a.shop.example/narrow/",
            "GET //exact.example/regex/",
            "GET //quote.x/regex/",
            "GET //quote.x:8500/port/",
            "GET //quote.x/port/",
            "GET //exact.example:99/exact/",
            "GET //a.shop.example/exact/",
        ],
        expect![[r#"
            GET //a.shop.example/all/ -> 200 a /
            GET //quote.local/all/ -> 200 a /
            GET //exact.example/all/ -> 200 a /
            GET //nobody.example/all/ -> 404
            GET //a.shop.example/wide/ -> 200 b /
            GET //a.b.shop.example/wide/ -> 200 b /
            GET //exact.example/wide/ -> 200 b /
            GET //quote.example/wide/ -> 200 b /
            GET //a.eu.shop.example/narrow/ -> 200 c /
            GET //a.shop.example/narrow/ -> 404
            GET //exact.example/regex/ -> 200 a /
            GET //quote.x/regex/ -> 200 a /
            GET //quote.x:8500/port/ -> 200 b /
            GET //quote.x/port/ -> 404
            GET //exact.example:99/exact/ -> 200 c /
            GET //a.shop.example/exact/ -> 404
        "#]],
    );
}

const SELECTING: &str = "
apiVersion: getambassador.io/v3alpha1
kind: Host
metadata: { name: h }
spec: { hostname: h.example, mappingSelector: { matchLabels: { team: a, tier: front } }, requestPolicy: { insecure: { action: Route } } }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: both, labels: { team: a, tier: front, more: x } }
spec: { hostname: '*', prefix: /both/, service: $a }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: one, labels: { team: a } }
spec: { prefix: /one/, service: $a }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: none, labels: { team: b } }
spec: { hostname: h.example, prefix: /none/, service: $a }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: elsewhere, labels: { team: a, tier: front } }
spec: { hostname: other.example, prefix: /elsewhere/, service: $a }
";

/// All labels, or one of them where `DISABLE_STRICT_LABEL_SELECTORS` says so.
#[test]
fn selectors_are_strict_unless_told_otherwise() {
    let requests = [
        "GET //h.example/both/",
        "GET //h.example/one/",
        "GET //h.example/none/",
        "GET //h.example/elsewhere/",
    ];
    let rig = Rig::start_file(SELECTING, &[]);
    rig.check(
        &requests,
        expect![[r#"
        GET //h.example/both/ -> 200 a /
        GET //h.example/one/ -> 404
        GET //h.example/none/ -> 404
        GET //h.example/elsewhere/ -> 404
    "#]],
    );
    let rig = Rig::start_file(SELECTING, &[("DISABLE_STRICT_LABEL_SELECTORS", "true")]);
    rig.check(
        &requests,
        expect![[r#"
        GET //h.example/both/ -> 200 a /
        GET //h.example/one/ -> 200 a /
        GET //h.example/none/ -> 404
        GET //h.example/elsewhere/ -> 404
    "#]],
    );
}

/// Two Hosts with one name are one virtual host.
#[test]
fn hosts_with_the_same_name_are_one() {
    let rig = Rig::start_bare(&[
        "Host a: { hostname: h.example, mappingSelector: { matchLabels: { team: a } }, requestPolicy: { insecure: { action: Route } } }",
        "Host b: { hostname: h.example, mappingSelector: { matchLabels: { team: b } }, requestPolicy: { insecure: { action: Reject } } }",
        "Mapping a team=a: { hostname: null, prefix: /a/, service: $a }",
        "Mapping b team=b: { hostname: null, prefix: /b/, service: $b }",
    ]);
    rig.check(
        &["GET //h.example/a/", "GET //h.example/b/"],
        expect![[r#"
        GET //h.example/a/ -> 200 a /
        GET //h.example/b/ -> 200 b /
    "#]],
    );
}
