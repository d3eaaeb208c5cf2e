//! Finding out what a partition's folder holds.
//!
//! Everything before the checkpoint's recovery point was checked and flushed and is taken as it is.
//! From there on each batch is held against its checksum. Bytes that are no batch, with nothing good
//! behind them, are a write that never finished: they are cut off. With good batches behind them they
//! are damage: that range is fenced and never served, and the log goes on after it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka::record::{Batch, Header};
use tracing::{error, info, warn};

use crate::active::Active;
use crate::checkpoint::{Checkpoint, Fence, Recovery};
use crate::config::Config;
use crate::epochs::Epochs;
use crate::index::{read_offset_entry, read_time_entry};
use crate::producer::{EndOfTransaction, Producers, snapshot};
use crate::scan::{Damage, FAR, Stop, Walk};
use crate::segment::{Place, Segment};

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
pub(crate) fn load(dir: &Path, config: &Config, now: i64) -> io::Result<Loaded> {
    let names = list(dir)?;
    let mut checkpoint = Checkpoint::read(dir)?.unwrap_or_default();
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
        .unwrap_or(Recovery {
            segment: segments[0].base(),
            position: 0,
            offset: segments[0].base(),
        });
    let kept = |fence: &Fence| {
        let place = (fence.segment, fence.from_position);
        place < (from.segment, from.position) && fence.to_offset > checkpoint.start
    };
    checkpoint.fences.retain(kept);

    let known_epochs = Epochs::read(dir)?;
    let epochs_known = known_epochs.is_some();
    let epochs = known_epochs.unwrap_or_default();
    let latest_epoch = epochs.latest().unwrap_or(-1);
    let (producers, snapshots) = producers(dir, names.snapshots, &segments, &from)?;
    let mut scan = Scan {
        dir,
        config,
        now,
        fences: std::mem::take(&mut checkpoint.fences),
        epochs,
        epochs_known,
        producers,
        report: Report::default(),
    };
    let first = segments.partition_point(|segment| segment.base() < from.segment);
    for segment in &segments[..first] {
        check_indexes(segment, config, now)?;
        segment.release();
    }
    let (mut position, mut end) = (from.position, from.offset);
    let mut active = None;
    for number in first..segments.len() {
        let next_base = segments.get(number + 1).map(|next| next.base());
        end = end.max(segments[number].base());
        active = Some(scan.segment(&segments[number], position, &mut end, next_base)?);
        position = 0;
    }
    let mut active = active.expect("there is always a segment to scan");

    let Scan {
        mut fences,
        mut epochs,
        producers,
        mut report,
        ..
    } = scan;
    if let Some(Recovery { offset, .. }) = known.filter(|point| point.offset > end) {
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
            segment.file()?.sync_data()?;
        }
    }
    report.latest_epoch = latest_epoch.max(epochs.latest().unwrap_or(-1));
    epochs.truncate(end);
    epochs.trim(checkpoint.start);
    checkpoint.fences = fences;
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
            fs::remove_file(&path)?;
            continue;
        }
        let number = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .filter(|stem| stem.len() == 20)
            .and_then(|stem| stem.parse::<i64>().ok())
            .filter(|number| *number >= 0);
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
        if bases.peek().is_some_and(|next| **next <= checkpoint.start) {
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

/// Loads the newest good snapshot up to `to` and applies what was appended from there to `to`.
fn producers(
    dir: &Path,
    mut snapshots: BTreeSet<i64>,
    segments: &[Arc<Segment>],
    to: &Recovery,
) -> io::Result<(Producers, BTreeSet<i64>)> {
    let mut found = None;
    while let Some(offset) = snapshots.last().copied() {
        let path: PathBuf = snapshot::path(dir, offset);
        if offset <= to.offset {
            if let Some(producers) = snapshot::read(&path)? {
                found = Some((offset, producers));
                break;
            }
            warn!(path = %path.display(), "producer snapshot is damaged, using an older one");
        }
        crate::disk::remove(&path)?;
        snapshots.remove(&offset);
    }
    let (from, mut producers) = found.unwrap_or_default();
    if from >= to.offset {
        return Ok((producers, snapshots));
    }
    let first = segments
        .partition_point(|segment| segment.base() <= from)
        .saturating_sub(1);
    for segment in &segments[first..] {
        let end = match segment.base().cmp(&to.segment) {
            std::cmp::Ordering::Less => segment.size(),
            std::cmp::Ordering::Equal => to.position,
            std::cmp::Ordering::Greater => break,
        };
        let file = segment.file()?;
        let mut walk = Walk::new(&file, 0, end, FAR);
        loop {
            let position = walk.position();
            let header = match walk.header() {
                Ok(Some(header)) => header,
                Ok(None) | Err(Stop::Damaged(_)) => break,
                Err(Stop::Disk(error)) => return Err(error),
            };
            if header.base_offset() >= from {
                apply(&mut producers, &header, segment, position)?;
            }
            let next = position + header.size() as u64;
            walk.seek(next);
        }
    }
    Ok((producers, snapshots))
}

/// Notes a batch of a segment in the producers' state.
fn apply(
    producers: &mut Producers,
    header: &Header<'_>,
    segment: &Segment,
    position: u64,
) -> io::Result<()> {
    if !header.has_producer() {
        return Ok(());
    }
    let marker = if header.control() {
        let bytes = segment.read(&Place::new(header, position))?;
        Batch::split_first(&bytes)
            .ok()
            .and_then(|(batch, _)| EndOfTransaction::read(&batch))
    } else {
        None
    };
    producers.apply(header, header.base_offset(), marker);
    Ok(())
}

/// Builds the indexes of a closed segment anew if they cannot be those that were written with it.
fn check_indexes(segment: &Arc<Segment>, config: &Config, now: i64) -> io::Result<()> {
    let last = segment
        .offsets
        .last()?
        .map(|entry| u64::from(read_offset_entry(&entry).1));
    let size = segment.size();
    let plausible = match last {
        Some(position) => position < size,
        // Room for entries, but none there.
        None => {
            size <= u64::from(config.index_interval_bytes) * 2
                || size <= u64::from(config.message_bytes_max) * 2
        }
    };
    if plausible {
        return Ok(());
    }
    warn!(path = %segment.path().display(), "index does not fit its segment, building it anew");
    segment.offsets.truncate(0)?;
    segment.times.truncate(0)?;
    let mut active = Active::new(Arc::clone(segment), now)?;
    let file = segment.file()?;
    let mut walk = Walk::new(&file, 0, size, FAR);
    loop {
        let position = walk.position();
        let header = match walk.header() {
            Ok(Some(header)) => header,
            Ok(None) | Err(Stop::Damaged(_)) => break,
            Err(Stop::Disk(error)) => return Err(error),
        };
        active.note(&header, position, config.index_interval_bytes);
        let next = position + header.size() as u64;
        walk.seek(next);
    }
    active.note_time();
    Ok(())
}

/// The part of the log after the recovery point, batch by batch.
struct Scan<'a> {
    dir: &'a Path,
    config: &'a Config,
    now: i64,
    fences: Vec<Fence>,
    epochs: Epochs,
    /// The history was read from its file, which is always ahead of the batches.
    epochs_known: bool,
    producers: Producers,
    report: Report,
}

impl Scan<'_> {
    /// Checks a segment from `position` on, where the record with offset `end` is due; `end` moves to
    /// the offset after the segment's last record.
    fn segment(
        &mut self,
        segment: &Arc<Segment>,
        position: u64,
        end: &mut i64,
        next_base: Option<i64>,
    ) -> io::Result<Active> {
        let candidates = cut_indexes(segment, position, *end)?;
        let mut active = Active::new(Arc::clone(segment), self.now)?;
        if position == segment.size() {
            return Ok(active);
        }
        let (file, size) = (segment.file()?, segment.size());
        let mut walk = Walk::new(&file, position, size, FAR);
        while walk.position() < size {
            let at = walk.position();
            match good(&mut walk, *end, &self.epochs) {
                Ok(()) => {
                    let Ok(Some(header)) = walk.header() else {
                        break;
                    };
                    active.note(&header, at, self.config.index_interval_bytes);
                    if !self.epochs_known {
                        self.epochs
                            .assign(header.leader_epoch(), header.base_offset());
                    }
                    apply(&mut self.producers, &header, segment, at)?;
                    *end = header.next_offset();
                    let next = at + header.size() as u64;
                    self.report.scanned_bytes += next - at;
                    walk.seek(next);
                }
                Err(Stop::Disk(error)) => return Err(error),
                Err(Stop::Damaged(problem)) => {
                    let resume = resume(&mut walk, at, *end, &candidates)?;
                    match resume.or(next_base.map(|base| (size, base))) {
                        None => {
                            let (dir, bytes) = (self.dir.display(), size - at);
                            warn!(%dir, offset = *end, bytes, %problem, "cut off an unfinished write");
                            self.report.torn_bytes = bytes;
                            segment.cut(at)?;
                            break;
                        }
                        Some((to_position, to_offset)) => {
                            let (dir, bytes) = (self.dir.display(), to_position - at);
                            error!(%dir, from = *end, to = to_offset, bytes, %problem, "the log is damaged");
                            self.report.damaged.push((*end, to_offset));
                            self.fences.push(Fence {
                                segment: segment.base(),
                                from_position: at,
                                to_position,
                                from_offset: *end,
                                to_offset,
                            });
                            *end = to_offset;
                            walk.seek(to_position);
                        }
                    }
                }
            }
        }
        if self.report.scanned_bytes > 0 {
            let (dir, bytes) = (self.dir.display(), self.report.scanned_bytes);
            info!(%dir, bytes, end = *end, "checked the log after an unclean stop");
        }
        Ok(active)
    }
}

/// A place where an index entry says that a batch begins, and its last offset.
struct Candidate {
    position: u64,
    last_offset: i64,
}

/// Drops index entries at and after `position`, where the record with offset `end` is due, and
/// returns the places that they named.
fn cut_indexes(segment: &Segment, position: u64, end: i64) -> io::Result<Vec<Candidate>> {
    let kept = segment
        .offsets
        .partition(|entry| u64::from(read_offset_entry(entry).1) < position)?;
    let mut candidates = Vec::with_capacity(segment.offsets.count() - kept);
    for number in kept..segment.offsets.count() {
        let (relative, position) = read_offset_entry(&segment.offsets.entry(number)?);
        candidates.push(Candidate {
            position: u64::from(position),
            last_offset: segment.base() + i64::from(relative),
        });
    }
    candidates.sort_unstable_by_key(|candidate| candidate.position);
    if segment.offsets.count() > kept {
        segment.offsets.truncate(kept)?;
    }
    let relative = end - segment.base();
    let kept = segment
        .times
        .partition(|entry| i64::from(read_time_entry(entry).1) < relative)?;
    if segment.times.count() > kept {
        segment.times.truncate(kept)?;
    }
    let last = segment.times.last()?.map(|entry| read_time_entry(&entry));
    let (timestamp, offset) = last.unwrap_or((kafka::record::NO_TIMESTAMP, 0));
    segment.set_max_timestamp(timestamp, segment.base() + i64::from(offset));
    Ok(candidates)
}

/// Checks the batch at the walk's position, where the record with offset `due` belongs.
///
/// The checksum does not cover offset and leader epoch, but we know what they must be.
fn good(walk: &mut Walk<'_>, due: i64, epochs: &Epochs) -> Result<(), Stop> {
    walk.verify()?;
    let header = walk.header()?.ok_or(kafka::record::Error::CutShort)?;
    let (found, found_epoch) = (header.base_offset(), header.leader_epoch());
    if found != due {
        return Err(Stop::Damaged(Damage::Offset { found, due }));
    }
    match epochs.at(due) {
        Some(due) if due != found_epoch => Err(Stop::Damaged(Damage::Epoch {
            found: found_epoch,
            due,
        })),
        _ => Ok(()),
    }
}

/// Looks for a good batch behind damage at `position`, where the record with offset `due` belongs:
/// at the end of the damaged batch if its header can still be read, or where an index entry points.
/// Returns where it is and its first offset.
///
/// Searching byte by byte instead would let a producer hide a batch in a record's value.
fn resume(
    walk: &mut Walk<'_>,
    position: u64,
    due: i64,
    candidates: &[Candidate],
) -> io::Result<Option<(u64, i64)>> {
    walk.seek(position);
    if let Ok(Some(header)) = walk.header() {
        let size = header.size() as u64;
        let count = i64::from(header.last_offset_delta()) + 1;
        walk.seek(position + size);
        if let Some((base, _)) = offsets(walk)? {
            // The count may be what is damaged, then the size is some bound for it.
            let near = base > due && base - due <= size as i64;
            if base == due + count || near {
                return Ok(Some((position + size, base)));
            }
        }
    }
    for candidate in candidates
        .iter()
        .filter(|candidate| candidate.position > position)
    {
        walk.seek(candidate.position);
        match offsets(walk)? {
            Some((base, last)) if last == candidate.last_offset && base >= due => {
                return Ok(Some((candidate.position, base)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// Returns first and last offset of the batch at the walk's position if its checksum is right.
fn offsets(walk: &mut Walk<'_>) -> io::Result<Option<(i64, i64)>> {
    match walk.verify() {
        Ok(()) => {}
        Err(Stop::Damaged(_)) => return Ok(None),
        Err(Stop::Disk(error)) => return Err(error),
    }
    match walk.header() {
        Ok(Some(header)) => Ok(Some((header.base_offset(), header.last_offset()))),
        Ok(None) | Err(Stop::Damaged(_)) => Ok(None),
        Err(Stop::Disk(error)) => Err(error),
    }
}
