//! Share groups (KIP-932) over the wire: records are delivered until they are acknowledged, whatever happens in between.

use kafka::error::ErrorCode;
use kafka::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition,
    AlterShareGroupOffsetsRequestTopic,
};
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use kafka::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::share_acknowledge::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch as Acknowledgement,
    ShareAcknowledgeRequest,
};
use kafka::messages::share_fetch::{
    AcknowledgementBatch, FetchPartition, FetchTopic, PartitionData, ShareFetchRequest,
    ShareFetchResponse,
};
use kafka::messages::share_group_describe::ShareGroupDescribeRequest;
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use kafka::record::{Records, batches};
use uuid::Uuid;

use crate::stage::{Client, Stage, batch, error};

const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;

/// A member with a connection of its own.
struct Member {
    client: Client,
    id: String,
    topic: Uuid,
    /// Of the share session.
    epoch: i32,
}

impl Member {
    async fn join(stage: &Stage, id: &str) -> Member {
        let mut client = stage.client().await;
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some("t".into()),
                ..MetadataRequestTopic::default()
            }]),
            ..MetadataRequest::default()
        };
        let topic = client.ask(12, request).await.topics[0].topic_id;
        let answer = client.ask(1, joining(id)).await;
        assert_eq!(error(answer.error_code), ErrorCode::None, "{answer:?}");
        let assignment = answer.assignment.expect("told");
        assert_eq!(assignment.topic_partitions[0].partitions, [0]);
        Member {
            client,
            id: id.to_owned(),
            topic,
            epoch: 0,
        }
    }

    fn request(&self, wait_ms: i32, acks: &[(i64, i64, i8)]) -> ShareFetchRequest {
        let batches = acks.iter().map(|(first, last, kind)| AcknowledgementBatch {
            first_offset: *first,
            last_offset: *last,
            acknowledge_types: vec![*kind],
        });
        ShareFetchRequest {
            group_id: Some("g".into()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.epoch,
            max_wait_ms: wait_ms,
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records: 100,
            batch_size: 100,
            topics: vec![FetchTopic {
                topic_id: self.topic,
                partitions: vec![FetchPartition {
                    partition_index: 0,
                    acknowledgement_batches: batches.collect(),
                }],
            }],
            ..ShareFetchRequest::default()
        }
    }

    async fn fetch(&mut self, wait_ms: i32, acks: &[(i64, i64, i8)]) -> ShareFetchResponse {
        let request = self.request(wait_ms, acks);
        let answer = self.client.ask(2, request).await;
        assert_eq!(error(answer.error_code), ErrorCode::None, "{answer:?}");
        self.epoch += 1;
        answer
    }

    /// Returns the ranges that the member has got, each with its delivery.
    async fn take(&mut self, wait_ms: i32, acks: &[(i64, i64, i8)]) -> Vec<(i64, i64, i16)> {
        let answer = self.fetch(wait_ms, acks).await;
        let mut ranges = Vec::new();
        for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(error(data.error_code), ErrorCode::None, "{data:?}");
            assert_eq!(
                error(data.acknowledge_error_code),
                ErrorCode::None,
                "{data:?}"
            );
            check_holds(data);
            ranges.extend(
                data.acquired_records
                    .iter()
                    .map(|range| (range.first_offset, range.last_offset, range.delivery_count)),
            );
        }
        ranges
    }

    async fn acknowledge(&mut self, first: i64, last: i64, kind: i8) -> ErrorCode {
        let request = ShareAcknowledgeRequest {
            group_id: Some("g".into()),
            member_id: Some(self.id.clone()),
            share_session_epoch: self.epoch,
            topics: vec![AcknowledgeTopic {
                topic_id: self.topic,
                partitions: vec![AcknowledgePartition {
                    partition_index: 0,
                    acknowledgement_batches: vec![Acknowledgement {
                        first_offset: first,
                        last_offset: last,
                        acknowledge_types: vec![kind],
                    }],
                }],
            }],
            ..ShareAcknowledgeRequest::default()
        };
        let answer = self.client.ask(2, request).await;
        assert_eq!(error(answer.error_code), ErrorCode::None, "{answer:?}");
        self.epoch += 1;
        error(answer.responses[0].partitions[0].error_code)
    }
}

/// What was acquired is among the records that came along.
fn check_holds(data: &PartitionData) {
    let mut offsets = Vec::new();
    for batch in batches(&data.records) {
        let records = Records::read(&batch.expect("whole"), 1 << 20).expect("reads");
        offsets.extend(records.iter().map(|record| record.expect("whole").offset));
    }
    for range in &data.acquired_records {
        for offset in range.first_offset..=range.last_offset {
            assert!(offsets.contains(&offset), "{offset} is not in {offsets:?}");
        }
    }
}

fn joining(member: &str) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        subscribed_topic_names: Some(vec!["t".into()]),
        ..ShareGroupHeartbeatRequest::default()
    }
}

async fn leave(client: &mut Client, member: &str) -> ErrorCode {
    let request = ShareGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: -1,
        ..ShareGroupHeartbeatRequest::default()
    };
    error(client.ask(1, request).await.error_code)
}

/// Returns where the group is, and how many records it has not processed.
async fn progress(client: &mut Client) -> (i64, i64) {
    let request = DescribeShareGroupOffsetsRequest {
        groups: vec![DescribeShareGroupOffsetsRequestGroup {
            group_id: "g".into(),
            topics: None,
        }],
    };
    let answer = client.ask(1, request).await;
    let topics = &answer.groups[0].topics;
    let partition = topics.first().map(|topic| &topic.partitions[0]);
    partition.map_or((-2, -2), |one| (one.start_offset, one.lag))
}

async fn set(client: &mut Client, start: i64) -> ErrorCode {
    let request = AlterShareGroupOffsetsRequest {
        group_id: "g".into(),
        topics: vec![AlterShareGroupOffsetsRequestTopic {
            topic_name: "t".into(),
            partitions: vec![AlterShareGroupOffsetsRequestPartition {
                partition_index: 0,
                start_offset: start,
            }],
        }],
    };
    error(client.ask(0, request).await.error_code)
}

#[tokio::test]
async fn two_members_share_a_partition_and_a_kill_brings_nothing_back() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    assert_eq!(set(&mut client, 0).await, ErrorCode::None);
    client.produce(9, "t", -1, batch(&["a", "b", "c"])).await;
    let mut first = Member::join(&stage, "first").await;
    let mut second = Member::join(&stage, "second").await;
    assert_eq!(first.take(0, &[]).await, [(0, 2, 1)]);
    assert_eq!(second.take(0, &[]).await, []);
    client.produce(9, "t", -1, batch(&["d", "e"])).await;
    assert_eq!(second.take(0, &[]).await, [(3, 4, 1)]);

    assert_eq!(first.acknowledge(0, 0, ACCEPT).await, ErrorCode::None);
    assert_eq!(first.acknowledge(1, 1, RELEASE).await, ErrorCode::None);
    assert_eq!(
        first.acknowledge(0, 0, ACCEPT).await,
        ErrorCode::None,
        "it was done"
    );
    assert_eq!(
        first.acknowledge(3, 4, ACCEPT).await,
        ErrorCode::InvalidRecordState
    );
    assert_eq!(second.take(0, &[(3, 3, ACCEPT)]).await, [(1, 1, 2)]);
    assert_eq!(second.acknowledge(1, 1, RELEASE).await, ErrorCode::None);
    assert_eq!(progress(&mut client).await, (1, 3));

    let stage = stage.abandon().await;
    let mut third = Member::join(&stage, "third").await;
    let mut client = stage.client().await;
    // What was with members is void, unless their connections ended before; what was said of records holds.
    let again = third.take(0, &[]).await;
    let ranges: Vec<(i64, i64)> = again.iter().map(|range| (range.0, range.1)).collect();
    assert_eq!(ranges, [(1, 1), (2, 2), (4, 4)]);
    assert_eq!(again[0].2, 3);
    assert_eq!(
        third.acknowledge(1, 4, ACCEPT).await,
        ErrorCode::InvalidRecordState
    );
    let acks = [(1, 2, ACCEPT), (4, 4, REJECT)];
    assert_eq!(third.take(0, &acks).await, []);
    assert_eq!(progress(&mut client).await.1, 0);
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    assert_eq!(progress(&mut client).await.1, 0);
    let mut fourth = Member::join(&stage, "fourth").await;
    assert_eq!(fourth.take(0, &[]).await, []);
}

#[tokio::test]
async fn records_go_to_others_when_a_member_is_gone() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut first = Member::join(&stage, "first").await;
    let mut second = Member::join(&stage, "second").await;
    // `latest`: what is there is not read.
    assert_eq!(first.take(0, &[]).await, []);
    client.produce(9, "t", -1, batch(&["a", "b"])).await;
    assert_eq!(first.take(1_000, &[]).await, [(0, 1, 1)]);
    assert_eq!(second.take(0, &[]).await, []);
    // While somebody waits, the connection of who has them ends.
    let request = second.request(20_000, &[]);
    let id = second.client.send(2, request).await;
    drop(first);
    let answer = second.client.answer::<ShareFetchRequest>(2, id).await;
    let acquired = &answer.responses[0].partitions[0].acquired_records[0];
    assert_eq!((acquired.first_offset, acquired.last_offset), (0, 1));
    assert_eq!(acquired.delivery_count, 2);
    second.epoch += 1;

    // A session that ends gives back what it has.
    second.epoch = -1;
    let answer = second.client.ask(2, second.request(0, &[])).await;
    assert_eq!(error(answer.error_code), ErrorCode::None);
    second.epoch = 0;
    assert_eq!(second.take(0, &[]).await, [(0, 1, 3)]);
}

#[tokio::test]
async fn sessions_refuse_what_is_out_of_order() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    let mut member = Member::join(&stage, "m").await;
    member.epoch = 3;
    let answer = member.client.ask(2, member.request(0, &[])).await;
    assert_eq!(error(answer.error_code), ErrorCode::ShareSessionNotFound);
    member.epoch = 0;
    let answer = member.client.ask(2, member.request(0, &[(0, 0, 1)])).await;
    assert_eq!(error(answer.error_code), ErrorCode::InvalidRequest);
    member.fetch(0, &[]).await;
    member.epoch = 2;
    let answer = member.client.ask(2, member.request(0, &[])).await;
    assert_eq!(
        error(answer.error_code),
        ErrorCode::InvalidShareSessionEpoch
    );
    let nobody = ShareFetchRequest {
        member_id: None,
        ..member.request(0, &[])
    };
    let answer = member.client.ask(2, nobody).await;
    assert_eq!(error(answer.error_code), ErrorCode::InvalidRequest);
    member.epoch = 1;
    for acks in [
        &[(5, 4, 1)][..],
        &[(0, 3, 9)],
        &[(3, 4, 1), (0, 1, 1)],
        &[(0, 0, 4)],
    ] {
        let answer = member.fetch(0, acks).await;
        let told = &answer.responses[0].partitions[0];
        assert_eq!(
            error(told.acknowledge_error_code),
            ErrorCode::InvalidRequest,
            "{acks:?}"
        );
    }
}

#[tokio::test]
async fn administrators_list_describe_move_and_delete() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    client.produce(9, "t", -1, batch(&["a", "b", "c"])).await;
    let mut member = Member::join(&stage, "m").await;
    let list = ListGroupsRequest {
        types_filter: vec!["share".into()],
        ..ListGroupsRequest::default()
    };
    let listed = client.ask(5, list).await.groups.remove(0);
    assert_eq!((&*listed.group_id, &*listed.group_state), ("g", "Stable"));
    assert_eq!(
        (&*listed.group_type, &*listed.protocol_type),
        ("share", "share")
    );
    let describe = ShareGroupDescribeRequest {
        group_ids: vec!["g".into(), "nowhere".into()],
        ..ShareGroupDescribeRequest::default()
    };
    let described = client.ask(1, describe).await.groups;
    assert_eq!(described[0].assignor_name, "simple");
    assert_eq!(described[0].members[0].member_id, "m");
    assert_eq!(error(described[1].error_code), ErrorCode::GroupIdNotFound);

    let other = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "c".into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let refused = client.ask(1, other).await;
    assert_eq!(error(refused.error_code), ErrorCode::GroupIdNotFound);
    assert_eq!(set(&mut client, 1).await, ErrorCode::NonEmptyGroup);
    let delete = DeleteGroupsRequest {
        groups_names: vec!["g".into()],
    };
    let answer = client.ask(2, delete.clone()).await;
    assert_eq!(
        error(answer.results[0].error_code),
        ErrorCode::NonEmptyGroup
    );
    assert_eq!(leave(&mut member.client, "m").await, ErrorCode::None);
    assert_eq!(
        leave(&mut member.client, "m").await,
        ErrorCode::UnknownMemberId
    );

    assert_eq!(set(&mut client, 1).await, ErrorCode::None);
    assert_eq!(progress(&mut client).await, (1, 2));
    let stage = stage.abandon().await;
    let mut client = stage.client().await;
    assert_eq!(progress(&mut client).await, (1, 2));
    let mut member = Member::join(&stage, "m").await;
    assert_eq!(member.take(0, &[]).await, [(1, 2, 1)]);
    assert_eq!(leave(&mut member.client, "m").await, ErrorCode::None);

    let forget = DeleteShareGroupOffsetsRequest {
        group_id: "g".into(),
        topics: ["t", "u"]
            .map(|name| DeleteShareGroupOffsetsRequestTopic {
                topic_name: name.into(),
            })
            .to_vec(),
    };
    let answer = client.ask(0, forget).await;
    let codes: Vec<ErrorCode> = answer
        .responses
        .iter()
        .map(|topic| error(topic.error_code))
        .collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition]);
    assert_eq!(progress(&mut client).await, (-2, -2));
    let answer = client.ask(2, delete.clone()).await;
    assert_eq!(error(answer.results[0].error_code), ErrorCode::None);
    let stage = stage.restart().await;
    let mut client = stage.client().await;
    let answer = client.ask(2, delete).await;
    assert_eq!(
        error(answer.results[0].error_code),
        ErrorCode::GroupIdNotFound
    );
}
