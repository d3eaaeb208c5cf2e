//! What clients may do to share groups, where the configuration asks for it.

use kafka::error::ErrorCode;
use kafka::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
};
use kafka::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use kafka::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic,
};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch, ShareAcknowledgeRequest,
};
use kafka::messages::share_fetch::{FetchPartition, FetchTopic, ShareFetchRequest};
use kafka::messages::share_group_describe::ShareGroupDescribeRequest;
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use uuid::Uuid;

use crate::access::{ALLOW, DENY, DESCRIBE, GROUP, LITERAL, READ, TOPIC};
use crate::access::{allow, client, listen, rule, stage};
use crate::stage::{Client, error};

const DELETE: i8 = 6;
const NO_GROUP: ErrorCode = ErrorCode::GroupAuthorizationFailed;
const NO_TOPIC: ErrorCode = ErrorCode::TopicAuthorizationFailed;

fn joining() -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        subscribed_topic_names: Some(vec!["t".into()]),
        ..ShareGroupHeartbeatRequest::default()
    }
}

fn fetching(topic: Option<Uuid>, epoch: i32) -> ShareFetchRequest {
    let partitions = vec![FetchPartition::default()];
    let topics = topic.into_iter().map(|topic_id| FetchTopic {
        topic_id,
        partitions: partitions.clone(),
    });
    ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        share_session_epoch: epoch,
        max_bytes: 1 << 20,
        max_records: 10,
        batch_size: 10,
        topics: topics.collect(),
        ..ShareFetchRequest::default()
    }
}

fn acknowledging(topic_id: Uuid, epoch: i32) -> ShareAcknowledgeRequest {
    ShareAcknowledgeRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        share_session_epoch: epoch,
        topics: vec![AcknowledgeTopic {
            topic_id,
            partitions: vec![AcknowledgePartition {
                partition_index: 0,
                acknowledgement_batches: vec![AcknowledgementBatch {
                    acknowledge_types: vec![1],
                    ..AcknowledgementBatch::default()
                }],
            }],
        }],
        ..ShareAcknowledgeRequest::default()
    }
}

fn setting() -> AlterShareGroupOffsetsRequest {
    AlterShareGroupOffsetsRequest {
        group_id: "other".into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: "t".into(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition::default()],
        }],
    }
}

fn forgetting() -> DeleteShareGroupOffsetsRequest {
    DeleteShareGroupOffsetsRequest {
        group_id: "other".into(),
        topics: vec![DeleteShareGroupOffsetsRequestTopic {
            topic_name: "t".into(),
        }],
    }
}

fn asking(named: bool) -> DescribeShareGroupOffsetsRequest {
    let topic = DescribeShareGroupOffsetsRequestTopic {
        topic_name: "t".into(),
        partitions: vec![0],
    };
    DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: "other".into(),
            topics: named.then(|| vec![topic]),
        }],
    }
}

async fn described(client: &mut Client) -> (ErrorCode, usize) {
    let request = ShareGroupDescribeRequest {
        group_ids: vec!["g".into()],
        include_authorized_operations: false,
    };
    let told = client.ask(1, request).await;
    let group = &told.groups[0];
    (error(group.error_code), group.members.len())
}

#[tokio::test]
async fn share_groups_ask_for_kafkas_rights() {
    let stage = stage().await;
    let (address, door) = listen(&stage).await;
    let mut admin = client(address, "admin").await;
    let mut bob = client(address, "bob").await;
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let topic = admin.ask(12, request).await.topics[0].topic_id;

    // Without a right to the groups.
    let joined = bob.ask(1, joining()).await;
    assert_eq!(error(joined.error_code), NO_GROUP);
    let fetched = bob.ask(2, fetching(Some(topic), 0)).await;
    assert_eq!(error(fetched.error_code), NO_GROUP);
    let acknowledged = bob.ask(2, acknowledging(topic, 1)).await;
    assert_eq!(error(acknowledged.error_code), NO_GROUP);
    let set = bob.ask(0, setting()).await;
    assert_eq!(error(set.error_code), NO_GROUP);
    let forgotten = bob.ask(0, forgetting()).await;
    assert_eq!(error(forgotten.error_code), NO_GROUP);
    let told = bob.ask(1, asking(true)).await;
    assert_eq!(error(told.groups[0].error_code), NO_GROUP);
    assert_eq!(described(&mut bob).await, (NO_GROUP, 0));

    // Reading a group does not read a topic.
    let group = |name, operation| rule(GROUP, name, LITERAL, operation, ALLOW);
    let rules = [
        group("g", READ),
        group("other", READ),
        group("other", DELETE),
    ];
    allow(&mut admin, &rules).await;
    let joined = bob.ask(1, joining()).await;
    assert_eq!(error(joined.error_code), NO_TOPIC);
    let set = bob.ask(0, setting()).await;
    assert_eq!(error(set.error_code), ErrorCode::None);
    assert_eq!(error(set.responses[0].partitions[0].error_code), NO_TOPIC);
    let forgotten = bob.ask(0, forgetting()).await;
    assert_eq!(error(forgotten.error_code), ErrorCode::None);
    assert_eq!(error(forgotten.responses[0].error_code), NO_TOPIC);
    let told = bob.ask(1, asking(true)).await;
    let partition = &told.groups[0].topics[0].partitions[0];
    assert_eq!(error(partition.error_code), NO_TOPIC);

    // Seeing a topic is enough to be a member.
    let joined = admin.ask(1, joining()).await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    assert_eq!(described(&mut bob).await, (NO_TOPIC, 0));
    allow(&mut admin, &[rule(TOPIC, "t", LITERAL, DESCRIBE, ALLOW)]).await;
    assert_eq!(described(&mut bob).await, (ErrorCode::None, 1));
    let joined = bob.ask(1, joining()).await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    let fetched = bob.ask(2, fetching(Some(topic), 0)).await;
    assert_eq!(error(fetched.error_code), ErrorCode::None);
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!(error(partition.error_code), NO_TOPIC);
    let acknowledged = bob.ask(2, acknowledging(topic, 1)).await;
    let partition = &acknowledged.responses[0].partitions[0];
    assert_eq!(error(partition.error_code), NO_TOPIC);

    // The session remembers the topic, and each request looks at it anew.
    allow(&mut admin, &[rule(TOPIC, "t", LITERAL, READ, ALLOW)]).await;
    let fetched = bob.ask(2, fetching(None, 2)).await;
    assert_eq!(error(fetched.error_code), ErrorCode::None);
    let mut partitions = fetched.responses.iter().flat_map(|topic| &topic.partitions);
    assert!(partitions.all(|one| error(one.error_code) == ErrorCode::None));
    let set = bob.ask(0, setting()).await;
    assert_eq!(
        error(set.responses[0].partitions[0].error_code),
        ErrorCode::None
    );
    let told = bob.ask(1, asking(false)).await;
    assert_eq!(told.groups[0].topics.len(), 1);
    allow(&mut admin, &[rule(TOPIC, "t", LITERAL, READ, DENY)]).await;
    let fetched = bob.ask(2, fetching(None, 3)).await;
    let partition = &fetched.responses[0].partitions[0];
    assert_eq!(error(partition.error_code), NO_TOPIC);
    drop((admin, bob));
    door.end().await;
}
