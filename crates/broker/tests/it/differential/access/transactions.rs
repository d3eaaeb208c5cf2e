//! Producers with an id.

use kafka::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use kafka::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka::messages::describe_transactions::DescribeTransactionsRequest;
use kafka::messages::end_txn::EndTxnRequest;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::list_transactions::ListTransactionsRequest;
use kafka::messages::produce::ProduceRequest;
use kafka::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};

use super::super::Both;
use crate::stage::{batch, numbered, produce};

const IDS: [&str; 3] = ["t-none", "t-seen", "t-write"];

pub(super) async fn run(both: &mut Both, user: &str) {
    both.section("producers");
    for version in [0, 4, 6] {
        let plain = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        both.by(user, "without a transaction", version, plain).await;
    }
    let records = produce("write", -1, numbered(&["x"], 7_000, 0, 0));
    both.by(user, "numbered records", 9, records).await;
    for id in IDS {
        of(both, user, id).await;
    }
    let describe = DescribeTransactionsRequest {
        transactional_ids: IDS.map(str::to_owned).into(),
    };
    both.ask_but(
        &["transaction_start_time_ms"],
        &format!("{user}, describe"),
        0,
        describe,
    )
    .await;
    for version in 0..=2 {
        let list = ListTransactionsRequest::default();
        both.by(user, "list", version, list).await;
    }
}

async fn of(both: &mut Both, user: &str, id: &str) {
    let begin = InitProducerIdRequest {
        transactional_id: Some(id.to_owned()),
        transaction_timeout_ms: 60_000,
        ..InitProducerIdRequest::default()
    };
    both.by(user, &format!("begin {id}"), 4, begin).await;
    // What nobody has begun.
    let topic = |name: &str| AddPartitionsToTxnTopic {
        name: name.to_owned(),
        partitions: vec![0],
    };
    for topics in [&["write"][..], &["write", "none", "absent"]] {
        for version in [0, 3] {
            let add = AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: id.to_owned(),
                v3_and_below_producer_id: 1 << 40,
                v3_and_below_topics: topics.iter().map(|name| topic(name)).collect(),
                ..AddPartitionsToTxnRequest::default()
            };
            both.by(user, &format!("add {topics:?} to {id}"), version, add)
                .await;
        }
    }
    let add = AddPartitionsToTxnRequest {
        transactions: vec![AddPartitionsToTxnTransaction {
            transactional_id: id.to_owned(),
            producer_id: 1 << 40,
            topics: vec![topic("write")],
            ..AddPartitionsToTxnTransaction::default()
        }],
        ..AddPartitionsToTxnRequest::default()
    };
    both.by(user, &format!("add to {id} as a broker"), 5, add)
        .await;
    for group in ["g-none", "g-read"] {
        let add = AddOffsetsToTxnRequest {
            transactional_id: id.to_owned(),
            producer_id: 1 << 40,
            group_id: group.to_owned(),
            ..AddOffsetsToTxnRequest::default()
        };
        both.by(user, &format!("add {group} to {id}"), 3, add).await;
        let commit = TxnOffsetCommitRequest {
            transactional_id: id.to_owned(),
            group_id: group.to_owned(),
            producer_id: 1 << 40,
            topics: ["none", "absent"]
                .map(|name| TxnOffsetCommitRequestTopic {
                    name: name.to_owned(),
                    partitions: vec![TxnOffsetCommitRequestPartition::default()],
                    ..TxnOffsetCommitRequestTopic::default()
                })
                .into(),
            ..TxnOffsetCommitRequest::default()
        };
        for version in [0, 3] {
            let step = format!("commit {group} in {id}");
            both.by(user, &step, version, commit.clone()).await;
        }
    }
    let end = EndTxnRequest {
        transactional_id: id.to_owned(),
        producer_id: 1 << 40,
        committed: true,
        ..EndTxnRequest::default()
    };
    both.by(user, &format!("end {id}"), 3, end).await;
    if id != "t-write" {
        let records = ProduceRequest {
            transactional_id: Some(id.to_owned()),
            ..produce("write", -1, batch(&["x"]))
        };
        both.by(user, &format!("produce in {id}"), 9, records).await;
    }
}
