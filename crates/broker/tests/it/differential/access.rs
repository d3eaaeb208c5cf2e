//! The same requests by users who may, who may partly and who may not: with the StandardAuthorizer of Apache Kafka, and with ours.

mod cluster;
mod groups;
mod topics;
mod transactions;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker::{Authorization, Limits, Listener, Mechanism, Protocol, Secret, User};
use bytes::Bytes;
use kafka::messages::create_acls::{AclCreation, CreateAclsRequest};
use kafka::messages::describe_acls::DescribeAclsRequest;
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::sasl_authenticate::SaslAuthenticateRequest;
use kafka::messages::sasl_handshake::SaslHandshakeRequest;
use testkit::apache::{Apache, Users};
use testkit::lab;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Answer, Both, SETTLED, Side};
use crate::stage::{Client, Stage};

const APACHE_HEAP_MB: u32 = 384;
/// How long new rules may take until Apache Kafka knows of them.
const READY: Duration = Duration::from_secs(30);
const PASSWORD: &str = "sesame";

/// May everything.
const ADMIN: &str = "admin";
/// May nothing.
const EVE: &str = "eve";
/// May this and that.
const BOB: &str = "bob";
/// May look at the cluster.
const DAN: &str = "dan";
/// May change the cluster.
const FAY: &str = "fay";

const INTENDED: &[(&str, &str)] = &[
    (
        "change topics: bob, check (v7)",
        "a topic that is not made has no id",
    ),
    ("change topics: fay, check (v7)", "the same"),
];

/// Topics that are there; what Bob may do with each is in [`RULES`].
const TOPICS: &[&str] = &["all", "read", "write", "seen", "none", "shut", "pre-a"];

const DENY: i8 = 2;
const ALLOW: i8 = 3;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;

/// Kind, name, pattern, user, operation, permission.
type Rule = (i8, &'static str, i8, &'static str, i8, i8);

const RULES: &[Rule] = &[
    (2, "all", LITERAL, BOB, 2, ALLOW),
    (2, "read", LITERAL, BOB, 3, ALLOW),
    (2, "write", LITERAL, BOB, 4, ALLOW),
    (2, "seen", LITERAL, BOB, 8, ALLOW),
    (2, "shut", LITERAL, BOB, 2, ALLOW),
    (2, "shut", LITERAL, BOB, 4, DENY),
    (2, "pre-", PREFIXED, BOB, 3, ALLOW),
    (2, "pre-", PREFIXED, BOB, 10, ALLOW),
    (2, "bob-", PREFIXED, BOB, 5, ALLOW),
    (2, "bob-", PREFIXED, BOB, 6, ALLOW),
    (2, "bob-", PREFIXED, BOB, 7, ALLOW),
    (3, "g-read", LITERAL, BOB, 3, ALLOW),
    (3, "g-seen", LITERAL, BOB, 8, ALLOW),
    (3, "g-all", LITERAL, BOB, 2, ALLOW),
    (5, "t-write", LITERAL, BOB, 4, ALLOW),
    (5, "t-seen", LITERAL, BOB, 8, ALLOW),
    (4, "kafka-cluster", LITERAL, DAN, 8, ALLOW),
    (4, "kafka-cluster", LITERAL, DAN, 10, ALLOW),
    (4, "kafka-cluster", LITERAL, FAY, 7, ALLOW),
    (4, "kafka-cluster", LITERAL, FAY, 11, ALLOW),
    (4, "kafka-cluster", LITERAL, FAY, 5, ALLOW),
];

/// Connects, and proves who it is where that is asked.
pub(super) async fn connect(address: SocketAddr, user: Option<&str>) -> Client {
    let mut client = Client::connect(address).await;
    if let Some(user) = user {
        let mechanism = "PLAIN".to_owned();
        client.ask(1, SaslHandshakeRequest { mechanism }).await;
        let auth_bytes = Bytes::from(format!("\0{user}\0{PASSWORD}"));
        let proven = client.ask(2, SaslAuthenticateRequest { auth_bytes }).await;
        assert_eq!(proven.error_code, 0, "{proven:?}");
    }
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_those_of_apache_kafka() {
    let users = [ADMIN, EVE, BOB, DAN, FAY];
    let apache = Apache::start_secured(
        APACHE_HEAP_MB,
        &Users {
            names: &users,
            password: PASSWORD,
        },
    );
    let Some(apache) = lab::or_skip(apache) else {
        return;
    };
    let stage = Stage::open_with(|options| {
        options.partitions_default = 4;
        options.users = users
            .iter()
            .map(|name| User {
                name: (*name).to_owned(),
                password: Secret::new(PASSWORD),
            })
            .collect();
        options.authorization = Some(Authorization {
            super_users: vec![format!("User:{ADMIN}"), "User:ANONYMOUS".to_owned()],
            allow_everyone_if_no_acl_found: false,
        });
    })
    .await;
    let socket = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let ours = socket.local_addr().expect("an address");
    let listener = Listener {
        mechanisms: vec![Mechanism::Plain],
        ..Listener::new("USERS", Protocol::SaslPlaintext, &Limits::default())
    };
    let stop = CancellationToken::new();
    let (broker, ending) = (stage.broker.clone(), stop.clone());
    let serving = tokio::spawn(async move { broker.serve_as(socket, listener, ending).await });

    let mut both = Both {
        ours: Side::new(&ours),
        theirs: Side::new(&apache.secured_address()),
        section: "",
        blind: &[],
        settled: SETTLED,
        intended: INTENDED,
        not_yet: &[],
        steps: BTreeSet::new(),
        differences: Vec::new(),
    };
    both.become_user(ADMIN);
    let ids = prepare(&mut both).await;
    for user in [EVE, BOB, DAN, FAY] {
        both.become_user(user);
        topics::run(&mut both, user, &ids).await;
        groups::run(&mut both, user, &ids).await;
        transactions::run(&mut both, user).await;
        cluster::run(&mut both, user).await;
    }
    both.finish();
    stop.cancel();
    serving.await.expect("served to the end");
}

impl Both {
    fn become_user(&mut self, user: &'static str) {
        for side in [&mut self.ours, &mut self.theirs] {
            *side = Side {
                user: Some(user),
                ..Side::new(&side.address)
            };
        }
    }

    /// Asks by a step that carries who asks.
    async fn by<R: kafka::messages::Request>(
        &mut self,
        user: &str,
        step: &str,
        version: i16,
        request: R,
    ) -> super::Pair<R> {
        self.ask(&format!("{user}, {step}"), version, request).await
    }
}

/// The first question makes what gives out ids of producers.
async fn numbered(side: &mut Side) {
    let request = InitProducerIdRequest {
        transactional_id: None,
        ..InitProducerIdRequest::default()
    };
    let begun = Instant::now();
    loop {
        match side.ask(4, request.clone()).await {
            Answer::Given(answer) if answer.error_code == 0 => return,
            _ => assert!(begun.elapsed() < READY, "no id of a producer"),
        }
        tokio::task::yield_now().await;
    }
}

/// A filter that takes all rules.
fn any_rule() -> DescribeAclsRequest {
    DescribeAclsRequest {
        resource_type_filter: 1,
        resource_name_filter: None,
        pattern_type_filter: 1,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    }
}

/// Ids of a topic on both sides.
type Ids = Vec<(&'static str, Uuid, Uuid)>;

/// Makes topics and rules, and waits until both know of them.
async fn prepare(both: &mut Both) -> Ids {
    both.section("prepare");
    super::groups::settle(&mut both.theirs).await;
    super::groups::settle(&mut both.ours).await;
    super::transactions::settle(&mut both.theirs).await;
    numbered(&mut both.theirs).await;
    for topic in TOPICS {
        super::topics::make(both, topic, 1, &[]).await;
        both.ask(
            &format!("records of {topic}"),
            9,
            crate::stage::produce(topic, -1, crate::stage::batch(&["a", "b"])),
        )
        .await;
    }
    let creations =
        RULES.iter().map(
            |(kind, name, pattern, user, operation, permission)| AclCreation {
                resource_type: *kind,
                resource_name: (*name).to_owned(),
                resource_pattern_type: *pattern,
                principal: format!("User:{user}"),
                host: "*".into(),
                operation: *operation,
                permission_type: *permission,
            },
        );
    let creations = creations.collect();
    let made = both.ask("rules", 3, CreateAclsRequest { creations }).await;
    let (_, theirs) = made.answered();
    assert!(
        theirs.results.iter().all(|one| one.error_code == 0),
        "{theirs:?}"
    );
    let every = any_rule();
    let begun = Instant::now();
    loop {
        let Answer::Given(told) = both.theirs.ask(3, every.clone()).await else {
            panic!("Apache Kafka answers");
        };
        let count: usize = told.resources.iter().map(|one| one.acls.len()).sum();
        if count == RULES.len() {
            break;
        }
        assert!(begun.elapsed() < READY, "{told:?}");
        tokio::task::yield_now().await;
    }
    both.ask("all rules", 3, every).await;
    let request = MetadataRequest {
        topics: Some(
            TOPICS
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some((*name).to_owned()),
                    ..MetadataRequestTopic::default()
                })
                .collect(),
        ),
        ..MetadataRequest::default()
    };
    let (ours, theirs) = both.ask("ids", 12, request).await.answered();
    let id = |of: &kafka::messages::metadata::MetadataResponse, name: &str| {
        let found = of.topics.iter().find(|it| it.name.as_deref() == Some(name));
        found.expect("it is there").topic_id
    };
    TOPICS
        .iter()
        .map(|name| (*name, id(&ours, name), id(&theirs, name)))
        .collect()
}
