//! Groups that go over from one protocol to the other while they are in use (KIP-848).

use kafka::messages::Message;
use kafka::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use kafka::messages::consumer_group_heartbeat::{ConsumerGroupHeartbeatRequest, TopicPartitions};
use kafka::messages::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition,
};
use kafka::messages::delete_groups::DeleteGroupsRequest;
use kafka::messages::describe_groups::DescribeGroupsRequest;
use kafka::messages::heartbeat::HeartbeatRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use kafka::messages::list_groups::ListGroupsRequest;
use kafka::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use uuid::Uuid;

use super::{Both, topics};

const TOPIC: &str = "handed-over";
const GROUP: &str = "changing";

fn joining(member: &str, owned: &[i32]) -> JoinGroupRequest {
    let owned = match owned {
        [] => Vec::new(),
        some => vec![TopicPartition {
            topic: TOPIC.into(),
            partitions: some.to_vec(),
        }],
    };
    let subscription = ConsumerProtocolSubscription {
        topics: vec![TOPIC.into()],
        owned_partitions: owned,
        ..ConsumerProtocolSubscription::default()
    };
    JoinGroupRequest {
        group_id: GROUP.into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "cooperative-sticky".into(),
            metadata: subscription.to_versioned(1).expect("encodes"),
        }],
        ..JoinGroupRequest::default()
    }
}

fn syncing(member: &str, generation: i32, all: &[i32]) -> SyncGroupRequest {
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: vec![TopicPartition {
            topic: TOPIC.into(),
            partitions: all.to_vec(),
        }],
        user_data: None,
    };
    let assignments = match all {
        [] => Vec::new(),
        _ => vec![SyncGroupRequestAssignment {
            member_id: member.into(),
            assignment: assignment.to_versioned(1).expect("encodes"),
        }],
    };
    SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member.into(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("cooperative-sticky".into()),
        assignments,
        ..SyncGroupRequest::default()
    }
}

fn alive(member: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member.into(),
        ..HeartbeatRequest::default()
    }
}

fn leaving(member: &str) -> LeaveGroupRequest {
    LeaveGroupRequest {
        group_id: GROUP.into(),
        members: vec![MemberIdentity {
            member_id: member.into(),
            ..MemberIdentity::default()
        }],
        ..LeaveGroupRequest::default()
    }
}

fn committing(member: &str, generation: i32) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        generation_id_or_member_epoch: generation,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: 3,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        retention_time_ms: -1,
        ..OffsetCommitRequest::default()
    }
}

fn fetching(member: &str, epoch: i32) -> OffsetFetchRequest {
    OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: GROUP.into(),
            member_id: Some(member.into()),
            member_epoch: epoch,
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.into(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
        }],
        ..OffsetFetchRequest::default()
    }
}

fn modern(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let joins = epoch == 0;
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: member.into(),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec![TOPIC.into()]),
        server_assignor: joins.then(|| "range".into()),
        topic_partitions: joins.then(Vec::new),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// What was asked of a group in both protocols.
async fn look(both: &mut Both, step: &str) {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![GROUP.into()],
        ..ConsumerGroupDescribeRequest::default()
    };
    both.ask(&format!("describe {step}"), 1, request).await;
    let request = DescribeGroupsRequest {
        groups: vec![GROUP.into()],
        ..DescribeGroupsRequest::default()
    };
    both.ask(&format!("classic describe {step}"), 6, request)
        .await;
    let request = ListGroupsRequest {
        types_filter: vec!["consumer".into()],
        ..ListGroupsRequest::default()
    };
    both.ask(&format!("list {step}"), 5, request).await;
}

/// A member that has another id on each side.
struct Named {
    ours: String,
    theirs: String,
}

impl Named {
    async fn ask<R: kafka::messages::Request>(
        &self,
        both: &mut Both,
        step: &str,
        version: i16,
        request: impl Fn(&str) -> R,
    ) -> super::Pair<R> {
        let (ours, theirs) = (request(&self.ours), request(&self.theirs));
        both.ask_each(step, version, ours, theirs).await
    }
}

pub(super) async fn run(both: &mut Both) {
    both.section("groups that change over");
    topics::make(both, TOPIC, 4, &[]).await;
    let metadata = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(TOPIC.into()),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let (ours, theirs) = both.ask("metadata", 12, metadata).await.answered();
    let ids = (ours.topics[0].topic_id, theirs.topics[0].topic_id);
    let first = both.ask("join", 9, joining("", &[])).await;
    let (ours, theirs) = first.answered();
    let old = Named {
        ours: ours.member_id,
        theirs: theirs.member_id,
    };
    over(both, &old).await;
    mixed(both, &old, ids).await;
    back(both, &old).await;
}

async fn over(both: &mut Both, old: &Named) {
    let all = [0, 1, 2, 3];
    old.ask(both, "join with id", 9, |id| joining(id, &[]))
        .await;
    old.ask(both, "sync", 5, |id| syncing(id, 1, &all)).await;
    old.ask(both, "beat", 4, |id| alive(id, 1)).await;
    both.ask("a modern member joins", 1, modern("n", 0)).await;
    look(both, "after it").await;
    old.ask(both, "beat of another generation", 4, |id| alive(id, 9))
        .await;
    old.ask(both, "commit", 8, |id| committing(id, 1)).await;
    old.ask(both, "commit, new version", 9, |id| committing(id, 1))
        .await;
    old.ask(both, "commit of another generation", 9, |id| {
        committing(id, 2)
    })
    .await;
    both.ask(
        "commit of the modern one, old version",
        8,
        committing("n", 2),
    )
    .await;
    both.ask("commit of a stranger", 9, committing("who", 1))
        .await;
    old.ask(both, "offsets", 9, |id| fetching(id, 1)).await;
    old.ask(both, "offsets of another generation", 9, |id| {
        fetching(id, 7)
    })
    .await;
    old.ask(both, "sync while it changes", 5, |id| syncing(id, 1, &[]))
        .await;
    old.ask(both, "beat while it changes", 4, |id| alive(id, 1))
        .await;
    both.ask("the modern one waits", 1, modern("n", 2)).await;
}

async fn mixed(both: &mut Both, old: &Named, ids: (Uuid, Uuid)) {
    old.ask(both, "join with all", 9, |id| joining(id, &[0, 1, 2, 3]))
        .await;
    old.ask(both, "sync to give up", 5, |id| syncing(id, 1, &[]))
        .await;
    look(both, "while it gives up").await;
    old.ask(both, "beat to give up", 4, |id| alive(id, 1)).await;
    old.ask(both, "join with half", 9, |id| joining(id, &[0, 1]))
        .await;
    old.ask(both, "sync of before", 5, |id| syncing(id, 1, &[]))
        .await;
    old.ask(both, "sync with half", 5, |id| syncing(id, 2, &[]))
        .await;
    old.ask(both, "beat with half", 4, |id| alive(id, 2)).await;
    both.ask("the modern one takes", 1, modern("n", 2)).await;
    let owning = |topic_id: Uuid| ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(vec![TopicPartitions {
            topic_id,
            partitions: vec![2, 3],
        }]),
        ..modern("n", 2)
    };
    both.ask_each("the modern one has", 1, owning(ids.0), owning(ids.1))
        .await;
    look(both, "of both kinds").await;
    // What is not as it should be.
    let other = |change: fn(&mut SyncGroupRequest)| {
        move |id: &str| {
            let mut request = syncing(id, 2, &[]);
            change(&mut request);
            request
        }
    };
    let name = other(|sync| sync.protocol_name = Some("range".into()));
    old.ask(both, "sync of another protocol", 5, name).await;
    let kind = other(|sync| sync.protocol_type = Some("connect".into()));
    old.ask(both, "sync of another type", 5, kind).await;
    let none = other(|sync| sync.protocol_name = None);
    old.ask(both, "sync without protocol", 5, &none).await;
    old.ask(both, "sync without protocol, old", 4, none).await;
    both.ask("sync of a stranger", 5, syncing("who", 2, &[]))
        .await;
    both.ask("sync of the modern one", 5, syncing("n", 2, &[]))
        .await;
    both.ask("beat of the modern one", 4, alive("n", 2)).await;
    both.ask("leave of a stranger", 5, leaving("who")).await;
    let mut odd = joining("b", &[]);
    odd.protocols[0].name = "roundrobin".into();
    both.ask("join of another protocol", 9, odd.clone()).await;
    odd.protocols.clear();
    both.ask("join without protocol", 9, odd.clone()).await;
    odd = joining("b", &[]);
    odd.protocol_type = "connect".into();
    both.ask("join of another type", 9, odd).await;
    let mut short = joining("b", &[]);
    short.session_timeout_ms = 1;
    both.ask("join with a short session", 9, short).await;
    both.ask_but(&["member_id"], "join without id", 9, joining("", &[]))
        .await;
    let mut fixed = joining("", &[]);
    fixed.group_instance_id = Some("i".into());
    fixed.member_id = "who".into();
    both.ask("join of a static stranger", 9, fixed).await;
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete while it lives", 2, delete).await;
    // A second classic member comes and goes.
    both.ask("another joins", 9, joining("b", &[])).await;
    look(both, "of three").await;
    both.ask("another syncs", 5, syncing("b", 3, &[])).await;
    both.ask("another beats", 4, alive("b", 3)).await;
    old.ask(both, "beat with another", 4, |id| alive(id, 2))
        .await;
    both.ask("another leaves", 5, leaving("b")).await;
    both.ask("another leaves again", 5, leaving("b")).await;
    look(both, "of two").await;
}

async fn back(both: &mut Both, old: &Named) {
    both.ask("the modern one leaves", 1, modern("n", -1)).await;
    look(both, "without it").await;
    old.ask(both, "beat of before", 4, |id| alive(id, 2)).await;
    let pair = old
        .ask(both, "join of those who are left", 9, |id| {
            joining(id, &[0, 1])
        })
        .await;
    let (ours, theirs) = pair.answered();
    assert_eq!(ours.generation_id, theirs.generation_id);
    let generation = ours.generation_id;
    old.ask(both, "sync of those who are left", 5, |id| {
        syncing(id, generation, &[0, 1, 2, 3])
    })
    .await;
    old.ask(both, "beat of those who are left", 4, |id| {
        alive(id, generation)
    })
    .await;
    look(both, "as before").await;
    // Over again, and this time the classic member goes.
    both.ask("a modern member joins again", 1, modern("m", 0))
        .await;
    old.ask(both, "leave", 5, leaving).await;
    look(both, "with the modern one alone").await;
    both.ask("the modern one has all", 1, modern("m", generation + 1))
        .await;
    both.ask("a classic member joins", 9, joining("c", &[]))
        .await;
    both.ask("the modern one is removed", 5, leaving("m")).await;
    look(both, "with the classic one alone").await;
    both.ask("the classic one is removed", 5, leaving("c"))
        .await;
    look(both, "in the end").await;
    let delete = DeleteGroupsRequest {
        groups_names: vec![GROUP.into()],
    };
    both.ask("delete", 2, delete).await;
}
