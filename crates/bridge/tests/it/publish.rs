//! A request becomes a record, and the answer says where it is, or why it is nowhere.

use serde_json::Value;

use crate::house::{House, post};

const CONFIG: &str = r#"
topics:
  orders: {}
  small: { message_bytes_max: 200 }
publish:
  - route: POST /events/{kind}
    topic: orders
    key: "{path.kind}-{body.id}"
    headers: [x-tenant, content-type]
    add_headers: { kind: "{path.kind}", missing: "{query.nothing}" }
    body_bytes_max: 1KiB
  - { route: POST /keyed, topic: orders, key: "{header.x-key}", key_required: true }
  - { route: POST /small, topic: small }
"#;

#[tokio::test]
async fn a_request_becomes_a_durable_record() {
    let house = House::start(CONFIG).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("x-tenant", "acme"),
        ("x-other", "no"),
        ("traceparent", parent),
    ];
    let (status, answered, body) =
        post(house.gateway, "/events/placed", &headers, r#"{"id": 7}"#).await;
    assert_eq!(status, 201);
    assert_eq!(answered["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&body["topic"], &body["partition"], &body["offset"]),
        (&"orders".into(), &0.into(), &0.into())
    );
    assert!(body["timestamp"].as_i64().unwrap() > 1_700_000_000_000);

    let stored = &house.records("orders", 1).await[0];
    assert_eq!(stored.key.as_deref(), Some("placed-7"));
    assert_eq!(stored.value.as_deref(), Some(r#"{"id": 7}"#));
    assert_eq!(stored.header("x-tenant"), Some("acme"));
    assert_eq!(stored.header("kind"), Some("placed"));
    assert_eq!(
        (stored.header("x-other"), stored.header("missing")),
        (None, None)
    );
    let trace = stored.header("traceparent").unwrap();
    assert_eq!(
        trace[..36],
        parent[..36],
        "the record stays in the caller's trace"
    );
    assert_ne!(trace[36..52], parent[36..52], "under a span of its own");
}

#[tokio::test]
async fn a_key_that_cannot_be_made_is_none_or_refused() {
    let house = House::start(CONFIG).await;
    let (status, ..) = post(house.gateway, "/events/placed", &[], "not json").await;
    assert_eq!(status, 201);
    assert_eq!(house.records("orders", 1).await[0].key, None);
    let (status, headers, body) = post(house.gateway, "/keyed", &[], "x").await;
    assert_eq!(
        (status, &headers["content-type"]),
        (400, &"application/problem+json".parse().unwrap())
    );
    assert!(
        String::from_utf8_lossy(&body).contains("`header.x-key`"),
        "{body:?}"
    );
}

#[tokio::test]
async fn too_large_is_413_by_the_route_and_by_the_topic() {
    let house = House::start(CONFIG).await;
    let (status, ..) = post(house.gateway, "/events/a", &[], &"x".repeat(1025)).await;
    assert_eq!(status, 413);
    let (status, _, body) = post(house.gateway, "/small", &[], &"x".repeat(500)).await;
    assert_eq!(status, 413, "{body:?}");
    let (status, ..) = post(house.gateway, "/small", &[], "x").await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn a_caller_that_wants_little_gets_204() {
    let house = House::start(CONFIG).await;
    let (status, headers, body) = post(
        house.gateway,
        "/small",
        &[("prefer", "return=minimal")],
        "x",
    )
    .await;
    assert_eq!((status, body.len()), (204, 0));
    assert_eq!(headers["preference-applied"], "return=minimal");
    assert_eq!(house.records("small", 1).await.len(), 1);
    assert!(
        house
            .metrics
            .encode()
            .contains(r#"nuncio_publish_records_total{topic="small",route="POST /small"} 1"#)
    );
}
