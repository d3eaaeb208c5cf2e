//! Records in: what is taken, what is refused, and how.

use bytes::{Bytes, BytesMut};
use kafka::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka::record::{BatchBuilder, NewRecord, Producer};

use super::{Both, topics};
use crate::stage::{batch, now_ms, produce, stamped};

pub(super) async fn run(both: &mut Both) {
    plain(both).await;
    damaged(both).await;
    numbered(both).await;
    settings(both).await;
}

async fn plain(both: &mut Both) {
    both.section("produce");
    topics::make(both, "taken", 2, &[]).await;
    for version in 3..=12 {
        both.ask("one", version, produce("taken", 1, batch(&["a", "b"])))
            .await;
    }
    both.ask("all acks", 9, produce("taken", -1, batch(&["a"])))
        .await;
    both.ask("odd acks", 9, produce("taken", 2, batch(&["a"])))
        .await;
    both.ask("unknown topic", 9, produce("not-there", 1, batch(&["a"])))
        .await;
    both.ask("bad topic name", 9, produce("a b", 1, batch(&["a"])))
        .await;
    both.ask(
        "internal topic",
        9,
        produce("__consumer_offsets", 1, batch(&["a"])),
    )
    .await;
    let mut elsewhere = produce("taken", 1, batch(&["a"]));
    elsewhere.topic_data[0].partition_data[0].index = 5;
    both.ask("unknown partition", 9, elsewhere.clone()).await;
    elsewhere.topic_data[0].partition_data[0].index = -1;
    both.ask("partition -1", 9, elsewhere).await;
    both.ask(
        "two batches",
        9,
        produce("taken", 1, joined(&[batch(&["a"]), batch(&["b"])])),
    )
    .await;
    both.ask("no bytes", 9, produce("taken", 1, Bytes::new()))
        .await;
    let mut null = produce("taken", 1, Bytes::new());
    null.topic_data[0].partition_data[0].records = None;
    both.ask("no records", 9, null).await;
    let twice = ProduceRequest {
        acks: 1,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: "taken".into(),
            partition_data: [0, 1, 7]
                .into_iter()
                .map(|index| PartitionProduceData {
                    index,
                    records: Some(batch(&["x"])),
                })
                .collect(),
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    both.ask("several partitions", 9, twice).await;
    both.ask("an unknown id", 13, produce("", 1, batch(&["a"])))
        .await;
    let nothing = ProduceRequest {
        acks: 1,
        timeout_ms: 10_000,
        ..ProduceRequest::default()
    };
    both.ask("nothing", 9, nothing).await;
}

fn joined(batches: &[Bytes]) -> Bytes {
    let mut all = BytesMut::new();
    for batch in batches {
        all.extend_from_slice(batch);
    }
    all.freeze()
}

fn changed(change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = BytesMut::from(&batch(&["aaaa", "bbbb"])[..]);
    change(&mut bytes);
    bytes.freeze()
}

/// Changes bytes and puts the right checksum over them.
fn sealed(change: impl FnOnce(&mut [u8])) -> Bytes {
    let mut bytes = BytesMut::from(&batch(&["aaaa", "bbbb"])[..]);
    change(&mut bytes);
    let checksum = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    bytes.freeze()
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => (crc >> 1) ^ 0x82f6_3b78,
            _ => crc >> 1,
        })
    })
}

async fn damaged(both: &mut Both) {
    both.section("damaged batches");
    let whole = batch(&["aaaa", "bbbb"]);
    let cases: Vec<(&str, Bytes)> = vec![
        ("a flipped bit", changed(|bytes| bytes[70] ^= 1)),
        ("a wrong checksum", changed(|bytes| bytes[17] ^= 1)),
        ("cut short", whole.slice(..whole.len() - 3)),
        ("only a head", whole.slice(..30)),
        ("a few bytes", whole.slice(..5)),
        ("magic 1", changed(|bytes| bytes[16] = 1)),
        ("magic 3", changed(|bytes| bytes[16] = 3)),
        ("base offset of 7", changed(|bytes| bytes[7] = 7)),
        ("leader epoch of 9", changed(|bytes| bytes[15] = 9)),
        ("length too small", changed(|bytes| bytes[11] = 20)),
        ("length negative", changed(|bytes| bytes[8] = 0x80)),
        ("length too large", changed(|bytes| bytes[10] = 9)),
        (
            "bytes behind it",
            joined(&[whole.clone(), Bytes::from_static(b"xyz")]),
        ),
        ("last delta too small", sealed(|bytes| bytes[26] = 0)),
        ("last delta too large", sealed(|bytes| bytes[26] = 5)),
        ("last delta negative", sealed(|bytes| bytes[23] = 0x80)),
        ("count too small", sealed(|bytes| bytes[60] = 1)),
        ("count too large", sealed(|bytes| bytes[60] = 3)),
        ("count of 0", sealed(|bytes| bytes[60] = 0)),
        ("count negative", sealed(|bytes| bytes[57] = 0x80)),
        ("unknown codec", sealed(|bytes| bytes[22] = 7)),
        ("a codec that it is not in", sealed(|bytes| bytes[22] = 1)),
        ("a control batch", sealed(|bytes| bytes[22] = 0x20)),
        (
            "a transactional batch without producer",
            sealed(|bytes| bytes[22] = 0x10),
        ),
        ("append time set", sealed(|bytes| bytes[22] = 0x08)),
        ("first record's length", sealed(|bytes| bytes[61] = 0x7e)),
        ("first record's offset", sealed(|bytes| bytes[64] = 0x02)),
    ];
    for (number, (step, bytes)) in cases.into_iter().enumerate() {
        let topic = format!("guarded-{number}");
        topics::make(both, &topic, 1, &[]).await;
        both.ask(step, 9, produce(&topic, 1, bytes.clone())).await;
        both.ask(step, 7, produce(&topic, 1, bytes)).await;
    }
}

fn by(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let producer = Producer {
        id,
        epoch,
        base_sequence: sequence,
    };
    stamped(values, now_ms(), Some(producer))
}

async fn numbered(both: &mut Both) {
    both.section("idempotent producers");
    topics::make(both, "numbered", 1, &[]).await;
    let steps: &[(&str, i64, i16, i32, usize)] = &[
        ("first", 5000, 0, 0, 2),
        ("next", 5000, 0, 2, 1),
        ("the last again", 5000, 0, 2, 1),
        ("the first again", 5000, 0, 0, 2),
        ("the last with another count", 5000, 0, 2, 2),
        ("a gap", 5000, 0, 5, 1),
        ("third", 5000, 0, 3, 1),
        ("fourth", 5000, 0, 4, 1),
        ("fifth", 5000, 0, 5, 1),
        ("sixth", 5000, 0, 6, 1),
        ("seventh", 5000, 0, 7, 1),
        ("too old to know", 5000, 0, 0, 2),
        ("old but known", 5000, 0, 4, 1),
        ("newer epoch not from 0", 5000, 1, 8, 1),
        ("newer epoch", 5000, 1, 0, 1),
        ("older epoch", 5000, 0, 8, 1),
        ("older epoch from 0", 5000, 0, 0, 1),
        ("a stranger not from 0", 5001, 0, 9, 1),
        ("the stranger goes on", 5001, 0, 10, 1),
        ("a stranger with an epoch", 5002, 3, 0, 1),
        ("sequence -1", 5004, 0, -1, 1),
        ("sequence before its end", 5005, 0, i32::MAX, 1),
        ("sequence begins anew", 5005, 0, 0, 1),
        ("sequence across its end", 5006, 0, i32::MAX - 1, 4),
        ("after it", 5006, 0, 2, 1),
    ];
    for (step, id, epoch, sequence, count) in steps {
        let values = vec!["v"; *count];
        both.ask(
            step,
            9,
            produce("numbered", -1, by(*id, *epoch, *sequence, &values)),
        )
        .await;
    }
    let odd = by(5003, -1, 0, &["v"]);
    topics::make(both, "numbered-oddly", 1, &[]).await;
    both.ask("epoch -1", 9, produce("numbered-oddly", -1, odd))
        .await;
    let pair = joined(&[by(5010, 0, 0, &["a"]), by(5010, 0, 1, &["b"])]);
    both.ask("two batches of one", 9, produce("numbered", -1, pair))
        .await;
}

fn keyed(records: &[(Option<&str>, Option<&str>)], timestamp: i64) -> Bytes {
    let mut builder = BatchBuilder::default();
    for (key, value) in records {
        builder.push(NewRecord {
            timestamp,
            key: key.map(str::as_bytes),
            value: value.map(str::as_bytes),
            ..NewRecord::default()
        });
    }
    builder.build()
}

async fn settings(both: &mut Both) {
    both.section("what a topic takes");
    topics::make(both, "small", 1, &[("max.message.bytes", "200")]).await;
    let large = "x".repeat(400);
    both.ask("too large", 9, produce("small", 1, batch(&[&large])))
        .await;
    both.ask("small enough", 9, produce("small", 1, batch(&["x"])))
        .await;
    let day = 24 * 3_600_000;
    topics::make(
        both,
        "timely",
        1,
        &[
            ("message.timestamp.before.max.ms", "1000"),
            ("message.timestamp.after.max.ms", "1000"),
        ],
    )
    .await;
    both.ask(
        "too early",
        9,
        produce("timely", 1, stamped(&["a", "b"], now_ms() - day, None)),
    )
    .await;
    both.ask(
        "too late",
        9,
        produce("timely", 1, stamped(&["a"], now_ms() + day, None)),
    )
    .await;
    both.ask(
        "without time",
        9,
        produce("timely", 1, stamped(&["a"], -1, None)),
    )
    .await;
    both.ask(
        "a time below -1",
        9,
        produce("taken", 1, stamped(&["a"], -2, None)),
    )
    .await;
    topics::make(both, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    let now = now_ms();
    both.ask(
        "keys",
        9,
        produce(
            "compacted",
            1,
            keyed(&[(Some("k"), Some("v")), (Some("k"), None)], now),
        ),
    )
    .await;
    both.ask(
        "one without key",
        9,
        produce(
            "compacted",
            1,
            keyed(&[(Some("k"), Some("v")), (None, Some("v"))], now),
        ),
    )
    .await;
    both.ask(
        "one without key, old",
        7,
        produce("compacted", 1, keyed(&[(None, Some("v"))], now)),
    )
    .await;
}
