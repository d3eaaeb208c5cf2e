//! Kafka Streams: a word count that is right to the last word, whatever happens to the one who counts.
//!
//! It reads lines, spreads their words over a repartition topic, counts them in a store that a changelog topic
//! backs, and writes every new count; all of it in transactions (`exactly_once_v2`). It is killed twice in the
//! middle of a transaction, and loses its folder once. As every count goes out, the counts of a word must be
//! 1, 2, 3, ... without a gap: a word that was lost or counted twice breaks that. At the end the broker is killed too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::lab::{self, Missing};
use testkit::process::Process;
use testkit::wait;

use super::contract::{Agent, Client, Kind, Producing, Record, script};
use super::data::{PARTITIONS, now_ms};
use super::kcat::hex;
use super::subject::{Subject, unique};
use crate::commands::good;

/// Longest wait for anything: a member that is gone is missed for its session, a transaction for its own time.
const LIMIT: Duration = Duration::from_secs(150);
/// Lines that come at once, and words on each of them.
const LINES: usize = 400;
const WORDS: usize = 4;
/// Different words.
const VOCABULARY: usize = 37;
/// The counter stands still at this many words of a wave.
const STALL_AT: usize = LINES * WORDS / 2;

#[test]
fn a_word_count_in_kafka_streams_is_exact() {
    let Some(mut subject) = Subject::start_restartable() else {
        return;
    };
    let Some(start) = lab::or_skip(word_count()) else {
        return;
    };
    let Some(mut client) = Client::start(Kind::Confluent, subject.bootstrap()) else {
        return;
    };
    let (input, output) = (unique("lines"), unique("counts"));
    client.make_topic(&input, PARTITIONS);
    client.make_topic(&output, PARTITIONS);
    let application = unique("word-count");
    let folder = TempDir::new().expect("there is room for a folder");
    let state = folder.path().join("state");
    let run = |stall_at: usize| {
        let mut command = start(folder.path());
        command.args([&subject.bootstrap(), &application, &input, &output]);
        command.arg(&state).arg(stall_at.to_string()).arg("classic");
        Process::start("Kafka Streams", command)
    };
    let mut expected = BTreeMap::new();

    // Killed with a transaction open, and again from where it stood.
    for wave in 0..2 {
        produce(&mut client, &input, wave, &mut expected);
        let mut counter = run(STALL_AT);
        wait_event(&mut counter, "stalled");
        let agent = agent(&mut client);
        wait::until("records that are not committed", LIMIT, || {
            let (all, committed) = (read(agent, &output, false), read(agent, &output, true));
            (all.len() > committed.len()).then_some(())
        });
        counter.kill();
    }

    // Its folder is gone: what it had counted comes from the changelog.
    std::fs::remove_dir_all(&state).expect("it had a folder");
    produce(&mut client, &input, 2, &mut expected);
    let mut counter = run(usize::MAX >> 1);
    let restored: i64 = (0..PARTITIONS)
        .map(|_| {
            let event = wait_event(&mut counter, "restored");
            event["records"].as_i64().expect("it counts")
        })
        .sum();
    assert!(restored > 0, "the store came from the changelog");
    wait_counted(&mut client, &mut counter, &output, &expected);

    // The broker goes down in the middle of the next wave, and comes back.
    if !matches!(subject, Subject::Other(_)) {
        produce(&mut client, &input, 3, &mut expected);
        subject.kill();
        subject.restart();
    }
    wait_counted(&mut client, &mut counter, &output, &expected);
    counter.close_stdin();
    let status = counter.wait(LIMIT);
    assert!(status.success(), "it left with {status}\n{}", counter.log());

    let taken_back = check(&mut client, &output, &expected);
    let total: i64 = expected.values().sum();
    lab::say(&format!(
        "Kafka Streams at {}: {total} words counted once each, {} taken back with their transactions, \
         {restored} changes restored",
        subject.name(),
        taken_back
    ));
}

#[test]
fn a_word_count_whose_tasks_the_broker_assigns_is_exact() {
    let Some(mut subject) = Subject::start_restartable() else {
        return;
    };
    let Some(start) = lab::or_skip(word_count()) else {
        return;
    };
    let Some(mut client) = Client::start(Kind::Confluent, subject.bootstrap()) else {
        return;
    };
    let (input, output) = (unique("lines"), unique("counts"));
    client.make_topic(&input, PARTITIONS);
    client.make_topic(&output, PARTITIONS);
    let application = unique("word-count");
    let folder = TempDir::new().expect("there is room for a folder");
    let bootstrap = subject.bootstrap();
    let run = |name: &str, stall_at: usize| {
        let mut command = start(folder.path());
        command.args([&bootstrap, &application, &input, &output]);
        command
            .arg(folder.path().join(name))
            .arg(stall_at.to_string());
        command.arg("streams");
        Process::start("Kafka Streams", command)
    };
    let never = usize::MAX >> 1;
    let mut expected = BTreeMap::new();
    let mut first = run("first", never);
    produce(&mut client, &input, 0, &mut expected);
    wait_counted(&mut client, &mut first, &output, &expected);

    // A second instance takes over some tasks, with what they have counted, and dies in the middle of a transaction.
    let mut second = run("second", 1);
    wait_event(&mut second, "restored");
    produce(&mut client, &input, 1, &mut expected);
    wait_event(&mut second, "stalled");
    check_described(&bootstrap, &application);
    let agent = agent(&mut client);
    wait::until("records that are not committed", LIMIT, || {
        let (all, committed) = (read(agent, &output, false), read(agent, &output, true));
        (all.len() > committed.len()).then_some(())
    });
    second.kill();
    wait_counted(&mut client, &mut first, &output, &expected);

    // The group outlives the broker, and the application starts again from where it stood.
    if !matches!(subject, Subject::Other(_)) {
        produce(&mut client, &input, 2, &mut expected);
        subject.kill();
        subject.restart();
    }
    wait_counted(&mut client, &mut first, &output, &expected);
    first.close_stdin();
    let status = first.wait(LIMIT);
    assert!(status.success(), "it left with {status}\n{}", first.log());
    let mut third = run("first", never);
    produce(&mut client, &input, 3, &mut expected);
    wait_counted(&mut client, &mut third, &output, &expected);
    third.close_stdin();
    let status = third.wait(LIMIT);
    assert!(status.success(), "it left with {status}\n{}", third.log());
    let taken_back = check(&mut client, &output, &expected);
    lab::say(&format!(
        "Kafka Streams with tasks from {}: {} words counted once each, {taken_back} taken back with their transactions",
        subject.name(),
        expected.values().sum::<i64>(),
    ));
}

/// Checks that the command line tells which threads of the two instances run what.
#[track_caller]
fn check_described(bootstrap: &str, application: &str) {
    let arguments = ["groups", "describe", application, "-b", bootstrap, "--json"];
    let told: Value = serde_json::from_str(&good(&arguments, "")).expect("JSON");
    let group = told.get(0).unwrap_or(&told);
    assert_eq!(group["type"], "streams", "{told}");
    let members = group["members"].as_array().expect("a list");
    let processes: BTreeSet<_> = members
        .iter()
        .filter_map(|member| member["process"].as_str())
        .collect();
    assert_eq!(processes.len(), 2, "{told}");
    for member in members {
        assert_ne!(member["active"], json!([]), "each has tasks: {told}");
    }
    let partitions = group["partitions"].as_array().expect("a list");
    assert!(!partitions.is_empty(), "{told}");
    for partition in partitions {
        let runs = |member: &Value| member["member"] == partition["member"];
        assert!(members.iter().any(runs), "{told}");
    }
    let text = good(&arguments[..5], "");
    assert!(text.contains("STANDS BY"), "{text}");
}

/// Checks that the counts of each word are 1, 2, 3, ...; returns how many were taken back.
#[track_caller]
fn check(client: &mut Client, output: &str, expected: &BTreeMap<String, i64>) -> usize {
    let agent = agent(client);
    let (all, committed) = (read(agent, output, false), read(agent, output, true));
    let taken_back = all.len() - committed.len();
    let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (word, count) in committed {
        counts.entry(word).or_default().push(count);
    }
    for (word, total) in expected {
        let counted = counts.remove(word).unwrap_or_default();
        let right: Vec<i64> = (1..=*total).collect();
        assert_eq!(counted, right, "the counts of {word}");
    }
    assert!(counts.is_empty(), "nobody wrote {counts:?}");
    taken_back
}

/// Returns what starts the word count, with room for its native library.
fn word_count() -> Result<impl Fn(&Path) -> Command, Missing> {
    let classes = lab::javac(&script("WordCount.java"), &lab::streams()?)?;
    Ok(move |folder: &Path| {
        let mut command = Command::new("java");
        command.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        // A killed one does not take its native library out of the folder.
        command.arg(format!("-Djava.io.tmpdir={}", folder.display()));
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.args(["-cp", &classes, "WordCount"]);
        command
    })
}

/// Produces one wave of lines, and notes how often each word comes.
#[track_caller]
fn produce(client: &mut Client, topic: &str, wave: usize, expected: &mut BTreeMap<String, i64>) {
    let mut records = Vec::new();
    for number in 0..LINES {
        let words: Vec<String> = (0..WORDS)
            .map(|at| format!("word-{}", (number * (at + 1) + wave * at) % VOCABULARY))
            .collect();
        for word in &words {
            *expected.entry(hex(word.as_bytes())).or_default() += 1;
        }
        records.push(Record {
            partition: number as i32 % PARTITIONS,
            key: None,
            value: Some(hex(words.join(" ").as_bytes())),
            timestamp: now_ms(),
            headers: Vec::new(),
        });
    }
    let producing = Producing {
        topic,
        codec: "none",
        acks: "all",
        idempotent: true,
    };
    client.produce(producing, &records);
}

/// Waits until as many counts can be seen as there are words.
#[track_caller]
fn wait_counted(
    client: &mut Client,
    counter: &mut Process,
    output: &str,
    expected: &BTreeMap<String, i64>,
) {
    let total: i64 = expected.values().sum();
    let agent = agent(client);
    wait::until("all words to be counted", LIMIT, || {
        assert!(counter.running(), "it gave up\n{}", counter.log());
        (read(agent, output, true).len() as i64 >= total).then_some(())
    });
}

/// Returns the words and their counts, in the order of each word's partition.
#[track_caller]
fn read(agent: &mut Agent, topic: &str, committed: bool) -> Vec<(String, i64)> {
    let isolation = ["read_uncommitted", "read_committed"][usize::from(committed)];
    let answer = agent.ask(json!({ "do": "read", "topic": topic, "isolation": isolation }));
    let records = answer["records"].as_array().into_iter().flatten();
    let text = |value: &Value| {
        value
            .as_str()
            .expect("they have keys and values")
            .to_owned()
    };
    records
        .map(|record| {
            let count = i64::from_str_radix(&text(&record["value"]), 16);
            (text(&record["key"]), count.expect("a count is a number"))
        })
        .collect()
}

#[track_caller]
fn wait_event(process: &mut Process, name: &str) -> Value {
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
    let lines = process.lines_until(name, LIMIT, |line| event(line)["event"] == name);
    event(lines.last().expect("the one that was waited for"))
}

fn agent(client: &mut Client) -> &mut Agent {
    match client {
        Client::Script(agent) => agent,
        Client::Kcat(_) => unreachable!("it was started as confluent-kafka"),
    }
}
