//! `nuncio topics`, `configs`, `groups`, `transactions`, `produce` and `consume`: at our own broker and at Apache Kafka.

use serde_json::Value;
use testkit::apache::Apache;
use testkit::lab;
use testkit::nuncio::{Nuncio, Setup};

use crate::commands;

/// Memory of the Apache Kafka that is operated.
const APACHE_HEAP_MB: u32 = 320;

/// A broker and the commands that are given to it.
struct At {
    bootstrap: String,
}

impl At {
    fn ours() -> (Nuncio, Self) {
        let ours = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
            .argument("--role")
            .argument("broker")
            .start();
        let bootstrap = ours.kafka().to_string();
        (ours, At { bootstrap })
    }

    #[track_caller]
    fn ask(&self, command: &str) -> String {
        self.give(command, "")
    }

    #[track_caller]
    fn give(&self, command: &str, input: &str) -> String {
        commands::good(&self.words(command), input)
    }

    #[track_caller]
    fn json(&self, command: &str) -> Value {
        let told = self.ask(&format!("{command} --json"));
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
    }

    #[track_caller]
    fn refused(&self, command: &str) -> String {
        commands::bad(&self.words(command))
    }

    fn words<'a>(&'a self, command: &'a str) -> Vec<&'a str> {
        let words = command.split_whitespace();
        words.chain(["--bootstrap", &self.bootstrap]).collect()
    }
}

/// Everything that must be the same at every broker.
fn operate(at: &At) {
    topics(at);
    configs(at);
    records(at);
    groups(at);
    transactions(at);
}

#[test]
fn our_broker_is_operated() {
    if let Ok(bootstrap) = std::env::var("NUNCIO_TEST_BOOTSTRAP") {
        return operate(&At { bootstrap });
    }
    let (_ours, at) = At::ours();
    operate(&at);
}

#[test]
fn settings_of_the_broker_come_from_its_configuration() {
    let ours = Setup::new(env!("CARGO_BIN_EXE_nuncio"))
        .argument("--role")
        .argument("broker")
        .file(
            "nuncio.yaml",
            "broker:\n  settings: { log.cleaner.backoff.ms: 1000, message.max.bytes: 2000, compression.type: zstd }\n",
        )
        .start();
    let bootstrap = ours.kafka().to_string();
    let at = At { bootstrap };
    let value = |command: &str| at.json(command)[0]["value"].clone();
    assert_eq!(
        value("configs describe --broker 1 log.cleaner.backoff.ms"),
        "1000"
    );
    at.ask("topics create t");
    assert_eq!(
        value("configs describe --topic t max.message.bytes"),
        "2000"
    );
    assert_eq!(value("configs describe --topic t compression.type"), "zstd");
    // They are not only told.
    at.give("produce t", "short\n");
    let long: String = (0..5_000)
        .map(|number: u32| number.wrapping_mul(2_654_435_761).to_string())
        .collect();
    let told = commands::bad_with(&at.words("produce t"), &format!("{long}\n"));
    assert!(told.contains("MESSAGE_TOO_LARGE"), "{told}");
}

#[test]
fn an_apache_kafka_is_operated() {
    let Some(apache) = lab::or_skip(Apache::start(APACHE_HEAP_MB)) else {
        return;
    };
    let bootstrap = apache.address().to_string();
    operate(&At { bootstrap });
}

fn topics(at: &At) {
    at.ask("topics create t -p 2 -c retention.ms=60000");
    assert!(
        at.refused("topics create t -p 2")
            .contains("TOPIC_ALREADY_EXISTS")
    );
    assert_eq!(
        at.ask("topics create t -p 2 --if-not-exists"),
        "nothing to do for t\n"
    );
    assert!(
        at.ask("topics create dry -p 2 --dry-run")
            .contains("could be created: dry")
    );
    at.give("produce t -K : -p 0", "a:1\nb:2\nc:3\n");
    let listed = at.ask("topics list");
    assert!(listed.contains("t      2           3\n"), "{listed}");
    assert!(!listed.contains("dry"), "{listed}");
    let told = at.ask("topics describe t");
    assert!(told.contains("topic t: 2 partitions, 1 copy\n"), "{told}");
    let setting = |line: &str| {
        line.split_whitespace()
            .eq(["retention.ms", "60000", "topic"])
    };
    assert!(told.lines().any(setting), "{told}");
    assert!(!told.contains("segment.bytes"), "only what differs: {told}");
    let told = at.json("topics describe t");
    let partition = &told[0]["partitions"][0];
    assert_eq!(
        (&partition["start"], &partition["end"]),
        (&0.into(), &3.into())
    );
    assert!(
        partition["bytes"].as_i64().is_some_and(|bytes| bytes > 0),
        "{partition}"
    );

    let shown = at.ask("topics delete-records t:0 --before 2");
    assert!(shown.contains("nothing deleted"), "{shown}");
    at.ask("topics delete-records t:0 --before 2 --execute");
    let told = at.json("topics describe t");
    assert_eq!(told[0]["partitions"][0]["start"], 2);

    at.ask("topics alter t -p 3");
    assert!(
        at.refused("topics alter t -p 2")
            .contains("INVALID_PARTITIONS")
    );
    let told = at.refused("topics describe orders");
    assert!(told.contains("there is no topic `orders`"), "{told}");
    at.ask("topics create orders.placed -p 1");
    let told = at.refused("topics describe order.placed");
    assert!(told.contains("did you mean `orders.placed`?"), "{told}");
    at.ask("topics delete orders.placed");
    at.ask("topics delete orders.placed --if-exists");
    assert!(
        at.refused("topics delete orders.placed")
            .contains("no such topic")
    );
    at.ask("topics delete t");
}

fn configs(at: &At) {
    at.ask("topics create c -p 1");
    // Others may have set something for all topics.
    let set = || {
        let told = at.json("configs describe --topic c");
        let told = told.as_array().expect("a list");
        told.iter().filter(|one| one["source"] == "topic").count()
    };
    assert_eq!(set(), 0);
    assert!(
        at.ask("configs describe --topic c --all")
            .contains("segment.bytes")
    );
    at.ask("configs set --topic c retention.ms=1000 cleanup.policy=delete");
    at.ask("configs append --topic c cleanup.policy=compact");
    let told = at.json("configs describe --topic c cleanup.policy");
    assert_eq!(told[0]["value"], "delete,compact", "{told}");
    assert_eq!(told[0]["source"], "topic", "{told}");
    at.ask("configs subtract --topic c cleanup.policy=compact");
    at.ask("configs unset --topic c retention.ms");
    assert_eq!(set(), 1);
    let told = at.refused("configs set --topic c retention.mss=1");
    assert!(told.contains("did you mean `retention.ms`?"), "{told}");
    let told = at.refused("configs set --topic c retention.ms=soon");
    assert!(told.contains("INVALID_CONFIG"), "{told}");
    assert!(
        at.refused("configs describe --broker 77")
            .contains("there is no broker 77")
    );
    at.ask("topics delete c");
}

fn records(at: &At) {
    at.ask("topics create r -p 2");
    assert_eq!(
        at.ask("produce r hello -k a -p 0 -H x=y --timestamp 1000"),
        "stored in r partition 0 at offset 0\n"
    );
    at.give("produce r -p 0 -k a --null NIL", "two\nNIL\n");
    let told = at.refused("produce r x -p 7");
    assert!(told.contains("has no partition 7, it has 2"), "{told}");
    let all = at.ask("consume r -e --json");
    let first: Value = serde_json::from_str(all.lines().next().expect("a record")).expect("JSON");
    assert_eq!(first["timestamp"], 1000, "{all}");
    assert_eq!(first["headers"][0][0], "x", "{all}");
    assert!(
        all.lines()
            .last()
            .expect("a record")
            .contains(r#""value":null"#),
        "{all}"
    );
    assert_eq!(
        at.ask("consume r -e --from 1 -p 0 -f %o:%k=%s;"),
        "1:a=two;2:a=;"
    );
    assert_eq!(at.ask("consume r -e --from -1 -p 0 -f %o;"), "2;");
    assert_eq!(at.ask("consume r --to 1 -p 0 -f %o;"), "0;");
    assert_eq!(
        at.ask("consume r -e --from 1m -p 0 -f %o;"),
        "1;2;",
        "the first is from 1970"
    );
    assert!(
        at.refused("consume r -p 9 -e")
            .contains("has no partition 9")
    );

    at.ask("topics create copy -p 2");
    at.give("produce copy --json", &all);
    let copied = at.ask("consume copy -e --json");
    let values = |text: &str| {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let mut seen: Vec<_> = lines
            .map(|record| {
                [&record["key"], &record["value"], &record["headers"]].map(Value::to_string)
            })
            .collect();
        seen.sort();
        seen
    };
    assert_eq!(values(&copied), values(&all));
    at.ask("topics delete r copy");
}

fn groups(at: &At) {
    at.ask("topics create g -p 2");
    // From 1970, so that it is certain how far behind the group is at least.
    at.give("produce g -p 0 --timestamp 1000", "1\n2\n3\n4\n5\n");
    at.give("produce g -p 1 --timestamp 1000", "1\n");
    at.ask("consume g -g readers -n 6");
    let listed = at.ask("groups list");
    assert!(listed.contains("readers  Empty"), "{listed}");
    let lag = || {
        let told = at.json("groups describe readers");
        let group = &told[0];
        (
            group["lag"].as_i64().expect("a number"),
            group["partitions"].clone(),
        )
    };
    assert_eq!(lag().0, 0);
    let none_behind = lag().1;
    assert_eq!(
        none_behind[0]["lagSeconds"].as_f64(),
        Some(0.0),
        "{none_behind}"
    );

    at.ask("groups reset readers -t g --to beginning");
    assert_eq!(lag().0, 0, "nothing happens without --execute");
    at.ask("groups reset readers -t g --to beginning --execute");
    let (records, partitions) = lag();
    assert_eq!(records, 6);
    let behind = partitions[0]["lagSeconds"].as_f64().expect("a number");
    assert!(behind > 50.0 * 365.0 * 86_400.0, "{partitions}");
    at.ask("groups reset readers -t g:0 --to 4 --execute");
    at.ask("groups reset readers -t g:0 --shift-by -1 --execute");
    assert_eq!(lag().1[0]["committed"], 3);
    at.ask("groups reset readers --all-topics --to -1 --execute");
    assert_eq!(lag().0, 2);
    at.ask("groups reset readers -t g --to 2020-01-01T00:00:00Z --execute");
    assert_eq!(lag().0, 0, "no record is that new");
    let told = at.ask("groups describe readers");
    assert!(
        told.contains("group readers: Empty, 0 members, 0 records behind"),
        "{told}"
    );

    at.ask("groups delete-offsets readers -t g:1");
    assert_eq!(lag().1.as_array().map(Vec::len), Some(1));
    let told = at.refused("groups describe reader");
    assert!(told.contains("did you mean `readers`?"), "{told}");
    at.ask("groups delete readers");
    assert!(!at.ask("groups list").contains("readers"));
    at.ask("topics delete g");
}

fn transactions(at: &At) {
    let told = at.ask("transactions list");
    assert!(told.starts_with("TRANSACTIONAL ID"), "{told}");
    let told = at.refused("transactions describe nobody");
    assert!(
        told.contains("there is no transactional id `nobody`"),
        "{told}"
    );
    assert_eq!(
        at.ask("transactions find-hanging"),
        "no transaction hangs\n"
    );
    at.ask("topics create x -p 1");
    at.ask("produce x 1");
    let told = at.json("transactions producers x");
    assert_eq!(told[0]["lastSequence"], 0, "{told}");
    open_transaction(at);
    at.ask("topics delete x");
}

/// A transaction that a producer leaves open is seen, kept from readers of committed records, and ended.
fn open_transaction(at: &At) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let begun = runtime.block_on(async {
        let kafka = krafka::Kafka::builder(&at.bootstrap).connect().await?;
        let producer = kafka.producer().build_transactional("till").await?;
        producer.begin()?;
        _ = producer.send(krafka::Record::new("x", "2")).await?;
        krafka::Result::Ok(producer)
    });
    let producer = begun.expect("a transaction begins");
    let told = at.json("transactions describe till");
    assert_eq!(told["state"], "Ongoing", "{told}");
    assert_eq!(told["partitions"][0]["topic"], "x", "{told}");
    assert_eq!(at.ask("consume x -e --isolation read_committed"), "1\n");
    assert_eq!(at.ask("consume x -e"), "1\n2\n");
    // Its coordinator knows of it, so it does not hang.
    let hanging = at.ask("transactions find-hanging x --older-than 0");
    assert_eq!(hanging, "no transaction hangs\n");
    let told = at.refused("transactions abort --at x:0@1");
    assert!(told.contains("its coordinator knows"), "{told}");
    let told = at.refused("transactions abort --at x:0@0");
    assert!(told.contains("no open transaction"), "{told}");
    assert!(
        at.refused("transactions describe tilt")
            .contains("did you mean `till`?")
    );
    at.ask("transactions abort till");
    let told = at.json("transactions describe till");
    assert_ne!(told["state"], "Ongoing", "{told}");
    assert!(
        runtime.block_on(producer.commit()).is_err(),
        "it is shut out"
    );
    assert_eq!(at.ask("consume x -e --isolation read_committed"), "1\n");
    aborted_at(at, &runtime);
}

/// A transaction is ended in a partition by the marker alone, as one that hangs would be.
fn aborted_at(at: &At, runtime: &tokio::runtime::Runtime) {
    at.ask("topics create held -p 1");
    let begun = runtime.block_on(async {
        let kafka = krafka::Kafka::builder(&at.bootstrap).connect().await?;
        let producer = kafka.producer().build_transactional("holder").await?;
        producer.begin()?;
        _ = producer.send(krafka::Record::new("held", "lost")).await?;
        krafka::Result::Ok(producer)
    });
    let producer = begun.expect("a transaction begins");
    at.ask("produce held after");
    assert_eq!(at.ask("consume held -e --isolation read_committed"), "");
    let told = at.ask("transactions abort --at held:0@0 --force");
    assert!(told.contains("held:0@0"), "{told}");
    assert_eq!(
        at.ask("consume held -e --isolation read_committed"),
        "after\n"
    );
    drop(producer);
    at.ask("transactions abort holder");
    at.ask("topics delete held");
}
