//! Sparse indexes: sorted entries of a fixed width in a file, searched in place.
//!
//! Kafka's formats: `.index` has relative offset and position (4 + 4 bytes), `.timeindex` has
//! timestamp and relative offset (8 + 4 bytes). Nothing of them is held in memory.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::{self, LazyFile};

/// Entries that are read at once when a search has narrowed down.
const BLOCK_ENTRIES: usize = 256;

/// An index file with entries of `N` bytes.
#[derive(Debug)]
pub(crate) struct Index<const N: usize> {
    file: LazyFile,
    count: AtomicUsize,
}

impl<const N: usize> Index<N> {
    /// Takes the index at `path` as it is; half an entry at its end is ignored.
    pub(crate) fn open(path: PathBuf) -> io::Result<Index<N>> {
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Index {
            file: LazyFile::new(path),
            count: AtomicUsize::new(length as usize / N),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Adds an entry, which must sort after all others.
    pub(crate) fn push(&self, entry: [u8; N]) -> io::Result<()> {
        let count = self.count();
        let file = if count == 0 {
            self.file.create()?
        } else {
            self.file.get()?
        };
        disk::write_all_at(&file, &mut [IoSlice::new(&entry)], (count * N) as u64)?;
        self.count.store(count + 1, Ordering::Release);
        Ok(())
    }

    /// Drops all entries from number `count` on.
    pub(crate) fn truncate(&self, count: usize) -> io::Result<()> {
        self.count.store(count, Ordering::Release);
        disk::set_len(&*self.file.create()?, (count * N) as u64)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.count() > 0 {
            disk::sync_data(&*self.file.get()?)
        } else {
            Ok(())
        }
    }

    pub(crate) fn release(&self) {
        self.file.release();
    }

    /// Opens the file, so that it can be read when its name is another's.
    pub(crate) fn pin(&self) -> io::Result<()> {
        if self.count() > 0 {
            self.file.get()?;
        }
        Ok(())
    }

    /// Returns the entry with this number.
    pub(crate) fn entry(&self, number: usize) -> io::Result<[u8; N]> {
        let mut buffer = Vec::with_capacity(N);
        disk::read_at(&*self.file.get()?, &mut buffer, (number * N) as u64, N)?;
        buffer
            .first_chunk()
            .copied()
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Returns up to `count` entries from this number on.
    pub(crate) fn entries(&self, number: usize, count: usize) -> io::Result<Vec<[u8; N]>> {
        let count = count.min(self.count().saturating_sub(number));
        let mut buffer = Vec::new();
        if count > 0 {
            let file = self.file.get()?;
            disk::read_at(&file, &mut buffer, (number * N) as u64, count * N)?;
        }
        let (entries, _) = buffer.as_chunks::<N>();
        if entries.len() < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(entries.to_vec())
    }

    /// Returns the last entry.
    pub(crate) fn last(&self) -> io::Result<Option<[u8; N]>> {
        self.count()
            .checked_sub(1)
            .map(|number| self.entry(number))
            .transpose()
    }

    /// Returns how many entries, from the first on, fulfil `before`.
    pub(crate) fn partition(&self, before: impl Fn(&[u8; N]) -> bool) -> io::Result<usize> {
        let (mut low, mut high) = (0, self.count());
        while high - low > BLOCK_ENTRIES {
            let middle = low + (high - low) / 2;
            if before(&self.entry(middle)?) {
                low = middle + 1
            } else {
                high = middle
            }
        }
        if low == high {
            return Ok(low);
        }
        let mut buffer = Vec::new();
        disk::read_at(
            &*self.file.get()?,
            &mut buffer,
            (low * N) as u64,
            (high - low) * N,
        )?;
        let (entries, _) = buffer.as_chunks::<N>();
        Ok(low + entries.partition_point(before))
    }

    /// Returns the last entry that fulfils `before`, if any.
    pub(crate) fn last_before(
        &self,
        before: impl Fn(&[u8; N]) -> bool,
    ) -> io::Result<Option<[u8; N]>> {
        let count = self.partition(before)?;
        count
            .checked_sub(1)
            .map(|number| self.entry(number))
            .transpose()
    }
}

/// Entry of an offset index: the last offset of a batch, relative to the segment's base, and where
/// the batch begins.
pub(crate) fn offset_entry(relative: u32, position: u32) -> [u8; 8] {
    let mut entry = [0; 8];
    entry[..4].copy_from_slice(&relative.to_be_bytes());
    entry[4..].copy_from_slice(&position.to_be_bytes());
    entry
}

/// Takes an offset entry apart again: relative offset and position.
pub(crate) fn read_offset_entry(entry: &[u8; 8]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = *entry;
    (
        u32::from_be_bytes([a, b, c, d]),
        u32::from_be_bytes([e, f, g, h]),
    )
}

/// Entry of a time index: no record up to this relative offset is later than the timestamp.
pub(crate) fn time_entry(timestamp: i64, relative: u32) -> [u8; 12] {
    let mut entry = [0; 12];
    entry[..8].copy_from_slice(&timestamp.to_be_bytes());
    entry[8..].copy_from_slice(&relative.to_be_bytes());
    entry
}

/// Takes a time entry apart again: timestamp and relative offset.
pub(crate) fn read_time_entry(entry: &[u8; 12]) -> (i64, u32) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
    (
        i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        u32::from_be_bytes([i, j, k, l]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_finds_what_a_scan_finds() {
        let dir = tempfile::tempdir().expect("a temp dir");
        for count in [0, 1, 2, 255, 256, 257, 2000] {
            let index = Index::<8>::open(dir.path().join(format!("{count}.index"))).expect("new");
            for number in 0..count {
                index
                    .push(offset_entry(number * 10, number))
                    .expect("written");
            }
            for wanted in [0, 1, 9, 10, 11, 2549, 2550, 2551, 19_990, 30_000] {
                let found = index
                    .last_before(|entry| read_offset_entry(entry).0 <= wanted)
                    .expect("readable")
                    .map(|entry| read_offset_entry(&entry).1);
                let naive = (0..count).rev().find(|number| number * 10 <= wanted);
                assert_eq!(found, naive, "{count} {wanted}");
            }
        }
    }

    #[test]
    fn half_an_entry_is_ignored_and_overwritten() {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = dir.path().join("0.timeindex");
        std::fs::write(&path, [time_entry(5, 6).as_slice(), &[1, 2, 3]].concat()).expect("written");
        let index = Index::<12>::open(path).expect("opens");
        assert_eq!(index.count(), 1);
        index.push(time_entry(7, 8)).expect("written");
        assert_eq!(
            index
                .last()
                .expect("readable")
                .as_ref()
                .map(read_time_entry),
            Some((7, 8))
        );
    }
}
