//! Batches against the `kafka-protocol` crate as the oracle, against hostile bytes, and field by field.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as oracle;
use proptest::prelude::*;

use super::check::{self, Rules};
use super::*;
use crate::compress::Compression;

const INFLATED_MAX: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq)]
struct Plain {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn build(records: &[Plain], builder: BatchBuilder) -> Vec<u8> {
    let mut builder = builder;
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
            .collect();
        builder.push(NewRecord {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
    }
    builder.build().to_vec()
}

fn read(bytes: &[u8]) -> Vec<Plain> {
    let (batch, rest) = Batch::split_first(bytes).expect("a whole batch");
    assert!(rest.is_empty());
    batch.verify().expect("a good checksum");
    let records = Records::read(&batch, INFLATED_MAX).expect("inflates");
    let plain = |record: Record<'_>| Plain {
        timestamp: record.timestamp,
        key: record.key.map(Vec::from),
        value: record.value.map(Vec::from),
        headers: record
            .headers()
            .map(|header| (header.key.into_owned(), header.value.map(Vec::from)))
            .collect(),
    };
    records
        .iter()
        .map(|record| plain(record.expect("a readable record")))
        .collect()
}

fn to_oracle(records: &[Plain]) -> Vec<oracle::Record> {
    let header = |(key, value): &(String, Option<Vec<u8>>)| {
        (
            StrBytes::from_string(key.clone()),
            value.clone().map(Bytes::from),
        )
    };
    let record = |(offset, record): (i64, &Plain)| oracle::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 4,
        producer_id: 77,
        producer_epoch: 3,
        timestamp_type: oracle::TimestampType::Creation,
        offset,
        sequence: offset as i32 + 10,
        timestamp: record.timestamp,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(header)
            .collect::<IndexMap<_, _>>(),
    };
    (0..).zip(records).map(record).collect()
}

fn from_oracle(record: &oracle::Record) -> Plain {
    let header = |(key, value): (&StrBytes, &Option<Bytes>)| {
        (key.to_string(), value.as_ref().map(|value| value.to_vec()))
    };
    Plain {
        timestamp: record.timestamp,
        key: record.key.as_ref().map(|key| key.to_vec()),
        value: record.value.as_ref().map(|value| value.to_vec()),
        headers: record.headers.iter().map(header).collect(),
    }
}

fn some_records() -> impl Strategy<Value = Vec<Plain>> {
    let blob = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let headers = proptest::collection::btree_map("[a-zé-]{0,12}", blob(), 0..4);
    let record =
        (0..1i64 << 45, blob(), blob(), headers).prop_map(|(timestamp, key, value, headers)| {
            Plain {
                timestamp,
                key,
                value,
                headers: headers.into_iter().collect(),
            }
        });
    proptest::collection::vec(record, 1..20)
}

fn some_codec() -> impl Strategy<Value = Compression> {
    (0..5usize).prop_map(|index| Compression::ALL[index])
}

fn oracle_codec(codec: Compression) -> oracle::Compression {
    match codec {
        Compression::None => oracle::Compression::None,
        Compression::Gzip => oracle::Compression::Gzip,
        Compression::Snappy => oracle::Compression::Snappy,
        Compression::Lz4 => oracle::Compression::Lz4,
        Compression::Zstd => oracle::Compression::Zstd,
    }
}

fn producer() -> Producer {
    Producer {
        id: 77,
        epoch: 3,
        base_sequence: 10,
    }
}

proptest! {
    #[test]
    fn the_oracle_reads_what_we_build(records in some_records(), codec in some_codec()) {
        let builder = BatchBuilder::new(codec).producer(producer()).transactional();
        let mut bytes = Bytes::from(build(&records, builder));
        let inflate = |packed: &mut Bytes, theirs| {
            assert_eq!(theirs, oracle_codec(codec));
            Ok(Bytes::from(crate::compress::decompress(codec, packed, INFLATED_MAX)?.into_owned()))
        };
        let set = oracle::RecordBatchDecoder::decode_with_custom_compression(
            &mut bytes,
            Some(inflate),
        ).expect("the oracle reads it");
        let got: Vec<Plain> = set.records.iter().map(from_oracle).collect();
        prop_assert_eq!(&got, &records);
        for (index, record) in (0..).zip(&set.records) {
            prop_assert_eq!(record.offset, i64::from(index));
            prop_assert_eq!(record.sequence, 10 + index);
            prop_assert_eq!(record.producer_id, 77);
            prop_assert_eq!(record.producer_epoch, 3);
            prop_assert!(record.transactional);
        }
    }

    #[test]
    fn we_read_what_the_oracle_builds(records in some_records(), codec in some_codec()) {
        let options = oracle::RecordEncodeOptions { version: 2, compression: oracle_codec(codec) };
        let deflate = |plain: &mut BytesMut, output: &mut BytesMut, _| {
            output.extend_from_slice(&crate::compress::compress(codec, plain));
            Ok(())
        };
        let mut bytes = BytesMut::new();
        oracle::RecordBatchEncoder::encode_with_custom_compression(
            &mut bytes,
            &to_oracle(&records),
            &options,
            Some(deflate),
        ).expect("the oracle writes it");
        prop_assert_eq!(&read(&bytes), &records);

        let batch = check::produced(&bytes, true).expect("may be stored");
        prop_assert_eq!(batch.compression().expect("known"), codec);
        prop_assert_eq!(batch.leader_epoch(), 4);
        prop_assert_eq!(batch.producer_id(), 77);
        prop_assert_eq!(batch.base_sequence(), 10);
        prop_assert_eq!(batch.last_sequence(), 9 + records.len() as i32);
        prop_assert_eq!(Some(batch.max_timestamp()), records.iter().map(|r| r.timestamp).max());
        let inflated = Records::read(&batch, INFLATED_MAX).expect("inflates");
        let refused = check::records(&batch, &inflated, &rules()).expect("each record is fine");
        prop_assert!(refused.is_empty());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for batch in batches(&bytes).flatten() {
            _ = touch(&batch);
        }
    }

    #[test]
    fn a_damaged_batch_never_panics_and_the_checksum_tells(
        records in some_records(),
        codec in some_codec(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut bytes = build(&records, BatchBuilder::new(codec).producer(producer()));
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let result = check::produced(&bytes, true);
        if let Ok((batch, _)) = Batch::split_first(&bytes) {
            _ = touch(&batch);
        }
        // The leader epoch is the broker's own; all else is caught.
        let ours = (12..16).contains(&at);
        prop_assert_eq!(result.is_ok(), ours, "{} {:?}", at, result);
    }

    #[test]
    fn damaged_records_under_a_good_checksum_never_panic(
        records in some_records(),
        codec in some_codec(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let mut bytes = build(&records, BatchBuilder::new(codec));
        let at = 21 + at.index(bytes.len() - 21);
        bytes[at] ^= flip;
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok((batch, _)) = Batch::split_first(&bytes) {
            batch.verify().expect("made good");
            _ = touch(&batch);
        }
    }
}

/// Reads everything there is.
fn touch(batch: &Batch<'_>) -> Result<(), Error> {
    batch.verify().ok();
    if let Ok(records) = Records::read(batch, INFLATED_MAX) {
        check::records(batch, &records, &rules()).ok();
    }
    assert!(batch.next_offset() >= batch.base_offset());
    for record in Records::read(batch, INFLATED_MAX)?.iter() {
        let record = record?;
        assert!(record.headers().count() <= batch.body().len() + INFLATED_MAX);
    }
    Ok(())
}

fn rules() -> Rules {
    Rules {
        keyed: false,
        timestamps: 0..=i64::MAX,
    }
}

fn plain(value: &str) -> Plain {
    Plain {
        timestamp: 1000,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

/// Builds a batch of two records, lets the test change its bytes, makes the checksum right again and
/// expects this refusal.
#[track_caller]
fn refused(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut bytes = build(&[plain("a"), plain("b")], BatchBuilder::default());
    change(&mut bytes);
    if bytes.len() > 21 {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let error = check::produced(&bytes, false).expect_err("must be refused");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_may_not_be_stored() {
    refused(|bytes| bytes.truncate(9), "the batch is cut short");
    refused(|bytes| bytes.truncate(70), "the batch is cut short");
    refused(
        |bytes| bytes[16] = 1,
        "message format 1 is not supported, use a client that writes format 2",
    );
    refused(|bytes| bytes[16] = 3, "message format 3 is unknown");
    refused(
        |bytes| bytes[8] = 0xff,
        "batch length -16777151 is impossible",
    );
    refused(
        |bytes| bytes[60] = 3,
        "3 records and last offset delta 1 do not agree",
    );
    refused(
        |bytes| bytes[60] = 0,
        "0 records and last offset delta 1 do not agree",
    );
    refused(|bytes| bytes[22] = 7, "compression codec 7 is unknown");
    refused(
        |bytes| bytes[22] = 4,
        "zstd needs a newer version of the request",
    );
    refused(
        |bytes| bytes[22] = 0x20,
        "clients may not write control records",
    );
    refused(
        |bytes| bytes[43..51].copy_from_slice(&5i64.to_be_bytes()),
        "a batch with producer id 5 has base sequence -1",
    );
    refused(
        |bytes| bytes.extend_from_within(..),
        "expected exactly one batch",
    );
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut bytes = build(&[plain("a")], BatchBuilder::default());
    *bytes.last_mut().expect("not empty") ^= 1;
    let refused = check::produced(&bytes, true);
    assert!(
        matches!(refused, Err(Error::Checksum { .. })),
        "{refused:?}"
    );
}

#[test]
fn each_record_is_held_against_the_topics_rules() {
    let bytes = build(
        &[plain("a"), plain("b")],
        BatchBuilder::new(Compression::Lz4),
    );
    let (batch, _) = Batch::split_first(&bytes).expect("own output");
    let records = Records::read(&batch, INFLATED_MAX).expect("inflates");
    let check = |rules| -> Vec<String> {
        let refused = check::records(&batch, &records, &rules).expect("readable");
        refused.iter().map(Error::to_string).collect()
    };
    assert!(check(rules()).is_empty());
    assert_eq!(
        check(Rules {
            keyed: true,
            ..rules()
        }),
        [
            "record 0 has no key, which a compacted topic needs",
            "record 1 has no key, which a compacted topic needs"
        ]
    );
    assert_eq!(
        check(Rules {
            timestamps: 0..=999,
            ..rules()
        })[1],
        "record 1 has timestamp 1000, outside of what the topic takes"
    );
    let bomb = Records::read(&batch, 5).expect_err("too large");
    assert_eq!(
        bomb.to_string(),
        "decompressed records are larger than 5 bytes"
    );
}

#[test]
fn offsets_must_be_dense_and_nothing_left_over() {
    // A record is: length, attributes, timestamp delta, offset delta, key, value, headers.
    let mut bytes = build(&[plain("a"), plain("b")], BatchBuilder::default());
    let second = HEADER_LEN + 8;
    bytes[second + 3] = 4; // zigzag of 2
    let (batch, _) = Batch::split_first(&bytes).expect("whole");
    let records = Records::read(&batch, INFLATED_MAX).expect("plain");
    let error = check::records(&batch, &records, &rules()).expect_err("a gap");
    assert_eq!(error.to_string(), "record 1 has offset delta 2");

    bytes[60] = 1; // one record announced, two there
    let (batch, _) = Batch::split_first(&bytes).expect("whole");
    let records = Records::read(&batch, INFLATED_MAX).expect("plain");
    let error = check::records(&batch, &records, &rules()).expect_err("one too many");
    assert_eq!(
        error.to_string(),
        "bytes are left over after the last record"
    );
}

#[test]
fn offset_and_epoch_are_written_in_place() {
    let mut bytes = build(
        &[plain("a"), plain("b")],
        BatchBuilder::new(Compression::Zstd),
    );
    let (batch, _) = Batch::split_first(&bytes).expect("whole");
    let header = batch.placed(1_000_000_007, 9, None);
    let before = bytes.clone();
    place(&mut bytes, 1_000_000_007, 9).expect("a batch");
    assert_eq!(bytes[..HEADER_LEN], header);
    assert_eq!(bytes[16..], before[16..]);
    let (batch, _) = Batch::split_first(&bytes).expect("whole");
    batch.verify().expect("the checksum does not cover them");
    assert_eq!(
        (batch.base_offset(), batch.last_offset()),
        (1_000_000_007, 1_000_000_008)
    );
    assert_eq!(batch.leader_epoch(), 9);
}

#[test]
fn append_time_covers_every_record_and_renews_the_checksum() {
    let mut bytes = build(
        &[plain("a"), plain("b")],
        BatchBuilder::new(Compression::Gzip),
    );
    stamp(&mut bytes, 5_000).expect("a batch");
    let (batch, _) = Batch::split_first(&bytes).expect("whole");
    batch.verify().expect("computed anew");
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.compression().expect("kept"), Compression::Gzip);
    assert!(read(&bytes).iter().all(|record| record.timestamp == 5_000));
}

#[test]
fn markers_end_transactions() {
    for marker in [Marker::Commit, Marker::Abort] {
        let bytes = marker.batch(42, 1, 6, 123);
        let (batch, _) = Batch::split_first(&bytes).expect("whole");
        assert!(batch.control() && batch.transactional());
        assert_eq!((batch.producer_id(), batch.producer_epoch()), (42, 1));
        let records = Records::read(&batch, 100).expect("plain");
        let record = records.iter().next().expect("one").expect("readable");
        assert_eq!(Marker::from_key(record.key.expect("a key")), Some(marker));
        assert_eq!(record.value, Some(&[0, 0, 0, 0, 0, 6][..]));
        let refused = check::produced(&bytes, true);
        assert!(matches!(refused, Err(Error::ControlBatch)), "{refused:?}");
    }
}

#[test]
fn sequences_wrap_to_zero() {
    assert_eq!(add_sequence(5, 3), 8);
    assert_eq!(add_sequence(i32::MAX, 0), i32::MAX);
    assert_eq!(add_sequence(i32::MAX, 1), 0);
    assert_eq!(add_sequence(i32::MAX - 1, 5), 3);
}

#[test]
fn several_batches_and_a_cut_tail() {
    let one = build(&[plain("a")], BatchBuilder::default());
    let two = build(&[plain("b"), plain("c")], BatchBuilder::default());
    let mut bytes = [one.clone(), two.clone(), one.clone()].concat();
    bytes.truncate(bytes.len() - 1);
    let mut iter = batches(&bytes);
    assert_eq!(iter.next().expect("first").expect("whole").bytes(), one);
    assert_eq!(iter.next().expect("second").expect("whole").bytes(), two);
    assert!(matches!(iter.next(), Some(Err(Error::CutShort))));
    assert_eq!(iter.position(), one.len() + two.len());
    assert!(iter.next().is_none());
}
