//! What a read returns: batches in memory, or where they are in their file.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use kafka::record::{self, Batch};

use super::Failure;
use crate::disk;
use crate::segment::{Place, Segment};

/// Whole batches, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The batches; the first may begin before the offset that was asked for.
    pub bytes: Bytes,
    /// Where to read on.
    pub next_offset: i64,
}

/// Whole batches that are still in their file.
#[derive(Debug, Clone)]
pub struct Stretch {
    /// The file; what is told here stays in it as it is for as long as it is held, unless the log's end is cut off
    /// ([`Log::truncate_to`](crate::Log::truncate_to)).
    pub file: Arc<File>,
    /// Where the first batch begins.
    pub position: u64,
    /// The bytes of all batches.
    pub len: usize,
    /// The records in them.
    pub records: i64,
    /// Where to read on.
    pub next_offset: i64,
    /// There were too many batches to look at all of them.
    pub cut: bool,
}

/// What a read that may leave records where they are has found.
#[derive(Debug)]
pub enum Held {
    /// In memory.
    Bytes(Slice),
    /// In the file: so many and such large batches that a copy would cost more than looking at each.
    InFile(Stretch),
}

/// Smallest first batch for which it is tried to leave records in the file.
const STRETCH_BATCH_MIN: usize = 4096;
/// Smallest stretch.
const STRETCH_MIN: usize = 32 << 10;
/// Batches that are looked at for one stretch.
const STRETCH_BATCHES_MAX: usize = 256;

/// Reads `len` bytes and keeps the whole batches in them that end before `up_to`.
pub(super) fn read_batches(
    segment: &Segment,
    place: &Place,
    len: usize,
    up_to: i64,
    dense: bool,
) -> Result<Slice, Failure> {
    let mut bytes = Vec::new();
    disk::read_at(
        &*segment.file().map_err(Failure::Disk)?,
        &mut bytes,
        place.position,
        len,
    )
    .map_err(Failure::Disk)?;
    let (mut whole, mut next_offset) = (0, place.base_offset);
    // What lay on the disk before this process began is held against its checksums once.
    let trusted = segment.trusted(place.position, place.position + bytes.len() as u64);
    let sound = |batch: Batch<'_>| match trusted {
        true => Ok(()),
        false => batch.verify(),
    };
    let mut batches = record::batches(&bytes);
    while let Some(batch) = batches.next() {
        match batch.and_then(|batch| sound(batch).map(|()| batch)) {
            // Offsets only grow: anything else is not what was written here.
            Ok(batch) if batch.base_offset() < next_offset => break,
            Ok(batch) if dense && !trusted && batch.base_offset() != next_offset => break,
            Ok(batch) if batch.last_offset() >= up_to => break,
            Ok(batch) => {
                next_offset = batch.next_offset();
                whole = batches.position();
            }
            Err(record::Error::CutShort) => break,
            // What comes before can be had; the next read meets the damage.
            Err(_) if whole > 0 => break,
            Err(problem) => return Err(Failure::Batch(problem.into())),
        }
    }
    segment.hint(next_offset, place.position + whole as u64);
    if !trusted {
        segment.note_checked(place.position, place.position + whole as u64);
    }
    bytes.truncate(whole);
    Ok(Slice {
        bytes: Bytes::from(bytes),
        next_offset,
    })
}

/// Looks at headers only, and leaves the records in the file; `None` where that is not worth it or they must be checked.
pub(super) fn stretch(
    segment: &Segment,
    place: &Place,
    len: usize,
    up_to: i64,
) -> Result<Option<Stretch>, Failure> {
    let end = place.position + len as u64;
    if place.size < STRETCH_BATCH_MIN || len < STRETCH_MIN || !segment.trusted(place.position, end)
    {
        return Ok(None);
    }
    let file = segment.file().map_err(Failure::Disk)?;
    disk::fill_cache(&file, place.position, len).map_err(Failure::Disk)?;
    let (mut position, mut next_offset, mut records) = (place.position, place.base_offset, 0);
    let mut header = Vec::with_capacity(record::HEADER_LEN);
    let mut looked = 0;
    while looked < STRETCH_BATCHES_MAX {
        header.clear();
        let read = disk::read_at(&file, &mut header, position, record::HEADER_LEN);
        read.map_err(Failure::Disk)?;
        // Whatever is wrong, the way with the bytes in hand finds out what to do about it.
        let Ok(batch) = record::Header::parse(&header) else {
            break;
        };
        let after = position + batch.size() as u64;
        if batch.base_offset() < next_offset || batch.last_offset() >= up_to || after > end {
            break;
        }
        records += i64::from(batch.record_count());
        next_offset = batch.next_offset();
        position = after;
        looked += 1;
    }
    let len = (position - place.position) as usize;
    if len < STRETCH_MIN {
        return Ok(None);
    }
    segment.hint(next_offset, position);
    Ok(Some(Stretch {
        file,
        position: place.position,
        len,
        records,
        next_offset,
        cut: looked == STRETCH_BATCHES_MAX,
    }))
}
