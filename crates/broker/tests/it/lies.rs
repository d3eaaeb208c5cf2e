//! Clients that lie about lengths, send bombs, hold frames open or leave: an honest one beside them sees no error.

use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka::compress::Compression;
use kafka::error::ErrorCode;
use kafka::frame;
use kafka::messages::ApiKey;
use kafka::messages::metadata::MetadataRequest;
use kafka::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka::record::{BatchBuilder, NewRecord, Records, batches};
use observe::metrics::Metrics;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::kills;
use crate::memory::{resident, told, until};
use crate::stage::{Client, Stage, batch, error, fetch, now_ms, produce};

/// Longest wait for a broker that works on bombs, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;

async fn is_served(client: &mut Client, topic: &str) {
    let taken = client.produce(9, topic, -1, batch(&["honest"])).await;
    assert_eq!(error(taken.error_code), ErrorCode::None);
    let values = client.values(topic, taken.base_offset).await;
    assert_eq!(values, [(taken.base_offset, "honest".to_owned())]);
}

/// A whole frame with any body.
fn whole(api: ApiKey, version: i16, body: &[u8]) -> Bytes {
    let tags = frame::is_flexible(api, version);
    let mut sent = BytesMut::new();
    sent.put_i32(i32::try_from(11 + usize::from(tags) + body.len()).expect("short"));
    sent.put_i16(api as i16);
    sent.put_i16(version);
    sent.put_i32(1);
    sent.put_slice(b"\0\x01c");
    if tags {
        sent.put_u8(0);
    }
    sent.put_slice(body);
    sent.freeze()
}

#[tokio::test]
async fn lengths_that_lie_anywhere_in_any_request_do_no_harm() {
    let metrics = Metrics::default();
    let counted = metrics.clone();
    let stage = Stage::open_with(|options| {
        options.metrics = counted;
        options.limits.requests_bytes_max = 64 * MIB;
    });
    let stage = stage.await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    // A count of 2^31-1 in four bytes and in five, one that is no number, a negative one, a string's longest.
    let lies: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x07],
        &[0xff; 6],
        &[0x80, 0, 0, 0],
        &[0x7f, 0xff],
    ];
    for api in ApiKey::ALL {
        let versions = api.versions();
        for version in [*versions.start(), *versions.end()] {
            for lie in lies {
                for at in [0, 1, 2, 4, 7, 12, 19] {
                    let mut body = vec![0; at];
                    body.extend(lie);
                    body.extend([1; 40]);
                    let mut stream = TcpStream::connect(stage.address).await.expect("connects");
                    let sent = stream.write_all(&whole(api, version, &body)).await;
                    sent.expect("sent");
                }
            }
        }
        honest.ask(9, MetadataRequest::default()).await;
    }
    is_served(&mut honest, "t").await;
    until(&metrics, "nuncio_broker_memory_bytes", |used| used == 0).await;
    let most = told(&metrics, "nuncio_broker_memory_bytes_most");
    assert!(most <= 16 * MIB, "{most}");
}

#[tokio::test]
async fn tags_that_lie_end_the_connection() {
    let stage = Stage::open().await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    let header = |tags: &[u8]| {
        let mut sent = BytesMut::new();
        sent.put_i32(i32::try_from(11 + tags.len()).expect("short"));
        sent.put_i16(ApiKey::Metadata as i16);
        sent.put_i16(12);
        sent.put_i32(1);
        sent.put_slice(b"\0\x01c");
        sent.put_slice(tags);
        sent.freeze()
    };
    let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
    // So many tags, one that is so long, one with so high a number that is; and a tag within a tag that lies.
    for tags in [
        most.to_vec(),
        [&[1, 0][..], &most].concat(),
        [&[2][..], &most, &[0]].concat(),
        [&[1, 5, 7, 1, 5][..], &most].concat(),
        vec![0xff; 3000],
    ] {
        let mut client = stage.client().await;
        let sent = client.stream.write_all(&header(&tags)).await;
        sent.expect("sent");
        assert_eq!(client.frame().await, None, "{tags:02x?}");
    }
    // Unknown ones that are well formed are skipped, however they look inside.
    let mut client = stage.client().await;
    let inner = [&most[..], &most].concat();
    let tags = [&[2, 90, 10][..], &inner, &[91, 0], &[1, 1, 0, 0]].concat();
    let sent = client.stream.write_all(&header(&tags)).await;
    sent.expect("sent");
    assert!(client.frame().await.is_some());
    is_served(&mut honest, "t").await;
}

#[tokio::test]
async fn half_frames_are_given_up_when_they_stand_still() {
    let stage = Stage::open_with(|options| {
        options.limits.idle_max = Duration::from_millis(300);
    });
    let stage = stage.await;
    let whole = whole(ApiKey::Metadata, 9, &[0, 0, 0, 0, 0]);
    let mut held = Vec::new();
    for end in [0, 1, 3, 4, 9, whole.len() - 1] {
        let mut client = stage.client().await;
        let sent = client.stream.write_all(&whole[..end]).await;
        sent.expect("sent");
        held.push(client);
    }
    let mut honest = stage.client().await;
    for _ in 0..5 {
        honest.ask(9, MetadataRequest::default()).await;
    }
    for mut client in held {
        assert_eq!(client.frame().await, None);
    }
}

#[tokio::test]
async fn who_leaves_while_it_waits_gives_its_place_to_others() {
    let stage = Stage::open_with(|options| options.limits.connections_max = 4);
    let stage = stage.await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    for _ in 0..3 {
        let mut client = stage.client().await;
        client.send(12, fetch("t", 0, i32::MAX, 1 << 20)).await;
    }
    let begun = Instant::now();
    loop {
        let mut next = stage.client().await;
        if next.try_ask(9, MetadataRequest::default()).await.is_some() {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "their places are not given up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_served(&mut honest, "t").await;
}

/// A batch of one record whose value is so many zeros.
fn bomb(codec: Compression, size: usize) -> Bytes {
    let mut builder = BatchBuilder::new(codec);
    builder.push(NewRecord {
        timestamp: now_ms(),
        key: Some(b"k"),
        value: Some(&vec![0; size]),
        ..NewRecord::default()
    });
    builder.build()
}

const PACKED: [Compression; 4] = [
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_of_every_codec_cost_a_bounded_time_and_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let address = testkit::port::stable();
    let broker = kills::start(address, folder.path()).await;
    let mut honest = Client::await_at(address).await;
    honest.create("t", 1, &[]).await;
    let looked_into = [
        ("cleanup.policy", "compact"),
        ("max.message.bytes", "20000000"),
    ];
    honest.create("c", 1, &looked_into).await;
    let packed = [
        ("compression.type", "gzip"),
        ("max.message.bytes", "20000000"),
    ];
    honest.create("g", 1, &packed).await;
    is_served(&mut honest, "t").await;
    let before = resident(broker.id());
    // More than one batch may inflate to where it is looked into.
    let mut hostile = Vec::new();
    for codec in PACKED {
        let bomb = bomb(codec, 130 * MIB);
        for topic in ["c", "g"] {
            // What is compressed as the topic wants it is not looked into.
            if (codec, topic) == (Compression::Gzip, "g") {
                continue;
            }
            let mut client = Client::connect(address).await;
            let id = client.send(9, produce(topic, -1, bomb.clone())).await;
            hostile.push((client, id));
        }
    }
    let mut most = 0;
    for _ in 0..20 {
        is_served(&mut honest, "t").await;
        most = most.max(resident(broker.id()));
    }
    for (mut client, id) in hostile {
        let frame = client.frame_within(LIMIT).await.expect("an answer");
        let (found, answer) = frame::decode_response::<ProduceRequest>(&frame, 9).expect("decodes");
        assert_eq!(found, id);
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(error(code), ErrorCode::InvalidRecord);
        most = most.max(resident(broker.id()));
    }
    is_served(&mut honest, "t").await;
    let grown = most.saturating_sub(before);
    // Two threads, each with one batch at a time, whose buffer doubles as it grows.
    assert!(grown < 2 * 3 * 128 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bombs_in_one_request_cost_what_a_few_do() {
    let stage = Stage::open().await;
    let mut honest = stage.client().await;
    honest.create("t", 1, &[]).await;
    let compacted = [("cleanup.policy", "compact")];
    honest.create("c", 200, &compacted).await;
    let bomb = bomb(Compression::Zstd, 100 * MIB);
    let partitions = (0..200).map(|index| PartitionProduceData {
        index,
        records: Some(bomb.clone()),
    });
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: "c".to_owned(),
            partition_data: partitions.collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let mut client = stage.client().await;
    let id = client.send(9, request).await;
    for _ in 0..5 {
        is_served(&mut honest, "t").await;
    }
    let frame = client.frame_within(LIMIT).await.expect("an answer");
    let (found, answer) = frame::decode_response::<ProduceRequest>(&frame, 9).expect("decodes");
    assert_eq!(found, id);
    let answers = answer.responses[0].partition_responses.iter();
    let taken = answers.filter(|one| one.error_code == ErrorCode::None.code());
    assert_eq!(taken.count(), 10, "as many as 1 GiB holds");
}

#[tokio::test]
async fn a_bomb_that_nobody_looks_into_is_stored_and_read_as_it_came() {
    let stage = Stage::open().await;
    let mut client = stage.client().await;
    client.create("t", 1, &[]).await;
    for (offset, codec) in (0..).zip([Compression::Gzip, Compression::Zstd]) {
        let bomb = bomb(codec, 130 * MIB);
        let taken = client.produce(9, "t", -1, bomb.clone()).await;
        assert_eq!(error(taken.error_code), ErrorCode::None);
        let answer = client.ask(12, fetch("t", offset, 0, 1 << 20)).await;
        let records = answer.responses[0].partitions[0].records.clone();
        let records = records.expect("records");
        let stored = batches(&records).next().expect("one").expect("whole");
        assert_eq!(stored.body(), &bomb[61..]);
        assert!(Records::read(&stored, 128 * MIB).is_err());
    }
}
