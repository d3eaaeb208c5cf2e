//! What can be derived from the batches: indexes and the state of producers.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kafka::record::{Batch, Header};
use tracing::warn;

use crate::aborted;
use crate::active::Active;
use crate::checkpoint::{Fence, Recovery};
use crate::config::Config;
use crate::disk;
use crate::index::read_offset_entry;
use crate::producer::{EndOfTransaction, Ended, Producers, snapshot};
use crate::scan::{FAR, Stop, Walk};
use crate::segment::{Place, Segment};

/// Shows the headers of all batches before `end` in a segment, without checking the batches.
fn walk(
    segment: &Segment,
    fences: &[Fence],
    end: u64,
    mut show: impl FnMut(&Header<'_>, u64) -> io::Result<()>,
) -> io::Result<()> {
    let file = segment.file()?;
    let mut walk = Walk::new(&file, 0, end, FAR);
    loop {
        let position = walk.position();
        let fenced = fences.iter().find(|fence| {
            fence.segment == segment.base()
                && (fence.from_position..fence.to_position).contains(&position)
        });
        if let Some(fence) = fenced {
            walk.seek(fence.to_position);
            continue;
        }
        let header = match walk.header() {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(()),
            Err(Stop::Damaged(problem)) => {
                warn!(path = %segment.path().display(), position, %problem, "the log is damaged");
                return Ok(());
            }
            Err(Stop::Disk(error)) => return Err(error),
        };
        show(&header, position)?;
        let next = position + header.size() as u64;
        walk.seek(next);
    }
}

/// Loads the newest good snapshot up to `to` and applies what was appended from there to `to`.
pub(super) fn producers(
    dir: &Path,
    mut snapshots: BTreeSet<i64>,
    segments: &[Arc<Segment>],
    fences: &[Fence],
    to: &Recovery,
) -> io::Result<(Producers, BTreeSet<i64>)> {
    let mut found = None;
    while let Some(offset) = snapshots.last().copied() {
        let path = snapshot::path(dir, offset);
        if offset <= to.offset {
            if let Some(producers) = snapshot::read(&path)? {
                found = Some((offset, producers));
                break;
            }
            warn!(path = %path.display(), "producer snapshot is damaged, using an older one");
        }
        disk::remove(&path)?;
        snapshots.remove(&offset);
    }
    let (from, mut producers) = found.unwrap_or_default();
    if from < to.offset {
        replay(&mut producers, from, segments, fences, to, |_, _| Ok(()))?;
    }
    Ok((producers, snapshots))
}

/// Applies what was appended from the offset `from` up to `to`, and shows each transaction that ended, with
/// the base offset of the segment that has its marker.
fn replay(
    producers: &mut Producers,
    from: i64,
    segments: &[Arc<Segment>],
    fences: &[Fence],
    to: &Recovery,
    mut show: impl FnMut(i64, Ended) -> io::Result<()>,
) -> io::Result<()> {
    let first = segments
        .partition_point(|segment| segment.base() <= from)
        .saturating_sub(1);
    for segment in segments[first..]
        .iter()
        .take_while(|segment| segment.base() <= to.segment)
    {
        let end = if segment.base() == to.segment {
            to.position
        } else {
            segment.size()
        };
        walk(segment, fences, end, |header, position| {
            if header.base_offset() >= from
                && let Some(ended) = apply(producers, header, segment, position)?
            {
                show(segment.base(), ended)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Builds the index of aborted transactions of the segment at `to` anew, for the markers before `to`, if it
/// cannot be the one that was written with the segment; `entries` is how many it has at least.
pub(super) fn check_aborted(
    dir: &Path,
    snapshots: &BTreeSet<i64>,
    segments: &[Arc<Segment>],
    fences: &[Fence],
    to: &Recovery,
) -> io::Result<()> {
    let Some(segment) = segments.iter().find(|one| one.base() == to.segment) else {
        return Ok(());
    };
    aborted::cut(&segment.aborted, to.offset)?;
    if segment.aborted.count() >= to.aborted && aborted::sane(&segment.aborted, to)? {
        return Ok(());
    }
    warn!(path = %segment.aborted.path().display(), "an index is lost, building it anew");
    segment.aborted.truncate(0)?;
    let mut from = (0, Producers::default());
    for offset in snapshots.range(..=to.segment).rev() {
        if let Some(producers) = snapshot::read(&snapshot::path(dir, *offset))? {
            from = (*offset, producers);
            break;
        }
    }
    let (from, mut producers) = from;
    replay(&mut producers, from, segments, fences, to, |base, ended| {
        if base == to.segment && ended.aborted {
            aborted::push(&segment.aborted, ended.into())?;
        }
        Ok(())
    })
}

/// Notes a batch of a segment in the producers' state, and returns the transaction that it ended.
pub(super) fn apply(
    producers: &mut Producers,
    header: &Header<'_>,
    segment: &Segment,
    position: u64,
) -> io::Result<Option<Ended>> {
    if !header.has_producer() {
        return Ok(None);
    }
    let marker = if header.control() {
        let bytes = segment.read(&Place::new(header, position))?;
        Batch::split_first(&bytes)
            .ok()
            .and_then(|(batch, _)| EndOfTransaction::read(&batch))
    } else {
        None
    };
    Ok(producers.apply(header, header.base_offset(), marker))
}

/// Builds the indexes of a closed segment anew if they cannot be those that were written with it.
pub(super) fn check_indexes(
    segment: &Arc<Segment>,
    fences: &[Fence],
    config: &Config,
    now: i64,
) -> io::Result<()> {
    let last = segment
        .offsets
        .last()?
        .map(|entry| u64::from(read_offset_entry(&entry).1));
    let size = segment.size();
    let interval = u64::from(config.index_interval_bytes);
    let plausible = match last {
        Some(position) => position < size,
        // So little may have no entry, or can be read without one.
        None => size <= 2 * interval.max(u64::from(config.message_bytes_max)),
    };
    if !plausible {
        indexes(segment, fences, size, config, now)?.note_time();
    }
    Ok(())
}

/// Builds the indexes of a segment anew, for the batches before `end`.
fn indexes(
    segment: &Arc<Segment>,
    fences: &[Fence],
    end: u64,
    config: &Config,
    now: i64,
) -> io::Result<Active> {
    warn!(path = %segment.path().display(), "an index is lost, building it anew");
    segment.offsets.truncate(0)?;
    segment.times.truncate(0)?;
    segment.reset_max_timestamp()?;
    let mut active = Active::new(Arc::clone(segment), now)?;
    walk(segment, fences, end, |header, position| {
        active.note(header, position, config.index_interval_bytes);
        Ok(())
    })?;
    Ok(active)
}

/// A place where an index entry says that a batch begins, and its last offset.
pub(super) struct Candidate {
    pub(super) position: u64,
    pub(super) last_offset: i64,
}

/// Makes a segment's indexes those of the batches before the recovery point, and returns what the
/// dropped entries said about later ones.
pub(super) fn cut_indexes(
    segment: &Arc<Segment>,
    fences: &[Fence],
    from: &Recovery,
    config: &Config,
    now: i64,
) -> io::Result<(Active, Vec<Candidate>)> {
    let mut candidates = Vec::new();
    for number in from.offsets..segment.offsets.count() {
        let (relative, position) = read_offset_entry(&segment.offsets.entry(number)?);
        candidates.push(Candidate {
            position: u64::from(position),
            last_offset: segment.base() + i64::from(relative),
        });
    }
    candidates.sort_unstable_by_key(|candidate| candidate.position);
    if segment.offsets.count() < from.offsets || segment.times.count() < from.times {
        return Ok((
            indexes(segment, fences, from.position, config, now)?,
            candidates,
        ));
    }
    if segment.offsets.count() > from.offsets {
        segment.offsets.truncate(from.offsets)?;
    }
    if segment.times.count() > from.times {
        segment.times.truncate(from.times)?;
    }
    segment.reset_max_timestamp()?;
    Ok((Active::new(Arc::clone(segment), now)?, candidates))
}
