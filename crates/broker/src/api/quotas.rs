//! DescribeClientQuotas and AlterClientQuotas.

use std::collections::BTreeMap;

use kafka::error::ErrorCode;
use kafka::messages::alter_client_quotas::{
    self as alter, AlterClientQuotasRequest, AlterClientQuotasResponse,
};
use kafka::messages::describe_client_quotas::{
    ComponentData, DescribeClientQuotasRequest, DescribeClientQuotasResponse, EntityData,
    EntryData, ValueData,
};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::dispatch::Call;
use crate::quota::table::{CLIENT, Entity, IP, Match, Refused, Table, USER};

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(crate) async fn describe(
    call: Call,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let wanted = match filter(request.components) {
        Ok(wanted) => wanted,
        Err((code, why)) => {
            return DescribeClientQuotasResponse {
                error_code: code.code(),
                error_message: Some(why),
                entries: None,
                ..DescribeClientQuotasResponse::default()
            };
        }
    };
    let table = call.core().quotas.table();
    let entries = table
        .matching(&wanted, request.strict)
        .map(|(entity, values)| EntryData {
            entity: entity
                .iter()
                .map(|(entity_type, entity_name)| EntityData {
                    entity_type: entity_type.clone(),
                    entity_name: entity_name.clone(),
                })
                .collect(),
            values: values
                .iter()
                .map(|(key, value)| ValueData {
                    key: key.clone(),
                    value: *value,
                })
                .collect(),
        });
    DescribeClientQuotasResponse {
        error_message: None,
        entries: Some(entries.collect()),
        ..DescribeClientQuotasResponse::default()
    }
}

fn filter(components: Vec<ComponentData>) -> Result<BTreeMap<String, Match>, Refused> {
    let invalid = |why: String| Err((ErrorCode::InvalidRequest, why));
    let mut wanted = BTreeMap::new();
    for one in components {
        let kind = one.entity_type;
        if kind.is_empty() {
            return invalid("Invalid empty entity type.".into());
        }
        if wanted.contains_key(&kind) {
            return invalid(format!(
                "Entity type {kind} cannot appear more than once in the filter."
            ));
        }
        if ![USER, CLIENT, IP].contains(&kind.as_str()) {
            let why = format!("Unsupported entity type {kind}");
            return Err((ErrorCode::UnsupportedVersion, why));
        }
        let found = match (one.match_type, one.match_) {
            (EXACT, Some(name)) => Match::Exact(Some(name)),
            (EXACT, None) => return invalid("an exact match needs a name".into()),
            (DEFAULT, None) => Match::Exact(None),
            (ANY, None) => Match::Any,
            (DEFAULT | ANY, Some(_)) => return invalid("only an exact match has a name".into()),
            (other, _) => return invalid(format!("Unknown match type {other}")),
        };
        wanted.insert(kind, found);
    }
    match wanted.contains_key(IP) && wanted.len() > 1 {
        true => invalid(
            "Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component."
                .into(),
        ),
        false => Ok(wanted),
    }
}

pub(crate) async fn alter(
    call: Call,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let core = call.core().clone();
    let entities: Vec<_> = request
        .entries
        .iter()
        .map(|one| one.entity.clone())
        .collect();
    let changed = spawn_blocking(move || {
        let entries = request.entries;
        if request.validate_only {
            let mut checked = Table::clone(&core.quotas.table());
            return Ok(altered(&mut checked, entries));
        }
        core.quotas.change(|table| altered(table, entries))
    });
    let changed = changed.await.unwrap_or_else(|error| Err(error.into()));
    let entries = changed.unwrap_or_else(|source| {
        error!(error = ?source, "the disk refused a change of quotas");
        let failed = entities.into_iter().map(|entity| alter::EntryResult {
            error_code: ErrorCode::KafkaStorageError.code(),
            error_message: Some("the disk refused".to_owned()),
            entity,
        });
        failed.collect()
    });
    AlterClientQuotasResponse {
        entries,
        ..AlterClientQuotasResponse::default()
    }
}

/// Makes the changes that are good, and says of each entity what became of it.
fn altered(table: &mut Table, entries: Vec<alter::EntryData>) -> Vec<alter::EntryResult> {
    let mut told: BTreeMap<Entity, Result<(), Refused>> = BTreeMap::new();
    for entry in entries {
        let names = entry.entity.into_iter();
        let entity: Entity = names
            .map(|one| (one.entity_type, one.entity_name))
            .collect();
        let changes: Vec<(String, Option<f64>)> = entry
            .ops
            .into_iter()
            .map(|op| (op.key, (!op.remove).then_some(op.value)))
            .collect();
        let result = match told.contains_key(&entity) {
            true => Err((
                ErrorCode::InvalidRequest,
                "Ignoring duplicate entity".to_owned(),
            )),
            false => table.alter(&entity, &changes),
        };
        told.insert(entity, result);
    }
    let told = told.into_iter().map(|(entity, result)| {
        let (code, error_message) = match result {
            Ok(()) => (ErrorCode::None, None),
            Err((code, why)) => (code, Some(why)),
        };
        alter::EntryResult {
            error_code: code.code(),
            error_message,
            entity: entity
                .into_iter()
                .map(|(entity_type, entity_name)| alter::EntityData {
                    entity_type,
                    entity_name,
                })
                .collect(),
        }
    });
    told.collect()
}
