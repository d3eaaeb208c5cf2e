use super::{Rig, Seen};

/// Case 24.
#[test]
fn the_upstream_is_told_how_long_it_has() {
    let mapping = "Mapping x: { prefix: /x/, service: $a, timeout_ms: 5001 }";
    let rig = Rig::start(&[mapping, "Mapping y: { prefix: /y/, service: $a }"]);
    let expected = |seen: &Seen| seen.header("x-envoy-expected-rq-timeout-ms").join(",");
    assert_eq!(expected(&Seen::of(&rig.ask("GET /x/"))), "5001");
    assert_eq!(expected(&Seen::of(&rig.ask("GET /y/"))), "3000");

    let rig = Rig::start(&[
        mapping,
        "Module ambassador: { suppress_envoy_headers: true }",
    ]);
    let seen = Seen::of(&rig.ask("GET /x/"));
    assert_eq!(expected(&seen), "");
    assert!(seen.header("x-envoy-original-path").is_empty());
}

#[test]
fn slow_upstreams_are_504() {
    let rig = Rig::start(&[
        "Mapping short: { prefix: /short/, service: $a, timeout_ms: 200 }",
        "Mapping long: { prefix: /long/, service: $a, timeout_ms: 20000 }",
        "Mapping gone: { prefix: /gone/, service: '127.0.0.1:1' }",
    ]);
    let late = rig.ask("GET /short/ Requested-Backend-Delay=5000");
    assert_eq!(late.status, 504);
    assert_eq!(
        String::from_utf8_lossy(&late.body),
        "upstream request timeout"
    );
    assert_eq!(
        rig.ask("GET /long/ Requested-Backend-Delay=300").status,
        200
    );
    assert_eq!(rig.ask("GET /gone/").status, 503);
}
