//! Making, growing and deleting topics.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use kafka::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use kafka::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use tokio::task::spawn_blocking;
use tracing::{error, warn};
use uuid::Uuid;

use super::configs::described;
use crate::core::Core;
use crate::dispatch::Call;
use crate::node::NODE_ID;
use crate::topic::Topic;
use crate::topic::config::Overrides;
use crate::topic::registry::{Error, NewTopic};

/// Versions from which on clients can be told that they change too much at once.
const CREATE_TOLD_FROM: i16 = 6;
const DELETE_TOLD_FROM: i16 = 5;
const GROW_TOLD_FROM: i16 = 3;

/// The whole mapping from the registry's errors to Kafka's, in one place.
pub(crate) fn error_of(error: &Error) -> ErrorCode {
    match error {
        Error::Exists { .. } => ErrorCode::TopicAlreadyExists,
        Error::Unknown => ErrorCode::UnknownTopicOrPartition,
        Error::Name { .. } => ErrorCode::InvalidTopicException,
        Error::Partitions { .. } => ErrorCode::InvalidPartitions,
        Error::Config(_) => ErrorCode::InvalidConfig,
        Error::Internal => ErrorCode::InvalidRequest,
        Error::Disk(_) => ErrorCode::KafkaStorageError,
    }
}

/// A refusal as it is told: code and words.
pub(crate) type Refused = (ErrorCode, String);

pub(crate) fn refused(error: Error) -> Refused {
    if let Error::Disk(source) = &error {
        error!(error = ?source, "the disk refused a change of topics");
    }
    (error_of(&error), error.to_string())
}

/// Makes a topic on a thread that may wait for the disk.
pub(crate) async fn create_blocking(core: &Arc<Core>, new: NewTopic) -> Result<Arc<Topic>, Error> {
    let core = core.clone();
    on_disk(move || core.topics.create(new)).await
}

/// Runs a change of the registry on a thread that may wait for the disk.
pub(crate) async fn on_disk<T: Send + 'static>(
    change: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match spawn_blocking(change).await {
        Ok(result) => result,
        Err(error) => Err(Error::Disk(std::io::Error::other(error))),
    }
}

pub(crate) async fn create(call: Call, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<String> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(topic.name.clone()))
        .map(|topic| topic.name.clone())
        .collect();
    let mut topics = Vec::new();
    let mut done = BTreeSet::new();
    for topic in request.topics {
        if !done.insert(topic.name.clone()) {
            continue;
        }
        let name = topic.name.clone();
        let made = if twice.contains(&name) {
            Err((ErrorCode::InvalidRequest, "Duplicate topic name.".into()))
        } else {
            create_one(&call, topic, request.validate_only).await
        };
        topics.push(made.unwrap_or_else(|(code, message)| CreatableTopicResult {
            name,
            topic_id: Uuid::nil(),
            error_code: code.code(),
            error_message: Some(message),
            configs: None,
            ..CreatableTopicResult::default()
        }));
    }
    CreateTopicsResponse {
        topics,
        ..CreateTopicsResponse::default()
    }
}

async fn create_one(
    call: &Call,
    asked: CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Refused> {
    let core = call.core();
    let new = NewTopic {
        partitions: partitions_wanted(&asked, core.partitions_default)?,
        overrides: overrides_wanted(&asked)?,
        name: asked.name,
    };
    let partitions = i32::try_from(new.partitions).unwrap_or(i32::MAX);
    let configs = described(core.topics.base(), &new.overrides)
        .map(|config| CreatableTopicConfigs {
            name: config.setting.name.to_owned(),
            value: Some(config.value.to_owned()),
            read_only: false,
            config_source: config.source as i8,
            is_sensitive: false,
        })
        .collect();
    let topic = CreatableTopicResult {
        name: new.name.clone(),
        topic_id: Uuid::nil(),
        error_code: ErrorCode::None.code(),
        error_message: None,
        topic_config_error_code: ErrorCode::None.code(),
        num_partitions: partitions,
        replication_factor: 1,
        configs: Some(configs),
    };
    if validate_only {
        core.topics.check(&new).map_err(refused)?;
        return Ok(topic);
    }
    core.topics.check(&new).map_err(refused)?;
    call.spend(CREATE_TOLD_FROM, new.partitions)?;
    let made = create_blocking(core, new).await.map_err(refused)?;
    Ok(CreatableTopicResult {
        topic_id: made.id,
        ..topic
    })
}

fn partitions_wanted(asked: &CreatableTopic, default: usize) -> Result<usize, Refused> {
    if !asked.assignments.is_empty() {
        if asked.num_partitions != -1 || asked.replication_factor != -1 {
            return Err((
                ErrorCode::InvalidRequest,
                "Both numPartitions (or replicationFactor) and replicasAssignments were set."
                    .into(),
            ));
        }
        let mut indexes: Vec<i32> = asked
            .assignments
            .iter()
            .map(|one| one.partition_index)
            .collect();
        indexes.sort_unstable();
        let consecutive = (0..).zip(&indexes).all(|(index, found)| index == *found);
        let ours = asked
            .assignments
            .iter()
            .all(|one| one.broker_ids == [NODE_ID]);
        if !consecutive || !ours {
            let why = format!("partitions count from 0, and node {NODE_ID} is the only replica");
            return Err((ErrorCode::InvalidReplicaAssignment, why));
        }
        return Ok(indexes.len());
    }
    match asked.replication_factor {
        -1 | 1 => (),
        many if many > 1 => {
            let why = format!(
                "Unable to replicate the partition {many} time(s): The target replication factor \
                 of {many} cannot be reached because only 1 broker(s) are registered."
            );
            return Err((ErrorCode::InvalidReplicationFactor, why));
        }
        _ => {
            let why = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err((ErrorCode::InvalidReplicationFactor, why.into()));
        }
    }
    match asked.num_partitions {
        -1 => Ok(default),
        count => usize::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| {
                let why = "Number of partitions was set to an invalid non-positive value.";
                (ErrorCode::InvalidPartitions, why.into())
            }),
    }
}

fn overrides_wanted(asked: &CreatableTopic) -> Result<Overrides, Refused> {
    let mut overrides = Overrides::new();
    for config in &asked.configs {
        let Some(value) = &config.value else {
            let why = format!(
                "Null value not supported for topic configs: {}",
                config.name
            );
            return Err((ErrorCode::InvalidConfig, why));
        };
        overrides.insert(config.name.clone(), value.trim().to_owned());
    }
    Ok(overrides)
}

pub(crate) async fn delete(call: Call, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let by_name = |name| DeleteTopicState {
        name: Some(name),
        ..DeleteTopicState::default()
    };
    let wanted: Vec<DeleteTopicState> = request
        .topics
        .into_iter()
        .chain(request.topic_names.into_iter().map(by_name))
        .collect();
    let mut times: HashMap<(Option<String>, Uuid), usize> = HashMap::new();
    for topic in &wanted {
        *times
            .entry((topic.name.clone(), topic.topic_id))
            .or_default() += 1;
    }
    let mut responses = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let key = (topic.name.clone(), topic.topic_id);
        let why = match (times.remove(&key), &topic.name) {
            (None, _) => continue, // told already
            (Some(2..), _) => "Duplicate topic name or id.",
            (_, Some(_)) if !topic.topic_id.is_nil() => {
                "You may not specify both topic name and topic id."
            }
            (_, None) if topic.topic_id.is_nil() => "Neither topic name nor id were specified.",
            _ => {
                responses.push(delete_one(&call, topic).await);
                continue;
            }
        };
        responses.push(DeletableTopicResult {
            name: topic.name,
            topic_id: topic.topic_id,
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some(why.to_owned()),
        });
    }
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

async fn delete_one(call: &Call, asked: DeleteTopicState) -> DeletableTopicResult {
    let core = call.core();
    let (found, missing) = match &asked.name {
        Some(name) => (core.topics.get(name), ErrorCode::UnknownTopicOrPartition),
        None => (core.topics.by_id(asked.topic_id), ErrorCode::UnknownTopicId),
    };
    let Some(topic) = found else {
        return DeletableTopicResult {
            name: asked.name,
            topic_id: asked.topic_id,
            error_code: missing.code(),
            error_message: Some(missing.message().to_owned()),
        };
    };
    if let Err((code, why)) = call.spend(DELETE_TOLD_FROM, topic.partitions().len()) {
        return DeletableTopicResult {
            name: asked.name,
            topic_id: asked.topic_id,
            error_code: code.code(),
            error_message: Some(why),
        };
    }
    let result = {
        let (core, topic) = (core.clone(), topic.clone());
        on_disk(move || core.topics.delete(&topic)).await
    };
    let (error_code, error_message) = match result {
        Ok(()) => {
            if let Err(refusal) = core.shares.forget_topic(topic.id).await {
                warn!(topic = %topic.name, %refusal, "share groups still know a topic that is gone");
            }
            if let Err(refusal) = core.groups.forget_topic(&topic.name).await {
                // The offsets of a topic that is gone do no harm; they expire.
                warn!(%refusal, topic = %topic.name, "could not remove committed offsets");
            }
            core.metrics.forget_topic(&topic.name);
            (ErrorCode::None, None)
        }
        Err(error) => {
            let (code, message) = refused(error);
            (code, Some(message))
        }
    };
    DeletableTopicResult {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        error_code: error_code.code(),
        error_message,
    }
}

pub(crate) async fn grow(call: Call, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    let mut times: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    for asked in request.topics {
        let name = asked.name.clone();
        let result = match times.remove(&name) {
            None => continue, // told already
            Some(1) => grow_one(&call, asked, request.validate_only).await,
            Some(_) => Err((ErrorCode::InvalidRequest, "Duplicate topic name.".into())),
        };
        let (code, error_message) = match result {
            Ok(()) => (ErrorCode::None, None),
            Err((code, message)) => (code, Some(message)),
        };
        results.push(CreatePartitionsTopicResult {
            name,
            error_code: code.code(),
            error_message,
        });
    }
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}

async fn grow_one(
    call: &Call,
    asked: CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refused> {
    let core = call.core();
    let topic = core
        .topics
        .get(&asked.name)
        .ok_or_else(|| refused(Error::Unknown))?;
    let count = usize::try_from(asked.count).unwrap_or(0);
    if let Some(assignments) = &asked.assignments {
        let more = count.saturating_sub(topic.partitions().len());
        if assignments.len() != more || assignments.iter().any(|one| one.broker_ids != [NODE_ID]) {
            let why = format!("each new partition has node {NODE_ID} as its only replica");
            return Err((ErrorCode::InvalidReplicaAssignment, why));
        }
    }
    if validate_only {
        return core.topics.check_grow(&topic, count).map_err(refused);
    }
    core.topics.check_grow(&topic, count).map_err(refused)?;
    call.spend(GROW_TOLD_FROM, count - topic.partitions().len())?;
    let core = core.clone();
    on_disk(move || core.topics.grow(&topic, count))
        .await
        .map_err(refused)
}
