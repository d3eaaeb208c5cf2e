//! Settings of topics: told with their sources, changed, refused with a reason.

use kafka::error::ErrorCode;
use kafka::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResult,
};
use kafka::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka::messages::{alter_configs, describe_log_dirs};

use crate::stage::{Client, Stage, batch, error};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn describe(client: &mut Client, kind: i8, name: &str) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.to_owned(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    client.ask(4, request).await.results.remove(0)
}

/// Returns the value of a setting and where it comes from.
async fn value(client: &mut Client, topic: &str, name: &str) -> (String, i8) {
    let result = describe(client, TOPIC, topic).await;
    let config = result
        .configs
        .into_iter()
        .find(|config| config.name == name)
        .expect("listed");
    (config.value.expect("a value"), config.config_source)
}

async fn change(client: &mut Client, name: &str, operation: i8, value: Option<&str>) -> ErrorCode {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                config_operation: operation,
                value: value.map(str::to_owned),
            }],
        }],
        validate_only: false,
    };
    error(client.ask(1, request).await.responses[0].error_code)
}

#[tokio::test]
async fn settings_are_told_with_their_sources() {
    let stage = Stage::open_with(|options| {
        options
            .topic_defaults
            .insert("retention.ms".into(), "1000".into());
    })
    .await;
    let mut client = stage.client().await;
    client.create("t", 1, &[("segment.bytes", "2097152")]).await;
    assert_eq!(
        value(&mut client, "t", "segment.bytes").await,
        ("2097152".into(), 1)
    );
    assert_eq!(
        value(&mut client, "t", "retention.ms").await,
        ("1000".into(), 4)
    );
    assert_eq!(
        value(&mut client, "t", "cleanup.policy").await,
        ("delete".into(), 5)
    );
    let result = describe(&mut client, TOPIC, "nowhere").await;
    assert_eq!(error(result.error_code), ErrorCode::UnknownTopicOrPartition);
    let result = describe(&mut client, BROKER, "1").await;
    let told = |name: &str| {
        let config = result.configs.iter().find(|config| config.name == name);
        config
            .and_then(|config| config.value.clone())
            .expect("listed")
    };
    assert_eq!(told("log.retention.ms"), "1000");
    assert_eq!(told("num.partitions"), "1");
    let result = describe(&mut client, BROKER, "2").await;
    assert_eq!(error(result.error_code), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn settings_are_changed_one_by_one_and_stay() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let none = ErrorCode::None;
    for (name, operation, value, expected) in [
        ("retention.ms", 0, Some("5000"), none),
        ("retention.bytes", 0, Some("7"), none),
        ("retention.bytes", 1, None, none),
        ("max.message.bytes", 0, Some("100"), none),
        ("retention.ms", 0, None, ErrorCode::InvalidRequest),
        ("retention.ms", 2, Some("1"), ErrorCode::InvalidConfig),
        ("retention.ms", 0, Some("soon"), ErrorCode::InvalidConfig),
        ("cleanup.policy", 2, Some("compact"), none),
        ("cleanup.policy", 2, Some("compact,delete"), none),
        ("cleanup.policy", 2, Some("none"), ErrorCode::InvalidConfig),
        ("cleanup.policy", 3, Some("delete"), none),
        ("min.compaction.lag.ms", 0, Some("10"), none),
        (
            "max.compaction.lag.ms",
            0,
            Some("9"),
            ErrorCode::InvalidConfig,
        ),
        ("no.such.setting", 0, Some("1"), ErrorCode::InvalidConfig),
        ("retention.ms", 9, Some("1"), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(
            change(&mut client, name, operation, value).await,
            expected,
            "{name}"
        );
    }
    assert_eq!(
        value(&mut client, "t", "cleanup.policy").await,
        ("compact".into(), 1)
    );
    assert_eq!(
        change(&mut client, "cleanup.policy", 1, None).await,
        ErrorCode::None
    );
    let answer = client
        .produce(9, "t", -1, batch(&["x".repeat(100).as_str()]))
        .await;
    assert_eq!(
        error(answer.error_code),
        ErrorCode::MessageTooLarge,
        "it works at once"
    );
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(
        value(&mut client, "t", "retention.ms").await,
        ("5000".into(), 1)
    );
    assert_eq!(
        value(&mut client, "t", "retention.bytes").await,
        ("-1".into(), 5)
    );
}

#[tokio::test]
async fn replacing_settings_takes_the_others_back() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[("retention.ms", "5000")]).await;
    let request = alter_configs::AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![alter_configs::AlterableConfig {
                name: "retention.bytes".into(),
                value: Some("9".into()),
            }],
        }],
        validate_only: false,
    };
    let response = client.ask(2, request).await;
    assert_eq!(error(response.responses[0].error_code), ErrorCode::None);
    assert_eq!(
        value(&mut client, "t", "retention.bytes").await,
        ("9".into(), 1)
    );
    assert_eq!(
        value(&mut client, "t", "retention.ms").await,
        ("604800000".into(), 5)
    );
}

#[tokio::test]
async fn sizes_are_told_per_partition() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let records = batch(&["a"]);
    client.produce(9, "t", -1, records.clone()).await;
    let request = describe_log_dirs::DescribeLogDirsRequest { topics: None };
    let response = client.ask(4, request).await;
    let topics = &response.results[0].topics;
    let topic = topics
        .iter()
        .find(|topic| topic.name == "t")
        .expect("there");
    assert_eq!(
        topic.partitions[0].partition_size,
        i64::try_from(records.len()).expect("small")
    );
}

#[tokio::test]
async fn old_records_go_by_themselves() {
    let stage = Stage::open_with(|options| {
        options.retention_check = std::time::Duration::from_millis(20);
    })
    .await;
    let mut client = stage.client().await;
    client.create("t", 1, &[("retention.ms", "1000")]).await;
    client.create("kept", 1, &[]).await;
    let old = crate::stage::now_ms() - 3_600_000;
    for topic in ["t", "kept"] {
        client
            .produce(9, topic, -1, crate::stage::stamped(&["old"], old, None))
            .await;
    }
    let start = |name: &str| {
        let topics = stage.broker.topics();
        let topic = topics.into_iter().find(|topic| topic.name == name);
        topic.expect("there").partitions[0].start
    };
    let gone = async {
        while start("t") == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let limit = std::time::Duration::from_secs(20);
    tokio::time::timeout(limit, gone)
        .await
        .expect("gone in time");
    assert_eq!((start("t"), start("kept")), (1, 0));
}
