//! Reading: whole batches within bounds, by offset and by time, while the log grows.

use std::os::unix::fs::FileExt;

use journal::producer::Origin;
use journal::{Config, Held, Log, ReadError, Reader};
use kafka::compress::Compression;
use kafka::record;
use proptest::prelude::*;

use crate::support::*;

/// Offsets of the batches that a read returns, as `first-last`.
fn ranges(reader: &Reader, offset: i64, max_bytes: usize, min_one: bool, up_to: i64) -> String {
    let slice = reader
        .read(offset, max_bytes, min_one, up_to)
        .expect("readable");
    let range =
        |batch: record::Batch<'_>| format!("{}-{}", batch.base_offset(), batch.last_offset());
    let ranges: Vec<String> = record::batches(&slice.bytes)
        .map(|batch| range(batch.expect("whole")))
        .collect();
    ranges.join(" ")
}

fn three_batches(home: &Home) -> (Log, usize) {
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["a", "b"]));
    let bytes = batch(&["c", "d"]);
    append(&mut log, &bytes);
    append(&mut log, &batch(&["e", "f"]));
    (log, bytes.len())
}

#[test]
fn a_read_returns_whole_batches_only() {
    let home = Home::new();
    let (log, size) = three_batches(&home);
    let check = |offset, max_bytes, expected: &str| {
        assert_eq!(ranges(&log.reader(), offset, max_bytes, false, 6), expected);
    };
    check(0, 3 * size, "0-1 2-3 4-5");
    check(0, 3 * size - 1, "0-1 2-3");
    check(1, size, "0-1");
    check(3, 10 * size, "2-3 4-5");
    check(5, size, "4-5");
    check(0, size - 1, "");
    check(6, size, "");
}

#[test]
fn the_first_batch_may_be_larger_than_the_limit() {
    let home = Home::new();
    let (log, size) = three_batches(&home);
    assert_eq!(ranges(&log.reader(), 2, 1, true, 6), "2-3");
    assert_eq!(ranges(&log.reader(), 2, 0, true, 6), "2-3");
    assert_eq!(ranges(&log.reader(), 2, size + 1, true, 6), "2-3");
}

#[test]
fn nothing_is_read_beyond_the_bound() {
    let home = Home::new();
    let (log, _) = three_batches(&home);
    let check = |up_to, expected: &str| {
        assert_eq!(ranges(&log.reader(), 0, 10_000, true, up_to), expected);
    };
    check(6, "0-1 2-3 4-5");
    check(100, "0-1 2-3 4-5");
    check(5, "0-1 2-3");
    check(2, "0-1");
    check(1, "");
    check(0, "");
}

#[test]
fn offsets_outside_the_log_are_refused() {
    let home = Home::new();
    let (log, _) = three_batches(&home);
    for offset in [-1, 7, i64::MAX] {
        let refused = log.reader().read(offset, 100, true, i64::MAX);
        let expected = matches!(
            refused,
            Err(ReadError::OutOfRange {
                start: 0,
                end: 6,
                ..
            })
        );
        assert!(expected, "{refused:?}");
    }
}

#[test]
fn records_are_found_by_time() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    for (timestamp, values) in [
        (100, &["a", "b", "c"][..]),
        (50, &["d"]),
        (200, &["e"]),
        (150, &["f"]),
        (200, &["g"]),
    ] {
        append(&mut log, &packed(Compression::Lz4, timestamp, values));
    }
    let reader = log.reader();
    let check = |timestamp, expected| {
        let found = reader
            .offset_for_timestamp(timestamp, i64::MAX)
            .expect("readable");
        assert_eq!(
            found.map(|found| (found.offset, found.timestamp)),
            expected,
            "{timestamp}"
        );
    };
    check(0, Some((0, 100)));
    check(101, Some((1, 101)));
    check(103, Some((4, 200)));
    check(200, Some((4, 200)));
    check(201, None);
    assert_eq!(reader.offset_for_timestamp(103, 4).expect("readable"), None);
    let latest = reader
        .latest_by_timestamp()
        .expect("readable")
        .expect("not empty");
    assert_eq!((latest.offset, latest.timestamp), (4, 200));
}

#[test]
fn an_empty_log_has_no_times() {
    let home = Home::new();
    let (log, _) = home.open(small());
    assert_eq!(
        log.reader()
            .offset_for_timestamp(0, i64::MAX)
            .expect("readable"),
        None
    );
    assert_eq!(log.reader().latest_by_timestamp().expect("readable"), None);
    assert_eq!(ranges(&log.reader(), 0, 100, true, i64::MAX), "");
}

#[test]
fn readers_follow_a_writer_on_another_thread() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let reader = log.reader();
            std::thread::spawn(move || {
                let mut next = 0;
                while next < 500 {
                    let slice = reader.read(next, 250, true, i64::MAX).expect("readable");
                    for batch in record::batches(&slice.bytes) {
                        let batch = batch.expect("whole");
                        batch.verify().expect("good");
                        assert_eq!(batch.base_offset(), next);
                        next = batch.next_offset();
                    }
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    for number in 0..500 {
        append(&mut log, &batch(&[&number.to_string()]));
    }
    for reader in readers {
        reader.join().expect("read everything in order");
    }
}

/// One batch: timestamp and the lengths of its records' values.
fn some_batch() -> impl Strategy<Value = (i64, Vec<usize>)> {
    (0..1000i64, proptest::collection::vec(0..120usize, 1..5))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lookups_agree_with_a_scan(
        batches in proptest::collection::vec(some_batch(), 1..60),
        interval in 0..400u32,
        restart in any::<bool>(),
    ) {
        let home = Home::new();
        let config =
            Config { segment_bytes: 1500, index_interval_bytes: interval, ..Config::default() };
        let (mut log, _) = home.open(config);
        let mut records = Vec::new(); // offset of the batch, timestamp of the record
        for (timestamp, lengths) in &batches {
            let values: Vec<String> = lengths.iter().map(|length| "v".repeat(*length)).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let appended = log
                .append(&batch_at(*timestamp, &values), NOW, Origin::Client)
                .expect("appended");
            for delta in 0..lengths.len() as i64 {
                records.push((appended.base_offset, timestamp + delta));
            }
        }
        if restart {
            drop(log);
            log = home.open(config).0;
        }
        let reader = log.reader();
        for (offset, (base, _)) in (0..).zip(&records) {
            let slice = reader.read(offset, 0, true, i64::MAX).expect("readable");
            let (batch, rest) = record::Batch::split_first(&slice.bytes).expect("whole");
            prop_assert!(rest.is_empty());
            prop_assert_eq!(batch.base_offset(), *base);
        }
        for timestamp in (0..1010).step_by(7) {
            let found = reader.offset_for_timestamp(timestamp, i64::MAX).expect("readable");
            let naive = (0..)
                .zip(&records)
                .find(|(_, (_, time))| *time >= timestamp)
                .map(|(offset, (_, time))| (offset, *time));
            prop_assert_eq!(found.map(|found| (found.offset, found.timestamp)), naive);
        }
        let latest = reader.latest_by_timestamp().expect("readable").expect("not empty");
        let most = records.iter().map(|(_, time)| *time).max().expect("not empty");
        let first = records.iter().position(|(_, time)| *time == most).expect("there");
        prop_assert_eq!((latest.offset, latest.timestamp), (first as i64, most));
    }
}

#[test]
fn what_is_left_in_the_file_is_what_a_read_returns() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    let large = "x".repeat(10_000);
    for _ in 0..8 {
        append(&mut log, &batch(&[large.as_str(), "y"]));
    }
    let reader = log.reader();
    let size = batch(&[large.as_str(), "y"]).len();
    let mut stretches = 0;
    for (offset, max_bytes, up_to) in [
        (0, 1 << 20, 16),
        (0, 5 * size + 1, 16),
        (3, 1 << 20, 16),
        (2, 1 << 20, 12),
        (15, 1 << 20, 16),
        (0, 10, 16),
        (16, 1 << 20, 16),
    ] {
        let slice = reader.read(offset, max_bytes, true, up_to).expect("read");
        match reader.hold(offset, max_bytes, true, up_to).expect("read") {
            Held::Bytes(held) => assert_eq!(held, slice),
            Held::InFile(stretch) => {
                stretches += 1;
                let mut bytes = vec![0; stretch.len];
                let at = stretch.position;
                stretch.file.read_exact_at(&mut bytes, at).expect("there");
                assert_eq!(bytes, slice.bytes);
                assert_eq!(stretch.next_offset, slice.next_offset);
                let batches = record::batches(&bytes).map(|batch| batch.expect("whole"));
                let records: i32 = batches.map(|batch| batch.record_count()).sum();
                assert_eq!(stretch.records, i64::from(records));
            }
        }
    }
    assert_eq!(stretches, 4);
    // Small batches are read.
    append(&mut log, &batch(&["z"]));
    let small = reader.hold(16, 1 << 20, true, 17).expect("read");
    assert!(matches!(small, Held::Bytes(_)));
}

#[test]
fn what_lay_on_disk_before_is_checked_before_it_is_left_there() {
    let home = Home::new();
    let large = "x".repeat(10_000);
    // What was closed well is not checked when it is opened again.
    let config = Config {
        segment_bytes: 3 << 20,
        ..Config::default()
    };
    let (mut log, _) = home.open(config);
    for _ in 0..400 {
        append(&mut log, &batch(&[large.as_str()]));
    }
    log.close().expect("closed");
    let (log, _) = home.open(config);
    let reader = log.reader();
    let hold = || reader.hold(0, 16 << 20, true, 400).expect("read");
    match hold() {
        Held::Bytes(slice) => assert!((256..400).contains(&slice.next_offset)),
        Held::InFile(stretch) => panic!("nobody has looked at {stretch:?}"),
    }
    match hold() {
        Held::InFile(stretch) => {
            assert!(stretch.cut, "more than are looked at for one stretch");
            assert_eq!(stretch.next_offset, 256);
            assert_eq!(stretch.records, 256);
        }
        Held::Bytes(slice) => panic!("read once more to {}", slice.next_offset),
    }
}
