//! Compaction: of each key the latest record stays, at its offset, whatever comes between.

use std::collections::BTreeMap;

use journal::clean::{CleanError, Cleaned, Limits};
use journal::producer::{EndOfTransaction, Origin, Producers};
use journal::{Compaction, Config, Log, ReadError, Reader};
use kafka::compress::Compression;
use kafka::record::{self, BatchBuilder, Marker, NewRecord, Producer, Records};
use proptest::prelude::*;

use crate::support::*;

const TOMBSTONE_MS: i64 = 1000;

fn compacted() -> Config {
    Config {
        segment_bytes: 1000,
        index_interval_bytes: 100,
        compaction: Some(Compaction {
            tombstone_ms: TOMBSTONE_MS,
            ..Compaction::default()
        }),
        ..Config::default()
    }
}

/// Values by key; `None` is a tombstone.
type Pairs = Vec<(u8, Option<u32>)>;

fn pairs(pairs: &Pairs, codec: Compression, producer: Option<(i64, i32)>, now: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    if let Some((id, base_sequence)) = producer {
        builder = builder.producer(Producer {
            id,
            epoch: 0,
            base_sequence,
        });
    }
    for (key, value) in pairs {
        let text = value.map(|value| format!("value {value}"));
        builder.push(NewRecord {
            timestamp: now,
            key: Some(&[*key]),
            value: text.as_ref().map(|text| text.as_bytes()),
            headers: &[],
        });
    }
    builder.build().to_vec()
}

/// Reads everything: offset, key and value.
#[track_caller]
fn everything(reader: &Reader) -> BTreeMap<i64, (u8, Option<String>)> {
    let mut found = BTreeMap::new();
    let mut next = reader.start_offset();
    while next < reader.end_offset() {
        let slice = reader.read(next, 400, true, i64::MAX).expect("readable");
        if slice.bytes.is_empty() {
            break;
        }
        for batch in record::batches(&slice.bytes) {
            let batch = batch.expect("whole");
            batch.verify().expect("a good checksum");
            assert!(batch.last_offset() >= next, "offsets only grow");
            next = batch.next_offset();
            if batch.control() {
                continue;
            }
            for record in &Records::read(&batch, 100_000).expect("inflates") {
                let record = record.expect("readable");
                let key = record.key.expect("a key")[0];
                let value = record
                    .value
                    .map(|value| String::from_utf8_lossy(value).into_owned());
                if record.offset >= reader.start_offset() {
                    found.insert(record.offset, (key, value));
                }
            }
        }
        assert_eq!(next, slice.next_offset);
    }
    found
}

fn clean(log: &Log, now: i64, limits: &Limits) -> Option<Cleaned> {
    let cleaning = log.cleaning(i64::MAX)?;
    let dirt = cleaning.dirt(now).expect("readable");
    let cleaned = cleaning.run(&dirt, now, limits, &mut |_| true);
    Some(cleaned.expect("cleaned"))
}

#[test]
fn the_latest_record_of_each_key_stays_at_its_offset() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..60 {
        append(
            &mut log,
            &pairs(
                &vec![(number as u8 % 4, Some(number))],
                Compression::None,
                None,
                NOW,
            ),
        );
    }
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
    let before = home.names(".log").len();
    let old = log.reader();
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    assert_eq!((dirt.from, dirt.to, dirt.clean_bytes), (0, 60, 0));
    assert!(dirt.due(cleaning.settings()));
    let cleaned = clean(&log, NOW, &Limits::default()).expect("compacted");
    assert_eq!((cleaned.to, cleaned.keys, cleaned.removed), (60, 4, 56));
    let mut expected: BTreeMap<_, _> = (56..60)
        .map(|number| {
            (
                i64::from(number),
                (number as u8 % 4, Some(format!("value {number}"))),
            )
        })
        .collect();
    assert_eq!(everything(&log.reader()), expected);
    assert_eq!(everything(&old), expected);
    // A fetch from a gap is answered with what comes after it.
    let slice = log.reader().read(3, 10_000, true, i64::MAX).expect("there");
    assert_eq!(slice.next_offset, 60);
    // What has become small becomes one with its neighbours in the next pass.
    let more = pairs(&vec![(9, Some(60))], Compression::None, None, NOW);
    append(&mut log, &more);
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
    assert_eq!(
        clean(&log, NOW, &Limits::default()).expect("again").removed,
        0
    );
    assert!(home.names(".log").len() < before);
    expected.insert(60, (9, Some("value 60".to_owned())));
    assert_eq!(everything(&old), expected);
    log.close().expect("closed");
    let (log, report) = home.open(compacted());
    assert_eq!((report.scanned_bytes, log.end_offset()), (0, 61));
    assert_eq!(everything(&log.reader()), expected);
    assert!(home.names(".cleaned").is_empty() && home.names(".swap").is_empty());
}

#[test]
fn a_log_without_its_checkpoint_may_have_gaps() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..60 {
        let batch = pairs(
            &vec![(number as u8 % 7, Some(number))],
            Compression::None,
            None,
            NOW,
        );
        append(&mut log, &batch);
    }
    log.flush().expect("flushed");
    clean(&log, NOW, &Limits::default()).expect("compacted");
    let expected = everything(&log.reader());
    drop(log);
    std::fs::remove_file(home.dir.join("checkpoint")).expect("there");
    let (log, report) = home.adopt(compacted());
    assert_eq!(
        (report.damaged.len(), report.torn_bytes),
        (0, 0),
        "{report:?}"
    );
    assert_eq!(everything(&log.reader()), expected);
}

#[test]
fn a_deleted_key_is_gone_after_a_while_and_the_end_can_still_be_read() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    append(
        &mut log,
        &pairs(&vec![(1, Some(1))], Compression::None, None, NOW),
    );
    append(
        &mut log,
        &pairs(&vec![(1, None)], Compression::None, None, NOW),
    );
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
    clean(&log, NOW, &Limits::default()).expect("compacted");
    assert_eq!(everything(&log.reader()), BTreeMap::from([(1, (1, None))]));
    // The next pass that is after the horizon takes it; the end of the log is where it was.
    append(
        &mut log,
        &pairs(&vec![(2, Some(1))], Compression::None, None, NOW),
    );
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
    clean(&log, NOW + TOMBSTONE_MS, &Limits::default()).expect("compacted");
    let left = BTreeMap::from([(2, (2, Some("value 1".to_owned())))]);
    assert_eq!(everything(&log.reader()), left);
    append(
        &mut log,
        &pairs(&vec![(2, None)], Compression::None, None, NOW),
    );
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
    for round in 2..5 {
        clean(&log, NOW + round * TOMBSTONE_MS, &Limits::default());
        let end = log
            .reader()
            .read(3, 1000, true, i64::MAX)
            .expect("no error");
        assert!(end.next_offset == 3 || end.next_offset == 4);
    }
}

#[test]
fn a_damaged_segment_is_left_alone() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..60 {
        let batch = pairs(
            &vec![(number as u8 % 4, Some(number))],
            Compression::None,
            None,
            NOW,
        );
        append(&mut log, &batch);
    }
    log.flush().expect("flushed");
    let path = home.dir.join(&home.names(".log")[1]);
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    let error = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| true);
    assert!(
        matches!(error, Err(CleanError::Damaged { .. })),
        "{error:?}"
    );
    let cleaned = clean(&log, NOW, &Limits::default()).expect("the others");
    assert!(cleaned.removed > 0);
    assert_eq!(std::fs::read(&path).expect("still there"), bytes);
}

#[test]
fn what_changes_meanwhile_ends_the_pass() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..60 {
        let batch = pairs(
            &vec![(number as u8 % 4, Some(number))],
            Compression::None,
            None,
            NOW,
        );
        append(&mut log, &batch);
    }
    log.flush().expect("flushed");
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    log.delete_before(30).expect("deleted");
    let error = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| true);
    assert!(matches!(error, Err(CleanError::Changed)), "{error:?}");
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let stopped = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| false);
    assert!(matches!(stopped, Err(CleanError::Stopped)), "{stopped:?}");
    assert!(home.names(".cleaned").is_empty());
    assert_eq!(everything(&log.reader()).len(), 30);
    // The folder of a topic that is no more may be another's.
    let (reader, cleaning) = (log.reader(), log.cleaning(i64::MAX).expect("compacted"));
    log.remove().expect("removed");
    let (_next, _) = home.open(compacted());
    let error = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| true);
    assert!(error.is_err(), "{error:?}");
    assert_eq!(home.names(".log").len(), 1);
    drop(reader);
}

/// A record of a transaction.
fn transactional(id: i64, base_sequence: i32, key: u8, value: Option<&str>) -> Vec<u8> {
    let mut builder = BatchBuilder::default()
        .producer(Producer {
            id,
            epoch: 0,
            base_sequence,
        })
        .transactional();
    builder.push(NewRecord {
        timestamp: NOW,
        key: Some(&[key]),
        value: value.map(str::as_bytes),
        headers: &[],
    });
    builder.build().to_vec()
}

#[track_caller]
fn close_segment(log: &mut Log) {
    log.roll(NOW).expect("rolled");
    log.flush().expect("flushed");
}

#[test]
fn what_a_transaction_deletes_stays_deleted_after_an_abort_that_was_compacted() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    append(
        &mut log,
        &pairs(&vec![(1, Some(1))], Compression::None, None, NOW),
    ); // 0
    append(&mut log, &transactional(7, 0, 2, Some("aborted"))); // 1
    end(&mut log, Marker::Abort, 7, 0); // 2
    close_segment(&mut log);
    clean(&log, NOW, &Limits::default()).expect("compacted");
    append(&mut log, &transactional(7, 1, 1, None)); // 3
    end(&mut log, Marker::Commit, 7, 0); // 4
    close_segment(&mut log);
    clean(&log, NOW, &Limits::default()).expect("compacted");
    assert_eq!(everything(&log.reader()), BTreeMap::from([(3, (1, None))]));
}

/// Changes a byte of the first batch of the segment with this number, and has compaction find it.
#[track_caller]
fn damage(home: &Home, log: &Log, number: usize) {
    let path = home.dir.join(&home.names(".log")[number]);
    let mut bytes = std::fs::read(&path).expect("readable");
    bytes[70] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    let error = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| true);
    assert!(
        matches!(error, Err(CleanError::Damaged { .. })),
        "{error:?}"
    );
}

#[test]
fn a_damaged_segment_with_the_marker_of_an_abort_costs_no_later_transaction() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    let filler = pairs(&vec![(9, Some(9))], Compression::None, None, NOW);
    append(&mut log, &transactional(7, 0, 2, Some("aborted"))); // 0
    log.roll(NOW).expect("rolled");
    append(&mut log, &filler); // 1
    end(&mut log, Marker::Abort, 7, 0); // 2
    log.roll(NOW).expect("rolled");
    append(&mut log, &transactional(7, 1, 3, Some("committed"))); // 3
    end(&mut log, Marker::Commit, 7, 0); // 4
    close_segment(&mut log);
    damage(&home, &log, 1);
    clean(&log, NOW, &Limits::default()).expect("the others");
    let slice = log.reader().read(3, 1000, true, i64::MAX).expect("there");
    let first = record::batches(&slice.bytes).next().expect("a batch");
    let first = first.expect("whole");
    assert_eq!((first.base_offset(), first.record_count()), (3, 1));
    assert!(!first.control());
}

#[test]
fn what_was_aborted_in_a_damaged_segment_stays_so() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    let filler = pairs(&vec![(9, Some(9))], Compression::None, None, NOW);
    append(&mut log, &filler); // 0
    append(&mut log, &transactional(7, 0, 2, Some("aborted"))); // 1
    log.roll(NOW).expect("rolled");
    append(&mut log, &filler); // 2
    end(&mut log, Marker::Abort, 7, 0); // 3
    append(&mut log, &filler); // 4
    close_segment(&mut log);
    damage(&home, &log, 0);
    for round in 0..3 {
        let now = NOW + 2 * round * TOMBSTONE_MS;
        clean(&log, now, &Limits::default()).expect("the others");
        let told = log.reader().aborted(0, 4).expect("readable");
        let told: Vec<_> = told
            .iter()
            .map(|one| (one.producer_id, one.first_offset, one.last_offset))
            .collect();
        assert_eq!(told, [(7, 1, 3)], "round {round}");
        let slice = log.reader().read(3, 1, true, i64::MAX).expect("there");
        assert_eq!(slice.next_offset, 4, "the marker is there");
        append(&mut log, &filler);
        close_segment(&mut log);
    }
}

#[test]
fn a_pass_over_a_deleted_topic_leaves_its_successor_alone() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..3 {
        append(
            &mut log,
            &pairs(&vec![(1, Some(number))], Compression::None, None, NOW),
        );
    }
    close_segment(&mut log);
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    let (mut log, mut known) = (Some(log), None);
    let result = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| {
        if let Some(log) = log.take() {
            log.remove().expect("removed");
            let (mut next, _) = home.open(compacted());
            append(&mut next, &batch(&["next"]));
            next.close().expect("closed");
            known = Some(contents(&home));
        }
        true
    });
    assert!(matches!(result, Err(CleanError::Changed)), "{result:?}");
    assert_eq!(contents(&home), known.expect("removed"));
}

#[test]
fn a_flush_of_a_deleted_topic_leaves_its_successor_alone() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    append_numbers(&mut log, 0, 3);
    log.roll(NOW).expect("rolled");
    let flush = log.begin_flush().expect("usable").expect("something to do");
    log.remove().expect("removed");
    let (next, _) = home.open(compacted());
    next.close().expect("closed");
    let known = contents(&home);
    flush.run().expect("nothing to do any more");
    assert_eq!(contents(&home), known);
}

/// All files of the folder.
fn contents(home: &Home) -> BTreeMap<String, Vec<u8>> {
    let names = home.names("").into_iter();
    names
        .map(|name| {
            let bytes = std::fs::read(home.dir.join(&name)).expect("readable");
            (name, bytes)
        })
        .collect()
}

#[test]
fn damage_that_is_found_during_a_pass_ends_it() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..3 {
        append(
            &mut log,
            &pairs(&vec![(1, Some(number))], Compression::None, None, NOW),
        );
    }
    close_segment(&mut log);
    log.close().expect("closed");
    let (log, _) = home.open(compacted());
    let path = home.dir.join(&home.names(".log")[0]);
    let cleaning = log.cleaning(i64::MAX).expect("compacted");
    let dirt = cleaning.dirt(NOW).expect("readable");
    let mut steps = 0;
    let result = cleaning.run(&dirt, NOW, &Limits::default(), &mut |_| {
        steps += 1;
        if steps == 3 {
            // Keys and records were read, the new segment is not in its place yet.
            let mut bytes = std::fs::read(&path).expect("readable");
            bytes[70] ^= 1;
            std::fs::write(&path, &bytes).expect("written");
            let read = log.reader().read(0, 1000, true, i64::MAX);
            assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
        }
        true
    });
    assert!(steps >= 3, "{steps}");
    assert!(matches!(result, Err(CleanError::Changed)), "{result:?}");
    assert!(home.names(".cleaned").is_empty());
}

#[test]
fn an_index_that_an_interrupted_compaction_left_is_not_taken() {
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..3 {
        append(
            &mut log,
            &pairs(&vec![(1, Some(number))], Compression::None, None, NOW),
        );
    }
    close_segment(&mut log);
    let stale = home.dir.join("00000000000000000000.txnindex.swap");
    std::fs::write(&stale, [7; 34]).expect("written");
    clean(&log, NOW, &Limits::default()).expect("compacted");
    assert!(home.names(".txnindex").is_empty());
    assert!(home.names(".swap").is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    Append {
        pairs: Pairs,
        codec: usize,
        producer: bool,
    },
    Roll,
    /// A pass with so much room for keys, after so much time.
    Clean {
        keys: usize,
        later_ms: i64,
    },
    DeleteBefore(proptest::sample::Index),
    Restart {
        clean: bool,
        checkpoint: bool,
    },
}

fn some_step() -> impl Strategy<Value = Step> {
    let pair = (0..6u8, proptest::option::weighted(0.8, 0..1000u32));
    prop_oneof![
        10 => (proptest::collection::vec(pair, 1..5), 0..5usize, any::<bool>())
            .prop_map(|(pairs, codec, producer)| Step::Append { pairs, codec, producer }),
        2 => Just(Step::Roll),
        3 => (prop_oneof![Just(1usize), Just(3), Just(1000)], 0..2 * TOMBSTONE_MS)
            .prop_map(|(keys, later_ms)| Step::Clean { keys, later_ms }),
        1 => any::<proptest::sample::Index>().prop_map(Step::DeleteBefore),
        1 => (any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(clean, checkpoint)| Step::Restart { clean, checkpoint }),
    ]
}

/// The log beside all that was ever written to it.
struct Model {
    home: Home,
    log: Option<Log>,
    written: Vec<(u8, Option<String>)>,
    sequence: i32,
    now: i64,
    /// The log is clean up to here.
    cleaned_to: i64,
    /// No pass has come farther.
    sparse_to: i64,
    /// The last pass had room for all keys.
    whole: bool,
}

impl Model {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("open")
    }

    fn step(&mut self, step: &Step) {
        self.now += 10;
        let now = self.now;
        match step {
            Step::Append {
                pairs: some,
                codec,
                producer,
            } => {
                let producer = producer.then_some((7, self.sequence));
                let bytes = pairs(some, Compression::ALL[*codec], producer, now);
                let appended = self
                    .log()
                    .append(&bytes, now, Origin::Client)
                    .expect("appended");
                assert_eq!(appended.base_offset, self.written.len() as i64);
                if producer.is_some() {
                    self.sequence += some.len() as i32;
                }
                let text = |value: u32| format!("value {value}");
                self.written
                    .extend(some.iter().map(|(key, value)| (*key, value.map(text))));
            }
            Step::Roll => {
                self.log().roll(now).expect("rolled");
                self.log().flush().expect("flushed");
            }
            Step::Clean { keys, later_ms } => {
                self.now += later_ms;
                self.log().flush().expect("flushed");
                let limits = Limits {
                    keys_bytes_max: keys * 24 * 2,
                    buffer_bytes: 200,
                    ..Limits::default()
                };
                let now = self.now;
                if let Some(cleaned) = clean(self.log(), now, &limits) {
                    assert!(cleaned.to >= self.cleaned_to.min(cleaned.from));
                    self.whole = *keys == 1000 && cleaned.to > self.cleaned_to;
                    self.cleaned_to = cleaned.to;
                    self.sparse_to = self.sparse_to.max(cleaned.to);
                }
            }
            Step::DeleteBefore(at) => {
                let end = self.log().end_offset();
                let offset = at.index(end as usize + 1) as i64;
                self.log().delete_before(offset / 2).expect("deleted");
            }
            Step::Restart { clean, checkpoint } => {
                let log = self.log.take().expect("open");
                match clean {
                    true => log.close().expect("closed"),
                    false => drop(log),
                }
                if !checkpoint && self.start_is_told_by_segments() {
                    _ = std::fs::remove_file(self.home.dir.join("checkpoint"));
                    self.cleaned_to = 0;
                }
                let (log, report) = match self.home.dir.join("checkpoint").exists() {
                    true => self.home.open(compacted()),
                    false => self.home.adopt(compacted()),
                };
                assert_eq!(report.damaged, []);
                self.log = Some(log);
            }
        }
        self.check();
    }

    /// Without DeleteRecords inside of a segment the checkpoint is not needed.
    fn start_is_told_by_segments(&self) -> bool {
        let text = std::fs::read_to_string(self.home.dir.join("checkpoint"));
        text.is_ok_and(|text| text.contains("start 0\n"))
    }

    fn check(&mut self) {
        let (whole, cleaned_to, now) = (self.whole, self.cleaned_to, self.now);
        let sparse_to = self.sparse_to;
        let log = self.log.as_ref().expect("open");
        assert_eq!(log.end_offset(), self.written.len() as i64);
        let (start, found) = (log.start_offset(), everything(&log.reader()));
        let mut latest = BTreeMap::new();
        for (offset, (key, value)) in (0..).zip(&self.written) {
            if offset >= start {
                latest.insert(*key, (offset, value));
            }
            match found.get(&offset) {
                Some(there) => assert_eq!(there, &(*key, value.clone()), "{offset}"),
                None => assert!(offset < start || offset < sparse_to, "{offset} is lost"),
            }
        }
        for (key, (offset, value)) in &latest {
            let there = found.contains_key(offset);
            assert!(there || value.is_none(), "key {key} is lost");
            // Its tombstone can only be gone after its time.
            assert!(there || now >= NOW + TOMBSTONE_MS, "tombstone of {key}");
        }
        if whole {
            let mut seen = std::collections::BTreeSet::new();
            for (offset, (key, _)) in found.range(..cleaned_to) {
                assert!(seen.insert(key), "{key} stands twice, again at {offset}");
            }
        }
        let mut producers = Producers::default();
        let mut next = start;
        while let Ok(slice) = log.reader().read(next, 10_000, true, i64::MAX) {
            if slice.bytes.is_empty() {
                break;
            }
            for batch in record::batches(&slice.bytes) {
                let batch = batch.expect("whole");
                producers.apply(&batch, batch.base_offset(), EndOfTransaction::read(&batch));
            }
            next = slice.next_offset;
        }
        if start == 0
            && let Some(known) = log.producers().get(7)
        {
            let last = |producer: &journal::producer::Producer| producer.batches.back().copied();
            let told = producers
                .get(7)
                .and_then(last)
                .map(|kept| kept.last_sequence);
            assert_eq!(told, last(known).map(|kept| kept.last_sequence));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_pass_ever_loses_the_latest_of_a_key(steps in proptest::collection::vec(some_step(), 1..60)) {
        let home = Home::new();
        let (log, _) = home.open(compacted());
        let mut model = Model {
            home,
            log: Some(log),
            written: Vec::new(),
            sequence: 0,
            now: NOW,
            cleaned_to: 0,
            sparse_to: 0,
            whole: false,
        };
        for step in &steps {
            model.step(step);
        }
    }
}

#[test]
fn readers_go_on_while_the_log_is_compacted() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let home = Home::new();
    let (mut log, _) = home.open(compacted());
    for number in 0..400u32 {
        let batch = pairs(
            &vec![((number % 50) as u8, Some(number))],
            Compression::None,
            None,
            NOW,
        );
        append(&mut log, &batch);
    }
    log.flush().expect("flushed");
    let done = AtomicBool::new(false);
    let end = log.end_offset();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, done) = (log.reader(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let found = everything(&reader);
                    let mut keys: Vec<u8> = found.values().map(|(key, _)| *key).collect();
                    keys.sort_unstable();
                    keys.dedup();
                    assert_eq!(keys.len(), 50, "every key has a record at any time");
                    let at = reader.offset_for_timestamp(NOW, i64::MAX);
                    assert!(matches!(at, Ok(Some(_))), "{at:?}");
                    for offset in [0, 100, 399] {
                        let read = reader.read(offset, 100, true, i64::MAX);
                        assert!(!matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
                    }
                }
            });
        }
        for round in 0..30u32 {
            clean(&log, NOW, &Limits::default());
            for number in 0..40 {
                let key = ((number + round * 7) % 50) as u8;
                append(
                    &mut log,
                    &pairs(&vec![(key, Some(round))], Compression::None, None, NOW),
                );
            }
            log.flush().expect("flushed");
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(log.end_offset(), end + 30 * 40);
    assert!(home.names(".log").len() < 20);
}
