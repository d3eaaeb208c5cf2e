//! How far groups have come: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponse,
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use uuid::Uuid;

use super::groups::code_of;
use crate::clock;
use crate::dispatch::Call;
use crate::group::coordinator::{Commit, Place};
use crate::group::schema::Committed;
use crate::topic::Topic;

/// Longest text that may stand beside an offset (`offset.metadata.max.bytes`).
pub(super) const METADATA_BYTES_MAX: usize = 4096;

fn topic_of(call: &Call, by_id: bool, name: &str, id: Uuid) -> Result<Arc<Topic>, ErrorCode> {
    let topics = &call.core().topics;
    match by_id {
        true => topics.by_id(id).ok_or(ErrorCode::UnknownTopicId),
        false => topics.get(name).ok_or(ErrorCode::UnknownTopicOrPartition),
    }
}

pub(crate) async fn commit(call: Call, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let by_id = call.version >= 10;
    let at_ms = clock::now_ms();
    let mut offsets: Vec<(Place, Committed)> = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = topic_of(&call, by_id, &asked.name, asked.topic_id);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for one in asked.partitions {
            let metadata = one.committed_metadata.unwrap_or_default();
            let code = match &topic {
                Err(code) => *code,
                Ok(_) if metadata.len() > METADATA_BYTES_MAX => ErrorCode::OffsetMetadataTooLarge,
                Ok(topic) if topic.partition(one.partition_index).is_none() => {
                    ErrorCode::UnknownTopicOrPartition
                }
                Ok(topic) => {
                    let committed = Committed {
                        offset: one.committed_offset,
                        leader_epoch: one.committed_leader_epoch,
                        metadata,
                        at_ms,
                        order: 0,
                    };
                    offsets.push(((topic.name.clone(), one.partition_index), committed));
                    ErrorCode::None
                }
            };
            partitions.push(OffsetCommitResponsePartition {
                partition_index: one.partition_index,
                error_code: code.code(),
            });
        }
        topics.push(OffsetCommitResponseTopic {
            name: asked.name,
            topic_id: asked.topic_id,
            partitions,
        });
    }
    let result = call
        .core()
        .groups
        .commit(Commit {
            group_id: request.group_id,
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            generation: request.generation_id_or_member_epoch,
            version: call.version,
            offsets,
        })
        .await;
    match result {
        Ok(stale) if stale.is_empty() => (),
        Ok(stale) => {
            for topic in &mut topics {
                let found = topic_of(&call, by_id, &topic.name, topic.topic_id);
                let Ok(found) = found else { continue };
                for one in &mut topic.partitions {
                    if stale.contains(&(found.name.clone(), one.partition_index)) {
                        one.error_code = ErrorCode::StaleMemberEpoch.code();
                    }
                }
            }
        }
        Err(refusal) => {
            for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.error_code = code_of(refusal).code();
            }
        }
    }
    OffsetCommitResponse {
        topics,
        ..OffsetCommitResponse::default()
    }
}

pub(crate) async fn fetch(call: Call, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if call.version >= 8 {
        let groups = request
            .groups
            .into_iter()
            .map(|group| fetch_group(&call, group, request.require_stable));
        return OffsetFetchResponse {
            groups: groups.collect(),
            ..OffsetFetchResponse::default()
        };
    }
    // Older versions ask for one group; version 1 cannot ask for all topics.
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        topics.collect()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    };
    let answer = fetch_group(&call, group, request.require_stable);
    let topics = answer
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic
                .partitions
                .into_iter()
                .map(|one| OffsetFetchResponsePartition {
                    partition_index: one.partition_index,
                    committed_offset: one.committed_offset,
                    committed_leader_epoch: one.committed_leader_epoch,
                    metadata: one.metadata,
                    error_code: one.error_code,
                })
                .collect(),
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: answer.error_code,
        ..OffsetFetchResponse::default()
    }
}

fn fetch_group(
    call: &Call,
    asked: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let core = call.core();
    let group_id = asked.group_id.as_str();
    let may_fetch = core
        .groups
        .may_fetch(group_id, asked.member_id.as_deref(), asked.member_epoch);
    if let Err(refusal) = may_fetch {
        return OffsetFetchResponseGroup {
            group_id: asked.group_id,
            topics: Vec::new(),
            error_code: code_of(refusal).code(),
        };
    }
    let tell = |place: &Place, committed: Option<&Committed>| {
        if require_stable && core.groups.is_unstable(group_id, place) {
            return told(place.1, None, ErrorCode::UnstableOffsetCommit);
        }
        told(place.1, committed, ErrorCode::None)
    };
    let topics = match asked.topics {
        None => everything(call, group_id, tell),
        Some(topics) => topics
            .into_iter()
            .map(|topic| {
                let by_id = call.version >= 10;
                let found = match by_id {
                    true => {
                        topic_of(call, true, "", topic.topic_id).map(|found| found.name.clone())
                    }
                    // By name, offsets are known even of a topic that is not there.
                    false => Ok(Arc::from(topic.name.as_str())),
                };
                let partitions = topic.partition_indexes.iter().map(|index| match &found {
                    Err(code) => told(*index, None, *code),
                    Ok(name) => {
                        let committed = core.groups.offset(group_id, name, *index);
                        tell(&(name.clone(), *index), committed.as_ref())
                    }
                });
                OffsetFetchResponseTopics {
                    partitions: partitions.collect(),
                    name: topic.name,
                    topic_id: topic.topic_id,
                }
            })
            .collect(),
    };
    OffsetFetchResponseGroup {
        group_id: group_id.to_owned(),
        topics,
        error_code: ErrorCode::None.code(),
    }
}

fn everything(
    call: &Call,
    group_id: &str,
    tell: impl Fn(&Place, Option<&Committed>) -> OffsetFetchResponsePartitions,
) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: BTreeMap<Arc<str>, Vec<OffsetFetchResponsePartitions>> = BTreeMap::new();
    for (place, committed) in call.core().groups.offsets(group_id) {
        let partition = tell(&place, Some(&committed));
        topics.entry(place.0).or_default().push(partition);
    }
    let answer = |(name, partitions): (Arc<str>, _)| {
        let topic_id = call
            .core()
            .topics
            .get(&name)
            .map_or(Uuid::nil(), |topic| topic.id);
        OffsetFetchResponseTopics {
            name: name.to_string(),
            topic_id,
            partitions,
        }
    };
    topics.into_iter().map(answer).collect()
}

fn told(
    partition_index: i32,
    committed: Option<&Committed>,
    code: ErrorCode,
) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(committed.map_or(String::new(), |committed| committed.metadata.clone())),
        error_code: code.code(),
    }
}

pub(crate) async fn delete(call: Call, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut places: Vec<Place> = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for asked in request.topics {
        let topic = call.core().topics.get(&asked.name);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for one in asked.partitions {
            let known = topic
                .as_ref()
                .and_then(|topic| topic.partition(one.partition_index));
            let code = match known {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(partition) => {
                    places.push((partition.topic.clone(), one.partition_index));
                    ErrorCode::None
                }
            };
            partitions.push(OffsetDeleteResponsePartition {
                partition_index: one.partition_index,
                error_code: code.code(),
            });
        }
        topics.push(OffsetDeleteResponseTopic {
            name: asked.name,
            partitions,
        });
    }
    match call
        .core()
        .groups
        .delete_offsets(&request.group_id, places.clone())
        .await
    {
        Err(refusal) => OffsetDeleteResponse {
            error_code: code_of(refusal).code(),
            ..OffsetDeleteResponse::default()
        },
        Ok(results) => {
            let refused: BTreeMap<Place, ErrorCode> = places
                .into_iter()
                .zip(results)
                .filter_map(|(place, result)| Some((place, code_of(result.err()?))))
                .collect();
            for topic in &mut topics {
                let name: Arc<str> = topic.name.as_str().into();
                for one in &mut topic.partitions {
                    if let Some(code) = refused.get(&(name.clone(), one.partition_index)) {
                        one.error_code = code.code();
                    }
                }
            }
            OffsetDeleteResponse {
                topics,
                ..OffsetDeleteResponse::default()
            }
        }
    }
}
