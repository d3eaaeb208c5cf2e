//! The integration tests of two Rust clients: `rdkafka`, over librdkafka, and `rskafka`, with a protocol of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::lab::{self, RustTests};
use testkit::process::Process;

use super::{Known, Subject};

/// Longest time for all tests of a library.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a library's tests; `set` tells them where the broker is.
fn check(
    name: &str,
    tests: &RustTests,
    config: &str,
    known: &Known<'_>,
    set: impl Fn(&str) -> Vec<(&'static str, String)>,
) {
    let Some(subject) = Subject::start(config) else {
        return;
    };
    let mut command = tests.command();
    command.envs(set(&subject.bootstrap()));
    let mut process = Process::start(name, command);
    process.wait(LIMIT);
    let lines = process.last_lines();
    let results = lines.iter().filter_map(|line| {
        let (case, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
        Some((case.to_owned(), result.to_owned()))
    });
    let results: Vec<_> = results.collect();
    let passed = results.iter().filter(|(_, result)| result == "ok").count();
    let failed: BTreeMap<String, String> = results
        .into_iter()
        .filter(|(_, result)| result == "FAILED")
        .map(|(case, _)| {
            let header = format!("---- {case} stdout ----");
            let told = lines.iter().skip_while(|line| **line != header);
            let told: Vec<&str> = told.take(30).map(String::as_str).collect();
            (case, told.join("\n"))
        })
        .collect();
    assert!(passed > 0, "{}", process.log());
    lab::say(&format!(
        "{name} at {}: {passed} of its tests pass, {} fail",
        subject.name(),
        failed.len()
    ));
    known.check(&failed);
}

#[test]
fn rust_rdkafka_passes_its_own_tests() {
    let Some(tests) = lab::or_skip(lab::rust_rdkafka()) else {
        return;
    };
    let known = Known::read("rust-rdkafka.txt", include_str!("rust-rdkafka.txt"));
    let config = "broker:\n  default_partitions: 3\n";
    check("rust-rdkafka", &tests, config, &known, |bootstrap| {
        vec![("KAFKA_HOST", bootstrap.to_owned())]
    });
}

#[test]
fn rskafka_passes_its_own_tests() {
    let Some(tests) = lab::or_skip(lab::rskafka()) else {
        return;
    };
    let known = Known::read("rskafka.txt", include_str!("rskafka.txt"));
    // Auto-creation off, as its own broker has it.
    let config = "broker:\n  create_topics: false\n";
    check("rskafka", &tests, config, &known, |bootstrap| {
        vec![
            ("TEST_INTEGRATION", "1".to_owned()),
            ("TEST_BROKER_IMPL", "kafka".to_owned()),
            ("KAFKA_CONNECT", bootstrap.to_owned()),
        ]
    });
}
