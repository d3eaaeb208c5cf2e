//! Consumer groups of the classic protocol, and offsets.

use bytes::Bytes;
use kafka::messages::Message;
use kafka::messages::consumer_protocol::ConsumerProtocolSubscription;
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::DescribeGroupsRequest;
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use super::{Answer, Both, Side, topics};

pub(super) async fn run(both: &mut Both) {
    find(both).await;
    strangers(both).await;
    alone(both).await;
    fixed(both).await;
    offsets(both).await;
    odd(both).await;
}

/// The first question makes the topic of offsets; until all its partitions are loaded, a broker asks to come again.
pub(super) async fn settle(side: &mut Side) {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec!["solo".to_owned()],
        ..FindCoordinatorRequest::default()
    };
    loop {
        match side.ask(4, request.clone()).await {
            Answer::Given(answer) if answer.coordinators[0].error_code == 0 => break,
            _ => tokio::task::yield_now().await,
        }
    }
    for group in [
        "og", "solo", "none", "fixed", "simple", "nobody", "modern", "nowhere", "changing",
    ] {
        while matches!(
            side.ask(4, beat(group, "who", 1)).await,
            Answer::Given(answer) if COME_AGAIN.contains(&answer.error_code)
        ) {
            tokio::task::yield_now().await;
        }
    }
}

/// COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR.
const COME_AGAIN: [i16; 3] = [14, 15, 16];

async fn find(both: &mut Both) {
    both.section("find coordinator");
    let ask = |key: &str, key_type: i8| FindCoordinatorRequest {
        key: key.to_owned(),
        coordinator_keys: vec![key.to_owned()],
        key_type,
    };
    for version in 0..=5 {
        both.ask("group", version, ask("g", 0)).await;
    }
    both.ask("empty group", 4, ask("", 0)).await;
    both.ask("of a strange kind", 4, ask("g", 9)).await;
    both.ask("of a strange kind, old", 3, ask("g", 9)).await;
    let nothing = FindCoordinatorRequest::default();
    both.ask("nothing", 4, nothing).await;
}

fn joining(group: &str, member: &str, instance: Option<&str>) -> JoinGroupRequest {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["taken".into()],
        ..ConsumerProtocolSubscription::default()
    };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: member.into(),
        group_instance_id: instance.map(str::to_owned),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: subscription.to_versioned(1).expect("encodes"),
        }],
        ..JoinGroupRequest::default()
    }
}

fn syncing(group: &str, member: &str, generation: i32, lead: bool) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: match lead {
            true => vec![SyncGroupRequestAssignment {
                member_id: member.into(),
                assignment: Bytes::from_static(b"all"),
            }],
            false => Vec::new(),
        },
        ..SyncGroupRequest::default()
    }
}

fn beat(group: &str, member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.into(),
        ..HeartbeatRequest::default()
    }
}

fn leaving(group: &str, member: &str, instance: Option<&str>) -> LeaveGroupRequest {
    LeaveGroupRequest {
        group_id: group.into(),
        member_id: member.into(),
        members: vec![MemberIdentity {
            member_id: member.into(),
            group_instance_id: instance.map(str::to_owned),
            ..MemberIdentity::default()
        }],
    }
}

fn describing(groups: &[&str]) -> DescribeGroupsRequest {
    DescribeGroupsRequest {
        groups: groups.iter().map(|name| (*name).to_owned()).collect(),
        ..DescribeGroupsRequest::default()
    }
}

async fn strangers(both: &mut Both) {
    both.section("groups that are not there");
    for version in [0, 5, 9] {
        both.ask("join without name", version, joining("", "", None))
            .await;
        both.ask("join as a stranger", version, joining("none", "who", None))
            .await;
    }
    let mut short = joining("none", "", None);
    short.session_timeout_ms = 1;
    both.ask("session too short", 5, short.clone()).await;
    short.session_timeout_ms = i32::MAX;
    both.ask("session too long", 5, short).await;
    for version in [0, 3, 5] {
        both.ask("sync", version, syncing("none", "who", 1, false))
            .await;
        both.ask("sync without name", version, syncing("", "who", 1, false))
            .await;
    }
    for version in [0, 4] {
        both.ask("heartbeat", version, beat("none", "who", 1)).await;
        both.ask("heartbeat without name", version, beat("", "who", 1))
            .await;
    }
    for version in [0, 1, 3, 5] {
        both.ask("leave", version, leaving("none", "who", None))
            .await;
        both.ask("leave without name", version, leaving("", "who", None))
            .await;
    }
    for version in 0..=6 {
        both.ask("describe", version, describing(&["nobody"])).await;
    }
    both.ask("describe without name", 5, describing(&[""]))
        .await;
    let delete = |names: &[&str]| DeleteGroupsRequest {
        groups_names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    for version in 0..=2 {
        both.ask("delete", version, delete(&["nobody", ""])).await;
    }
    let list = |states: &[&str], types: &[&str]| ListGroupsRequest {
        states_filter: states.iter().map(|name| (*name).to_owned()).collect(),
        types_filter: types.iter().map(|name| (*name).to_owned()).collect(),
    };
    for version in 0..=5 {
        both.ask("list", version, list(&[], &[])).await;
    }
    both.ask("list a strange state", 5, list(&["Bored"], &[]))
        .await;
    both.ask("list a strange type", 5, list(&[], &["bored"]))
        .await;
}

/// Apache Kafka makes a group even when it refuses its first member.
async fn odd(both: &mut Both) {
    both.section("odd members");
    let mut bare = joining("none", "", None);
    bare.protocols.clear();
    both.ask("no protocols", 5, bare).await;
    let mut typeless = joining("none", "", None);
    typeless.protocol_type.clear();
    both.ask("no protocol type", 5, typeless).await;
}

async fn alone(both: &mut Both) {
    both.section("a group of one");
    topics::make(both, "grouped", 2, &[]).await;
    let (ours, theirs) = both
        .ask("first join", 9, joining("solo", "", None))
        .await
        .answered();
    let (mine, other) = (ours.member_id, theirs.member_id);
    let pair = both.ask_each(
        "second join",
        9,
        joining("solo", &mine, None),
        joining("solo", &other, None),
    );
    let (ours, theirs) = pair.await.answered();
    let (our_generation, their_generation) = (ours.generation_id, theirs.generation_id);
    assert_eq!(our_generation, their_generation);
    let generation = our_generation;
    both.ask("describe while it joins", 6, describing(&["solo"]))
        .await;
    both.ask_each(
        "heartbeat before sync",
        4,
        beat("solo", &mine, generation),
        beat("solo", &other, generation),
    )
    .await;
    both.ask_each(
        "sync of an old generation",
        5,
        syncing("solo", &mine, generation - 1, true),
        syncing("solo", &other, generation - 1, true),
    )
    .await;
    let mut wrong = (
        syncing("solo", &mine, generation, true),
        syncing("solo", &other, generation, true),
    );
    wrong.0.protocol_name = Some("other".into());
    wrong.1.protocol_name = Some("other".into());
    both.ask_each("sync of another protocol", 5, wrong.0, wrong.1)
        .await;
    both.ask(
        "sync of a stranger",
        5,
        syncing("solo", "who", generation, false),
    )
    .await;
    both.ask_each(
        "sync",
        5,
        syncing("solo", &mine, generation, true),
        syncing("solo", &other, generation, true),
    )
    .await;
    both.ask_each(
        "sync again",
        5,
        syncing("solo", &mine, generation, true),
        syncing("solo", &other, generation, true),
    )
    .await;
    both.ask_each(
        "heartbeat",
        4,
        beat("solo", &mine, generation),
        beat("solo", &other, generation),
    )
    .await;
    both.ask_each(
        "heartbeat of another generation",
        4,
        beat("solo", &mine, generation + 1),
        beat("solo", &other, generation + 1),
    )
    .await;
    both.ask(
        "heartbeat of a stranger",
        4,
        beat("solo", "who", generation),
    )
    .await;
    both.ask("describe", 6, describing(&["solo", "nobody"]))
        .await;
    let filter = |states: &[&str], types: &[&str]| ListGroupsRequest {
        states_filter: states.iter().map(|name| (*name).to_owned()).collect(),
        types_filter: types.iter().map(|name| (*name).to_owned()).collect(),
    };
    both.ask("list", 5, filter(&[], &[])).await;
    both.ask("list stable", 5, filter(&["stable"], &["Classic"]))
        .await;
    both.ask("list empty", 5, filter(&["Empty"], &[])).await;
    both.ask("list consumer", 5, filter(&[], &["consumer"]))
        .await;
    let delete = DeleteGroupsRequest {
        groups_names: vec!["solo".into()],
    };
    both.ask("delete while it lives", 2, delete.clone()).await;
    let mut odd = (joining("solo", "", None), joining("solo", "", None));
    for request in [&mut odd.0, &mut odd.1] {
        request.protocol_type = "connect".into();
    }
    both.ask("join of another type", 9, odd.0).await;
    let mut odd = joining("solo", "", None);
    odd.protocols[0].name = "roundrobin".into();
    both.ask("join without common protocol", 9, odd).await;

    // Commits of the member, and of others.
    let commit = |member: &str, generation: i32, topic: &str, partition: i32, offset: i64| {
        OffsetCommitRequest {
            group_id: "solo".into(),
            generation_id_or_member_epoch: generation,
            member_id: member.into(),
            topics: vec![OffsetCommitRequestTopic {
                name: topic.into(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: offset,
                    committed_metadata: Some("note".into()),
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        }
    };
    both.ask_each(
        "commit",
        9,
        commit(&mine, generation, "grouped", 0, 5),
        commit(&other, generation, "grouped", 0, 5),
    )
    .await;
    both.ask_each(
        "commit for another generation",
        9,
        commit(&mine, generation + 1, "grouped", 0, 5),
        commit(&other, generation + 1, "grouped", 0, 5),
    )
    .await;
    both.ask(
        "commit of a stranger",
        9,
        commit("who", generation, "grouped", 0, 5),
    )
    .await;
    both.ask("commit of nobody", 9, commit("", -1, "grouped", 0, 5))
        .await;
    both.ask_each(
        "commit to an unknown topic",
        9,
        commit(&mine, generation, "not-there", 0, 5),
        commit(&other, generation, "not-there", 0, 5),
    )
    .await;
    both.ask_each(
        "commit to an unknown partition",
        9,
        commit(&mine, generation, "grouped", 7, 5),
        commit(&other, generation, "grouped", 7, 5),
    )
    .await;
    both.ask_each(
        "commit of -1",
        9,
        commit(&mine, generation, "grouped", 1, -1),
        commit(&other, generation, "grouped", 1, -1),
    )
    .await;
    let big = "m".repeat(5000);
    let (mut ours, mut theirs) = (
        commit(&mine, generation, "grouped", 1, 3),
        commit(&other, generation, "grouped", 1, 3),
    );
    for request in [&mut ours, &mut theirs] {
        request.topics[0].partitions[0].committed_metadata = Some(big.clone());
    }
    both.ask_each("commit with large metadata", 9, ours, theirs)
        .await;
    let (mut ours, mut theirs) = (
        commit(&mine, generation, "grouped", 1, 3),
        commit(&other, generation, "grouped", 1, 3),
    );
    for request in [&mut ours, &mut theirs] {
        request.topics[0].partitions[0].committed_metadata = None;
    }
    both.ask_each("commit without metadata", 9, ours, theirs)
        .await;
    let offset_delete = OffsetDeleteRequest {
        group_id: "solo".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "grouped".into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    both.ask("delete offsets that are in use", 0, offset_delete)
        .await;
    both.ask("leave as a stranger", 5, leaving("solo", "who", None))
        .await;
    both.ask_each(
        "leave",
        5,
        leaving("solo", &mine, None),
        leaving("solo", &other, None),
    )
    .await;
    both.ask_each(
        "heartbeat after that",
        4,
        beat("solo", &mine, generation),
        beat("solo", &other, generation),
    )
    .await;
    both.ask("describe when empty", 6, describing(&["solo"]))
        .await;
    both.ask(
        "commit of nobody to an empty group",
        9,
        commit("", -1, "grouped", 0, 6),
    )
    .await;
    both.ask("delete", 2, delete.clone()).await;
    both.ask("delete again", 2, delete).await;
    both.ask("describe when gone", 6, describing(&["solo"]))
        .await;
}

async fn fixed(both: &mut Both) {
    both.section("a member with an instance id");
    let (ours, theirs) = both
        .ask("join", 9, joining("fixed", "", Some("i")))
        .await
        .answered();
    let (mine, other, generation) = (ours.member_id, theirs.member_id, ours.generation_id);
    both.ask_each(
        "sync",
        5,
        syncing("fixed", &mine, generation, true),
        syncing("fixed", &other, generation, true),
    )
    .await;
    let (ours, theirs) = both
        .ask("join anew", 9, joining("fixed", "", Some("i")))
        .await
        .answered();
    let mut old = (
        beat("fixed", &mine, generation),
        beat("fixed", &other, generation),
    );
    both.ask_each("heartbeat of the old one", 4, old.0.clone(), old.1.clone())
        .await;
    for request in [&mut old.0, &mut old.1] {
        request.group_instance_id = Some("i".into());
    }
    both.ask_each("heartbeat of the old one by name", 4, old.0, old.1)
        .await;
    both.ask(
        "join as somebody else",
        9,
        joining("fixed", "who", Some("i")),
    )
    .await;
    both.ask("describe", 6, describing(&["fixed"])).await;
    let mut new = (
        beat("fixed", &ours.member_id, ours.generation_id),
        beat("fixed", &theirs.member_id, theirs.generation_id),
    );
    for request in [&mut new.0, &mut new.1] {
        request.group_instance_id = Some("i".into());
    }
    both.ask_each("heartbeat of the new one", 4, new.0, new.1)
        .await;
    both.ask("leave by another name", 5, leaving("fixed", "", Some("j")))
        .await;
    both.ask(
        "leave with a wrong id",
        5,
        leaving("fixed", "who", Some("i")),
    )
    .await;
    both.ask("leave by name", 5, leaving("fixed", "", Some("i")))
        .await;
}

async fn offsets(both: &mut Both) {
    both.section("offsets");
    let commit = |group: &str, offset: i64| OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "grouped".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 1,
                committed_offset: offset,
                committed_metadata: Some("m".into()),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        retention_time_ms: -1,
        ..OffsetCommitRequest::default()
    };
    for version in 2..=9 {
        both.ask(
            "commit of nobody",
            version,
            commit("simple", i64::from(version)),
        )
        .await;
    }
    both.ask("commit to no group", 9, commit("", 1)).await;
    let fetch = |group: &str, topics: Option<&[(&str, &[i32])]>| {
        let one = topics.map(|topics| {
            topics
                .iter()
                .map(|(name, indexes)| OffsetFetchRequestTopic {
                    name: (*name).to_owned(),
                    partition_indexes: indexes.to_vec(),
                })
                .collect()
        });
        let many = topics.map(|topics| {
            topics
                .iter()
                .map(|(name, indexes)| OffsetFetchRequestTopics {
                    name: (*name).to_owned(),
                    partition_indexes: indexes.to_vec(),
                    ..OffsetFetchRequestTopics::default()
                })
                .collect()
        });
        OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: one,
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.to_owned(),
                topics: many,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: false,
        }
    };
    for version in 1..=9 {
        both.ask(
            "fetch",
            version,
            fetch(
                "simple",
                Some(&[("grouped", &[0, 1, 7]), ("not-there", &[0])]),
            ),
        )
        .await;
        both.ask(
            "fetch of an unknown group",
            version,
            fetch("none", Some(&[("grouped", &[0])])),
        )
        .await;
        both.ask("fetch nothing", version, fetch("simple", Some(&[])))
            .await;
        both.ask(
            "fetch for no group",
            version,
            fetch("", Some(&[("grouped", &[0])])),
        )
        .await;
        if version >= 2 {
            both.ask("fetch all", version, fetch("simple", None)).await;
            both.ask(
                "fetch all of an unknown group",
                version,
                fetch("none", None),
            )
            .await;
        }
    }
    let mut member = fetch("simple", None);
    member.groups[0].member_id = Some("who".into());
    member.groups[0].member_epoch = 3;
    both.ask("fetch as a member of a classic group", 9, member)
        .await;
    let delete = |group: &str, topic: &str, partition: i32| OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition {
                partition_index: partition,
            }],
        }],
    };
    both.ask("delete", 0, delete("simple", "grouped", 1)).await;
    both.ask("delete again", 0, delete("simple", "grouped", 1))
        .await;
    both.ask(
        "delete of an unknown topic",
        0,
        delete("simple", "not-there", 1),
    )
    .await;
    both.ask(
        "delete of an unknown partition",
        0,
        delete("simple", "grouped", 9),
    )
    .await;
    both.ask(
        "delete in an unknown group",
        0,
        delete("none", "grouped", 1),
    )
    .await;
    both.ask("describe", 6, describing(&["simple"])).await;
}
