//! Appending: offsets, segments, producers, timestamps, and what is refused.

use journal::producer::Origin;
use journal::{AppendError, Config, Log, OpenError};
use kafka::record::{Batch, Marker, TimestampType, batches};

use crate::support::*;

#[test]
fn records_get_the_next_offsets_and_come_back() {
    let home = Home::new();
    let (mut log, report) = home.open(Config::default());
    assert_eq!((report.scanned_bytes, report.latest_epoch), (0, -1));
    assert_eq!(append(&mut log, &batch(&["a", "b"])).base_offset, 0);
    let appended = append(&mut log, &batch(&["c"]));
    assert_eq!((appended.base_offset, appended.last_offset), (2, 2));
    assert_eq!((log.stable_offset(), log.end_offset()), (0, 3));
    assert_eq!(log.flush().expect("flushed"), 3);
    assert_eq!(log.stable_offset(), 3);
    assert_eq!(dump(&log.reader(), 0), "0=a 1=b 2=c");
}

#[test]
fn several_batches_are_appended_as_one() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    let bytes = [batch(&["a", "b"]), batch(&["c"]), batch(&["d"])].concat();
    let appended = append(&mut log, &bytes);
    assert_eq!((appended.base_offset, appended.last_offset), (0, 3));
    assert_eq!(dump(&log.reader(), 0), "0=a 1=b 2=c 3=d");
}

#[test]
fn bytes_stay_as_they_came_but_for_offset_and_epoch() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    log.lead(7);
    append(&mut log, &batch(&["first"]));
    let bytes = packed(kafka::compress::Compression::Zstd, NOW, &["a", "b", "c"]);
    append(&mut log, &bytes);
    let slice = log
        .reader()
        .read(1, 1000, true, i64::MAX)
        .expect("readable");
    assert_eq!(slice.bytes[..8], 1i64.to_be_bytes());
    assert_eq!(slice.bytes[12..16], 7i32.to_be_bytes());
    assert_eq!(slice.bytes[8..12], bytes[8..12]);
    assert_eq!(slice.bytes[16..], bytes[16..]);
}

#[test]
fn a_full_segment_is_followed_by_a_new_one() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 40);
    assert!(home.names(".log").len() > 2, "{:?}", home.names(".log"));
    assert_eq!(dump(&log.reader(), 0), numbers(0, 40));
    for name in home.names(".log") {
        let length = std::fs::metadata(home.dir.join(&name))
            .expect("there")
            .len();
        assert!(length <= 1000, "{name} {length}");
    }
}

#[test]
fn a_batch_larger_than_a_segment_has_one_for_itself() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append(&mut log, &batch(&["small"]));
    let large = "x".repeat(3000);
    append(&mut log, &batch(&[&large]));
    append(&mut log, &batch(&["small"]));
    assert_eq!(home.names(".log").len(), 3);
    assert_eq!(dump(&log.reader(), 0), format!("0=small 1={large} 2=small"));
}

#[test]
fn an_old_segment_is_closed_by_the_next_append() {
    let home = Home::new();
    let (mut log, _) = home.open(Config {
        segment_ms: 1000,
        ..Config::default()
    });
    append(&mut log, &batch_at(NOW, &["a"]));
    append(&mut log, &batch_at(NOW + 1000, &["b"]));
    assert_eq!(home.names(".log").len(), 1);
    append(&mut log, &batch_at(NOW + 1001, &["c"]));
    assert_eq!(home.names(".log").len(), 2);
}

#[test]
fn the_logs_own_clock_covers_all_records() {
    let home = Home::new();
    let config = Config {
        timestamps: TimestampType::LogAppendTime,
        ..Config::default()
    };
    let (mut log, _) = home.open(config);
    let appended = append(&mut log, &batch_at(5, &["a", "b"]));
    assert_eq!(appended.append_time, Some(NOW));
    let slice = log
        .reader()
        .read(0, 1000, true, i64::MAX)
        .expect("readable");
    let (batch, _) = Batch::split_first(&slice.bytes).expect("whole");
    batch.verify().expect("computed anew");
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.max_timestamp(), NOW);
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let home = Home::new();
    let (mut log, _) = home.open(Config {
        message_bytes_max: 200,
        ..Config::default()
    });
    let mut refused = |bytes: &[u8]| {
        let error = log.append(bytes, NOW, Origin::Client).expect_err("refused");
        assert_eq!(log.end_offset(), 0);
        error
    };
    assert!(matches!(refused(b""), AppendError::Invalid(_)));
    assert!(matches!(refused(b"nonsense"), AppendError::Invalid(_)));
    let error = refused(&batch(&[&"x".repeat(200)]));
    assert!(
        matches!(error, AppendError::TooLarge { max: 200, .. }),
        "{error}"
    );
    let two = [of_producer(1, 0, 0, &["a"]), of_producer(1, 0, 1, &["b"])].concat();
    assert!(matches!(refused(&two), AppendError::Invalid(_)));
}

#[test]
fn a_repeated_batch_gets_its_first_answer() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append(&mut log, &batch(&["other"]));
    let first = append(&mut log, &of_producer(9, 0, 0, &["a", "b"]));
    let again = append(&mut log, &of_producer(9, 0, 0, &["a", "b"]));
    assert!(!first.duplicate && again.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (1, 2));
    assert_eq!(log.end_offset(), 3);
    let gap = log.append(&of_producer(9, 0, 5, &["c"]), NOW, Origin::Client);
    assert!(matches!(gap, Err(AppendError::Producer(_))), "{gap:?}");
}

#[test]
fn producers_are_known_after_a_restart_of_any_kind() {
    for clean in [true, false] {
        let home = Home::new();
        let (mut log, _) = home.open(small());
        for sequence in 0..40 {
            append(&mut log, &of_producer(9, 2, sequence, &["x"]));
        }
        log.flush().expect("flushed");
        let before = log.producers().clone();
        if clean {
            log.close().expect("closed")
        } else {
            drop(log)
        }
        let (mut log, report) = home.open(small());
        assert_eq!(report.scanned_bytes == 0, clean);
        assert_eq!(log.producers(), &before);
        for sequence in 35..40 {
            let again = append(&mut log, &of_producer(9, 2, sequence, &["x"]));
            assert_eq!(
                (again.duplicate, again.base_offset),
                (true, i64::from(sequence))
            );
        }
        assert!(!append(&mut log, &of_producer(9, 2, 40, &["x"])).duplicate);
    }
}

#[test]
fn transactions_and_their_markers_are_stored() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append(&mut log, &of_producer(9, 0, 0, &["a"]));
    let marker = Marker::Commit.batch(9, 0, 1, NOW);
    log.append(&marker, NOW, Origin::Coordinator)
        .expect("appended");
    append(&mut log, &of_producer(9, 0, 1, &["b"]));
    drop(log);
    let (log, _) = home.open(small());
    assert_eq!(log.producers().get(9).expect("known").coordinator_epoch, 1);
    let slice = log
        .reader()
        .read(0, 1000, true, i64::MAX)
        .expect("readable");
    let control: Vec<bool> = batches(&slice.bytes)
        .map(|batch| batch.expect("whole").control())
        .collect();
    assert_eq!(control, [false, true, false]);
}

#[test]
fn leader_epochs_are_remembered_where_they_began() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    log.lead(0);
    append_numbers(&mut log, 0, 3);
    drop(log);

    let (mut log, report) = home.open(Config::default());
    assert_eq!(report.latest_epoch, 0);
    log.lead(report.latest_epoch + 1);
    append_numbers(&mut log, 3, 2);
    log.close().expect("closed");

    let (mut log, report) = home.open(Config::default());
    assert_eq!(report.latest_epoch, 1);
    log.lead(2);
    let reader = log.reader();
    assert_eq!(reader.epoch_end_offset(0), Some((0, 3)));
    assert_eq!(reader.epoch_end_offset(1), Some((1, 5)));
    assert_eq!(reader.epoch_end_offset(2), None);
    assert_eq!((reader.epoch_at(2), reader.epoch_at(3)), (Some(0), Some(1)));
    let text = std::fs::read_to_string(home.dir.join("leader-epoch-checkpoint")).expect("there");
    assert_eq!(text, "0\n2\n0 0\n1 3\n");
}

#[test]
fn a_folder_belongs_to_one_topic() {
    let home = Home::new();
    let open = |id: u8| Log::open(&home.dir, Some([id; 16]), Config::default(), NOW);
    open(1).expect("takes the id");
    open(1).expect("the same");
    assert!(matches!(open(2), Err(OpenError::OtherTopic { .. })));
    let known = journal::topic_id(&home.dir).expect("readable");
    assert_eq!(known, Some([1; 16]));
}
