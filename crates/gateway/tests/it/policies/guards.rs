//! Objects that decide who may ask, while the gateway cannot ask them.

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
    guarded.guards = vec!["AuthService auth.default".to_owned()];
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
