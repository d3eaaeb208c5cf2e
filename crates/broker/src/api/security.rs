//! What a listener without authentication, and a broker without authorization, answer about them.

use kafka::error::ErrorCode;
use kafka::messages::create_acls::{AclCreationResult, CreateAclsRequest, CreateAclsResponse};
use kafka::messages::create_delegation_token::{
    CreateDelegationTokenRequest, CreateDelegationTokenResponse,
};
use kafka::messages::delete_acls::{DeleteAclsFilterResult, DeleteAclsRequest, DeleteAclsResponse};
use kafka::messages::describe_acls::{DescribeAclsRequest, DescribeAclsResponse};
use kafka::messages::describe_delegation_token::{
    DescribeDelegationTokenRequest, DescribeDelegationTokenResponse,
};
use kafka::messages::expire_delegation_token::{
    ExpireDelegationTokenRequest, ExpireDelegationTokenResponse,
};
use kafka::messages::renew_delegation_token::{
    RenewDelegationTokenRequest, RenewDelegationTokenResponse,
};
use kafka::messages::sasl_authenticate::{SaslAuthenticateRequest, SaslAuthenticateResponse};
use kafka::messages::sasl_handshake::{SaslHandshakeRequest, SaslHandshakeResponse};

use super::acls;
use crate::auth::Principal;
use crate::connection::sasl::REFUSAL_DELAY;
use crate::dispatch::Call;
use crate::listener::Protocol;

const NO_AUTHORIZER: &str = "No Authorizer is configured.";
const NO_EXCHANGE: &str = "no SASL exchange may begin on this connection";

/// Says why nobody gets a token, and the time that Kafka tells beside it.
fn no_tokens(call: &Call) -> (i16, i64) {
    let known = match call.client.serving.listener.protocol {
        Protocol::Plaintext => false,
        Protocol::Ssl => call.client.principal != Principal::Anonymous,
        Protocol::SaslPlaintext | Protocol::SaslSsl => true,
    };
    match known {
        // Who is not known could not be told apart from another.
        false => (ErrorCode::DelegationTokenRequestNotAllowed.code(), -1),
        true => (ErrorCode::DelegationTokenAuthDisabled.code(), 0),
    }
}

pub(crate) async fn describe_acls(
    call: Call,
    request: DescribeAclsRequest,
) -> DescribeAclsResponse {
    if let Some(access) = &call.core().access {
        return acls::describe(access, request);
    }
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER.to_owned()),
        ..DescribeAclsResponse::default()
    }
}

pub(crate) async fn create_acls(call: Call, request: CreateAclsRequest) -> CreateAclsResponse {
    if let Some(access) = &call.core().access {
        return acls::create(access.clone(), request).await;
    }
    let refused = AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER.to_owned()),
    };
    CreateAclsResponse {
        results: vec![refused; request.creations.len()],
        ..CreateAclsResponse::default()
    }
}

pub(crate) async fn delete_acls(call: Call, request: DeleteAclsRequest) -> DeleteAclsResponse {
    if let Some(access) = &call.core().access {
        return acls::delete(access.clone(), request).await;
    }
    let refused = DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER.to_owned()),
        ..DeleteAclsFilterResult::default()
    };
    DeleteAclsResponse {
        filter_results: vec![refused; request.filters.len()],
        ..DeleteAclsResponse::default()
    }
}

/// Where sessions have an end, a client may prove again who it is; else no exchange can begin any more.
pub(crate) async fn handshake(call: Call, request: SaslHandshakeRequest) -> SaslHandshakeResponse {
    match &call.client.session {
        Some(session) => session.handshake(&call.client.serving.listener, &request.mechanism),
        None => SaslHandshakeResponse {
            error_code: ErrorCode::IllegalSaslState.code(),
            ..SaslHandshakeResponse::default()
        },
    }
}

pub(crate) async fn authenticate(
    call: Call,
    request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let Some(session) = &call.client.session else {
        return SaslAuthenticateResponse {
            error_code: ErrorCode::IllegalSaslState.code(),
            error_message: Some(NO_EXCHANGE.to_owned()),
            ..SaslAuthenticateResponse::default()
        };
    };
    let response = session.authenticate(&call.client, &request.auth_bytes);
    if response.error_code != ErrorCode::None.code() {
        tokio::time::sleep(REFUSAL_DELAY).await;
    }
    SaslAuthenticateResponse {
        session_lifetime_ms: match call.version {
            0 => 0,
            _ => response.session_lifetime_ms,
        },
        ..response
    }
}

pub(crate) async fn create_token(
    call: Call,
    _: CreateDelegationTokenRequest,
) -> CreateDelegationTokenResponse {
    let (error_code, time) = no_tokens(&call);
    let principal = &call.client.principal;
    let own = || (Principal::KIND.to_owned(), principal.name().to_owned());
    let (principal_type, principal_name) = own();
    let (token_requester_principal_type, token_requester_principal_name) = match call.version {
        ..3 => Default::default(),
        _ => own(),
    };
    CreateDelegationTokenResponse {
        error_code,
        principal_type,
        principal_name,
        token_requester_principal_type,
        token_requester_principal_name,
        issue_timestamp_ms: time,
        expiry_timestamp_ms: time,
        max_timestamp_ms: time,
        ..CreateDelegationTokenResponse::default()
    }
}

pub(crate) async fn renew_token(
    call: Call,
    _: RenewDelegationTokenRequest,
) -> RenewDelegationTokenResponse {
    let (error_code, expiry_timestamp_ms) = no_tokens(&call);
    RenewDelegationTokenResponse {
        error_code,
        expiry_timestamp_ms,
        ..RenewDelegationTokenResponse::default()
    }
}

pub(crate) async fn expire_token(
    call: Call,
    _: ExpireDelegationTokenRequest,
) -> ExpireDelegationTokenResponse {
    let (error_code, expiry_timestamp_ms) = no_tokens(&call);
    ExpireDelegationTokenResponse {
        error_code,
        expiry_timestamp_ms,
        ..ExpireDelegationTokenResponse::default()
    }
}

pub(crate) async fn describe_tokens(
    call: Call,
    _: DescribeDelegationTokenRequest,
) -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse {
        error_code: no_tokens(&call).0,
        ..DescribeDelegationTokenResponse::default()
    }
}
