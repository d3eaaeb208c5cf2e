//! Producers of transactions, of both versions of the protocol, well-behaved and not.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use kafka::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use kafka::messages::describe_transactions::DescribeTransactionsRequest;
use kafka::messages::end_txn::EndTxnRequest;
use kafka::messages::fetch::FetchRequest;
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::list_transactions::ListTransactionsRequest;
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka::messages::produce::ProduceRequest;
use kafka::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use kafka::record::{BatchBuilder, NewRecord, Producer};

use super::{Answer, Both, Side, topics};
use crate::stage::{fetch, now_ms, produce};

/// Fields that two brokers cannot have in common.
const TIMES: &[&str] = &["transaction_start_time_ms", "last_timestamp"];

pub(super) async fn run(both: &mut Both) {
    settle(&mut both.theirs).await;
    starts(both).await;
    first(both).await;
    second(both).await;
    offsets(both).await;
    batched(both).await;
    markers(both).await;
    looks(both).await;
}

/// The first question makes the topic of transactions.
pub(super) async fn settle(side: &mut Side) {
    let request = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["starts".to_owned()],
        ..FindCoordinatorRequest::default()
    };
    loop {
        match side.ask(4, request.clone()).await {
            Answer::Given(answer) if answer.coordinators[0].error_code == 0 => return,
            _ => tokio::task::yield_now().await,
        }
    }
}

fn starting(id: Option<&str>) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: id.map(str::to_owned),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    }
}

/// What one broker has given a producer.
#[derive(Debug, Clone, Copy)]
struct Given {
    id: i64,
    epoch: i16,
}

/// A producer of both brokers.
#[derive(Debug, Clone)]
struct Writer {
    name: &'static str,
    ours: Given,
    theirs: Given,
    sequences: BTreeMap<&'static str, i32>,
}

/// Waits until a transactional id is at rest, for the broker under test to be asked at one moment.
async fn rest(side: &mut Side, name: &str) {
    loop {
        let request = DescribeTransactionsRequest {
            transactional_ids: vec![name.to_owned()],
        };
        match side.ask(0, request).await {
            Answer::Given(answer)
                if answer.transaction_states[0]
                    .transaction_state
                    .starts_with("Prepare") => {}
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}

impl Writer {
    /// Starts a producer; what is answered to the first try is not compared, since one may ask to come again.
    async fn start(both: &mut Both, name: &'static str) -> Writer {
        let ours = begin(&mut both.ours, name).await;
        let theirs = begin(&mut both.theirs, name).await;
        assert_eq!(ours.epoch, theirs.epoch, "{name}");
        Writer {
            name,
            ours,
            theirs,
            sequences: BTreeMap::new(),
        }
    }

    async fn rest(&self, both: &mut Both) {
        rest(&mut both.ours, self.name).await;
        rest(&mut both.theirs, self.name).await;
    }

    /// The same producer with another epoch.
    fn at(&self, delta: i16) -> Writer {
        let mut other = self.clone();
        other.ours.epoch += delta;
        other.theirs.epoch += delta;
        other
    }

    /// The same producer with an id that nobody has.
    fn stranger(&self) -> Writer {
        let mut other = self.clone();
        other.ours.id += 100_000;
        other.theirs.id += 100_000;
        other
    }

    async fn add(&self, both: &mut Both, step: &str, version: i16, places: &[(&str, i32)]) {
        let request = |given: Given| AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.name.into(),
            v3_and_below_producer_id: given.id,
            v3_and_below_producer_epoch: given.epoch,
            v3_and_below_topics: places.iter().map(added).collect(),
            ..AddPartitionsToTxnRequest::default()
        };
        both.ask_each(step, version, request(self.ours), request(self.theirs))
            .await;
    }

    fn records(&self, given: Given, topic: &str, transactional: bool) -> Bytes {
        let producer = Producer {
            id: given.id,
            epoch: given.epoch,
            base_sequence: self.sequences.get(topic).copied().unwrap_or(0),
        };
        let mut builder = BatchBuilder::default().producer(producer);
        if transactional {
            builder = builder.transactional();
        }
        builder.push(NewRecord {
            timestamp: now_ms(),
            value: Some(b"v"),
            ..NewRecord::default()
        });
        builder.build()
    }

    fn producing(&self, given: Given, topic: &str) -> ProduceRequest {
        ProduceRequest {
            transactional_id: Some(self.name.into()),
            ..produce(topic, -1, self.records(given, topic, true))
        }
    }

    /// Writes one record; the sequence goes on.
    async fn write(&mut self, both: &mut Both, step: &str, version: i16, topic: &'static str) {
        self.attempt(both, step, version, topic).await;
        *self.sequences.entry(topic).or_default() += 1;
    }

    /// Writes one record that is not meant to be taken.
    async fn attempt(&self, both: &mut Both, step: &str, version: i16, topic: &str) {
        let ours = self.producing(self.ours, topic);
        let theirs = self.producing(self.theirs, topic);
        both.ask_each(step, version, ours, theirs).await;
    }

    async fn end(&mut self, both: &mut Both, step: &str, version: i16, committed: bool) {
        let request = |given: Given| EndTxnRequest {
            transactional_id: self.name.into(),
            producer_id: given.id,
            producer_epoch: given.epoch,
            committed,
        };
        let (ours, theirs) = (request(self.ours), request(self.theirs));
        let pair = both.ask_each(step, version, ours, theirs).await;
        let (ours, theirs) = pair.answered();
        if version >= 5 && ours.error_code == 0 && theirs.error_code == 0 {
            self.ours = Given {
                id: ours.producer_id,
                epoch: ours.producer_epoch,
            };
            self.theirs = Given {
                id: theirs.producer_id,
                epoch: theirs.producer_epoch,
            };
            self.sequences.clear();
        }
        self.rest(both).await;
    }

    async fn go_on(&self, both: &mut Both, step: &str, version: i16) {
        let request = |given: Given| InitProducerIdRequest {
            producer_id: given.id,
            producer_epoch: given.epoch,
            ..starting(Some(self.name))
        };
        both.ask_each(step, version, request(self.ours), request(self.theirs))
            .await;
        self.rest(both).await;
    }
}

async fn begin(side: &mut Side, name: &str) -> Given {
    loop {
        if let Answer::Given(answer) = side.ask(4, starting(Some(name))).await {
            match answer.error_code {
                0 => {
                    return Given {
                        id: answer.producer_id,
                        epoch: answer.producer_epoch,
                    };
                }
                14..=16 | 51 => tokio::task::yield_now().await,
                code => panic!("{name}: {code}"),
            }
        }
    }
}

fn added((topic, partition): &(&str, i32)) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic {
        name: (*topic).to_owned(),
        partitions: vec![*partition],
    }
}

async fn committed(both: &mut Both, step: &str, topic: &str) {
    for (isolation, level) in [(1, "committed"), (0, "all")] {
        let step = format!("{step}, {level}");
        let request = FetchRequest {
            isolation_level: isolation,
            ..fetch(topic, 0, 0, 1 << 20)
        };
        // The bytes carry producer ids, so only what is around them is compared.
        both.ask(&format!("{step}, offsets"), 7, listing(topic, isolation))
            .await;
        both.ask_but(&["records"], &step, 12, request).await;
    }
}

fn listing(topic: &str, isolation_level: i8) -> ListOffsetsRequest {
    ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: [-1, -2, -3]
                .into_iter()
                .map(|timestamp| ListOffsetsPartition {
                    timestamp,
                    ..ListOffsetsPartition::default()
                })
                .take(1)
                .collect(),
        }],
        ..ListOffsetsRequest::default()
    }
}

async fn starts(both: &mut Both) {
    both.section("init producer id");
    let find = |key: &str| FindCoordinatorRequest {
        key: key.into(),
        key_type: 1,
        ..FindCoordinatorRequest::default()
    };
    Writer::start(both, "starts").await;
    both.ask("find an empty name", 3, find("")).await;
    for version in 0..=5 {
        both.ask("no transactions", version, starting(None)).await;
        both.ask("again", version, starting(Some("starts"))).await;
        both.ask("an empty name", version, starting(Some(""))).await;
    }
    for timeout in [-1, 0, 1, 900_000, 900_001] {
        let request = InitProducerIdRequest {
            transaction_timeout_ms: timeout,
            ..starting(Some("starts"))
        };
        both.ask(&format!("timeout {timeout}"), 4, request).await;
    }
    for (id, epoch) in [(5, -1), (-1, 5), (-1, -1), (i64::MAX, 0)] {
        let request = InitProducerIdRequest {
            producer_id: id,
            producer_epoch: epoch,
            ..starting(Some("starts"))
        };
        for version in [3, 4, 5] {
            let step = format!("expecting {id} {epoch}");
            both.ask(&step, version, request.clone()).await;
        }
    }
    let writer = Writer::start(both, "starts").await;
    writer.go_on(both, "going on", 4).await;
    writer.go_on(both, "going on, asked again", 4).await;
    writer.at(1).go_on(both, "going on with the next", 4).await;
    writer.go_on(both, "going on with an old one", 3).await;
    writer.go_on(both, "going on with an old one", 4).await;
    writer
        .at(9)
        .go_on(both, "going on with a future one", 4)
        .await;
    writer
        .stranger()
        .go_on(both, "going on with another id", 4)
        .await;
    Writer::start(both, "starts").await;
    writer
        .at(2)
        .go_on(both, "going on after another start", 4)
        .await;
}

async fn first(both: &mut Both) {
    both.section("transactions");
    topics::make(both, "txn-first", 2, &[]).await;
    Writer::start(both, "first").await;
    let mut writer = Writer::start(both, "first").await;
    for version in 0..=3 {
        writer.end(both, "commit nothing", version, true).await;
        writer.end(both, "abort nothing", version, false).await;
    }
    for version in [3, 9, 10, 11] {
        writer
            .attempt(both, "write without adding", version, "txn-first")
            .await;
    }
    for version in 0..=3 {
        writer.add(both, "add", version, &[("txn-first", 0)]).await;
        let none: &[(&str, i32)] = &[];
        writer.add(both, "add nothing", version, none).await;
        writer
            .add(
                both,
                "add unknown ones",
                version,
                &[("txn-first", 1), ("txn-first", 9), ("nope", 0)],
            )
            .await;
        writer
            .add(
                both,
                "add an internal one",
                version,
                &[("__consumer_offsets", 0)],
            )
            .await;
        writer
            .at(-1)
            .add(both, "add with an old epoch", version, &[("txn-first", 0)])
            .await;
        writer
            .at(1)
            .add(both, "add with a new epoch", version, &[("txn-first", 0)])
            .await;
        writer
            .stranger()
            .add(both, "add as a stranger", version, &[("txn-first", 0)])
            .await;
    }
    for version in [3, 9, 11] {
        writer.write(both, "write", version, "txn-first").await;
    }
    committed(both, "open", "txn-first").await;
    writer
        .at(-1)
        .attempt(both, "write with an old epoch", 9, "txn-first")
        .await;
    writer
        .at(1)
        .attempt(both, "write with a new epoch", 9, "txn-first")
        .await;
    writer
        .stranger()
        .attempt(both, "write as a stranger", 9, "txn-first")
        .await;
    for version in 0..=3 {
        writer
            .at(-1)
            .end(both, "end with an old epoch", version, true)
            .await;
        writer
            .at(1)
            .end(both, "end with a new epoch", version, true)
            .await;
        writer
            .stranger()
            .end(both, "end as a stranger", version, true)
            .await;
    }
    let without = |given: Given| produce("txn-first", -1, writer.records(given, "txn-first", true));
    let (ours, theirs) = (without(writer.ours), without(writer.theirs));
    both.ask_each("write without a transactional id", 9, ours, theirs)
        .await;
    let outside =
        |given: Given| produce("txn-first", -1, writer.records(given, "txn-first", false));
    let (ours, theirs) = (outside(writer.ours), outside(writer.theirs));
    both.ask_each("write outside of it", 9, ours, theirs).await;
    writer.end(both, "commit", 3, true).await;
    writer.end(both, "commit again", 3, true).await;
    writer.end(both, "abort what is committed", 3, false).await;
    committed(both, "done", "txn-first").await;
    writer
        .attempt(both, "write after the end", 9, "txn-first")
        .await;
    writer
        .add(
            both,
            "add for the next",
            3,
            &[("txn-first", 0), ("txn-first", 1)],
        )
        .await;
    writer
        .write(both, "write to the next", 9, "txn-first")
        .await;
    writer.end(both, "abort", 1, false).await;
    writer.end(both, "abort again", 1, false).await;
    writer.end(both, "commit what is aborted", 1, true).await;
    committed(both, "aborted", "txn-first").await;
    // A new instance while a transaction is open.
    writer
        .add(both, "add before the zombie", 3, &[("txn-first", 0)])
        .await;
    writer
        .write(both, "write before the zombie", 9, "txn-first")
        .await;
    Writer::start(both, "first").await;
    for version in 0..=3 {
        writer
            .add(both, "add as a zombie", version, &[("txn-first", 0)])
            .await;
        writer.end(both, "end as a zombie", version, true).await;
    }
    writer
        .attempt(both, "write as a zombie", 9, "txn-first")
        .await;
    writer.go_on(both, "go on as a zombie", 4).await;
    committed(both, "after the zombie", "txn-first").await;
    let mut nobody = writer.clone();
    nobody.name = "nobody-knows";
    nobody
        .add(both, "add for nobody", 3, &[("txn-first", 0)])
        .await;
    nobody.end(both, "end for nobody", 3, true).await;
    nobody
        .attempt(both, "write for nobody", 9, "txn-first")
        .await;
    nobody.name = "";
    nobody
        .add(both, "add without a name", 3, &[("txn-first", 0)])
        .await;
    nobody.end(both, "end without a name", 3, true).await;
}

async fn second(both: &mut Both) {
    both.section("second version");
    topics::make(both, "txn-second", 2, &[]).await;
    let mut writer = Writer::start(both, "second").await;
    writer.end(both, "commit nothing", 5, true).await;
    writer.end(both, "abort nothing", 5, false).await;
    writer.end(both, "abort nothing again", 5, false).await;
    writer.write(both, "write", 12, "txn-second").await;
    writer.write(both, "write more", 12, "txn-second").await;
    writer
        .attempt(both, "write as the first version does", 11, "txn-second")
        .await;
    writer
        .at(-1)
        .attempt(both, "write with an old epoch", 12, "txn-second")
        .await;
    writer
        .stranger()
        .attempt(both, "write as a stranger", 12, "txn-second")
        .await;
    committed(both, "open", "txn-second").await;
    writer
        .at(-1)
        .end(both, "end with an old epoch", 5, true)
        .await;
    writer
        .at(1)
        .end(both, "end with a new epoch", 5, true)
        .await;
    let before = writer.clone();
    writer.end(both, "commit", 5, true).await;
    before.clone().end(both, "commit again", 5, true).await;
    before
        .clone()
        .end(both, "abort what is committed", 5, false)
        .await;
    before.attempt(both, "write late", 12, "txn-second").await;
    committed(both, "done", "txn-second").await;
    writer
        .write(both, "write to the next", 12, "txn-second")
        .await;
    before
        .clone()
        .end(both, "commit the one before", 5, true)
        .await;
    writer.end(both, "abort", 5, false).await;
    writer.end(both, "commit after the abort", 5, true).await;
    writer.end(both, "abort once more", 5, false).await;
    committed(both, "aborted", "txn-second").await;
    // Both versions by turns.
    writer
        .write(both, "write before the first version", 12, "txn-second")
        .await;
    writer
        .end(both, "commit as the first version does", 3, true)
        .await;
    let pair = writer.clone();
    writer
        .write(both, "write after the first version", 12, "txn-second")
        .await;
    pair.clone()
        .end(both, "commit as the second does", 5, true)
        .await;
    // A new instance while a transaction is open.
    let mut writer = Writer::start(both, "second").await;
    writer
        .write(both, "write before the zombie", 12, "txn-second")
        .await;
    Writer::start(both, "second").await;
    writer
        .attempt(both, "write as a zombie", 12, "txn-second")
        .await;
    writer.clone().end(both, "end as a zombie", 5, true).await;
    writer.go_on(both, "go on as a zombie", 5).await;
    committed(both, "after the zombie", "txn-second").await;
}

async fn offsets(both: &mut Both) {
    both.section("offsets in transactions");
    topics::make(both, "txn-offsets", 1, &[]).await;
    Writer::start(both, "offsets").await;
    let mut writer = Writer::start(both, "offsets").await;
    for version in 0..=4 {
        commit(
            both,
            &writer,
            "without adding",
            version,
            "og",
            "txn-offsets",
        )
        .await;
    }
    for version in 0..=4 {
        add_offsets(both, &writer.at(-1), "add with an old epoch", version, "og").await;
        add_offsets(both, &writer.stranger(), "add as a stranger", version, "og").await;
        add_offsets(both, &writer, "add", version, "og").await;
        add_offsets(both, &writer, "add for no group", version, "").await;
    }
    for version in 0..=4 {
        commit(both, &writer, "commit", version, "og", "txn-offsets").await;
        commit(
            both,
            &writer,
            "commit for an unknown topic",
            version,
            "og",
            "nope",
        )
        .await;
        commit(
            both,
            &writer,
            "commit for no group",
            version,
            "",
            "txn-offsets",
        )
        .await;
        commit(
            both,
            &writer.at(-1),
            "commit with an old epoch",
            version,
            "og",
            "txn-offsets",
        )
        .await;
        commit(
            both,
            &writer.stranger(),
            "commit as a stranger",
            version,
            "og",
            "txn-offsets",
        )
        .await;
    }
    for version in [3, 4] {
        let request = |given| TxnOffsetCommitRequest {
            generation_id: 4,
            member_id: "m".into(),
            ..committing(&writer, given, "og", "txn-offsets")
        };
        let (ours, theirs) = (request(writer.ours), request(writer.theirs));
        both.ask_each("commit as a member", version, ours, theirs)
            .await;
        let request = |given| TxnOffsetCommitRequest {
            group_instance_id: Some("i".into()),
            ..committing(&writer, given, "og", "txn-offsets")
        };
        let (ours, theirs) = (request(writer.ours), request(writer.theirs));
        both.ask_each("commit as an instance", version, ours, theirs)
            .await;
    }
    stored(both, "open").await;
    writer.end(both, "commit the transaction", 3, true).await;
    stored(both, "committed").await;
    add_offsets(both, &writer, "add to the next", 3, "og").await;
    commit(both, &writer, "commit in the next", 3, "og", "txn-offsets").await;
    writer.end(both, "abort the transaction", 3, false).await;
    stored(both, "aborted").await;
    commit(
        both,
        &writer,
        "commit without adding",
        5,
        "og",
        "txn-offsets",
    )
    .await;
    commit(both, &writer, "commit for no group", 5, "", "offsets").await;
    stored(both, "open again").await;
    writer
        .end(both, "commit the second version's", 5, true)
        .await;
    stored(both, "committed again").await;
    commit(both, &writer.at(-1), "commit late", 5, "og", "txn-offsets").await;
}

async fn stored(both: &mut Both, step: &str) {
    for stable in [false, true] {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: "og".into(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: "txn-offsets".into(),
                    partition_indexes: vec![0],
                    ..OffsetFetchRequestTopics::default()
                }]),
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: stable,
            ..OffsetFetchRequest::default()
        };
        let all = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: "og".into(),
                topics: None,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: stable,
            ..OffsetFetchRequest::default()
        };
        let stable = if stable { "stable" } else { "any" };
        both.ask(&format!("{step}, {stable}"), 8, request).await;
        both.ask(&format!("{step}, all, {stable}"), 8, all).await;
    }
}

async fn add_offsets(both: &mut Both, writer: &Writer, step: &str, version: i16, group: &str) {
    let request = |given: Given| AddOffsetsToTxnRequest {
        transactional_id: writer.name.into(),
        producer_id: given.id,
        producer_epoch: given.epoch,
        group_id: group.into(),
    };
    both.ask_each(step, version, request(writer.ours), request(writer.theirs))
        .await;
}

fn committing(writer: &Writer, given: Given, group: &str, topic: &str) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: writer.name.into(),
        group_id: group.into(),
        producer_id: given.id,
        producer_epoch: given.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![
                TxnOffsetCommitRequestPartition {
                    committed_offset: 7,
                    committed_metadata: Some("here".into()),
                    ..TxnOffsetCommitRequestPartition::default()
                },
                TxnOffsetCommitRequestPartition {
                    partition_index: 9,
                    committed_offset: 7,
                    ..TxnOffsetCommitRequestPartition::default()
                },
                TxnOffsetCommitRequestPartition {
                    committed_offset: 7,
                    committed_metadata: Some("x".repeat(5000)),
                    ..TxnOffsetCommitRequestPartition::default()
                },
            ],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

async fn commit(
    both: &mut Both,
    writer: &Writer,
    step: &str,
    version: i16,
    group: &str,
    topic: &str,
) {
    let ours = committing(writer, writer.ours, group, topic);
    let theirs = committing(writer, writer.theirs, group, topic);
    both.ask_each(step, version, ours, theirs).await;
}

/// What brokers ask of each other.
async fn batched(both: &mut Both) {
    both.section("batched adding");
    topics::make(both, "txn-batched", 2, &[]).await;
    let mut one = Writer::start(both, "batched-1").await;
    let two = Writer::start(both, "batched-2").await;
    one.add(both, "one", 3, &[("txn-batched", 0)]).await;
    let about = |writer: &Writer, ours: bool, verify_only, places: &[(&str, i32)]| {
        let given = if ours { writer.ours } else { writer.theirs };
        AddPartitionsToTxnTransaction {
            transactional_id: writer.name.into(),
            producer_id: given.id,
            producer_epoch: given.epoch,
            verify_only,
            topics: places.iter().map(added).collect(),
        }
    };
    for version in [4, 5] {
        let request = |ours: bool| AddPartitionsToTxnRequest {
            transactions: vec![
                about(&one, ours, true, &[("txn-batched", 0)]),
                about(&two, ours, true, &[("txn-batched", 0)]),
            ],
            ..AddPartitionsToTxnRequest::default()
        };
        both.ask_each("verify", version, request(true), request(false))
            .await;
        for (step, writer, verify_only, places) in [
            (
                "verify a stranger",
                one.stranger(),
                true,
                &[("txn-batched", 0)][..],
            ),
            (
                "verify an old epoch",
                one.at(-1),
                true,
                &[("txn-batched", 0)],
            ),
            ("verify a new epoch", one.at(1), true, &[("txn-batched", 0)]),
            ("verify an unknown topic", one.clone(), true, &[("nope", 0)]),
            (
                "verify more",
                one.clone(),
                true,
                &[("txn-batched", 0), ("txn-batched", 1)],
            ),
            (
                "add as a stranger",
                one.stranger(),
                false,
                &[("txn-batched", 0)],
            ),
            (
                "add with an old epoch",
                one.at(-1),
                false,
                &[("txn-batched", 0)],
            ),
            (
                "add an unknown topic",
                one.clone(),
                false,
                &[("nope", 0), ("txn-batched", 1)],
            ),
            (
                "add",
                two.clone(),
                false,
                &[("txn-batched", 0), ("txn-batched", 1)],
            ),
        ] {
            let request = |ours: bool| AddPartitionsToTxnRequest {
                transactions: vec![about(&writer, ours, verify_only, places)],
                ..AddPartitionsToTxnRequest::default()
            };
            both.ask_each(step, version, request(true), request(false))
                .await;
        }
    }
    one.end(both, "commit one", 3, true).await;
    two.clone().end(both, "commit two", 5, true).await;
}

async fn markers(both: &mut Both) {
    both.section("markers");
    topics::make(both, "txn-marked", 1, &[]).await;
    Writer::start(both, "marked").await;
    let mut writer = Writer::start(both, "marked").await;
    writer.add(both, "add", 3, &[("txn-marked", 0)]).await;
    writer.write(both, "write", 9, "txn-marked").await;
    for (step, epoch, coordinator_epoch) in [
        ("with an old epoch", -1, 0),
        ("of the transaction", 0, 0),
        ("of an old coordinator", 0, -1),
        ("again", 0, 0),
        ("with a new epoch", 1, 0),
    ] {
        let request = |given: Given| WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: given.id,
                producer_epoch: given.epoch + epoch,
                transaction_result: false,
                topics: vec![
                    WritableTxnMarkerTopic {
                        name: "txn-marked".into(),
                        partition_indexes: vec![0, 8],
                    },
                    WritableTxnMarkerTopic {
                        name: "nope".into(),
                        partition_indexes: vec![0],
                    },
                ],
                coordinator_epoch,
                ..WritableTxnMarker::default()
            }],
        };
        let (ours, theirs) = (request(writer.ours), request(writer.theirs));
        both.ask_each(step, 1, ours, theirs).await;
        committed(both, step, "txn-marked").await;
    }
}

async fn looks(both: &mut Both) {
    both.section("looking at transactions");
    topics::make(both, "txn-looked-at", 1, &[]).await;
    let mut writer = Writer::start(both, "looked-at").await;
    let describe = |ids: &[&str]| DescribeTransactionsRequest {
        transactional_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    let list = |states: &[&str], pattern: Option<&str>, duration| ListTransactionsRequest {
        state_filters: states.iter().map(|name| (*name).to_owned()).collect(),
        transactional_id_pattern: pattern.map(str::to_owned),
        duration_filter: duration,
        ..ListTransactionsRequest::default()
    };
    both.ask("unknown ones", 0, describe(&["not-there", ""]))
        .await;
    both.ask("an empty one", 0, describe(&["looked-at"])).await;
    writer.add(both, "add", 3, &[("txn-looked-at", 0)]).await;
    writer.write(both, "write", 9, "txn-looked-at").await;
    both.ask_but(TIMES, "an open one", 0, describe(&["looked-at"]))
        .await;
    for (step, request) in [
        ("list open ones", list(&["Ongoing"], None, -1)),
        (
            "list strange states",
            list(&["Ongoing", "Wrong", "Dead"], None, -1),
        ),
        ("list only strange states", list(&["Wrong"], None, -1)),
        ("list by pattern", list(&[], Some("look.*"), -1)),
        ("list by half a pattern", list(&[], Some("look"), -1)),
        ("list by a broken pattern", list(&[], Some("("), -1)),
        ("list by no pattern", list(&["Ongoing"], Some(""), -1)),
        ("list old ones", list(&["Ongoing"], None, 600_000)),
    ] {
        both.ask(step, 2, request).await;
    }
    let producers = DescribeProducersRequest {
        topics: vec![
            TopicRequest {
                name: "txn-looked-at".into(),
                partition_indexes: vec![0, 4],
            },
            TopicRequest {
                name: "nope".into(),
                partition_indexes: vec![0],
            },
        ],
    };
    both.ask_but(TIMES, "producers", 0, producers).await;
    writer.end(both, "commit", 3, true).await;
}
