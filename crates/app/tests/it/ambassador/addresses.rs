use expect_test::expect;

use super::Rig;

const MAPPING: &str = "Mapping x: { prefix: /x/, service: $a }";
const TRUSTING: &str = "Listener l: { port: $port1, protocol: HTTP, securityModel: XFP, l7Depth: 1, hostBinding: { namespace: { from: ALL } } }";

/// Case 30. One of the conditions is enough; the tests come from 127.0.0.1.
#[test]
fn allowed_addresses() {
    let rig = Rig::start(&[
        MAPPING,
        TRUSTING,
        "Module ambassador: { ip_allow: [{ peer: 127.9.0.1 }, { remote: 99.99.0.0/16 }] }",
    ]);
    rig.check_at(
        rig.ports[0],
        &[
            "GET /x/",
            "GET /x/ x-forwarded-for=99.99.0.1",
            "GET /x/ x-forwarded-for=99.98.0.1",
            "GET /x/ x-forwarded-for=99.99.0.1,99.98.0.1",
        ],
        expect![[r#"
            GET /x/ -> 403
            GET /x/ x-forwarded-for=99.99.0.1 -> 200 a /
            GET /x/ x-forwarded-for=99.98.0.1 -> 403
            GET /x/ x-forwarded-for=99.99.0.1,99.98.0.1 -> 403
        "#]],
    );
    let rig = Rig::start(&[
        MAPPING,
        TRUSTING,
        "Module ambassador: { ip_allow: [{ peer: 127.0.0.1 }] }",
    ]);
    rig.check_at(
        rig.ports[0],
        &["GET /x/", "GET /x/ x-forwarded-for=99.98.0.1"],
        expect![[r#"
            GET /x/ -> 200 a /
            GET /x/ x-forwarded-for=99.98.0.1 -> 200 a /
        "#]],
    );
}

/// Case 31.
#[test]
fn denied_addresses() {
    let rig = Rig::start(&[
        MAPPING,
        TRUSTING,
        "Module ambassador: { ip_deny: [{ remote: 99.98.0.0/16 }] }",
    ]);
    rig.check_at(
        rig.ports[0],
        &[
            "GET /x/ x-forwarded-for=99.98.0.1",
            "GET /x/ x-forwarded-for=99.99.0.1",
            "GET /x/",
        ],
        expect![[r#"
            GET /x/ x-forwarded-for=99.98.0.1 -> 403
            GET /x/ x-forwarded-for=99.99.0.1 -> 200 a /
            GET /x/ -> 200 a /
        "#]],
    );
}

/// Without trusted hops nobody gets in by saying who he is.
#[test]
fn strangers_cannot_name_their_address() {
    let rig = Rig::start(&[
        MAPPING,
        "Module ambassador: { ip_allow: [{ remote: 99.99.0.0/16 }] }",
    ]);
    rig.check(
        &["GET /x/ x-forwarded-for=99.99.0.1"],
        expect![[r#"
        GET /x/ x-forwarded-for=99.99.0.1 -> 403
    "#]],
    );
    assert!(rig.ask("GET /x/").header("x-nuncio-reason") == ["address_denied"]);
}
