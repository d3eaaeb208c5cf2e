//! What clients may do, where the configuration asks for it.

use std::net::SocketAddr;

use broker::{Authorization, Limits, Listener, Mechanism, Protocol, Secret, User};
use bytes::Bytes;
use kafka::error::ErrorCode;
use kafka::messages::create_acls::{AclCreation, CreateAclsRequest};
use kafka::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use kafka::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use kafka::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use kafka::messages::describe_acls::DescribeAclsRequest;
use kafka::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka::messages::find_coordinator::FindCoordinatorRequest;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::sasl_authenticate::SaslAuthenticateRequest;
use kafka::messages::sasl_handshake::SaslHandshakeRequest;
use kafka::messages::unregister_broker::UnregisterBrokerRequest;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::stage::{Client, Stage, batch, error, fetch, produce};

pub(crate) const READ: i8 = 3;
const WRITE: i8 = 4;
const CREATE: i8 = 5;
pub(crate) const DESCRIBE: i8 = 8;
pub(crate) const TOPIC: i8 = 2;
pub(crate) const GROUP: i8 = 3;
const CLUSTER: i8 = 4;
pub(crate) const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
pub(crate) const DENY: i8 = 2;
pub(crate) const ALLOW: i8 = 3;

pub(crate) async fn stage() -> Stage {
    Stage::open_with(|options| {
        let user = |name: &str| User {
            name: name.into(),
            password: Secret::new("sesame"),
        };
        options.users = vec![user("admin"), user("bob")];
        options.authorization = Some(Authorization {
            super_users: vec!["User:admin".into()],
            allow_everyone_if_no_acl_found: false,
        });
    })
    .await
}

/// A listener of the test's own; it keeps the broker open until it is ended.
pub(crate) struct Door {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Door {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("served to the end");
    }
}

pub(crate) async fn listen(stage: &Stage) -> (SocketAddr, Door) {
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = socket.local_addr().expect("an address");
    let broker = stage.broker.clone();
    let listener = Listener {
        mechanisms: vec![Mechanism::Plain],
        ..Listener::new("USERS", Protocol::SaslPlaintext, &Limits::default())
    };
    let stop = CancellationToken::new();
    let ending = stop.clone();
    let serving = tokio::spawn(async move { broker.serve_as(socket, listener, ending).await });
    (address, Door { stop, serving })
}

pub(crate) async fn client(address: SocketAddr, name: &str) -> Client {
    let mut client = Client::connect(address).await;
    let mechanism = "PLAIN".to_owned();
    client.ask(1, SaslHandshakeRequest { mechanism }).await;
    let auth_bytes = Bytes::from(format!("\0{name}\0sesame"));
    let proven = client.ask(2, SaslAuthenticateRequest { auth_bytes }).await;
    assert_eq!(error(proven.error_code), ErrorCode::None);
    client
}

fn idempotent() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: None,
        ..InitProducerIdRequest::default()
    }
}

pub(crate) fn rule(
    kind: i8,
    name: &str,
    pattern: i8,
    operation: i8,
    permission: i8,
) -> AclCreation {
    AclCreation {
        resource_type: kind,
        resource_name: name.into(),
        resource_pattern_type: pattern,
        principal: "User:bob".into(),
        host: "*".into(),
        operation,
        permission_type: permission,
    }
}

pub(crate) async fn allow(admin: &mut Client, rules: &[AclCreation]) {
    let creations = rules.to_vec();
    let made = admin.ask(3, CreateAclsRequest { creations }).await;
    for result in made.results {
        assert_eq!(error(result.error_code), ErrorCode::None);
    }
}

async fn see(client: &mut Client, topics: Option<&[&str]>) -> Vec<(String, ErrorCode)> {
    let topics = topics.map(|names| {
        let topic = |name: &&str| MetadataRequestTopic {
            name: Some((*name).to_owned()),
            ..MetadataRequestTopic::default()
        };
        names.iter().map(topic).collect()
    });
    let request = MetadataRequest {
        topics,
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    let answer = client.ask(9, request).await;
    let seen = answer.topics.into_iter();
    let seen = seen.map(|topic| (topic.name.unwrap_or_default(), error(topic.error_code)));
    seen.filter(|(name, _)| !name.starts_with("__")).collect()
}

#[tokio::test]
async fn what_is_not_allowed_is_denied_with_kafkas_errors() {
    let stage = stage().await;
    let (address, _door) = listen(&stage).await;
    let mut admin = client(address, "admin").await;
    let mut bob = client(address, "bob").await;
    admin.create("open", 1, &[]).await;
    admin.create("shut", 1, &[]).await;
    _ = admin.produce(9, "shut", -1, batch(&["a"])).await;

    assert_eq!(see(&mut bob, None).await, []);
    let denied = ErrorCode::TopicAuthorizationFailed;
    assert_eq!(
        see(&mut bob, Some(&["shut"])).await,
        [("shut".into(), denied)]
    );
    let written = bob.produce(9, "shut", -1, batch(&["b"])).await;
    assert_eq!(error(written.error_code), denied);
    let read = bob.ask(12, fetch("shut", 0, 0, 1 << 20)).await;
    assert_eq!(error(read.responses[0].partitions[0].error_code), denied);
    assert!(
        read.responses[0].partitions[0]
            .records
            .as_ref()
            .is_none_or(Bytes::is_empty)
    );
    let offsets = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "shut".into(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                ..ListOffsetsPartition::default()
            }],
        }],
        ..ListOffsetsRequest::default()
    };
    let offsets = bob.ask(7, offsets).await;
    assert_eq!(error(offsets.topics[0].partitions[0].error_code), denied);

    let group = ErrorCode::GroupAuthorizationFailed;
    let found = FindCoordinatorRequest {
        coordinator_keys: vec!["g".into()],
        ..FindCoordinatorRequest::default()
    };
    let found = bob.ask(4, found).await;
    assert_eq!(error(found.coordinators[0].error_code), group);
    let join = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::new(),
        }],
        ..JoinGroupRequest::default()
    };
    for version in [0, 5, 7, 9] {
        let joined = bob.ask(version, join.clone()).await;
        assert_eq!(error(joined.error_code), group, "version {version}");
    }
    let listed = bob.ask(4, ListGroupsRequest::default()).await;
    assert_eq!(listed.groups, []);
    let cluster = ErrorCode::ClusterAuthorizationFailed;
    let id = bob.ask(4, idempotent()).await;
    assert_eq!(error(id.error_code), cluster);
    let transaction = InitProducerIdRequest {
        transactional_id: Some("t".into()),
        ..InitProducerIdRequest::default()
    };
    let id = bob.ask(4, transaction).await;
    let refused = ErrorCode::TransactionalIdAuthorizationFailed;
    assert_eq!(error(id.error_code), refused);

    let topic = CreatableTopic {
        name: "new".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let create = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let created = bob.ask(7, create).await;
    assert_eq!(error(created.topics[0].error_code), denied);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("shut".into()),
            ..DeleteTopicState::default()
        }],
        ..DeleteTopicsRequest::default()
    };
    let deleted = bob.ask(6, delete).await;
    assert_eq!(error(deleted.responses[0].error_code), denied);
    let configs = |kind: i8, name: &str| DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let told = bob.ask(4, configs(2, "shut")).await;
    assert_eq!(error(told.results[0].error_code), denied);
    let told = bob.ask(4, configs(4, "1")).await;
    assert_eq!(error(told.results[0].error_code), cluster);
    let acls = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..DescribeAclsRequest::default()
    };
    let told = bob.ask(3, acls).await;
    assert_eq!(error(told.error_code), cluster);
    let creations = vec![rule(TOPIC, "shut", LITERAL, READ, ALLOW)];
    let told = bob.ask(3, CreateAclsRequest { creations }).await;
    assert_eq!(error(told.results[0].error_code), cluster);
    // The administrator sees that nothing has changed.
    assert_eq!(admin.values("shut", 0).await.len(), 1);
    let told = bob.ask(0, UnregisterBrokerRequest { broker_id: 7 }).await;
    assert_eq!(error(told.error_code), cluster);
}

#[tokio::test]
async fn rules_allow_and_deny_and_outlive_a_restart() {
    let stage = stage().await;
    let (address, door) = listen(&stage).await;
    let mut admin = client(address, "admin").await;
    for topic in ["app-a", "app-secret", "other"] {
        admin.create(topic, 1, &[]).await;
    }
    allow(
        &mut admin,
        &[
            rule(TOPIC, "app-", PREFIXED, WRITE, ALLOW),
            rule(TOPIC, "app-", PREFIXED, READ, ALLOW),
            rule(TOPIC, "app-secret", LITERAL, READ, DENY),
            rule(TOPIC, "app-new", LITERAL, CREATE, ALLOW),
            rule(GROUP, "app", LITERAL, READ, ALLOW),
        ],
    )
    .await;
    let mut bob = client(address, "bob").await;
    let none = ErrorCode::None;
    let mut seen = see(&mut bob, None).await;
    seen.sort_by(|left, right| left.0.cmp(&right.0));
    assert_eq!(seen, [("app-a".into(), none), ("app-secret".into(), none)]);
    let written = bob.produce(9, "app-secret", -1, batch(&["a"])).await;
    assert_eq!(error(written.error_code), none);
    let read = bob.ask(12, fetch("app-secret", 0, 0, 1 << 20)).await;
    let denied = ErrorCode::TopicAuthorizationFailed;
    assert_eq!(error(read.responses[0].partitions[0].error_code), denied);
    // A topic is made by who may make it.
    let made = see(&mut bob, Some(&["app-new", "app-other"])).await;
    assert_eq!(made[0], ("app-new".into(), none));
    assert_eq!(made[1], ("app-other".into(), denied));
    // Who may write somewhere may be idempotent.
    let id = bob.ask(4, idempotent()).await;
    assert_eq!(error(id.error_code), none);
    // What may be committed is, what may not is told.
    let topic = |name: &str| OffsetCommitRequestTopic {
        name: name.into(),
        partitions: vec![OffsetCommitRequestPartition {
            committed_offset: 1,
            ..OffsetCommitRequestPartition::default()
        }],
        ..OffsetCommitRequestTopic::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "app".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic("app-a"), topic("app-secret")],
        ..OffsetCommitRequest::default()
    };
    let committed = bob.ask(8, commit).await;
    let told = |name: &str| {
        let topic = committed.topics.iter().find(|topic| topic.name == name);
        error(topic.expect("told").partitions[0].error_code)
    };
    assert_eq!((told("app-a"), told("app-secret")), (none, denied));
    // Bits of what may be done.
    let asked = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some("app-a".into()),
            ..MetadataRequestTopic::default()
        }]),
        include_topic_authorized_operations: true,
        ..MetadataRequest::default()
    };
    let bits = bob.ask(9, asked).await.topics[0].topic_authorized_operations;
    assert_eq!(bits, 1 << READ | 1 << WRITE | 1 << DESCRIBE);
    drop((admin, bob));
    door.end().await;

    let stage = stage.restart().await;
    let (address, _door) = listen(&stage).await;
    let mut bob = client(address, "bob").await;
    let request = produce("app-a", -1, batch(&["b"]));
    let written = bob.ask(9, request).await;
    let code = written.responses[0].partition_responses[0].error_code;
    assert_eq!(error(code), none);
    let mut admin = client(address, "admin").await;
    let every = DeleteAclsFilter {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        principal_filter: Some("User:bob".into()),
        resource_name_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    };
    let filters = vec![every];
    let gone = admin.ask(3, DeleteAclsRequest { filters }).await;
    assert_eq!(gone.filter_results[0].matching_acls.len(), 5);
    let written = bob.produce(9, "app-a", -1, batch(&["c"])).await;
    assert_eq!(error(written.error_code), denied, "at once");
    let creations = vec![rule(CLUSTER, "nonsense", LITERAL, READ, ALLOW)];
    let made = admin.ask(3, CreateAclsRequest { creations }).await;
    assert_eq!(error(made.results[0].error_code), ErrorCode::InvalidRequest);
}
