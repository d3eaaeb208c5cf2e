//! Groups whose partitions the broker assigns (KIP-848), over the wire, and what is left of them after a restart.

use kafka::error::ErrorCode;
use kafka::messages::consumer_group_describe::{ConsumerGroupDescribeRequest, DescribedGroup};
use kafka::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::DescribeGroupsRequest;
use kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use uuid::Uuid;

use crate::groups::{commit, settle};
use crate::stage::{Client, Stage, error};

fn joining(member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn alive(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: epoch,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// Returns the epoch and what is owned, when it is told.
fn told(answer: &ConsumerGroupHeartbeatResponse) -> (i32, Option<Vec<i32>>) {
    assert_eq!(error(answer.error_code), ErrorCode::None, "{answer:?}");
    let owned = answer.assignment.as_ref().map(|assignment| {
        let all = assignment.topic_partitions.iter();
        all.flat_map(|topic| topic.partitions.clone()).collect()
    });
    (answer.member_epoch, owned)
}

async fn topic_id(client: &mut Client) -> Uuid {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    client.ask(12, request).await.topics[0].topic_id
}

async fn owning(
    client: &mut Client,
    member: &str,
    epoch: i32,
    partitions: &[i32],
) -> ConsumerGroupHeartbeatResponse {
    let topic_id = topic_id(client).await;
    let request = ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(vec![TopicPartitions {
            topic_id,
            partitions: partitions.to_vec(),
        }]),
        ..alive(member, epoch)
    };
    client.ask(1, request).await
}

async fn described(client: &mut Client) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into()],
        ..ConsumerGroupDescribeRequest::default()
    };
    client.ask(1, request).await.groups.remove(0)
}

async fn delete(client: &mut Client) -> ErrorCode {
    let request = DeleteGroupsRequest {
        groups_names: vec!["g".into()],
    };
    error(client.ask(2, request).await.results[0].error_code)
}

async fn fetched(client: &mut Client, member: Option<&str>, epoch: i32) -> (ErrorCode, i64) {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".into(),
            member_id: member.map(str::to_owned),
            member_epoch: epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: "t".into(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
        }],
        ..OffsetFetchRequest::default()
    };
    let group = client.ask(9, request).await.groups.remove(0);
    let offset = group.topics.first();
    let offset = offset.map_or(-2, |topic| topic.partitions[0].committed_offset);
    (error(group.error_code), offset)
}

#[tokio::test]
async fn members_share_and_an_unclean_stop_changes_nothing() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 4, &[]).await;
    let answer = client.ask(1, joining("a")).await;
    assert_eq!(told(&answer), (2, Some(vec![0, 1, 2, 3])));
    assert_eq!(answer.heartbeat_interval_ms, 5_000);
    let answer = client.ask(1, joining("b")).await;
    assert_eq!(told(&answer), (3, Some(vec![])));
    let answer = client.ask(1, alive("a", 2)).await;
    assert_eq!(told(&answer), (2, Some(vec![0, 1])));

    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let group = described(&mut client).await;
    assert_eq!(group.group_state, "Reconciling");
    assert_eq!((group.group_epoch, group.assignment_epoch), (3, 3));
    assert_eq!(group.assignor_name, "uniform");
    let of = |index: usize| {
        let member = &group.members[index];
        let list = |some: &kafka::messages::consumer_group_describe::Assignment| {
            let topics = some.topic_partitions.iter();
            let all = topics.flat_map(|topic| topic.partitions.clone());
            all.collect::<Vec<_>>()
        };
        (
            member.member_epoch,
            list(&member.assignment),
            list(&member.target_assignment),
        )
    };
    assert_eq!(of(0), (2, vec![0, 1, 2, 3], vec![0, 1]));
    assert_eq!(of(1), (3, vec![], vec![2, 3]));
    assert_eq!(group.members[0].client_id, "test");
    assert_eq!(group.members[0].client_host, "/127.0.0.1");

    let answer = owning(&mut client, "a", 2, &[0, 1]).await;
    assert_eq!(told(&answer), (3, None));
    let answer = client.ask(1, alive("b", 3)).await;
    assert_eq!(told(&answer), (3, Some(vec![2, 3])));

    // What was told last is there after a clean stop too.
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    assert_eq!(described(&mut client).await.group_state, "Stable");
    assert_eq!(told(&client.ask(1, alive("b", 3)).await), (3, None));
    let view = stage.broker.groups().remove(0);
    assert_eq!((view.state.as_str(), view.members.len()), ("Stable", 2));
    let gone = client.ask(1, alive("b", -1)).await;
    assert_eq!(
        (error(gone.error_code), gone.member_epoch),
        (ErrorCode::None, -1)
    );
    assert_eq!(described(&mut client).await.group_state, "Assigning");
    let answer = client.ask(1, alive("a", 3)).await;
    assert_eq!(told(&answer), (4, Some(vec![0, 1, 2, 3])));
}

#[tokio::test]
async fn offsets_belong_to_members_with_their_epoch() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    assert_eq!(told(&client.ask(1, joining("a")).await).0, 2);
    assert_eq!(commit(&mut client, "a", 2, 0, 7).await, ErrorCode::None);
    assert_eq!(
        commit(&mut client, "a", 3, 0, 8).await,
        ErrorCode::StaleMemberEpoch
    );
    assert_eq!(
        commit(&mut client, "b", 2, 0, 8).await,
        ErrorCode::UnknownMemberId
    );
    assert_eq!(
        fetched(&mut client, Some("a"), 2).await,
        (ErrorCode::None, 7)
    );
    assert_eq!(fetched(&mut client, None, -1).await, (ErrorCode::None, 7));
    assert_eq!(
        fetched(&mut client, Some("a"), 0).await,
        (ErrorCode::StaleMemberEpoch, -2)
    );
    assert_eq!(
        fetched(&mut client, Some("b"), 2).await,
        (ErrorCode::UnknownMemberId, -2)
    );
    let forget = OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    let answer = client.ask(0, forget).await;
    assert_eq!(
        error(answer.topics[0].partitions[0].error_code),
        ErrorCode::GroupSubscribedToTopic
    );
    assert_eq!(delete(&mut client).await, ErrorCode::NonEmptyGroup);
    client.ask(1, alive("a", -1)).await;
    assert_eq!(commit(&mut client, "", -1, 0, 9).await, ErrorCode::None);
    assert_eq!(delete(&mut client).await, ErrorCode::None);
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let group = described(&mut client).await;
    assert_eq!(error(group.error_code), ErrorCode::GroupIdNotFound);
    assert!(stage.broker.groups().is_empty());
}

#[tokio::test]
async fn a_group_changes_its_protocol_while_it_is_empty() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    let member = settle(&mut client).await;
    assert_eq!(commit(&mut client, &member, 1, 0, 5).await, ErrorCode::None);
    let refused = client.ask(1, joining("a")).await;
    assert_eq!(error(refused.error_code), ErrorCode::GroupIdNotFound);
    let leave = kafka::messages::leave_group::LeaveGroupRequest {
        group_id: "g".into(),
        members: vec![kafka::messages::leave_group::MemberIdentity {
            member_id: member,
            ..kafka::messages::leave_group::MemberIdentity::default()
        }],
        ..kafka::messages::leave_group::LeaveGroupRequest::default()
    };
    client.ask(5, leave).await;
    assert_eq!(
        told(&client.ask(1, joining("a")).await),
        (2, Some(vec![0, 1]))
    );
    assert_eq!(
        fetched(&mut client, Some("a"), 2).await,
        (ErrorCode::None, 5)
    );
    let list = ListGroupsRequest {
        types_filter: vec!["consumer".into()],
        ..ListGroupsRequest::default()
    };
    let listed = client.ask(5, list).await.groups.remove(0);
    assert_eq!(
        (listed.group_type.as_str(), listed.group_state.as_str()),
        ("consumer", "Stable")
    );
    let describe = DescribeGroupsRequest {
        groups: vec!["g".into()],
        ..DescribeGroupsRequest::default()
    };
    let classic = client.ask(6, describe).await.groups.remove(0);
    assert_eq!(error(classic.error_code), ErrorCode::GroupIdNotFound);
    client.ask(1, alive("a", -1)).await;
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    settle(&mut client).await;
    assert_eq!(fetched(&mut client, None, -1).await, (ErrorCode::None, 5));
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let group = described(&mut client).await;
    assert_eq!(error(group.error_code), ErrorCode::GroupIdNotFound);
    let view = stage.broker.groups().remove(0);
    assert_eq!(
        (view.state.as_str(), view.protocol.as_str()),
        ("Stable", "range")
    );
}

#[tokio::test]
async fn settings_of_a_group_hold_at_once_and_outlive_the_process() {
    let set = |value: &str| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 32,
            resource_name: "g".into(),
            configs: vec![AlterableConfig {
                name: "consumer.heartbeat.interval.ms".into(),
                config_operation: 0,
                value: Some(value.to_owned()),
            }],
        }],
        validate_only: false,
    };
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    let answer = client.ask(1, joining("a")).await;
    assert_eq!(answer.heartbeat_interval_ms, 5_000);
    let refused = client.ask(1, set("1")).await;
    assert_eq!(
        error(refused.responses[0].error_code),
        ErrorCode::InvalidConfig
    );
    let changed = client.ask(1, set("7000")).await;
    assert_eq!(error(changed.responses[0].error_code), ErrorCode::None);
    let answer = client.ask(1, alive("a", 2)).await;
    assert_eq!(answer.heartbeat_interval_ms, 7_000);
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    let answer = client.ask(1, alive("a", 2)).await;
    assert_eq!(answer.heartbeat_interval_ms, 7_000);
}
