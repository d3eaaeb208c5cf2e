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
        if self.report.scanned_bytes > scanned {
            let (dir, bytes) = (self.dir.display(), self.report.scanned_bytes - scanned);
            info!(%dir, bytes, end = *end, "checked the log after an unclean stop");
        }
        Ok(active)
    }
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
