//! Topics come, grow and go.

use std::collections::BTreeMap;

use kafka::error::ErrorCode;
use kafka::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use kafka::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};

use crate::stage::{Client, Stage, batch, error};

async fn create(client: &mut Client, topic: CreatableTopic) -> (ErrorCode, i32) {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    let response = client.ask(7, request).await;
    (
        error(response.topics[0].error_code),
        response.topics[0].num_partitions,
    )
}

fn wanted(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

async fn metadata(client: &mut Client, topic: &str, create: bool) -> (ErrorCode, usize) {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    let response = client.ask(9, request).await;
    let topic = &response.topics[0];
    (error(topic.error_code), topic.partitions.len())
}

#[tokio::test]
async fn what_may_be_made() {
    let stage = Stage::open_with(|options| {
        options.partitions_default = 3;
        options.limits.partitions_max = 100;
    })
    .await;
    let mut client = stage.client().await;
    let none = ErrorCode::None;
    let long = "x".repeat(250);
    for (topic, expected) in [
        (wanted("a", 2, 1), (none, 2)),
        (wanted("a", 2, 1), (ErrorCode::TopicAlreadyExists, -1)),
        (wanted("b", -1, -1), (none, 3)),
        (wanted("c", 0, 1), (ErrorCode::InvalidPartitions, -1)),
        (wanted("c", 1, 3), (ErrorCode::InvalidReplicationFactor, -1)),
        (wanted("c", 1, 0), (ErrorCode::InvalidReplicationFactor, -1)),
        (wanted("c", 1000, 1), (ErrorCode::InvalidPartitions, -1)),
        (wanted("", 1, 1), (ErrorCode::InvalidTopicException, -1)),
        (wanted("..", 1, 1), (ErrorCode::InvalidTopicException, -1)),
        (wanted("a/b", 1, 1), (ErrorCode::InvalidTopicException, -1)),
        (wanted(&long, 1, 1), (ErrorCode::InvalidTopicException, -1)),
    ] {
        let name = topic.name.clone();
        assert_eq!(create(&mut client, topic).await, expected, "{name}");
    }
    let assigned = |broker| CreatableTopic {
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![broker],
        }],
        ..wanted("d", -1, -1)
    };
    assert_eq!(
        create(&mut client, assigned(2)).await.0,
        ErrorCode::InvalidReplicaAssignment
    );
    assert_eq!(create(&mut client, assigned(1)).await, (none, 1));
}

#[tokio::test]
async fn validating_makes_nothing_and_twice_is_refused() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let request = CreateTopicsRequest {
        topics: vec![wanted("a", 1, 1)],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    let response = client.ask(7, request).await;
    assert_eq!(error(response.topics[0].error_code), ErrorCode::None);
    let expected = (ErrorCode::UnknownTopicOrPartition, 0);
    assert_eq!(metadata(&mut client, "a", false).await, expected);
    let request = CreateTopicsRequest {
        topics: vec![wanted("a", 1, 1), wanted("a", 2, 1)],
        ..CreateTopicsRequest::default()
    };
    let response = client.ask(7, request).await;
    assert_eq!(response.topics.len(), 1);
    assert_eq!(
        error(response.topics[0].error_code),
        ErrorCode::InvalidRequest
    );
}

#[tokio::test]
async fn asking_for_metadata_makes_a_topic_where_that_is_allowed() {
    let stage = Stage::open_with(|options| options.partitions_default = 2).await;
    let mut client = stage.client().await;
    assert_eq!(
        metadata(&mut client, "a", false).await,
        (ErrorCode::UnknownTopicOrPartition, 0)
    );
    assert_eq!(metadata(&mut client, "a", true).await, (ErrorCode::None, 2));
    assert_eq!(
        metadata(&mut client, "a?", true).await,
        (ErrorCode::InvalidTopicException, 0)
    );

    let stage = Stage::open_with(|options| options.auto_create = false).await;
    let mut client = stage.client().await;
    assert_eq!(
        metadata(&mut client, "a", true).await,
        (ErrorCode::UnknownTopicOrPartition, 0)
    );
}

#[tokio::test]
async fn clients_are_told_the_address_that_they_used() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let response = client.ask(9, MetadataRequest::default()).await;
    let told = &response.brokers[0];
    assert_eq!(
        (told.host.as_str(), told.port),
        ("127.0.0.1", i32::from(stage.address.port()))
    );

    let stage = Stage::open_with(|options| {
        options.advertised = Some("broker.example.com:19092".parse().expect("an address"));
    })
    .await;
    let mut client = stage.client().await;
    let response = client.ask(9, MetadataRequest::default()).await;
    let told = &response.brokers[0];
    assert_eq!(
        (told.host.as_str(), told.port),
        ("broker.example.com", 19092)
    );
}

#[tokio::test]
async fn topics_grow_and_never_shrink() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 2, &[]).await;
    for (name, count, expected) in [
        ("t", 2, ErrorCode::InvalidPartitions),
        ("t", 1, ErrorCode::InvalidPartitions),
        ("nowhere", 3, ErrorCode::UnknownTopicOrPartition),
        ("t", 5, ErrorCode::None),
    ] {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
            }],
            ..CreatePartitionsRequest::default()
        };
        let response = client.ask(3, request).await;
        assert_eq!(
            error(response.results[0].error_code),
            expected,
            "{name} {count}"
        );
    }
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(
        metadata(&mut client, "t", false).await,
        (ErrorCode::None, 5)
    );
}

#[tokio::test]
async fn a_topic_that_is_made_again_is_another_one() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client.produce(9, "t", -1, batch(&["old"])).await;
    let id = client
        .ask(
            12,
            MetadataRequest {
                topics: None,
                ..Default::default()
            },
        )
        .await;
    let id = id
        .topics
        .iter()
        .find(|topic| topic.name.as_deref() == Some("t"));
    let topic_id = id.expect("there").topic_id;
    for expected in [ErrorCode::None, ErrorCode::UnknownTopicId] {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: None,
                topic_id,
            }],
            ..DeleteTopicsRequest::default()
        };
        let response = client.ask(6, request).await;
        assert_eq!(error(response.responses[0].error_code), expected);
    }
    client.create("t", 1, &[]).await;
    assert_eq!(client.values("t", 0).await, []);
    let request = DeleteTopicsRequest {
        topic_names: vec!["__consumer_offsets".into()],
        ..DeleteTopicsRequest::default()
    };
    let response = client.ask(5, request).await;
    assert_eq!(
        error(response.responses[0].error_code),
        ErrorCode::InvalidRequest
    );
}

#[tokio::test]
async fn topics_are_as_the_configuration_says() {
    let stage = Stage::open().await;
    let wanted = |partitions: u32, bytes: u64| {
        let topic = model::Topic {
            partitions,
            retention_bytes: Some(bytes),
            ..model::Topic::default()
        };
        BTreeMap::from([("t".to_owned(), topic)])
    };
    let told = |stage: &Stage| {
        let topics = stage.broker.topics();
        let topic = topics
            .into_iter()
            .find(|topic| topic.name == "t")
            .expect("there");
        (
            topic.partitions.len(),
            topic.settings["retention.bytes"].clone(),
        )
    };
    assert_eq!(
        stage
            .broker
            .ensure_topics(&wanted(2, 10))
            .await
            .expect("made"),
        []
    );
    assert_eq!(told(&stage), (2, "10".to_owned()));
    assert_eq!(
        stage
            .broker
            .ensure_topics(&wanted(3, 20))
            .await
            .expect("grown"),
        []
    );
    assert_eq!(told(&stage), (3, "20".to_owned()));
    let drifts = stage
        .broker
        .ensure_topics(&wanted(1, 20))
        .await
        .expect("left alone");
    assert_eq!(drifts.len(), 1);
    assert_eq!(told(&stage), (3, "20".to_owned()));
}

#[tokio::test]
async fn a_topic_that_cannot_be_made_leaves_nothing_behind() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    let in_the_way = stage.data_dir().join("t-1");
    std::fs::write(&in_the_way, "not a folder").expect("written");
    let refused = create(&mut client, wanted("t", 3, 1)).await;
    assert_eq!(refused, (ErrorCode::KafkaStorageError, -1));
    let expected = (ErrorCode::UnknownTopicOrPartition, 0);
    assert_eq!(metadata(&mut client, "t", false).await, expected);
    assert!(!stage.data_dir().join("t-0").exists());
    std::fs::remove_file(in_the_way).expect("removed");
    assert_eq!(
        create(&mut client, wanted("t", 3, 1)).await,
        (ErrorCode::None, 3)
    );
}
