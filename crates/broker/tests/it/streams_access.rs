//! What clients may do to streams groups, where the configuration asks for it.

use kafka::error::ErrorCode;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::streams_group_describe::StreamsGroupDescribeRequest;
use kafka::messages::streams_group_heartbeat::{
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, Subtopology, TopicInfo, Topology,
};

use crate::access::{ALLOW, DESCRIBE, GROUP, LITERAL, READ, TOPIC};
use crate::access::{allow, client, listen, rule, stage};
use crate::stage::{Client, error};

const CREATE: i8 = 5;
const CHANGES: &str = "g-counts-changelog";
/// The status that tells that topics of the application are missing.
const MISSING_INTERNAL_TOPICS: i8 = 3;
const NO_GROUP: ErrorCode = ErrorCode::GroupAuthorizationFailed;
const NO_TOPIC: ErrorCode = ErrorCode::TopicAuthorizationFailed;

/// An application that reads `t` and counts in a store.
async fn join(client: &mut Client, member: &str) -> StreamsGroupHeartbeatResponse {
    let part = Subtopology {
        subtopology_id: "0".into(),
        source_topics: vec!["t".into()],
        state_changelog_topics: vec![TopicInfo {
            name: CHANGES.into(),
            ..TopicInfo::default()
        }],
        ..Subtopology::default()
    };
    let request = StreamsGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        rebalance_timeout_ms: 60_000,
        topology: Some(Topology {
            epoch: 0,
            subtopologies: vec![part],
        }),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: Some("p".into()),
        ..StreamsGroupHeartbeatRequest::default()
    };
    client.ask(0, request).await
}

async fn described(client: &mut Client) -> (ErrorCode, usize) {
    let request = StreamsGroupDescribeRequest {
        group_ids: vec!["g".into()],
        include_authorized_operations: false,
    };
    let told = client.ask(0, request).await;
    let group = &told.groups[0];
    (error(group.error_code), group.members.len())
}

#[tokio::test]
async fn streams_groups_ask_for_kafkas_rights() {
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
    let made = admin.ask(12, request).await;
    assert_eq!(error(made.topics[0].error_code), ErrorCode::None);

    // Without a right to the group, and then to its topics.
    assert_eq!(error(join(&mut bob, "m").await.error_code), NO_GROUP);
    assert_eq!(described(&mut bob).await, (NO_GROUP, 0));
    allow(&mut admin, &[rule(GROUP, "g", LITERAL, READ, ALLOW)]).await;
    assert_eq!(error(join(&mut bob, "m").await.error_code), NO_TOPIC);

    // A member may be there whose topics nobody has made, since he may not.
    let see = |topic| rule(TOPIC, topic, LITERAL, DESCRIBE, ALLOW);
    allow(&mut admin, &[see("t")]).await;
    assert_eq!(error(join(&mut bob, "m").await.error_code), NO_TOPIC);
    allow(&mut admin, &[see(CHANGES)]).await;
    let joined = join(&mut bob, "m").await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    let status = joined.status.unwrap_or_default();
    let missing = status
        .iter()
        .find(|one| one.status_code == MISSING_INTERNAL_TOPICS);
    let why = &missing.expect("they are missing").status_detail;
    assert!(
        why.contains(&format!("Unauthorized to CREATE on topics {CHANGES}.")),
        "{why}"
    );
    assert_eq!(described(&mut bob).await, (ErrorCode::None, 1));

    // With the right they are made.
    allow(&mut admin, &[rule(TOPIC, CHANGES, LITERAL, CREATE, ALLOW)]).await;
    let joined = join(&mut bob, "m").await;
    assert_eq!(error(joined.error_code), ErrorCode::None);
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(CHANGES.into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let there = bob.ask(12, request).await;
    assert_eq!(error(there.topics[0].error_code), ErrorCode::None);
    drop((admin, bob));
    door.end().await;
}
