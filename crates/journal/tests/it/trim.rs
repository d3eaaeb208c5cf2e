//! Making a log shorter: retention, DeleteRecords, cutting, and deleting it.

use journal::producer::Origin;
use journal::{Config, CutError, ReadError, Retention, sweep};

use crate::support::*;

#[test]
fn the_oldest_segments_go_when_there_is_too_much() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 60);
    let before = home.names(".log");
    let policy = Retention {
        bytes: Some(2000),
        ..Retention::default()
    };
    let gone = log.retain(NOW, &policy).expect("retained");
    assert!(!gone.is_empty());
    assert_eq!(home.names(".log"), before[gone.len()..]);
    let reader = log.reader();
    assert!(
        reader.size() >= 2000 && reader.size() < 3000,
        "{}",
        reader.size()
    );
    assert_eq!(
        dump(&reader, reader.start_offset()),
        numbers(reader.start_offset(), 60)
    );
    let refused = reader.read(0, 100, true, i64::MAX);
    assert!(
        matches!(refused, Err(ReadError::OutOfRange { .. })),
        "{refused:?}"
    );
    assert!(log.retain(NOW, &policy).expect("retained").is_empty());
}

#[test]
fn segments_go_when_their_newest_record_is_too_old() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    for number in 0..30 {
        append(&mut log, &batch_at(NOW + number * 10, &["x"]));
    }
    let policy = Retention {
        age_ms: Some(1000),
        ..Retention::default()
    };
    assert!(
        log.retain(NOW + 1000, &policy)
            .expect("retained")
            .is_empty()
    );
    let gone = log.retain(NOW + 1200, &policy).expect("retained");
    assert!(!gone.is_empty());
    // What is left begins no later than the first record that is young enough.
    let start = log.start_offset();
    assert!(start > 0 && start <= 20, "{start}");

    log.retain(NOW + 5000, &policy).expect("retained");
    assert_eq!((log.start_offset(), log.end_offset()), (30, 30));
    assert_eq!(log.reader().size(), 0);
    append(&mut log, &batch(&["next"]));
    assert_eq!(dump(&log.reader(), 30), "30=next");
}

#[test]
fn without_a_limit_nothing_goes() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 30);
    let gone = log
        .retain(i64::MAX, &Retention::default())
        .expect("retained");
    assert!(gone.is_empty());
}

#[test]
fn deleted_records_stay_deleted() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 30);
    let segments = home.names(".log").len();
    assert_eq!(log.delete_before(17).expect("deleted"), 17);
    assert!(home.names(".log").len() < segments);
    assert_eq!(log.delete_before(5).expect("nothing to do"), 17);
    let beyond = log.delete_before(31);
    assert!(
        matches!(beyond, Err(CutError::OutOfRange { end: 30, .. })),
        "{beyond:?}"
    );
    drop(log);

    let (mut log, _) = home.open(small());
    assert_eq!(log.start_offset(), 17);
    assert_eq!(dump(&log.reader(), 17), numbers(17, 30));
    let found = log
        .reader()
        .offset_for_timestamp(0, i64::MAX)
        .expect("readable");
    assert_eq!(found.expect("there").offset, 17);
    assert_eq!(log.delete_before(30).expect("deleted"), 30);
    log.close().expect("closed");

    let (mut log, _) = home.open(small());
    assert_eq!((log.start_offset(), log.end_offset()), (30, 30));
    append_numbers(&mut log, 30, 1);
    assert_eq!(dump(&log.reader(), 30), "30=30");
}

#[test]
fn producers_outlive_their_records() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append(&mut log, &of_producer(9, 0, 0, &["x"]));
    append_numbers(&mut log, 1, 40);
    log.delete_before(41).expect("deleted");
    drop(log);
    let (mut log, _) = home.open(small());
    assert!(append(&mut log, &of_producer(9, 0, 0, &["x"])).duplicate);
    assert!(!append(&mut log, &of_producer(9, 0, 1, &["x"])).duplicate);
}

#[test]
fn a_reader_keeps_what_it_holds() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 30);
    let reader = log.reader();
    let slice = reader.read(0, 10_000, true, i64::MAX).expect("readable");
    log.delete_before(30).expect("deleted");
    let (batch, _) = kafka::record::Batch::split_first(&slice.bytes).expect("whole");
    batch.verify().expect("still good");
}

#[test]
fn cutting_removes_whole_batches_from_the_end() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    log.lead(1);
    append_numbers(&mut log, 0, 30);
    log.lead(2);
    append(&mut log, &of_producer(9, 0, 0, &["30", "31"]));
    append_numbers(&mut log, 32, 8);
    assert_eq!(log.truncate_to(40, NOW).expect("nothing to do"), 40);
    assert_eq!(log.truncate_to(31, NOW).expect("cut"), 30);
    assert_eq!(log.reader().epoch_end_offset(2), None);
    assert!(log.producers().is_empty());
    assert_eq!(dump(&log.reader(), 0), numbers(0, 30));

    assert_eq!(log.truncate_to(3, NOW).expect("cut"), 3);
    append_numbers(&mut log, 3, 20);
    assert_eq!(dump(&log.reader(), 0), numbers(0, 23));
    drop(log);
    assert_eq!(dump(&home.open(small()).0.reader(), 0), numbers(0, 23));
}

#[test]
fn a_deleted_log_frees_its_name_at_once() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 3);
    let reader = log.reader();
    log.remove().expect("removed");
    assert!(!home.dir.exists());
    assert_eq!(dump(&reader, 0), numbers(0, 3));
    let (log, _) = home.open(small());
    assert_eq!(log.end_offset(), 0);
}

#[test]
fn interrupted_deletions_are_swept_up() {
    let root = tempfile::tempdir().expect("a temp dir");
    let doomed = root.path().join("orders-0.0123-delete");
    std::fs::create_dir(&doomed).expect("created");
    std::fs::write(doomed.join("00000000000000000000.log"), "x").expect("written");
    std::fs::create_dir(root.path().join("orders-1")).expect("created");
    assert_eq!(sweep(root.path()).expect("swept"), 1);
    assert_eq!(names(root.path(), ""), ["orders-1"]);
}

#[test]
fn a_lost_index_of_a_closed_segment_is_built_anew() {
    let home = Home::new();
    let config = Config {
        segment_bytes: 20_000,
        index_interval_bytes: 100,
        message_bytes_max: 1000,
        ..Config::default()
    };
    let (mut log, _) = home.open(config);
    append_numbers(&mut log, 0, 400);
    log.close().expect("closed");
    let first = home.dir.join(&home.names(".index")[0]);
    let before = std::fs::read(&first).expect("readable");
    assert!(before.len() > 100);
    std::fs::remove_file(&first).expect("removed");
    let (mut log, report) = home.open(config);
    assert_eq!(report.scanned_bytes, 0);
    assert_eq!(std::fs::read(&first).expect("readable"), before);
    assert_eq!(dump(&log.reader(), 0), numbers(0, 400));
    log.append(&batch(&["400"]), NOW, Origin::Client)
        .expect("appended");
}

#[test]
fn a_segment_is_closed_when_its_index_is_full() {
    let home = Home::new();
    let config = Config {
        index_bytes_max: 60,
        index_interval_bytes: 0,
        ..Config::default()
    };
    let (mut log, _) = home.open(config);
    append_numbers(&mut log, 0, 40);
    for name in home.names("index") {
        let size = std::fs::metadata(home.dir.join(&name))
            .expect("there")
            .len();
        assert!(size <= 60, "{name} {size}");
    }
    assert!(home.names(".log").len() > 4);
    assert_eq!(dump(&log.reader(), 0), numbers(0, 40));
}

#[test]
fn segments_close_at_different_times_with_a_jitter() {
    let ages: std::collections::BTreeSet<i64> = (0..6)
        .map(|_| {
            let home = Home::new();
            let config = Config {
                segment_ms: 100_000,
                segment_jitter_ms: 50_000,
                ..Config::default()
            };
            let (mut log, _) = home.open(config);
            let mut age = 0;
            while home.names(".log").len() < 2 {
                append(&mut log, &batch_at(NOW + age, &["x"]));
                age += 1000;
            }
            age
        })
        .collect();
    assert!(ages.len() > 1, "{ages:?}");
    let bounds = 50_000..=102_000;
    assert!(ages.iter().all(|age| bounds.contains(age)), "{ages:?}");
}

#[test]
fn space_that_was_taken_in_advance_is_given_back() {
    use std::os::unix::fs::MetadataExt;
    let home = Home::new();
    let config = Config {
        segment_bytes: 32 << 20,
        preallocate: true,
        ..Config::default()
    };
    let (mut log, _) = home.open(config);
    append_numbers(&mut log, 0, 3);
    log.roll(NOW).expect("rolled");
    let newest = home.dir.join(home.names(".log").pop().expect("two"));
    let held = || std::fs::metadata(&newest).expect("there").blocks() * 512;
    let before = held();
    append_numbers(&mut log, 3, 3);
    drop(log);
    // After a kill, too, only what was written counts.
    let (log, report) = home.open(config);
    assert_eq!((log.end_offset(), report.torn_bytes), (6, 0));
    log.close().expect("closed");
    assert!(held() < 1 << 20, "{} {before}", held());
}

#[test]
fn what_retention_leaves_can_be_compacted() {
    let home = Home::new();
    let config = Config {
        compaction: Some(journal::Compaction::default()),
        ..small()
    };
    let (mut log, _) = home.open(config);
    for number in 0..60u8 {
        let mut builder = kafka::record::BatchBuilder::default();
        builder.push(kafka::record::NewRecord {
            timestamp: NOW + i64::from(number) * 10,
            key: Some(&[number % 3]),
            value: Some(b"value"),
            headers: &[],
        });
        append(&mut log, &builder.build());
    }
    log.flush().expect("flushed");
    let policy = Retention {
        age_ms: Some(200),
        ..Retention::default()
    };
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    assert!(!log.retain(NOW + 500, &policy).expect("retained").is_empty());
    let start = log.start_offset();
    let dirt = cleaning.dirt(NOW).expect("readable");
    let limits = journal::clean::Limits::default();
    cleaning
        .run(&dirt, NOW, &limits, &mut |_| true)
        .expect_err("it has changed");
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    assert_eq!(dirt.from, start);
    let done = cleaning.run(&dirt, NOW, &limits, &mut |_| true);
    assert!(done.expect("compacted").removed > 0);
    assert_eq!((log.start_offset(), log.end_offset()), (start, 60));
}
