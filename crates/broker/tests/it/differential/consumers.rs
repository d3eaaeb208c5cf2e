//! Groups whose partitions the broker assigns (KIP-848).

use kafka::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use kafka::messages::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, TopicPartitions};
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::DescribeGroupsRequest;
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka::messages::sync_group::SyncGroupRequest;
use uuid::Uuid;

use super::{Both, topics};

const TOPIC: &str = "assigned-by-broker";
const GROUP: &str = "modern";

pub(super) async fn run(both: &mut Both) {
    both.section("assigned groups");
    topics::make(both, TOPIC, 4, &[]).await;
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
    alone(both).await;
    two(both, ids).await;
    offsets(both).await;
    other_protocol(both).await;
    fixed(both, ids).await;
    end(both).await;
}

type Beat = ConsumerGroupHeartbeatRequest;

fn joining(member: &str) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![TOPIC.into()]),
        server_assignor: Some("range".into()),
        topic_partitions: Some(Vec::new()),
        ..Beat::default()
    }
}

fn alive(member: &str, epoch: i32) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..Beat::default()
    }
}

/// Says what it owns, which has another id on each side.
async fn owning(both: &mut Both, step: &str, beat: Beat, ids: (Uuid, Uuid), partitions: &[i32]) {
    let with = |topic_id: Uuid| Beat {
        topic_partitions: Some(vec![TopicPartitions {
            topic_id,
            partitions: partitions.to_vec(),
        }]),
        ..beat.clone()
    };
    both.ask_each(step, 1, with(ids.0), with(ids.1)).await;
}

async fn describe(both: &mut Both, step: &str) {
    for version in 0..=1 {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![GROUP.into(), "solo".into(), "nowhere".into(), String::new()],
            include_authorized_operations: version == 1,
        };
        both.ask(step, version, request).await;
    }
}

/// What is refused whatever the group is.
async fn wrong(both: &mut Both) {
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        ("stranger", alive("a", 5)),
        ("stranger leaves", alive("a", -1)),
        ("no member id", joining("")),
        ("blank member id", joining(" ")),
        (
            "no group id",
            Beat {
                group_id: String::new(),
                ..joining("a")
            },
        ),
        (
            "empty instance id",
            Beat {
                instance_id: text(""),
                ..joining("a")
            },
        ),
        (
            "empty rack id",
            Beat {
                rack_id: text(""),
                ..joining("a")
            },
        ),
        (
            "no time-out",
            Beat {
                rebalance_timeout_ms: -1,
                ..joining("a")
            },
        ),
        (
            "owns nothing known",
            Beat {
                topic_partitions: None,
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
        ("away without instance id", alive("a", -2)),
        ("strange epoch", alive("a", -3)),
        (
            "strange assignor",
            Beat {
                server_assignor: text("mine"),
                ..joining("a")
            },
        ),
        (
            "broken pattern",
            Beat {
                subscribed_topic_regex: text("a["),
                ..joining("a")
            },
        ),
    ];
    for (step, beat) in cases {
        both.ask(step, 1, beat).await;
    }
    both.ask("no member id, old", 0, alive("", 3)).await;
    describe(both, "describe nothing").await;
}

async fn alone(both: &mut Both) {
    both.ask("join", 1, joining("a")).await;
    both.ask("alive", 1, alive("a", 2)).await;
    both.ask("alive, old", 0, alive("a", 2)).await;
    let full = Beat {
        member_epoch: 2,
        ..joining("a")
    };
    both.ask("tell all again", 1, full).await;
    both.ask("join again", 1, joining("a")).await;
    both.ask("ahead", 1, alive("a", 3)).await;
    both.ask("another", 1, alive("b", 2)).await;
    describe(both, "describe one").await;
    let listing = |types: &[&str], states: &[&str]| ListGroupsRequest {
        types_filter: types.iter().map(|kind| (*kind).to_owned()).collect(),
        states_filter: states.iter().map(|state| (*state).to_owned()).collect(),
    };
    both.ask("list", 5, listing(&["consumer"], &[])).await;
    both.ask("list stable", 5, listing(&["Consumer"], &["stable"]))
        .await;
    both.ask("list others", 5, listing(&["consumer"], &["Empty"]))
        .await;
}

async fn two(both: &mut Both, ids: (Uuid, Uuid)) {
    both.ask("second joins", 1, joining("b")).await;
    describe(both, "describe two").await;
    both.ask("first gives up", 1, alive("a", 2)).await;
    both.ask("second waits", 1, alive("b", 3)).await;
    describe(both, "describe revoking").await;
    owning(
        both,
        "first still has all",
        alive("a", 2),
        ids,
        &[0, 1, 2, 3],
    )
    .await;
    owning(both, "first has given up", alive("a", 2), ids, &[0, 1]).await;
    describe(both, "describe released").await;
    both.ask("second takes", 1, alive("b", 3)).await;
    owning(both, "answer was lost", alive("a", 2), ids, &[0, 1]).await;
    owning(
        both,
        "answer was lost, too much",
        alive("a", 2),
        ids,
        &[0, 1, 2],
    )
    .await;
    both.ask("answer was lost, nothing said", 1, alive("a", 2))
        .await;
    owning(both, "second has it", alive("b", 3), ids, &[2, 3]).await;
    describe(both, "describe shared").await;
    let nothing = Beat {
        subscribed_topic_names: Some(Vec::new()),
        ..alive("b", 3)
    };
    both.ask("second reads nothing", 1, nothing).await;
    let unknown = Beat {
        subscribed_topic_names: Some(vec![TOPIC.into(), "not-there".into()]),
        topic_partitions: Some(Vec::new()),
        ..alive("b", 3)
    };
    both.ask("second reads again", 1, unknown).await;
    both.ask("second leaves", 1, alive("b", -1)).await;
    both.ask("second leaves again", 1, alive("b", -1)).await;
    describe(both, "describe left").await;
    both.ask("first takes all", 1, alive("a", 3)).await;
    describe(both, "describe all again").await;
}

async fn offsets(both: &mut Both) {
    let epoch = 6;
    let commit = |member: &str, epoch: i32| OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: epoch,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![
                OffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: 3,
                    ..OffsetCommitRequestPartition::default()
                },
                OffsetCommitRequestPartition {
                    partition_index: 3,
                    committed_offset: 4,
                    ..OffsetCommitRequestPartition::default()
                },
            ],
            ..OffsetCommitRequestTopic::default()
        }],
        retention_time_ms: -1,
        ..OffsetCommitRequest::default()
    };
    for (step, member, epoch) in [
        ("commit ahead", "a", 99),
        ("commit of a stranger", "x", epoch),
        ("commit of nobody", "", -1),
        ("commit", "a", epoch),
        ("commit of before", "a", 3),
        ("commit of long before", "a", 1),
    ] {
        both.ask(step, 9, commit(member, epoch)).await;
    }
    both.ask("commit, old", 8, commit("a", epoch)).await;
    let unknown = OffsetCommitRequest {
        group_id: "nowhere".into(),
        ..commit("a", 1)
    };
    both.ask("commit to no group", 9, unknown.clone()).await;
    both.ask("commit to no group, old", 8, unknown).await;
    let fetch = |member: Option<&str>, member_epoch: i32| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            member_id: member.map(str::to_owned),
            member_epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.into(),
                partition_indexes: vec![0, 1],
                ..OffsetFetchRequestTopics::default()
            }]),
        }],
        ..OffsetFetchRequest::default()
    };
    for (step, member, epoch) in [
        ("fetch of nobody", None, -1),
        ("fetch of a stranger", Some("x"), 1),
        ("fetch ahead", Some("a"), 99),
        ("fetch behind", Some("a"), 1),
        ("fetch", Some("a"), epoch),
    ] {
        both.ask(step, 9, fetch(member, epoch)).await;
    }
    let forget = OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    both.ask("forget what is read", 0, forget).await;
}

/// What the classic protocol's requests find.
async fn other_protocol(both: &mut Both) {
    for version in [5, 6] {
        let describe = DescribeGroupsRequest {
            groups: vec![GROUP.into()],
            ..DescribeGroupsRequest::default()
        };
        both.ask("classic describe", version, describe).await;
    }
    let beat = HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: 1,
        member_id: "x".into(),
        ..HeartbeatRequest::default()
    };
    both.ask("classic heartbeat", 4, beat).await;
    let sync = SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: 1,
        member_id: "x".into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..SyncGroupRequest::default()
    };
    both.ask("classic sync", 5, sync).await;
    let leave = LeaveGroupRequest {
        group_id: GROUP.into(),
        members: vec![MemberIdentity {
            member_id: "x".into(),
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    };
    both.ask("classic leave", 5, leave).await;
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete with members", 2, delete).await;
}

async fn fixed(both: &mut Both, ids: (Uuid, Uuid)) {
    let with = |beat: Beat| Beat {
        instance_id: Some("i".into()),
        ..beat
    };
    both.ask("static joins", 1, with(joining("s"))).await;
    both.ask("static twice", 1, with(joining("s2"))).await;
    both.ask("static fenced", 1, with(alive("s2", 7))).await;
    both.ask(
        "static unknown",
        1,
        Beat {
            instance_id: Some("j".into()),
            ..alive("s", 7)
        },
    )
    .await;
    both.ask("first gives up for it", 1, alive("a", 6)).await;
    let list = [0, 1, 2, 3];
    owning(
        both,
        "first has given up for it",
        alive("a", 6),
        ids,
        &list[2..],
    )
    .await;
    both.ask("static takes", 1, with(alive("s", 7))).await;
    both.ask("static is away", 1, with(alive("s", -2))).await;
    describe(both, "describe away").await;
    both.ask("static is back", 1, with(joining("s2"))).await;
    both.ask("static was replaced", 1, with(alive("s", 7)))
        .await;
    both.ask("static leaves as it was", 1, with(alive("s", -2)))
        .await;
    describe(both, "describe back").await;
    both.ask("static leaves", 1, with(alive("s2", -1))).await;
    describe(both, "describe without it").await;
}

async fn end(both: &mut Both) {
    both.ask("last leaves", 1, alive("a", -1)).await;
    describe(both, "describe empty").await;
    both.ask("nobody is in it", 1, alive("a", 7)).await;
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete", 2, delete).await;
    describe(both, "describe deleted").await;
}
