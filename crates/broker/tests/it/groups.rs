//! Groups over the wire, and what is left of them after a restart.

use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::messages::Message;
use kafka::messages::consumer_protocol::ConsumerProtocolSubscription;
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use kafka::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::stage::{Client, Stage, error};

pub(crate) async fn join(client: &mut Client, member_id: &str) -> JoinGroupResponse {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["t".into()],
        ..ConsumerProtocolSubscription::default()
    };
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: subscription.to_versioned(1).expect("encodes"),
        }],
        ..JoinGroupRequest::default()
    };
    client.ask(9, request).await
}

/// Joins as the only member and takes everything; returns the member id.
pub(crate) async fn settle(client: &mut Client) -> String {
    let first = join(client, "").await;
    assert_eq!(error(first.error_code), ErrorCode::MemberIdRequired);
    let joined = join(client, &first.member_id).await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    assert_eq!(joined.leader, joined.member_id);
    let request = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"everything"),
        }],
        ..SyncGroupRequest::default()
    };
    let synced = client.ask(5, request).await;
    assert_eq!(error(synced.error_code), ErrorCode::None);
    assert_eq!(&synced.assignment[..], b"everything");
    joined.member_id
}

async fn heartbeat(client: &mut Client, member_id: &str, generation_id: i32) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: "g".into(),
        generation_id,
        member_id: member_id.into(),
        ..HeartbeatRequest::default()
    };
    error(client.ask(4, request).await.error_code)
}

pub(crate) async fn commit(
    client: &mut Client,
    member_id: &str,
    generation: i32,
    partition_index: i32,
    committed_offset: i64,
) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: generation,
        member_id: member_id.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index,
                committed_offset,
                committed_metadata: Some("note".into()),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    error(client.ask(9, request).await.topics[0].partitions[0].error_code)
}

/// Returns the committed offset and its metadata, -1 when there is none.
pub(crate) async fn committed(client: &mut Client, partition: i32) -> (i64, String) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                partition_indexes: vec![partition],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let response = client.ask(9, request).await;
    let found = &response.groups[0].topics[0].partitions[0];
    (
        found.committed_offset,
        found.metadata.clone().unwrap_or_default(),
    )
}

async fn described(client: &mut Client, version: i16, group: &str) -> DescribedGroup {
    let request = DescribeGroupsRequest {
        groups: vec![group.into()],
        ..DescribeGroupsRequest::default()
    };
    client.ask(version, request).await.groups.remove(0)
}

#[tokio::test]
async fn a_member_joins_commits_and_leaves() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    let member = settle(&mut client).await;
    assert_eq!(heartbeat(&mut client, &member, 1).await, ErrorCode::None);
    assert_eq!(
        heartbeat(&mut client, &member, 2).await,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        heartbeat(&mut client, "who", 1).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut client, &member, 1, 0, 42).await,
        ErrorCode::None
    );
    assert_eq!(
        commit(&mut client, &member, 3, 0, 43).await,
        ErrorCode::IllegalGeneration
    );
    assert_eq!(
        commit(&mut client, "", -1, 0, 44).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        commit(&mut client, &member, 1, 9, 1).await,
        ErrorCode::UnknownTopicOrPartition
    );
    assert_eq!(committed(&mut client, 0).await, (42, "note".into()));
    assert_eq!(committed(&mut client, 1).await, (-1, String::new()));

    let group = described(&mut client, 6, "g").await;
    assert_eq!(
        (group.group_state.as_str(), group.protocol_data.as_str()),
        ("Stable", "range")
    );
    assert_eq!(group.members[0].client_id, "test");
    assert_eq!(group.members[0].client_host, "/127.0.0.1");
    let view = stage.broker.groups().remove(0);
    assert_eq!(
        (
            view.id.as_str(),
            view.members.len(),
            view.offsets[0].committed
        ),
        ("g", 1, 42)
    );

    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![
            MemberIdentity {
                member_id: member.clone(),
                ..MemberIdentity::default()
            },
            MemberIdentity {
                member_id: "who".into(),
                ..MemberIdentity::default()
            },
        ],
        ..LeaveGroupRequest::default()
    };
    let left = client.ask(5, leave).await;
    let codes: Vec<ErrorCode> = left
        .members
        .iter()
        .map(|one| error(one.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId]);
    assert_eq!(described(&mut client, 6, "g").await.group_state, "Empty");
    assert_eq!(committed(&mut client, 0).await, (42, "note".into()));
}

#[tokio::test]
async fn groups_that_are_not_there() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    assert_eq!(
        heartbeat(&mut client, "m", 1).await,
        ErrorCode::UnknownMemberId
    );
    let group = described(&mut client, 6, "nobody").await;
    assert_eq!(error(group.error_code), ErrorCode::GroupIdNotFound);
    let group = described(&mut client, 5, "nobody").await;
    assert_eq!(
        (error(group.error_code), group.group_state.as_str()),
        (ErrorCode::None, "Dead")
    );
    assert_eq!(
        error(join(&mut client, "m").await.error_code),
        ErrorCode::UnknownMemberId
    );
    client.create("t", 1, &[]).await;
    assert_eq!(
        commit(&mut client, "m", 1, 0, 1).await,
        ErrorCode::GroupIdNotFound
    );
    let groups = client.ask(5, ListGroupsRequest::default()).await.groups;
    assert_eq!(groups, [], "asking makes no group");
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["g".into()],
        key_type: 2,
        ..FindCoordinatorRequest::default()
    };
    let found = client.ask(4, find).await;
    assert_eq!(
        error(found.coordinators[0].error_code),
        ErrorCode::InvalidRequest
    );
}

#[tokio::test]
async fn a_consumer_without_a_group_commits_too() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(commit(&mut client, "", -1, 0, 7).await, ErrorCode::None);
    assert_eq!(committed(&mut client, 0).await.0, 7);
    let groups = client.ask(5, ListGroupsRequest::default()).await.groups;
    assert_eq!(
        (
            groups[0].group_state.as_str(),
            groups[0].group_type.as_str()
        ),
        ("Empty", "classic")
    );
}

#[tokio::test]
async fn groups_are_deleted_when_they_are_empty() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let member = settle(&mut client).await;
    assert_eq!(commit(&mut client, &member, 1, 0, 7).await, ErrorCode::None);
    let delete = || DeleteGroupsRequest {
        groups_names: vec!["g".into()],
    };
    let forget = || OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let refused = client.ask(2, delete()).await;
    assert_eq!(
        error(refused.results[0].error_code),
        ErrorCode::NonEmptyGroup
    );
    let refused = client.ask(0, forget()).await;
    let code = refused.topics[0].partitions[0].error_code;
    assert_eq!(error(code), ErrorCode::GroupSubscribedToTopic);
    let leave = LeaveGroupRequest {
        group_id: "g".into(),
        member_id: member,
        ..LeaveGroupRequest::default()
    };
    assert_eq!(
        error(client.ask(2, leave).await.error_code),
        ErrorCode::None
    );
    let forgotten = client.ask(0, forget()).await;
    assert_eq!(
        error(forgotten.topics[0].partitions[0].error_code),
        ErrorCode::None
    );
    assert_eq!(committed(&mut client, 0).await.0, -1);
    for expected in [ErrorCode::None, ErrorCode::GroupIdNotFound] {
        let deleted = client.ask(2, delete()).await;
        assert_eq!(error(deleted.results[0].error_code), expected);
    }
    let stage = stage.abandon().await;
    assert!(stage.broker.groups().is_empty());
}

#[tokio::test]
async fn the_offsets_of_a_topic_go_with_it() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(commit(&mut client, "", -1, 0, 7).await, ErrorCode::None);
    let request = kafka::messages::delete_topics::DeleteTopicsRequest {
        topic_names: vec!["t".into()],
        ..Default::default()
    };
    client.ask(5, request).await;
    client.create("t", 1, &[]).await;
    // Commits are applied in order, so this one comes after the removal.
    assert_eq!(commit(&mut client, "", -1, 0, 1).await, ErrorCode::None);
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(committed(&mut client, 0).await.0, 1);
}

#[tokio::test]
async fn a_group_goes_on_after_a_restart() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let member = settle(&mut client).await;
    assert_eq!(
        commit(&mut client, &member, 1, 0, 42).await,
        ErrorCode::None
    );
    let mut stage = stage.abandon().await;
    for _ in 0..2 {
        let mut client = stage.client().await;
        assert_eq!(heartbeat(&mut client, &member, 1).await, ErrorCode::None);
        assert_eq!(committed(&mut client, 0).await, (42, "note".into()));
        assert_eq!(
            commit(&mut client, &member, 1, 0, 42).await,
            ErrorCode::None
        );
        assert_eq!(
            described(&mut client, 6, "g").await.members[0].member_assignment,
            "everything"
        );
        stage = stage.restart().await;
    }
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_group_to_gather() {
    let stage = Stage::open_with(|options| {
        options.group_initial_rebalance_delay = std::time::Duration::from_secs(60);
    })
    .await;
    let mut client = stage.client().await;
    let first = join(&mut client, "").await.member_id;
    let (answer, stage) = tokio::join!(join(&mut client, &first), async {
        // The join waits once the group says so; the stop comes then.
        while stage
            .broker
            .groups()
            .iter()
            .all(|group| group.members.is_empty())
        {
            tokio::task::yield_now().await;
        }
        let started = std::time::Instant::now();
        let stage = stage.restart().await;
        assert!(started.elapsed() < std::time::Duration::from_secs(8));
        stage
    });
    assert_eq!(error(answer.error_code), ErrorCode::CoordinatorNotAvailable);
    drop(stage);
}
