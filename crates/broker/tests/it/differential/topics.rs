//! Topics and what is told about them.

use kafka::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use kafka::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use kafka::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use kafka::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use uuid::Uuid;

use super::{Answer, Both};

pub(super) async fn run(both: &mut Both) {
    create(both).await;
    grow(both).await;
    metadata(both).await;
    delete(both).await;
}

/// A topic that both have, for the steps of other sections.
pub(super) async fn make(both: &mut Both, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let step = format!("make {name}");
    let request = creation(vec![topic(name, partitions, configs)], false);
    let (_, theirs) = both.ask(&step, 4, request).await.answered();
    assert_eq!(theirs.topics[0].error_code, 0, "{theirs:?}");
    // Apache Kafka answers before its partitions take records.
    let look = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.to_owned(),
            partitions: (0..partitions)
                .map(|partition_index| ListOffsetsPartition {
                    partition_index,
                    timestamp: -1,
                    ..ListOffsetsPartition::default()
                })
                .collect(),
        }],
        ..ListOffsetsRequest::default()
    };
    loop {
        let Answer::Given(answer) = both.theirs.ask(7, look.clone()).await else {
            panic!("Apache Kafka answers");
        };
        if answer.topics[0]
            .partitions
            .iter()
            .all(|one| one.error_code == 0)
        {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
    });
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: -1,
        configs: configs.collect(),
        ..CreatableTopic::default()
    }
}

fn creation(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics,
        validate_only,
        timeout_ms: 30_000,
    }
}

fn assigned(name: &str, partitions: i32, factor: i16, to: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = to
        .iter()
        .map(|(index, brokers)| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.to_vec(),
        });
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: partitions,
        replication_factor: factor,
        assignments: assignments.collect(),
        configs: Vec::new(),
    }
}

async fn create(both: &mut Both) {
    both.section("create topics");
    let long = "l".repeat(249);
    let too_long = "l".repeat(250);
    let odd: Vec<(&str, CreatableTopic)> = vec![
        ("plain", topic("plain", 2, &[])),
        ("again", topic("plain", 2, &[])),
        ("default partitions", topic("defaults", -1, &[])),
        ("no partitions", topic("zero", 0, &[])),
        ("fewer than none", topic("minus", -2, &[])),
        ("empty name", topic("", 1, &[])),
        ("one dot", topic(".", 1, &[])),
        ("two dots", topic("..", 1, &[])),
        ("a space", topic("a b", 1, &[])),
        ("a slash", topic("a/b", 1, &[])),
        ("longest name", topic(&long, 1, &[])),
        ("too long a name", topic(&too_long, 1, &[])),
        ("a dot in it", topic("dots.and_lines", 1, &[])),
        (
            "a collision of metric names",
            topic("dots_and.lines", 1, &[]),
        ),
        ("an internal name", topic("__transaction_state", 1, &[])),
        (
            "replication of 2",
            CreatableTopic {
                replication_factor: 2,
                ..topic("rf2", 1, &[])
            },
        ),
        (
            "replication of 0",
            CreatableTopic {
                replication_factor: 0,
                ..topic("rf0", 1, &[])
            },
        ),
        (
            "replication of -2",
            CreatableTopic {
                replication_factor: -2,
                ..topic("rf-2", 1, &[])
            },
        ),
        (
            "assigned",
            assigned("assigned", -1, -1, &[(0, &[1]), (1, &[1])]),
        ),
        (
            "assigned and counted",
            assigned("assigned-2", 1, -1, &[(0, &[1])]),
        ),
        (
            "assigned with a factor",
            assigned("assigned-3", -1, 1, &[(0, &[1])]),
        ),
        (
            "assigned to a stranger",
            assigned("assigned-4", -1, -1, &[(0, &[7])]),
        ),
        (
            "assigned with a gap",
            assigned("assigned-5", -1, -1, &[(0, &[1]), (2, &[1])]),
        ),
        (
            "assigned not from 0",
            assigned("assigned-6", -1, -1, &[(1, &[1])]),
        ),
        (
            "assigned twice",
            assigned("assigned-7", -1, -1, &[(0, &[1]), (0, &[1])]),
        ),
        (
            "assigned to nobody",
            assigned("assigned-8", -1, -1, &[(0, &[])]),
        ),
        (
            "assigned to the same twice",
            assigned("assigned-9", -1, -1, &[(0, &[1, 1])]),
        ),
        ("unknown setting", topic("s1", 1, &[("no.such.thing", "1")])),
        (
            "setting that is no number",
            topic("s2", 1, &[("retention.ms", "soon")]),
        ),
        (
            "setting out of bounds",
            topic("s3", 1, &[("retention.ms", "-2")]),
        ),
        (
            "setting that is no word",
            topic("s4", 1, &[("cleanup.policy", "burn")]),
        ),
        (
            "setting that is no boolean",
            topic("s5", 1, &[("preallocate", "perhaps")]),
        ),
        ("small segments", topic("s6", 1, &[("segment.bytes", "10")])),
        (
            "dirty ratio above 1",
            topic("s7", 1, &[("min.cleanable.dirty.ratio", "1.5")]),
        ),
        (
            "both policies",
            topic("s8", 1, &[("cleanup.policy", "compact,delete")]),
        ),
        (
            "lags that contradict",
            topic(
                "s9",
                1,
                &[
                    ("min.compaction.lag.ms", "5"),
                    ("max.compaction.lag.ms", "4"),
                ],
            ),
        ),
        (
            "unknown codec",
            topic("s10", 1, &[("compression.type", "brotli")]),
        ),
        (
            "zstd level",
            topic(
                "s11",
                1,
                &[
                    ("compression.type", "zstd"),
                    ("compression.zstd.level", "99"),
                ],
            ),
        ),
        (
            "timestamp type",
            topic("s12", 1, &[("message.timestamp.type", "Whenever")]),
        ),
        (
            "remote storage",
            topic("s13", 1, &[("remote.storage.enable", "true")]),
        ),
        (
            "replicas in sync",
            topic("s14", 1, &[("min.insync.replicas", "2")]),
        ),
        (
            "no replicas in sync",
            topic("s15", 1, &[("min.insync.replicas", "0")]),
        ),
        (
            "a setting twice",
            topic("s16", 1, &[("retention.ms", "5"), ("retention.ms", "6")]),
        ),
        (
            "spaces around a number",
            topic("s17", 1, &[("retention.ms", " 5000 ")]),
        ),
        (
            "unclean elections",
            topic("s18", 1, &[("unclean.leader.election.enable", "true")]),
        ),
        (
            "throttled replicas",
            topic(
                "s19",
                1,
                &[("leader.replication.throttled.replicas", "0:1")],
            ),
        ),
        (
            "throttled nonsense",
            topic("s20", 1, &[("leader.replication.throttled.replicas", "x")]),
        ),
    ];
    for (step, topic) in odd {
        both.ask(
            &format!("check {step}"),
            4,
            creation(vec![topic.clone()], true),
        )
        .await;
        both.ask(step, 4, creation(vec![topic], false)).await;
    }
    let null = CreatableTopic {
        configs: vec![CreatableTopicConfig {
            name: "retention.ms".into(),
            value: None,
        }],
        ..topic("null", 1, &[])
    };
    both.ask("a setting without value", 4, creation(vec![null], false))
        .await;
    let twice = creation(
        vec![
            topic("twice", 1, &[]),
            topic("twice", 2, &[]),
            topic("once", 1, &[]),
        ],
        false,
    );
    both.ask("one name twice", 4, twice).await;
    both.ask("nothing", 4, creation(Vec::new(), false)).await;
    both.ask(
        "oldest version",
        2,
        creation(vec![topic("oldest", 1, &[])], false),
    )
    .await;
    both.ask(
        "all settings",
        7,
        creation(
            vec![topic("all-settings", 3, &[("retention.ms", "5000")])],
            false,
        ),
    )
    .await;
    both.ask(
        "all settings of a check",
        7,
        creation(vec![topic("all-checked", 3, &[])], true),
    )
    .await;
}

async fn grow(both: &mut Both) {
    both.section("create partitions");
    make(both, "growing", 2, &[]).await;
    let ask = |name: &str, count: i32, to: Option<Vec<Vec<i32>>>, validate_only: bool| {
        CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.to_owned(),
                count,
                assignments: to.map(|to| {
                    to.into_iter()
                        .map(|broker_ids| CreatePartitionsAssignment { broker_ids })
                        .collect()
                }),
            }],
            timeout_ms: 30_000,
            validate_only,
        }
    };
    both.ask("checked", 3, ask("growing", 3, None, true)).await;
    both.ask("as many", 3, ask("growing", 2, None, false)).await;
    both.ask("fewer", 3, ask("growing", 1, None, false)).await;
    both.ask("none", 3, ask("growing", 0, None, false)).await;
    both.ask("unknown", 3, ask("not-there", 4, None, false))
        .await;
    both.ask("more", 3, ask("growing", 3, None, false)).await;
    both.ask("assigned", 3, ask("growing", 4, Some(vec![vec![1]]), false))
        .await;
    both.ask(
        "assigned too few",
        3,
        ask("growing", 6, Some(vec![vec![1]]), false),
    )
    .await;
    both.ask(
        "assigned to a stranger",
        3,
        ask("growing", 5, Some(vec![vec![9]]), false),
    )
    .await;
    both.ask(
        "assigned to two",
        3,
        ask("growing", 5, Some(vec![vec![1, 1]]), false),
    )
    .await;
    both.ask(
        "assigned to nobody",
        3,
        ask("growing", 5, Some(vec![vec![]]), false),
    )
    .await;
    let mut twice = ask("growing", 5, None, false);
    twice.topics.push(twice.topics[0].clone());
    both.ask("one name twice", 3, twice).await;
    both.ask("oldest version", 0, ask("growing", 7, None, false))
        .await;
}

fn asked(names: &[&str], create: bool) -> MetadataRequest {
    let topics = names.iter().map(|name| MetadataRequestTopic {
        name: Some((*name).to_owned()),
        ..MetadataRequestTopic::default()
    });
    MetadataRequest {
        topics: Some(topics.collect()),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    }
}

async fn metadata(both: &mut Both) {
    both.section("metadata");
    make(both, "told", 2, &[]).await;
    for version in 0..=13 {
        both.ask(
            "known and unknown",
            version,
            asked(&["told", "growing"], false),
        )
        .await;
    }
    for version in 4..=13 {
        both.ask("unknown", version, asked(&["not-there"], false))
            .await;
    }
    for (step, name) in [
        ("no name", ""),
        ("a slash", "a/b"),
        ("dots", ".."),
        ("internal", "__consumer_offsets"),
    ] {
        both.ask(step, 12, asked(&[name], false)).await;
    }
    both.ask("bad name to create", 9, asked(&["a b"], true))
        .await;
    both.ask("one name twice", 9, asked(&["told", "told"], false))
        .await;
    let mut rights = asked(&["told"], false);
    rights.include_topic_authorized_operations = true;
    both.ask("operations of a topic", 12, rights.clone()).await;
    rights.include_cluster_authorized_operations = true;
    both.ask("operations of all", 9, rights).await;
    both.ask("no topics", 12, asked(&[], false)).await;
    let unknown = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id: Uuid::from_u128(77),
            name: None,
        }]),
        ..MetadataRequest::default()
    };
    both.ask("unknown id", 12, unknown).await;
    let nameless = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic::default()]),
        ..MetadataRequest::default()
    };
    both.ask("neither name nor id", 12, nameless).await;

    let partitions =
        |names: &[&str], limit: i32, cursor: Option<(&str, i32)>| DescribeTopicPartitionsRequest {
            topics: names
                .iter()
                .map(|name| TopicRequest {
                    name: (*name).to_owned(),
                })
                .collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, index)| Cursor {
                topic_name: name.to_owned(),
                partition_index: index,
            }),
        };
    both.ask(
        "partitions",
        0,
        partitions(&["told", "growing", "not-there"], 2000, None),
    )
    .await;
    both.ask(
        "partitions, few at a time",
        0,
        partitions(&["told", "growing"], 3, None),
    )
    .await;
    both.ask(
        "partitions from a cursor",
        0,
        partitions(&["told", "growing"], 3, Some(("growing", 2))),
    )
    .await;
    both.ask(
        "partitions from a cursor of a stranger",
        0,
        partitions(&["told"], 3, Some(("aaa", 2))),
    )
    .await;
    both.ask(
        "partitions from behind the end",
        0,
        partitions(&["told"], 3, Some(("told", 9))),
    )
    .await;
    both.ask(
        "partitions from below 0",
        0,
        partitions(&["told"], 3, Some(("told", -1))),
    )
    .await;
    both.ask(
        "partitions with a limit of 0",
        0,
        partitions(&["told"], 0, None),
    )
    .await;
}

async fn delete(both: &mut Both) {
    both.section("delete topics");
    make(both, "doomed", 1, &[]).await;
    make(both, "doomed-too", 1, &[]).await;
    let names = |names: &[&str]| DeleteTopicsRequest {
        topic_names: names.iter().map(|name| (*name).to_owned()).collect(),
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    let states = |states: &[(Option<&str>, u128)]| DeleteTopicsRequest {
        topics: states
            .iter()
            .map(|(name, id)| DeleteTopicState {
                name: name.map(str::to_owned),
                topic_id: Uuid::from_u128(*id),
            })
            .collect(),
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    both.ask("known and unknown", 5, names(&["doomed", "not-there"]))
        .await;
    both.ask("again", 1, names(&["doomed"])).await;
    both.ask("one name twice", 4, names(&["doomed-too", "doomed-too"]))
        .await;
    both.ask("unknown id", 6, states(&[(None, 77)])).await;
    both.ask("name and id", 6, states(&[(Some("told"), 77)]))
        .await;
    both.ask("neither", 6, states(&[(None, 0)])).await;
    both.ask("unknown name", 6, states(&[(Some("not-there"), 0)]))
        .await;
    both.ask("nothing", 6, states(&[])).await;
}
