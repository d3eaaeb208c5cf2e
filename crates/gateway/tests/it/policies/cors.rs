//! Cross-origin requests.

use testkit::echo::Echo;
use testkit::raw::Response;

use crate::rig::Rig;

fn rig(module: &str, cors: &str) -> (Rig, Echo) {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        "module: {{ {module} }}\nroutes: [{{ prefix: /x/, service: '{}'{cors} }}]",
        echo.address()
    ));
    (rig, echo)
}

const RULES: &str = ", cors: { origins: ['https://a.com', 'https://*.b.com'], methods: [GET, PUT], \
                     headers: [X-A, X-B], exposed_headers: [X-C], credentials: true, max_age: '600' }";

#[track_caller]
fn header(answer: &Response, name: &str) -> String {
    answer.header(name).join("|")
}

#[test]
fn a_preflight_is_answered_by_the_gateway() {
    let (rig, echo) = rig("", RULES);
    for (origin, allowed) in [
        ("https://a.com", true),
        ("https://c.b.com", true),
        ("https://b.com", false),
    ] {
        let answer = rig.ask(
            &format!(
                "OPTIONS /x/ HTTP/1.1\nhost: s\norigin: {origin}\naccess-control-request-method: PUT"
            ),
            "",
        );
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        let told = |text: &str| {
            if allowed {
                text.to_owned()
            } else {
                String::new()
            }
        };
        assert_eq!(header(&answer, "access-control-allow-origin"), told(origin));
        assert_eq!(
            header(&answer, "access-control-allow-methods"),
            told("GET, PUT")
        );
        assert_eq!(
            header(&answer, "access-control-allow-headers"),
            told("X-A, X-B")
        );
        assert_eq!(
            header(&answer, "access-control-allow-credentials"),
            told("true")
        );
        assert_eq!(header(&answer, "access-control-max-age"), told("600"));
        assert_eq!(header(&answer, "vary"), "origin");
    }
    assert!(echo.seen().is_empty());
}

#[test]
fn an_answer_tells_who_may_read_it() {
    let (rig, _echo) = rig("", RULES);
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s\norigin: https://a.com", "");
    assert_eq!(
        header(&answer, "access-control-allow-origin"),
        "https://a.com"
    );
    assert_eq!(header(&answer, "access-control-allow-credentials"), "true");
    assert_eq!(header(&answer, "access-control-expose-headers"), "X-C");
    assert_eq!(header(&answer, "access-control-allow-methods"), "");
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s\norigin: https://c.com", "");
    assert_eq!(answer.status, 200);
    assert_eq!(header(&answer, "access-control-allow-origin"), "");
    assert_eq!(header(&answer, "vary"), "origin");
}

#[test]
fn the_gateways_own_answers_can_be_read_too() {
    let rig = Rig::start(&format!(
        "routes: [{{ prefix: /x/, service: '127.0.0.1:1'{RULES} }}]"
    ));
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s\norigin: https://a.com", "");
    assert_eq!(answer.status, 503);
    assert_eq!(
        header(&answer, "access-control-allow-origin"),
        "https://a.com"
    );
}

#[test]
fn a_star_reflects_the_origin_and_the_module_speaks_for_all() {
    let (rig, _echo) = rig("cors: { origins: ['*'] }", "");
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s\norigin: x", "");
    assert_eq!(header(&answer, "access-control-allow-origin"), "x");
    let answer = rig.ask("GET /x/ HTTP/1.1\nhost: s", "");
    assert_eq!(header(&answer, "access-control-allow-origin"), "");
}

#[test]
fn a_preflight_finds_the_route_of_the_method_it_asks_about() {
    let (rig, echo) = rig("", &format!(", method: PUT{RULES}"));
    let ask = |method: &str| {
        rig.ask(
            &format!(
                "OPTIONS /x/ HTTP/1.1\nhost: s\norigin: https://a.com\naccess-control-request-method: {method}"
            ),
            "",
        )
        .status
    };
    assert_eq!(ask("PUT"), 200);
    assert_eq!(ask("DELETE"), 404);
    assert!(echo.seen().is_empty());
}

#[test]
fn other_options_requests_pass() {
    let (rig, echo) = rig("", RULES);
    rig.ask("OPTIONS /x/ HTTP/1.1\nhost: s\norigin: https://a.com", "");
    rig.ask(
        "OPTIONS /x/ HTTP/1.1\nhost: s\naccess-control-request-method: PUT",
        "",
    );
    assert_eq!(echo.seen().len(), 2);
}
