//! DescribeAcls, CreateAcls and DeleteAcls: rules of who may do what, where the configuration asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use kafka::messages::delete_acls::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsRequest, DeleteAclsResponse,
};
use kafka::messages::describe_acls::{
    AclDescription, DescribeAclsRequest, DescribeAclsResource, DescribeAclsResponse,
};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::access::Access;
use crate::access::rules::{Filter, Rule};

const UNKNOWN: &str = "a filter with something that is not known";
const NOT_STORED: &str = "the disk has refused the change";

pub(crate) fn describe(access: &Access, request: DescribeAclsRequest) -> DescribeAclsResponse {
    let filter = Filter {
        kind: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    };
    if !filter.is_known() {
        return DescribeAclsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some(UNKNOWN.to_owned()),
            ..DescribeAclsResponse::default()
        };
    }
    let mut resources: BTreeMap<(i8, String, i8), Vec<AclDescription>> = BTreeMap::new();
    for rule in access.find(&filter) {
        let resource = (rule.kind, rule.name, rule.pattern);
        resources.entry(resource).or_default().push(AclDescription {
            principal: rule.principal,
            host: rule.host,
            operation: rule.operation,
            permission_type: rule.permission,
        });
    }
    let resource = |((resource_type, resource_name, pattern_type), acls)| DescribeAclsResource {
        resource_type,
        resource_name,
        pattern_type,
        acls,
    };
    DescribeAclsResponse {
        resources: resources.into_iter().map(resource).collect(),
        ..DescribeAclsResponse::default()
    }
}

pub(crate) async fn create(access: Arc<Access>, request: CreateAclsRequest) -> CreateAclsResponse {
    let mut results = Vec::new();
    let mut good = Vec::new();
    for creation in request.creations {
        let rule = Rule {
            kind: creation.resource_type,
            name: creation.resource_name,
            pattern: creation.resource_pattern_type,
            principal: creation.principal,
            host: creation.host,
            operation: creation.operation,
            permission: creation.permission_type,
        };
        let checked = rule.check();
        results.push(match &checked {
            Ok(()) => AclCreationResult::default(),
            Err(why) => AclCreationResult {
                error_code: ErrorCode::InvalidRequest.code(),
                error_message: Some(why.clone()),
            },
        });
        good.extend(checked.is_ok().then_some(rule));
    }
    let stored = spawn_blocking(move || access.add(good)).await;
    if let Err(cause) = stored.expect("a change of rules does not panic") {
        error!(%cause, "could not store rules");
        for result in results.iter_mut().filter(|result| result.error_code == 0) {
            result.error_code = ErrorCode::UnknownServerError.code();
            result.error_message = Some(NOT_STORED.to_owned());
        }
    }
    CreateAclsResponse {
        results,
        ..CreateAclsResponse::default()
    }
}

pub(crate) async fn delete(access: Arc<Access>, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let filters = request.filters.into_iter().map(|filter| Filter {
        kind: filter.resource_type_filter,
        name: filter.resource_name_filter,
        pattern: filter.pattern_type_filter,
        principal: filter.principal_filter,
        host: filter.host_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    });
    let filters: Vec<Filter> = filters.collect();
    let known: Vec<bool> = filters.iter().map(Filter::is_known).collect();
    let good: Vec<Filter> = filters.into_iter().filter(Filter::is_known).collect();
    let removed = spawn_blocking(move || access.remove(&good)).await;
    let removed = removed.expect("a change of rules does not panic");
    let failed = |code: ErrorCode, why: &str| DeleteAclsFilterResult {
        error_code: code.code(),
        error_message: Some(why.to_owned()),
        ..DeleteAclsFilterResult::default()
    };
    let mut removed = match removed {
        Ok(removed) => Ok(removed.into_iter()),
        Err(cause) => {
            error!(%cause, "could not store rules");
            Err(())
        }
    };
    let result = |known| match (known, &mut removed) {
        (false, _) => failed(ErrorCode::InvalidRequest, UNKNOWN),
        (true, Err(())) => failed(ErrorCode::UnknownServerError, NOT_STORED),
        (true, Ok(removed)) => DeleteAclsFilterResult {
            matching_acls: removed.next().into_iter().flatten().map(gone).collect(),
            ..DeleteAclsFilterResult::default()
        },
    };
    DeleteAclsResponse {
        filter_results: known.into_iter().map(result).collect(),
        ..DeleteAclsResponse::default()
    }
}

fn gone(rule: Rule) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl {
        resource_type: rule.kind,
        resource_name: rule.name,
        pattern_type: rule.pattern,
        principal: rule.principal,
        host: rule.host,
        operation: rule.operation,
        permission_type: rule.permission,
        ..DeleteAclsMatchingAcl::default()
    }
}
