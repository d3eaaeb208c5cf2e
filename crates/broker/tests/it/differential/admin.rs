//! What administrators ask.

use kafka::messages::alter_configs::{self, AlterConfigsRequest};
use kafka::messages::describe_cluster::DescribeClusterRequest;
use kafka::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka::messages::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use kafka::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};

use super::{Both, topics};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;

pub(super) async fn run(both: &mut Both) {
    describe(both).await;
    alter(both).await;
    increment(both).await;
    cluster(both).await;
}

fn describing(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        }],
        ..DescribeConfigsRequest::default()
    }
}

async fn describe(both: &mut Both) {
    both.section("describe configs");
    topics::make(
        both,
        "settled",
        1,
        &[("retention.ms", "5000"), ("segment.bytes", "2000000")],
    )
    .await;
    for version in 1..=4 {
        both.ask(
            "two of a topic",
            version,
            describing(TOPIC, "settled", Some(&["retention.ms", "segment.bytes"])),
        )
        .await;
    }
    let mut whole = describing(TOPIC, "settled", None);
    both.ask("all of a topic", 4, whole.clone()).await;
    whole.include_synonyms = true;
    both.ask("all of a topic with synonyms", 4, whole).await;
    both.ask(
        "an unknown one",
        4,
        describing(TOPIC, "settled", Some(&["no.such"])),
    )
    .await;
    both.ask("none of them", 4, describing(TOPIC, "settled", Some(&[])))
        .await;
    both.ask(
        "of an unknown topic",
        4,
        describing(TOPIC, "not-there", None),
    )
    .await;
    both.ask("of a bad topic name", 4, describing(TOPIC, "a b", None))
        .await;
    both.ask("of no topic", 4, describing(TOPIC, "", None))
        .await;
    both.ask("of an unknown broker", 4, describing(BROKER, "7", None))
        .await;
    both.ask(
        "of a broker that is no number",
        4,
        describing(BROKER, "x", None),
    )
    .await;
    both.ask(
        "of an unknown broker's loggers",
        4,
        describing(BROKER_LOGGER, "7", None),
    )
    .await;
    both.ask("of a strange kind", 4, describing(77, "x", None))
        .await;
    both.ask("of kind 0", 4, describing(0, "x", None)).await;
    both.ask(
        "of a broker",
        4,
        describing(
            BROKER,
            "1",
            Some(&[
                "broker.id",
                "log.retention.ms",
                "num.partitions",
                "log.segment.bytes",
            ]),
        ),
    )
    .await;
    both.ask("of all brokers", 4, describing(BROKER, "", None))
        .await;
    both.ask("of a group", 4, describing(GROUP, "g", None))
        .await;
    both.ask("of no group", 4, describing(GROUP, "", None))
        .await;
}

async fn alter(both: &mut Both) {
    both.section("alter configs");
    topics::make(both, "altered", 1, &[("retention.ms", "5000")]).await;
    let ask = |kind: i8, name: &str, configs: &[(&str, Option<&str>)], validate_only: bool| {
        AlterConfigsRequest {
            resources: vec![alter_configs::AlterConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configs: configs
                    .iter()
                    .map(|(name, value)| alter_configs::AlterableConfig {
                        name: (*name).to_owned(),
                        value: value.map(str::to_owned),
                    })
                    .collect(),
            }],
            validate_only,
        }
    };
    both.ask(
        "one",
        2,
        ask(
            TOPIC,
            "altered",
            &[("segment.bytes", Some("3000000"))],
            false,
        ),
    )
    .await;
    both.ask(
        "afterwards",
        4,
        describing(TOPIC, "altered", Some(&["segment.bytes", "retention.ms"])),
    )
    .await;
    both.ask(
        "checked",
        2,
        ask(
            TOPIC,
            "altered",
            &[("segment.bytes", Some("4000000"))],
            true,
        ),
    )
    .await;
    both.ask(
        "checked, bad",
        2,
        ask(TOPIC, "altered", &[("segment.bytes", Some("x"))], true),
    )
    .await;
    both.ask(
        "unknown setting",
        2,
        ask(TOPIC, "altered", &[("no.such", Some("1"))], false),
    )
    .await;
    both.ask(
        "bad value",
        2,
        ask(TOPIC, "altered", &[("segment.bytes", Some("x"))], false),
    )
    .await;
    both.ask(
        "null",
        2,
        ask(TOPIC, "altered", &[("segment.bytes", None)], false),
    )
    .await;
    both.ask(
        "unknown topic",
        2,
        ask(
            TOPIC,
            "not-there",
            &[("segment.bytes", Some("3000000"))],
            false,
        ),
    )
    .await;
    both.ask(
        "no topic",
        2,
        ask(TOPIC, "", &[("segment.bytes", Some("3000000"))], false),
    )
    .await;
    both.ask("strange kind", 2, ask(77, "x", &[], false)).await;
    both.ask("unknown broker", 2, ask(BROKER, "7", &[], false))
        .await;
    both.ask("nothing", 2, ask(TOPIC, "altered", &[], false))
        .await;
    both.ask(
        "after nothing",
        4,
        describing(TOPIC, "altered", Some(&["segment.bytes", "retention.ms"])),
    )
    .await;
}

/// Setting, operation, value.
type Changes<'a> = &'a [(&'a str, i8, Option<&'a str>)];

async fn increment(both: &mut Both) {
    both.section("incremental alter configs");
    topics::make(both, "stepped", 1, &[("retention.ms", "5000")]).await;
    let ask = |kind: i8, name: &str, configs: Changes<'_>, validate_only: bool| {
        IncrementalAlterConfigsRequest {
            resources: vec![incremental_alter_configs::AlterConfigsResource {
                resource_type: kind,
                resource_name: name.to_owned(),
                configs: configs
                    .iter()
                    .map(
                        |(name, operation, value)| incremental_alter_configs::AlterableConfig {
                            name: (*name).to_owned(),
                            config_operation: *operation,
                            value: value.map(str::to_owned),
                        },
                    )
                    .collect(),
            }],
            validate_only,
        }
    };
    let cases: &[(&str, Changes<'_>)] = &[
        ("set", &[("segment.bytes", 0, Some("3000000"))]),
        ("remove", &[("retention.ms", 1, None)]),
        ("remove what is not set", &[("flush.ms", 1, None)]),
        (
            "append to a list",
            &[("cleanup.policy", 2, Some("compact"))],
        ),
        ("append again", &[("cleanup.policy", 2, Some("compact"))]),
        ("take from a list", &[("cleanup.policy", 3, Some("delete"))]),
        ("take the last", &[("cleanup.policy", 3, Some("compact"))]),
        (
            "take what is not in it",
            &[("cleanup.policy", 3, Some("compact,delete"))],
        ),
        ("append to a number", &[("segment.bytes", 2, Some("1"))]),
        ("take from a number", &[("segment.bytes", 3, Some("1"))]),
        ("strange operation", &[("segment.bytes", 9, Some("1"))]),
        ("set nothing", &[("segment.bytes", 0, None)]),
        (
            "one setting twice",
            &[
                ("segment.bytes", 0, Some("3000000")),
                ("segment.bytes", 0, Some("4000000")),
            ],
        ),
        ("unknown setting", &[("no.such", 0, Some("1"))]),
        ("remove an unknown setting", &[("no.such", 1, None)]),
        ("bad value", &[("segment.bytes", 0, Some("x"))]),
        ("empty value", &[("segment.bytes", 0, Some(""))]),
    ];
    for (step, configs) in cases {
        both.ask(
            &format!("check {step}"),
            1,
            ask(TOPIC, "stepped", configs, true),
        )
        .await;
        both.ask(step, 1, ask(TOPIC, "stepped", configs, false))
            .await;
        let told = describing(
            TOPIC,
            "stepped",
            Some(&["segment.bytes", "retention.ms", "cleanup.policy"]),
        );
        both.ask(&format!("after {step}"), 4, told).await;
    }
    both.ask(
        "unknown topic",
        1,
        ask(
            TOPIC,
            "not-there",
            &[("segment.bytes", 0, Some("3000000"))],
            false,
        ),
    )
    .await;
    both.ask("strange kind", 1, ask(77, "x", &[], false)).await;
    both.ask(
        "unknown broker",
        1,
        ask(BROKER, "7", &[("num.io.threads", 0, Some("3"))], false),
    )
    .await;
    both.ask(
        "no such broker setting",
        1,
        ask(BROKER, "1", &[("no.such", 0, Some("3"))], false),
    )
    .await;
    let mut twice = ask(
        TOPIC,
        "stepped",
        &[("segment.bytes", 0, Some("3000000"))],
        false,
    );
    twice.resources.push(twice.resources[0].clone());
    both.ask("one topic twice", 1, twice).await;
}

async fn cluster(both: &mut Both) {
    both.section("cluster");
    for version in 0..=2 {
        both.ask("brokers", version, DescribeClusterRequest::default())
            .await;
    }
    let rights = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..DescribeClusterRequest::default()
    };
    both.ask("operations", 1, rights).await;
    for kind in [0, 2, 3] {
        let request = DescribeClusterRequest {
            endpoint_type: kind,
            ..DescribeClusterRequest::default()
        };
        both.ask(&format!("endpoints of kind {kind}"), 1, request)
            .await;
    }
    let dirs = |topics: Option<&[(&str, &[i32])]>| DescribeLogDirsRequest {
        topics: topics.map(|topics| {
            topics
                .iter()
                .map(|(topic, partitions)| DescribableLogDirTopic {
                    topic: (*topic).to_owned(),
                    partitions: partitions.to_vec(),
                })
                .collect()
        }),
    };
    for version in 1..=5 {
        both.ask(
            "log dirs of a topic",
            version,
            dirs(Some(&[("settled", &[0, 5]), ("not-there", &[0])])),
        )
        .await;
        both.ask("log dirs of nothing", version, dirs(Some(&[])))
            .await;
    }
}
