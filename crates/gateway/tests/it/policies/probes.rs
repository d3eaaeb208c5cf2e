//! Probes on the public listener, and the case of header names.

use testkit::echo::Echo;

use crate::rig::Rig;

#[test]
fn probes_answer_before_any_route_and_can_be_switched_off() {
    let echo = Echo::start("echo");
    let routes = format!("routes: [{{ prefix: /, service: '{}' }}]", echo.address());
    let rig = Rig::start(&routes);
    let ask = |path: &str| {
        let answer = rig.ask(&format!("GET {path} HTTP/1.1\nhost: s"), "");
        (
            answer.status,
            String::from_utf8_lossy(&answer.body).into_owned(),
        )
    };
    let alive = (200, "alive\n".to_owned());
    let ready = (200, "ready\n".to_owned());
    assert_eq!(ask("/ambassador/v0/check_alive"), alive);
    assert_eq!(ask("/ambassador/v0/check_ready"), ready);
    assert!(ask("/ambassador/v0/check_readyness").1.contains("echo"));
    assert!(
        ask("/ambassador/v0/diag/").1.contains("echo"),
        "never public"
    );
    rig.apply(&format!(
        "module: {{ liveness_probe: {{ enabled: false }}, readiness_probe: {{ prefix: /up }} }}\n{routes}"
    ));
    assert!(ask("/ambassador/v0/check_alive").1.contains("echo"));
    assert!(ask("/ambassador/v0/check_ready").1.contains("echo"));
    assert_eq!(ask("/up"), ready);
}

#[test]
fn names_of_headers_go_out_capitalised() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "module: {{ proper_case: true }}\nroutes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: s", "");
    assert!(
        answer.head.contains("\r\nContent-Type: "),
        "{}",
        answer.head
    );

    // Towards services too, and only where it is said.
    let (tell, told) = std::sync::mpsc::channel();
    let upstream = testkit::scripted::Scripted::start(move |mut raw, _| {
        let head = raw.take_until(b"\r\n\r\n");
        tell.send(String::from_utf8(head).expect("text"))
            .expect("the test waits");
        raw.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    });
    let routes = format!(
        "routes: [{{ prefix: /, service: '{}' }}]",
        upstream.address()
    );
    for (module, written) in [("module: { proper_case: true }\n", true), ("", false)] {
        rig.apply(&format!("{module}{routes}"));
        assert_eq!(
            rig.ask("GET / HTTP/1.1\nhost: s\nx-own-id: 1", "").status,
            200
        );
        let head = told.recv().expect("a request");
        assert_eq!(head.contains("\r\nX-Own-Id: 1\r\n"), written, "{head}");
        assert_eq!(head.contains("\r\nx-own-id: 1\r\n"), !written, "{head}");
    }
}

#[test]
fn without_a_listener_the_module_says_how_far_proxies_are_believed() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "module: {{ xff_num_trusted_hops: 1 }}\nroutes: [{{ prefix: /, service: '{}' }}]",
        echo.address()
    ));
    let answer = rig.ask("GET / HTTP/1.1\nhost: s\nx-forwarded-for: 9.9.9.9", "");
    let seen = &answer.json()["request"]["headers"];
    assert_eq!(seen["x-forwarded-for"][0], "9.9.9.9, 127.0.0.1");
}
