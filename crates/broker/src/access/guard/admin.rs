//! Requests of administrators.

use std::any::Any;

use kafka::error::ErrorCode;
use kafka::messages::ApiKey;
use kafka::messages::alter_configs::{self, AlterConfigsRequest};
use kafka::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
};
use kafka::messages::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use kafka::messages::delete_acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};
use kafka::messages::describe_acls::DescribeAclsRequest;
use kafka::messages::describe_client_quotas::DescribeClientQuotasRequest;
use kafka::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResult};
use kafka::messages::describe_log_dirs::DescribeLogDirsRequest;
use kafka::messages::describe_quorum::DescribeQuorumRequest;
use kafka::messages::describe_user_scram_credentials::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResult,
};
use kafka::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use kafka::messages::list_config_resources::ListConfigResourcesRequest;
use kafka::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;

use super::operator;
use super::topics::{self, NOT_YOURS};
use super::{
    Answer, CLUSTER, GROUP, Guard, Kind, Operation, Outcome, TOPIC, after, of, take, whole,
};
use crate::dispatch::Call;

/// Kinds of what has settings.
const OF_TOPIC: i8 = 2;
const OF_GROUP: i8 = 32;

pub(super) fn look(call: &Call, api: ApiKey, request: &mut dyn Any) -> Guard {
    let describe = call.cluster(Operation::Describe);
    match api {
        ApiKey::DescribeCluster => topics::cluster(call, request),
        ApiKey::DescribeConfigs => describe_configs(call, request),
        ApiKey::AlterConfigs => alter_configs(call, request),
        ApiKey::IncrementalAlterConfigs => increment_configs(call, request),
        ApiKey::ListConfigResources => {
            let refused = call.cluster(Operation::DescribeConfigs);
            whole::<ListConfigResourcesRequest>(request, refused, |it, code| it.error_code = code)
        }
        ApiKey::DescribeClientQuotas => {
            let refused = call.cluster(Operation::DescribeConfigs);
            whole::<DescribeClientQuotasRequest>(request, refused, |it, code| {
                it.error_code = code;
                it.entries = None;
            })
        }
        ApiKey::DescribeAcls => {
            whole::<DescribeAclsRequest>(request, describe, |it, code| it.error_code = code)
        }
        ApiKey::DescribeUserScramCredentials => {
            let named = request
                .downcast_ref::<DescribeUserScramCredentialsRequest>()
                .and_then(|request| request.users.as_ref())
                .map_or(0, Vec::len);
            whole::<DescribeUserScramCredentialsRequest>(request, describe, |it, code| {
                it.error_code = code;
                // Kafka tells it of each once more, without its name.
                let refused = DescribeUserScramCredentialsResult {
                    error_code: code,
                    ..DescribeUserScramCredentialsResult::default()
                };
                it.results = vec![refused; named];
            })
        }
        ApiKey::DescribeLogDirs => {
            whole::<DescribeLogDirsRequest>(request, describe, |it, code| it.error_code = code)
        }
        ApiKey::DescribeQuorum => {
            whole::<DescribeQuorumRequest>(request, describe, |it, code| it.error_code = code)
        }
        ApiKey::ListPartitionReassignments => {
            whole::<ListPartitionReassignmentsRequest>(request, describe, |it, code| {
                it.error_code = code;
            })
        }
        ApiKey::CreateAcls => create_acls(call, request),
        ApiKey::DeleteAcls => delete_acls(call, request),
        ApiKey::AlterUserScramCredentials => alter_users(call, request),
        ApiKey::WriteTxnMarkers
        | ApiKey::AlterClientQuotas
        | ApiKey::ElectLeaders
        | ApiKey::AlterPartitionReassignments
        | ApiKey::AlterReplicaLogDirs
        | ApiKey::UpdateFeatures
        | ApiKey::UnregisterBroker => operator::look(call, api, request),
        // What is left of them changes the cluster.
        _ => may(call.cluster(Operation::Alter)),
    }
}

fn may(refused: Option<ErrorCode>) -> Guard {
    match refused {
        None => Guard::Pass,
        Some(_) => Guard::Close,
    }
}

/// Says why a resource's settings may not be looked at or changed.
fn of_resource(
    call: &Call,
    operation: Operation,
    kind: i8,
    name: &str,
) -> Option<(ErrorCode, String)> {
    let (refused, code) = match kind {
        OF_TOPIC => (!call.may_topic(operation, name), TOPIC),
        OF_GROUP => (!call.client.may(operation, Kind::Group, name), GROUP),
        _ => (call.cluster(operation).is_some(), CLUSTER),
    };
    refused.then(|| (code, code.message().to_owned()))
}

fn describe_configs(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DescribeConfigsRequest>(request, |request| {
        let refuse = |kind, name: &str| of_resource(call, Operation::DescribeConfigs, kind, name);
        let denied = take(&mut request.resources, |one| {
            refuse(one.resource_type, &one.resource_name).is_none()
        });
        let refused = denied.into_iter().filter_map(|one| {
            let (code, why) = refuse(one.resource_type, &one.resource_name)?;
            Some(DescribeConfigsResult {
                error_code: code.code(),
                error_message: Some(why),
                resource_type: one.resource_type,
                resource_name: one.resource_name,
                ..DescribeConfigsResult::default()
            })
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<DescribeConfigsRequest>| response.results.extend(refused))
    })
}

fn alter_configs(call: &Call, request: &mut dyn Any) -> Guard {
    of::<AlterConfigsRequest>(request, |request| {
        let refuse = |kind, name: &str| of_resource(call, Operation::AlterConfigs, kind, name);
        let denied = take(&mut request.resources, |one| {
            refuse(one.resource_type, &one.resource_name).is_none()
        });
        let refused = denied.into_iter().filter_map(|one| {
            let (code, why) = refuse(one.resource_type, &one.resource_name)?;
            Some(alter_configs::AlterConfigsResourceResponse {
                error_code: code.code(),
                error_message: Some(why),
                resource_type: one.resource_type,
                resource_name: one.resource_name,
            })
        });
        let refused: Vec<_> = refused.collect();
        after(move |response: &mut Answer<AlterConfigsRequest>| response.responses.extend(refused))
    })
}

fn increment_configs(call: &Call, request: &mut dyn Any) -> Guard {
    of::<IncrementalAlterConfigsRequest>(request, |request| {
        let refuse = |kind, name: &str| of_resource(call, Operation::AlterConfigs, kind, name);
        let denied = take(&mut request.resources, |one| {
            refuse(one.resource_type, &one.resource_name).is_none()
        });
        let refused = denied.into_iter().filter_map(|one| {
            let (code, why) = refuse(one.resource_type, &one.resource_name)?;
            Some(incremental_alter_configs::AlterConfigsResourceResponse {
                error_code: code.code(),
                error_message: Some(why),
                resource_type: one.resource_type,
                resource_name: one.resource_name,
            })
        });
        let refused: Vec<_> = refused.collect();
        after(
            move |response: &mut Answer<IncrementalAlterConfigsRequest>| {
                response.responses.extend(refused)
            },
        )
    })
}

fn create_acls(call: &Call, request: &mut dyn Any) -> Guard {
    of::<CreateAclsRequest>(request, |request| match call.cluster(Operation::Alter) {
        None => Outcome::Pass,
        Some(_) => {
            let refused = AclCreationResult {
                error_code: NOT_YOURS,
                ..AclCreationResult::default()
            };
            Outcome::Instead(CreateAclsResponse {
                results: vec![refused; request.creations.len()],
                ..CreateAclsResponse::default()
            })
        }
    })
}

fn delete_acls(call: &Call, request: &mut dyn Any) -> Guard {
    of::<DeleteAclsRequest>(request, |request| match call.cluster(Operation::Alter) {
        None => Outcome::Pass,
        Some(_) => {
            let refused = DeleteAclsFilterResult {
                error_code: NOT_YOURS,
                ..DeleteAclsFilterResult::default()
            };
            Outcome::Instead(DeleteAclsResponse {
                filter_results: vec![refused; request.filters.len()],
                ..DeleteAclsResponse::default()
            })
        }
    })
}

fn alter_users(call: &Call, request: &mut dyn Any) -> Guard {
    of::<AlterUserScramCredentialsRequest>(request, |request| {
        if call.cluster(Operation::Alter).is_none() {
            return Outcome::Pass;
        }
        let deleted = request.deletions.iter().map(|one| &one.name);
        let named = deleted.chain(request.upsertions.iter().map(|one| &one.name));
        let named: std::collections::BTreeSet<&String> = named.collect();
        let refused = named
            .into_iter()
            .map(|user| AlterUserScramCredentialsResult {
                user: user.clone(),
                error_code: NOT_YOURS,
                ..AlterUserScramCredentialsResult::default()
            });
        Outcome::Instead(AlterUserScramCredentialsResponse {
            results: refused.collect(),
            ..AlterUserScramCredentialsResponse::default()
        })
    })
}
