//! Transactions: what is committed is seen, what is aborted is not, and a producer that has a successor is shut out.

use serde_json::{Value, json};

use super::contract::{Agent, Client, Record};
use super::data::PARTITIONS;
use super::kcat::hex;
use super::subject::unique;

/// Records of each transaction; all partitions have some.
const RECORDS: i32 = 30;

/// Commit, abort, commit; then a transaction left open, and a successor that aborts it and shuts its producer out.
#[track_caller]
pub(super) fn commit_abort_and_fence(client: &mut Client) -> &'static str {
    let kind = client.kind();
    let agent = match client {
        Client::Script(agent) if kind.transactional() => agent,
        _ => return "it has no transactions",
    };
    let (topic, id) = (unique("transactions"), unique("producer"));
    agent.ask(json!({ "do": "create", "topic": topic, "partitions": PARTITIONS }));
    let transact = |agent: &mut Agent, name: &str, end: &str| {
        let records = records(name);
        agent.ask(json!({
            "do": "transact", "topic": topic, "id": id, "end": end, "records": records,
        }));
    };
    transact(agent, "first", "commit");
    transact(agent, "second", "abort");
    transact(agent, "third", "commit");
    // In each partition the third come after the second: had the second shown, the third would be missing.
    see(agent, &topic, true, &["first", "third"]);
    see(agent, &topic, false, &["first", "second", "third"]);

    transact(agent, "zombie", "open");
    see(
        agent,
        &topic,
        false,
        &["first", "second", "third", "zombie"],
    );
    transact(agent, "heir", "commit");
    let fenced = agent.try_ask(json!({ "do": "finish" }));
    let error = fenced.expect_err("it has a successor").to_lowercase();
    // Some call it by other names, and sarama by none.
    let fenced = ["fence", "newer", "error code = 90"];
    assert!(fenced.iter().any(|word| error.contains(word)), "{error}");
    see(agent, &topic, true, &["first", "third", "heir"]);
    "transactions committed, aborted, fenced"
}

fn records(name: &str) -> Vec<Record> {
    (0..RECORDS)
        .map(|number| Record {
            partition: number % PARTITIONS,
            key: None,
            value: Some(value(name, number)),
            timestamp: super::data::now_ms(),
            headers: Vec::new(),
        })
        .collect()
}

fn value(name: &str, number: i32) -> String {
    hex(format!("{name}-{number:02}").as_bytes())
}

/// Reads as many records as these transactions have, and holds each partition's against theirs, in their order.
#[track_caller]
fn see(agent: &mut Agent, topic: &str, committed: bool, transactions: &[&str]) {
    let isolation = ["read_uncommitted", "read_committed"][usize::from(committed)];
    let read = agent.ask(json!({
        "do": "consume", "topic": topic, "count": RECORDS * transactions.len() as i32,
        "isolation": isolation,
    }));
    for partition in 0..PARTITIONS {
        let records = read["records"].as_array().into_iter().flatten();
        let found: Vec<Value> = records
            .filter(|record| record["partition"] == partition)
            .map(|record| record["value"].clone())
            .collect();
        let expected: Vec<String> = transactions
            .iter()
            .flat_map(|name| {
                let numbers = (0..RECORDS).filter(|number| number % PARTITIONS == partition);
                numbers.map(|number| value(name, number))
            })
            .collect();
        assert_eq!(found, expected, "partition {partition} with {isolation}");
    }
}
