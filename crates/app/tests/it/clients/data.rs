//! What goes in comes out: bytes, keys, headers, timestamps, order.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::contract::{Client, Kind, Producing, Read, Record};
use super::kcat::hex;
use super::subject::unique;

/// A key or a value to be sent.
type Bytes<'a> = Option<&'a [u8]>;

/// Partitions of the topics; the clients make them, or the broker does by itself.
pub(super) const PARTITIONS: i32 = 3;

/// Every codec with every acks; returns which.
#[track_caller]
pub(super) fn round_trips(client: &mut Client) -> String {
    let codecs = client.kind().codecs();
    for acks in ["all", "1", "0"] {
        let topic = unique(&format!("round-trip-{acks}"));
        client.make_topic(&topic, PARTITIONS);
        let begun = now_ms();
        let mut produced = Vec::new();
        for codec in codecs {
            let records = sample(client.kind() != Kind::Kcat, produced.len() as i64);
            let producing = Producing {
                topic: &topic,
                codec,
                acks,
                idempotent: false,
            };
            let placed = client.produce(producing, &records);
            produced.extend(records);
            if acks != "0" && client.kind() != Kind::Kcat {
                // Every record has the offset that the answer named.
                let read = client.consume(&topic, produced.len());
                let last = &produced[produced.len() - placed.len()..];
                check_places(&read, &client.kind().as_read(last), &placed);
            }
        }
        let read = client.consume(&topic, produced.len());
        if client.kind() == Kind::Kcat {
            take_timestamps(&mut produced, &read, begun);
        }
        let produced = client.kind().as_read(&produced);
        check_same(&read, &produced, acks != "0");
    }
    format!("{} with acks all, 1, 0", codecs.join(", "))
}

/// An idempotent producer's batches arrive once and in order.
#[track_caller]
pub(super) fn idempotent_producer_keeps_order(client: &mut Client) -> &'static str {
    if !client.kind().idempotent() {
        return "it has no idempotent producer";
    }
    let topic = unique("idempotent");
    client.make_topic(&topic, PARTITIONS);
    let begun = now_ms();
    let mut produced = Vec::new();
    for round in 0..3 {
        let mut records: Vec<Record> = (0..300)
            .map(|number| Record {
                partition: number % PARTITIONS,
                key: Some(hex(b"key")),
                value: Some(hex(format!("{round}-{number}").as_bytes())),
                timestamp: begun + i64::from(number),
                headers: Vec::new(),
            })
            .collect();
        records.sort_by_key(|record| record.partition);
        let producing = Producing {
            topic: &topic,
            codec: "none",
            acks: "all",
            idempotent: true,
        };
        client.produce(producing, &records);
        produced.extend(records);
    }
    let read = client.consume(&topic, produced.len());
    if client.kind() == Kind::Kcat {
        take_timestamps(&mut produced, &read, begun);
    }
    check_same(&read, &produced, true);
    "idempotent producer"
}

/// Returns records with everything that a record can be; `start` keeps the timestamps of several calls apart.
pub(super) fn sample(binary_headers: bool, start: i64) -> Vec<Record> {
    let every_byte: Vec<u8> = (0..=255).collect();
    let long = "compress me ".repeat(5000);
    // Bytes that no codec makes smaller.
    let noise: Vec<u8> = (0..20_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let pairs: [(Bytes, Bytes); 8] = [
        (Some(b"key"), Some(b"value")),
        (None, Some(b"no key")),
        (Some(b"tombstone"), None),
        (Some(b""), Some(b"")),
        (Some(&every_byte), Some(&every_byte)),
        (Some("ключ 🔑".as_bytes()), Some("значение".as_bytes())),
        (Some(b"long"), Some(long.as_bytes())),
        (Some(b"noise"), Some(&noise)),
    ];
    let header = |name: &str, value: &[u8]| (name.to_owned(), Some(hex(value)));
    let begun = now_ms() - 60_000;
    let mut records = Vec::new();
    for partition in 0..PARTITIONS {
        for (at, (key, value)) in pairs.iter().enumerate() {
            let mut headers = Vec::new();
            if at >= 4 {
                headers.push(header("trace", b"00-4bf92f35-01"));
                headers.push(header("twice", b"1"));
                headers.push(header("twice", b"2"));
            }
            if at == 4 && binary_headers {
                headers.push(header("bytes", &[0, 255, b'\n', 128]));
            }
            records.push(Record {
                partition,
                key: key.map(hex),
                value: value.map(hex),
                timestamp: begun + start + records.len() as i64,
                headers,
            });
        }
    }
    records
}

/// What was read is what was produced, each once, offsets without a gap; in the producer's order if that is known.
#[track_caller]
pub(super) fn check_same(read: &[Read], produced: &[Record], ordered: bool) {
    assert_eq!(read.len(), produced.len(), "records read and produced");
    for partition in 0..PARTITIONS {
        let mut read: Vec<&Read> = read
            .iter()
            .filter(|read| read.record.partition == partition)
            .collect();
        let mut produced: Vec<&Record> = produced
            .iter()
            .filter(|record| record.partition == partition)
            .collect();
        for (offset, read) in read.iter().enumerate() {
            assert_eq!(
                read.offset, offset as i64,
                "offsets of partition {partition} in order"
            );
        }
        if !ordered {
            read.sort_by_key(|read| format!("{:?}", read.record));
            produced.sort_by_key(|record| format!("{record:?}"));
        }
        for (read, produced) in read.iter().zip(produced) {
            assert!(
                read.record == *produced,
                "partition {partition}, offset {}\nproduced {produced:.1000?}\n    read {:.1000?}",
                read.offset,
                read.record
            );
        }
    }
}

#[track_caller]
fn check_places(read: &[Read], produced: &[Record], placed: &[(i32, i64)]) {
    let at: BTreeMap<(i32, i64), &Record> = read
        .iter()
        .map(|read| ((read.record.partition, read.offset), &read.record))
        .collect();
    for (record, place) in produced.iter().zip(placed) {
        assert!(
            at.get(place) == Some(&record),
            "{place:?} was told for {record:.1000?}"
        );
    }
}

/// kcat cannot set timestamps: they must lie in the time of the test.
#[track_caller]
pub(super) fn take_timestamps(produced: &mut [Record], read: &[Read], begun: i64) {
    let mut left = read.to_vec();
    for record in produced {
        let same = |read: &Read| {
            Record {
                timestamp: record.timestamp,
                ..read.record.clone()
            } == *record
        };
        let at = left.iter().position(same);
        let found = left.remove(at.unwrap_or_else(|| panic!("lost: {record:.1000?}")));
        let timestamp = found.record.timestamp;
        assert!(
            (begun..=now_ms()).contains(&timestamp),
            "timestamp {timestamp} of {record:.1000?}"
        );
        record.timestamp = timestamp;
    }
}

pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("it is after 1970");
    i64::try_from(now.as_millis()).expect("milliseconds since 1970 fit")
}
