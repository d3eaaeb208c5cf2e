//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use std::collections::{BTreeSet, HashSet};

use kafka::error::ErrorCode;
use kafka::messages::alter_configs as replace;
use kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka::messages::incremental_alter_configs as increment;

use super::topics::{Refused, on_disk, refused};
use crate::core::Core;
use crate::dispatch::Call;
use crate::node::NODE_ID;
use crate::topic::config::{self, Acts, Base, Kind, Overrides, Setting};
use crate::topic::registry::Error;

mod groups;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;

/// Where a value comes from, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Topic = 1,
    Broker = 4,
    Default = 5,
    Group = 8,
}

/// One setting of a topic with the value that holds.
pub(crate) struct Described<'a> {
    pub setting: &'static Setting,
    pub value: &'a str,
    pub source: Source,
}

/// Every setting of a topic that has `own` settings.
pub(crate) fn described<'a>(
    base: &'a Base,
    own: &'a Overrides,
) -> impl Iterator<Item = Described<'a>> {
    config::SETTINGS.iter().map(move |setting| {
        let (default, ours) = base.default_of(setting);
        let (value, source) = match own.get(setting.name) {
            Some(value) => (value.as_str(), Source::Topic),
            None if ours => (default, Source::Broker),
            None => (default, Source::Default),
        };
        Described {
            setting,
            value,
            source,
        }
    })
}

pub(crate) async fn describe(
    call: Call,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let describe_one = |resource: DescribeConfigsResource| {
        let keys = resource
            .configuration_keys
            .as_ref()
            .filter(|keys| !keys.is_empty());
        let wanted = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| key == name));
        let found = match resource.resource_type {
            TOPIC => topic_configs(call.core(), &resource.resource_name, wanted),
            BROKER => broker_configs(&call, &resource.resource_name, wanted),
            GROUP => groups::describe(call.core(), &resource.resource_name, wanted),
            // Nothing can be set for clients and loggers, so there is nothing to show.
            LOGGER => this_node(&resource.resource_name).map(|()| Vec::new()),
            CLIENT_METRICS => Ok(Vec::new()),
            other => Err((
                ErrorCode::InvalidRequest,
                format!("unknown resource type {other}"),
            )),
        };
        let (code, error_message, mut configs) = match found {
            Ok(configs) => (ErrorCode::None, None, configs),
            Err((code, message)) => (code, Some(message), Vec::new()),
        };
        for config in &mut configs {
            if !request.include_synonyms {
                config.synonyms.clear();
            }
            if !request.include_documentation {
                config.documentation = None;
            }
        }
        DescribeConfigsResult {
            error_code: code.code(),
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs,
        }
    };
    DescribeConfigsResponse {
        results: request.resources.into_iter().map(describe_one).collect(),
        ..DescribeConfigsResponse::default()
    }
}

fn topic_configs(
    core: &Core,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    let topic = core.topics.named(name).map_err(refused)?;
    let own = topic.overrides();
    let base = core.topics.base();
    let configs = described(base, &own).filter(|config| wanted(config.setting.name));
    Ok(configs.map(|config| topic_config(base, &config)).collect())
}

fn topic_config(base: &Base, config: &Described<'_>) -> DescribeConfigsResourceResult {
    let setting = config.setting;
    let synonym = |name: &str, value: &str, source: Source| DescribeConfigsSynonym {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        source: source as i8,
    };
    let mut synonyms = Vec::new();
    if config.source == Source::Topic {
        synonyms.push(synonym(setting.name, config.value, Source::Topic));
    }
    if let Some(name) = setting.synonym {
        let (default, ours) = base.default_of(setting);
        if ours {
            synonyms.push(synonym(name, default, Source::Broker));
        }
        synonyms.push(synonym(name, setting.default, Source::Default));
    }
    DescribeConfigsResourceResult {
        name: setting.name.to_owned(),
        value: Some(config.value.to_owned()),
        read_only: false,
        config_source: config.source as i8,
        is_sensitive: false,
        synonyms,
        config_type: setting.kind as i8,
        documentation: Some(match setting.acts {
            Acts::Yes => setting.about.to_owned(),
            Acts::Not(why) => format!("{}; has no effect, because {why}", setting.about),
        }),
    }
}

fn this_node(name: &str) -> Result<(), Refused> {
    if name.parse() == Ok(NODE_ID) {
        return Ok(());
    }
    let why = format!("Unexpected broker id, expected {NODE_ID}, but received `{name}`");
    Err((ErrorCode::InvalidRequest, why))
}

/// The broker's settings, which are those of its topics' defaults and a few of its own.
fn broker_configs(
    call: &Call,
    name: &str,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<DescribeConfigsResourceResult>, Refused> {
    if !name.is_empty() {
        this_node(name)?;
    }
    let core = call.core();
    let base = core.topics.base();
    let own = core.settings(&call.client);
    let defaults = config::SETTINGS.iter().filter_map(|setting| {
        let (value, ours) = base.default_of(setting);
        let source = if ours {
            Source::Broker
        } else {
            Source::Default
        };
        Some((
            setting.synonym?.to_owned(),
            value.to_owned(),
            setting.kind,
            source,
            setting.default,
        ))
    });
    let own = own.into_iter().map(|own| {
        let source = if own.value == own.default {
            Source::Default
        } else {
            Source::Broker
        };
        (
            own.name.to_owned(),
            own.value,
            own.kind,
            source,
            own.default,
        )
    });
    let mut configs: Vec<_> = defaults
        .chain(own)
        .filter(|(name, ..)| wanted(name))
        .map(|(name, value, kind, source, default)| {
            let mut synonyms = vec![DescribeConfigsSynonym {
                name: name.clone(),
                value: Some(default.to_owned()),
                source: Source::Default as i8,
            }];
            if source == Source::Broker {
                synonyms.insert(
                    0,
                    DescribeConfigsSynonym {
                        name: name.clone(),
                        value: Some(value.clone()),
                        source: Source::Broker as i8,
                    },
                );
            }
            DescribeConfigsResourceResult {
                name,
                value: Some(value),
                read_only: true,
                config_source: source as i8,
                is_sensitive: false,
                synonyms,
                config_type: kind as i8,
                documentation: None,
            }
        })
        .collect();
    configs.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(configs)
}

/// A change to the settings of one topic.
enum Change {
    /// These and no others.
    Replace(Vec<(String, Option<String>)>),
    /// Name, operation, value.
    Increment(Vec<(String, i8, Option<String>)>),
}

pub(crate) async fn alter(
    call: Call,
    request: replace::AlterConfigsRequest,
) -> replace::AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let twice = twice(
        request
            .resources
            .iter()
            .map(|one| (one.resource_type, &one.resource_name)),
    );
    for resource in request.resources {
        let configs = resource
            .configs
            .into_iter()
            .map(|config| (config.name, config.value));
        let change = Change::Replace(configs.collect());
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let changed = match twice.contains(&(kind, name.clone())) {
            true => Err(named_twice()),
            false => change_one(&call, kind, &name, change, request.validate_only).await,
        };
        let (code, error_message) = told(changed);
        responses.push(replace::AlterConfigsResourceResponse {
            error_code: code.code(),
            error_message,
            resource_type: kind,
            resource_name: name,
        });
    }
    replace::AlterConfigsResponse {
        responses,
        ..replace::AlterConfigsResponse::default()
    }
}

pub(crate) async fn increment(
    call: Call,
    request: increment::IncrementalAlterConfigsRequest,
) -> increment::IncrementalAlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    let twice = twice(
        request
            .resources
            .iter()
            .map(|one| (one.resource_type, &one.resource_name)),
    );
    for resource in request.resources {
        let configs = resource.configs.into_iter();
        let change = Change::Increment(
            configs
                .map(|config| (config.name, config.config_operation, config.value))
                .collect(),
        );
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let changed = match twice.contains(&(kind, name.clone())) {
            true => Err(named_twice()),
            false => change_one(&call, kind, &name, change, request.validate_only).await,
        };
        let (code, error_message) = told(changed);
        responses.push(increment::AlterConfigsResourceResponse {
            error_code: code.code(),
            error_message,
            resource_type: kind,
            resource_name: name,
        });
    }
    increment::IncrementalAlterConfigsResponse {
        responses,
        ..increment::IncrementalAlterConfigsResponse::default()
    }
}

/// Returns the resources that a request names more than once.
fn twice<'a>(named: impl Iterator<Item = (i8, &'a String)>) -> HashSet<(i8, String)> {
    let mut seen = HashSet::new();
    let again = named.filter(|one| !seen.insert(*one));
    again.map(|(kind, name)| (kind, name.clone())).collect()
}

fn named_twice() -> Refused {
    let why = "Each resource must appear at most once.";
    (ErrorCode::InvalidRequest, why.to_owned())
}

fn told(result: Result<(), Refused>) -> (ErrorCode, Option<String>) {
    match result {
        Ok(()) => (ErrorCode::None, None),
        Err((code, message)) => (code, Some(message)),
    }
}

async fn change_one(
    call: &Call,
    kind: i8,
    name: &str,
    change: Change,
    validate_only: bool,
) -> Result<(), Refused> {
    let core = call.core();
    match kind {
        TOPIC if name.is_empty() => {
            let why = "Default topic resources are not allowed.";
            return Err((ErrorCode::InvalidRequest, why.into()));
        }
        TOPIC => (),
        GROUP => return groups::change(core, name, change, validate_only).await,
        BROKER => {
            let why = "the broker's own settings stand in its configuration file";
            return Err((ErrorCode::InvalidRequest, why.into()));
        }
        other => {
            let why = format!("nothing can be set for resources of type {other}");
            return Err((ErrorCode::InvalidRequest, why));
        }
    }
    let topic = core
        .topics
        .get(name)
        .ok_or_else(|| refused(Error::Unknown))?;
    let overrides = match change {
        Change::Replace(configs) => replaced(configs)?,
        Change::Increment(configs) => {
            let base = core.topics.base();
            let known = |name: &str| {
                let setting = config::find(name)?;
                Some((setting, base.default_of(setting).0.to_owned()))
            };
            incremented(known, topic.overrides(), configs)?
        }
    };
    core.topics
        .base()
        .check(&overrides)
        .map_err(|invalid| refused(Error::Config(invalid)))?;
    if validate_only {
        return Ok(());
    }
    let core = core.clone();
    on_disk(move || core.topics.configure(&topic, overrides))
        .await
        .map_err(refused)
}

fn replaced(configs: Vec<(String, Option<String>)>) -> Result<Overrides, Refused> {
    let mut overrides = Overrides::new();
    for (name, value) in configs {
        let Some(value) = value else {
            return Err((
                ErrorCode::InvalidRequest,
                format!("Null value not supported for : {name}"),
            ));
        };
        if overrides
            .insert(name.clone(), value.trim().to_owned())
            .is_some()
        {
            return Err((
                ErrorCode::InvalidRequest,
                format!("Error due to duplicate config key {name}"),
            ));
        }
    }
    Ok(overrides)
}

fn now_has(list: &str, item: &str) -> bool {
    config::items(list).any(|one| one == item)
}

/// Carries out changes one after the other; `known` finds a setting and its default.
fn incremented(
    known: impl Fn(&str) -> Option<(&'static Setting, String)>,
    mut overrides: Overrides,
    configs: Vec<(String, i8, Option<String>)>,
) -> Result<Overrides, Refused> {
    let mut seen = BTreeSet::new();
    for (name, operation, value) in configs {
        if !seen.insert(name.clone()) {
            return Err((
                ErrorCode::InvalidRequest,
                format!("Error due to duplicate config key {name}"),
            ));
        }
        let needed = || {
            let why = format!("Null value not supported for : {name}");
            value
                .as_deref()
                .map(str::trim)
                .ok_or((ErrorCode::InvalidRequest, why))
        };
        match operation {
            0 => {
                overrides.insert(name.clone(), needed()?.to_owned());
            }
            1 => {
                overrides.remove(&name);
            }
            2 | 3 => {
                let unknown = || {
                    (
                        ErrorCode::InvalidConfig,
                        format!("Unknown config name: {name}"),
                    )
                };
                let (setting, default) = known(&name).ok_or_else(unknown)?;
                if setting.kind != Kind::List {
                    let verb = if operation == 2 {
                        "append to"
                    } else {
                        "subtract from"
                    };
                    let why = format!("Can't {verb} key {name} because its type is not LIST.");
                    return Err((ErrorCode::InvalidConfig, why));
                }
                let now = overrides
                    .get(&name)
                    .map_or(default.as_str(), String::as_str);
                let mut items: Vec<&str> = config::items(now).collect();
                let change: Vec<&str> = config::items(needed()?).collect();
                match operation {
                    2 => {
                        let fresh = change.into_iter().filter(|item| !now_has(now, item));
                        items.extend(fresh);
                    }
                    _ => items.retain(|item| !change.contains(item)),
                }
                overrides.insert(name.clone(), items.join(","));
            }
            other => {
                let why = format!("Unsupported operation type {other}");
                return Err((ErrorCode::InvalidRequest, why));
            }
        }
    }
    Ok(overrides)
}
