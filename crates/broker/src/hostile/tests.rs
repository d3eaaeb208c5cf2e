//! The targets without coverage, and what they begin with.

use std::path::{Path, PathBuf};

use kafka::compress::Compression;
use kafka::messages::consumer_group_heartbeat::ConsumerGroupHeartbeatRequest;
use kafka::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use kafka::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use kafka::messages::init_producer_id::InitProducerIdRequest;
use kafka::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use kafka::messages::metadata::MetadataRequest;
use kafka::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka::messages::share_group_heartbeat::ShareGroupHeartbeatRequest;
use kafka::messages::streams_group_heartbeat::StreamsGroupHeartbeatRequest;
use kafka::messages::{
    Message, Request, consumer_group_state as assigned, group_state as classic,
    share_group_members as shared, share_partition_state as kept, streams_group_state as streaming,
    transaction_state as transactions,
};
use testkit::mutate;

use super::*;

fn corpus(target: &str) -> PathBuf {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus");
    Path::new(all).join(target)
}

#[test]
fn random_conversations_do_no_harm() {
    mutate::run(&corpus("frames"), &["\u{1}", "\0\0\0\u{1}"], frames);
}

#[test]
fn what_is_not_random_is_answered() {
    let mut victim = Victim::new();
    let said = [created(), batched(0, Compression::None), fetched()].concat();
    assert!(victim.hear(&conversation(&said)) > 150);
    let victim = Victim {
        heard: TALKS_PER_OPENING,
        ..victim
    };
    let mut victim = victim.older();
    assert_eq!((victim.heard, victim.openings), (0, 1));
    assert!(victim.hear(&conversation(&plain::<MetadataRequest>())) > 50);
}

#[test]
fn random_proofs_do_no_harm() {
    mutate::run(&corpus("sasl"), &["$r", "c=biws,r=", ",p=", "n,,n="], sasl);
}

#[test]
fn random_states_do_no_harm() {
    mutate::run(&corpus("states"), &["\0\u{1}", "\0"], states);
}

fn said<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let which = ApiKey::ALL.iter().position(|api| *api == R::KEY);
    let which = u8::try_from(which.expect("known")).expect("few");
    let first = *R::KEY.versions().start();
    let body = request.to_bytes(version).expect("encodes");
    let mut said = vec![which, u8::try_from(version - first).expect("small")];
    said.extend(u16::try_from(body.len()).expect("short").to_le_bytes());
    said.extend(&body);
    said
}

fn plain<R: Request>() -> Vec<u8> {
    said(*R::KEY.versions().end(), &R::default())
}

fn batched(topic: u8, codec: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    builder.push(NewRecord {
        timestamp: 1,
        key: Some(b"k"),
        value: Some(b"v"),
        headers: &[("h", Some(b"x"))],
    });
    let batch = builder.build();
    let mut said = vec![BATCH, topic];
    said.extend(u16::try_from(batch.len()).expect("short").to_le_bytes());
    said.extend(&batch);
    said
}

fn fetched() -> Vec<u8> {
    let partition = FetchPartition {
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: "t".into(),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    let request = FetchRequest {
        max_bytes: 1 << 20,
        topics: vec![topic],
        ..FetchRequest::default()
    };
    said(12, &request)
}

fn joined() -> Vec<u8> {
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(b"\0\x01\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0"),
    };
    let request = JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    };
    said(3, &request)
}

fn committed() -> Vec<u8> {
    let partition = OffsetCommitRequestPartition {
        committed_offset: 1,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: "t".into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: "h".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    said(8, &request)
}

fn created() -> Vec<u8> {
    let topic = CreatableTopic {
        name: "n".into(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![topic],
        ..CreateTopicsRequest::default()
    };
    said(7, &request)
}

fn proven(mechanism: u8, messages: &[&[u8]]) -> Vec<u8> {
    let mut input = vec![mechanism];
    for message in messages {
        input.push(u8::try_from(message.len()).expect("short"));
        input.extend(*message);
    }
    input
}

fn record<K: Message, V: Message>(
    key: i16,
    mut name: K,
    value: i16,
    set: impl Fn(&mut K),
) -> Vec<u8> {
    set(&mut name);
    let key = name.to_versioned(key).expect("encodes");
    let value = V::default().to_versioned(value).expect("encodes");
    let length = |bytes: &Bytes| u8::try_from(bytes.len()).expect("short");
    let mut line = vec![length(&key)];
    line.extend(&key);
    line.push(length(&value));
    line.extend(&value);
    line
}

#[test]
#[ignore = "writes the corpus anew, of which the other tests and the fuzzers begin"]
fn seeds() {
    let write = |target: &str, name: &str, input: Vec<u8>| {
        std::fs::create_dir_all(corpus(target)).expect("a folder");
        std::fs::write(corpus(target).join(name), input).expect("written");
    };
    write("frames", "metadata", plain::<MetadataRequest>());
    write(
        "frames",
        "create",
        [created(), plain::<MetadataRequest>()].concat(),
    );
    for codec in Compression::ALL {
        let topics = [
            batched(0, codec),
            batched(1, codec),
            batched(2, codec),
            fetched(),
        ];
        write(
            "frames",
            &format!("produce-{}", codec.name()),
            topics.concat(),
        );
    }
    write("frames", "join", joined());
    write("frames", "commit", committed());
    write("frames", "producer", plain::<InitProducerIdRequest>());
    let consumer = ConsumerGroupHeartbeatRequest {
        group_id: "k".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 1000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    write("frames", "consumer", said(1, &consumer));
    let sharer = ShareGroupHeartbeatRequest {
        group_id: "s".into(),
        member_id: "m".into(),
        subscribed_topic_names: Some(vec!["t".into()]),
        ..ShareGroupHeartbeatRequest::default()
    };
    write("frames", "sharer", said(1, &sharer));
    write("frames", "streams", plain::<StreamsGroupHeartbeatRequest>());
    write(
        "frames",
        "raw",
        [&[RAW, 0, 6, 0][..], b"\x7f\xff\xff\xff\0\0"].concat(),
    );

    write("sasl", "plain", proven(0, &[b"\0u\0p"]));
    let first: &[u8] = b"n,,n=u,r=abc";
    let last = format!("c=biws,r=$r,p={}", "A".repeat(43) + "=");
    for mechanism in [1, 2] {
        let both = proven(mechanism, &[first, last.as_bytes()]);
        write("sasl", &format!("scram-{mechanism}"), both);
    }

    let named = |name: &str| name.to_owned();
    write(
        "states",
        "offset",
        [
            &[0][..],
            &record::<_, classic::OffsetCommitValue>(
                1,
                classic::OffsetCommitKey::default(),
                3,
                |key| key.group = named("g"),
            ),
        ]
        .concat(),
    );
    write(
        "states",
        "open",
        [
            &[4][..],
            &record::<_, classic::OffsetCommitValue>(
                1,
                classic::OffsetCommitKey::default(),
                3,
                |key| key.group = named("g"),
            ),
        ]
        .concat(),
    );
    write(
        "states",
        "classic",
        [
            &[0][..],
            &record::<_, classic::GroupMetadataValue>(
                2,
                classic::GroupMetadataKey::default(),
                3,
                |key| key.group = named("g"),
            ),
        ]
        .concat(),
    );
    let consumer = [
        record::<_, assigned::ConsumerGroupMetadataValue>(
            3,
            assigned::ConsumerGroupMetadataKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
        record::<_, assigned::ConsumerGroupMemberMetadataValue>(
            5,
            assigned::ConsumerGroupMemberMetadataKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
        record::<_, assigned::ConsumerGroupTargetAssignmentMetadataValue>(
            6,
            assigned::ConsumerGroupTargetAssignmentMetadataKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
        record::<_, assigned::ConsumerGroupTargetAssignmentMemberValue>(
            7,
            assigned::ConsumerGroupTargetAssignmentMemberKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
        record::<_, assigned::ConsumerGroupCurrentMemberAssignmentValue>(
            8,
            assigned::ConsumerGroupCurrentMemberAssignmentKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
        record::<_, assigned::ConsumerGroupRegularExpressionValue>(
            16,
            assigned::ConsumerGroupRegularExpressionKey::default(),
            0,
            |key| key.group_id = named("k"),
        ),
    ];
    write(
        "states",
        "consumer",
        [&[0][..], &consumer.concat()].concat(),
    );
    let share = [
        record::<_, shared::ShareGroupMemberMetadataValue>(
            10,
            shared::ShareGroupMemberMetadataKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
        record::<_, shared::ShareGroupMetadataValue>(
            11,
            shared::ShareGroupMetadataKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
        record::<_, shared::ShareGroupTargetAssignmentMetadataValue>(
            12,
            shared::ShareGroupTargetAssignmentMetadataKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
        record::<_, shared::ShareGroupTargetAssignmentMemberValue>(
            13,
            shared::ShareGroupTargetAssignmentMemberKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
        record::<_, shared::ShareGroupCurrentMemberAssignmentValue>(
            14,
            shared::ShareGroupCurrentMemberAssignmentKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
        record::<_, shared::ShareGroupStatePartitionMetadataValue>(
            15,
            shared::ShareGroupStatePartitionMetadataKey::default(),
            0,
            |key| key.group_id = named("s"),
        ),
    ];
    write("states", "share", [&[0][..], &share.concat()].concat());
    let streams = [
        record::<_, streaming::StreamsGroupMetadataValue>(
            17,
            streaming::StreamsGroupMetadataKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
        record::<_, streaming::StreamsGroupMemberMetadataValue>(
            19,
            streaming::StreamsGroupMemberMetadataKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
        record::<_, streaming::StreamsGroupTargetAssignmentMetadataValue>(
            20,
            streaming::StreamsGroupTargetAssignmentMetadataKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
        record::<_, streaming::StreamsGroupTargetAssignmentMemberValue>(
            21,
            streaming::StreamsGroupTargetAssignmentMemberKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
        record::<_, streaming::StreamsGroupCurrentMemberAssignmentValue>(
            22,
            streaming::StreamsGroupCurrentMemberAssignmentKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
        record::<_, streaming::StreamsGroupTopologyValue>(
            23,
            streaming::StreamsGroupTopologyKey::default(),
            0,
            |key| key.group_id = named("x"),
        ),
    ];
    write("states", "streams", [&[0][..], &streams.concat()].concat());
    write(
        "states",
        "transaction",
        [
            &[2][..],
            &record::<_, transactions::TransactionLogValue>(
                0,
                transactions::TransactionLogKey::default(),
                1,
                |key| key.transactional_id = named("x"),
            ),
        ]
        .concat(),
    );
    write(
        "states",
        "partition",
        [
            &[3][..],
            &record::<_, kept::ShareSnapshotValue>(
                0,
                kept::ShareSnapshotKey::default(),
                0,
                |key| key.group_id = named("s"),
            ),
        ]
        .concat(),
    );
}
