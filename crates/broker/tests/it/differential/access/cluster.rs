//! Settings, and the cluster itself.

use kafka::messages::alter_client_quotas::{
    AlterClientQuotasRequest, EntityData, EntryData, OpData,
};
use kafka::messages::alter_configs::{self, AlterConfigsRequest};
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
use kafka::messages::describe_client_quotas::DescribeClientQuotasRequest;
use kafka::messages::describe_cluster::DescribeClusterRequest;
use kafka::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka::messages::describe_delegation_token::DescribeDelegationTokenRequest;
use kafka::messages::describe_log_dirs::DescribeLogDirsRequest;
use kafka::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use kafka::messages::describe_user_scram_credentials::DescribeUserScramCredentialsRequest;
use kafka::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use kafka::messages::expire_delegation_token::ExpireDelegationTokenRequest;
use kafka::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use kafka::messages::list_config_resources::ListConfigResourcesRequest;
use kafka::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use kafka::messages::renew_delegation_token::RenewDelegationTokenRequest;
use kafka::messages::unregister_broker::UnregisterBrokerRequest;
use kafka::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use kafka::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};

use super::super::Both;
use super::{DAN, FAY, LITERAL, any_rule};

/// What has settings, by Kafka's numbers.
const RESOURCES: [(i8, &str); 7] = [
    (2, "none"),
    (2, "seen"),
    (2, "all"),
    (2, "pre-a"),
    (2, "absent"),
    (32, "g-none"),
    (32, "g-all"),
];

pub(super) async fn run(both: &mut Both, user: &str) {
    settings(both, user).await;
    looks(both, user).await;
    changes(both, user).await;
    rules(both, user).await;
    tokens(both, user).await;
}

async fn settings(both: &mut Both, user: &str) {
    both.section("settings");
    for version in [1, 4] {
        for (kind, name) in RESOURCES {
            let request = DescribeConfigsRequest {
                resources: vec![DescribeConfigsResource {
                    resource_type: kind,
                    resource_name: name.to_owned(),
                    configuration_keys: Some(vec!["retention.ms".into()]),
                }],
                ..DescribeConfigsRequest::default()
            };
            both.by(user, &format!("of {kind} {name}"), version, request)
                .await;
        }
        let together = DescribeConfigsRequest {
            resources: [(2, "none"), (2, "all"), (4, "1"), (8, "1"), (16, "m")]
                .map(|(kind, name)| DescribeConfigsResource {
                    resource_type: kind,
                    resource_name: name.to_owned(),
                    configuration_keys: Some(vec!["retention.ms".into()]),
                })
                .into(),
            ..DescribeConfigsRequest::default()
        };
        if user != DAN {
            both.by(user, "together", version, together).await;
        }
    }
    let resources = RESOURCES.into_iter().chain([(4, "1"), (4, "")]);
    for (kind, name) in resources {
        // Settings of brokers and groups are another matter where they may be changed.
        if user == FAY && kind != 2 {
            continue;
        }
        let (setting, value) = match kind {
            2 => ("retention.ms", "77000"),
            32 => ("consumer.session.timeout.ms", "46000"),
            _ => ("log.retention.ms", "77000"),
        };
        let request = AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configs: vec![alter_configs::AlterableConfig {
                    name: setting.into(),
                    value: Some(value.into()),
                }],
            }],
            validate_only: true,
        };
        both.by(user, &format!("alter {kind} {name:?}"), 2, request)
            .await;
        let request = IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs::AlterConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configs: vec![incremental_alter_configs::AlterableConfig {
                    name: setting.into(),
                    config_operation: 0,
                    value: Some(value.into()),
                }],
            }],
            validate_only: true,
        };
        both.by(user, &format!("set {kind} {name:?}"), 1, request)
            .await;
    }
    for version in 0..=1 {
        let request = ListConfigResourcesRequest {
            resource_types: if version == 0 { Vec::new() } else { vec![16] },
        };
        both.by(user, "list", version, request).await;
    }
}

async fn looks(both: &mut Both, user: &str) {
    both.section("looks");
    for version in 0..=2 {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: true,
            ..DescribeClusterRequest::default()
        };
        both.by(user, "cluster", version, request).await;
    }
    // What the log of the cluster and the disk are like is no matter of rights.
    if user != DAN && user != FAY {
        for version in 0..=2 {
            let request = DescribeQuorumRequest {
                topics: vec![TopicData {
                    topic_name: "__cluster_metadata".into(),
                    partitions: vec![PartitionData::default()],
                }],
            };
            both.by(user, "quorum", version, request).await;
        }
        for version in 1..=4 {
            let request = DescribeLogDirsRequest {
                topics: Some(Vec::new()),
            };
            both.by(user, "folders", version, request).await;
        }
    }
    for version in 0..=1 {
        let request = DescribeClientQuotasRequest::default();
        both.by(user, "quotas", version, request).await;
    }
    let request = DescribeUserScramCredentialsRequest {
        users: Some(vec![
            kafka::messages::describe_user_scram_credentials::UserName {
                name: "nobody".into(),
            },
        ]),
    };
    both.by(user, "credentials", 0, request).await;
    let request = ListPartitionReassignmentsRequest::default();
    both.by(user, "moves", 0, request).await;
}

async fn changes(both: &mut Both, user: &str) {
    both.section("changes");
    for version in 0..=2 {
        let elect = ElectLeadersRequest {
            topic_partitions: Some(vec![TopicPartitions {
                topic: "all".into(),
                partitions: vec![0, 7],
            }]),
            ..ElectLeadersRequest::default()
        };
        both.by(user, "elect", version, elect).await;
        if user != FAY {
            let all = ElectLeadersRequest {
                topic_partitions: None,
                ..ElectLeadersRequest::default()
            };
            both.by(user, "elect all", version, all).await;
        }
    }
    for version in 0..=1 {
        let request = AlterPartitionReassignmentsRequest {
            topics: vec![ReassignableTopic {
                name: "all".into(),
                partitions: vec![
                    ReassignablePartition {
                        partition_index: 0,
                        replicas: None,
                    },
                    ReassignablePartition {
                        partition_index: 7,
                        replicas: None,
                    },
                ],
            }],
            ..AlterPartitionReassignmentsRequest::default()
        };
        both.by(user, "move", version, request).await;
    }
    for version in 1..=2 {
        let request = AlterReplicaLogDirsRequest {
            dirs: vec![AlterReplicaLogDir {
                path: "/nowhere".into(),
                topics: vec![AlterReplicaLogDirTopic {
                    name: "all".into(),
                    partitions: vec![0, 7],
                }],
            }],
        };
        both.by(user, "folders", version, request).await;
    }
    for version in 0..=1 {
        let entity = |name: &str| EntityData {
            entity_type: "user".into(),
            entity_name: Some(name.into()),
        };
        let entry = |name: &str| EntryData {
            entity: vec![entity(name)],
            ops: vec![OpData {
                key: "producer_byte_rate".into(),
                value: 1e9,
                remove: false,
            }],
        };
        let request = AlterClientQuotasRequest {
            entries: vec![entry("u"), entry("v")],
            validate_only: true,
        };
        both.by(user, "quotas", version, request).await;
    }
    for version in 0..=2 {
        let request = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: "no.such.feature".into(),
                max_version_level: 1,
                ..FeatureUpdateKey::default()
            }],
            ..UpdateFeaturesRequest::default()
        };
        both.by(user, "features", version, request).await;
    }
    let request = UnregisterBrokerRequest { broker_id: 77 };
    both.by(user, "unregister", 0, request).await;
    for version in 1..=2 {
        let request = WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: 1 << 40,
                topics: vec![WritableTxnMarkerTopic {
                    name: "absent".into(),
                    partition_indexes: vec![0, 1],
                }],
                ..WritableTxnMarker::default()
            }],
        };
        both.by(user, "markers", version, request).await;
    }
    let request = AlterUserScramCredentialsRequest {
        deletions: vec![ScramCredentialDeletion {
            name: "nobody".into(),
            mechanism: 1,
        }],
        upsertions: vec![ScramCredentialUpsertion {
            name: format!("of-{user}"),
            mechanism: 1,
            iterations: 4096,
            salt: (&b"salt"[..]).into(),
            salted_password: (&b"salted"[..]).into(),
        }],
    };
    both.by(user, "credentials", 0, request).await;
}

async fn rules(both: &mut Both, user: &str) {
    both.section("rules");
    for version in 1..=3 {
        let any = any_rule();
        both.by(user, "describe", version, any).await;
        let creation = AclCreation {
            resource_type: 2,
            resource_name: "own".into(),
            resource_pattern_type: LITERAL,
            principal: format!("User:{user}"),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
        };
        let create = CreateAclsRequest {
            creations: vec![creation; 2],
        };
        both.by(user, "create", version, create).await;
        let filter = DeleteAclsFilter {
            resource_type_filter: 2,
            resource_name_filter: Some("own".into()),
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
            ..DeleteAclsFilter::default()
        };
        let delete = DeleteAclsRequest {
            filters: vec![filter.clone(), filter],
        };
        both.by(user, "delete", version, delete).await;
    }
}

async fn tokens(both: &mut Both, user: &str) {
    both.section("tokens");
    for version in 1..=3 {
        let make = CreateDelegationTokenRequest {
            max_lifetime_ms: -1,
            ..CreateDelegationTokenRequest::default()
        };
        both.by(user, "make", version, make).await;
        let describe = DescribeDelegationTokenRequest { owners: None };
        both.by(user, "describe", version, describe).await;
    }
    for version in 1..=2 {
        let renew = RenewDelegationTokenRequest {
            hmac: (&b"h"[..]).into(),
            renew_period_ms: 1,
        };
        both.by(user, "renew", version, renew).await;
        let end = ExpireDelegationTokenRequest {
            hmac: (&b"h"[..]).into(),
            expiry_time_period_ms: 1,
        };
        both.by(user, "end", version, end).await;
    }
}
