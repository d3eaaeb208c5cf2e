//! `kill -9` under load: what was acknowledged stands, and everybody goes on.
//!
//! An idempotent producer with `acks=all` and two members of a consumer group work while the broker is killed
//! and started again on its data, several times. Then their histories are compared (`History::check`). With
//! `NUNCIO_TEST_SUBJECT=apache-kafka` the same is asked of Apache Kafka.

mod history;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::lab;
use testkit::process::Process;
use testkit::wait;

use self::history::History;
use super::contract::{Client, Kind};
use super::subject::{Subject, unique};

const ROUNDS: u32 = 6;
const PARTITIONS: i32 = 3;
/// Longest time from a restart until producer and group have moved on.
const RESUME_LIMIT: Duration = Duration::from_secs(90);
/// What the producer and the group must do between two kills.
const RECORDS_A_ROUND: usize = 1000;
/// Of each value the test sees only its name; the rest fills segments.
const NAME_BYTES: &str = "24";
/// The producer's number in the history; the members have 0 and 1.
const PRODUCER: usize = 2;

#[test]
fn acknowledged_records_and_offsets_survive_kill_9() {
    let Some(mut subject) = Subject::start_restartable() else {
        return;
    };
    let Some(Client::Script(mut agent)) = Client::start(Kind::Confluent, subject.bootstrap())
    else {
        return;
    };
    let (topic, group) = (unique("crash"), unique("crash"));
    agent.ask(json!({
        "do": "create", "topic": topic, "partitions": PARTITIONS,
        // The smallest that Apache Kafka takes: the kills meet new segments too.
        "config": { "segment.bytes": (1 << 20).to_string() },
    }));
    let start = |arguments: &[&str]| {
        let mut command: Command = Kind::Confluent.command().expect("its agent has started");
        command
            .args([arguments[0], &subject.bootstrap()])
            .args(&arguments[1..]);
        Process::start(arguments[0], command)
    };
    let mut load = Load {
        producer: Some(start(&["producer", &topic, &PARTITIONS.to_string(), "p"])),
        members: [(); 2].map(|()| start(&["member", &group, &topic, NAME_BYTES])),
        history: History::default(),
    };

    let mut slowest = Duration::ZERO;
    for round in 0..ROUNDS {
        slowest = slowest.max(load.move_on(&format!("before kill {round}")));
        // Another moment in the broker's work each time.
        thread::sleep(Duration::from_millis(u64::from(round) * 23));
        // The broker has said yes to both just before it dies.
        let (made, removed) = (format!("{topic}-{round}"), format!("{topic}-gone-{round}"));
        for name in [&made, &removed] {
            agent.ask(json!({ "do": "create", "topic": name, "partitions": 2 }));
        }
        agent.ask(json!({ "do": "delete", "topic": removed }));
        subject.kill();
        if round % 2 == 1 {
            // The other clients notice that it is gone, and knock in vain.
            thread::sleep(Duration::from_millis(700));
        }
        subject.restart();
        let topics = agent.ask(json!({ "do": "topics" }))["topics"].clone();
        let lists = |name| {
            topics
                .as_array()
                .is_some_and(|topics| topics.contains(&json!(name)))
        };
        assert!(lists(made) && !lists(removed), "round {round}: {topics}");
    }
    slowest = slowest.max(load.move_on("after the last kill"));

    let sent = load.finish();
    let partitions: Vec<i32> = (0..PARTITIONS).collect();
    let asked = json!({ "do": "ends", "topic": topic, "partitions": partitions });
    let ends = agent.ask(asked)["offsets"].clone();
    let total: i64 = ends
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_i64)
        .sum();
    assert_eq!(
        total, sent as i64,
        "records in the log ({ends}) and records sent"
    );
    load.read_to_the_end(sent);
    let committed = agent.ask(json!({
        "do": "committed", "group": group, "topic": topic, "partitions": partitions,
    }));
    assert_eq!(
        committed["offsets"], ends,
        "the group has committed all that it has read"
    );

    let log = agent.ask(json!({
        "do": "consume", "topic": topic, "count": sent, "value_bytes_max": 24,
    }));
    load.history.check(&log["records"], sent);
    lab::say(&format!(
        "kill -9 of {}: {ROUNDS} rounds, {sent} records acknowledged, each there once and in order; \
         longest pause of producer and group {slowest:?}",
        subject.name()
    ));
}

struct Load {
    /// Gone when it has told its end.
    producer: Option<Process>,
    members: [Process; 2],
    history: History,
}

impl Load {
    /// Waits until both the producer and the group have done a round's work; returns how long it took them to begin.
    #[track_caller]
    fn move_on(&mut self, when: &str) -> Duration {
        self.look();
        let begun = Instant::now();
        let (acked, read) = (self.history.acked(), self.history.read());
        let mut resumed = None;
        wait::until(
            &format!("producer and group to move on {when}"),
            RESUME_LIMIT,
            || {
                self.look();
                let (acked, read) = (self.history.acked() - acked, self.history.read() - read);
                if acked > 0 && read > 0 && resumed.is_none() {
                    resumed = Some(begun.elapsed());
                }
                (acked >= RECORDS_A_ROUND && read >= RECORDS_A_ROUND).then_some(())
            },
        );
        resumed.unwrap_or_default()
    }

    /// Ends the producer well and returns how many records it has sent, all of them acknowledged.
    #[track_caller]
    fn finish(&mut self) -> usize {
        let mut producer = self.producer.take().expect("it ends once");
        producer.close_stdin();
        let mut ended = None;
        let lines = producer.lines_until("its end", RESUME_LIMIT, |line| {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            let last = event["event"] == "ended";
            if last {
                ended = Some(event);
            }
            last
        });
        for line in lines {
            self.history.take(PRODUCER, &line);
        }
        let ended = ended.expect("it was waited for");
        assert_eq!(
            (&ended["left"], &ended["failures"]),
            (&json!(0), &json!([])),
            "{ended}"
        );
        let sent = ended["sent"].as_u64().expect("the producer counts") as usize;
        assert_eq!(self.history.acked(), sent, "acknowledged and sent");
        sent
    }

    /// Waits until the group has committed everything, and lets its members leave.
    #[track_caller]
    fn read_to_the_end(&mut self, sent: usize) {
        wait::until("the group to commit everything", RESUME_LIMIT, || {
            self.look();
            (self.history.committed() >= sent as i64).then_some(())
        });
        for member in &mut self.members {
            member.close_stdin();
        }
        for member in &mut self.members {
            let status = member.wait(RESUME_LIMIT);
            assert!(
                status.success(),
                "a member left with {status}\n{}",
                member.log()
            );
        }
    }

    #[track_caller]
    fn look(&mut self) {
        // The members come first: their numbers stay when the producer has left.
        let clients = self.members.iter_mut().chain(&mut self.producer);
        for (who, process) in clients.enumerate() {
            for line in process.ready_lines() {
                self.history.take(who, &line);
            }
            assert!(process.running(), "a client gave up\n{}", process.log());
        }
    }
}
