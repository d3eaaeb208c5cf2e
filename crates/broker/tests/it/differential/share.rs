//! Share groups (KIP-932).
//!
//! Apache Kafka prepares partitions between two heartbeats, and assigns them in the background; so epochs and assignments
//! are waited for on its side and not compared.

use std::time::{Duration, Instant};

use kafka::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
};
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use kafka::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic,
};
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use kafka::messages::produce::ProduceRequest;
use kafka::messages::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as Acknowledgement,
    ShareAcknowledgeRequest,
};
use kafka::messages::share_fetch::{
    AcknowledgementBatch, FetchPartition, FetchTopic, ShareFetchRequest,
};
use kafka::messages::share_group_describe::ShareGroupDescribeRequest;
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use uuid::Uuid;

use super::{Answer, Both, Side, topics};
use crate::stage::{batch, produce};

const TOPIC: &str = "shared-records";
const GROUP: &str = "sharers";
/// How long Apache Kafka may take to assign partitions.
const ASSIGNED: Duration = Duration::from_secs(30);

type Beat = ShareGroupHeartbeatRequest;

pub(super) async fn run(both: &mut Both) {
    both.section("share groups");
    topics::make(both, TOPIC, 1, &[]).await;
    let metadata = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(TOPIC.into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let (ours, theirs) = both.ask("metadata", 12, metadata).await.answered();
    let ids = (ours.topics[0].topic_id, theirs.topics[0].topic_id);
    wrong(both).await;
    offsets(both, "before anything").await;
    move_to(both, "make it by moving", GROUP, TOPIC, 0, 0).await;
    move_to(both, "move no such topic", GROUP, "nowhere", 0, 0).await;
    move_to(both, "move no such partition", GROUP, TOPIC, 9, 0).await;
    move_to(both, "move no group", "", TOPIC, 0, 0).await;
    let epochs = join(both, "m").await;
    membership(both, epochs).await;
    delivery(both, ids).await;
    others(both).await;
    end(both).await;
}

fn joining(member: &str) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        ..Beat::default()
    }
}

fn alive(member: &str, epoch: i32) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        ..Beat::default()
    }
}

async fn wrong(both: &mut Both) {
    let cases = [
        ("stranger", alive("a", 5)),
        ("stranger leaves", alive("a", -1)),
        ("no member id", joining("")),
        ("blank member id", joining(" ")),
        ("strange epoch", alive("a", -2)),
        (
            "no group id",
            Beat {
                group_id: String::new(),
                ..joining("a")
            },
        ),
        (
            "empty rack id",
            Beat {
                rack_id: Some(String::new()),
                ..joining("a")
            },
        ),
        (
            "no topics",
            Beat {
                subscribed_topic_names: None,
                ..joining("a")
            },
        ),
        (
            "nothing in its topics",
            Beat {
                subscribed_topic_names: Some(Vec::new()),
                ..joining("a")
            },
        ),
    ];
    for (step, beat) in cases {
        both.ask(step, 1, beat).await;
    }
    describe(both, "describe nothing").await;
    let topic = "AAAAAAAAAAAAAAAAAAAAAQ";
    for (step, version, key) in [
        ("coordinator, old", 5, format!("{GROUP}:{topic}:0")),
        ("coordinator of nothing", 6, String::new()),
        ("coordinator of a group", 6, GROUP.to_owned()),
        (
            "coordinator of no partition",
            6,
            format!("{GROUP}:{topic}:x"),
        ),
    ] {
        let request = FindCoordinatorRequest {
            key_type: 2,
            coordinator_keys: vec![key],
            ..FindCoordinatorRequest::default()
        };
        both.ask_but(&["host", "port"], step, version, request)
            .await;
    }
}

async fn describe(both: &mut Both, step: &str) {
    let request = ShareGroupDescribeRequest {
        group_ids: vec![GROUP.into(), "nowhere".into(), String::new()],
        include_authorized_operations: true,
    };
    let blind = &["group_epoch", "assignment_epoch", "member_epoch"];
    both.ask_but(blind, step, 1, request).await;
}

async fn offsets(both: &mut Both, step: &str) {
    for version in 0..=1 {
        let request = DescribeShareGroupOffsetsRequest {
            groups: vec![
                DescribeShareGroupOffsetsRequestGroup {
                    group_id: GROUP.into(),
                    topics: None,
                },
                DescribeShareGroupOffsetsRequestGroup {
                    group_id: GROUP.into(),
                    topics: Some(vec![
                        DescribeShareGroupOffsetsRequestTopic {
                            topic_name: TOPIC.into(),
                            partitions: vec![0],
                        },
                        DescribeShareGroupOffsetsRequestTopic {
                            topic_name: "nowhere".into(),
                            partitions: vec![0],
                        },
                    ]),
                },
            ],
        };
        both.ask(&format!("offsets {step}"), version, request).await;
    }
}

async fn move_to(both: &mut Both, step: &str, group: &str, topic: &str, index: i32, start: i64) {
    let request = AlterShareGroupOffsetsRequest {
        group_id: group.into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: topic.into(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition {
                partition_index: index,
                start_offset: start,
            }],
        }],
    };
    both.ask(step, 0, request).await;
}

/// Joins, and waits until the partition is assigned; returns the epochs.
async fn join(both: &mut Both, member: &str) -> (i32, i32) {
    let ours = assigned(&mut both.ours, member).await;
    let theirs = assigned(&mut both.theirs, member).await;
    (ours, theirs)
}

async fn assigned(side: &mut Side, member: &str) -> i32 {
    let begun = Instant::now();
    let mut beat = joining(member);
    loop {
        let Answer::Given(answer) = side.ask(1, beat).await else {
            panic!("no answer to a heartbeat");
        };
        assert_eq!(answer.error_code, 0, "{answer:?}");
        let assignment = answer.assignment.into_iter();
        if assignment.flat_map(|one| one.topic_partitions).count() > 0 {
            return answer.member_epoch;
        }
        assert!(begun.elapsed() < ASSIGNED, "nothing is assigned");
        // All told anew, so that the answer tells all.
        beat = Beat {
            member_epoch: answer.member_epoch,
            ..joining(member)
        };
    }
}

async fn membership(both: &mut Both, (ours, theirs): (i32, i32)) {
    describe(both, "describe one").await;
    for (step, more) in [("ahead", 1), ("far behind", -2)] {
        let (ours, theirs) = (alive("m", ours + more), alive("m", theirs + more));
        both.ask_each(step, 1, ours, theirs).await;
    }
    both.ask("another", 1, alive("b", 2)).await;
    let list = |types: &[&str], states: &[&str]| ListGroupsRequest {
        types_filter: types.iter().map(|kind| (*kind).to_owned()).collect(),
        states_filter: states.iter().map(|state| (*state).to_owned()).collect(),
    };
    both.ask("list", 5, list(&["share"], &[])).await;
    both.ask("list stable", 5, list(&["Share"], &["stable"]))
        .await;
    both.ask("list empty", 5, list(&["share"], &["Empty"]))
        .await;
    move_to(both, "move with a member", GROUP, TOPIC, 0, 0).await;
}

/// What a member says of records, in Kafka's numbers.
type Acks<'a> = &'a [(i64, i64, &'a [i8])];

fn fetching(topic_id: Uuid, epoch: i32, most: i32, acks: Acks<'_>) -> ShareFetchRequest {
    let batches = acks
        .iter()
        .map(|(first, last, kinds)| AcknowledgementBatch {
            first_offset: *first,
            last_offset: *last,
            acknowledge_types: kinds.to_vec(),
        });
    ShareFetchRequest {
        group_id: Some(GROUP.into()),
        member_id: Some("m".into()),
        share_session_epoch: epoch,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        max_records: most,
        batch_size: most,
        topics: vec![FetchTopic {
            topic_id,
            partitions: vec![FetchPartition {
                partition_index: 0,
                acknowledgement_batches: batches.collect(),
            }],
        }],
        ..ShareFetchRequest::default()
    }
}

async fn delivery(both: &mut Both, ids: (Uuid, Uuid)) {
    // Records differ in their leader epochs, what is said of them does not.
    const BLIND: &[&str] = &["records", "acknowledge_error_message"];
    for (at, values) in [&["a", "b", "c"][..], &["d", "e"], &["f"]]
        .iter()
        .enumerate()
    {
        let records = batch(values);
        let request: ProduceRequest = produce(TOPIC, -1, records);
        both.ask_but(
            &["log_append_time_ms"],
            &format!("produce {at}"),
            9,
            request,
        )
        .await;
    }
    both.blind = BLIND;
    let mut epoch = 0;
    let steps: &[(&str, i32, Acks<'_>)] = &[
        ("first", 1, &[]),
        ("second", 1, &[]),
        ("third", 10, &[]),
        ("nothing left", 10, &[]),
        ("accept, release, reject", 10, &[(0, 2, &[1, 2, 3])]),
        ("after that", 10, &[]),
        ("again the same", 0, &[(1, 2, &[1])]),
        ("accept what came again", 0, &[(1, 1, &[1])]),
        ("accept it twice", 0, &[(1, 1, &[1])]),
        ("not delivered yet", 0, &[(50, 60, &[1])]),
        ("half past the end", 0, &[(5, 6, &[1])]),
        ("strange verdict", 0, &[(3, 3, &[9])]),
        ("no verdict", 0, &[(3, 3, &[])]),
        ("too many verdicts", 0, &[(3, 3, &[1, 1])]),
        ("from behind", 0, &[(4, 3, &[1])]),
        ("out of order", 0, &[(4, 4, &[1]), (3, 3, &[1])]),
        ("renewed without a flag", 0, &[(3, 3, &[4])]),
        ("a gap", 0, &[(3, 3, &[0])]),
    ];
    for (step, most, acks) in steps {
        let (ours, theirs) = (
            fetching(ids.0, epoch, *most, acks),
            fetching(ids.1, epoch, *most, acks),
        );
        both.ask_each(step, 2, ours, theirs).await;
        epoch += 1;
    }
    offsets(both, "in the middle").await;
    let lone = |topic_id, epoch, first, last, kind| ShareAcknowledgeRequest {
        group_id: Some(GROUP.into()),
        member_id: Some("m".into()),
        share_session_epoch: epoch,
        is_renew_ack: kind == 4,
        topics: vec![AcknowledgeTopic {
            topic_id,
            partitions: vec![AcknowledgePartition {
                partition_index: 0,
                acknowledgement_batches: vec![Acknowledgement {
                    first_offset: first,
                    last_offset: last,
                    acknowledge_types: vec![kind],
                }],
            }],
        }],
    };
    for (step, kind) in [
        ("renew alone", 4),
        ("accept alone", 1),
        ("accept alone again", 1),
    ] {
        let (ours, theirs) = (
            lone(ids.0, epoch, 4, 5, kind),
            lone(ids.1, epoch, 4, 5, kind),
        );
        both.ask_each(step, 2, ours, theirs).await;
        epoch += 1;
    }
    offsets(both, "at the end").await;
    for (step, epoch) in [("an old epoch", 1), ("a first epoch", 0)] {
        let (ours, theirs) = (lone(ids.0, epoch, 0, 0, 1), lone(ids.1, epoch, 0, 0, 1));
        both.ask_each(step, 2, ours, theirs).await;
    }
    let stranger = |topic_id| ShareFetchRequest {
        member_id: Some("nobody".into()),
        ..fetching(topic_id, 4, 1, &[])
    };
    both.ask_each("no session", 2, stranger(ids.0), stranger(ids.1))
        .await;
    let nobody = |group: Option<&str>, member: Option<&str>| ShareFetchRequest {
        group_id: group.map(str::to_owned),
        member_id: member.map(str::to_owned),
        ..fetching(Uuid::from_u128(77), 0, 1, &[])
    };
    both.ask("no group", 2, nobody(None, Some("m"))).await;
    both.ask("nobody", 2, nobody(Some(GROUP), None)).await;
    let long = "m".repeat(37);
    both.ask("a long name", 2, nobody(Some(GROUP), Some(&long)))
        .await;
    let early = |topic_id| fetching(topic_id, 0, 1, &[(0, 0, &[1])]);
    both.ask_each("acknowledges at first", 2, early(ids.0), early(ids.1))
        .await;
    let last = |topic_id| fetching(topic_id, -1, 0, &[]);
    both.ask_each("the last", 2, last(ids.0), last(ids.1)).await;
    both.ask_each("after the last", 2, last(ids.0), last(ids.1))
        .await;
    both.blind = &[];
}

/// What other protocols' requests find.
async fn others(both: &mut Both) {
    let consumer = ConsumerGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: "c".into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    both.ask("consumer joins", 1, consumer).await;
    let commit = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        retention_time_ms: -1,
        ..OffsetCommitRequest::default()
    };
    both.ask("commit", 9, commit).await;
    let fetch = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            member_epoch: -1,
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    both.ask("committed", 9, fetch).await;
}

async fn end(both: &mut Both) {
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete with a member", 2, delete.clone()).await;
    let forget = |group: &str, topics: &[&str]| DeleteShareGroupOffsetsRequest {
        group_id: group.into(),
        topics: topics
            .iter()
            .map(|name| DeleteShareGroupOffsetsRequestTopic {
                topic_name: (*name).to_owned(),
            })
            .collect(),
    };
    both.ask("forget with a member", 0, forget(GROUP, &[TOPIC]))
        .await;
    both.ask("leave", 1, alive("m", -1)).await;
    both.ask("leave again", 1, alive("m", -1)).await;
    describe(both, "describe empty").await;
    move_to(both, "move", GROUP, TOPIC, 0, 2).await;
    offsets(both, "moved").await;
    both.ask("forget", 0, forget(GROUP, &[TOPIC, "nowhere"]))
        .await;
    both.ask("forget again", 0, forget(GROUP, &[TOPIC])).await;
    both.ask("forget nobody's", 0, forget("nowhere", &[TOPIC]))
        .await;
    both.ask("forget without group", 0, forget("", &[TOPIC]))
        .await;
    both.ask("delete", 2, delete.clone()).await;
    both.ask("delete again", 2, delete).await;
    describe(both, "describe deleted").await;
}
