//! What is told about a request on its route.

use expect_test::{Expect, expect};
use model::read::{Options, Source};

use super::*;

const SHOP: &str = r#"
routes:
- name: orders
  prefix: /orders/
  service: http://orders:8080
  timeout_ms: 5000
  connect_timeout_ms: 3000
  retry_policy: { retry_on: "5xx,connect-failure", num_retries: 2, per_try_timeout: 250ms }
  circuit_breakers: [{ max_connections: 10, max_retries: 3 }, { priority: high, max_requests: 7 }]
  add_request_headers:
    x-tenant: { value: "%REQ(x-user)%/shop" }
    x-client: { value: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" }
    x-lang: { value: de, append: false }
    x-none: { value: "%REQ(x-absent)%" }
  remove_request_headers: [x-secret, x-absent]
  add_response_headers: { x-served-by: { value: shop } }
  cors: { origins: [https://shop.example] }
  load_balancer: { policy: least_request, slow_start: { window: 30s } }
  health_checks: [{ health_check: { http: { path: /healthy } } }]
  error_response_overrides: [{ on_status_code: 404, body: { text_format: gone } }]
- { name: copy, prefix: /orders/, service: copies, shadow: true, weight: 20 }
- { name: plain, prefix: /plain/, service: plain }
- { name: hashed, prefix: /hashed/, service: hashed, load_balancer: { policy: maglev, header: x-user } }
- { name: ring, prefix: /ring/, service: hashed, load_balancer: { policy: ring_hash, source_ip: true } }
- { name: cookie, prefix: /cookie/, service: hashed, load_balancer: { policy: ring_hash, cookie: { name: c, ttl: 60s } } }
- { name: dns, prefix: /dns/, service: elsewhere.example, load_balancer: { policy: ring_hash, header: x-user } }
- { name: next, prefix: /pay/, service: next, weight: 10, add_request_headers: { x-next: { value: yes } } }
- { name: pay, prefix: /pay/, service: pay, add_request_headers: { x-pay: { value: yes } } }
---
apiVersion: v1
kind: Endpoints
metadata: { name: hashed }
subsets: [{ addresses: [{ ip: 10.0.0.1 }, { ip: 10.0.0.2 }, { ip: 10.0.0.3 }], ports: [{ port: 8080 }] }]
"#;

const FILTERED: &str = r#"
---
apiVersion: getambassador.io/v3alpha1
kind: FilterPolicy
metadata: { name: shop }
spec:
  rules:
  - { path: /orders/open/* }
  - { host: shop.example, path: /orders/*, filters: [{ name: jwt }] }
"#;

fn told(text: &str, question: &str, client: &str) -> String {
    let source = Source {
        name: "shop.yaml".into(),
        text: text.into(),
    };
    let config = model::load(&[source], &Options::default()).config;
    let (table, _) = Table::build(&config);
    let mut words = question.split(" -H ");
    let (method, address) = words.next().unwrap().split_once(' ').unwrap();
    let headers: Vec<String> = words.map(str::to_owned).collect();
    let question = Question {
        client: client.parse().ok(),
        ..Question::read(method, address, &headers).unwrap()
    };
    let told = explain(&config, &table, &question);
    let json = serde_json::to_string(&told).unwrap();
    let again: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(again.to_string(), told.to_string());
    // Why the route was chosen has tests of its own.
    let lines = told.to_string();
    let lines = lines
        .lines()
        .skip_while(|line| !line.starts_with("  route"));
    let lines = lines.take_while(|line| *line != "others");
    let reason = |line: &&str| {
        ["the ", "first ", "no "]
            .iter()
            .any(|it| line.trim_start().starts_with(&format!("- {it}")))
    };
    lines
        .filter(|line| !reason(line))
        .map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line)))
        .collect()
}

#[track_caller]
fn check(question: &str, expected: Expect) {
    expected.assert_eq(&told(SHOP, question, ""));
}

#[test]
fn what_is_usual_is_not_told() {
    check(
        "GET http://shop.example/plain/x",
        expect![[r#"
              route   plain.default (shop.yaml:22:3)
              goes to plain, path /x, host shop.example
        "#]],
    );
}

#[test]
fn what_was_said_is_told_for_this_request() {
    check(
        "GET http://shop.example/orders/1 -H x-user: ann -H x-lang: fr -H x-secret: s -H origin: https://shop.example",
        expect![[r#"
              route   orders.default (shop.yaml:3:3)
              goes to http://orders:8080, path /1, host shop.example
              cors    a page of `https://shop.example` may read the answer
              timeout 5s for the whole request
              retry   2 more tries on 5xx, connect-failure, each within 250ms
              limits  max_connections 10
              health  GET /healthy every 5s
              errors  404 get a body of their own
              request takes off x-secret
              request takes off x-absent, which is not there
              request sets x-client: %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%, filled when it is sent
              request sets x-lang: de, it was `fr`
              request leaves out x-none, its value is empty
              request adds x-tenant: ann/shop
              answer  adds x-served-by: shop
              balance the less busy of two
              balance new endpoints get less for 30s
              shadow  20 % go to copies too, as copy.default (shop.yaml:21:3) says; its answers are thrown away
        "#]],
    );
    check(
        "POST http://shop.example/orders/1 -H origin: https://evil.example",
        expect![[r#"
              route   orders.default (shop.yaml:3:3)
              goes to http://orders:8080, path /1, host shop.example
              cors    a page of `https://evil.example` may not read the answer, only https://shop.example may
              timeout 5s for the whole request
              retry   2 more tries on 5xx, connect-failure, each within 250ms; POST only where the service cannot have seen it
              limits  max_connections 10
              health  GET /healthy every 5s
              errors  404 get a body of their own
              request takes off x-secret, which is not there
              request takes off x-absent, which is not there
              request sets x-client: %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%, filled when it is sent
              request sets x-lang: de
              request leaves out x-none, its value is empty
              request adds x-tenant: /shop
              answer  adds x-served-by: shop
              balance the less busy of two
              balance new endpoints get less for 30s
              shadow  20 % go to copies too, as copy.default (shop.yaml:21:3) says; its answers are thrown away
        "#]],
    );
}

#[test]
fn preflights_are_answered_by_the_gateway() {
    check(
        "OPTIONS http://shop.example/orders/1 -H origin: https://shop.example -H access-control-request-method: PUT",
        expect![[r#"
              route   orders.default (shop.yaml:3:3)
              answer  200, the gateway answers preflights by itself
                      - access-control-allow-origin: https://shop.example
                      - vary: origin
        "#]],
    );
}

#[test]
fn hash_policies_tell_their_endpoint_where_it_is_known() {
    check(
        "GET http://a/hashed/ -H x-user: ann",
        expect![[r#"
              route   hashed.default (shop.yaml:23:3)
              goes to hashed, path /, host a
              balance Maglev by the header `x-user`
              picks   10.0.0.3:8080
        "#]],
    );
    check(
        "GET http://a/hashed/",
        expect![[r#"
              route   hashed.default (shop.yaml:23:3)
              goes to hashed, path /, host a
              balance Maglev by the header `x-user`
              picks   any: the request has nothing to hash
        "#]],
    );
    check(
        "GET http://a/ring/",
        expect![[r#"
              route   ring.default (shop.yaml:24:3)
              goes to hashed, path /, host a
              balance ring hash by the client's address
              picks   depends on the client's address; `--client` tells one
        "#]],
    );
    expect![[r#"
          route   ring.default (shop.yaml:24:3)
          goes to hashed, path /, host a
          balance ring hash by the client's address
          picks   10.0.0.1:8080
    "#]]
    .assert_eq(&told(SHOP, "GET http://a/ring/", "192.0.2.1"));
    check(
        "GET http://a/cookie/",
        expect![[r#"
              route   cookie.default (shop.yaml:25:3)
              goes to hashed, path /, host a
              balance ring hash by the cookie `c`
              picks   any: the request has no such cookie, the answer brings one
        "#]],
    );
    check(
        "GET http://a/cookie/ -H cookie: c=abc",
        expect![[r#"
              route   cookie.default (shop.yaml:25:3)
              goes to hashed, path /, host a
              balance ring hash by the cookie `c`
              picks   10.0.0.2:8080
        "#]],
    );
    check(
        "GET http://a/dns/ -H x-user: ann",
        expect![[r#"
              route   dns.default (shop.yaml:26:3)
              goes to elsewhere.example, path /, host a
              balance ring hash by the header `x-user`
              picks   is not known here; `--admin` asks a running process
        "#]],
    );
}

#[test]
fn members_of_a_group_share_their_headers() {
    check(
        "GET http://a/pay/",
        expect![[r#"
              route   next.default (shop.yaml:27:3), 10 % of such requests
              goes to next, path /, host a
              request adds x-next: yes
              request adds x-pay: yes (as another Mapping of its group says)
              route   pay.default (shop.yaml:28:3), 90 % of such requests
              goes to pay, path /, host a
              request adds x-next: yes (as another Mapping of its group says)
              request adds x-pay: yes
        "#]],
    );
}

#[test]
fn a_filter_policy_refuses_what_its_rules_name() {
    let text = format!("{SHOP}{FILTERED}");
    let told = |question: &str| told(&text, question, "");
    expect![[r#"
          route   orders.default (shop.yaml:3:3)
          answer  500, FilterPolicy shop.default wants somebody to be asked first, which Nuncio cannot do
    "#]].assert_eq(&told("GET http://shop.example/orders/1"));
    let open = told("GET http://shop.example/orders/open/1");
    assert!(open.contains("goes to http://orders:8080"), "{open}");
    let other = told("GET http://other.example/orders/1");
    assert!(other.contains("goes to http://orders:8080"), "{other}");
}
