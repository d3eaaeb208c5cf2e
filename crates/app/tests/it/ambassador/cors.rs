use super::{Rig, Seen};

/// Case 21, and what a preflight is answered.
#[test]
fn origins_are_answered() {
    let rig = Rig::start(&[
        "Module ambassador: { cors: { origins: ['http://module.example'], methods: 'GET, POST' } }",
        "Mapping any: { prefix: /any/, service: $a, cors: { origins: ['*'] } }",
        "Mapping own: { prefix: /own/, service: $a, cors: { origins: ['http://own.example'], methods: 'PUT', headers: 'x-a', exposed_headers: 'x-b', credentials: true, max_age: '86400' } }",
        "Mapping plain: { prefix: /plain/, service: $b }",
    ]);
    let origin = |request: &str| {
        rig.ask(request)
            .header("access-control-allow-origin")
            .join(",")
    };
    assert_eq!(
        origin("GET /any/ Origin=http://x.example"),
        "http://x.example"
    );
    assert_eq!(origin("GET /any/"), "");
    assert_eq!(
        origin("GET /own/ Origin=http://own.example"),
        "http://own.example"
    );
    assert_eq!(origin("GET /own/ Origin=http://module.example"), "");
    // A wrong origin is the browser's matter: the request itself is answered.
    assert_eq!(rig.ask("GET /own/ Origin=http://wrong.example").status, 200);
    assert_eq!(
        origin("GET /plain/ Origin=http://module.example"),
        "http://module.example"
    );

    let preflight =
        rig.ask("OPTIONS /own/ Origin=http://own.example Access-Control-Request-Method=PUT");
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-methods"), ["PUT"]);
    assert_eq!(preflight.header("access-control-allow-headers"), ["x-a"]);
    assert_eq!(
        preflight.header("access-control-allow-credentials"),
        ["true"]
    );
    assert_eq!(preflight.header("access-control-max-age"), ["86400"]);
    assert!(
        rig.upstreams[0]
            .seen()
            .iter()
            .all(|seen| seen["method"] != "OPTIONS")
    );
    // Without an origin it is a request like others.
    assert_eq!(
        Seen::of(&rig.ask("OPTIONS /own/")).backend.as_deref(),
        Some("a")
    );
}
