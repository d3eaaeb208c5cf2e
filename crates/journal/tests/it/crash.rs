//! Kill and power loss: what was flushed is there, the rest whole or gone, damage never served.

use std::fs;
use std::path::PathBuf;

use journal::producer::{EndOfTransaction, Origin, Producers};
use journal::{Aborted, Config, Log, ReadError, Reader};
use kafka::record::{self, Batch, Marker};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::*;

fn config() -> Config {
    Config {
        segment_bytes: 2500,
        index_interval_bytes: 150,
        ..Config::default()
    }
}

#[test]
fn a_torn_tail_is_cut_at_any_byte() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 0, 3);
    let whole = log.reader().size();
    append_numbers(&mut log, 3, 1);
    drop(log);
    let path = home.dir.join("00000000000000000000.log");
    let bytes = fs::read(&path).expect("readable");
    for end in whole..bytes.len() as u64 {
        fs::write(&path, &bytes[..end as usize]).expect("written");
        let (log, report) = home.open(Config::default());
        assert_eq!(
            (log.end_offset(), report.torn_bytes),
            (3, end - whole),
            "{end}"
        );
        assert_eq!(fs::metadata(&path).expect("there").len(), whole);
    }
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 3, 2);
    assert_eq!(dump(&log.reader(), 0), numbers(0, 5));
}

#[test]
fn garbage_behind_the_last_batch_is_cut() {
    for garbage in [&[0u8; 5000][..], &[0xff; 300], b"x", &[2; 100]] {
        let home = Home::new();
        let (mut log, _) = home.open(Config::default());
        append_numbers(&mut log, 0, 3);
        drop(log);
        let path = home.dir.join("00000000000000000000.log");
        let bytes = [&fs::read(&path).expect("readable"), garbage].concat();
        fs::write(&path, bytes).expect("written");
        let (log, report) = home.open(Config::default());
        assert_eq!(report.torn_bytes, garbage.len() as u64);
        assert_eq!(dump(&log.reader(), 0), numbers(0, 3));
    }
}

#[test]
fn damage_in_the_middle_is_fenced_and_never_served() {
    // In the records, in the checksum, in the length, in the magic byte.
    for at in [65, 18, 11, 16] {
        let home = Home::new();
        let (mut log, _) = home.open(small());
        append_numbers(&mut log, 0, 10);
        drop(log);
        let path = home.dir.join("00000000000000000000.log");
        let mut bytes = fs::read(&path).expect("readable");
        let size = bytes.len() / 10;
        bytes[4 * size + at] ^= 0x55;
        fs::write(&path, bytes).expect("written");

        for _ in 0..3 {
            let (log, _) = home.open(small());
            let reader = log.reader();
            assert_eq!(log.end_offset(), 10);
            let before = reader.read(0, 10_000, true, i64::MAX).expect("readable");
            assert_eq!(before.next_offset, 4);
            let refused = reader.read(4, 10_000, true, i64::MAX);
            let Err(ReadError::Damaged { from: 4, to }) = refused else {
                panic!("{refused:?}")
            };
            assert!(to <= 6, "{at} {to}");
            assert_eq!(dump(&reader, to), numbers(to, 10));
            log.close().expect("closed");
        }
    }
}

#[test]
fn damage_at_the_end_of_a_closed_segment_is_fenced() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 20);
    drop(log);
    let logs = home.names(".log");
    let second: i64 = logs[1][..20].parse().expect("a number");
    // As if the folder had been copied from elsewhere, without our checkpoint.
    fs::remove_file(home.dir.join("checkpoint")).expect("removed");
    let path = home.dir.join(&logs[0]);
    let mut bytes = fs::read(&path).expect("readable");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs::write(&path, bytes).expect("written");
    let (log, report) = home.adopt(small());
    assert_eq!(report.damaged, [(second - 1, second)]);
    let refused = log.reader().read(second - 1, 100, true, i64::MAX);
    assert!(
        matches!(refused, Err(ReadError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(dump(&log.reader(), second), numbers(second, 20));
}

#[test]
fn lost_records_do_not_give_their_offsets_away() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 0, 10);
    log.close().expect("closed");
    let path = home.dir.join("00000000000000000000.log");
    let bytes = fs::read(&path).expect("readable");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    for _ in 0..2 {
        let (log, _) = home.open(Config::default());
        assert_eq!(log.end_offset(), 10);
        let before = log
            .reader()
            .read(0, 10_000, true, i64::MAX)
            .expect("readable");
        assert_eq!(before.next_offset, 5);
        let refused = log.reader().read(5, 100, true, i64::MAX);
        assert!(
            matches!(refused, Err(ReadError::Damaged { from: 5, to: 10 })),
            "{refused:?}"
        );
    }
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 10, 1);
    assert_eq!(dump(&log.reader(), 10), "10=10");
}

#[test]
fn a_lost_segment_does_not_give_its_offsets_away() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 20);
    log.close().expect("closed");
    let last = home.names(".log").pop().expect("there");
    let base: i64 = last[..20].parse().expect("a number");
    fs::remove_file(home.dir.join(last)).expect("removed");
    let (log, _) = home.open(small());
    assert_eq!(log.end_offset(), 20);
    let refused = log.reader().read(base, 100, true, i64::MAX);
    assert!(
        matches!(refused, Err(ReadError::Damaged { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_clean_close_leaves_nothing_to_read() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 25);
    log.close().expect("closed");
    let (mut log, report) = home.open(small());
    assert_eq!((report.scanned_bytes, report.torn_bytes), (0, 0));
    append_numbers(&mut log, 25, 1);
    drop(log);
    let (log, report) = home.open(small());
    // Only what came after the close is read again.
    assert!(
        report.scanned_bytes > 0 && report.scanned_bytes < 100,
        "{report:?}"
    );
    assert_eq!(dump(&log.reader(), 0), numbers(0, 26));
}

#[test]
fn only_the_active_segment_is_read_after_a_kill() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 100);
    drop(log);
    let (log, report) = home.open(small());
    assert!(report.scanned_bytes <= 1000, "{report:?}");
    assert_eq!(log.end_offset(), 100);
}

#[test]
fn a_batch_hidden_in_a_torn_record_is_not_found() {
    let home = Home::new();
    let (mut log, _) = home.open(Config::default());
    append_numbers(&mut log, 0, 1);
    let mut hidden = batch(&["hidden"]);
    record::place(&mut hidden, 1 << 40, 0).expect("a batch");
    let mut builder = record::BatchBuilder::default();
    let value = [hidden, vec![0; 500]].concat();
    builder.push(record::NewRecord {
        timestamp: NOW,
        value: Some(&value),
        ..record::NewRecord::default()
    });
    append(&mut log, &builder.build());
    drop(log);
    let path = home.dir.join("00000000000000000000.log");
    let bytes = fs::read(&path).expect("readable");
    fs::write(&path, &bytes[..bytes.len() - 100]).expect("written");
    let (log, _) = home.open(Config::default());
    assert_eq!(log.end_offset(), 1);
}

#[test]
fn rot_in_a_closed_segment_is_found_when_it_is_read_and_fenced_for_good() {
    let home = Home::new();
    let (mut log, _) = home.open(small());
    append_numbers(&mut log, 0, 40);
    log.close().expect("closed");
    let path = home.dir.join(&home.names(".log")[1]);
    let base: i64 = home.names(".log")[1][..20].parse().expect("a number");
    let mut bytes = fs::read(&path).expect("readable");
    let size = bytes.len() / 14; // batches of a record, almost alike in size
    bytes[3 * size + 66] ^= 4;
    fs::write(&path, bytes).expect("written");
    for round in 0..3 {
        let (log, report) = home.open(small());
        assert_eq!((report.scanned_bytes, report.damaged.len()), (0, 0));
        let reader = log.reader();
        let (mut next, mut lost) = (0, Vec::new());
        while next < 40 {
            match reader.read(next, 300, true, i64::MAX) {
                Ok(slice) => {
                    for batch in record::batches(&slice.bytes) {
                        batch
                            .expect("whole")
                            .verify()
                            .expect("never served damaged");
                    }
                    next = slice.next_offset;
                }
                Err(ReadError::Damaged { from, to }) => {
                    lost.push((from, to));
                    next = to;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(lost.len(), 1, "{round} {lost:?}");
        let (from, to) = lost[0];
        assert!(from > base && to == from + 1, "{lost:?}");
        assert_eq!(dump(&reader, to), numbers(to, 40));
        log.close().expect("closed");
    }
}

#[test]
fn an_offset_that_has_rotted_is_not_believed() {
    // The checksum does not cover the offset: in its low, middle and high bytes.
    for at in [7, 5, 1] {
        let home = Home::new();
        let (mut log, _) = home.open(small());
        append_numbers(&mut log, 0, 40);
        log.close().expect("closed");
        let path = home.dir.join(&home.names(".log")[0]);
        let mut bytes = fs::read(&path).expect("readable");
        let first = record::Header::parse(&bytes).expect("a batch").size();
        bytes[2 * first + at] ^= 0x40;
        fs::write(&path, bytes).expect("written");
        let (log, _) = home.open(small());
        let reader = log.reader();
        let before = reader.read(0, 10_000, true, i64::MAX).expect("readable");
        assert_eq!(before.next_offset, 2);
        let refused = reader.read(2, 10_000, true, i64::MAX);
        let Err(ReadError::Damaged { from: 2, to }) = refused else {
            panic!("{at} {refused:?}")
        };
        assert_eq!(dump(&reader, to), numbers(to, 40), "{at}");
        assert_eq!(to, 3);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Appends a batch of so many records, of this producer if it is not 0; 3 and 4 write in transactions.
    Append {
        records: usize,
        producer: i64,
    },
    /// Ends a transaction of this producer, if one is open or not.
    End {
        producer: i64,
        commit: bool,
    },
    Flush,
    Roll,
    Close,
    Crash(Crash),
}

/// What happens to the files that were not flushed.
#[derive(Debug, Clone)]
struct Crash {
    /// Where the newest segment is hit, between what was flushed and its end.
    at: Index,
    /// Bytes are cut off there, or one is changed.
    cut: bool,
    /// The same for its indexes, anywhere: they can be derived.
    index: Option<(Index, bool)>,
}

fn some_crash() -> impl Strategy<Value = Crash> {
    (
        any::<Index>(),
        any::<bool>(),
        proptest::option::of(any::<(Index, bool)>()),
    )
        .prop_map(|(at, cut, index)| Crash { at, cut, index })
}

fn some_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (1..6usize, 0..5i64).prop_map(|(records, producer)| Step::Append { records, producer }),
        4 => (3..5i64, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        3 => Just(Step::Flush),
        1 => Just(Step::Roll),
        1 => Just(Step::Close),
        2 => some_crash().prop_map(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

/// The log beside what it should hold.
struct Model {
    home: Home,
    log: Option<Log>,
    /// Values by offset, as far as they were ever appended and not lost.
    values: Vec<Option<String>>,
    /// Everything before it must survive.
    flushed: i64,
    /// Bytes of the newest segment that were flushed.
    flushed_size: u64,
    sequences: [i32; 5],
    written: usize,
}

impl Model {
    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("open")
    }

    fn newest(&self, extension: &str) -> PathBuf {
        self.home
            .dir
            .join(self.home.names(extension).pop().expect("there is one"))
    }

    fn size(&self, extension: &str) -> u64 {
        fs::metadata(self.newest(extension)).map_or(0, |metadata| metadata.len())
    }

    fn settle(&mut self) {
        self.flushed = self.log().end_offset();
        self.flushed_size = self.size(".log");
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Append { records, producer } => {
                let values: Vec<String> = (0..*records)
                    .map(|number| format!("{}.{number}", self.written))
                    .collect();
                self.written += 1;
                let slices: Vec<&str> = values.iter().map(String::as_str).collect();
                let bytes = match producer {
                    0 => batch(&slices),
                    id => {
                        let sequence = &mut self.sequences[*id as usize];
                        let bytes = match id {
                            1 | 2 => of_producer(*id, 0, *sequence, &slices),
                            _ => of_transaction(*id, 0, *sequence, &slices),
                        };
                        *sequence += *records as i32;
                        bytes
                    }
                };
                let segments = self.home.names(".log").len();
                let before = self.log().end_offset();
                let appended = self
                    .log()
                    .append(&bytes, NOW, Origin::Client)
                    .expect("appended");
                assert_eq!((appended.base_offset, appended.duplicate), (before, false));
                self.values.truncate(before as usize);
                self.values.resize(before as usize, None);
                self.values.extend(values.into_iter().map(Some));
                if self.home.names(".log").len() > segments {
                    self.flushed_size = 0;
                }
            }
            Step::End { producer, commit } => {
                let segments = self.home.names(".log").len();
                let before = self.log().end_offset();
                let marker = if *commit {
                    Marker::Commit
                } else {
                    Marker::Abort
                };
                end(self.log(), marker, *producer, 0);
                self.values.truncate(before as usize);
                self.values.resize(before as usize, None);
                self.values.push(Some(format!("{marker:?}")));
                if self.home.names(".log").len() > segments {
                    self.flushed = before;
                    self.flushed_size = 0;
                }
            }
            Step::Flush => {
                self.log().flush().expect("flushed");
                self.settle();
            }
            Step::Roll => {
                self.log().roll(NOW).expect("rolled");
                self.log().flush().expect("flushed");
                self.settle();
            }
            Step::Close => {
                self.log.take().expect("open").close().expect("closed");
                self.open();
            }
            Step::Crash(crash) => {
                self.log = None;
                self.damage(crash);
                self.open();
            }
        }
    }

    fn damage(&self, crash: &Crash) {
        hit(
            &self.newest(".log"),
            self.flushed_size,
            &crash.at,
            crash.cut,
        );
        if let Some((at, cut)) = &crash.index {
            hit(&self.newest(".index"), 0, at, *cut);
            hit(&self.newest(".timeindex"), 0, at, !*cut);
            // Nothing tells whether its bytes are right, but lost ones are noticed.
            let aborted = self.newest(".log").with_extension("txnindex");
            if aborted.exists() {
                hit(&aborted, 0, at, true);
            }
        }
    }

    fn open(&mut self) {
        let (log, _) = self.home.open(config());
        let end = log.end_offset();
        assert!(end >= self.flushed, "{end} {}", self.flushed);
        self.check(&log);
        assert_eq!(log.stable_offset(), end);
        // Producers go on from what the log still knows of them.
        for id in 1..5 {
            let known = log
                .producers()
                .get(id)
                .and_then(|producer| producer.batches.back());
            let next = known.map(|kept| record::add_sequence(kept.last_sequence, 1));
            self.sequences[id as usize] = next.unwrap_or(0);
        }
        self.values.truncate(end as usize);
        self.log = Some(log);
        self.settle();
    }

    fn check(&mut self, log: &Log) {
        let mut seen = Producers::default();
        let mut aborted = Vec::new();
        let lost = scan(&log.reader(), |batch| {
            let marker = EndOfTransaction::read(batch).filter(|_| batch.control());
            let ended = seen.apply(batch, batch.base_offset(), marker);
            if let Some(ended) = ended.filter(|ended| ended.aborted) {
                aborted.push(Aborted::from(ended));
            }
            let records = record::Records::read(batch, 10_000).expect("plain");
            for item in &records {
                let item = item.expect("readable");
                let value = match marker {
                    Some(end) => format!("{:?}", end.marker),
                    None => String::from_utf8_lossy(item.value.expect("a value")).into_owned(),
                };
                assert_eq!(self.values[item.offset as usize].as_ref(), Some(&value));
            }
        });
        for offset in lost {
            let Some(value) = self.values.get_mut(offset as usize) else {
                continue;
            };
            assert!(
                value.is_none() || offset >= self.flushed,
                "{offset} was flushed"
            );
            *value = None;
        }
        assert_eq!(log.producers(), &seen);
        let reader = log.reader();
        let told = reader.aborted(reader.start_offset(), i64::MAX);
        assert_eq!(told.expect("readable"), aborted);
        let open = seen.first_unstable_offset().unwrap_or(i64::MAX);
        assert_eq!(reader.undecided_from(), open);
    }
}

/// Cuts or changes a file at a place from `from` on.
fn hit(path: &std::path::Path, from: u64, at: &Index, cut: bool) {
    let mut bytes = fs::read(path).expect("readable");
    let room = bytes.len() - from as usize;
    if room == 0 {
        return;
    }
    let at = from as usize + at.index(room);
    if cut {
        bytes.truncate(at);
    } else {
        bytes[at] ^= 0xa5;
    }
    fs::write(path, bytes).expect("written");
}

/// Shows every batch that can be read and returns the offsets that cannot.
fn scan(reader: &Reader, mut show: impl FnMut(&Batch<'_>)) -> Vec<i64> {
    let mut next = reader.start_offset();
    let mut lost = Vec::new();
    while next < reader.end_offset() {
        match reader.read(next, 500, true, i64::MAX) {
            Ok(slice) => {
                for batch in record::batches(&slice.bytes) {
                    let batch = batch.expect("whole");
                    batch.verify().expect("good");
                    assert_eq!(batch.base_offset(), next);
                    next = batch.next_offset();
                    show(&batch);
                }
                assert!(
                    !slice.bytes.is_empty(),
                    "neither records nor an error at {next}"
                );
                assert_eq!(next, slice.next_offset);
            }
            Err(ReadError::Damaged { from, to }) => {
                assert!(from <= next && to > next);
                lost.extend(next..to);
                next = to;
            }
            Err(error) => panic!("{error}"),
        }
    }
    lost
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_unflushed_bytes(steps in some_steps(), last in some_crash()) {
        let home = Home::new();
        let (log, _) = home.open(config());
        let mut model = Model {
            home,
            log: Some(log),
            values: Vec::new(),
            flushed: 0,
            flushed_size: 0,
            sequences: [0; 5],
            written: 0,
        };
        for step in &steps {
            model.step(step);
        }
        model.step(&Step::Crash(last));
        let end = model.log().end_offset();
        model.step(&Step::Append { records: 2, producer: 0 });
        assert_eq!(model.log().end_offset(), end + 2);
    }
}
