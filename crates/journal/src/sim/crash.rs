//! Power failures and full disks at every operation, against a model of what must be left.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use kafka::record::{self, BatchBuilder, NewRecord, Producer, Records};
use tempfile::TempDir;

use super::{Chance, Trace, count, record};
use crate::clean::Limits;
use crate::producer::Origin;
use crate::{AppendError, Compaction, Config, Flush, Log, ReadError, Report};

pub(super) const NOW: i64 = 1_700_000_000_000;
pub(super) const PRODUCER: i64 = 7;
/// Runs, and power failures in each; `NUNCIO_CRASH_RUNS` does more.
const RUNS: usize = 40;
const FAILURES: usize = 25;

pub(super) fn config(compact: bool) -> Config {
    Config {
        segment_bytes: 700,
        index_interval_bytes: 100,
        compaction: compact.then(Compaction::default),
        ..Config::default()
    }
}

/// A folder in memory, where the system has one: it is the simulation that loses what was not synced.
pub(super) fn folder() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
    .expect("a folder")
}

/// A record that was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) key: u8,
    pub(super) value: String,
    /// Sequence number, if the producer wrote it.
    pub(super) sequence: Option<i32>,
}

/// What must hold after a power failure from here on.
#[derive(Debug, Clone, Default)]
struct Promise {
    /// Operations that had been done.
    ops: usize,
    /// All before it was said to be on disk.
    stable: i64,
    /// All before it was said to be deleted.
    start: i64,
}

/// A log, driven by chance, and all that was ever written to it.
pub(super) struct Run {
    home: TempDir,
    compact: bool,
    pub(super) log: Option<Log>,
    pub(super) flush: Option<Flush>,
    pub(super) written: Vec<Written>,
    sequence: i32,
    promises: Vec<Promise>,
    /// Where the log was asked to begin.
    asked_start: i64,
    refusals: usize,
}

impl Run {
    fn new(compact: bool) -> Run {
        let home = folder();
        let (log, _) = Log::open(&home.path().join("t-0"), None, config(compact), NOW)
            .expect("an empty folder opens");
        Run {
            home,
            compact,
            log: Some(log),
            flush: None,
            written: Vec::new(),
            sequence: 0,
            promises: Vec::new(),
            asked_start: 0,
            refusals: 0,
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.home.path().join("t-0")
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("open")
    }

    fn promise(&mut self) {
        let log = self.log.as_ref().expect("open");
        self.promises.push(Promise {
            ops: count(),
            stable: log.stable_offset(),
            start: log.start_offset(),
        });
    }

    /// Does something; what a full disk refuses is counted.
    fn step(&mut self, chance: &mut Chance) {
        match chance.below(24) {
            0..=11 => self.append(chance),
            12..=14 if self.flush.is_none() => {
                let done = self.log().flush().map(|_| ());
                self.refused(done);
            }
            15 | 16 => match self.flush.take() {
                None => match self.log().begin_flush() {
                    Ok(flush) => self.flush = flush,
                    Err(error) => self.refused(Err(error)),
                },
                Some(flush) => {
                    let outcome = flush.run();
                    let done = self.log().end_flush(&flush, outcome).map(|_| ());
                    self.refused(done);
                }
            },
            17 | 18 => {
                let done = self.log().roll(NOW);
                self.refused(done);
            }
            19 | 20 if self.compact => self.clean(),
            21 => {
                let end = self.log().stable_offset();
                let at = chance.below(end as usize / 2 + 1) as i64;
                if self.log().delete_before(at).is_err() {
                    self.refusals += 1;
                }
                self.asked_start = self.asked_start.max(at);
            }
            22 => self.reopen(),
            _ => {}
        }
        self.promise();
    }

    fn append(&mut self, chance: &mut Chance) {
        let numbered = chance.one_in(2);
        let mut builder = BatchBuilder::default();
        if numbered {
            builder = builder.producer(Producer {
                id: PRODUCER,
                epoch: 0,
                base_sequence: self.sequence,
            });
        }
        let mut written = Vec::new();
        for number in 0..1 + chance.below(3) {
            let key = chance.below(5) as u8;
            let value = format!(
                "{} {}",
                self.written.len() + number,
                "x".repeat(chance.below(90))
            );
            builder.push(NewRecord {
                timestamp: NOW,
                key: Some(&[key]),
                value: Some(value.as_bytes()),
                headers: &[],
            });
            written.push(Written {
                key,
                value,
                sequence: numbered.then_some(self.sequence + number as i32),
            });
        }
        let bytes = builder.build();
        match self.log().append(&bytes, NOW, Origin::Client) {
            Ok(appended) => {
                assert_eq!(appended.base_offset, self.written.len() as i64);
                self.sequence += if numbered { written.len() as i32 } else { 0 };
                self.written.extend(written);
            }
            Err(error) => self.refused(Err(error)),
        }
    }

    fn clean(&mut self) {
        let Some(cleaning) = self.log().cleaning(i64::MAX) else {
            return;
        };
        let Ok(dirt) = cleaning.dirt(NOW) else {
            self.refusals += 1;
            return;
        };
        let limits = Limits {
            buffer_bytes: 300,
            ..Limits::default()
        };
        if cleaning.run(&dirt, NOW, &limits, &mut |_| true).is_err() {
            self.refusals += 1;
        }
    }

    /// Closes the log as far as it lets us, and opens it again.
    fn reopen(&mut self) {
        self.flush = None;
        let log = self.log.take().expect("open");
        if log.close().is_err() {
            self.refusals += 1;
        }
        let opened = loop {
            match Log::open(&self.dir(), None, config(self.compact), NOW) {
                Ok(opened) => break opened,
                Err(_) => self.refusals += 1,
            }
            assert!(self.refusals < 1000, "it opens when the disk lets it");
        };
        let (log, report) = opened;
        assert_eq!(report.damaged, []);
        assert_eq!(log.end_offset(), self.written.len() as i64);
        self.log = Some(log);
    }

    /// Counts a refusal, and takes the log into use again if it gave up.
    fn refused(&mut self, done: Result<(), AppendError>) {
        if done.is_ok() {
            return;
        }
        self.refusals += 1;
        if self.log().failed() {
            self.flush = None;
            while let Err(error) = self.log().heal() {
                self.refusals += 1;
                assert!(
                    self.refusals < 1000,
                    "it heals when the disk lets it: {error}"
                );
            }
        }
    }

    /// Checks a log that was opened on what a power failure left.
    fn check(&self, promise: &Promise, log: &Log, report: &Report) {
        // Parts of what was never flushed may be there without what came before: that is told as damage.
        let lost = |offset: i64| {
            let mut ranges = report.damaged.iter();
            ranges.any(|(from, to)| (*from..*to).contains(&offset))
        };
        let first = report.damaged.iter().map(|(from, _)| *from).min();
        assert!(
            first.is_none_or(|first| first >= promise.stable),
            "{report:?}"
        );
        let end = log.end_offset();
        assert!(end >= promise.stable, "{end} {}", promise.stable);
        assert!(
            log.start_offset() >= promise.start,
            "deleted records are back"
        );
        assert!(log.start_offset() <= self.asked_start.max(promise.start));
        let found = read(log);
        for (offset, (key, value)) in &found {
            let written = &self.written[*offset as usize];
            assert_eq!((*key, value), (written.key, &written.value), "{offset}");
        }
        let start = log.start_offset();
        let mut latest = BTreeMap::new();
        for offset in start..end {
            let there = found.contains_key(&offset);
            match self.compact {
                _ if lost(offset) => assert!(!there, "{offset} was told to be lost"),
                false => assert!(there, "{offset} is lost"),
                true => _ = latest.insert(self.written[offset as usize].key, offset),
            }
        }
        for (key, offset) in latest {
            assert!(found.contains_key(&offset), "the latest of {key} is lost");
        }
        let all = self.written[..end as usize].iter();
        let last = all.filter_map(|written| written.sequence).next_back();
        let known = log.producers().get(PRODUCER);
        let known = known.and_then(|known| known.batches.back());
        // Records of a producer may all be deleted, and it with them.
        if report.damaged.is_empty() && (start == 0 || known.is_some()) {
            assert_eq!(known.map(|kept| kept.last_sequence), last);
        }
    }
}

/// Reads a log to its end.
fn read(log: &Log) -> BTreeMap<i64, (u8, String)> {
    let (reader, mut found) = (log.reader(), BTreeMap::new());
    let mut next = reader.start_offset();
    while next < reader.end_offset() {
        let slice = match reader.read(next, 500, true, i64::MAX) {
            Err(ReadError::Damaged { to, .. }) => {
                next = to;
                continue;
            }
            read => read.expect("readable"),
        };
        if slice.bytes.is_empty() {
            break;
        }
        for batch in record::batches(&slice.bytes) {
            let batch = batch.expect("whole");
            batch.verify().expect("a good checksum");
            for record in &Records::read(&batch, 10_000).expect("plain") {
                let record = record.expect("readable");
                let value = String::from_utf8_lossy(record.value.expect("a value"));
                if record.offset >= reader.start_offset() {
                    found.insert(record.offset, (record.key.expect("a key")[0], value.into()));
                }
            }
        }
        next = slice.next_offset;
    }
    found
}

pub(super) fn drive(seed: u64, compact: bool, failing: std::ops::Range<usize>) -> (Run, Trace) {
    record(failing, || {
        let mut chance = Chance(seed);
        let mut run = Run::new(compact);
        run.promise();
        for _ in 0..20 + chance.below(40) {
            run.step(&mut chance);
        }
        run
    })
}

fn fail_power(seed: u64, compact: bool, failures: usize) {
    let (run, trace) = drive(seed, compact, 0..0);
    let mut chance = Chance(!seed);
    for failure in 0..failures {
        let ops = chance.below(trace.len() + 1);
        let told = format!("seed {seed}, compact {compact}, failure {failure} after {ops}");
        let promise = run.promises.iter().rev().find(|one| one.ops <= ops);
        let promise = promise.cloned().unwrap_or_default();
        let folder = folder();
        let dir = folder.path().join("t-0");
        std::fs::create_dir_all(&dir).expect("made");
        trace.after(ops, &dir, &mut chance);
        let told = format!(
            "{told}\n{}{promise:?} {:?}",
            trace.tell(ops),
            super::listing(&dir)
        );
        let guard = Tell(&told);
        let (mut log, report) =
            Log::open(&dir, None, config(compact), NOW).expect("what is left opens");
        run.check(&promise, &log, &report);
        // It goes on, and a clean stop leaves nothing to read.
        let before = (read(&log), log.end_offset());
        let mut builder = BatchBuilder::default();
        builder.push(NewRecord {
            timestamp: NOW,
            key: Some(&[9]),
            value: Some(b"next"),
            headers: &[],
        });
        let bytes = builder.build();
        let next = log.append(&bytes, NOW, Origin::Client).expect("appended");
        assert_eq!(next.base_offset, before.1);
        log.close().expect("closed");
        let (log, report) = Log::open(&dir, None, config(compact), NOW).expect("opens");
        assert_eq!((report.scanned_bytes, report.torn_bytes), (0, 0));
        let mut after = read(&log);
        after.remove(&before.1);
        assert_eq!(after, before.0);
        drop(guard);
    }
}

/// Says where a failure happened.
pub(super) struct Tell<'a>(pub(super) &'a str);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

fn runs() -> usize {
    let asked = std::env::var("NUNCIO_CRASH_RUNS").ok();
    asked.and_then(|runs| runs.parse().ok()).unwrap_or(RUNS)
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_fails() {
    for seed in 0..runs() as u64 {
        fail_power(seed, false, FAILURES);
    }
}

#[test]
fn compaction_loses_no_key_when_the_power_fails() {
    for seed in 0..runs() as u64 {
        fail_power(1_000_000 + seed, true, FAILURES);
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() -> io::Result<()> {
    let mut refusals = 0;
    for seed in 0..runs() as u64 {
        let compact = seed % 2 == 0;
        let mut chance = Chance(seed ^ 0x5a5a);
        for _ in 0..6 {
            let from = 5 + chance.below(250);
            let failing = from..from + 1 + chance.below(6);
            let told = format!("seed {seed}, failing {failing:?}");
            let _guard = Tell(&told);
            let (mut run, trace) = drive(seed, compact, failing);
            let told = format!("{told}\n{}", trace.tell(trace.len()));
            let _guard = Tell(&told);
            run.reopen();
            let log = run.log.as_ref().expect("open");
            let promise = Promise {
                ops: 0,
                stable: run.written.len() as i64,
                start: log.start_offset(),
            };
            run.check(&promise, log, &Report::default());
            refusals += run.refusals;
        }
    }
    assert!(
        refusals > runs(),
        "the disk was full now and then: {refusals}"
    );
    Ok(())
}
