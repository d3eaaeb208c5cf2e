//! Streams groups on the wire (KIP-1071): StreamsGroupHeartbeat, StreamsGroupDescribe.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka::error::ErrorCode;
use kafka::messages::streams_group_describe::{
    Assignment, DescribedGroup, Endpoint as DescribedEndpoint, KeyValue, Member as DescribedMember,
    StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, Subtopology,
    TaskIds as DescribedTasks, TopicInfo as DescribedTopic, Topology as DescribedTopology,
};
use kafka::messages::streams_group_heartbeat::{
    self as beating, Endpoint, EndpointToPartitions, Status as ToldStatus,
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, TaskIds, TopicPartition,
};
use kafka::messages::streams_group_state::{
    self as state, StreamsGroupTopologyValue as Topology, TopicConfig,
};
use tracing::warn;

use super::groups::{GROUP_OPERATIONS, MEMBER_BYTES_MAX, code_of};
use super::topics::create_blocking;
use crate::access::rules::Operation;
use crate::core::Core;
use crate::dispatch::Call;
use crate::group::consumer::terms::Refused;
use crate::group::streams::machine::{Beat, Beaten, Place, View};
use crate::group::streams::member::{Member, Roles, Tasks};
use crate::group::streams::topology::{Internal, Status};
use crate::group::terms::Refusal;
use crate::topic::registry::{Error, NewTopic, check_name};

/// The epoch of a member that leaves.
const LEAVES: i32 = -1;
/// The epoch of a static member that leaves for a while.
const AWAY: i32 = -2;

pub(crate) async fn heartbeat(
    call: Call,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    if let Err((code, why)) = check(&request) {
        return refused(code, why);
    }
    if let Some(topology) = &request.topology
        && let Err((code, why)) = check_names(topology)
    {
        return refused(code, why);
    }
    let core = call.core();
    let group_id = request.group_id.clone();
    let beat = beat(&call, request);
    let answer = async {
        if beat.epoch != LEAVES {
            return core
                .groups
                .streams_beat(&core.topics, &group_id, &beat)
                .await;
        }
        core.groups.streams_leave(&group_id, &beat).await?;
        Ok(Beaten {
            member_id: beat.member_id.clone(),
            epoch: LEAVES,
            heartbeat_interval_ms: 0,
            assignment: None,
            status: Vec::new(),
            endpoint_epoch: 0,
            endpoints: None,
            missing: Vec::new(),
        })
    };
    let answer = tokio::select! {
        answer = answer => answer,
        // The client asks again, and finds the broker that comes after us.
        () = call.client.stop.cancelled() => Err(Refusal::NotStored.into()),
    };
    match answer {
        Err(Refused { refusal, why }) => refused(code_of(refusal), why),
        Ok(mut beaten) => {
            if let Some(why) = make(&call, std::mem::take(&mut beaten.missing)).await {
                add(&mut beaten.status, why);
            }
            told(beaten)
        }
    }
}

fn refused(code: ErrorCode, why: String) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: code.code(),
        error_message: Some(why),
        ..StreamsGroupHeartbeatResponse::default()
    }
}

fn told(beaten: Beaten) -> StreamsGroupHeartbeatResponse {
    let list = |tasks: Tasks| {
        let each = tasks.into_iter().map(|(subtopology_id, tasks)| TaskIds {
            subtopology_id,
            partitions: tasks.into_iter().collect(),
        });
        each.collect()
    };
    let status = beaten.status.into_iter().map(|(status, why)| ToldStatus {
        status_code: status as i8,
        status_detail: why,
    });
    let (active, standby, warmup) = match beaten.assignment {
        None => (None, None, None),
        Some(roles) => (
            Some(list(roles.active)),
            Some(list(roles.standby)),
            Some(list(roles.warmup)),
        ),
    };
    StreamsGroupHeartbeatResponse {
        member_id: beaten.member_id,
        member_epoch: beaten.epoch,
        heartbeat_interval_ms: beaten.heartbeat_interval_ms,
        status: Some(status.collect()),
        active_tasks: active,
        standby_tasks: standby,
        warmup_tasks: warmup,
        endpoint_information_epoch: beaten.endpoint_epoch,
        partitions_by_user_endpoint: beaten
            .endpoints
            .map(|places| places.into_iter().map(placed).collect()),
        ..StreamsGroupHeartbeatResponse::default()
    }
}

fn placed(place: Place) -> EndpointToPartitions {
    let list = |topics: Vec<(String, Vec<i32>)>| {
        let each = topics.into_iter();
        each.map(|(topic, partitions)| TopicPartition { topic, partitions })
            .collect()
    };
    let (host, port) = place.endpoint;
    EndpointToPartitions {
        user_endpoint: Endpoint { host, port },
        active_partitions: list(place.active),
        standby_partitions: list(place.standby),
    }
}

/// Makes the topics that an application needs; returns why some could not be made.
async fn make(call: &Call, missing: Vec<Internal>) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let any = call.may_create();
    let may = |topic: &Internal| any || call.may_topic(Operation::Create, &topic.name);
    let (allowed, denied): (Vec<_>, Vec<_>) = missing.into_iter().partition(may);
    if !denied.is_empty() {
        let names: Vec<&str> = denied.iter().map(|topic| topic.name.as_str()).collect();
        return Some(format!(
            "Unauthorized to CREATE on topics {}.",
            names.join(", ")
        ));
    }
    let mut failed = Vec::new();
    for topic in allowed {
        let name = topic.name.clone();
        if let Err(error) = make_one(call.core(), topic).await {
            warn!(topic = name, %error, "could not make the topic of an application");
            failed.push(format!("{name} ({error})"));
        }
    }
    (!failed.is_empty()).then(|| format!("Creation failed: {}.", failed.join(", ")))
}

async fn make_one(core: &Arc<Core>, topic: Internal) -> Result<(), Error> {
    let new = NewTopic {
        partitions: usize::try_from(topic.partitions).unwrap_or(0),
        name: topic.name,
        overrides: topic.configs.into_iter().collect(),
    };
    core.topics.check(&new).or_else(is_there)?;
    create_blocking(core, new)
        .await
        .map(|_| ())
        .or_else(is_there)
}

/// Another member may have been faster.
fn is_there(error: Error) -> Result<(), Error> {
    match error {
        Error::Exists { .. } => Ok(()),
        error => Err(error),
    }
}

/// Says why topics are missing, behind what is said already.
fn add(status: &mut Vec<(Status, String)>, why: String) {
    let mut known = status.iter_mut();
    match known.find(|(status, _)| *status == Status::MissingInternalTopics) {
        Some((_, said)) => *said = format!("{said}; {why}"),
        None => status.push((Status::MissingInternalTopics, why)),
    }
}

/// What can be said without knowing the group, in Kafka's order.
fn check(request: &StreamsGroupHeartbeatRequest) -> Result<(), (ErrorCode, String)> {
    let invalid = |why: &str| Err((ErrorCode::InvalidRequest, why.to_owned()));
    let topology = request.topology.as_ref();
    let parts = || topology.into_iter().flat_map(|one| &one.subtopologies);
    let epoch = request.member_epoch;
    if request.instance_id.is_some() {
        return invalid("Static membership is not yet supported.");
    }
    if request.task_offsets.is_some() {
        return invalid("TaskOffsets are not supported yet.");
    }
    if request.task_end_offsets.is_some() {
        return invalid("TaskEndOffsets are not supported yet.");
    }
    if request
        .warmup_tasks
        .as_ref()
        .is_some_and(|tasks| !tasks.is_empty())
    {
        return invalid("WarmupTasks are not supported yet.");
    }
    if parts().any(|part| !part.source_topic_regex.is_empty()) {
        return invalid("Regular expressions for source topics are not supported yet.");
    }
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    let is_blank = |text: &String| text.trim().is_empty();
    if request.rack_id.as_ref().is_some_and(is_blank) {
        return invalid("RackId can't be empty.");
    }
    let roles = [
        (&request.active_tasks, "ActiveTasks"),
        (&request.standby_tasks, "StandbyTasks"),
        (&request.warmup_tasks, "WarmupTasks"),
    ];
    match epoch {
        0 => {
            if request.rebalance_timeout_ms == -1 {
                return invalid("RebalanceTimeoutMs must be provided in first request.");
            }
            for (tasks, name) in roles {
                if tasks.as_ref().is_none_or(|tasks| !tasks.is_empty()) {
                    return invalid(&format!("{name} must be empty when (re-)joining."));
                }
            }
            if topology.is_none() {
                return invalid("Topology must be non-null when (re-)joining.");
            }
            let mut changelogs = parts().flat_map(|part| &part.state_changelog_topics);
            if let Some(topic) = changelogs.find(|topic| topic.partitions != 0) {
                let why = format!(
                    "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                    topic.name, topic.partitions
                );
                return Err((ErrorCode::StreamsInvalidTopology, why));
            }
        }
        AWAY => return invalid("InstanceId can't be null."),
        ..AWAY => {
            return invalid(&format!(
                "MemberEpoch is {epoch}, but must be greater than or equal to -2."
            ));
        }
        _ => (),
    }
    let (some, all) = (
        roles.iter().any(|(tasks, _)| tasks.is_some()),
        roles.iter().all(|(tasks, _)| tasks.is_some()),
    );
    if some && !all {
        return invalid("If one task-type is non-null, all must be non-null.");
    }
    if epoch != 0 && topology.is_some() {
        return invalid("Topology can only be provided when (re-)joining.");
    }
    if size(request) > MEMBER_BYTES_MAX {
        return invalid("the member says more of itself than the broker takes");
    }
    Ok(())
}

/// How much of a heartbeat would stay in memory.
fn size(request: &StreamsGroupHeartbeatRequest) -> usize {
    let text = |text: &String| text.len() + size_of::<String>();
    let topic = |topic: &beating::TopicInfo| {
        let configs = topic.topic_configs.iter();
        let configs = configs.map(|one| text(&one.key) + text(&one.value));
        text(&topic.name) + configs.sum::<usize>()
    };
    let parts = request.topology.iter().flat_map(|one| &one.subtopologies);
    let parts = parts.map(|part| {
        let names = part
            .source_topics
            .iter()
            .chain(&part.repartition_sink_topics);
        let own = part.state_changelog_topics.iter();
        let own = own.chain(&part.repartition_source_topics);
        let groups = part.copartition_groups.iter();
        let groups = groups
            .map(|group| 2 * (group.source_topics.len() + group.repartition_source_topics.len()));
        text(&part.subtopology_id)
            + names.map(text).sum::<usize>()
            + own.map(topic).sum::<usize>()
            + groups.sum::<usize>()
    });
    let tags = request.client_tags.iter().flatten();
    let tags = tags.map(|tag| text(&tag.key) + text(&tag.value));
    let texts = [&request.rack_id, &request.process_id]
        .into_iter()
        .flatten();
    let host = request.user_endpoint.as_ref().map_or(0, |at| at.host.len());
    parts.sum::<usize>()
        + tags.sum::<usize>()
        + texts.map(text).sum::<usize>()
        + host
        + request.member_id.len()
}

/// Topics of an application have names, and are none of Kafka's own.
fn check_names(topology: &beating::Topology) -> Result<(), (ErrorCode, String)> {
    let names = names(topology);
    let told = |wrong: Vec<&str>, say: fn(&str) -> String| match wrong.is_empty() {
        true => Ok(()),
        false => Err((ErrorCode::StreamsInvalidTopology, say(&wrong.join(",")))),
    };
    let internal = names
        .iter()
        .copied()
        .filter(|name| crate::topic::is_internal(name));
    told(internal.collect(), |wrong| {
        format!("Use of Kafka internal topics {wrong} in a Kafka Streams topology is prohibited.")
    })?;
    let invalid = names
        .iter()
        .copied()
        .filter(|name| check_name(name).is_err());
    told(invalid.collect(), |wrong| {
        format!("Topic names {wrong} are not valid topic names.")
    })
}

/// Every topic that a topology names, once.
pub(crate) fn names(topology: &beating::Topology) -> Vec<&str> {
    let mut names = Vec::new();
    for part in &topology.subtopologies {
        let sinks = part
            .source_topics
            .iter()
            .chain(&part.repartition_sink_topics);
        let own = part.repartition_source_topics.iter();
        let own = own.chain(&part.state_changelog_topics);
        for name in sinks.chain(own.map(|topic| &topic.name)) {
            if !names.contains(&name.as_str()) {
                names.push(name.as_str());
            }
        }
    }
    names
}

fn beat(call: &Call, request: StreamsGroupHeartbeatRequest) -> Beat {
    let tasks = |list: Vec<TaskIds>| -> Tasks {
        let mut tasks = Tasks::new();
        for one in list {
            let some = tasks.entry(one.subtopology_id).or_default();
            some.extend(one.partitions);
        }
        tasks
    };
    let owned = match (
        request.active_tasks,
        request.standby_tasks,
        request.warmup_tasks,
    ) {
        (Some(active), Some(standby), Some(warmup)) => Some(Roles {
            active: tasks(active),
            standby: tasks(standby),
            warmup: tasks(warmup),
        }),
        _ => None,
    };
    Beat {
        member_id: request.member_id,
        epoch: request.member_epoch,
        endpoint_epoch: request.endpoint_information_epoch,
        client_id: call.client_id.clone(),
        client_host: format!("/{}", call.client.peer.ip().to_canonical()),
        shuts_down: request.shutdown_application,
        rack_id: request.rack_id,
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout| *timeout != -1),
        topology: request.topology.map(stored),
        process_id: request.process_id,
        endpoint: request.user_endpoint.map(|at| (at.host, at.port)),
        tags: request.client_tags.map(|tags| {
            let each = tags.into_iter().map(|tag| (tag.key, tag.value));
            each.collect::<BTreeMap<_, _>>()
        }),
        owned,
    }
}

/// The topology as it is kept.
fn stored(topology: beating::Topology) -> Topology {
    let topics = |topics: Vec<beating::TopicInfo>| {
        let each = topics.into_iter().map(|topic| {
            let configs = topic.topic_configs.into_iter();
            let mut configs: Vec<TopicConfig> = configs
                .map(|one| TopicConfig {
                    key: one.key,
                    value: one.value,
                })
                .collect();
            configs.sort_by(|left, right| left.key.cmp(&right.key));
            state::TopicInfo {
                name: topic.name,
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                topic_configs: configs,
            }
        });
        let mut topics: Vec<_> = each.collect();
        topics.sort_by(|left, right| left.name.cmp(&right.name));
        topics
    };
    let part = |part: beating::Subtopology| {
        // Groups name topics by their place in these lists, which therefore keep their order.
        let own = part.repartition_source_topics.iter();
        let own: Vec<String> = own.map(|topic| topic.name.clone()).collect();
        let sorted = topics(part.repartition_source_topics);
        let moved = |index: i16| {
            let name = usize::try_from(index).ok().and_then(|at| own.get(at));
            let at = sorted.iter().position(|topic| Some(&topic.name) == name);
            at.and_then(|at| i16::try_from(at).ok()).unwrap_or(-1)
        };
        let groups = part.copartition_groups.into_iter();
        let copartition_groups = groups
            .map(|group| state::CopartitionGroup {
                source_topics: group.source_topics,
                source_topic_regex: group.source_topic_regex,
                repartition_source_topics: group
                    .repartition_source_topics
                    .into_iter()
                    .map(moved)
                    .collect(),
            })
            .collect();
        state::Subtopology {
            subtopology_id: part.subtopology_id,
            source_topics: part.source_topics,
            source_topic_regex: part.source_topic_regex,
            state_changelog_topics: topics(part.state_changelog_topics),
            repartition_sink_topics: part.repartition_sink_topics,
            repartition_source_topics: sorted,
            copartition_groups,
        }
    };
    let mut subtopologies: Vec<_> = topology.subtopologies.into_iter().map(part).collect();
    subtopologies.sort_by(|left, right| left.subtopology_id.cmp(&right.subtopology_id));
    Topology {
        epoch: topology.epoch,
        subtopologies,
    }
}

pub(crate) async fn describe(
    call: Call,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let authorized_operations = match request.include_authorized_operations {
        true => GROUP_OPERATIONS,
        false => i32::MIN,
    };
    let failed = |group_id: String, code: ErrorCode, why: Option<String>| DescribedGroup {
        error_code: code.code(),
        error_message: why,
        group_id,
        ..DescribedGroup::default()
    };
    let describe_one = |group_id: String| {
        if group_id.is_empty() {
            return failed(group_id, ErrorCode::InvalidGroupId, None);
        }
        match call.core().groups.describe_streams(&group_id) {
            Ok(view) => described(group_id, view, authorized_operations),
            Err(why) => failed(group_id, ErrorCode::GroupIdNotFound, Some(why)),
        }
    };
    StreamsGroupDescribeResponse {
        groups: request.group_ids.into_iter().map(describe_one).collect(),
        ..StreamsGroupDescribeResponse::default()
    }
}

fn described(group_id: String, view: View, authorized_operations: i32) -> DescribedGroup {
    let counts = view.counts;
    let topics = |topics: Vec<state::TopicInfo>| {
        let each = topics.into_iter().map(|topic| DescribedTopic {
            partitions: counts.get(&topic.name).copied().unwrap_or(topic.partitions),
            name: topic.name,
            replication_factor: topic.replication_factor,
            topic_configs: topic
                .topic_configs
                .into_iter()
                .map(|one| KeyValue {
                    key: one.key,
                    value: one.value,
                })
                .collect(),
        });
        each.collect()
    };
    let topology = view.topology.map(|topology| DescribedTopology {
        epoch: topology.epoch,
        subtopologies: Some(
            topology
                .subtopologies
                .into_iter()
                .map(|part| Subtopology {
                    subtopology_id: part.subtopology_id,
                    source_topics: sorted(part.source_topics),
                    repartition_sink_topics: sorted(part.repartition_sink_topics),
                    state_changelog_topics: topics(part.state_changelog_topics),
                    repartition_source_topics: topics(part.repartition_source_topics),
                })
                .collect(),
        ),
    });
    DescribedGroup {
        group_id,
        group_state: view.state.name().to_owned(),
        group_epoch: view.epoch,
        assignment_epoch: view.target_epoch,
        topology,
        members: view.members.into_iter().map(member).collect(),
        authorized_operations,
        ..DescribedGroup::default()
    }
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}

fn member((id, member, target): (String, Member, Roles)) -> DescribedMember {
    let Member {
        profile, progress, ..
    } = member;
    let tags = profile.tags.into_iter();
    DescribedMember {
        member_id: id,
        member_epoch: progress.epoch,
        instance_id: None,
        rack_id: profile.rack_id,
        client_id: profile.client_id,
        client_host: profile.client_host,
        topology_epoch: profile.topology_epoch,
        process_id: profile.process_id,
        user_endpoint: profile
            .endpoint
            .map(|(host, port)| DescribedEndpoint { host, port }),
        client_tags: tags.map(|(key, value)| KeyValue { key, value }).collect(),
        task_offsets: Vec::new(),
        task_end_offsets: Vec::new(),
        assignment: assignment(progress.assigned.plain()),
        target_assignment: assignment(target),
        is_classic: false,
    }
}

fn assignment(roles: Roles) -> Assignment {
    let list = |tasks: Tasks| {
        let each = tasks
            .into_iter()
            .map(|(subtopology_id, tasks)| DescribedTasks {
                subtopology_id,
                partitions: tasks.into_iter().collect(),
            });
        each.collect()
    };
    Assignment {
        active_tasks: list(roles.active),
        standby_tasks: list(roles.standby),
        warmup_tasks: list(roles.warmup),
    }
}
