//! Rule 2.6, case 50, and which Hosts a Listener serves.

use expect_test::expect;

use super::Rig;

const HOSTS: [&str; 6] = [
    "Host route: { hostname: route, requestPolicy: { insecure: { action: Route } } }",
    "Host redirect: { hostname: redirect, requestPolicy: { insecure: { action: Redirect } } }",
    "Host reject: { hostname: reject, requestPolicy: { insecure: { action: Reject } } }",
    // Redirect is what happens where nothing is said.
    "Host silent: { hostname: silent }",
    "Mapping x: { prefix: /x/, service: $a }",
    "Mapping acme: { prefix: /.well-known/acme-challenge/, service: $b, rewrite: '' }",
];

fn listener(name: &str, port: &str, model: &str) -> String {
    format!(
        "Listener {name}: {{ port: {port}, protocol: HTTP, {model}, hostBinding: {{ namespace: {{ from: ALL }} }} }}"
    )
}

#[track_caller]
fn start(first: &str, second: &str) -> Rig {
    let listeners = [
        listener("one", "$port1", first),
        listener("two", "$port2", second),
    ];
    let objects: Vec<&str> = HOSTS
        .into_iter()
        .chain(listeners.iter().map(String::as_str))
        .collect();
    Rig::start_bare(&objects)
}

/// Case 50: with a trusted hop in front, its word decides.
#[test]
fn the_forwarded_scheme_decides_where_a_hop_is_trusted() {
    let rig = start("securityModel: XFP, l7Depth: 1", "securityModel: XFP");
    let requests = [
        "GET //route/x/ x-forwarded-proto=http",
        "GET //redirect/x/ x-forwarded-proto=http",
        "GET //redirect:8080/x/y?a=b x-forwarded-proto=http",
        "GET //redirect/nowhere x-forwarded-proto=http",
        "GET //redirect/x/ x-forwarded-proto=https",
        "GET //redirect/x/",
        "GET //reject/x/ x-forwarded-proto=http",
        "GET //reject/x/ x-forwarded-proto=https",
        "GET //reject/.well-known/acme-challenge/t x-forwarded-proto=http",
        "GET //redirect/.well-known/acme-challenge/t x-forwarded-proto=http",
        "GET //silent/x/ x-forwarded-proto=http",
    ];
    rig.check_at(rig.ports[0], &requests, expect![[r#"
        GET //route/x/ x-forwarded-proto=http -> 200 a /
        GET //redirect/x/ x-forwarded-proto=http -> 301 https://redirect/x/
        GET //redirect:8080/x/y?a=b x-forwarded-proto=http -> 301 https://redirect:8080/x/y?a=b
        GET //redirect/nowhere x-forwarded-proto=http -> 404
        GET //redirect/x/ x-forwarded-proto=https -> 200 a /
        GET //redirect/x/ -> 301 https://redirect/x/
        GET //reject/x/ x-forwarded-proto=http -> 404
        GET //reject/x/ x-forwarded-proto=https -> 200 a /
        GET //reject/.well-known/acme-challenge/t x-forwarded-proto=http -> 200 b /.well-known/acme-challenge/t
        GET //redirect/.well-known/acme-challenge/t x-forwarded-proto=http -> 200 b /.well-known/acme-challenge/t
        GET //silent/x/ x-forwarded-proto=http -> 301 https://silent/x/
    "#]]);
    // Nobody is trusted here: the connection decides, and it has no TLS.
    rig.check_at(rig.ports[1], &requests, expect![[r#"
        GET //route/x/ x-forwarded-proto=http -> 200 a /
        GET //redirect/x/ x-forwarded-proto=http -> 301 https://redirect/x/
        GET //redirect:8080/x/y?a=b x-forwarded-proto=http -> 301 https://redirect:8080/x/y?a=b
        GET //redirect/nowhere x-forwarded-proto=http -> 404
        GET //redirect/x/ x-forwarded-proto=https -> 301 https://redirect/x/
        GET //redirect/x/ -> 301 https://redirect/x/
        GET //reject/x/ x-forwarded-proto=http -> 404
        GET //reject/x/ x-forwarded-proto=https -> 404
        GET //reject/.well-known/acme-challenge/t x-forwarded-proto=http -> 200 b /.well-known/acme-challenge/t
        GET //redirect/.well-known/acme-challenge/t x-forwarded-proto=http -> 200 b /.well-known/acme-challenge/t
        GET //silent/x/ x-forwarded-proto=http -> 301 https://silent/x/
    "#]]);
}

#[test]
fn models_can_be_fixed() {
    let rig = start(
        "securityModel: SECURE",
        "securityModel: INSECURE, l7Depth: 1",
    );
    let requests = [
        "GET //route/x/",
        "GET //redirect/x/",
        "GET //reject/x/",
        "GET //redirect/x/ x-forwarded-proto=https",
    ];
    rig.check_at(
        rig.ports[0],
        &requests,
        expect![[r#"
        GET //route/x/ -> 200 a /
        GET //redirect/x/ -> 200 a /
        GET //reject/x/ -> 200 a /
        GET //redirect/x/ x-forwarded-proto=https -> 200 a /
    "#]],
    );
    rig.check_at(
        rig.ports[1],
        &requests,
        expect![[r#"
        GET //route/x/ -> 200 a /
        GET //redirect/x/ -> 301 https://redirect/x/
        GET //reject/x/ -> 404
        GET //redirect/x/ x-forwarded-proto=https -> 301 https://redirect/x/
    "#]],
    );
}

/// By namespace and by labels; what one Listener leaves to the other is not lost.
#[test]
fn listeners_bind_hosts() {
    let rig = Rig::start_file(
        "
apiVersion: getambassador.io/v3alpha1
kind: Listener
metadata: { name: own, namespace: edge }
spec: { port: $port1, protocol: HTTP, securityModel: INSECURE, hostBinding: { namespace: { from: SELF } } }
---
apiVersion: getambassador.io/v3alpha1
kind: Listener
metadata: { name: labelled, namespace: edge }
spec: { port: $port2, protocol: HTTP, securityModel: INSECURE, hostBinding: { namespace: { from: ALL }, selector: { matchLabels: { tier: public } } } }
---
apiVersion: getambassador.io/v3alpha1
kind: Host
metadata: { name: edge, namespace: edge }
spec: { hostname: edge.example, requestPolicy: { insecure: { action: Route } } }
---
apiVersion: getambassador.io/v3alpha1
kind: Host
metadata: { name: public, namespace: shop, labels: { tier: public } }
spec: { hostname: public.example, requestPolicy: { insecure: { action: Route } } }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: edge, namespace: edge }
spec: { hostname: edge.example, prefix: /x/, service: $a }
---
apiVersion: getambassador.io/v3alpha1
kind: Mapping
metadata: { name: public, namespace: shop }
spec: { hostname: public.example, prefix: /x/, service: $b }
",
        &[],
    );
    let requests = ["GET //edge.example/x/", "GET //public.example/x/"];
    rig.check_at(
        rig.ports[0],
        &requests,
        expect![[r#"
        GET //edge.example/x/ -> 200 a /
        GET //public.example/x/ -> 404
    "#]],
    );
    rig.check_at(
        rig.ports[1],
        &requests,
        expect![[r#"
        GET //edge.example/x/ -> 404
        GET //public.example/x/ -> 200 b /
    "#]],
    );
    expect![[""]].assert_eq(&rig.told());
}
