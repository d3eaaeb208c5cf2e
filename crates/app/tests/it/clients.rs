//! Unmodified Kafka clients, each in its own language, against a running `nuncio serve`.
//!
//! `NUNCIO_TEST_BOOTSTRAP=host:port` points these tests at another broker: a case that Apache Kafka does not
//! pass says nothing about ours.

mod consumers;
mod contract;
mod crash;
mod cross;
mod data;
mod groups;
mod kcat;
mod shares;
mod streams;
mod subject;
mod topics;
mod transactions;

use self::contract::{Client, Kind};
use self::subject::Subject;

/// Everything that one client is asked to do.
fn check(kind: Kind) {
    let subject = Subject::start();
    let Some(mut client) = Client::start(kind, subject.bootstrap()) else {
        return;
    };
    let codecs = data::round_trips(&mut client);
    let idempotence = data::idempotent_producer_keeps_order(&mut client);
    let transactions = transactions::commit_abort_and_fence(&mut client);
    let topics = topics::come_and_go(&mut client);
    let groups = groups::share_and_resume(&mut client);
    testkit::lab::say(&format!(
        "client {} at {}: {codecs}; {idempotence}; {transactions}; {topics}; {groups}",
        client.kind(),
        subject.name()
    ));
}

#[test]
fn confluent_kafka() {
    check(Kind::Confluent);
}

#[test]
fn old_confluent_kafka() {
    check(Kind::OldConfluent);
}

#[test]
fn kafka_python() {
    check(Kind::KafkaPython);
}

#[test]
fn aiokafka() {
    check(Kind::AioKafka);
}

#[test]
fn franz_go() {
    check(Kind::FranzGo);
}

#[test]
fn sarama() {
    check(Kind::Sarama);
}

#[test]
fn kafka_go() {
    check(Kind::KafkaGo);
}

#[test]
fn kafkajs() {
    check(Kind::KafkaJs);
}

#[test]
fn java_client() {
    check(Kind::Java);
}

#[test]
fn kcat() {
    check(Kind::Kcat);
}
