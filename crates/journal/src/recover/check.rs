//! Checking the part of a segment that was not known to be good.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::Report;
use super::rebuild::{self, Candidate};
use crate::aborted;
use crate::active::Active;
use crate::checkpoint::{Fence, Recovery};
use crate::config::Config;
use crate::epochs::Epochs;
use crate::producer::Producers;
use crate::scan::{Damage, FAR, Stop, Walk};
use crate::segment::Segment;

/// The part of the log after the recovery point, batch by batch.
pub(super) struct Scan<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a Config,
    pub(super) now: i64,
    pub(super) fences: Vec<Fence>,
    pub(super) epochs: Epochs,
    /// The history was read from its file, which is always ahead of the batches.
    pub(super) epochs_known: bool,
    /// What lies behind the recovery point was closed, but not flushed: a flush would have moved the point.
    pub(super) unacknowledged: bool,
    /// Offsets before this one may be missing.
    pub(super) sparse_to: i64,
    pub(super) producers: Producers,
    pub(super) report: Report,
}

impl Scan<'_> {
    /// Checks a segment from `from` on; `end` is the offset that is due there and moves to the offset
    /// after the segment's last record. `next_base` is where the next segment begins, if there is one.
    pub(super) fn segment(
        &mut self,
        segment: &Arc<Segment>,
        from: &Recovery,
        end: &mut i64,
        next_base: Option<i64>,
    ) -> io::Result<Active> {
        let (mut active, candidates) =
            rebuild::cut_indexes(segment, &self.fences, from, self.config, self.now)?;
        let (file, size) = (segment.file()?, segment.size());
        let (position, scanned) = (from.position, self.report.scanned_bytes);
        let mut walk = Walk::new(&file, position, size, FAR);
        while walk.position() < size {
            let at = walk.position();
            let due = Due {
                offset: *end,
                sparse_to: match next_base {
                    Some(next) => self.sparse_to.min(next),
                    // Nobody compacts the newest segment.
                    None if self.sparse_to == i64::MAX => 0,
                    None => self.sparse_to,
                },
            };
            match good(&mut walk, due, &self.epochs) {
                Ok(()) => {
                    let Ok(Some(header)) = walk.header() else {
                        break;
                    };
                    active.note(&header, at, self.config.index_interval_bytes);
                    if !self.epochs_known {
                        self.epochs
                            .assign(header.leader_epoch(), header.base_offset());
                    }
                    let ended = rebuild::apply(&mut self.producers, &header, segment, at)?;
                    if let Some(ended) = ended.filter(|ended| ended.aborted) {
                        aborted::push(&segment.aborted, ended.into())?;
                    }
                    *end = header.next_offset();
                    let next = at + header.size() as u64;
                    self.report.scanned_bytes += next - at;
                    walk.seek(next);
                }
                Err(Stop::Disk(error)) => return Err(error),
                Err(Stop::Damaged(problem)) => {
                    let resume = resume(&mut walk, at, *end, &candidates)?;
                    // Nothing is missing, or nothing behind it was ever acknowledged.
                    let next = next_base.filter(|next| !self.unacknowledged && next > end);
                    match resume.or(next.map(|base| (size, base))) {
                        None => {
                            let (dir, bytes) = (self.dir.display(), size - at);
                            warn!(%dir, offset = *end, bytes, %problem, "cut off an unfinished write");
                            self.report.torn_bytes += bytes;
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
        segment.trust(from.position);
        if self.report.scanned_bytes > scanned {
            let (dir, bytes) = (self.dir.display(), self.report.scanned_bytes - scanned);
            info!(%dir, bytes, end = *end, "checked the log after an unclean stop");
        }
        Ok(active)
    }
}

/// What must come next.
struct Due {
    /// The offset of its first record, if none is missing.
    offset: i64,
    /// Records before this offset may be missing.
    sparse_to: i64,
}

/// Checks the batch at the walk's position.
///
/// The checksum does not cover offset and leader epoch, but we know what they must be. Where records may be
/// missing we know less: there a batch must lie between its neighbours.
fn good(walk: &mut Walk<'_>, due: Due, epochs: &Epochs) -> Result<(), Stop> {
    walk.verify()?;
    let header = walk.header()?.ok_or(kafka::record::Error::CutShort)?;
    let (found, last) = (header.base_offset(), header.last_offset());
    let (found_epoch, size) = (header.leader_epoch(), header.size() as u64);
    if found != due.offset {
        let sparse = found > due.offset && last < due.sparse_to;
        if !sparse || !before_the_next(walk, last, size)? {
            let due = due.offset;
            return Err(Stop::Damaged(Damage::Offset { found, due }));
        }
    }
    match epochs.at(found) {
        Some(due) if due != found_epoch => Err(Stop::Damaged(Damage::Epoch {
            found: found_epoch,
            due,
        })),
        _ => Ok(()),
    }
}

/// Returns whether the batch after the one at the walk's position, if there is one, begins after `last`.
fn before_the_next(walk: &mut Walk<'_>, last: i64, size: u64) -> io::Result<bool> {
    let position = walk.position();
    walk.seek(position + size);
    let next = match walk.header() {
        Ok(header) => header.map(|header| header.base_offset()),
        Err(Stop::Damaged(_)) => None,
        Err(Stop::Disk(error)) => return Err(error),
    };
    walk.seek(position);
    Ok(next.is_none_or(|next| next > last))
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
