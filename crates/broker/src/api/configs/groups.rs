//! The settings of groups, as they are told and changed.

use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::describe_configs::{DescribeConfigsResourceResult, DescribeConfigsSynonym};
use tokio::task::spawn_blocking;
use tracing::error;

use super::{Change, Source, incremented, replaced};
use crate::api::topics::Refused;
use crate::core::Core;
use crate::group::settings::{self, Error};
use crate::topic::config::{Acts, Overrides, Setting};

pub(super) fn describe(
    core: &Core,
    group: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    if group.is_empty() {
        let why = "Group name must not be empty";
        return Err((ErrorCode::InvalidRequest, why.into()));
    }
    let own = core.group_settings.own(group);
    let told = settings::SETTINGS.iter().filter(|one| wanted(one.name));
    Ok(told.map(|setting| described(setting, &own)).collect())
}

fn described(setting: &Setting, own: &Overrides) -> DescribeConfigsResourceResult {
    let synonym = |name: &str, value: &str, source: Source| DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source: source as i8,
    };
    let (default, ours) = settings::default_of(setting);
    let name = setting.synonym.unwrap_or(setting.name);
    let mut synonyms = vec![synonym(name, setting.default, Source::Default)];
    let mut value = default;
    if ours {
        synonyms.insert(0, synonym(name, default, Source::Broker));
    }
    if let Some(set) = own.get(setting.name) {
        value = set.trim();
        synonyms.insert(0, synonym(setting.name, value, Source::Group));
    }
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(value.to_owned()),
        read_only: false,
        config_source: synonyms[0].source,
        is_sensitive: false,
        synonyms,
        config_type: setting.kind as i8,
        documentation: Some(match setting.acts {
            Acts::Yes => setting.about.to_owned(),
            Acts::Not(why) => format!("{}; has no effect, because {why}", setting.about),
        }),
    }
}

/// Why a change is refused: by its form, or by what it would set.
enum Wrong {
    Form(Refused),
    Setting(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Wrong::Setting(error)
    }
}

fn refused(wrong: Wrong) -> Refused {
    let error = match wrong {
        Wrong::Form(refused) => return refused,
        Wrong::Setting(error) => error,
    };
    let code = match &error {
        Error::Invalid(_) => ErrorCode::InvalidConfig,
        Error::Name | Error::TooMany => ErrorCode::InvalidRequest,
        Error::Disk(source) => {
            error!(error = ?source, "the disk refused a change of a group's settings");
            ErrorCode::KafkaStorageError
        }
    };
    (code, error.to_string())
}

pub(super) async fn change(
    core: &Arc<Core>,
    group: &str,
    change: Change,
    validate_only: bool,
) -> Result<(), Refused> {
    if group.is_empty() {
        let why = "Default group resources are not allowed.";
        return Err((ErrorCode::InvalidRequest, why.into()));
    }
    let apply = |now: Overrides| {
        let next = match change {
            Change::Replace(configs) => replaced(configs),
            Change::Increment(configs) => {
                let known = |name: &str| {
                    let setting = settings::find(name)?;
                    Some((setting, settings::default_of(setting).0.to_owned()))
                };
                incremented(known, now, configs)
            }
        };
        next.map_err(Wrong::Form)
    };
    if validate_only {
        let checked = apply(core.group_settings.own(group)).and_then(|own| {
            let checked = core.group_settings.check(group, &own);
            checked.map_err(Wrong::Setting)
        });
        return checked.map_err(refused);
    }
    let (core, group) = (core.clone(), group.to_owned());
    let changed = spawn_blocking(move || core.group_settings.change(&group, apply)).await;
    changed
        .unwrap_or_else(|error| Err(Error::Disk(std::io::Error::other(error)).into()))
        .map_err(refused)
}
