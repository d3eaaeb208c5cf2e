//! Case 45.

use std::time::Duration;

use testkit::wait;

use super::{Rig, Seen};

#[test]
fn shadows_get_copies_and_nobody_sees_it() {
    let rig = Rig::start(&[
        "Mapping plain: { prefix: /mark/, rewrite: /mark/, service: $a }",
        "Mapping copy: { prefix: /mark/, rewrite: /mark/, service: $b, shadow: true }",
        "Mapping part: { prefix: /part/, service: $a }",
        "Mapping tenth: { prefix: /part/, service: $c, shadow: true, weight: 10 }",
    ]);
    for number in 0..20 {
        let response = rig.ask(&format!("GET /mark/{number}"));
        assert_eq!(Seen::of(&response).backend.as_deref(), Some("a"));
        assert!(response.header("x-shadowed").is_empty());
    }
    let copies = rig.upstreams[1].wait_seen(20, Duration::from_secs(20));
    assert_eq!(copies.len(), 20);
    let host = copies[0]["host"].as_str().expect("a host");
    assert_eq!(host, "ambassador.test-shadow");

    for _ in 0..200 {
        assert_eq!(rig.ask("GET /part/").status, 200);
    }
    wait::until("some copies", Duration::from_secs(20), || {
        (!rig.upstreams[2].seen().is_empty()).then_some(())
    });
    // A tenth of 200, far from none and far from all.
    assert!(
        rig.upstreams[2].seen().len() < 60,
        "{}",
        rig.upstreams[2].seen().len()
    );
}
