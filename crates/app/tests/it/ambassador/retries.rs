//! Complaints 1570, 4168, 4334, 4383, 3921: `retry_on` took one value, knew no `reset`, and did not wait between tries.

use super::Rig;

#[test]
fn tries_again_as_the_policy_says() {
    let rig = Rig::start(&[
        "Mapping one: { prefix: /one/, service: $a, retry_policy: { retry_on: 5xx, num_retries: 2 } }",
        "Mapping list: { prefix: /list/, service: $b, retry_policy: { retry_on: 'reset,retriable-status-codes', retriable_status_codes: [409], num_retries: 3 } }",
        "Mapping none: { prefix: /none/, service: $c }",
    ]);
    assert_eq!(rig.ask("GET /one/ Requested-Status=503").status, 503);
    assert_eq!(rig.upstreams[0].seen().len(), 3);
    assert_eq!(rig.ask("GET /list/ Requested-Status=409").status, 409);
    assert_eq!(rig.upstreams[1].seen().len(), 4);
    assert_eq!(rig.ask("GET /list/ Requested-Status=500").status, 500);
    assert_eq!(rig.upstreams[1].seen().len(), 5);
    assert_eq!(rig.ask("GET /none/ Requested-Status=503").status, 503);
    assert_eq!(rig.upstreams[2].seen().len(), 1);
    // Where we differ: a POST must not happen twice.
    assert_eq!(rig.ask("POST /one/ Requested-Status=503").status, 503);
    assert_eq!(rig.upstreams[0].seen().len(), 4);
}
