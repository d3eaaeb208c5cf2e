//! The short spelling.

use expect_test::expect;

use crate::{load, names, problems};

const SHOP: &str = r#"
services:
  orders:    { build: ./orders, run: node src/app.js, health: /healthz }
  inventory: { build: ./inventory, run: ./target/release/inventory }
  mailer:    { build: ./mailer, run: python3 app.py }
routes:
  - { prefix: /orders/, service: orders, retry_policy: { retry_on: 5xx, num_retries: 2 } }
topics:
  orders.placed: { partitions: 3, retention: 7d }
publish:
  - { route: POST /events/orders, topic: orders.placed, key: "{body.order_id}" }
subscribe:
  - { topic: orders.placed, service: mailer, path: /on-order, order_by: key }
"#;

#[test]
fn the_first_example_is_good() {
    problems(SHOP, expect![""]);
    names(
        SHOP,
        expect![[r#"
        mappings: orders.default
        services: orders.default inventory.default mailer.default
        topics: orders.placed.default
        publish: post-events-orders.default
        subscribe: orders.placed-mailer-on-order.default
    "#]],
    );
}

#[test]
fn derived_names_do_not_depend_on_the_order() {
    names(
        "routes:\n- { prefix: /b/, service: b }\n- { prefix: /, service: c, method: GET }\n- { prefix: /b/, service: b, weight: 5 }\n- { prefix: /x, service: b, name: mine }\n",
        expect![[r#"
            mappings: b.default get.default b-2.default mine.default
        "#]],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    problems(
        r#"
routes:
  - { prefx: /a/, service: a, timeout_ms: soon, retry_policy: { retry_on: 500, num_retries: -1 } }
  - { prefix: /b/, service: b }
  - prefix: /c/
    service: c
    redirect_response_code: 305
    regex_headers: { x-a: "(" }
    hostname: "a.*.com"
"#,
        expect![[r#"
            a.yaml:3:7: error: routes[0].prefx: unknown field `prefx` (did you mean `prefix`?)
            a.yaml:3:43: error: routes[0].timeout_ms: expected a whole number, not negative, found `soon`
            a.yaml:3:75: error: routes[0].retry_policy.retry_on: unknown value `500` (known are `5xx`, `gateway-error`, `reset`, `reset-before-request`, `connect-failure`, `retriable-4xx`, `refused-stream`, `retriable-status-codes`, `retriable-headers`, `envoy-ratelimited`, `cancelled`, `deadline-exceeded`, `internal`, `resource-exhausted`, `unavailable`)
            a.yaml:3:93: error: routes[0].retry_policy.num_retries: expected a whole number, not negative, found `-1`
            a.yaml:7:29: error: routes[2].redirect_response_code: 305 is no redirect (use 301, 302, 303, 307 or 308)
            a.yaml:8:27: error: routes[2].regex_headers.x-a: this is no regular expression: unclosed group
            a.yaml:9:15: error: routes[2].hostname: `a.*.com` is no glob (a `*` stands alone, at the start or at the end)
        "#]],
    );
}

#[test]
fn a_bad_object_is_refused_alone() {
    let text =
        "routes:\n- { prefix: /a/, service: a, weight: 101 }\n- { prefix: /b/, service: b }\n- 7\n";
    problems(
        text,
        expect![[r#"
        a.yaml:2:38: error: routes[0].weight: a weight of 101 is more than 100 percent
        a.yaml:4:3: error: routes[2]: expected a map of fields
    "#]],
    );
    names(
        text,
        expect![[r#"
        mappings: b.default
    "#]],
    );
}

#[test]
fn names_that_are_used_are_known() {
    problems(
        r#"
services:
  orders: { run: node app.js, needs: [inventry] }
  inventory: { run: ./inventory }
routes:
  - { prefix: /orders/, service: ordres }
  - { prefix: /mail/, service: smtp-gateway }
  - { prefix: /far/, service: "far.example.com:8080" }
  - { prefix: /old/, service: elsewhere, host_redirect: true }
topics:
  orders.placed: {}
publish:
  - { route: POST /e, topic: orders.place }
subscribe:
  - { topic: payments, service: inventory, path: /x, dead_letter: orders.dead }
"#,
        expect![[r#"
            a.yaml:3:39: error: services.orders.needs[0]: unknown service `inventry` (did you mean `inventory`?)
            a.yaml:6:34: error: routes[0].service: unknown service `ordres` (did you mean `orders`?)
            a.yaml:7:32: error: routes[1].service: unknown service `smtp-gateway` (known are `inventory`, `orders`)
            a.yaml:13:30: error: publish[0].topic: unknown topic `orders.place` (did you mean `orders.placed`?)
            a.yaml:15:14: error: subscribe[0].topic: unknown topic `payments` (write it under `topics:`, as in `payments: { partitions: 3 }`)
            a.yaml:15:67: error: subscribe[0].dead_letter: unknown topic `orders.dead` (did you mean `orders.placed`?)
        "#]],
    );
}

#[test]
fn a_foreign_cluster_may_have_topics_nobody_told_us_of() {
    problems(
        "broker: { bootstrap: 'kafka-1:9092' }\npublish:\n- { route: POST /e, topic: somewhere }\n",
        expect![""],
    );
}

#[test]
fn settings_under_kafkas_names_are_held_to_kafkas_bounds() {
    problems(
        r#"
broker:
  settings:
    log.segment.bytes: 5
    log.cleaner.min.cleanable.ratio: 1.5
    compression.gzip.level: 0
    compression.type: brotli
    log.cleaner.min.compaction.lag.ms: 2
    log.cleaner.max.compaction.lag.ms: 1
    group.min.session.timeout.ms: 2000000
"#,
        expect![[r#"
            a.yaml:4:24: error: broker.settings.log.segment.bytes: `log.segment.bytes` cannot be 5 (use 1048576 or more)
            a.yaml:5:38: error: broker.settings.log.cleaner.min.cleanable.ratio: `log.cleaner.min.cleanable.ratio` cannot be 1.5 (use 0 to 1)
            a.yaml:6:29: error: broker.settings.compression.gzip.level: `compression.gzip.level` cannot be 0 (use -1 to 9)
            a.yaml:7:23: error: broker.settings.compression.type: `compression.type` cannot be brotli (use one of producer, uncompressed, gzip, snappy, lz4, zstd)
            a.yaml:8:40: error: broker.settings.log.cleaner.min.compaction.lag.ms: records cannot wait longer than they may before they are compacted (lower it, or raise `log.cleaner.max.compaction.lag.ms`)
            a.yaml:10:35: error: broker.settings.group.min.session.timeout.ms: the shortest session cannot be longer than the longest (lower it, or raise `group.max.session.timeout.ms`)
        "#]],
    );
    problems(
        "broker:\n  settings: { log.cleaner.enable: 'off', num.io.threads: 8 }\n",
        expect![[r#"
            a.yaml:2:35: error: broker.settings.log.cleaner.enable: expected `true` or `false`, found `off`
            a.yaml:2:42: error: broker.settings.num.io.threads: unknown field `num.io.threads`
        "#]],
    );
    problems(
        "broker:\n  settings: { log.segment.bytes: 1048576, log.cleaner.min.cleanable.ratio: 1, compression.type: zstd }\n",
        expect![""],
    );
}

#[test]
fn what_is_said_of_the_cluster_in_the_brokers_place_is_checked() {
    problems(
        r#"
broker:
  bootstrap: "kafka-1:9092"
  security:
    protocol: SSL
    certificate: a.crt
    sasl_mechanism: PLAIN
    username: u
    password_env: P
"#,
        expect![[r#"
            a.yaml:5:5: error: broker.security: `certificate` and `key` belong together
            a.yaml:7:21: error: broker.security.sasl_mechanism: `sasl_mechanism` has no effect with protocol `SSL` (use `SASL_SSL` or `SASL_PLAINTEXT`)
            a.yaml:8:15: error: broker.security.username: `username` has no effect with protocol `SSL` (use `SASL_SSL` or `SASL_PLAINTEXT`)
            a.yaml:9:19: error: broker.security.password_env: `password_env` has no effect with protocol `SSL` (use `SASL_SSL` or `SASL_PLAINTEXT`)
        "#]],
    );
    problems(
        r#"
broker:
  bootstrap: "kafka-1:9092"
  security: { protocol: SASL_PLAINTEXT, ca: ca.crt, password_env: P, password_file: p }
"#,
        expect![[r#"
            a.yaml:4:13: error: broker.security: a user has either `password_file` or `password_env` (a password never stands in the configuration itself)
            a.yaml:4:13: error: broker.security.username: protocol `SASL_PLAINTEXT` needs `username`
            a.yaml:4:45: error: broker.security.ca: `ca` has no effect with protocol `SASL_PLAINTEXT` (use `SSL` or `SASL_SSL`)
        "#]],
    );
    problems(
        "broker:\n  security: { protocol: SASL_SSL, username: u }\n",
        expect![[r#"
            a.yaml:2:13: error: broker.security: `security` is for the cluster of `bootstrap`, and there is none (the embedded broker has `listeners` and `users`)
            a.yaml:2:13: error: broker.security: a user has either `password_file` or `password_env` (a password never stands in the configuration itself)
        "#]],
    );
    problems(
        "broker:\n  bootstrap: 'kafka-1:9092'\n  security: { protocol: SASL_SSL, username: u, password_env: P, certificate: a, key: b, ca: c }\n",
        expect![""],
    );
}

#[test]
fn what_is_said_of_the_embedded_broker_beside_a_cluster_is_told() {
    problems(
        r#"
broker:
  bootstrap: "kafka-1:9092"
  listen: "127.0.0.1:9092"
  settings: { log.cleaner.enable: false }
"#,
        expect![[r#"
            a.yaml:4:11: warning: broker.listen: `listen` has no effect: `bootstrap` has a cluster take the embedded broker's place
            a.yaml:5:13: warning: broker.settings: `settings` has no effect: `bootstrap` has a cluster take the embedded broker's place
        "#]],
    );
}

#[test]
fn the_memory_for_requests_has_bounds() {
    problems(
        "broker: { queued_max_request_bytes: 15MiB }\n",
        expect![[r#"
            a.yaml:1:37: error: broker.queued_max_request_bytes: requests cannot have 15MiB of memory (use `16MiB` to `1TiB`)
        "#]],
    );
    problems(
        "broker: { queued_max_request_bytes: 2TiB }\n",
        expect![[r#"
            a.yaml:1:37: error: broker.queued_max_request_bytes: requests cannot have 2TiB of memory (use `16MiB` to `1TiB`)
        "#]],
    );
    problems(
        r#"
broker:
  queued_max_request_bytes: 256MiB
  listeners:
  - { name: A, listen: "127.0.0.1:1", socket_request_max_bytes: 129MiB }
  - { name: B, listen: "127.0.0.1:2", socket_request_max_bytes: 128MiB }
"#,
        expect![[r#"
            a.yaml:5:65: error: broker.listeners[0].socket_request_max_bytes: one request may take half of `queued_max_request_bytes` at most (write `queued_max_request_bytes: 258MiB`)
        "#]],
    );
    // Kafka's default for the largest request is cut to what there is.
    problems("broker: { queued_max_request_bytes: 16MiB }\n", expect![""]);
}

#[test]
fn services_that_wait_for_each_other_are_named() {
    problems(
        "services:\n  a: { run: a, needs: [b] }\n  b: { run: b, needs: [c] }\n  c: { run: c, needs: [a] }\n  d: { run: d, needs: [a] }\n",
        expect![[r#"
            a.yaml:2:23: error: services.a.needs: these services wait for each other: a → b → c → a
            a.yaml:3:23: error: services.b.needs: these services wait for each other: b → c → a → b
            a.yaml:4:23: error: services.c.needs: these services wait for each other: c → a → b → c
            a.yaml:5:24: error: services.d.needs[0]: the service `a` is refused itself
        "#]],
    );
}

#[test]
fn sections_have_their_shape() {
    problems(
        "routs: []\n",
        expect![[r#"
        a.yaml:1:1: error: routs: unknown section `routs` (did you mean `routes`?)
    "#]],
    );
    problems(
        "routes: { prefix: /a/, service: a }\n",
        expect![[r#"
        a.yaml:1:9: error: routes: expected a list (begin each item with `- `)
    "#]],
    );
    problems(
        "services: [orders]\n",
        expect![[r#"
        a.yaml:1:11: error: services: expected a map by name (write `services: { name: { … } }`)
    "#]],
    );
    problems(
        "routes: []\nroutes: []\n",
        expect![[r#"
        a.yaml:2:1: error: routes: the key `routes` stands here twice
    "#]],
    );
    problems(
        "- a\n- b\n",
        expect![[r#"
        a.yaml:1:1: error: a document must be a map (write `routes:`, `services:` and so on, or Kubernetes objects)
    "#]],
    );
    problems(
        "hello\n",
        expect![[r#"
        a.yaml:1:1: error: a document must be a map (write `routes:`, `services:` and so on, or Kubernetes objects)
    "#]],
    );
    problems("", expect![""]);
    problems("# nothing yet\n", expect![""]);
    problems("routes:\ntopics:\n", expect![""]);
    problems("topics:\n  a:\n", expect![""]);
}

#[test]
fn publish_is_checked() {
    problems(
        r#"
topics: { t: {} }
publish:
  - { route: /events, topic: t }
  - { route: GET /events, topic: t }
  - { route: "POST /a/{b", topic: t }
  - { route: "POST /a/{b...}/c", topic: t }
  - { route: "POST /b/{id}", topic: t, key: "{path.ide}" }
  - { route: "POST /c", topic: t, key: "{path.id}" }
  - { route: "POST /d", topic: t, key: "{cookie.x}" }
  - { route: "POST /e", topic: t, key: "{body.a" }
  - { route: "POST /f", topic: t, key_required: true }
  - { route: "POST /g", topic: t, headers: ["x y"], body_bytes_max: 1 apple, timeout: 3 }
  - { route: "POST /h/{x}", topic: t }
  - { route: "POST /h/{y}", topic: t }
"#,
        expect![[r#"
            a.yaml:4:14: error: publish[0].route: `/events` is no route, write it as `POST /events`
            a.yaml:5:14: error: publish[1].route: `GET` carries no record (use POST, PUT, PATCH or DELETE)
            a.yaml:6:14: error: publish[2].route: `{b` must be a whole segment: either text or `{name}`
            a.yaml:7:14: error: publish[3].route: `{b...}` takes the rest of the path, so it must be last
            a.yaml:8:45: error: publish[4].key: `{path.ide}` is not in the route (did you mean `id`?)
            a.yaml:9:40: error: publish[5].key: `{path.id}` is not in the route (write a segment `{id}` into the route)
            a.yaml:10:40: error: publish[6].key: `{cookie.x}` is unknown, use `{path.x}`, `{query.x}`, `{header.x}` or `{body.x}`
            a.yaml:11:40: error: publish[7].key: a `{` without its `}`; write `{{` for a plain one
            a.yaml:12:49: error: publish[8].key_required: `key_required` needs `key`
            a.yaml:13:69: error: publish[9].body_bytes_max: `1 apple` is not a size; write for example `1024`, `64KiB` or `1GB`
            a.yaml:13:87: error: publish[9].timeout: `3` has no unit; write for example `3s` or `3ms`
            a.yaml:15:14: error: publish[11].route: the route `POST /h/{y}` is published already (by the one in a.yaml:14:5)
        "#]],
    );
}

#[test]
fn subscribe_is_checked() {
    problems(
        r#"
topics: { t: {} }
subscribe:
  - { topic: t, service: m, path: on-order }
  - { topic: t, service: "m:x", path: /a }
  - { topic: t, service: m, path: /b, method: GET, order_by: keys, in_flight_max: 0 }
  - { topic: t, service: m, path: /c, dead_letter: t, retry: { backoff_min: 0s } }
  - { topic: t, service: m, path: /d, retry: { backoff_min: 1m } }
"#,
        expect![[r#"
            a.yaml:4:35: error: subscribe[0].path: `on-order` is no path (a path starts with `/`)
            a.yaml:5:26: error: subscribe[1].service: `x` is no port, use 1 to 65535
            a.yaml:6:62: error: subscribe[2].order_by: unknown value `keys` (did you mean `key`?)
            a.yaml:7:52: error: subscribe[3].dead_letter: undeliverable records would come back into the same topic
            a.yaml:7:77: error: subscribe[3].retry.backoff_min: without a wait a failing service would be called without a break (did you mean `200ms`?)
            a.yaml:8:46: error: subscribe[4].retry.backoff_max: `backoff_max` is shorter than `backoff_min`
        "#]],
    );
}

#[test]
fn topics_and_services_are_checked() {
    problems(
        r#"
topics:
  "no spaces": {}
  __consumer_offsets: {}
  a: { partitions: 0 }
  b: { retention: 0s }
  c: { retention: forever }
  d: { retention_bytes: 1GiBB, cleanup: compacted }
services:
  Orders: { run: x }
  a: {}
  b: { run: x, health: healthz, port: 70000, start_timeout: 10 }
"#,
        expect![[r#"
            a.yaml:3:16: error: topics.no spaces: `no spaces` is no topic name (use up to 249 letters, digits, `.`, `_` and `-`)
            a.yaml:4:23: error: topics.__consumer_offsets: `__consumer_offsets` is taken: names that start with `__` are the broker's own
            a.yaml:5:20: error: topics.a.partitions: a topic cannot have 0 partitions (use 1 to 10000)
            a.yaml:6:19: error: topics.b.retention: a retention of zero would drop every record at once (did you mean `1s`?)
            a.yaml:7:19: error: topics.c.retention: `forever` is not a duration; write for example `250ms`, `1m30s` or `7d`
            a.yaml:8:25: error: topics.d.retention_bytes: `1GiBB` is not a size; write for example `1024`, `64KiB` or `1GB`
            a.yaml:8:41: error: topics.d.cleanup: unknown value `compacted` (did you mean `compact`?)
            a.yaml:10:11: error: services.Orders: `Orders` is no service name (use up to 63 lower-case letters, digits and `-`, as a DNS name needs)
            a.yaml:11:6: error: services.a: the service has neither `build` nor `run`, so it cannot be started (write `run: node src/app.js`)
            a.yaml:12:39: error: services.b.port: expected a whole number from 0 to 65535, found `70000`
            a.yaml:12:61: error: services.b.start_timeout: `10` has no unit; write for example `10s` or `10ms`
        "#]],
    );
}

#[test]
fn numbers_and_words_keep_their_text() {
    let loaded = load(
        "routes:\n- prefix: /a\n  service: a\n  headers: { x-version: 1.0, x-id: 007, x-on: on }\n",
    );
    assert_eq!(loaded.problems, []);
    let headers = &loaded.config.mappings[0].spec.headers;
    assert_eq!(headers["x-version"], "1.0");
    assert_eq!(headers["x-id"], "007");
    assert_eq!(headers["x-on"], "on");
}

#[test]
fn anchors_and_merges_are_followed() {
    let text =
        "routes:\n- &base { prefix: /a, service: a, timeout_ms: 7 }\n- { <<: *base, prefix: /b }\n";
    problems(text, expect![""]);
    let loaded = load(text);
    let timeouts: Vec<_> = loaded
        .config
        .mappings
        .iter()
        .map(|m| m.spec.timeout_ms)
        .collect();
    assert_eq!(timeouts, [Some(7), Some(7)]);
}
