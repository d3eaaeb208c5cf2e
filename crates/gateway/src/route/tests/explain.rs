use expect_test::{Expect, expect};

use super::{Table, config};
use crate::route::explain::{Question, explain};

const SHOP: &str = r#"
routes:
  - { name: orders, prefix: /orders/, service: "http://orders.shop:8080" }
  - { name: orders-next, prefix: /orders/, service: next, regex_headers: { x-next: "1|yes" }, auto_host_rewrite: true }
  - { name: orders-post, prefix: /orders/, method: POST, query_parameters: { dry: "1" } }
  - { name: tenant, prefix: /orders/, hostname: tenant.example }
  - { name: home, prefix: /, service: web, host_rewrite: web.internal }
  - { name: old, prefix: /old/, service: "https://new.example", host_redirect: true }
  - { name: canary, prefix: /pay/, weight: 10, service: pay-next }
  - { name: pay, prefix: /pay/, weight: 60, service: pay }
  - { name: copy, prefix: /pay/, shadow: true }
  - { name: wrong, prefix: /pay/, bypass_auth: true }
publish:
  - { name: place, route: "POST /events/{kind}", topic: events }
"#;

#[track_caller]
fn check(written: &str, question: &str, expected: Expect) {
    let config = config(written);
    let (table, _) = Table::build(&config);
    let mut words = question.split(" -H ");
    let (method, address) = words.next().unwrap().split_once(' ').unwrap();
    let headers: Vec<String> = words.map(str::to_owned).collect();
    let told = match Question::read(method, address, &headers) {
        Ok(question) => explain(&config, &table, &question).to_string(),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&told);
}

#[test]
fn the_winner_and_the_losers_have_reasons() {
    check(
        SHOP,
        "GET http://shop.example/orders/1?x=y",
        expect![[r#"
            GET http://shop.example/orders/1?x=y
              path    /orders/1
              host    `*`, requests without TLS are routed
              route   orders.default (test)
                      - the host is `*`
                      - the path begins with `/orders/`
                      - first of the 2 routes that match
              goes to http://orders.shop:8080, path /1?x=y, host shop.example
            others
              home.default (test): it matches too, but its prefix `/` is shorter than `/orders/`
              tenant.default (test): it is for the host `tenant.example`
              orders-next.default (test): header `x-next` does not match `1|yes`
              orders-post.default (test): the method is GET, not POST
              old.default (test): the path does not begin with `/old/`
              place.default (test): the path does not match `/events/*`
              canary.default (test): the path does not begin with `/pay/`
              pay.default (test): the path does not begin with `/pay/`
              copy.default (test): the path does not begin with `/pay/`
              wrong.default (test): the path does not begin with `/pay/`
        "#]],
    );
    check(
        SHOP,
        "POST http://shop.example/a/../orders/ -H X-Next: yes",
        expect![[r#"
            POST http://shop.example/a/../orders/
              path    /orders/
              host    `*`, requests without TLS are routed
              route   orders-next.default (test)
                      - the host is `*`
                      - the path begins with `/orders/`
                      - header `x-next` matches `1|yes`
                      - first of the 3 routes that match
              goes to next, path /, host next
            others
              orders.default (test): it matches too, but it says less about host and headers
              home.default (test): it matches too, but its prefix `/` is shorter than `/orders/`
              tenant.default (test): it is for the host `tenant.example`
              orders-post.default (test): query parameter `dry` is not `1`
              old.default (test): the path does not begin with `/old/`
              place.default (test): the path does not match `/events/*`
              canary.default (test): the path does not begin with `/pay/`
              pay.default (test): the path does not begin with `/pay/`
              copy.default (test): the path does not begin with `/pay/`
              wrong.default (test): the path does not begin with `/pay/`
        "#]],
    );
}

#[test]
fn weights_show_as_shares() {
    check(
        SHOP,
        "GET http://shop.example/pay/",
        expect![[r#"
            GET http://shop.example/pay/
              path    /pay/
              host    `*`, requests without TLS are routed
              route   canary.default (test), 10 % of such requests
                      - the host is `*`
                      - the path begins with `/pay/`
                      - first of the 4 routes that match
              goes to pay-next, path /, host shop.example
              shadow  100 % go to s too, as copy.default (test) says; its answers are thrown away
              route   pay.default (test), 60 % of such requests
                      - the host is `*`
                      - the path begins with `/pay/`
                      - first of the 4 routes that match
              goes to pay, path /, host shop.example
              shadow  100 % go to s too, as copy.default (test) says; its answers are thrown away
              route   home.default (test), 30 % of such requests
                      - the host is `*`
                      - the path begins with `/`
                      - first of the 4 routes that match
              goes to web, path /pay/, host web.internal
            others
              copy.default (test): it matches and gets a copy
              wrong.default (test): it is left out: `bypass_auth` differs from that of `canary.default`, which matches the same
              place.default (test): the path does not match `/events/*`
              orders-next.default (test): the path does not begin with `/orders/`
              orders-post.default (test): the path does not begin with `/orders/`
              orders.default (test): the path does not begin with `/orders/`
              old.default (test): the path does not begin with `/old/`
              tenant.default (test): it is for the host `tenant.example`
        "#]],
    );
}

#[test]
fn redirects_and_topics_are_destinations() {
    check(
        SHOP,
        "GET http://shop.example/old/x",
        expect![[r#"
        GET http://shop.example/old/x
          path    /old/x
          host    `*`, requests without TLS are routed
          route   old.default (test)
                  - the host is `*`
                  - the path begins with `/old/`
                  - first of the 2 routes that match
          answer  301 https://new.example/old/x
        others
          home.default (test): it matches too, but its prefix `/` is shorter than `/old/`
          orders-next.default (test): the path does not begin with `/orders/`
          orders-post.default (test): the path does not begin with `/orders/`
          orders.default (test): the path does not begin with `/orders/`
          place.default (test): the path does not match `/events/*`
          canary.default (test): the path does not begin with `/pay/`
          pay.default (test): the path does not begin with `/pay/`
          copy.default (test): the path does not begin with `/pay/`
          wrong.default (test): the path does not begin with `/pay/`
          tenant.default (test): it is for the host `tenant.example`
    "#]],
    );
    check(
        SHOP,
        "POST /events/mail -H Host: shop.example",
        expect![[r#"
            POST http://shop.example/events/mail
              path    /events/mail
              host    `*`, requests without TLS are routed
              route   place.default (test)
                      - the host is `*`
                      - the path matches `/events/*`
                      - the method is POST
                      - first of the 2 routes that match
              goes to topic events
            others
              home.default (test): it matches too, but its prefix `/` is shorter than `/events/*`
              orders-next.default (test): the path does not begin with `/orders/`
              orders-post.default (test): the path does not begin with `/orders/`
              orders.default (test): the path does not begin with `/orders/`
              canary.default (test): the path does not begin with `/pay/`
              pay.default (test): the path does not begin with `/pay/`
              copy.default (test): the path does not begin with `/pay/`
              wrong.default (test): the path does not begin with `/pay/`
              old.default (test): the path does not begin with `/old/`
              tenant.default (test): it is for the host `tenant.example`
        "#]],
    );
}

#[test]
fn refusals_say_why() {
    check(
        SHOP,
        "GET http://shop.example/%00",
        expect![[r#"
        GET http://shop.example/%00
          answer  400, the path has `%00` in it
    "#]],
    );
    check(
        "{ routes: [{ prefix: /x/, hostname: ~ }], hosts: [{ hostname: a.example }] }",
        "GET http://a.example/x/",
        expect![[r#"
            GET http://a.example/x/
              path    /x/
              host    `a.example`, requests without TLS are redirected to HTTPS
              answer  404, no route matches
            others
              x.default (test): it is left out: no Host takes it: it has no `hostname`, and no Host selects it by its labels
        "#]],
    );
    check(
        "{ routes: [{ prefix: /x/ }], hosts: [{ hostname: a.example }] }",
        "GET http://b.example/x/",
        expect![[r#"
            GET http://b.example/x/
              path    /x/
              host    none has this name
              answer  404, no Host has this name
            others
              x.default (test): it would match
        "#]],
    );
    check(
        "{ routes: [{ prefix: /x/ }], hosts: [{ hostname: a.example }] }",
        "GET http://a.example/x/?q",
        expect![[r#"
            GET http://a.example/x/?q
              path    /x/
              host    `a.example`, requests without TLS are redirected to HTTPS
              route   x.default, but by HTTPS only
              answer  301 https://a.example/x/?q
        "#]],
    );
    for bad in ["G?T /", "GET x/y", "GET ftp://x/", "GET / -H x"] {
        check(
            SHOP,
            bad,
            match bad {
                "G?T /" => expect!["`G?T` is no HTTP method"],
                "GET x/y" => {
                    expect!["`x/y` is neither a path nor an `http://` or `https://` address"]
                }
                "GET ftp://x/" => {
                    expect!["`ftp://x/` is neither a path nor an `http://` or `https://` address"]
                }
                _ => expect!["`x` is no header, write it as `name: value`"],
            },
        );
    }
}

#[test]
fn ten_losers_are_told_and_the_others_counted() {
    let routes: Vec<String> = (0..20)
        .map(|at| format!("{{ name: r{at}, prefix: /r{at}/ }}"))
        .collect();
    check(
        &format!("routes: [{}]", routes.join(", ")),
        "GET /r1/",
        expect![[r#"
            GET http:///r1/
              path    /r1/
              host    `*`, requests without TLS are routed
              route   r1.default (test)
                      - the host is `*`
                      - the path begins with `/r1/`
                      - no other route matches
              goes to s, path /, host 
            others
              r19.default (test): the path does not begin with `/r19/`
              r18.default (test): the path does not begin with `/r18/`
              r17.default (test): the path does not begin with `/r17/`
              r16.default (test): the path does not begin with `/r16/`
              r15.default (test): the path does not begin with `/r15/`
              r14.default (test): the path does not begin with `/r14/`
              r13.default (test): the path does not begin with `/r13/`
              r12.default (test): the path does not begin with `/r12/`
              r11.default (test): the path does not begin with `/r11/`
              r10.default (test): the path does not begin with `/r10/`
              and 9 more, further away
        "#]],
    );
}

#[test]
fn the_json_has_the_same() {
    let config = config(SHOP);
    let (table, _) = Table::build(&config);
    let question = Question::read("GET", "http://shop.example/orders/1", &[]).unwrap();
    let mut json = serde_json::to_value(explain(&config, &table, &question)).unwrap();
    json.as_object_mut().unwrap().remove("losers");
    expect![[r#"
        {
          "host": "`*`, requests without TLS are routed",
          "losers_more": 0,
          "outcome": {
            "routed": [
              {
                "destination": {
                  "service": {
                    "host": "shop.example",
                    "path": "/1",
                    "service": "http://orders.shop:8080"
                  }
                },
                "live": null,
                "origin": "test",
                "policies": [],
                "reasons": [
                  "the host is `*`",
                  "the path begins with `/orders/`",
                  "first of the 2 routes that match"
                ],
                "route": "orders.default",
                "shadow": null,
                "share_percent": 100.0
              }
            ]
          },
          "path": "/orders/1",
          "request": "GET http://shop.example/orders/1"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&json).unwrap());
}
