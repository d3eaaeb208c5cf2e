//! Share groups (KIP-932) with Apache Kafka's own share consumer and admin client.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::lab::{self, Missing};
use testkit::process::Process;

use super::contract::script;
use super::subject::{Subject, unique};

/// Longest wait for an answer, and for records.
const LIMIT: Duration = Duration::from_secs(90);

/// Consumers of one process, and an administrator.
struct Shares {
    process: Process,
    topic: String,
    group: String,
}

/// Offset, value, and which delivery it is.
type Got = (i64, String, i64);

impl Shares {
    fn start(subject: &Subject) -> Option<Shares> {
        let mut command = lab::or_skip(share_client())?;
        command.arg(subject.bootstrap());
        let mut shares = Shares {
            process: Process::start("Java share consumers", command),
            topic: unique("work"),
            group: unique("workers"),
        };
        shares.ask(json!({ "do": "create" }));
        Some(shares)
    }

    #[track_caller]
    fn try_ask(&mut self, mut command: Value) -> Result<Value, String> {
        command["topic"] = json!(self.topic);
        command["group"] = json!(self.group);
        self.process.write_line(&command.to_string());
        let line = self.process.next_line(LIMIT);
        let answer: Value = serde_json::from_str(&line).expect("an answer");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }

    #[track_caller]
    fn ask(&mut self, command: Value) -> Value {
        let told = format!("{command}");
        match self.try_ask(command) {
            Ok(answer) => answer,
            Err(error) => panic!("{told}: {error}"),
        }
    }

    #[track_caller]
    fn open(&mut self, name: &str, mode: &str) {
        self.ask(json!({ "do": "open", "name": name, "mode": mode }));
    }

    #[track_caller]
    fn set(&mut self, key: &str, value: &str) {
        self.ask(json!({ "do": "set", "key": key, "value": value }));
    }

    #[track_caller]
    fn produce(&mut self, values: std::ops::Range<usize>) {
        let values: Vec<String> = values.map(|number| format!("job-{number}")).collect();
        self.ask(json!({ "do": "produce", "values": values }));
    }

    /// What one poll brings.
    #[track_caller]
    fn poll(&mut self, name: &str, millis: u64) -> Vec<Got> {
        let answer = self.ask(json!({ "do": "poll", "name": name, "millis": millis }));
        let records = answer["records"].as_array().expect("records");
        let got = records.iter().map(|record| {
            let text = record[1].as_str().expect("a value").to_owned();
            let number = |at: usize| record[at].as_i64().expect("a number");
            (number(0), text, number(2))
        });
        got.collect()
    }

    /// Polls until there is something.
    #[track_caller]
    fn take(&mut self, name: &str) -> Vec<Got> {
        let begun = Instant::now();
        loop {
            let got = self.poll(name, 500);
            if !got.is_empty() {
                return got;
            }
            assert!(begun.elapsed() < LIMIT, "nothing for {name}");
        }
    }

    #[track_caller]
    fn say(&mut self, name: &str, offsets: impl IntoIterator<Item = i64>, kind: &str) {
        for offset in offsets {
            self.ask(json!({ "do": "say", "name": name, "offset": offset, "type": kind }));
        }
    }

    #[track_caller]
    fn commit(&mut self, name: &str) {
        let answer = self.ask(json!({ "do": "commit", "name": name }));
        assert_eq!(answer["failed"], json!([]), "{answer}");
    }

    /// Where the group is, and how many records it has not processed.
    #[track_caller]
    fn offsets(&mut self) -> (i64, i64) {
        let answer = self.ask(json!({ "do": "offsets" }));
        let number = |name: &str| answer[name].as_i64().expect("a number");
        (number("start"), number("lag"))
    }
}

fn share_client() -> Result<Command, Missing> {
    let classes = lab::javac(&script("ShareClient.java"), &lab::java()?)?;
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    command.args(["-cp", &classes, "ShareClient"]);
    Ok(command)
}

fn offsets(got: &[Got]) -> Vec<i64> {
    got.iter().map(|one| one.0).collect()
}

/// Accept, release, reject, renew; two consumers at one partition; a kill in the middle.
#[test]
fn java_share_consumers_share_a_partition_and_a_kill_brings_nothing_back() {
    let Some(mut subject) = Subject::start_restartable() else {
        return;
    };
    let Some(mut shares) = Shares::start(&subject) else {
        return;
    };
    shares.set("share.auto.offset.reset", "earliest");
    shares.produce(0..6);
    shares.open("a", "explicit");
    let got = shares.take("a");
    assert_eq!(offsets(&got), [0, 1, 2, 3, 4, 5]);
    assert!(got.iter().all(|one| one.2 == 1), "{got:?}");
    shares.open("b", "explicit");
    shares.produce(6..10);
    let got = shares.take("b");
    assert_eq!(offsets(&got), [6, 7, 8, 9], "the other has the rest");
    let described = shares.ask(json!({ "do": "describe" }));
    assert_eq!(described["members"], 2, "{described}");

    shares.say("a", [0, 1], "ACCEPT");
    shares.say("a", [2], "RELEASE");
    shares.say("a", [3], "REJECT");
    shares.say("a", [4, 5], "RENEW");
    shares.commit("a");
    shares.say("b", [6, 7, 8, 9], "ACCEPT");
    shares.commit("b");
    let got = shares.take("b");
    assert_eq!(got, [(2, "job-2".to_owned(), 2)]);
    shares.say("b", [2], "RELEASE");
    shares.commit("b");

    subject.kill();
    subject.restart();
    // What was acknowledged stays so; the rest comes again, to whoever asks first.
    let mut again = Vec::new();
    let begun = Instant::now();
    while again.len() < 3 {
        assert!(begun.elapsed() < LIMIT, "only {again:?}");
        // It has records from before the kill that it must speak of first.
        match shares.try_ask(json!({ "do": "poll", "name": "b", "millis": 500 })) {
            Ok(answer) => {
                for record in answer["records"].as_array().expect("records") {
                    let offset = record[0].as_i64().expect("an offset");
                    again.push((offset, record[2].as_i64().expect("a delivery")));
                    shares.say("b", [offset], "ACCEPT");
                }
            }
            Err(error) => panic!("{error}"),
        }
        // Its answer may be that it does not have the records any more, never another.
        _ = shares.try_ask(json!({ "do": "commit", "name": "b" }));
    }
    again.sort_unstable();
    let numbers: Vec<i64> = again.iter().map(|one| one.0).collect();
    assert_eq!(numbers, [2, 4, 5]);
    assert_eq!(again[0].1, 3, "the deliveries of before count");
    let begun = Instant::now();
    while shares.offsets().1 != 0 {
        assert!(begun.elapsed() < LIMIT, "{:?}", shares.offsets());
        shares.poll("b", 200);
    }
    lab::say(&format!(
        "Java share consumers at {}: shared, released, rejected, renewed, killed, and nothing came back",
        subject.name()
    ));
}

/// Implicit acknowledgement, the limit of time, closing, and what an administrator does.
#[test]
fn java_share_consumers_are_timed_and_administered() {
    let subject = Subject::start();
    let Some(mut shares) = Shares::start(&subject) else {
        return;
    };
    shares.set("share.auto.offset.reset", "earliest");
    shares.set("share.record.lock.duration.ms", "15000");
    shares.produce(0..4);
    shares.open("slow", "explicit");
    let got = shares.take("slow");
    assert_eq!(offsets(&got), [0, 1, 2, 3]);
    shares.open("quick", "implicit");
    let mut seen = BTreeSet::new();
    let begun = Instant::now();
    while seen.len() < 4 {
        assert!(begun.elapsed() < LIMIT, "only {seen:?}");
        for (offset, _, delivery) in shares.poll("quick", 500) {
            assert_eq!(delivery, 2, "its time with the other was over");
            seen.insert(offset);
        }
    }
    assert!(
        begun.elapsed() > Duration::from_secs(5),
        "it was not over at once"
    );
    let (group, topic) = (shares.group.clone(), shares.topic.clone());
    let command = |words: &str| {
        let words = format!("groups {words} --bootstrap {}", subject.bootstrap());
        crate::commands::good(&words.split(' ').collect::<Vec<_>>(), "")
    };
    let told = command(&format!("describe {group} --json"));
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let members = told[0]["members"].as_array().expect("members");
    assert_eq!(members.len(), 2, "{told}");
    assert_ne!(members[0]["member"], members[1]["member"], "{told}");
    for member in members {
        assert_eq!(
            member["assignment"],
            json!([{ "topic": topic, "partitions": [0] }]),
            "{told}"
        );
    }
    let text = command(&format!("describe {group}"));
    assert!(text.contains(", 2 members, "), "{text}");
    for member in members {
        let id = member["member"].as_str().expect("an id");
        let line = text.lines().find(|line| line.starts_with(id));
        let line = line.unwrap_or_else(|| panic!("{id} in\n{text}"));
        assert!(line.ends_with(&format!("{topic}:0")), "{text}");
    }
    // The next poll accepts what the last one brought, and so does a commit.
    shares.produce(4..6);
    assert_eq!(offsets(&shares.take("quick")), [4, 5]);
    shares.commit("quick");
    shares.ask(json!({ "do": "close", "name": "quick" }));
    let begun = Instant::now();
    while shares.offsets().1 != 0 {
        assert!(begun.elapsed() < LIMIT, "{:?}", shares.offsets());
    }

    let listed = shares.ask(json!({ "do": "list" }));
    let groups = listed["groups"].as_array().expect("groups");
    assert!(groups.contains(&json!(shares.group)), "{listed}");
    let refused = shares.try_ask(json!({ "do": "alter", "offset": 1 }));
    let refused = refused.expect_err("it has a member");
    assert!(refused.starts_with("GroupNotEmptyException"), "{refused}");
    _ = shares.try_ask(json!({ "do": "close", "name": "slow" })); // what it had is with nobody any more
    let described = shares.ask(json!({ "do": "describe" }));
    assert_eq!(
        (&described["state"], &described["members"]),
        (&json!("Empty"), &json!(0))
    );
    let listed = command("list --state empty");
    assert!(
        listed.contains(&group) && listed.contains("share"),
        "{listed}"
    );
    let moved = command(&format!("reset {group} -t {topic} --to 2 --execute"));
    assert!(moved.contains("reset"), "{moved}");
    let told = command(&format!("describe {group}"));
    assert!(
        told.contains(&format!("share group {group}: Empty, 0 members, ")),
        "{told}"
    );
    assert_eq!(shares.offsets().0, 2);
    shares.ask(json!({ "do": "alter", "offset": 3 }));
    assert_eq!(shares.offsets().0, 3);
    let strict = json!({
        "do": "open", "name": "strict", "mode": "explicit", "acquire": "record_limit", "most": 2,
    });
    shares.ask(strict);
    assert_eq!(offsets(&shares.take("strict")), [3, 4]);
    shares.say("strict", [3, 4], "ACCEPT");
    assert_eq!(offsets(&shares.take("strict")), [5]);
    shares.ask(json!({ "do": "close", "name": "strict" }));
    shares.ask(json!({ "do": "forget" }));
    assert_eq!(shares.offsets(), (-2, -2));
    shares.ask(json!({ "do": "delete" }));
    let gone = shares
        .try_ask(json!({ "do": "describe" }))
        .expect_err("gone");
    assert!(gone.starts_with("GroupIdNotFoundException"), "{gone}");
    lab::say(&format!(
        "Java share consumers at {}: timed out, accepted by the next poll, moved, forgotten, deleted",
        subject.name()
    ));
}

/// A group of committed data does not see what was aborted.
#[test]
fn java_share_consumers_read_committed_records_only_if_they_are_told_to() {
    let subject = Subject::start();
    let Some(mut shares) = Shares::start(&subject) else {
        return;
    };
    shares.set("share.auto.offset.reset", "earliest");
    shares.set("share.isolation.level", "read_committed");
    for (value, end) in [("one", "commit"), ("two", "abort"), ("three", "commit")] {
        let values = [format!("{value}-a"), format!("{value}-b")];
        shares.ask(json!({ "do": "produce", "values": values, "transaction": end }));
    }
    shares.open("a", "implicit");
    let mut values = Vec::new();
    while values.len() < 4 {
        values.extend(shares.take("a").into_iter().map(|one| one.1));
    }
    assert_eq!(values, ["one-a", "one-b", "three-a", "three-b"]);
    shares.poll("a", 200);
    let begun = Instant::now();
    while shares.offsets().1 != 0 {
        assert!(begun.elapsed() < LIMIT, "{:?}", shares.offsets());
        shares.poll("a", 200);
    }
}
