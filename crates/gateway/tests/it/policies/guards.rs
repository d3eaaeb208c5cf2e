//! Objects that decide who may ask, while the gateway cannot ask them.

use model::guard::{Guard, Rule};
use testkit::echo::Echo;

use crate::rig::{Rig, config};

#[test]
fn without_a_word_from_the_auth_service_only_bypassing_routes_are_served() {
    let echo = Echo::start("echo");
    let text = format!(
        "routes: [{{ prefix: /x/, service: '{0}', cors: {{ origins: ['*'] }} }}, {{ prefix: /free/, service: '{0}', \
         bypass_auth: true }}, {{ prefix: /r/, service: elsewhere, host_redirect: true }}]",
        echo.address()
    );
    let rig = Rig::start(&text);
    let ask = |path: &str| rig.ask(&format!("GET {path} HTTP/1.1\nhost: a"), "");
    assert_eq!(ask("/x/").status, 200);
    let mut guarded = config(&text);
    guarded.guards = vec![Guard::all("AuthService auth.default")];
    let applied = rig.gateway.apply(&guarded, &[]);
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    let refused = ask("/x/");
    assert_eq!(refused.status, 500);
    assert_eq!(refused.header("x-nuncio-reason"), ["auth_unavailable"]);
    assert_eq!(ask("/free/").status, 200);
    assert_eq!(ask("/r/").status, 301);
    assert_eq!(ask("/none").status, 404);
    let preflight = rig.ask(
        "OPTIONS /x/ HTTP/1.1\nhost: a\norigin: b\naccess-control-request-method: GET",
        "",
    );
    assert_eq!(preflight.status, 200);
    assert_eq!(echo.seen().len(), 2);
    rig.apply(&text);
    assert_eq!(ask("/x/").status, 200);
}

#[test]
fn a_filter_policy_refuses_only_what_its_rules_send_through_filters() {
    let echo = Echo::start("echo");
    let text = format!(
        "routes: [{{ prefix: /, service: '{0}' }}, {{ prefix: /free/, service: '{0}', bypass_auth: true }}]",
        echo.address()
    );
    let rig = Rig::start(&text);
    let rule = |host: &str, path: &str, asks| Rule {
        host: host.to_owned(),
        path: path.to_owned(),
        asks,
    };
    let mut guarded = config(&text);
    guarded.guards = vec![Guard {
        name: "FilterPolicy shop.default".to_owned(),
        rules: Some(vec![
            rule("*", "/admin/login", false),
            rule("*", "/admin/*", true),
            rule("shop.*", "/free/*", true),
            rule("shop.*", "/orders/*", true),
        ]),
    }];
    let applied = rig.gateway.apply(&guarded, &[]);
    assert!(applied.problems.is_empty(), "{:?}", applied.problems);
    let ask = |host: &str, path: &str| {
        let answer = rig.ask(&format!("GET {path} HTTP/1.1\nhost: {host}"), "");
        answer.status
    };
    for (host, path, expected) in [
        ("a", "/", 200),
        ("a", "/admin/login", 200),
        ("a", "/admin/users", 500),
        ("a", "/x/../admin/users", 500),
        ("a", "/%61dmin/users", 500),
        ("a", "/orders/1", 200),
        ("shop.example:8080", "/orders/1", 500),
        ("shop.example", "/orders/1?path=/x", 500),
        ("shop.example", "/free/1", 200),
    ] {
        assert_eq!(ask(host, path), expected, "{host} {path}");
    }
    guarded.guards.push(Guard::all("AuthService auth.default"));
    rig.gateway.apply(&guarded, &[]);
    assert_eq!((ask("a", "/"), ask("a", "/free/x")), (500, 200));
    rig.apply(&text);
    assert_eq!(ask("a", "/admin/users"), 200);
}
