//! Records out, and where they are.

use kafka::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, ForgottenTopic};
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

use super::{Both, topics};
use crate::stage::{fetch, produce, stamped};

/// A time in the past that both keep, in ms since 1970.
const THEN: i64 = 1_700_000_000_000;

pub(super) async fn run(both: &mut Both) {
    both.section("fetch");
    topics::make(both, "read", 2, &[("retention.ms", "-1")]).await;
    for (step, values, at) in [
        ("first", vec!["a", "b"], THEN),
        ("second", vec!["c"], THEN + 1000),
        ("third", vec!["d", "e"], THEN + 500),
    ] {
        both.ask(step, 9, produce("read", -1, stamped(&values, at, None)))
            .await;
    }
    for version in 4..=12 {
        both.ask("from the start", version, fetch("read", 0, 0, 1 << 20))
            .await;
    }
    both.ask(
        "from the middle of a batch",
        12,
        fetch("read", 1, 0, 1 << 20),
    )
    .await;
    both.ask("one byte", 12, fetch("read", 0, 0, 1)).await;
    both.ask("no bytes", 12, fetch("read", 0, 0, 0)).await;
    both.ask("at the end", 12, fetch("read", 5, 0, 1 << 20))
        .await;
    both.ask("behind the end", 12, fetch("read", 6, 0, 1 << 20))
        .await;
    both.ask("before the start", 12, fetch("read", -1, 0, 1 << 20))
        .await;
    both.ask("unknown topic", 12, fetch("not-there", 0, 0, 1 << 20))
        .await;
    let mut request = fetch("read", 0, 0, 1 << 20);
    request.topics[0].partitions[0].partition = 9;
    both.ask("unknown partition", 12, request.clone()).await;
    request.topics[0].partitions[0].partition = 0;
    request.topics[0].partitions[0].current_leader_epoch = 99;
    both.ask("an epoch to come", 12, request.clone()).await;
    request.topics[0].partitions[0].current_leader_epoch = -1;
    request.isolation_level = 1;
    both.ask("committed only", 12, request.clone()).await;
    request.session_id = 77;
    request.session_epoch = 3;
    both.ask("a session that is not there", 12, request.clone())
        .await;
    request.session_id = 0;
    request.session_epoch = 3;
    both.ask("an epoch without session", 12, request.clone())
        .await;
    let mut unknown = fetch("", 0, 0, 1 << 20);
    unknown.topics[0].topic_id = uuid::Uuid::from_u128(99);
    both.ask("unknown id", 13, unknown.clone()).await;
    unknown.topics[0].topic_id = uuid::Uuid::nil();
    both.ask("no id", 13, unknown).await;

    sessions(both).await;
    offsets(both).await;
    epochs(both).await;
    delete(both).await;
}

/// Partitions and offsets.
type Places<'a> = &'a [(i32, i64)];

/// Ids of sessions are drawn by each broker.
async fn sessions(both: &mut Both) {
    both.section("fetch sessions");
    topics::make(both, "session", 3, &[("retention.ms", "-1")]).await;
    both.ask(
        "first",
        9,
        produce("session", -1, stamped(&["a", "b"], THEN, None)),
    )
    .await;
    let ask = |session: i32, epoch: i32, partitions: &[(i32, i64)]| FetchRequest {
        session_id: session,
        session_epoch: epoch,
        topics: match partitions {
            [] => Vec::new(),
            _ => vec![FetchTopic {
                topic: "session".to_owned(),
                partitions: partitions
                    .iter()
                    .map(|(partition, fetch_offset)| FetchPartition {
                        partition: *partition,
                        fetch_offset: *fetch_offset,
                        partition_max_bytes: 1 << 20,
                        ..FetchPartition::default()
                    })
                    .collect(),
                ..FetchTopic::default()
            }],
        },
        min_bytes: 0,
        ..fetch("session", 0, 0, 1 << 20)
    };
    let first = ask(0, 0, &[(0, 0), (1, 0), (2, 0)]);
    let (mine, other) = both.ask("opened", 12, first).await.answered();
    let (mine, other) = (mine.session_id, other.session_id);
    let steps: &[(&str, i32, Places<'_>)] = &[
        ("the same again", 1, &[]),
        ("an old epoch", 1, &[]),
        ("an epoch to come", 5, &[]),
        ("further on", 2, &[(0, 2)]),
        ("nothing new", 3, &[]),
        ("a partition that is not there", 4, &[(9, 0)]),
        ("which is told again", 5, &[]),
        ("an offset that is not there", 6, &[(0, 77)]),
        ("which is told again, too", 7, &[]),
        ("well again", 8, &[(0, 1)]),
    ];
    for (step, epoch, partitions) in steps {
        both.ask_each(
            step,
            12,
            ask(mine, *epoch, partitions),
            ask(other, *epoch, partitions),
        )
        .await;
    }
    both.ask_each("by id", 13, ask(mine, 9, &[]), ask(other, 9, &[]))
        .await;
    let forgetting = |session: i32, epoch: i32, partitions: &[i32]| FetchRequest {
        forgotten_topics_data: vec![ForgottenTopic {
            topic: "session".to_owned(),
            partitions: partitions.to_vec(),
            ..ForgottenTopic::default()
        }],
        ..ask(session, epoch, &[])
    };
    both.ask_each(
        "without the one that is not there",
        12,
        forgetting(mine, 9, &[9]),
        forgetting(other, 9, &[9]),
    )
    .await;
    both.ask(
        "more",
        9,
        produce("session", -1, stamped(&["c"], THEN, None)),
    )
    .await;
    both.ask_each("with more", 12, ask(mine, 10, &[]), ask(other, 10, &[]))
        .await;
    both.ask_each(
        "without any",
        12,
        forgetting(mine, 11, &[0, 1, 2]),
        forgetting(other, 11, &[0, 1, 2]),
    )
    .await;
    both.ask_each(
        "gone with its last partition",
        12,
        ask(mine, 12, &[]),
        ask(other, 12, &[]),
    )
    .await;
    let again = ask(0, 0, &[(0, 0)]);
    let (mine, other) = both.ask("opened again", 11, again).await.answered();
    let (mine, other) = (mine.session_id, other.session_id);
    both.ask_each(
        "ended",
        11,
        ask(mine, -1, &[(0, 0)]),
        ask(other, -1, &[(0, 0)]),
    )
    .await;
    both.ask_each("after its end", 11, ask(mine, 1, &[]), ask(other, 1, &[]))
        .await;
}

async fn offsets(both: &mut Both) {
    both.section("list offsets");
    let ask = |topic: &str, partition: i32, timestamp: i64, epoch: i32| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.to_owned(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partition,
                current_leader_epoch: epoch,
                timestamp,
            }],
        }],
        timeout_ms: 10_000,
        ..ListOffsetsRequest::default()
    };
    for version in 1..=10 {
        both.ask("latest", version, ask("read", 0, -1, -1)).await;
        both.ask("earliest", version, ask("read", 0, -2, -1)).await;
        both.ask("largest time", version, ask("read", 0, -3, -1))
            .await;
    }
    for (step, timestamp) in [("-4", -4), ("-5", -5), ("-6", -6), ("-7", -7)] {
        for version in [7, 8, 9, 10, 11] {
            both.ask(step, version, ask("read", 0, timestamp, -1)).await;
        }
    }
    for (step, timestamp) in [
        ("before all", 0),
        ("the first", THEN),
        ("between", THEN + 1),
        ("third's", THEN + 500),
        ("second's", THEN + 1000),
        ("after all", THEN + 1001),
    ] {
        both.ask(step, 7, ask("read", 0, timestamp, -1)).await;
    }
    both.ask("largest time of nothing", 7, ask("read", 1, -3, -1))
        .await;
    both.ask("latest of nothing", 7, ask("read", 1, -1, -1))
        .await;
    both.ask("a time in nothing", 7, ask("read", 1, THEN, -1))
        .await;
    both.ask("unknown partition", 7, ask("read", 8, -1, -1))
        .await;
    both.ask("unknown topic", 7, ask("not-there", 0, -1, -1))
        .await;
    both.ask("an epoch to come", 7, ask("read", 0, -1, 99))
        .await;
    let mut twice = ask("read", 0, -1, -1);
    let again = twice.topics[0].partitions[0].clone();
    twice.topics[0].partitions.push(again);
    both.ask("one partition twice", 7, twice).await;
}

async fn epochs(both: &mut Both) {
    both.section("offset for leader epoch");
    let ask = |partition: i32, current: i32, epoch: i32| OffsetForLeaderEpochRequest {
        topics: vec![OffsetForLeaderTopic {
            topic: "read".to_owned(),
            partitions: vec![OffsetForLeaderPartition {
                partition,
                current_leader_epoch: current,
                leader_epoch: epoch,
            }],
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    both.ask("the first", 4, ask(0, -1, 0)).await;
    both.ask("one to come", 4, ask(0, -1, 99)).await;
    both.ask("none", 4, ask(0, -1, -1)).await;
    both.ask("current to come", 4, ask(0, 99, 0)).await;
    both.ask("unknown partition", 4, ask(8, -1, 0)).await;
    both.ask("of nothing", 4, ask(1, -1, 0)).await;
}

async fn delete(both: &mut Both) {
    both.section("delete records");
    let ask = |topic: &str, partition: i32, offset: i64| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.to_owned(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: partition,
                offset,
            }],
        }],
        timeout_ms: 10_000,
    };
    both.ask("up to 1", 2, ask("read", 0, 1)).await;
    both.ask("up to 1 again", 2, ask("read", 0, 1)).await;
    both.ask("up to 0", 2, ask("read", 0, 0)).await;
    both.ask("beyond the end", 2, ask("read", 0, 100)).await;
    both.ask("below -1", 2, ask("read", 0, -2)).await;
    both.ask("unknown partition", 2, ask("read", 8, 1)).await;
    both.ask("unknown topic", 2, ask("not-there", 0, 1)).await;
    both.ask("of a compacted topic", 2, ask("compacted", 0, 1))
        .await;
    both.ask("of an internal topic", 2, ask("__consumer_offsets", 0, 1))
        .await;
    both.ask("all", 2, ask("read", 0, -1)).await;
    both.ask("read before the start", 12, fetch("read", 0, 0, 1 << 20))
        .await;
}
