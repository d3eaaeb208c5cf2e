//! kcat in the words of the contract.

use std::process::{Command, Stdio};
use std::{fs, str};

use serde_json::{Value, json};

use super::contract::{Agent, Kind, Producing, Read, Record};

/// Seconds for one call.
const LIMIT_SECONDS: &str = "60";
/// What stands between key and value, and after each record, in its input.
const KEY_END: &str = "<key|value>";
const RECORD_END: &str = "<end>";
/// A consumed record: one line of numbers, key and value by their lengths, one line of headers.
const FORMAT: &str = "%p %o %T %K %S\n%k%s\n%h\n";
/// A member's record; its keys and values are plain words.
const MEMBER_FORMAT: &str = "record %p %o %T %k %s\n";

pub(super) struct Kcat {
    pub(super) bootstrap: String,
    /// kcat has no admin calls: another client makes its topics.
    pub(super) maker: Agent,
}

impl Kcat {
    /// Produces with one call for each run of records with the same partition and headers. Timestamps are its own.
    #[track_caller]
    pub(super) fn produce(&self, producing: Producing<'_>, records: &[Record]) {
        let same = |a: &Record, b: &Record| {
            (a.partition, &a.headers, nulls(a)) == (b.partition, &b.headers, nulls(b))
        };
        for run in records.chunk_by(same) {
            let mut input = Vec::new();
            for record in run {
                input.extend(bytes(record.key.as_deref()));
                input.extend(KEY_END.as_bytes());
                input.extend(bytes(record.value.as_deref()));
                input.extend(RECORD_END.as_bytes());
            }
            let file = tempfile::NamedTempFile::new().expect("the temporary folder takes files");
            fs::write(file.path(), input).expect("an open file takes bytes");
            let partition = run[0].partition.to_string();
            let mut command = self.command();
            command.args([
                "-P",
                "-t",
                producing.topic,
                "-p",
                &partition,
                "-z",
                producing.codec,
            ]);
            command.args(["-K", KEY_END, "-D", RECORD_END]);
            command.args(["-X", &format!("acks={}", producing.acks)]);
            command.args([
                "-X",
                &format!("enable.idempotence={}", producing.idempotent),
            ]);
            if nulls(&run[0]) {
                command.arg("-Z");
            }
            for (name, value) in &run[0].headers {
                let value = bytes(value.as_deref());
                let value = str::from_utf8(&value).expect("kcat is given headers of text");
                command.args(["-H", &format!("{name}={value}")]);
            }
            command.stdin(file.reopen().expect("our file is still there"));
            output(command);
        }
    }

    /// Reads a topic from its beginning to its end.
    #[track_caller]
    pub(super) fn consume(&self, topic: &str, _count: usize) -> Vec<Read> {
        let mut command = self.command();
        command.args([
            "-C",
            "-t",
            topic,
            "-o",
            "beginning",
            "-e",
            "-q",
            "-f",
            FORMAT,
        ]);
        let output = output(command);
        let mut rest = &output[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let numbers: Vec<i64> = line(&mut rest)
                .split(' ')
                .map(|number| number.parse().expect("kcat prints five numbers"))
                .collect();
            let [partition, offset, timestamp, key, value] = numbers[..] else {
                panic!("not five numbers: {numbers:?}");
            };
            let mut take = |length: i64| {
                let length = usize::try_from(length).ok()?; // -1: null
                let (taken, left) = rest.split_at(length);
                rest = left;
                Some(hex(taken))
            };
            let (key, value) = (take(key), take(value));
            assert_eq!(line(&mut rest), "", "key and value end with a new line");
            let headers = line(&mut rest);
            let headers = headers.split(',').filter_map(|pair| pair.split_once('='));
            let headers = headers
                .map(|(name, value)| (name.to_owned(), Some(hex(value.as_bytes()))))
                .collect();
            let partition = i32::try_from(partition).expect("partitions are small");
            let record = Record {
                partition,
                key,
                value,
                timestamp,
                headers,
            };
            records.push(Read { offset, record });
        }
        records
    }

    /// Returns the names of the topics and their numbers of partitions, as `kcat -L` prints them.
    #[track_caller]
    pub(super) fn topics(&self) -> Vec<(String, usize)> {
        let mut command = self.command();
        command.arg("-L");
        listed(&output(command))
    }

    fn command(&self) -> Command {
        let kcat = Kind::Kcat
            .command()
            .expect("it was there when the test started");
        let mut command = Command::new("timeout");
        command.arg(LIMIT_SECONDS).arg(kcat.get_program());
        command.args(["-b", &self.bootstrap, "-X", "allow.auto.create.topics=true"]);
        command
    }
}

/// Returns the command of a group's member: both outputs on stdout, each line at once.
pub(super) fn member(kcat: &Command, bootstrap: &str, group: &str, topic: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec \"$@\" 2>&1", "sh"])
        .arg(kcat.get_program());
    command.args(["-b", bootstrap, "-G", group, "-u", "-f", MEMBER_FORMAT]);
    for option in [
        "auto.offset.reset=earliest",
        "auto.commit.interval.ms=200",
        "heartbeat.interval.ms=300",
        "session.timeout.ms=10000",
        "partition.assignment.strategy=range",
    ] {
        command.args(["-X", option]);
    }
    command.arg(topic);
    command
}

/// Puts one line of a member into the contract's words.
pub(super) fn event(line: &str) -> Option<Value> {
    if let Some(record) = line.strip_prefix("record ") {
        let mut words = record.split(' ');
        let mut number = || words.next()?.parse::<i64>().ok();
        let (partition, offset, timestamp) = (number()?, number()?, number()?);
        let (key, value) = (words.next()?, words.next()?);
        return Some(json!({
            "event": "record", "partition": partition, "offset": offset, "timestamp": timestamp,
            "key": hex(key.as_bytes()), "value": hex(value.as_bytes()), "headers": [],
        }));
    }
    let (_, change) = line.strip_prefix("% Group ")?.split_once("): ")?;
    let (what, list) = change.split_once(':')?;
    // `assigned: orders [0], orders [2]`
    let partitions: Vec<i32> = list
        .split(',')
        .filter_map(|one| one.split_once('[')?.1.strip_suffix(']')?.parse().ok())
        .collect();
    Some(json!({ "event": what, "partitions": partitions }))
}

fn listed(output: &[u8]) -> Vec<(String, usize)> {
    let text = String::from_utf8_lossy(output);
    let topics = text.lines().filter_map(|line| {
        // `  topic "orders" with 3 partitions:`
        let (name, rest) = line.strip_prefix("  topic \"")?.split_once("\" with ")?;
        let (count, _) = rest.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    topics.collect()
}

#[track_caller]
fn output(mut command: Command) -> Vec<u8> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .expect("`timeout` can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{complaint}",
        output.status
    );
    output.stdout
}

fn line(rest: &mut &[u8]) -> String {
    let end = rest
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("kcat ends its lines");
    let (line, left) = rest.split_at(end);
    *rest = &left[1..];
    String::from_utf8_lossy(line).into_owned()
}

/// With `-Z` an empty key or value is null, without it is empty: one call cannot have both.
fn nulls(record: &Record) -> bool {
    record.key.is_none() || record.value.is_none()
}

fn bytes(hex: Option<&str>) -> Vec<u8> {
    let digits = hex.unwrap_or_default();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Returns bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
