//! What a node that is alone says of elections, moves, quotas, users and rights.

use bytes::Bytes;
use kafka::messages::alter_client_quotas::{self, AlterClientQuotasRequest};
use kafka::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use kafka::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use kafka::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, ScramCredentialDeletion, ScramCredentialUpsertion,
};
use kafka::messages::create_acls::{AclCreation, CreateAclsRequest};
use kafka::messages::create_delegation_token::CreateDelegationTokenRequest;
use kafka::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use kafka::messages::describe_acls::DescribeAclsRequest;
use kafka::messages::describe_client_quotas::{ComponentData, DescribeClientQuotasRequest};
use kafka::messages::describe_delegation_token::DescribeDelegationTokenRequest;
use kafka::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use kafka::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, UserName,
};
use kafka::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use kafka::messages::expire_delegation_token::ExpireDelegationTokenRequest;
use kafka::messages::list_config_resources::ListConfigResourcesRequest;
use kafka::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use kafka::messages::renew_delegation_token::RenewDelegationTokenRequest;
use kafka::messages::sasl_authenticate::SaslAuthenticateRequest;
use kafka::messages::sasl_handshake::SaslHandshakeRequest;
use kafka::messages::unregister_broker::UnregisterBrokerRequest;
use kafka::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};

use super::{Both, topics};

pub(super) async fn run(both: &mut Both) {
    topics::make(both, "moved", 2, &[]).await;
    elections(both).await;
    moves(both).await;
    quorum(both).await;
    quotas(both).await;
    set_quotas(both).await;
    users(both).await;
    rights(both).await;
}

async fn elections(both: &mut Both) {
    both.section("elections");
    let ask = |kind: i8, topics: Option<&[(&str, &[i32])]>| ElectLeadersRequest {
        election_type: kind,
        topic_partitions: topics.map(|topics| {
            topics
                .iter()
                .map(|(topic, partitions)| TopicPartitions {
                    topic: (*topic).to_owned(),
                    partitions: partitions.to_vec(),
                })
                .collect()
        }),
        timeout_ms: 10_000,
    };
    for version in 0..=2 {
        both.ask(
            "preferred",
            version,
            ask(0, Some(&[("moved", &[0, 1, 7]), ("not-there", &[0])])),
        )
        .await;
        both.ask("preferred everywhere", version, ask(0, None))
            .await;
    }
    both.ask("unclean", 2, ask(1, Some(&[("moved", &[0])])))
        .await;
    both.ask("unclean everywhere", 2, ask(1, None)).await;
    both.ask("strange kind", 2, ask(9, Some(&[("moved", &[0])])))
        .await;
    both.ask("nothing", 2, ask(0, Some(&[]))).await;
}

async fn moves(both: &mut Both) {
    both.section("moves");
    let ask = |topic: &str, partition: i32, replicas: Option<Vec<i32>>| {
        AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: topic.to_owned(),
                partitions: vec![ReassignablePartition {
                    partition_index: partition,
                    replicas,
                }],
            }],
            timeout_ms: 10_000,
            ..AlterPartitionReassignmentsRequest::default()
        }
    };
    for version in 0..=1 {
        both.ask("to where it is", version, ask("moved", 0, Some(vec![1])))
            .await;
        both.ask("to a stranger", version, ask("moved", 0, Some(vec![7])))
            .await;
        both.ask("to two", version, ask("moved", 0, Some(vec![1, 7])))
            .await;
        both.ask(
            "to the same twice",
            version,
            ask("moved", 0, Some(vec![1, 1])),
        )
        .await;
        both.ask("to nobody", version, ask("moved", 0, Some(vec![])))
            .await;
        both.ask("cancelled", version, ask("moved", 0, None)).await;
        both.ask("unknown partition", version, ask("moved", 9, Some(vec![1])))
            .await;
        both.ask("unknown topic", version, ask("not-there", 0, Some(vec![1])))
            .await;
    }
    let list = |topics: Option<&[(&str, &[i32])]>| ListPartitionReassignmentsRequest {
        topics: topics.map(|topics| {
            topics
                .iter()
                .map(|(name, partitions)| ListPartitionReassignmentsTopics {
                    name: (*name).to_owned(),
                    partition_indexes: partitions.to_vec(),
                })
                .collect()
        }),
        timeout_ms: 10_000,
    };
    both.ask("all", 0, list(None)).await;
    both.ask(
        "some",
        0,
        list(Some(&[("moved", &[0, 9]), ("not-there", &[0])])),
    )
    .await;
    let dirs = |path: &str, topic: &str, partition: i32| AlterReplicaLogDirsRequest {
        dirs: vec![AlterReplicaLogDir {
            path: path.to_owned(),
            topics: vec![AlterReplicaLogDirTopic {
                name: topic.to_owned(),
                partitions: vec![partition],
            }],
        }],
    };
    for version in 1..=2 {
        both.ask("to a strange folder", version, dirs("/nowhere", "moved", 0))
            .await;
        both.ask("to a relative folder", version, dirs("nowhere", "moved", 0))
            .await;
        both.ask(
            "an unknown topic to a strange folder",
            version,
            dirs("/nowhere", "not-there", 0),
        )
        .await;
    }
    both.ask(
        "leave as a stranger",
        0,
        UnregisterBrokerRequest { broker_id: 7 },
    )
    .await;
}

async fn quorum(both: &mut Both) {
    both.section("quorum and features");
    let ask = |topic: &str, partition: i32| DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: topic.to_owned(),
            partitions: vec![PartitionData {
                partition_index: partition,
            }],
        }],
    };
    for version in 0..=2 {
        both.ask("metadata", version, ask("__cluster_metadata", 0))
            .await;
        both.ask("another topic", version, ask("moved", 0)).await;
        both.ask("another partition", version, ask("__cluster_metadata", 1))
            .await;
    }
    let update = |feature: &str, level: i16, kind: i8, validate_only: bool| UpdateFeaturesRequest {
        timeout_ms: 10_000,
        feature_updates: vec![FeatureUpdateKey {
            feature: feature.to_owned(),
            max_version_level: level,
            allow_downgrade: false,
            upgrade_type: kind,
        }],
        validate_only,
    };
    for version in 0..=2 {
        both.ask("unknown feature", version, update("no.such", 1, 1, true))
            .await;
    }
    both.ask(
        "feature too high",
        1,
        update("transaction.version", 99, 1, true),
    )
    .await;
    both.ask(
        "nothing to update",
        1,
        UpdateFeaturesRequest {
            validate_only: true,
            ..UpdateFeaturesRequest::default()
        },
    )
    .await;
}

async fn quotas(both: &mut Both) {
    both.section("quotas");
    let ask = |components: &[(&str, i8, Option<&str>)]| DescribeClientQuotasRequest {
        components: components
            .iter()
            .map(|(kind, matches, name)| ComponentData {
                entity_type: (*kind).to_owned(),
                match_type: *matches,
                match_: name.map(str::to_owned),
            })
            .collect(),
        strict: false,
    };
    for version in 0..=1 {
        both.ask("all", version, ask(&[])).await;
        both.ask("of a user", version, ask(&[("user", 0, Some("u"))]))
            .await;
        both.ask("of any user", version, ask(&[("user", 2, None)]))
            .await;
    }
    both.ask("of a strange kind", 1, ask(&[("planet", 0, Some("u"))]))
        .await;
    both.ask("of a strange match", 1, ask(&[("user", 9, Some("u"))]))
        .await;
    both.ask("of no kind", 1, ask(&[("", 0, Some("u"))])).await;
    both.ask(
        "one kind twice",
        1,
        ask(&[("user", 0, Some("u")), ("user", 0, Some("v"))]),
    )
    .await;
    let alter = |kind: &str,
                 name: Option<&str>,
                 key: &str,
                 value: f64,
                 remove: bool,
                 validate_only: bool| AlterClientQuotasRequest {
        entries: vec![alter_client_quotas::EntryData {
            entity: vec![alter_client_quotas::EntityData {
                entity_type: kind.to_owned(),
                entity_name: name.map(str::to_owned),
            }],
            ops: vec![alter_client_quotas::OpData {
                key: key.to_owned(),
                value,
                remove,
            }],
        }],
        validate_only,
    };
    both.ask(
        "checked",
        1,
        alter("user", Some("u"), "producer_byte_rate", 1000.0, false, true),
    )
    .await;
    both.ask(
        "unknown key",
        1,
        alter("user", Some("u"), "no_such", 1000.0, false, false),
    )
    .await;
    both.ask(
        "bad value",
        1,
        alter("user", Some("u"), "producer_byte_rate", -1.0, false, false),
    )
    .await;
    both.ask(
        "strange kind",
        1,
        alter(
            "planet",
            Some("u"),
            "producer_byte_rate",
            1000.0,
            false,
            false,
        ),
    )
    .await;
    both.ask(
        "removed",
        1,
        alter("user", Some("u"), "producer_byte_rate", 0.0, true, false),
    )
    .await;
}

/// Names by kind, and keys with values or without.
type Quota<'a> = (
    &'a [(&'a str, Option<&'a str>)],
    &'a [(&'a str, Option<f64>)],
);

fn limiting(quotas: &[Quota<'_>]) -> AlterClientQuotasRequest {
    let entry = |(names, changes): &Quota<'_>| alter_client_quotas::EntryData {
        entity: names
            .iter()
            .map(|(kind, name)| alter_client_quotas::EntityData {
                entity_type: (*kind).to_owned(),
                entity_name: name.map(str::to_owned),
            })
            .collect(),
        ops: changes
            .iter()
            .map(|(key, value)| alter_client_quotas::OpData {
                key: (*key).to_owned(),
                value: value.unwrap_or_default(),
                remove: value.is_none(),
            })
            .collect(),
    };
    AlterClientQuotasRequest {
        entries: quotas.iter().map(entry).collect(),
        validate_only: false,
    }
}

async fn set_quotas(both: &mut Both) {
    let produce = ("producer_byte_rate", Some(1e9));
    let user = ("user", Some("u"));
    let cases: &[(&str, Quota<'_>)] = &[
        (
            "a user",
            (&[user], &[produce, ("request_percentage", Some(500.5))]),
        ),
        (
            "a user's client",
            (&[user, ("client-id", Some("c"))], &[produce]),
        ),
        (
            "a user's clients",
            (
                &[user, ("client-id", None)],
                &[("controller_mutation_rate", Some(1e6))],
            ),
        ),
        (
            "all users",
            (&[("user", None)], &[("consumer_byte_rate", Some(1e9))]),
        ),
        ("a client", (&[("client-id", Some("c"))], &[produce])),
        (
            "all clients",
            (&[("client-id", None)], &[("consumer_byte_rate", Some(1e9))]),
        ),
        (
            "an address",
            (
                &[("ip", Some("10.1.2.3"))],
                &[("connection_creation_rate", Some(100.0))],
            ),
        ),
        (
            "all addresses",
            (&[("ip", None)], &[("connection_creation_rate", Some(1e6))]),
        ),
        ("an address and a user", (&[("ip", None), user], &[produce])),
        ("a producer by address", (&[("ip", None)], &[produce])),
        (
            "a connection by user",
            (&[user], &[("connection_creation_rate", Some(1.0))]),
        ),
        ("nobody", (&[], &[produce])),
        ("an empty name", (&[("user", Some(""))], &[produce])),
        (
            "a fraction",
            (&[user], &[("producer_byte_rate", Some(1.5))]),
        ),
        (
            "a fraction of connections",
            (&[("ip", None)], &[("connection_creation_rate", Some(1.5))]),
        ),
        (
            "too many connections",
            (&[("ip", None)], &[("connection_creation_rate", Some(1e10))]),
        ),
        ("zero", (&[user], &[("request_percentage", Some(0.0))])),
        ("one key twice", (&[user], &[produce, produce])),
        ("nothing", (&[user], &[])),
        (
            "a good and a bad one",
            (&[user], &[produce, ("no_such", Some(1.0))]),
        ),
        (
            "what is not set to nothing",
            (&[user], &[("consumer_byte_rate", None)]),
        ),
        ("an unknown one to nothing", (&[user], &[("no_such", None)])),
    ];
    for (step, quota) in cases {
        both.ask(&format!("set {step}"), 1, limiting(&[*quota]))
            .await;
    }
    let twice: Quota<'_> = (&[user], &[("consumer_byte_rate", Some(5e8))]);
    both.ask("set one user twice", 1, limiting(&[twice, twice]))
        .await;
    let ask = |components: &[(&str, i8, Option<&str>)], strict: bool| DescribeClientQuotasRequest {
        components: components
            .iter()
            .map(|(kind, matches, name)| ComponentData {
                entity_type: (*kind).to_owned(),
                match_type: *matches,
                match_: name.map(str::to_owned),
            })
            .collect(),
        strict,
    };
    for strict in [false, true] {
        for (step, components) in [
            ("everything", &[][..]),
            ("a user", &[("user", 0, Some("u"))]),
            ("the default user", &[("user", 1, None)]),
            ("any user", &[("user", 2, None)]),
            (
                "a user's clients",
                &[("user", 0, Some("u")), ("client-id", 2, None)],
            ),
            ("any client", &[("client-id", 2, None)]),
            ("any address", &[("ip", 2, None)]),
            ("an address", &[("ip", 0, Some("10.1.2.3"))]),
            (
                "an address and a user",
                &[("ip", 2, None), ("user", 2, None)],
            ),
            ("exactly nobody", &[("user", 0, None)]),
            ("any with a name", &[("user", 2, Some("u"))]),
            ("the default with a name", &[("user", 1, Some("u"))]),
        ] {
            let step = format!("what is set for {step}, strict {strict}");
            both.ask(&step, 1, ask(components, strict)).await;
        }
    }
    let nothing = |quota: &Quota<'_>| {
        let (names, changes) = *quota;
        let changes: Vec<_> = changes.iter().map(|(key, _)| (*key, None)).collect();
        limiting(&[(names, &changes)])
    };
    for (step, quota) in &cases[..8] {
        both.ask(&format!("remove {step}"), 1, nothing(quota)).await;
    }
    both.ask("remove the last", 1, nothing(&twice)).await;
    both.ask("nothing is set", 1, ask(&[], false)).await;
}

async fn users(both: &mut Both) {
    both.section("users");
    let ask = |users: Option<&[&str]>| DescribeUserScramCredentialsRequest {
        users: users.map(|users| {
            users
                .iter()
                .map(|name| UserName {
                    name: (*name).to_owned(),
                })
                .collect()
        }),
    };
    both.ask("all", 0, ask(None)).await;
    both.ask("nobody", 0, ask(Some(&[]))).await;
    both.ask("a stranger", 0, ask(Some(&["u"]))).await;
    both.ask("one twice", 0, ask(Some(&["u", "u"]))).await;
    both.ask("no name", 0, ask(Some(&[""]))).await;
    let upsert = |name: &str, mechanism: i8, iterations: i32| AlterUserScramCredentialsRequest {
        deletions: Vec::new(),
        upsertions: vec![ScramCredentialUpsertion {
            name: name.to_owned(),
            mechanism,
            iterations,
            salt: Bytes::from_static(b"salt"),
            salted_password: Bytes::from_static(b"password"),
        }],
    };
    both.ask("strange mechanism", 0, upsert("u", 9, 4096)).await;
    both.ask("few iterations", 0, upsert("u", 1, 1)).await;
    both.ask("many iterations", 0, upsert("u", 1, 1_000_000))
        .await;
    both.ask("without name", 0, upsert("", 1, 4096)).await;
    let delete = AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "u".into(),
            mechanism: 1,
        }],
        upsertions: Vec::new(),
    };
    both.ask("delete a stranger", 0, delete).await;
    both.ask("make", 0, upsert("made", 1, 4096)).await;
    both.ask("make with another mechanism", 0, upsert("made", 2, 16384))
        .await;
    both.ask("too many by one", 0, upsert("made", 2, 16385))
        .await;
    both.ask("make another", 0, upsert("another, made=", 2, 8192))
        .await;
    both.ask("those that there are", 0, ask(None)).await;
    both.ask("one and a stranger", 0, ask(Some(&["made", "u"])))
        .await;
    let deletion = |name: &str, mechanism: i8| ScramCredentialDeletion {
        name: name.into(),
        mechanism,
    };
    let mut both_at_once = upsert("made", 1, 5000);
    both_at_once.deletions = vec![deletion("made", 2)];
    both.ask("delete and make at once", 0, both_at_once).await;
    let mut others = upsert("third", 1, 5000);
    others.deletions = vec![deletion("made", 2), deletion("u", 1), deletion("", 1)];
    others
        .upsertions
        .extend(upsert("third", 2, 5000).upsertions);
    others
        .upsertions
        .extend(upsert("fourth", 1, 5000).upsertions);
    both.ask("many at once", 0, others).await;
    both.ask("what became of them", 0, ask(None)).await;
    let deletions = AlterUserScramCredentialsRequest {
        deletions: vec![
            deletion("made", 1),
            deletion("made", 1),
            deletion("fourth", 1),
            deletion("another, made=", 1),
            deletion("third", 7),
        ],
        upsertions: Vec::new(),
    };
    both.ask("delete", 0, deletions).await;
    both.ask("what is left", 0, ask(None)).await;
    let handshake = |mechanism: &str| SaslHandshakeRequest {
        mechanism: mechanism.to_owned(),
    };
    for version in 0..=1 {
        both.ask("handshake", version, handshake("PLAIN")).await;
        both.ask(
            "handshake of a strange mechanism",
            version,
            handshake("MAGIC"),
        )
        .await;
    }
    for version in 0..=2 {
        both.ask(
            "authenticate",
            version,
            SaslAuthenticateRequest {
                auth_bytes: Bytes::from_static(b"\0u\0p"),
            },
        )
        .await;
    }
    for version in 1..=3 {
        both.ask(
            "make a token",
            version,
            CreateDelegationTokenRequest {
                max_lifetime_ms: -1,
                ..CreateDelegationTokenRequest::default()
            },
        )
        .await;
        both.ask(
            "describe tokens",
            version,
            DescribeDelegationTokenRequest { owners: None },
        )
        .await;
    }
    for version in 1..=2 {
        both.ask(
            "renew a token",
            version,
            RenewDelegationTokenRequest {
                hmac: Bytes::from_static(b"h"),
                renew_period_ms: 1,
            },
        )
        .await;
        both.ask(
            "end a token",
            version,
            ExpireDelegationTokenRequest {
                hmac: Bytes::from_static(b"h"),
                expiry_time_period_ms: 1,
            },
        )
        .await;
    }
}

async fn rights(both: &mut Both) {
    both.section("rights");
    let any = DescribeAclsRequest {
        resource_type_filter: 1,
        pattern_type_filter: 1,
        operation: 1,
        permission_type: 1,
        ..DescribeAclsRequest::default()
    };
    for version in 1..=3 {
        both.ask("describe", version, any.clone()).await;
        let create = CreateAclsRequest {
            creations: vec![AclCreation {
                resource_type: 2,
                resource_name: "moved".into(),
                resource_pattern_type: 3,
                principal: "User:u".into(),
                host: "*".into(),
                operation: 3,
                permission_type: 3,
            }],
        };
        both.ask("create", version, create).await;
        let delete = DeleteAclsRequest {
            filters: vec![DeleteAclsFilter {
                resource_type_filter: 1,
                pattern_type_filter: 1,
                operation: 1,
                permission_type: 1,
                ..DeleteAclsFilter::default()
            }],
        };
        both.ask("delete", version, delete).await;
    }
    both.section("config resources");
    both.ask("metrics", 0, ListConfigResourcesRequest::default())
        .await;
    for kinds in [&[][..], &[2], &[4], &[8], &[16], &[32], &[77], &[2, 4]] {
        let request = ListConfigResourcesRequest {
            resource_types: kinds.to_vec(),
        };
        both.ask(&format!("kinds {kinds:?}"), 1, request).await;
    }
}
