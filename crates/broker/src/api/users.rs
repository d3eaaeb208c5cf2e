//! DescribeUserScramCredentials and AlterUserScramCredentials: users that are kept by the broker.

use std::collections::BTreeMap;

use kafka::error::ErrorCode;
use kafka::messages::alter_user_scram_credentials::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AlterUserScramCredentialsResult,
};
use kafka::messages::describe_user_scram_credentials::{
    CredentialInfo, DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
    DescribeUserScramCredentialsResult,
};
use tokio::task::spawn_blocking;

use crate::auth::users::{Upsert, Users};
use crate::dispatch::Call;

pub(crate) async fn describe(
    call: Call,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let users = &call.core().users;
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    match request.users {
        Some(named) if !named.is_empty() => {
            for user in named {
                *asked.entry(user.name).or_default() += 1;
            }
        }
        _ => asked.extend(users.names().into_iter().map(|name| (name, 1))),
    }
    let results = asked.into_iter();
    DescribeUserScramCredentialsResponse {
        results: results
            .map(|(name, times)| tell(users, name, times))
            .collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}

fn tell(users: &Users, user: String, times: usize) -> DescribeUserScramCredentialsResult {
    let refuse = |code: ErrorCode, why: &str| DescribeUserScramCredentialsResult {
        error_code: code.code(),
        error_message: Some(format!("{why}: {user}")),
        user: user.clone(),
        ..DescribeUserScramCredentialsResult::default()
    };
    if times > 1 {
        let why = "Cannot describe SCRAM credentials for the same user twice in a single request";
        return refuse(ErrorCode::DuplicateResource, why);
    }
    let Some(credentials) = users.describe(&user) else {
        let why = "Attempt to describe a user credential that does not exist";
        return refuse(ErrorCode::ResourceNotFound, why);
    };
    let infos = credentials
        .into_iter()
        .map(|(hash, iterations)| CredentialInfo {
            mechanism: hash.number(),
            iterations,
        });
    DescribeUserScramCredentialsResult {
        credential_infos: infos.collect(),
        user,
        ..DescribeUserScramCredentialsResult::default()
    }
}

pub(crate) async fn alter(
    call: Call,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let deletions: Vec<(String, i8)> = request
        .deletions
        .into_iter()
        .map(|deletion| (deletion.name, deletion.mechanism))
        .collect();
    let upserts: Vec<Upsert> = request
        .upsertions
        .into_iter()
        .map(|upsert| Upsert {
            name: upsert.name,
            mechanism: upsert.mechanism,
            iterations: upsert.iterations,
            salt: upsert.salt.to_vec(),
            salted: upsert.salted_password.to_vec(),
        })
        .collect();
    let users = call.core().users.clone();
    let results = spawn_blocking(move || users.alter(deletions, upserts)).await;
    let result = |(user, result): (String, Result<(), crate::auth::users::Fault>)| {
        let (code, why) = match result {
            Ok(()) => (ErrorCode::None, None),
            Err((code, why)) => (code, Some(why.to_owned())),
        };
        AlterUserScramCredentialsResult {
            user,
            error_code: code.code(),
            error_message: why,
        }
    };
    let results = results.expect("a change of users does not panic");
    AlterUserScramCredentialsResponse {
        results: results.into_iter().map(result).collect(),
        ..AlterUserScramCredentialsResponse::default()
    }
}
