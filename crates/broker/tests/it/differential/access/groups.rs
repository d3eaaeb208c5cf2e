//! Groups and their offsets.

use kafka::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
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
use kafka::messages::sync_group::SyncGroupRequest;

use super::super::Both;
use super::Ids;

const GROUPS: [&str; 4] = ["g-none", "g-seen", "g-read", "g-all"];
const ASKED: [&str; 4] = ["none", "read", "seen", "all"];

pub(super) async fn run(both: &mut Both, user: &str, ids: &Ids) {
    find(both, user).await;
    both.section("groups");
    for group in GROUPS {
        members(both, user, group).await;
        offsets(both, user, group, ids).await;
    }
    looks(both, user).await;
}

async fn find(both: &mut Both, user: &str) {
    both.section("find coordinators");
    for version in 4..=6 {
        for (key_type, names) in [(0, GROUPS), (1, ["t-none", "t-seen", "t-write", "t-all"])] {
            let request = FindCoordinatorRequest {
                key_type,
                coordinator_keys: names.map(str::to_owned).into(),
                ..FindCoordinatorRequest::default()
            };
            both.by(user, &format!("of kind {key_type}"), version, request)
                .await;
        }
    }
    for group in GROUPS {
        let request = FindCoordinatorRequest {
            key: group.to_owned(),
            ..FindCoordinatorRequest::default()
        };
        both.by(user, &format!("of {group}"), 3, request).await;
    }
}

async fn members(both: &mut Both, user: &str, group: &str) {
    // A member that is not there: who may is told so.
    for version in [0, 5, 9] {
        let join = JoinGroupRequest {
            group_id: group.to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member_id: "stranger".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".to_owned(),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        both.by(user, &format!("join {group}"), version, join).await;
    }
    for version in [0, 5] {
        let sync = SyncGroupRequest {
            group_id: group.to_owned(),
            member_id: "stranger".to_owned(),
            ..SyncGroupRequest::default()
        };
        let sync = match version {
            5 => SyncGroupRequest {
                protocol_type: Some("consumer".to_owned()),
                protocol_name: Some("range".to_owned()),
                ..sync
            },
            _ => sync,
        };
        both.by(user, &format!("sync {group}"), version, sync).await;
    }
    let beat = HeartbeatRequest {
        group_id: group.to_owned(),
        member_id: "stranger".to_owned(),
        ..HeartbeatRequest::default()
    };
    both.by(user, &format!("heartbeat {group}"), 4, beat).await;
    let leave = LeaveGroupRequest {
        group_id: group.to_owned(),
        members: vec![MemberIdentity {
            member_id: "stranger".to_owned(),
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    };
    both.by(user, &format!("leave {group}"), 4, leave).await;
    let leave = LeaveGroupRequest {
        group_id: group.to_owned(),
        member_id: "stranger".to_owned(),
        ..LeaveGroupRequest::default()
    };
    both.by(user, &format!("leave {group}"), 1, leave).await;
    let beat = ConsumerGroupHeartbeatRequest {
        group_id: group.to_owned(),
        member_id: "stranger".to_owned(),
        member_epoch: 5,
        ..ConsumerGroupHeartbeatRequest::default()
    };
    for version in 0..=1 {
        let step = format!("beat of a consumer of {group}");
        both.by(user, &step, version, beat.clone()).await;
    }
    // A topic that may not be seen.
    for topics in [&["none"][..], &["seen", "none"]] {
        let beat = ConsumerGroupHeartbeatRequest {
            subscribed_topic_names: Some(topics.iter().map(|it| (*it).to_owned()).collect()),
            ..beat.clone()
        };
        let step = format!("beat of a consumer of {group} for {topics:?}");
        both.by(user, &step, 1, beat).await;
    }
}

async fn offsets(both: &mut Both, user: &str, group: &str, ids: &Ids) {
    let names: Vec<&str> = ASKED.into_iter().chain(["absent"]).collect();
    for version in [2, 7, 9, 10] {
        let commit = |side: usize| {
            let id = |name: &str| {
                let found = ids.iter().find(|(known, ..)| *known == name);
                found.map_or(uuid::Uuid::from_u128(77), |(_, ours, theirs)| {
                    [*ours, *theirs][side]
                })
            };
            OffsetCommitRequest {
                group_id: group.to_owned(),
                topics: names
                    .iter()
                    .map(|name| OffsetCommitRequestTopic {
                        name: if version < 10 {
                            (*name).to_owned()
                        } else {
                            String::new()
                        },
                        topic_id: if version < 10 {
                            uuid::Uuid::nil()
                        } else {
                            id(name)
                        },
                        partitions: vec![OffsetCommitRequestPartition::default()],
                    })
                    .collect(),
                ..OffsetCommitRequest::default()
            }
        };
        let step = format!("{user}, commit {group}");
        both.ask_each(&step, version, commit(0), commit(1)).await;
    }
    for version in [1, 7] {
        let fetch = OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: Some(
                names
                    .iter()
                    .map(|name| OffsetFetchRequestTopic {
                        name: (*name).to_owned(),
                        partition_indexes: vec![0],
                    })
                    .collect(),
            ),
            ..OffsetFetchRequest::default()
        };
        both.by(user, &format!("fetch {group}"), version, fetch)
            .await;
    }
    let all = OffsetFetchRequest {
        group_id: group.to_owned(),
        topics: None,
        ..OffsetFetchRequest::default()
    };
    both.by(user, &format!("fetch all of {group}"), 7, all)
        .await;
    for version in 8..=9 {
        let of = |topics| OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let named = names.iter().map(|name| OffsetFetchRequestTopics {
            name: (*name).to_owned(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        });
        let named = OffsetFetchRequest {
            groups: vec![of(Some(named.collect()))],
            ..OffsetFetchRequest::default()
        };
        both.by(user, &format!("fetch {group}"), version, named)
            .await;
        let every = OffsetFetchRequest {
            groups: vec![of(None)],
            ..OffsetFetchRequest::default()
        };
        both.by(user, &format!("fetch all of {group}"), version, every)
            .await;
    }
    let delete = OffsetDeleteRequest {
        group_id: group.to_owned(),
        topics: names
            .iter()
            .map(|name| OffsetDeleteRequestTopic {
                name: (*name).to_owned(),
                partitions: vec![OffsetDeleteRequestPartition::default()],
            })
            .collect(),
    };
    // What is left of a group differs when its last offset is gone, so the one that may be emptied keeps one.
    if group != "g-all" && group != "g-read" {
        both.by(user, &format!("delete offsets of {group}"), 0, delete)
            .await;
    }
}

async fn looks(both: &mut Both, user: &str) {
    let names: Vec<String> = GROUPS.map(str::to_owned).into();
    for version in [0, 3, 6] {
        let describe = DescribeGroupsRequest {
            groups: names.clone(),
            include_authorized_operations: version >= 3,
        };
        both.by(user, "describe", version, describe).await;
    }
    for version in 0..=1 {
        let describe = ConsumerGroupDescribeRequest {
            group_ids: names.clone(),
            include_authorized_operations: true,
        };
        both.by(user, "describe consumers", version, describe).await;
    }
    for version in [0, 5] {
        both.by(user, "list", version, ListGroupsRequest::default())
            .await;
    }
    let delete = DeleteGroupsRequest {
        groups_names: names,
    };
    both.by(user, "delete", 2, delete).await;
}
