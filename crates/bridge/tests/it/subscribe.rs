//! Each record becomes a request; what the service answers decides what happens next.

use std::fs;

use testkit::tls::{Ca, self_signed};

use crate::house::House;
use crate::sink::{Got, Sink};

fn yaml(sink: &Sink, more: &str) -> String {
    format!(
        r#"
topics: {{ orders: {{}}, dead: {{}} }}
subscribe:
  - topic: orders
    service: "{}"
    path: /on-order
    group: mail
    retry: {{ backoff_min: 10ms, backoff_max: 20ms, attempts_max: 3 }}
    dead_letter: dead
    {more}
"#,
        sink.address
    )
}

/// Returns whether this is the record's first try.
fn first(got: &Got) -> bool {
    got.header("nuncio-attempt") == "1"
}

#[tokio::test]
async fn a_record_arrives_with_its_place_and_is_committed() {
    let mut sink = Sink::start(|_| "204".into()).await;
    let house = House::start(&yaml(&sink, "")).await;
    house.produce("orders", "k", "v").await;
    let subscriptions = house.subscribe().await;
    let got = sink.next().await;
    assert_eq!((got.path.as_str(), got.body.as_str()), ("/on-order", "v"));
    for (name, value) in [
        ("nuncio-topic", "orders"),
        ("nuncio-partition", "0"),
        ("nuncio-offset", "0"),
        ("nuncio-key", "k"),
        ("nuncio-attempt", "1"),
        ("idempotency-key", "orders/0/0"),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }
    assert_eq!(got.header("traceparent").len(), 55);
    house.committed("mail", "orders", 1).await;
    subscriptions.end().await;
}

#[tokio::test]
async fn progress_outlives_the_subscription() {
    let mut sink = Sink::start(|_| "200".into()).await;
    let house = House::start(&yaml(&sink, "")).await;
    house.produce("orders", "a", "1").await;
    let subscriptions = house.subscribe().await;
    assert_eq!(sink.next().await.body, "1");
    subscriptions.end().await;
    house.produce("orders", "a", "2").await;
    let subscriptions = house.subscribe().await;
    assert_eq!(sink.next().await.body, "2");
    subscriptions.end().await;
    assert!(sink.rest().is_empty(), "nothing is delivered twice");
}

#[tokio::test]
async fn a_failing_record_holds_back_its_own_key_alone() {
    let answer = |got: &Got| {
        if got.body == "a1" && first(got) {
            "500".into()
        } else {
            "204".into()
        }
    };
    let mut sink = Sink::start(answer).await;
    let house = House::start(&yaml(&sink, "")).await;
    for (key, value) in [("a", "a1"), ("a", "a2"), ("b", "b1")] {
        house.produce("orders", key, value).await;
    }
    let subscriptions = house.subscribe().await;
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(sink.next().await.body);
    }
    let of_a: Vec<_> = order.iter().filter(|body| body.starts_with('a')).collect();
    assert_eq!(of_a, ["a1", "a1", "a2"]);
    assert!(order.contains(&"b1".to_owned()));
    house.committed("mail", "orders", 3).await;
    subscriptions.end().await;
}

#[tokio::test]
async fn what_cannot_be_delivered_goes_to_the_dead_letters() {
    let answer = |got: &Got| match got.body.as_str() {
        "refused" => "422".into(),
        "broken" => "500".into(),
        "sent" => "200 x-outcome: dlq".into(),
        "dropped" => "500 x-outcome: drop".into(),
        _ => "204".to_owned(),
    };
    let mut sink = Sink::start(answer).await;
    let house = House::start(&yaml(&sink, "order_by: partition")).await;
    for value in ["refused", "broken", "sent", "dropped", "good"] {
        house.produce("orders", "k", value).await;
    }
    let subscriptions = house.subscribe().await;
    let mut tries = Vec::new();
    while tries.last().is_none_or(|last| last != "good") {
        tries.push(sink.next().await.body);
    }
    assert_eq!(
        tries,
        [
            "refused", "broken", "broken", "broken", "sent", "dropped", "good"
        ]
    );
    house.committed("mail", "orders", 5).await;
    let dead = house.records("dead", 3).await;
    let told: Vec<_> = dead
        .iter()
        .map(|record| {
            let header = |name| record.header(name).unwrap_or_default().to_owned();
            (
                record.value.clone().unwrap(),
                header("nuncio-dead-offset"),
                header("nuncio-dead-attempts"),
            )
        })
        .collect();
    let expected = [
        ("refused", "0", "1"),
        ("broken", "1", "3"),
        ("sent", "2", "1"),
    ];
    assert_eq!(
        told,
        expected.map(|(value, offset, tries)| (value.into(), offset.into(), tries.into()))
    );
    assert_eq!(
        dead[0].header("nuncio-dead-reason"),
        Some("the service answered 422 Unprocessable Entity")
    );
    assert_eq!(dead[0].key.as_deref(), Some("k"));
    subscriptions.end().await;
}

#[tokio::test]
async fn a_service_that_is_gone_gets_no_more() {
    let mut sink = Sink::start(|_| "410".into()).await;
    let house = House::start(&yaml(&sink, "order_by: partition")).await;
    for value in ["1", "2"] {
        house.produce("orders", "k", value).await;
    }
    let subscriptions = house.subscribe().await;
    assert_eq!(sink.next().await.body, "1");
    house
        .metric(r#"nuncio_subscribe_disabled{subscription="#, "1")
        .await;
    subscriptions.end().await;
    assert!(sink.rest().is_empty());
    assert!(
        house
            .broker
            .groups()
            .iter()
            .all(|group| group.offsets.iter().all(|o| o.committed == 0))
    );
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_counts_as_a_failed_try() {
    let sink = Sink::start(|_| "204".into()).await;
    let house =
        House::start(&yaml(&sink, "").replace(&sink.address.to_string(), "127.0.0.1:1")).await;
    house.produce("orders", "k", "v").await;
    let subscriptions = house.subscribe().await;
    let dead = house.records("dead", 1).await;
    assert!(
        dead[0]
            .header("nuncio-dead-reason")
            .unwrap()
            .contains("could not be reached"),
        "{dead:?}"
    );
    subscriptions.end().await;
}

#[tokio::test]
async fn over_tls_the_service_must_be_trusted() {
    let sink = Sink::start_tls(&self_signed("127.0.0.1"), |_| "204".into()).await;
    let yaml = yaml(&sink, "").replace("service: \"", "service: \"https://");
    let house = House::start(&yaml).await;
    house.produce("orders", "k", "v").await;
    let subscriptions = house.subscribe().await;
    let dead = house.records("dead", 1).await;
    let why = dead[0].header("nuncio-dead-reason").unwrap_or_default();
    assert!(why.contains("certificate"), "{why}");
    subscriptions.end().await;
}

#[tokio::test]
async fn a_tls_context_says_who_is_trusted_and_its_file_may_come_late() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    let mut sink = Sink::start_tls(&ca.sign("127.0.0.1"), |_| "204".into()).await;
    let file = folder.path().join("ca.pem");
    let subscription = yaml(&sink, "tls: internal").replace("attempts_max: 3", "attempts_max: 0");
    let yaml = format!(
        "{subscription}
---
apiVersion: getambassador.io/v3alpha1
kind: TLSContext
metadata: {{ name: internal }}
spec: {{ cacert_chain_file: '{}' }}
",
        file.display()
    );
    let house = House::start(&yaml).await;
    house.produce("orders", "k", "v").await;
    let subscriptions = house.subscribe().await;
    fs::write(folder.path().join("next"), ca.pem()).unwrap();
    fs::rename(folder.path().join("next"), &file).unwrap();
    assert_eq!(sink.next().await.body, "v");
    house.committed("mail", "orders", 1).await;
    subscriptions.end().await;
}
