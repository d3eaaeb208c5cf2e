use super::Rig;

/// Case 26.
#[test]
fn underscores_in_header_names() {
    let mapping = "Mapping x: { prefix: /x/, service: $a }";
    assert_eq!(
        Rig::start(&[mapping]).ask("GET /x/ t_underscore=x").status,
        200
    );
    let strict = "Module ambassador: { headers_with_underscores_action: REJECT_REQUEST }";
    let rig = Rig::start(&[mapping, strict]);
    assert_eq!(rig.ask("GET /x/ t_underscore=x").status, 400);
    assert_eq!(rig.ask("GET /x/ t-dash=x").status, 200);
}

/// Case 35.
#[test]
fn heads_have_a_size() {
    let rig = Rig::start(&[
        "Mapping x: { prefix: /x/, service: $a }",
        "Module ambassador: { max_request_headers_kb: 30 }",
    ]);
    let status = |kib: usize| {
        rig.ask(&format!("GET /x/ x-big={}", "x".repeat(kib << 10)))
            .status
    };
    assert_eq!(status(29), 200);
    assert_eq!(status(31), 431);
    rig.write(&[
        super::HOST,
        "Mapping x: { prefix: /x/, service: $a }",
        "Module ambassador: { max_request_headers_kb: 96 }",
    ]);
    testkit::wait::until("the new limit", std::time::Duration::from_secs(20), || {
        (status(95) == 200).then_some(())
    });
    assert_eq!(status(97), 431);
}
