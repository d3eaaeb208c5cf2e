//! Groups whose partitions the broker assigns (KIP-848), with the clients that speak that protocol.

use super::contract::{Client, Kind};
use super::groups::{
    PARTITIONS, Work, check_committed, check_group, check_once, seen, shares, wait_for,
};
use super::subject::{Subject, unique};

/// The protocol's name in the settings of clients.
const CONSUMER: &str = "consumer";

/// Join, share, leave; the broker is killed and comes again; patterns.
fn check(kind: Kind) {
    let Some(mut subject) = Subject::start_restartable() else {
        return;
    };
    let Some(mut client) = Client::start(kind, subject.bootstrap()) else {
        return;
    };
    let (topic, group) = (unique("assigned"), unique("assigned"));
    client.make_topic(&topic, PARTITIONS);
    let mut work = Work {
        topic: topic.clone(),
        produced: 0,
    };
    work.produce(&mut client, 40);

    let mut first = client.member_by(CONSUMER, &group, &topic);
    wait_for("one member to read all", &mut [&mut first], |members| {
        members[0].assigned == [0, 1, 2, 3] && seen(members) == work.expected()
    });
    let mut second = client.member_by(CONSUMER, &group, &topic);
    let both = &mut [&mut first, &mut second];
    wait_for("two members to share", both, |members| {
        shares(members, &[2, 2])
    });
    check_group(&mut client, &group, "Stable", 2);
    work.produce(&mut client, 40);
    wait_for("both to read all", both, |members| {
        seen(members) == work.expected()
    });

    subject.kill();
    subject.restart();
    work.produce(&mut client, 40);
    let both = &mut [&mut first, &mut second];
    wait_for("both to go on after a kill", both, |members| {
        shares(members, &[2, 2]) && seen(members) == work.expected()
    });

    second.leave();
    let all = &mut [&mut first, &mut second];
    wait_for("the other to take over", all, |members| {
        members[0].assigned == [0, 1, 2, 3]
    });
    work.produce(&mut client, 20);
    wait_for("it to read on", all, |members| {
        seen(members) == work.expected()
    });
    first.leave();
    // librdkafka's admin client of before the kill does not find the coordinator any more, neither at Apache Kafka.
    let Some(mut client) = Client::start(kind, subject.bootstrap()) else {
        return;
    };
    check_once(kind, &[&first, &second]);
    check_group(&mut client, &group, "Empty", 0);
    check_committed(&mut client, &group, &topic, work.produced / PARTITIONS);
    pattern(&mut client);
    testkit::lab::say(&format!(
        "client {} at {}: the broker assigns; shared, killed, resumed, by pattern",
        client.kind(),
        subject.name()
    ));
}

/// A member that reads by pattern finds topics that come later.
fn pattern(client: &mut Client) {
    let (name, group) = (unique("pattern"), unique("pattern"));
    let make = |client: &mut Client, suffix: &str| {
        let topic = format!("{name}-{suffix}");
        client.make_topic(&topic, PARTITIONS);
        let mut work = Work { topic, produced: 0 };
        work.produce(client, 8);
        work
    };
    let early = make(client, "a");
    let mut member = client.member_by(CONSUMER, &group, &format!("^{name}-[ab]$"));
    wait_for("a topic that is there", &mut [&mut member], |members| {
        seen(members) == early.expected() && members[0].assigned.len() == 4
    });
    make(client, "c");
    make(client, "b");
    wait_for("a topic that comes later", &mut [&mut member], |members| {
        members[0].assigned.len() == 8 && members[0].records.len() == 16
    });
    member.leave();
}

#[test]
fn confluent_kafka_lets_the_broker_assign() {
    check(Kind::Confluent);
}

#[test]
fn java_client_lets_the_broker_assign() {
    check(Kind::Java);
}
