//! Streams groups (KIP-1071).
//!
//! Apache Kafka makes the topics of an application and hears of them in the background: how many epochs that takes is not
//! compared.

use std::time::{Duration, Instant};

use kafka::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::DescribeGroupsRequest;
use kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use kafka::messages::streams_group_describe::StreamsGroupDescribeRequest;
use kafka::messages::streams_group_heartbeat::{
    CopartitionGroup, Endpoint, KeyValue, StreamsGroupHeartbeatRequest as Beat,
    StreamsGroupHeartbeatResponse, Subtopology, TaskIds, TaskOffset, TopicInfo, Topology,
};

use super::{Answer, Both, Side, topics};

const GROUP: &str = "streamers";
const SOURCE: &str = "stream-words";
const BETWEEN: &str = "streamers-words-repartition";
const CHANGES: &str = "streamers-counts-changelog";
/// How long Apache Kafka may take to make the topics.
const READY: Duration = Duration::from_secs(30);
/// What depends on how soon Apache Kafka hears of topics.
const EPOCHS: &[&str] = &["member_epoch", "group_epoch", "assignment_epoch"];

pub(super) async fn run(both: &mut Both) {
    both.section("streams groups");
    for (name, value) in [
        ("streams.initial.rebalance.delay.ms", "0"),
        ("streams.assignment.interval.ms", "0"),
    ] {
        set(both, GROUP, name, value).await;
    }
    wrong(both).await;
    describe(both, "describe nothing").await;
    both.ask("no sources", 0, joining("m")).await;
    both.ask("still no sources", 0, alive("m", 2)).await;
    describe(both, "describe not ready").await;
    topics::make(both, SOURCE, 3, &[]).await;
    let mut first = ready(both, "m").await;
    describe(both, "describe one").await;
    looks(both).await;
    let second = two(both, &mut first).await;
    commits(both, first, second).await;
    ends(both, second).await;
    others(both).await;
    delayed(both).await;
}

fn topic(name: &str, configs: &[(&str, &str)]) -> TopicInfo {
    let configs = configs.iter().map(|(key, value)| KeyValue {
        key: (*key).into(),
        value: (*value).into(),
    });
    TopicInfo {
        name: name.into(),
        topic_configs: configs.collect(),
        ..TopicInfo::default()
    }
}

/// Two parts: words go over a topic between them, and are counted in a store.
fn topology() -> Topology {
    let first = Subtopology {
        subtopology_id: "0".into(),
        source_topics: vec![SOURCE.into()],
        repartition_sink_topics: vec![BETWEEN.into()],
        ..Subtopology::default()
    };
    let second = Subtopology {
        subtopology_id: "1".into(),
        repartition_source_topics: vec![topic(BETWEEN, &[("cleanup.policy", "delete")])],
        state_changelog_topics: vec![topic(CHANGES, &[("cleanup.policy", "compact")])],
        ..Subtopology::default()
    };
    Topology {
        epoch: 3,
        subtopologies: vec![first, second],
    }
}

fn joining(member: &str) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        endpoint_information_epoch: -1,
        rebalance_timeout_ms: 60_000,
        topology: Some(topology()),
        active_tasks: Some(Vec::new()),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        process_id: Some(format!("process-{member}")),
        client_tags: Some(Vec::new()),
        ..Beat::default()
    }
}

fn alive(member: &str, epoch: i32) -> Beat {
    Beat {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        ..Beat::default()
    }
}

fn tasks(each: &[(&str, &[i32])]) -> Option<Vec<TaskIds>> {
    let each = each.iter().map(|(part, partitions)| TaskIds {
        subtopology_id: (*part).into(),
        partitions: partitions.to_vec(),
    });
    Some(each.collect())
}

fn owning(member: &str, epoch: i32, active: &[(&str, &[i32])]) -> Beat {
    Beat {
        active_tasks: tasks(active),
        standby_tasks: Some(Vec::new()),
        warmup_tasks: Some(Vec::new()),
        ..alive(member, epoch)
    }
}

async fn set(both: &mut Both, group: &str, name: &str, value: &str) {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 32,
            resource_name: group.into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: 0,
                value: Some(value.into()),
            }],
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    both.ask(&format!("set {name} of {group}"), 1, request)
        .await;
}

async fn wrong(both: &mut Both) {
    let with = |change: fn(&mut Beat)| {
        let mut beat = joining("a");
        change(&mut beat);
        beat
    };
    let part = |change: fn(&mut Topology)| {
        let mut beat = joining("a");
        beat.topology.iter_mut().for_each(change);
        beat
    };
    let cases = [
        ("stranger", alive("a", 5)),
        ("stranger leaves", alive("a", -1)),
        ("stranger goes away", alive("a", -2)),
        ("strange epoch", alive("a", -3)),
        ("no member id", joining("")),
        ("blank member id", joining(" ")),
        ("no group id", with(|beat| beat.group_id.clear())),
        ("static", with(|beat| beat.instance_id = Some("i".into()))),
        (
            "empty instance id",
            with(|beat| beat.instance_id = Some(String::new())),
        ),
        (
            "empty rack id",
            with(|beat| beat.rack_id = Some(String::new())),
        ),
        ("no time", with(|beat| beat.rebalance_timeout_ms = -1)),
        ("no tasks told", with(|beat| beat.active_tasks = None)),
        (
            "tasks at first",
            with(|beat| beat.active_tasks = tasks(&[("0", &[0])])),
        ),
        (
            "copies at first",
            with(|beat| beat.standby_tasks = tasks(&[("0", &[0])])),
        ),
        (
            "warm at first",
            with(|beat| beat.warmup_tasks = tasks(&[("0", &[0])])),
        ),
        ("no topology", with(|beat| beat.topology = None)),
        (
            "offsets of tasks",
            with(|beat| beat.task_offsets = Some(vec![TaskOffset::default()])),
        ),
        (
            "end offsets of tasks",
            with(|beat| beat.task_end_offsets = Some(Vec::new())),
        ),
        (
            "topology later",
            Beat {
                topology: Some(topology()),
                ..alive("a", 1)
            },
        ),
        (
            "some tasks",
            Beat {
                active_tasks: Some(Vec::new()),
                ..alive("a", 1)
            },
        ),
        (
            "pattern",
            part(|one| one.subtopologies[0].source_topic_regex.push("a.*".into())),
        ),
        (
            "partitions of a changelog",
            part(|one| one.subtopologies[1].state_changelog_topics[0].partitions = 2),
        ),
        (
            "Kafka's own topic",
            part(|one| one.subtopologies[0].source_topics[0] = "__consumer_offsets".into()),
        ),
        (
            "no name of a topic",
            part(|one| one.subtopologies[0].source_topics[0] = "a b".into()),
        ),
    ];
    for (step, beat) in cases {
        both.ask(step, 0, beat).await;
    }
}

async fn describe(both: &mut Both, step: &str) {
    let request = StreamsGroupDescribeRequest {
        group_ids: vec![GROUP.into(), "nowhere".into(), String::new()],
        include_authorized_operations: true,
    };
    both.ask_but(EPOCHS, step, 0, request).await;
}

/// The epochs that each side has told a member.
#[derive(Clone, Copy)]
struct Epochs(i32, i32);

/// Asks until the member has tasks.
async fn assigned(side: &mut Side, mut beat: Beat) -> StreamsGroupHeartbeatResponse {
    let begun = Instant::now();
    loop {
        let Answer::Given(answer) = side.ask(0, beat.clone()).await else {
            panic!("no answer to a heartbeat");
        };
        assert_eq!(answer.error_code, 0, "{answer:?}");
        if answer
            .active_tasks
            .as_ref()
            .is_some_and(|tasks| !tasks.is_empty())
        {
            return answer;
        }
        assert!(begun.elapsed() < READY, "nothing is assigned: {answer:?}");
        beat = alive(&beat.member_id, answer.member_epoch);
        tokio::time::sleep(Duration::from_millis(50)).await; // it is asked again, as clients do
    }
}

async fn ready(both: &mut Both, member: &str) -> Epochs {
    let ours = assigned(&mut both.ours, joining(member)).await;
    let theirs = assigned(&mut both.theirs, joining(member)).await;
    let before = Epochs(ours.member_epoch, theirs.member_epoch);
    // All told anew, with what was made meanwhile.
    let request = MetadataRequest {
        topics: Some(
            [BETWEEN, CHANGES]
                .iter()
                .map(|name| MetadataRequestTopic {
                    name: Some((*name).into()),
                    ..MetadataRequestTopic::default()
                })
                .collect(),
        ),
        ..MetadataRequest::default()
    };
    both.ask("topics that were made", 12, request).await;
    both.ask_but(EPOCHS, "again all", 0, joining(member)).await;
    before
}

async fn each(both: &mut Both, step: &str, at: Epochs, beat: impl Fn(i32) -> Beat) -> Epochs {
    both.blind = EPOCHS;
    let (ours, theirs) = (beat(at.0), beat(at.1));
    let (ours, theirs) = both.ask_each(step, 0, ours, theirs).await.answered();
    both.blind = &[];
    match ours.error_code {
        0 => Epochs(ours.member_epoch, theirs.member_epoch),
        _ => at,
    }
}

const ALL: &[(&str, &[i32])] = &[("0", &[0, 1, 2]), ("1", &[0, 1, 2])];

async fn looks(both: &mut Both) {
    let list = |types: &[&str], states: &[&str]| ListGroupsRequest {
        types_filter: types.iter().map(|kind| (*kind).to_owned()).collect(),
        states_filter: states.iter().map(|state| (*state).to_owned()).collect(),
    };
    both.ask("list", 5, list(&["streams"], &[])).await;
    both.ask("list stable", 5, list(&["Streams"], &["stable"]))
        .await;
    both.ask("list empty", 5, list(&["streams"], &["Empty"]))
        .await;
    let request = DescribeGroupsRequest {
        groups: vec![GROUP.into()],
        ..DescribeGroupsRequest::default()
    };
    both.ask("describe as a classic one", 6, request).await;
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![GROUP.into()],
        include_authorized_operations: false,
    };
    both.ask("describe as consumers", 1, request).await;
    let request = ConsumerGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: "c".into(),
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![SOURCE.into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    both.ask("join as a consumer", 1, request).await;
    let request = ShareGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: "s".into(),
        subscribed_topic_names: Some(vec![SOURCE.into()]),
        ..ShareGroupHeartbeatRequest::default()
    };
    both.ask("join as a sharer", 1, request).await;
    both.ask("join as a classic member", 5, classic(GROUP))
        .await;
    let request = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete with members", 2, request).await;
}

fn classic(group: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    }
}

/// A second member takes over half of the tasks once the first has given them up.
async fn two(both: &mut Both, first: &mut Epochs) -> Epochs {
    let at = *first;
    *first = each(both, "nothing new", at, |epoch| alive("m", epoch)).await;
    each(both, "ahead", *first, |epoch| alive("m", epoch + 1)).await;
    each(both, "far behind", *first, |epoch| alive("m", epoch - 5)).await;
    each(both, "no such part", *first, |epoch| {
        owning("m", epoch, &[("9", &[0])])
    })
    .await;
    each(both, "no such task", *first, |epoch| {
        owning("m", epoch, &[("0", &[7])])
    })
    .await;
    let other = |change: fn(&mut Topology)| {
        let mut beat = joining("x");
        beat.topology.iter_mut().for_each(change);
        beat
    };
    both.ask(
        "another topology",
        0,
        other(|one| one.subtopologies[0].source_topics.clear()),
    )
    .await;
    both.ask("newer topology", 0, other(|one| one.epoch += 1))
        .await;
    let older = each(both, "older topology", Epochs(0, 0), |_| {
        other(|one| one.epoch -= 1)
    })
    .await;
    each(both, "older leaves", older, |_| alive("x", -1)).await;
    *first = each(both, "and the first goes on", *first, |epoch| {
        owning("m", epoch, ALL)
    })
    .await;
    let endpoint = Endpoint {
        host: "there".into(),
        port: 8080,
    };
    let joins = |_| Beat {
        user_endpoint: Some(endpoint.clone()),
        rack_id: Some("r".into()),
        client_tags: Some(vec![KeyValue {
            key: "zone".into(),
            value: "z".into(),
        }]),
        ..joining("n")
    };
    let mut second = each(both, "a second", Epochs(0, 0), joins).await;
    describe(both, "describe two").await;
    *first = each(both, "the first is asked", *first, |epoch| {
        owning("m", epoch, ALL)
    })
    .await;
    *first = each(both, "the first keeps all", *first, |epoch| {
        owning("m", epoch, ALL)
    })
    .await;
    second = each(both, "the second waits", second, |epoch| alive("n", epoch)).await;
    let half: &[(&str, &[i32])] = &[("0", &[0, 1]), ("1", &[0])];
    *first = each(both, "the first gives up", *first, |epoch| {
        owning("m", epoch, half)
    })
    .await;
    second = each(both, "the second takes", second, |epoch| alive("n", epoch)).await;
    describe(both, "describe both").await;
    second = each(both, "where tasks are", second, |epoch| Beat {
        endpoint_information_epoch: 0,
        ..alive("n", epoch)
    })
    .await;
    second
}

async fn commits(both: &mut Both, first: Epochs, second: Epochs) {
    let topics = |partition| {
        vec![OffsetCommitRequestTopic {
            name: SOURCE.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: 5,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }]
    };
    let commit = |member: &str, epoch, partition| OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: epoch,
        topics: topics(partition),
        ..OffsetCommitRequest::default()
    };
    let cases: [(&str, i16, &str, Epochs, i32, i32); 6] = [
        ("commit", 9, "m", first, 0, 0),
        ("commit ahead", 9, "m", first, 1, 0),
        ("commit of before", 9, "m", first, -1, 0),
        ("commit of before what came since", 9, "n", second, -1, 2),
        ("commit of an old client", 8, "m", first, 0, 0),
        ("commit of a stranger", 9, "z", first, 0, 0),
    ];
    for (step, version, member, at, more, partition) in cases {
        let ours = commit(member, at.0 + more, partition);
        let theirs = commit(member, at.1 + more, partition);
        both.ask_each(step, version, ours, theirs).await;
    }
    both.ask("commit of nobody", 9, commit("", -1, 0)).await;
    let fetch = |member: Option<&str>, epoch| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            member_id: member.map(str::to_owned),
            member_epoch: epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: SOURCE.into(),
                partition_indexes: vec![0, 2],
                ..OffsetFetchRequestTopics::default()
            }]),
        }],
        ..OffsetFetchRequest::default()
    };
    both.ask("fetch offsets", 9, fetch(None, -1)).await;
    both.ask("fetch offsets of a stranger", 9, fetch(Some("z"), 1))
        .await;
    both.ask("fetch offsets of before", 9, fetch(Some("m"), 1))
        .await;
    let delete = |topic: &str| OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    both.ask("delete offsets", 0, delete(SOURCE)).await;
}

async fn ends(both: &mut Both, second: Epochs) {
    each(both, "leave", second, |_| alive("m", -1)).await;
    each(both, "leave again", second, |_| alive("m", -1)).await;
    let second = each(both, "the rest comes", second, |epoch| {
        owning("n", epoch, &[("0", &[2]), ("1", &[1, 2])])
    })
    .await;
    let second = each(both, "all shall end", second, |epoch| Beat {
        shutdown_application: true,
        ..alive("n", epoch)
    })
    .await;
    let second = each(both, "all are told", second, |epoch| alive("n", epoch)).await;
    each(both, "the last leaves", second, |_| alive("n", -1)).await;
    describe(both, "describe without members").await;
    let request = OffsetDeleteRequest {
        group_id: GROUP.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: SOURCE.into(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    both.ask("delete offsets of nobody", 0, request).await;
    let request = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete", 2, request).await;
    describe(both, "describe what is gone").await;
}

/// Topologies whose topics do not fit.
async fn others(both: &mut Both) {
    topics::make(both, "stream-narrow", 1, &[]).await;
    let with = |group: &str, change: fn(&mut Topology)| {
        let mut beat = joining("o");
        beat.group_id = group.into();
        beat.topology.iter_mut().for_each(change);
        beat
    };
    let cases = [
        (
            "sources of different size",
            with("odd-1", |one| {
                let part = &mut one.subtopologies[0];
                part.source_topics.push("stream-narrow".into());
                part.copartition_groups.push(CopartitionGroup {
                    source_topics: vec![0, 1],
                    ..CopartitionGroup::default()
                });
            }),
        ),
        (
            "a topic in between that is said otherwise",
            with("odd-2", |one| {
                let part = &mut one.subtopologies[1];
                part.repartition_source_topics[0].partitions = 2;
                part.source_topics.push(SOURCE.into());
                part.copartition_groups.push(CopartitionGroup {
                    source_topics: vec![0],
                    repartition_source_topics: vec![0],
                    ..CopartitionGroup::default()
                });
            }),
        ),
        (
            "a topic in between that is there otherwise",
            with("odd-3", |one| {
                one.subtopologies[1].repartition_source_topics[0].partitions = 2;
            }),
        ),
        (
            "nothing is written in between",
            with("odd-4", |one| {
                one.subtopologies[0].repartition_sink_topics.clear();
            }),
        ),
        (
            "nothing is read",
            with("odd-5", |one| {
                one.subtopologies[0].source_topics.clear();
            }),
        ),
        (
            "many are missing",
            with("odd-6", |one| {
                let names = (0..8).map(|at| format!("stream-none-{at}"));
                one.subtopologies[0].source_topics.extend(names);
            }),
        ),
    ];
    for (step, beat) in cases {
        both.ask(step, 0, beat).await;
    }
}

/// The first assignment of a group waits for more members.
async fn delayed(both: &mut Both) {
    let beat = |member: &str| Beat {
        group_id: "streamers-2".into(),
        ..joining(member)
    };
    let (ours, theirs) = both.ask("wait for more", 0, beat("d")).await.answered();
    let again = |epoch| Beat {
        group_id: "streamers-2".into(),
        ..alive("d", epoch)
    };
    let (ours, theirs) = (again(ours.member_epoch), again(theirs.member_epoch));
    both.ask_each("wait for more still", 0, ours, theirs).await;
}
