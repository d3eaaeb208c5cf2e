//! Transactions on the wire.

use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use kafka::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka::messages::api_versions::ApiVersionsRequest;
use kafka::messages::describe_producers::{DescribeProducersRequest, TopicRequest};
use kafka::messages::describe_transactions::DescribeTransactionsRequest;
use kafka::messages::end_txn::EndTxnRequest;
use kafka::messages::fetch::{FetchRequest, PartitionData};
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
use kafka::record::{BatchBuilder, NewRecord, Producer, Records, batches};

use crate::stage::{Client, Stage, error, fetch, now_ms, numbered, produce};

mod groups;
mod recovery;
mod second;

const NONE: ErrorCode = ErrorCode::None;

/// A transactional producer that says exactly what a test wants said.
struct Writer {
    client: Client,
    id: &'static str,
    producer_id: i64,
    epoch: i16,
    sequence: i32,
}

fn starting(id: &str) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    }
}

impl Writer {
    async fn start(stage: &Stage, id: &'static str) -> Writer {
        Writer::start_with(stage, id, starting(id)).await
    }

    async fn start_with(stage: &Stage, id: &'static str, request: InitProducerIdRequest) -> Writer {
        let mut client = stage.client().await;
        // Another producer's transaction may be ending at this moment.
        let answer = loop {
            let answer = client.ask(4, request.clone()).await;
            if error(answer.error_code) != ErrorCode::ConcurrentTransactions {
                break answer;
            }
        };
        assert_eq!(error(answer.error_code), NONE);
        Writer {
            client,
            id,
            producer_id: answer.producer_id,
            epoch: answer.producer_epoch,
            sequence: 0,
        }
    }

    async fn add(&mut self, version: i16, topics: &[(&str, i32)]) -> Vec<ErrorCode> {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.into(),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: topics.iter().map(added).collect(),
            ..AddPartitionsToTxnRequest::default()
        };
        let answer = self.client.ask(version, request).await;
        let topics = answer.results_by_topic_v3_and_below.iter();
        topics
            .flat_map(|topic| &topic.results_by_partition)
            .map(|one| error(one.partition_error_code))
            .collect()
    }

    fn records(&self, values: &[&str]) -> Bytes {
        let producer = Producer {
            id: self.producer_id,
            epoch: self.epoch,
            base_sequence: self.sequence,
        };
        let mut builder = BatchBuilder::default().producer(producer).transactional();
        for value in values {
            builder.push(NewRecord {
                timestamp: now_ms(),
                value: Some(value.as_bytes()),
                ..NewRecord::default()
            });
        }
        builder.build()
    }

    fn request(&self, topic: &str, values: &[&str]) -> ProduceRequest {
        ProduceRequest {
            transactional_id: Some(self.id.into()),
            ..produce(topic, -1, self.records(values))
        }
    }

    async fn produce(&mut self, version: i16, topic: &str, values: &[&str]) -> (ErrorCode, i64) {
        let request = self.request(topic, values);
        let answer = self.client.ask(version, request).await;
        let one = &answer.responses[0].partition_responses[0];
        if one.error_code == 0 {
            self.sequence += values.len() as i32;
        }
        (error(one.error_code), one.base_offset)
    }

    /// Adds the topic and writes to it.
    async fn write(&mut self, topic: &str, values: &[&str]) -> i64 {
        assert_eq!(self.add(3, &[(topic, 0)]).await, [NONE]);
        let (code, offset) = self.produce(9, topic, values).await;
        assert_eq!(code, NONE);
        offset
    }

    async fn end(&mut self, version: i16, committed: bool) -> ErrorCode {
        let answer = self.client.ask(version, self.ending(committed)).await;
        if version >= 5 && answer.error_code == 0 {
            (self.producer_id, self.epoch) = (answer.producer_id, answer.producer_epoch);
            self.sequence = 0;
        }
        error(answer.error_code)
    }

    fn ending(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: self.id.into(),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed,
        }
    }
}

fn added((topic, partition): &(&str, i32)) -> AddPartitionsToTxnTopic {
    AddPartitionsToTxnTopic {
        name: (*topic).to_owned(),
        partitions: vec![*partition],
    }
}

/// Reads as a consumer of committed data does, waiting up to `wait_ms` for anything.
fn committed(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    FetchRequest {
        isolation_level: 1,
        ..fetch(topic, offset, wait_ms, 1 << 20)
    }
}

async fn fetched(client: &mut Client, request: FetchRequest) -> PartitionData {
    let answer = client.ask(12, request).await;
    let partition = answer.responses[0].partitions[0].clone();
    assert_eq!(error(partition.error_code), NONE);
    partition
}

/// What a client's library would show of a fetch of committed data: values without markers and without what
/// the aborted transactions wrote.
fn visible(partition: &PartitionData) -> Vec<String> {
    let mut aborted = partition.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|one| one.first_offset);
    let mut dropping = std::collections::BTreeSet::new();
    let mut values = Vec::new();
    for batch in batches(partition.records.as_ref().expect("records")) {
        let batch = batch.expect("whole");
        aborted.retain(|one| {
            let begun = one.first_offset <= batch.last_offset();
            if begun {
                dropping.insert(one.producer_id);
            }
            !begun
        });
        if batch.control() {
            dropping.remove(&batch.producer_id());
            continue;
        }
        if batch.transactional() && dropping.contains(&batch.producer_id()) {
            continue;
        }
        for record in &Records::read(&batch, 1 << 20).expect("reads") {
            let value = record.expect("whole").value.expect("a value");
            values.push(String::from_utf8_lossy(value).into_owned());
        }
    }
    values
}

/// Returns what committed data is there once `count` records are, or what there is when it takes too long.
async fn await_visible(client: &mut Client, topic: &str, up_to: i64) -> Vec<String> {
    let mut values = Vec::new();
    let mut offset = 0;
    while offset < up_to {
        let partition = fetched(client, committed(topic, offset, 30_000)).await;
        let records = partition.records.as_ref().expect("records");
        let Some(last) = batches(records).last() else {
            return values;
        };
        values.extend(visible(&partition));
        offset = last.expect("whole").next_offset();
    }
    values
}

async fn latest(client: &mut Client, topic: &str, isolation_level: i8) -> i64 {
    let request = ListOffsetsRequest {
        replica_id: -1,
        isolation_level,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    client.ask(7, request).await.topics[0].partitions[0].offset
}

#[tokio::test]
async fn consumers_of_committed_data_see_what_was_committed() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    let mut one = Writer::start(&stage, "one").await;
    let mut two = Writer::start(&stage, "two").await;
    assert_eq!(one.write("t", &["a", "b"]).await, 0);
    assert_eq!(two.write("t", &["x"]).await, 2);
    assert_eq!(latest(&mut reader, "t", 0).await, 3);
    assert_eq!(latest(&mut reader, "t", 1).await, 0);
    let partition = fetched(&mut reader, committed("t", 0, 0)).await;
    assert_eq!(
        (partition.high_watermark, partition.last_stable_offset),
        (3, 0)
    );
    assert_eq!(visible(&partition), [""; 0]);
    assert_eq!(two.end(3, false).await, NONE);
    assert_eq!(one.end(1, true).await, NONE);
    assert_eq!(await_visible(&mut reader, "t", 5).await, ["a", "b"]);
    let partition = fetched(&mut reader, committed("t", 0, 0)).await;
    let aborted = partition.aborted_transactions.expect("told");
    let [aborted] = &aborted[..] else {
        panic!("{aborted:?}")
    };
    assert_eq!(
        (aborted.producer_id, aborted.first_offset),
        (two.producer_id, 2)
    );
    assert_eq!(
        latest(&mut reader, "t", 1).await,
        5,
        "two records, one aborted, two markers"
    );
    // Whoever does not mind sees all, and is told of nothing.
    let all = fetched(&mut reader, fetch("t", 0, 0, 1 << 20)).await;
    assert_eq!(all.aborted_transactions, None);
    assert_eq!(visible(&all), ["a", "b", "x"]);
    // The same producers go on.
    one.write("t", &["c"]).await;
    assert_eq!(one.end(1, true).await, NONE);
    assert_eq!(await_visible(&mut reader, "t", 7).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_waiting_fetch_of_committed_data_wakes_at_the_marker() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    writer.write("t", &["a"]).await;
    let waiting = reader.send(12, committed("t", 0, 600_000)).await;
    writer.write("t", &["b"]).await;
    assert_eq!(writer.end(3, true).await, NONE);
    let answer = reader.answer::<FetchRequest>(12, waiting).await;
    assert_eq!(visible(&answer.responses[0].partitions[0]), ["a", "b"]);
}

#[tokio::test]
async fn records_outside_of_their_transaction_are_refused() {
    let stage = Stage::open().await;
    let mut admin = stage.client().await;
    admin.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    // The partition was never added.
    for (version, expected) in [
        (3, ErrorCode::InvalidTxnState),
        (10, ErrorCode::InvalidTxnState),
        (11, ErrorCode::TransactionAbortable),
    ] {
        assert_eq!(
            writer.produce(version, "t", &["a"]).await.0,
            expected,
            "{version}"
        );
    }
    let request = ProduceRequest {
        transactional_id: None,
        ..writer.request("t", &["a"])
    };
    let answer = writer.client.ask(9, request).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(error(code), ErrorCode::TransactionalIdAuthorizationFailed);
    // While it is open, all that the producer writes there belongs to it.
    writer.write("t", &["a"]).await;
    let outside = numbered(&["b"], writer.producer_id, writer.epoch, 1);
    let answer = admin.produce(9, "t", -1, outside).await;
    assert_eq!(error(answer.error_code), ErrorCode::InvalidTxnState);
    writer.epoch += 1;
    assert_eq!(
        writer.produce(9, "t", &["b"]).await.0,
        ErrorCode::InvalidProducerEpoch
    );
    writer.epoch -= 1;
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(await_visible(&mut admin, "t", 2).await, ["a"]);
    let late = loop {
        match writer.produce(9, "t", &["late"]).await.0 {
            ErrorCode::NotEnoughReplicas => continue, // the end is not written down yet
            code => break code,
        }
    };
    assert_eq!(late, ErrorCode::InvalidTxnState);
}

#[tokio::test]
async fn a_new_producer_fences_the_one_before_and_aborts_its_transaction() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    let mut zombie = Writer::start(&stage, "w").await;
    zombie.write("t", &["old"]).await;
    let mut writer = Writer::start(&stage, "w").await;
    assert_eq!(writer.producer_id, zombie.producer_id);
    assert!(
        writer.epoch > zombie.epoch + 1,
        "once for the abort, once for the start"
    );
    for (version, expected) in [
        (0, ErrorCode::InvalidProducerEpoch),
        (1, ErrorCode::InvalidProducerEpoch),
        (2, ErrorCode::ProducerFenced),
        (3, ErrorCode::ProducerFenced),
    ] {
        assert_eq!(
            zombie.add(version, &[("t", 0)]).await,
            [expected],
            "{version}"
        );
        assert_eq!(zombie.end(version, true).await, expected, "{version}");
    }
    assert_eq!(
        zombie.produce(9, "t", &["old"]).await.0,
        ErrorCode::InvalidProducerEpoch
    );
    writer.write("t", &["new"]).await;
    assert_eq!(writer.end(3, true).await, NONE);
    assert_eq!(await_visible(&mut reader, "t", 4).await, ["new"]);
}

#[tokio::test]
async fn a_producer_starts_with_what_the_broker_allows() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let asked = |id: Option<&str>, timeout, expected: (i64, i16)| InitProducerIdRequest {
        transactional_id: id.map(str::to_owned),
        transaction_timeout_ms: timeout,
        producer_id: expected.0,
        producer_epoch: expected.1,
        ..InitProducerIdRequest::default()
    };
    let none = (-1, -1);
    for (request, expected) in [
        (asked(Some(""), 1000, none), ErrorCode::InvalidRequest),
        (
            asked(Some("w"), 900_001, none),
            ErrorCode::InvalidTransactionTimeout,
        ),
        (
            asked(Some("w"), 0, none),
            ErrorCode::InvalidTransactionTimeout,
        ),
        (asked(Some("w"), 1000, (5, -1)), ErrorCode::InvalidRequest),
        (asked(Some("w"), 1000, (-1, 5)), ErrorCode::InvalidRequest),
        (asked(Some("w"), 900_000, none), NONE),
        (asked(None, 0, none), NONE),
    ] {
        let answer = client.ask(4, request).await;
        assert_eq!(error(answer.error_code), expected);
    }
    // To go on after an error, a producer names what it has (KIP-360).
    let first = client.ask(4, asked(Some("v"), 1000, none)).await;
    let id = first.producer_id;
    for (epoch, expected, next) in [
        (0, NONE, 1),
        (0, NONE, 1), // the answer was lost
        (1, NONE, 2),
        (0, ErrorCode::ProducerFenced, -1),
    ] {
        let answer = client.ask(4, asked(Some("v"), 1000, (id, epoch))).await;
        assert_eq!(
            (error(answer.error_code), answer.producer_epoch),
            (expected, next),
            "{epoch}"
        );
    }
    for (version, expected) in [
        (3, ErrorCode::InvalidProducerEpoch),
        (4, ErrorCode::ProducerFenced),
        (5, ErrorCode::ProducerFenced),
    ] {
        let answer = client
            .ask(version, asked(Some("v"), 1000, (id + 900, 2)))
            .await;
        assert_eq!(error(answer.error_code), expected, "{version}");
    }
}

#[tokio::test]
async fn partitions_are_added_all_or_none() {
    let stage = Stage::open().await;
    let mut admin = stage.client().await;
    admin.create("t", 1, &[]).await;
    let mut writer = Writer::start(&stage, "w").await;
    let codes = writer
        .add(
            3,
            &[("t", 0), ("t", 1), ("nope", 0), ("__consumer_offsets", 0)],
        )
        .await;
    // By topic, in the order of their names.
    let expected = [
        ErrorCode::TopicAuthorizationFailed,
        ErrorCode::UnknownTopicOrPartition,
        ErrorCode::OperationNotAttempted,
        ErrorCode::UnknownTopicOrPartition,
    ];
    assert_eq!(codes, expected);
    assert_eq!(
        writer.end(3, true).await,
        ErrorCode::InvalidTxnState,
        "nothing was begun"
    );
    writer.producer_id += 1;
    assert_eq!(
        writer.add(3, &[("t", 0)]).await,
        [ErrorCode::InvalidProducerIdMapping]
    );
    writer.id = "nobody";
    assert_eq!(
        writer.add(3, &[("t", 0)]).await,
        [ErrorCode::InvalidProducerIdMapping]
    );
    assert_eq!(
        writer.end(3, true).await,
        ErrorCode::InvalidProducerIdMapping
    );
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    let request = InitProducerIdRequest {
        transaction_timeout_ms: 1,
        ..starting("w")
    };
    let mut writer = Writer::start_with(&stage, "w", request).await;
    assert_eq!(writer.add(3, &[("t", 0)]).await, [NONE]);
    // It may be over before the record arrives.
    writer.produce(9, "t", &["late"]).await;
    let mut describing = stage.client().await;
    loop {
        let request = DescribeTransactionsRequest {
            transactional_ids: vec!["w".into()],
        };
        let answer = describing.ask(0, request).await;
        if answer.transaction_states[0].transaction_state == "CompleteAbort" {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(writer.end(1, true).await, ErrorCode::InvalidProducerEpoch);
    assert_eq!(writer.end(2, true).await, ErrorCode::ProducerFenced);
    // It may go on: nobody else has taken its place.
    let request = InitProducerIdRequest {
        producer_id: writer.producer_id,
        producer_epoch: writer.epoch,
        ..starting("w")
    };
    let mut writer = Writer::start_with(&stage, "w", request).await;
    writer.write("t", &["next"]).await;
    assert_eq!(writer.end(3, true).await, NONE);
    let end = latest(&mut reader, "t", 0).await;
    assert_eq!(await_visible(&mut reader, "t", end).await, ["next"]);
}

#[tokio::test]
async fn transactions_and_producers_are_told_of() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let find = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec!["w".into()],
        ..FindCoordinatorRequest::default()
    };
    let answer = client.ask(4, find).await;
    assert_eq!(error(answer.coordinators[0].error_code), NONE);
    assert_eq!(answer.coordinators[0].port, i32::from(stage.address.port()));
    Writer::start(&stage, "idle").await;
    let mut writer = Writer::start(&stage, "busy").await;
    writer.write("t", &["a", "b"]).await;
    let request = DescribeTransactionsRequest {
        transactional_ids: vec!["busy".into(), "idle".into(), "nobody".into()],
    };
    let answer = client.ask(0, request).await;
    let told: Vec<(ErrorCode, &str, usize)> = answer
        .transaction_states
        .iter()
        .map(|one| {
            (
                error(one.error_code),
                &*one.transaction_state,
                one.topics.len(),
            )
        })
        .collect();
    let expected = [
        (NONE, "Ongoing", 1),
        (NONE, "Empty", 0),
        (ErrorCode::TransactionalIdNotFound, "", 0),
    ];
    assert_eq!(told, expected);
    let list = |states: &[&str], pattern: Option<&str>, duration| ListTransactionsRequest {
        state_filters: states.iter().map(|name| (*name).to_owned()).collect(),
        transactional_id_pattern: pattern.map(str::to_owned),
        duration_filter: duration,
        ..ListTransactionsRequest::default()
    };
    for (request, expected) in [
        (list(&[], None, -1), "busy idle"),
        (list(&["Ongoing"], None, -1), "busy"),
        (list(&["Ongoing", "Wrong"], None, -1), "busy ?Wrong"),
        (list(&[], Some("i.*"), -1), "idle"),
        (list(&[], Some("usy"), -1), ""),
        (list(&[], Some("("), -1), "!"),
        (list(&["Ongoing"], None, 600_000), ""),
    ] {
        let answer = client.ask(2, request).await;
        let ids = answer
            .transaction_states
            .iter()
            .map(|one| one.transactional_id.clone());
        let unknown = answer
            .unknown_state_filters
            .iter()
            .map(|name| format!("?{name}"));
        let mut words: Vec<String> = ids.chain(unknown).collect();
        if error(answer.error_code) == ErrorCode::InvalidRegularExpression {
            words.push("!".into());
        }
        assert_eq!(words.join(" "), expected);
    }
    let request = DescribeProducersRequest {
        topics: vec![TopicRequest {
            name: "t".into(),
            partition_indexes: vec![0, 1],
        }],
    };
    let answer = client.ask(0, request).await;
    let [known, unknown] = &answer.topics[0].partitions[..] else {
        panic!("{answer:?}")
    };
    assert_eq!(
        error(unknown.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let [producer] = &known.active_producers[..] else {
        panic!("{known:?}")
    };
    assert_eq!(
        (producer.producer_id, producer.last_sequence),
        (writer.producer_id, 1)
    );
    assert_eq!(producer.current_txn_start_offset, 0);
}

#[tokio::test]
async fn an_administrator_ends_a_transaction_that_hangs() {
    let stage = Stage::open().await;
    let mut reader = stage.client().await;
    reader.create("t", 1, &[]).await;
    Writer::start(&stage, "w").await;
    let mut writer = Writer::start(&stage, "w").await;
    writer.write("t", &["hanging"]).await;
    let marker = |epoch, coordinator_epoch| WriteTxnMarkersRequest {
        markers: vec![WritableTxnMarker {
            producer_id: writer.producer_id,
            producer_epoch: epoch,
            transaction_result: false,
            topics: vec![WritableTxnMarkerTopic {
                name: "t".into(),
                partition_indexes: vec![0, 1],
            }],
            coordinator_epoch,
            ..WritableTxnMarker::default()
        }],
    };
    for (epoch, coordinator_epoch, expected) in [
        (writer.epoch - 1, 0, ErrorCode::InvalidProducerEpoch),
        (writer.epoch, 1, ErrorCode::TransactionCoordinatorFenced), // none was so late
        (writer.epoch, 0, NONE),
        (writer.epoch, -1, ErrorCode::TransactionCoordinatorFenced),
    ] {
        let answer = reader.ask(1, marker(epoch, coordinator_epoch)).await;
        let told = &answer.markers[0].topics[0].partitions;
        assert_eq!(error(told[0].error_code), expected);
        assert_eq!(
            error(told[1].error_code),
            ErrorCode::UnknownTopicOrPartition
        );
    }
    assert_eq!(latest(&mut reader, "t", 1).await, 2);
    assert_eq!(await_visible(&mut reader, "t", 2).await, [""; 0]);
}
