//! Finding out what a partition's folder holds.
//!
//! Everything before the checkpoint's recovery point was checked and flushed and is taken as it is.
//! From there on each batch is held against its checksum. Bytes that are no batch, with nothing good
//! behind them, are a write that never finished: they are cut off. With good batches behind them they
//! are damage: that range is fenced and never served, and the log goes on after it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, warn};

use crate::active::Active;
use crate::checkpoint::{Checkpoint, Fence, Recovery};
use crate::config::Config;
use crate::disk;
use crate::epochs::Epochs;
use crate::producer::Producers;
use crate::segment::Segment;

mod check;
mod rebuild;
mod swap;

use check::Scan;
pub(crate) use swap::{CLEANED, SWAP, rename};

/// No log gets this far; larger names are none of ours.
const OFFSET_MAX: i64 = i64::MAX >> 1;
/// Kafka's names for files that are on their way out or in.
const LEFTOVERS: [&str; 4] = ["tmp", "deleted", "cleaned", "swap"];

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Bytes that were read and checked; none after a clean close.
    pub scanned_bytes: u64,
    /// Bytes of an unfinished write that were cut off at the end.
    pub torn_bytes: u64,
    /// Damaged ranges, first offset and the one after the last.
    pub damaged: Vec<(i64, i64)>,
    /// The latest leader epoch that the log ever had, or -1.
    pub latest_epoch: i32,
}

/// All that a log is made of.
pub(crate) struct Loaded {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: Active,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Producers,
    pub(crate) snapshots: BTreeSet<i64>,
    pub(crate) end: i64,
    pub(crate) report: Report,
}

/// Reads the folder.
///
/// A log of ours that has no checkpoint never had one: no segment of it was ever flushed after it was closed. A
/// `foreign` one may come from anywhere.
pub(crate) fn load(dir: &Path, config: &Config, now: i64, foreign: bool) -> io::Result<Loaded> {
    swap::finish(dir)?;
    let names = list(dir)?;
    let mut read = Checkpoint::read(dir)?;
    if !foreign && !Checkpoint::exists(dir) {
        let first = names.segments.first().copied().unwrap_or(0);
        read = Some(Checkpoint {
            recovery: Some(Recovery::start_of(first)),
            ..Checkpoint::default()
        });
    }
    // A folder that comes from Kafka, or lost its checkpoint, may have been compacted anywhere.
    let sparse_to = read.as_ref().map_or(i64::MAX, |read| read.sparse_to);
    let mut checkpoint = read.unwrap_or_default();
    let mut segments = open_segments(dir, &names.segments, &checkpoint, now)?;
    checkpoint.start = checkpoint.start.max(segments[0].base());

    let known = checkpoint.recovery;
    let from = known
        .filter(|point| {
            let segment = segments
                .iter()
                .find(|segment| segment.base() == point.segment);
            segment.is_some_and(|segment| segment.size() >= point.position)
        })
        .unwrap_or(Recovery::start_of(segments[0].base()));
    let kept = |fence: &Fence| {
        let place = (fence.segment, fence.from_position);
        place < (from.segment, from.position) && fence.to_offset > checkpoint.start
    };
    checkpoint.fences.retain(kept);

    let known_epochs = Epochs::read(dir)?;
    let epochs_known = known_epochs.is_some();
    let epochs = known_epochs.unwrap_or_default();
    let latest_epoch = epochs.latest().unwrap_or(-1);
    let fences = std::mem::take(&mut checkpoint.fences);
    let (producers, snapshots) =
        rebuild::producers(dir, names.snapshots, &segments, &fences, &from)?;
    let mut scan = Scan {
        dir,
        config,
        now,
        fences,
        epochs,
        epochs_known,
        sparse_to,
        unacknowledged: known == Some(from),
        producers,
        report: Report::default(),
    };
    let first = segments.partition_point(|segment| segment.base() < from.segment);
    for segment in &segments[..first] {
        rebuild::check_indexes(segment, &scan.fences, config, now)?;
        let whole = Recovery {
            position: segment.size(),
            offset: OFFSET_MAX,
            ..Recovery::start_of(segment.base())
        };
        rebuild::check_aborted(dir, &snapshots, &segments, &scan.fences, &whole)?;
        segment.release();
    }
    let (mut from, mut end) = (from, from.offset);
    let (mut active, mut later) = (None, Vec::new());
    for number in first..segments.len() {
        let segment = &Arc::clone(&segments[number]);
        if segment.base() != from.segment {
            from = Recovery::start_of(segment.base());
        }
        end = end.max(segment.base());
        rebuild::check_aborted(dir, &snapshots, &segments, &scan.fences, &from)?;
        let next_base = segments.get(number + 1).map(|next| next.base());
        active = Some(scan.segment(segment, &from, &mut end, next_base)?);
        if next_base.is_some_and(|next| end < next && next >= sparse_to) && scan.unacknowledged {
            later = segments.split_off(number + 1);
            break;
        }
    }
    for segment in later {
        warn!(dir = %dir.display(), base = segment.base(), bytes = segment.size(),
            "removing records that were never flushed, behind an unfinished write");
        scan.report.torn_bytes += segment.size();
        segment.remove()?;
    }
    let mut active = active.expect("there is always a segment to scan");

    let Scan {
        mut fences,
        mut epochs,
        producers,
        mut report,
        ..
    } = scan;
    let offset = known.map_or(0, |point| point.offset).max(checkpoint.start);
    if offset > end {
        // Flushed records are gone. Their offsets are never given out again.
        error!(dir = %dir.display(), from = end, to = offset, "records that were on disk are missing");
        let (segment, size) = (active.segment.base(), active.segment.size());
        fences.push(Fence {
            segment,
            from_position: size,
            to_position: size,
            from_offset: end,
            to_offset: offset,
        });
        report.damaged.push((end, offset));
        segments.push(Arc::new(Segment::create(dir, offset, now)?));
        active = Active::new(Arc::clone(&segments[segments.len() - 1]), now)?;
        end = offset;
    }
    if report.scanned_bytes > 0 || report.torn_bytes > 0 {
        for segment in &segments[first..] {
            segment.sync()?;
        }
    }
    report.latest_epoch = latest_epoch.max(epochs.latest().unwrap_or(-1));
    epochs.truncate(end);
    epochs.trim(checkpoint.start);
    checkpoint.fences = fences;
    checkpoint.sparse_to = sparse_to.min(end);
    Ok(Loaded {
        segments,
        active,
        checkpoint,
        epochs,
        producers,
        snapshots,
        end,
        report,
    })
}

struct Names {
    segments: BTreeSet<i64>,
    snapshots: BTreeSet<i64>,
}

/// Lists the folder and removes what an interrupted change left behind.
fn list(dir: &Path) -> io::Result<Names> {
    let mut names = Names {
        segments: BTreeSet::new(),
        snapshots: BTreeSet::new(),
    };
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path
            .extension()
            .and_then(|extension| extension.to_str())
            .unwrap_or("");
        if LEFTOVERS.contains(&extension) {
            disk::remove(&path)?;
            continue;
        }
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|stem| stem.len() == 20)
            .and_then(|stem| stem.parse::<i64>().ok())
            .filter(|number| (0..=OFFSET_MAX).contains(number));
        match (number, extension) {
            (Some(base), "log") => _ = names.segments.insert(base),
            (Some(offset), "snapshot") => _ = names.snapshots.insert(offset),
            _ => {}
        }
    }
    Ok(names)
}

/// Opens all segments that hold something after the start of the log, or creates the first.
fn open_segments(
    dir: &Path,
    bases: &BTreeSet<i64>,
    checkpoint: &Checkpoint,
    now: i64,
) -> io::Result<Vec<Arc<Segment>>> {
    let mut segments = Vec::with_capacity(bases.len().max(1));
    let mut bases = bases.iter().peekable();
    while let Some(base) = bases.next() {
        let segment = Segment::open(dir, *base, now)?;
        let begins = checkpoint
            .recovery
            .is_some_and(|point| point.segment == *base);
        // A segment that could not be begun, or of which compaction left nothing.
        let between = !segments.is_empty() && bases.peek().is_some();
        let empty = segment.size() == 0 && !begins && between;
        if empty || bases.peek().is_some_and(|next| **next <= checkpoint.start) {
            segment.remove()?;
        } else {
            segments.push(Arc::new(segment));
        }
    }
    if segments.is_empty() {
        let base = checkpoint
            .recovery
            .map_or(0, |point| point.offset)
            .max(checkpoint.start);
        segments.push(Arc::new(Segment::create(dir, base, now)?));
    }
    Ok(segments)
}
