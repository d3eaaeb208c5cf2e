//! The settings of groups.

use kafka::messages::alter_configs::{self, AlterConfigsRequest};
use kafka::messages::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka::messages::list_config_resources::ListConfigResourcesRequest;

use super::Both;

const GROUP: i8 = 32;
const SET: i8 = 0;
const REMOVE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn describing(name: &str, keys: Option<&[&str]>) -> DescribeConfigsRequest {
    DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: GROUP,
            resource_name: name.to_owned(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        }],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    }
}

/// Setting, operation, value.
type Changes<'a> = &'a [(&'a str, i8, Option<&'a str>)];

fn changing(
    name: &str,
    changes: Changes<'_>,
    validate_only: bool,
) -> IncrementalAlterConfigsRequest {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: (*name).to_owned(),
        config_operation: *operation,
        value: value.map(str::to_owned),
    };
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: name.to_owned(),
            configs: changes.iter().map(change).collect(),
        }],
        validate_only,
    }
}

fn replacing(
    name: &str,
    configs: &[(&str, Option<&str>)],
    validate_only: bool,
) -> AlterConfigsRequest {
    let config = |(name, value): &(&str, Option<&str>)| alter_configs::AlterableConfig {
        name: (*name).to_owned(),
        value: value.map(str::to_owned),
    };
    AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: GROUP,
            resource_name: name.to_owned(),
            configs: configs.iter().map(config).collect(),
        }],
        validate_only,
    }
}

pub(super) async fn run(both: &mut Both) {
    both.section("group settings");
    let session = "consumer.session.timeout.ms";
    both.ask("not set", 4, describing("set", None)).await;
    both.ask("no such", 4, describing("set", Some(&["no.such"])))
        .await;
    let values: &[(&str, &str)] = &[
        (session, "50000"),
        (session, "60000"),
        (session, "60001"),
        (session, "44999"),
        (session, "x"),
        (session, ""),
        (session, " 46000 "),
        ("consumer.heartbeat.interval.ms", "5000"),
        ("consumer.heartbeat.interval.ms", "4999"),
        ("consumer.heartbeat.interval.ms", "15001"),
        ("consumer.assignment.interval.ms", "0"),
        ("consumer.assignment.interval.ms", "-1"),
        ("consumer.assignment.interval.ms", "15001"),
        ("share.session.timeout.ms", "61000"),
        ("share.heartbeat.interval.ms", "6000"),
        ("share.record.lock.duration.ms", "15000"),
        ("share.record.lock.duration.ms", "14999"),
        ("share.record.lock.duration.ms", "60001"),
        ("share.delivery.count.limit", "2"),
        ("share.delivery.count.limit", "1"),
        ("share.delivery.count.limit", "11"),
        ("share.partition.max.record.locks", "4000"),
        ("share.partition.max.record.locks", "4001"),
        ("share.auto.offset.reset", "earliest"),
        ("share.auto.offset.reset", "by_duration:PT1H"),
        ("share.auto.offset.reset", "by_duration:-PT1H"),
        ("share.auto.offset.reset", "by_duration"),
        ("share.auto.offset.reset", "none"),
        ("share.isolation.level", "read_committed"),
        ("share.isolation.level", "READ_COMMITTED"),
        ("share.renew.acknowledge.enable", "false"),
        ("share.renew.acknowledge.enable", "perhaps"),
        ("share.assignment.interval.ms", "100"),
        ("streams.session.timeout.ms", "46000"),
        ("streams.heartbeat.interval.ms", "4000"),
        ("streams.num.standby.replicas", "2"),
        ("streams.num.standby.replicas", "3"),
        ("streams.initial.rebalance.delay.ms", "0"),
        ("streams.assignment.interval.ms", "15001"),
        ("retention.ms", "1"),
    ];
    for (name, value) in values {
        let change = [(*name, SET, Some(*value))];
        both.ask(
            &format!("set {name}={value}"),
            1,
            changing("set", &change, false),
        )
        .await;
    }
    both.ask("what is set", 4, describing("set", None)).await;
    let cases: &[(&str, Changes<'_>)] = &[
        ("remove", &[(session, REMOVE, None)]),
        ("remove again", &[(session, REMOVE, None)]),
        ("remove no such", &[("no.such", REMOVE, None)]),
        ("append", &[(session, APPEND, Some("1"))]),
        ("subtract", &[(session, SUBTRACT, Some("1"))]),
        ("append to no such", &[("no.such", APPEND, Some("1"))]),
        ("set to nothing", &[(session, SET, None)]),
        (
            "twice",
            &[(session, SET, Some("50000")), (session, SET, Some("50000"))],
        ),
        (
            "one good and one bad",
            &[
                (session, SET, Some("50000")),
                ("share.delivery.count.limit", SET, Some("0")),
            ],
        ),
    ];
    for (step, changes) in cases {
        both.ask(&format!("check {step}"), 1, changing("set", changes, true))
            .await;
        both.ask(step, 1, changing("set", changes, false)).await;
    }
    both.ask(
        "of no group",
        1,
        changing("", &[(session, SET, Some("50000"))], false),
    )
    .await;
    both.ask(
        "replaced",
        2,
        replacing("set", &[(session, Some("55000"))], false),
    )
    .await;
    both.ask("replaced, afterwards", 4, describing("set", None))
        .await;
    both.ask(
        "replaced, null",
        2,
        replacing("set", &[(session, None)], false),
    )
    .await;
    both.ask(
        "replaced, bad",
        2,
        replacing("set", &[(session, Some("1"))], false),
    )
    .await;
    both.ask("replaced, no group", 2, replacing("", &[], false))
        .await;
    let list = ListConfigResourcesRequest {
        resource_types: vec![GROUP],
    };
    both.ask("groups that have some", 1, list.clone()).await;
    both.ask("replaced by nothing", 2, replacing("set", &[], false))
        .await;
    both.ask("nothing is set", 4, describing("set", None)).await;
    both.ask("groups that have some now", 1, list).await;
}
