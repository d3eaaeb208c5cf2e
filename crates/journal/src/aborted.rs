//! Which transactions were aborted, in Kafka's `.txnindex`: one file a segment, for the markers in it.
//!
//! ```text
//! version i16 = 0 · producer id i64 · first offset i64 · last offset i64 · last stable offset i64
//! ```
//!
//! Entries ascend by last offset, that of the marker. A segment without aborted transactions has no file.

use std::io;

use crate::checkpoint::Recovery;
use crate::index::Index;
use crate::producer::Ended;
use crate::segment::Segment;

const VERSION: i16 = 0;
/// Bytes of an entry.
pub(crate) const ENTRY: usize = 34;
/// Entries that are read at once.
const ENTRIES_READ: usize = 256;

/// An aborted transaction, whose records readers of committed data drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose it was.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// All before this offset was decided once the marker was written.
    pub stable_offset: i64,
}

impl From<Ended> for Aborted {
    fn from(ended: Ended) -> Aborted {
        Aborted {
            producer_id: ended.producer_id,
            first_offset: ended.first_offset,
            last_offset: ended.last_offset,
            stable_offset: ended.stable_offset,
        }
    }
}

impl Aborted {
    fn entry(&self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.stable_offset,
        ];
        for (place, field) in entry[2..].as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
        entry
    }

    fn read(entry: &[u8; ENTRY]) -> Aborted {
        let mut fields = [0; 4];
        for (field, place) in fields.iter_mut().zip(entry[2..].as_chunks::<8>().0) {
            *field = i64::from_be_bytes(*place);
        }
        let [producer_id, first_offset, last_offset, stable_offset] = fields;
        Aborted {
            producer_id,
            first_offset,
            last_offset,
            stable_offset,
        }
    }
}

fn last_offset(entry: &[u8; ENTRY]) -> i64 {
    Aborted::read(entry).last_offset
}

/// Adds an entry, whose marker comes after all others in the index.
pub(crate) fn push(index: &Index<ENTRY>, aborted: Aborted) -> io::Result<()> {
    index.push(aborted.entry())
}

/// Drops the entries whose marker lies at `offset` or later.
pub(crate) fn cut(index: &Index<ENTRY>, offset: i64) -> io::Result<()> {
    let kept = index.partition(|entry| last_offset(entry) < offset)?;
    if kept < index.count() {
        index.truncate(kept)?;
    }
    Ok(())
}

/// Returns whether the entries can be those of a segment up to this place.
pub(crate) fn sane(index: &Index<ENTRY>, place: &Recovery) -> io::Result<bool> {
    let mut before = place.segment - 1;
    for number in 0..index.count() {
        let entry = index.entry(number)?;
        let aborted = Aborted::read(&entry);
        let ordered = aborted.last_offset > before && aborted.last_offset < place.offset;
        let version = i16::from_be_bytes([entry[0], entry[1]]);
        if version != VERSION || !ordered || aborted.first_offset > aborted.last_offset {
            return Ok(false);
        }
        before = aborted.last_offset;
    }
    Ok(true)
}

/// Adds to `found` the transactions that were aborted and have records in `from..up_to`, as far as
/// the markers in this segment tell. Returns whether no later segment can tell of more.
pub(crate) fn collect(
    segment: &Segment,
    from: i64,
    up_to: i64,
    found: &mut Vec<Aborted>,
) -> io::Result<bool> {
    let index = &segment.aborted;
    let first = index.partition(|entry| last_offset(entry) < from)?;
    let mut number = first;
    while number < index.count() {
        let entries = index.entries(number, ENTRIES_READ)?;
        for entry in &entries {
            let aborted = Aborted::read(entry);
            if aborted.first_offset < up_to {
                found.push(aborted);
            }
            if aborted.stable_offset >= up_to {
                return Ok(true);
            }
        }
        number += entries.len().max(1);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_kafkas() {
        let aborted = Aborted {
            producer_id: 1,
            first_offset: 2,
            last_offset: 3,
            stable_offset: 4,
        };
        let entry = aborted.entry();
        assert_eq!(
            entry.as_slice(),
            b"\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04"
        );
        assert_eq!(Aborted::read(&entry), aborted);
    }
}
