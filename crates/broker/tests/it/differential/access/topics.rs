//! Topics and records.

use kafka::messages::create_partitions::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use kafka::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use kafka::messages::describe_producers::{self, DescribeProducersRequest};
use kafka::messages::describe_topic_partitions::{DescribeTopicPartitionsRequest, TopicRequest};
use kafka::messages::fetch::FetchRequest;
use kafka::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka::messages::produce::ProduceRequest;
use uuid::Uuid;

use super::super::Both;
use super::{Ids, TOPICS};
use crate::stage::{batch, fetch, produce};

/// All topics that are there, and one that is not.
fn asked<'a>() -> impl Iterator<Item = &'a str> {
    TOPICS.iter().copied().chain(["absent", "bob-absent"])
}

pub(super) async fn run(both: &mut Both, user: &str, ids: &Ids) {
    metadata(both, user, ids).await;
    records(both, user, ids).await;
    offsets(both, user).await;
    change(both, user, ids).await;
}

fn looking(names: Option<Vec<&str>>) -> MetadataRequest {
    let topic = |name: &str| MetadataRequestTopic {
        name: Some(name.to_owned()),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: names.map(|names| names.into_iter().map(topic).collect()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    }
}

async fn metadata(both: &mut Both, user: &str, ids: &Ids) {
    both.section("metadata");
    for version in [0, 1, 5, 9, 13] {
        let named = looking(Some(asked().collect()));
        let named = MetadataRequest {
            allow_auto_topic_creation: version < 4,
            ..named
        };
        let named = match version {
            // It cannot say that nothing is to be made.
            ..4 => looking(Some(TOPICS.to_vec())),
            _ => named,
        };
        both.by(user, "named", version, named).await;
        let every = match version {
            0 => looking(Some(Vec::new())),
            _ => looking(None),
        };
        both.ask_but(
            &["topics"],
            &format!("{user}, all but what is said of them"),
            version,
            every,
        )
        .await;
    }
    for version in [8, 10] {
        let allowed = MetadataRequest {
            include_cluster_authorized_operations: true,
            include_topic_authorized_operations: true,
            ..looking(Some(TOPICS.to_vec()))
        };
        both.by(user, "what is allowed", version, allowed).await;
    }
    let makes = MetadataRequest {
        allow_auto_topic_creation: true,
        ..looking(Some(vec!["never"]))
    };
    if user != super::FAY {
        both.by(user, "one that would be made", 9, makes).await;
    }
    let by_id = |id: Uuid| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id: id,
            name: None,
        }]),
        ..looking(None)
    };
    for (name, ours, theirs) in ids {
        let step = format!("{user}, by id {name}");
        both.ask_each(&step, 12, by_id(*ours), by_id(*theirs)).await;
    }
    both.by(user, "by strange id", 12, by_id(Uuid::from_u128(77)))
        .await;
    let described = DescribeTopicPartitionsRequest {
        topics: asked()
            .map(|name| TopicRequest {
                name: name.to_owned(),
            })
            .collect(),
        ..DescribeTopicPartitionsRequest::default()
    };
    both.by(user, "partitions", 0, described).await;
    let absent = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest {
            name: "none".to_owned(),
        }],
        ..DescribeTopicPartitionsRequest::default()
    };
    both.by(user, "partitions of one", 0, absent).await;
}

async fn records(both: &mut Both, user: &str, ids: &Ids) {
    both.section("records");
    let all = |version: i16, side: usize| {
        let each = ids.iter().map(|(name, ours, theirs)| {
            let mut topic = produce(name, -1, batch(&["x"])).topic_data.remove(0);
            if version >= 13 {
                topic.name = String::new();
                topic.topic_id = [*ours, *theirs][side];
            }
            topic
        });
        ProduceRequest {
            topic_data: each.collect(),
            ..produce("", -1, batch(&["x"]))
        }
    };
    for version in [3, 7, 9, 12, 13] {
        let step = format!("{user}, produce");
        both.ask_each(&step, version, all(version, 0), all(version, 1))
            .await;
    }
    let absent = produce("absent", -1, batch(&["x"]));
    both.by(user, "produce to what is not there", 9, absent)
        .await;
    let all = |version: i16, side: usize| {
        let each = ids.iter().map(|(name, ours, theirs)| {
            let mut topic = fetch(name, 0, 0, 1 << 10).topics.remove(0);
            if version >= 13 {
                topic.topic = String::new();
                topic.topic_id = [*ours, *theirs][side];
            }
            topic
        });
        FetchRequest {
            topics: each.collect(),
            session_epoch: -1,
            ..fetch("", 0, 0, 1 << 20)
        }
    };
    for version in [4, 11, 12, 13, 17] {
        let step = format!("{user}, fetch");
        let (ours, theirs) = (all(version, 0), all(version, 1));
        both.blind = &["records", "base_timestamp"];
        both.ask_each(&step, version, ours, theirs).await;
        both.blind = &[];
    }
    both.by(
        user,
        "fetch what is not there",
        11,
        fetch("absent", 0, 0, 1 << 10),
    )
    .await;
    let follower = FetchRequest {
        replica_id: 7,
        ..fetch("all", 0, 0, 1 << 10)
    };
    both.ask_but(
        &["records"],
        &format!("{user}, fetch as a follower"),
        11,
        follower,
    )
    .await;
}

async fn offsets(both: &mut Both, user: &str) {
    both.section("offsets");
    let topics = asked().map(|name| ListOffsetsTopic {
        name: name.to_owned(),
        partitions: vec![ListOffsetsPartition {
            timestamp: -2,
            ..ListOffsetsPartition::default()
        }],
    });
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: topics.collect(),
        ..ListOffsetsRequest::default()
    };
    for version in [1, 4, 7, 11] {
        both.by(user, "list", version, request.clone()).await;
    }
    let topics = asked().map(|name| OffsetForLeaderTopic {
        topic: name.to_owned(),
        partitions: vec![OffsetForLeaderPartition::default()],
    });
    let request = OffsetForLeaderEpochRequest {
        topics: topics.collect(),
        ..OffsetForLeaderEpochRequest::default()
    };
    for version in [2, 3, 4] {
        both.by(user, "epochs", version, request.clone()).await;
    }
    let topics = asked().map(|name| describe_producers::TopicRequest {
        name: name.to_owned(),
        partition_indexes: vec![0],
    });
    let request = DescribeProducersRequest {
        topics: topics.collect(),
    };
    both.by(user, "producers", 0, request).await;
    let topics = asked().map(|name| DeleteRecordsTopic {
        name: name.to_owned(),
        partitions: vec![DeleteRecordsPartition::default()],
    });
    let request = DeleteRecordsRequest {
        topics: topics.collect(),
        timeout_ms: 5_000,
    };
    for version in 0..=2 {
        both.by(user, "delete records", version, request.clone())
            .await;
    }
}

fn creation(names: &[&str], validate_only: bool) -> CreateTopicsRequest {
    let topic = |name: &&str| CreatableTopic {
        name: (*name).to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        validate_only,
        ..CreateTopicsRequest::default()
    }
}

async fn change(both: &mut Both, user: &str, ids: &Ids) {
    both.section("change topics");
    let own = format!("{user}-made");
    let names = [own.as_str(), "none", "all", "bad name", "pre-b"];
    for version in [2, 5, 7] {
        let check = creation(&names, true);
        both.by(user, "check", version, check).await;
    }
    both.by(user, "create", 7, creation(&[&own, "none", "all"], false))
        .await;
    let counts = asked()
        .chain([own.as_str()])
        .map(|name| CreatePartitionsTopic {
            name: name.to_owned(),
            count: 1,
            assignments: None,
        });
    let counts: Vec<_> = counts.collect();
    for version in [0, 3] {
        let request = CreatePartitionsRequest {
            topics: counts.clone(),
            timeout_ms: 5_000,
            validate_only: false,
        };
        both.by(user, "grow", version, request).await;
    }
    let named = DeleteTopicsRequest {
        topic_names: vec!["none".into(), "absent".into(), "seen".into()],
        timeout_ms: 5_000,
        ..DeleteTopicsRequest::default()
    };
    both.by(user, "delete by old names", 5, named).await;
    let by_name = |name: &str| DeleteTopicState {
        name: Some(name.to_owned()),
        ..DeleteTopicState::default()
    };
    let named = DeleteTopicsRequest {
        topics: [own.as_str(), "none", "absent", "seen"].map(by_name).into(),
        timeout_ms: 5_000,
        ..DeleteTopicsRequest::default()
    };
    both.by(user, "delete by names", 6, named).await;
    let by_id = |side: usize| {
        let each = ids
            .iter()
            .filter(|(name, ..)| !matches!(*name, "all" | "shut"));
        DeleteTopicsRequest {
            topics: each
                .map(|(_, ours, theirs)| DeleteTopicState {
                    name: None,
                    topic_id: [*ours, *theirs][side],
                })
                .chain([DeleteTopicState {
                    name: None,
                    topic_id: Uuid::from_u128(77),
                }])
                .collect(),
            timeout_ms: 5_000,
            ..DeleteTopicsRequest::default()
        }
    };
    both.ask_each(&format!("{user}, delete by ids"), 6, by_id(0), by_id(1))
        .await;
}
