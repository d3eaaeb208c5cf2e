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
