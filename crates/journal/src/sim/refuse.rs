//! A disk that refuses a single operation, at every place.

use std::collections::BTreeMap;

use kafka::record::{self, BatchBuilder, Marker, NewRecord, Producer, Records};
use tempfile::TempDir;

use super::{record, record_broken};
use crate::clean::Limits;
use crate::producer::Origin;
use crate::{Compaction, Config, Log};

const NOW: i64 = 1_700_000_000_000;
/// No run has so many operations.
const OPERATIONS_MAX: usize = 10_000;

fn open(home: &TempDir) -> Log {
    let config = Config {
        segment_bytes: 700,
        compaction: Some(Compaction::default()),
        ..Config::default()
    };
    let (log, report) = Log::open(&home.path().join("t-0"), None, config, NOW).expect("opens");
    assert_eq!(report.damaged, []);
    log
}

fn put(log: &mut Log, key: u8, value: &str) {
    let mut builder = BatchBuilder::default();
    builder.push(NewRecord {
        timestamp: NOW,
        key: Some(&[key]),
        value: Some(value.as_bytes()),
        headers: &[],
    });
    log.append(&builder.build(), NOW, Origin::Client)
        .expect("appended");
}

fn transaction(sequence: i32) -> Vec<u8> {
    let producer = Producer {
        id: 7,
        epoch: 0,
        base_sequence: sequence,
    };
    let mut builder = BatchBuilder::default().producer(producer).transactional();
    builder.push(NewRecord {
        timestamp: NOW,
        key: Some(b"t"),
        value: Some(b"t"),
        headers: &[],
    });
    builder.build().to_vec()
}

fn latest(log: &Log) -> BTreeMap<u8, String> {
    let (reader, mut found, mut next) = (log.reader(), BTreeMap::new(), log.start_offset());
    while next < reader.end_offset() {
        let slice = reader.read(next, 500, true, i64::MAX).expect("readable");
        for batch in record::batches(&slice.bytes) {
            let batch = batch.expect("whole");
            for record in &Records::read(&batch, 10_000).expect("plain") {
                let record = record.expect("readable");
                let value = String::from_utf8_lossy(record.value.expect("a value"));
                found.insert(record.key.expect("a key")[0], value.into_owned());
            }
        }
        next = slice.next_offset;
    }
    found
}

fn clean(log: &Log) -> bool {
    let Some(cleaning) = log.cleaning(i64::MAX) else {
        return false;
    };
    let dirt = cleaning.dirt(NOW).expect("readable");
    let cleaned = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| true);
    cleaned.is_ok()
}

#[test]
fn a_compaction_that_the_disk_refuses_leaves_nothing_that_a_later_start_obeys() {
    let mut withdrawn = 0;
    for failing in 0..OPERATIONS_MAX {
        let home = tempfile::tempdir().expect("a folder");
        let mut log = open(&home);
        for number in 0..30 {
            put(&mut log, number % 4, &format!("old {number}"));
        }
        log.roll(NOW).expect("rolled");
        log.flush().expect("flushed");
        let (done, trace) = record_broken(failing..failing + 1, || clean(&log));
        if failing > trace.len() {
            assert!(done && withdrawn > 0, "some compactions were refused");
            return;
        }
        let pending = super::listing(log.dir());
        let mut pending = pending.iter().filter(|(name, _)| name.ends_with(".swap"));
        let unfinished = log.shared().shape().unfinished;
        assert!(
            unfinished || pending.next().is_none(),
            "{failing} {}",
            trace.tell(trace.len())
        );
        withdrawn += usize::from(!done && !unfinished);
        for number in 0..30 {
            put(&mut log, number % 4, &format!("new {number}"));
        }
        log.roll(NOW).expect("rolled");
        log.flush().expect("flushed");
        let again = clean(&log);
        assert_eq!(again, !unfinished, "{failing}");
        // The recovery point has moved on, whatever became of the compaction.
        let point = log.shared().shape().checkpoint.recovery;
        assert_eq!(point.map(|point| point.segment), Some(60), "{failing}");
        let before = latest(&log);
        assert_eq!(before[&3], "new 27");
        drop(log);
        assert_eq!(latest(&open(&home)), before, "{failing}");
    }
    panic!("there is no end to it");
}

#[test]
fn a_marker_that_could_not_be_written_has_aborted_nothing() {
    for failing in 0..OPERATIONS_MAX {
        let home = tempfile::tempdir().expect("a folder");
        let mut log = open(&home);
        log.append(&transaction(0), NOW, Origin::Client)
            .expect("appended");
        let abort = Marker::Abort.batch(7, 0, 0, NOW);
        let (aborted, trace) = record(failing..failing + 1, || {
            log.append(&abort, NOW, Origin::Coordinator)
        });
        if aborted.is_ok() {
            assert!(
                failing >= trace.len() && failing > 0,
                "some markers were refused"
            );
            return;
        }
        // It commits after all, at the offset that the other marker would have had.
        let commit = Marker::Commit.batch(7, 0, 0, NOW);
        let end = log
            .append(&commit, NOW, Origin::Coordinator)
            .expect("appended");
        assert_eq!(end.base_offset, 1);
        let told = log.reader().aborted(0, 2).expect("readable");
        assert_eq!(told, [], "{failing}");
    }
    panic!("there is no end to it");
}
