//! One segment: a file of batches with its indexes.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kafka::record::{HEADER_LEN, Header, NO_TIMESTAMP};
use tracing::warn;

use crate::aborted;
use crate::disk::{self, LazyFile};
use crate::index::{self, Index};
use crate::scan::{Damage, NEAR, Stop, Walk};

/// Places that readers left off at, so that going on from there needs no search.
const HINTS_MAX: usize = 8;

/// The extensions of a segment's files beside its batches.
pub(crate) const INDEXES: [&str; 3] = ["index", "timeindex", "txnindex"];

/// Returns the path of a segment's file.
pub(crate) fn path(dir: &Path, base: i64, extension: &str) -> PathBuf {
    dir.join(format!("{base:020}.{extension}"))
}

/// A segment, shared by the writer and all readers.
#[derive(Debug)]
pub(crate) struct Segment {
    base: i64,
    log: LazyFile,
    /// Bytes of whole batches; what lies behind in the file does not count.
    size: AtomicU64,
    pub(crate) offsets: Index<8>,
    pub(crate) times: Index<12>,
    /// Transactions whose markers in this segment say that they were aborted.
    pub(crate) aborted: Index<{ aborted::ENTRY }>,
    /// From this position on the bytes were written or checked by this process.
    trusted_from: AtomicU64,
    /// Up to this position readers have checked the bytes, one after another.
    checked_to: AtomicU64,
    /// Latest timestamp, and the last offset of the batch that has it.
    max_timestamp: AtomicI64,
    max_timestamp_offset: AtomicI64,
    /// Modification time for segments whose records have no timestamp.
    modified_ms: AtomicI64,
    hints: Mutex<Vec<(i64, u64)>>,
}

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) size: usize,
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) max_timestamp: i64,
}

impl Place {
    pub(crate) fn new(header: &Header<'_>, position: u64) -> Place {
        Place {
            position,
            size: header.size(),
            base_offset: header.base_offset(),
            last_offset: header.last_offset(),
            max_timestamp: header.max_timestamp(),
        }
    }
}

impl Segment {
    /// Takes the segment with this base offset as it lies on disk, all of its bytes.
    pub(crate) fn open(dir: &Path, base: i64, now: i64) -> io::Result<Segment> {
        Segment::open_named(dir, base, "", now)
    }

    /// Does the same for one whose files have another ending after their own.
    fn open_named(dir: &Path, base: i64, ending: &str, now: i64) -> io::Result<Segment> {
        let path = |dir, base, extension| path(dir, base, &format!("{extension}{ending}"));
        let log = path(dir, base, "log");
        let (size, modified_ms) = match std::fs::metadata(&log) {
            Ok(metadata) => (metadata.len(), modified_ms(&metadata).unwrap_or(now)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, now),
            Err(error) => return Err(error),
        };
        let segment = Segment {
            base,
            log: LazyFile::new(log),
            size: AtomicU64::new(size),
            trusted_from: AtomicU64::new(size),
            checked_to: AtomicU64::new(0),
            offsets: Index::open(path(dir, base, "index"))?,
            times: Index::open(path(dir, base, "timeindex"))?,
            aborted: Index::open(path(dir, base, "txnindex"))?,
            max_timestamp: AtomicI64::new(NO_TIMESTAMP),
            max_timestamp_offset: AtomicI64::new(base),
            modified_ms: AtomicI64::new(modified_ms),
            hints: Mutex::new(Vec::new()),
        };
        segment.reset_max_timestamp()?;
        Ok(segment)
    }

    /// Creates a segment's files, empty.
    pub(crate) fn create(dir: &Path, base: i64, now: i64) -> io::Result<Segment> {
        Segment::create_named(dir, base, "", now)
    }

    /// Does the same with another ending after the files' own.
    pub(crate) fn create_named(
        dir: &Path,
        base: i64,
        ending: &str,
        now: i64,
    ) -> io::Result<Segment> {
        for extension in INDEXES {
            disk::remove(&path(dir, base, &format!("{extension}{ending}")))?;
        }
        let segment = Segment::open_named(dir, base, ending, now)?;
        segment.cut(0)?;
        segment.trust(0);
        segment.offsets.truncate(0)?;
        segment.times.truncate(0)?;
        Ok(segment)
    }

    /// Removes what there is of a segment that could not be created.
    pub(crate) fn discard(dir: &Path, base: i64) {
        for extension in INDEXES.iter().chain(&["log"]) {
            if let Err(error) = disk::remove(&path(dir, base, extension)) {
                warn!(dir = %dir.display(), base, %error, "an empty segment is left");
            }
        }
    }

    pub(crate) fn base(&self) -> i64 {
        self.base
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn path(&self) -> &Path {
        self.log.path()
    }

    pub(crate) fn file(&self) -> io::Result<Arc<File>> {
        self.log.get()
    }

    /// Lets readers see the bytes up to `size`.
    pub(crate) fn publish(&self, size: u64, now: i64) {
        self.modified_ms.store(now, Ordering::Relaxed);
        self.size.store(size, Ordering::Release);
    }

    /// Notes that the bytes from `position` on are those that were written there.
    pub(crate) fn trust(&self, position: u64) {
        self.trusted_from.fetch_min(position, Ordering::Relaxed);
    }

    /// Returns whether the bytes in this range need no check any more.
    pub(crate) fn trusted(&self, from: u64, to: u64) -> bool {
        from >= self.trusted_from.load(Ordering::Relaxed)
            || to <= self.checked_to.load(Ordering::Relaxed)
    }

    /// Notes that a reader has checked the bytes in this range.
    pub(crate) fn note_checked(&self, from: u64, to: u64) {
        if from <= self.checked_to.load(Ordering::Relaxed) {
            self.checked_to.fetch_max(to, Ordering::Relaxed);
        }
    }

    /// Cuts the file to `size` bytes.
    pub(crate) fn cut(&self, size: u64) -> io::Result<()> {
        disk::set_len(&*self.log.create()?, size)?;
        self.size.store(size, Ordering::Release);
        self.hints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(())
    }

    /// Closes all files until they are needed again.
    pub(crate) fn release(&self) {
        self.log.release();
        self.offsets.release();
        self.times.release();
        self.aborted.release();
    }

    /// Opens all files, so that whoever holds the segment can read it when its names are another's.
    pub(crate) fn pin(&self) -> io::Result<()> {
        self.log.get()?;
        self.offsets.pin()?;
        self.times.pin()?;
        self.aborted.pin()
    }

    /// Removes all files. Readers that hold them open go on.
    pub(crate) fn remove(&self) -> io::Result<()> {
        disk::remove(self.log.path())?;
        disk::remove(self.offsets.path())?;
        disk::remove(self.times.path())?;
        disk::remove(self.aborted.path())
    }

    /// Puts all of it on disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        disk::sync_data(&*self.file()?)?;
        self.sync_indexes()
    }

    /// Puts the indexes on disk.
    pub(crate) fn sync_indexes(&self) -> io::Result<()> {
        self.offsets.sync()?;
        self.times.sync()?;
        self.aborted.sync()
    }

    /// Takes the space on disk that the segment may need, as far as the file system knows how.
    pub(crate) fn preallocate(&self, bytes: u32) {
        let taken = self.file().and_then(|file| {
            let flags = rustix::fs::FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&*file, flags, 0, u64::from(bytes))?)
        });
        if let Err(error) = taken {
            warn!(path = %self.path().display(), %error, "no space taken in advance");
        }
    }

    /// Returns the bytes of its largest index.
    pub(crate) fn index_bytes(&self) -> u64 {
        (self.offsets.count() * 8).max(self.times.count() * 12) as u64
    }

    /// Returns the timestamp of the first batch, or -1.
    pub(crate) fn first_timestamp(&self) -> io::Result<i64> {
        if self.size() == 0 {
            return Ok(NO_TIMESTAMP);
        }
        let file = self.file()?;
        match Walk::new(&file, 0, self.size(), NEAR).header() {
            Ok(header) => Ok(header.map_or(NO_TIMESTAMP, |header| header.max_timestamp())),
            Err(Stop::Damaged(_)) => Ok(NO_TIMESTAMP),
            Err(Stop::Disk(error)) => Err(error),
        }
    }

    /// Returns when the file was last written to, in ms since 1970.
    pub(crate) fn modified_ms(&self) -> i64 {
        self.modified_ms.load(Ordering::Relaxed)
    }

    /// Returns the latest timestamp and the last offset of the batch that has it.
    pub(crate) fn max_timestamp(&self) -> (i64, i64) {
        let timestamp = self.max_timestamp.load(Ordering::Acquire);
        (timestamp, self.max_timestamp_offset.load(Ordering::Acquire))
    }

    pub(crate) fn set_max_timestamp(&self, timestamp: i64, offset: i64) {
        self.max_timestamp_offset.store(offset, Ordering::Release);
        self.max_timestamp.store(timestamp, Ordering::Release);
    }

    /// Takes the latest timestamp from the last entry of the time index.
    pub(crate) fn reset_max_timestamp(&self) -> io::Result<()> {
        let last = self
            .times
            .last()?
            .map(|entry| index::read_time_entry(&entry));
        let (timestamp, relative) = last.unwrap_or((NO_TIMESTAMP, 0));
        self.set_max_timestamp(timestamp, self.base + i64::from(relative));
        Ok(())
    }

    /// Returns the time that decides about retention, in ms since 1970.
    pub(crate) fn age_from(&self) -> i64 {
        match self.max_timestamp().0 {
            NO_TIMESTAMP => self.modified_ms.load(Ordering::Relaxed),
            timestamp => timestamp,
        }
    }

    /// Remembers that the batch with this base offset begins at `position`.
    pub(crate) fn hint(&self, offset: i64, position: u64) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        if hints.contains(&(offset, position)) {
            return;
        }
        if hints.len() == HINTS_MAX {
            hints.remove(0);
        }
        hints.push((offset, position));
    }

    /// Returns a position at or before the batch that holds `offset`.
    fn near(&self, offset: i64, size: u64) -> Result<u64, Stop> {
        {
            let hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, position)) = hints.iter().find(|(known, _)| *known == offset) {
                return Ok(*position);
            }
        }
        let entry = self.offsets.last_before(|entry| {
            self.base + i64::from(index::read_offset_entry(entry).0) <= offset
        })?;
        let Some(entry) = entry else { return Ok(0) };
        let (relative, position) = index::read_offset_entry(&entry);
        let (last_offset, position) = (self.base + i64::from(relative), u64::from(position));
        let file = self.file()?;
        match Walk::new(&file, position, size, HEADER_LEN).header() {
            Ok(Some(header)) if header.last_offset() == last_offset => Ok(position),
            Err(Stop::Disk(error)) => Err(error.into()),
            _ => {
                warn!(path = %self.offsets.path().display(), "index is damaged, searching without it");
                Ok(0)
            }
        }
    }

    /// Finds the first batch that fulfils `wanted`, walking from around `offset`, within `size` bytes.
    ///
    /// `skip` tells where to go on when a position must not be read.
    pub(crate) fn find(
        &self,
        offset: i64,
        size: u64,
        skip: impl Fn(u64) -> Option<u64>,
        wanted: impl Fn(&Header<'_>) -> bool,
    ) -> Result<Option<Place>, Stop> {
        let position = self.near(offset, size)?;
        if position >= size {
            return Ok(None);
        }
        let file = self.file()?;
        let mut walk = Walk::new(&file, position, size, NEAR);
        let mut due = self.base;
        loop {
            let position = walk.position();
            if let Some(next) = skip(position) {
                walk.seek(next);
                continue;
            }
            let Some(header) = walk.header()? else {
                return Ok(None);
            };
            // Offsets only grow, whether some are missing or not.
            let found = header.base_offset();
            if found < due {
                return Err(Stop::Damaged(Damage::Offset { found, due }));
            }
            due = header.next_offset();
            if wanted(&header) {
                return Ok(Some(Place::new(&header, position)));
            }
            let next = position + header.size() as u64;
            walk.seek(next);
        }
    }

    /// Returns where [`Segment::find`] meets a header that it cannot read, and the offset that is due there if a batch
    /// before it was read.
    pub(crate) fn broken(
        &self,
        offset: i64,
        size: u64,
        skip: impl Fn(u64) -> Option<u64>,
    ) -> Result<Option<(u64, Option<i64>)>, Stop> {
        let position = self.near(offset, size)?;
        let file = self.file()?;
        let mut walk = Walk::new(&file, position, size, NEAR);
        let mut due = (position == 0).then_some(self.base);
        loop {
            let position = walk.position();
            if let Some(next) = skip(position) {
                walk.seek(next);
                due = None;
                continue;
            }
            let header = match walk.header() {
                Ok(Some(header)) if header.base_offset() < due.unwrap_or(self.base) => {
                    return Ok(Some((position, due)));
                }
                Ok(Some(header)) => header,
                Ok(None) => return Ok(None),
                Err(Stop::Damaged(_)) => return Ok(Some((position, due))),
                Err(stop) => return Err(stop),
            };
            due = Some(header.next_offset());
            let next = position + header.size() as u64;
            walk.seek(next);
        }
    }

    /// Returns the offset that is due at a position where a batch begins, by the batches before it; `None` when they
    /// do not tell.
    pub(crate) fn due(
        &self,
        position: u64,
        skip: impl Fn(u64) -> Option<u64>,
    ) -> Result<Option<i64>, Stop> {
        let before = |entry: &[u8; 8]| u64::from(index::read_offset_entry(entry).1) < position;
        let file = self.file()?;
        let mut walk = Walk::new(&file, 0, position, NEAR);
        let mut due = Some(self.base);
        if let Some(entry) = self.offsets.last_before(before)? {
            let (relative, at) = index::read_offset_entry(&entry);
            walk.seek(u64::from(at));
            let last = self.base + i64::from(relative);
            match walk.header() {
                Ok(Some(header)) if header.last_offset() == last => {
                    due = Some(header.base_offset())
                }
                Err(Stop::Disk(error)) => return Err(error.into()),
                _ => walk.seek(0),
            }
        }
        while walk.position() < position {
            let at = walk.position();
            if let Some(next) = skip(at) {
                due = None;
                walk.seek(next);
                continue;
            }
            let next = match walk.header() {
                Ok(Some(header)) => {
                    due = Some(header.next_offset());
                    at + header.size() as u64
                }
                Err(Stop::Disk(error)) => return Err(error.into()),
                _ => return Ok(None),
            };
            walk.seek(next);
        }
        Ok(due.filter(|_| walk.position() == position))
    }

    /// Returns where the index says that batches begin behind `position`, each with its last offset.
    pub(crate) fn indexed_behind(&self, position: u64) -> io::Result<Vec<(u64, i64)>> {
        let entries = self.offsets.entries(0, self.offsets.count())?;
        let known = entries.iter().map(|entry| {
            let (relative, position) = index::read_offset_entry(entry);
            (u64::from(position), self.base + i64::from(relative))
        });
        let mut behind: Vec<(u64, i64)> = known.filter(|(known, _)| *known > position).collect();
        behind.sort_unstable();
        Ok(behind)
    }

    /// Reads the bytes of a batch.
    pub(crate) fn read(&self, place: &Place) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        disk::read_at(&*self.file()?, &mut bytes, place.position, place.size)?;
        if bytes.len() < place.size || place.size < HEADER_LEN {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

fn modified_ms(metadata: &std::fs::Metadata) -> Option<i64> {
    let since = metadata
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    i64::try_from(since.as_millis()).ok()
}
