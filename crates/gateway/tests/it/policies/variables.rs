//! Envoy's variables in added headers.

use testkit::echo::Echo;

use crate::rig::Rig;

#[test]
fn variables_in_request_headers_are_filled() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        r#"
listener: 1
routes:
- name: r
  prefix: /x/
  service: '{}'
  remove_request_headers: [x-gone]
  add_request_headers:
    x-client: {{ value: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%' }}
    x-peer: {{ value: '%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%' }}
    x-port: {{ value: '%DOWNSTREAM_LOCAL_PORT%' }}
    x-asked: {{ value: '%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %REQ(:AUTHORITY)%' }}
    x-half: {{ value: '50%%' }}
    x-tenant: {{ value: '%REQ(X-NONE?X-TENANT):3%' }}
    x-none: {{ value: '%REQ(X-GONE)%' }}
    x-route: {{ value: '%ROUTE_NAME%' }}
    x-year: {{ value: '%START_TIME(%Y)%' }}
"#,
        echo.address()
    ));
    rig.ask(
        "GET /x/y?a=1 HTTP/1.1\nhost: s\nx-tenant: tenant\nx-gone: 1\nx-forwarded-for: 9.9.9.9",
        "",
    );
    let seen = &echo.seen()[0]["headers"];
    for (name, value) in [
        ("x-client", "9.9.9.9"),
        ("x-peer", "127.0.0.1"),
        ("x-asked", "GET /x/y?a=1 HTTP/1.1 s"),
        ("x-half", "50%"),
        ("x-route", "r.default"),
        ("x-port", &rig.address.port().to_string()),
    ] {
        assert_eq!(seen[name][0], value, "{name}");
    }
    assert_eq!(seen["x-tenant"][1], "ten");
    assert!(seen.get("x-none").is_none(), "nothing is not sent");
    let year = seen["x-year"][0]
        .as_str()
        .and_then(|year| year.parse::<u32>().ok());
    assert!(year.is_some_and(|year| year >= 2025), "{year:?}");
}

#[test]
fn variables_in_response_headers_know_request_and_answer() {
    let echo = Echo::start("echo");
    let rig = Rig::start(&format!(
        r#"
routes:
- prefix: /x/
  service: '{0}'
  add_response_headers:
    x-path: {{ value: '%REQ(:PATH)%' }}
    x-tenant: {{ value: '%REQ(X-TENANT)%' }}
    x-status: {{ value: '%RESPONSE_CODE% %RESPONSE_CODE_DETAILS%' }}
    x-type: {{ value: '%RESP(CONTENT-TYPE)%' }}
    x-upstream: {{ value: '%UPSTREAM_HOST%' }}
    x-flags: {{ value: '%RESPONSE_FLAGS%' }}
- prefix: /dead/
  service: 127.0.0.1:1
  add_response_headers:
    x-flags: {{ value: '%RESPONSE_FLAGS%' }}
"#,
        echo.address()
    ));
    let answer = rig.ask("GET /x/y HTTP/1.1\nhost: s\nx-tenant: a", "");
    for (name, value) in [
        ("x-path", "/x/y"),
        ("x-tenant", "a"),
        ("x-status", "200 via_upstream"),
        ("x-type", "application/json"),
        ("x-upstream", &echo.address().to_string()),
    ] {
        assert_eq!(answer.header(name), [value], "{name}");
    }
    assert!(answer.header("x-flags").is_empty());
    let answer = rig.ask("GET /dead/ HTTP/1.1\nhost: s", "");
    assert_eq!(answer.status, 503);
    assert!(
        answer.header("x-flags")[0].contains("UF"),
        "{}",
        answer.head
    );
}
