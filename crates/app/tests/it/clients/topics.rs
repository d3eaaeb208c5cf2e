//! Topics come and go.

use std::time::Duration;

use serde_json::json;
use testkit::wait;

use super::contract::{Agent, Client, Producing, Record};
use super::data::PARTITIONS;
use super::kcat::hex;
use super::subject::unique;

const LIMIT: Duration = Duration::from_secs(20);

impl Client {
    /// Makes a topic, with the client's own admin calls where it has them.
    #[track_caller]
    pub(super) fn make_topic(&mut self, topic: &str, partitions: i32) {
        let agent = match self {
            Self::Script(agent) => agent,
            Self::Kcat(kcat) => &mut kcat.maker,
        };
        agent.ask(json!({ "do": "create", "topic": topic, "partitions": partitions }));
    }
}

/// Create, refuse to create twice, list, describe, delete; or, with kcat, what producing to a new topic does.
#[track_caller]
pub(super) fn come_and_go(client: &mut Client) -> &'static str {
    match client {
        Client::Script(agent) => with_admin(agent),
        Client::Kcat(_) => {
            let topic = unique("made-by-use");
            let record = Record {
                partition: 0,
                key: None,
                value: Some(hex(b"first")),
                timestamp: 0,
                headers: Vec::new(),
            };
            let producing = Producing {
                topic: &topic,
                codec: "none",
                acks: "all",
                idempotent: false,
            };
            client.produce(producing, std::slice::from_ref(&record));
            let read = client.consume(&topic, 1);
            assert_eq!(read[0].record.value, record.value);
            let Client::Kcat(kcat) = client else {
                unreachable!("it was one above")
            };
            let listed = kcat.topics();
            assert!(
                listed.iter().any(|(name, _)| *name == topic),
                "{topic} is not in {listed:?}"
            );
            "topics made by use, listed"
        }
    }
}

#[track_caller]
fn with_admin(agent: &mut Agent) -> &'static str {
    let topic = unique("comes-and-goes");
    let lists = |agent: &mut Agent| {
        let topics = agent.ask(json!({ "do": "topics" }))["topics"].clone();
        topics
            .as_array()
            .is_some_and(|topics| topics.contains(&json!(topic)))
    };
    agent.ask(json!({ "do": "create", "topic": topic, "partitions": 5 }));
    let again = agent.try_ask(json!({ "do": "create", "topic": topic, "partitions": 5 }));
    let again = again.expect_err("a topic is made once");
    assert!(
        again.contains("exists") || again.contains("EXISTS"),
        "{again}"
    );
    wait::until("the topic in the list", LIMIT, || {
        lists(agent).then_some(())
    });
    wait_described(agent, &topic, 5);

    agent.ask(json!({ "do": "delete", "topic": topic }));
    wait::until("the topic to leave the list", LIMIT, || {
        (!lists(agent)).then_some(())
    });
    // The name is free again.
    agent.ask(json!({ "do": "create", "topic": topic, "partitions": PARTITIONS }));
    wait_described(agent, &topic, PARTITIONS);
    agent.ask(json!({ "do": "delete", "topic": topic }));
    "topics created, listed, described, deleted"
}

/// A broker may take a moment to know everywhere what it has agreed to make.
#[track_caller]
fn wait_described(agent: &mut Agent, topic: &str, partitions: i32) {
    wait::until(
        &format!("{topic} to have {partitions} partitions"),
        LIMIT,
        || {
            let answer = agent.try_ask(json!({ "do": "describe", "topic": topic }));
            answer
                .is_ok_and(|described| described["partitions"] == partitions)
                .then_some(())
        },
    );
}
