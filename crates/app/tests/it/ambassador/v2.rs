//! The spellings of `getambassador.io/v2`, as they stand in clusters that were upgraded.

use expect_test::expect;

use super::{Rig, Seen};

const FILE: &str = "
apiVersion: getambassador.io/v2
kind: Host
metadata: { name: all }
spec: { hostname: '*', selector: { matchLabels: { hostname: all } }, requestPolicy: { insecure: { action: Route, additionalPort: 8080 } } }
---
apiVersion: getambassador.io/v2
kind: Host
metadata: { name: plain }
spec: { hostname: plain.example, requestPolicy: { insecure: { action: Route } } }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: presence, labels: { hostname: all } }
spec: { prefix: /p/, headers: { x-flag: true, x-kind: b }, query_parameters: { q: true }, service: $a, ambassador_id: default }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: added }
spec:
  host: plain.example
  prefix: /added/
  service: $a
  add_request_headers: { x-bare: bare, x-full: { value: full, append: false } }
  add_response_headers: { x-answer: answer }
  cors: { origins: 'http://a.example, http://b.example', methods: 'GET, PUT' }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: socket }
spec: { host: plain.example, prefix: /ws/, service: $b, use_websocket: true, tls: false }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: regex }
spec: { host: '[a-z]+[.]example', host_regex: true, prefix: /r/, service: $c, timeout_ms: 0 }
---
apiVersion: getambassador.io/v2
kind: Mapping
metadata: { name: other }
spec: { ambassador_id: other, host: plain.example, prefix: /other/, service: $c }
";

#[test]
fn old_spellings_do_what_they_did() {
    let rig = Rig::start_file(FILE, &[]);
    rig.check(
        &[
            "GET /p/?q=1 x-flag=1 x-kind=b",
            "GET /p/?q=1 x-kind=b",
            "GET /p/ x-flag=1 x-kind=b",
            "GET //plain.example/p/?q x-flag=1 x-kind=b",
            "GET //plain.example/added/",
            "GET //plain.example/ws/",
            "GET //plain.example/r/",
            "GET //plain.example/other/",
        ],
        expect![[r#"
            GET /p/?q=1 x-flag=1 x-kind=b -> 200 a /
            GET /p/?q=1 x-kind=b -> 404
            GET /p/ x-flag=1 x-kind=b -> 404
            GET //plain.example/p/?q x-flag=1 x-kind=b -> 404
            GET //plain.example/added/ -> 200 a /
            GET //plain.example/ws/ -> 200 b /
            GET //plain.example/r/ -> 200 c /
            GET //plain.example/other/ -> 404
        "#]],
    );
    let response = rig.ask("GET //plain.example/added/ Origin=http://b.example");
    let seen = Seen::of(&response);
    assert_eq!(
        (seen.header("x-bare"), seen.header("x-full")),
        (vec!["bare"], vec!["full"])
    );
    assert_eq!(response.header("x-answer"), ["answer"]);
    assert_eq!(
        response.header("access-control-allow-origin"),
        ["http://b.example"]
    );
}

/// `AMBASSADOR_ID` picks the others.
#[test]
fn the_instance_has_a_name() {
    let rig = Rig::start_file(FILE, &[("AMBASSADOR_ID", "other")]);
    rig.check(
        &["GET //plain.example/other/", "GET //plain.example/added/"],
        expect![[r#"
            GET //plain.example/other/ -> 200 c /
            GET //plain.example/added/ -> 404
        "#]],
    );
}
