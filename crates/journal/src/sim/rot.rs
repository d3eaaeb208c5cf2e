//! Bit rot: what lies on the disk for long comes back otherwise, and nobody has written it.
//!
//! Bits change, blocks become zero, files end too early. Whatever is hit, a record that is served is the one that was
//! written. What is lost is said to be. What can be derived from the records is derived anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kafka::record::{self, BatchBuilder, NewRecord, Records};

use super::Chance;
use super::crash::{NOW, PRODUCER, Run, Tell, Written, config, drive, folder};
use crate::producer::Origin;
use crate::{Log, ReadError};

/// Runs, and kinds of damage to each; `NUNCIO_ROT_RUNS` does more.
const RUNS: usize = 60;
const DAMAGES: usize = 12;
/// Bytes that a disk loses as a whole.
const BLOCK: usize = 64;

/// What was read of a log.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    found: BTreeMap<i64, (u8, String)>,
    lost: Vec<(i64, i64)>,
}

impl Seen {
    /// Reads a log from its start to its end.
    fn of(log: &Log) -> Seen {
        let (reader, mut seen) = (log.reader(), Seen::default());
        let mut next = reader.start_offset();
        while next < reader.end_offset() {
            let slice = match reader.read(next, 500, true, i64::MAX) {
                Err(ReadError::Damaged { from, to }) => {
                    assert!(to > next, "a reader comes on: {from} {to} at {next}");
                    seen.lost.push((next, to));
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
                    if record.offset >= next {
                        let record = (record.offset, (record.key.expect("a key")[0], value.into()));
                        seen.found.insert(record.0, record.1);
                    }
                }
            }
            assert!(slice.next_offset > next, "a reader comes on at {next}");
            next = slice.next_offset;
        }
        seen
    }

    fn lost(&self, offset: i64) -> bool {
        let mut ranges = self.lost.iter();
        ranges.any(|(from, to)| (*from..*to).contains(&offset))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// Returns files with these endings, in order, that have something to lose.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = super::listing(dir)
        .into_iter()
        .filter(|(name, size)| *size > 0 && endings.iter().any(|ending| name.ends_with(ending)))
        .map(|(name, _)| dir.join(name))
        .collect();
    files.sort();
    files
}

/// Changes a file as a disk might, and tells how.
fn rot(path: &Path, chance: &mut Chance) -> String {
    let mut bytes = fs::read(path).expect("readable");
    let at = chance.below(bytes.len());
    let what = match chance.below(6) {
        0..=2 => {
            let bit = chance.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
        3 => {
            let end = bytes.len().min(at + 1 + chance.below(BLOCK));
            bytes[at..end].fill_with(|| chance.below(256) as u8);
            format!("bytes {at} to {end}")
        }
        4 => {
            let from = at / BLOCK * BLOCK;
            let end = bytes.len().min(from + BLOCK);
            bytes[from..end].fill(0);
            format!("zeros {from} to {end}")
        }
        _ => {
            // A segment that is empty is one of which compaction has left nothing.
            let at = at.max(1);
            bytes.truncate(at);
            format!("cut at {at}")
        }
    };
    fs::write(path, bytes).expect("written");
    format!("{} {what}", path.display())
}

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    /// What follows from the records.
    Derived,
    /// The records themselves.
    Records,
    /// What is known of the log as a whole.
    Checkpoint,
    /// Anything, several times.
    All,
}

impl Hit {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Hit::Derived => &[".index", ".timeindex", ".snapshot"],
            Hit::Records => &[".log"],
            Hit::Checkpoint => &["checkpoint"],
            Hit::All => &[
                ".log",
                ".index",
                ".timeindex",
                ".snapshot",
                ".txnindex",
                "checkpoint",
            ],
        }
    }
}

fn check(run: &Run, log: &Log, seen: &Seen, hit: Hit, (closed, compact): (bool, bool), sure: bool) {
    for (offset, (key, value)) in &seen.found {
        let is = |written: &Written| (*key, value) == (written.key, &written.value);
        // No checksum covers the offset. Where compaction has left gaps, one that has changed within them may be believed.
        let gaps = compact && matches!(hit, Hit::Records | Hit::All);
        let as_written = match gaps {
            false => is(&run.written[*offset as usize]),
            true => run.written.iter().any(is),
        };
        assert!(as_written, "{offset}");
    }
    let end = run.written.len() as i64;
    assert!(log.end_offset() <= end || hit == Hit::All);
    // A damaged end looks like a write that was never finished, unless it is known to have been.
    let known = closed && matches!(hit, Hit::Derived | Hit::Records);
    if known {
        assert_eq!(log.end_offset(), end);
    }
    // Without a checkpoint any record may have been compacted away.
    let mut latest = BTreeMap::new();
    for offset in log.start_offset()..log.end_offset().min(end) {
        let there = seen.found.contains_key(&offset);
        match compact {
            _ if !sure => (),
            false => assert!(there || seen.lost(offset), "{offset} is silently lost"),
            true => _ = latest.insert(run.written[offset as usize].key, offset),
        }
    }
    for (key, offset) in latest {
        let there = seen.found.contains_key(&offset) || seen.lost(offset);
        assert!(there, "the latest of {key}, {offset}, is silently lost");
    }
    if hit == Hit::Derived {
        assert_eq!(seen.lost, [], "nothing of the records is damaged");
        let mut all = run.written.iter().filter_map(|written| written.sequence);
        let known = log.producers().get(PRODUCER);
        let known = known.and_then(|known| known.batches.back());
        if known.is_some() || log.start_offset() == 0 && !compact {
            assert_eq!(known.map(|kept| kept.last_sequence), all.next_back());
        }
    }
}

fn spoil(seed: u64, compact: bool) {
    let (mut run, _) = drive(seed, compact, 0..0);
    let mut chance = Chance(seed ^ 0x00c0_ffee);
    let closed = chance.one_in(2);
    run.flush = None;
    let mut log = run.log.take().expect("open");
    log.flush().expect("flushed");
    match closed {
        true => log.close().expect("closed"),
        false => drop(log),
    }
    for damage in 0..DAMAGES {
        let hit = [Hit::Derived, Hit::Records, Hit::Checkpoint, Hit::All][damage % 4];
        let folder = folder();
        let dir = folder.path().join("t-0");
        copy(&run.dir(), &dir);
        let mut sure = true;
        let mut told = format!("seed {seed}, compact {compact}, closed {closed}, {hit:?}");
        for _ in 0..1 + chance.below(if hit == Hit::All { 6 } else { 2 }) {
            let mut files = files(&dir, hit.endings());
            if hit == Hit::Records && !closed {
                files.pop(); // what is hit there looks like an unfinished write
            }
            if !files.is_empty() {
                let path = &files[chance.below(files.len())];
                sure &= hit != Hit::All || !path.ends_with("checkpoint");
                told += &format!("\n{}", rot(path, &mut chance));
            }
        }
        let told = format!("{told}\n{:?}", super::listing(&dir));
        let guard = Tell(&told);
        for round in 0..2 {
            let (mut log, _) = Log::open(&dir, None, config(compact), NOW).expect("it opens");
            let seen = Seen::of(&log);
            let told = format!("{:?} {:?}", log.start_offset()..log.end_offset(), seen.lost);
            let told = format!("{told} {:?}", seen.found.keys());
            let _seen = Tell(&told);
            check(&run, &log, &seen, hit, (closed, compact), sure);
            let reader = log.reader();
            for time in [0, NOW, NOW + 1, i64::MAX] {
                // It may say that something is damaged.
                _ = reader.offset_for_timestamp(time, i64::MAX);
            }
            _ = reader.latest_by_timestamp();
            _ = reader.aborted(0, i64::MAX);
            assert_eq!(Seen::of(&log).found, seen.found, "as before");
            if round == 0 {
                continue;
            }
            // Life goes on behind the damage.
            let next = log.end_offset();
            let mut builder = BatchBuilder::default();
            builder.push(NewRecord {
                timestamp: NOW,
                key: Some(&[9]),
                value: Some(b"next"),
                headers: &[],
            });
            let appended = log.append(&builder.build(), NOW, Origin::Client);
            assert_eq!(appended.expect("appended").base_offset, next);
            let slice = log.reader().read(next, 500, true, i64::MAX);
            assert_eq!(slice.expect("served").next_offset, next + 1);
            log.close().expect("closed");
        }
        drop(guard);
    }
}

fn runs() -> u64 {
    let asked = std::env::var("NUNCIO_ROT_RUNS").ok();
    let asked = asked.and_then(|runs| runs.parse().ok());
    asked.unwrap_or(RUNS as u64)
}

#[test]
fn what_has_rotted_is_never_served() {
    for seed in 0..runs() {
        spoil(seed, false);
    }
}

#[test]
fn what_has_rotted_in_a_compacted_log_is_never_served() {
    for seed in 0..runs() {
        spoil(2_000_000 + seed, true);
    }
}
