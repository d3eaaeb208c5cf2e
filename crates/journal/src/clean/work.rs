//! Reading and writing of a pass.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use kafka::record::{self, Batch, Records};
use tracing::{error, info, warn};

use super::filter::{Fate, Filter, Transactions};
use super::keys::Keys;
use super::plan::{self, Span};
use super::{CleanError, Cleaned, Cleaning, DamageFound, Dirt, Limits};
use crate::aborted::{self, Aborted};
use crate::active::Active;
use crate::disk;
use crate::reader::Reader;
use crate::recover::{CLEANED, SWAP, rename};
use crate::scan::{Damage, Stop};
use crate::segment::{INDEXES, Segment, path};
use crate::shared::Shared;

/// Does a pass.
pub(super) fn run(
    cleaning: &Cleaning,
    dirt: &Dirt,
    now: i64,
    limits: &Limits,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Result<Cleaned, CleanError> {
    let mut keys = Keys::new(limits.keys_max());
    let reader = Reader {
        shared: Arc::clone(&cleaning.shared),
    };
    let aborted = reader
        .aborted(cleaning.start, cleaning.limit)
        .map_err(io::Error::other)?;
    let mut reading = Reading {
        cleaning,
        aborted: &aborted,
        limits,
        pace,
    };
    let end = reading.keys(&mut keys, dirt)?;
    let mut cleaned = Cleaned {
        from: dirt.from,
        to: end,
        keys: keys.len(),
        ..Cleaned::default()
    };
    if end <= dirt.from {
        return Ok(cleaned);
    }
    {
        let mut shape = cleaning.shared.shape();
        if shape.keeps_out() {
            return Err(CleanError::Changed);
        }
        cleaning.shared.write_checkpoint(&mut shape, |next| {
            next.sparse_to = next.sparse_to.max(end);
        })?;
        let mut state = cleaning.shared.state_mut();
        state.sparse_to = state.sparse_to.max(end);
    }
    let spans = spans(cleaning);
    let excluded = spans.iter().find(|span| span.excluded);
    let unmet_from = excluded.map(|span| span.base);
    let config = &cleaning.config;
    let mut filter = Filter {
        keys: &keys,
        end,
        bound: dirt.to,
        now,
        tombstone_ms: cleaning.settings.tombstone_ms,
        keep_tombstones: unmet_from.is_some_and(|base| base < end),
        producers: &cleaning.producers,
        transactions: Transactions::new(aborted.clone(), cleaning.start, unmet_from),
        levels: cleaning.settings.levels,
        inflated_max: limits.inflated_max,
    };
    let groups = plan::groups(
        &spans,
        end,
        u64::from(config.segment_bytes),
        u64::from(config.index_bytes_max),
    );
    for group in groups {
        if cleaning.shared.shape().keeps_out() {
            return Err(CleanError::Changed);
        }
        let old = &cleaning.segments[group];
        let written = reading.group(old, &mut filter, now);
        let Written { segment, removed } = match written {
            Ok(written) => written,
            Err(error) => {
                let shape = cleaning.shared.shape();
                if !shape.foreign {
                    discard(&cleaning.shared.dir, old[0].base());
                }
                return Err(error);
            }
        };
        cleaned.removed += removed;
        cleaned.bytes_before += old.iter().map(|segment| segment.size()).sum::<u64>();
        cleaned.bytes_after += segment.size();
        let same = old.len() == 1 && segment.size() == old[0].size() && removed == 0;
        if same {
            let shape = cleaning.shared.shape();
            if shape.foreign {
                return Err(CleanError::Changed);
            }
            discard(&cleaning.shared.dir, old[0].base());
            continue;
        }
        swap(&cleaning.shared, old, &segment, now)?;
    }
    let mut shape = cleaning.shared.shape();
    if shape.keeps_out() {
        return Err(CleanError::Changed);
    }
    cleaning
        .shared
        .write_checkpoint(&mut shape, |next| next.cleaned_to = end)?;
    Ok(cleaned)
}

fn spans(cleaning: &Cleaning) -> Vec<Span> {
    let segments = &cleaning.segments;
    let ends = segments[1..].iter().map(|segment| segment.base());
    let spans = segments.iter().zip(ends.chain([cleaning.active_base]));
    spans
        .map(|(segment, end)| Span {
            base: segment.base(),
            end,
            size: segment.size(),
            index_bytes: segment.index_bytes(),
            first: 0,
            latest: 0,
            // What must not change yet stays out of every group.
            excluded: cleaning.excluded.contains(&segment.base()) || end > cleaning.limit,
        })
        .collect()
}

/// A segment that was written in place of others, under other names.
struct Written {
    segment: Segment,
    removed: u64,
}

struct Reading<'a> {
    cleaning: &'a Cleaning,
    aborted: &'a [Aborted],
    limits: &'a Limits,
    pace: &'a mut dyn FnMut(u64) -> bool,
}

impl Reading<'_> {
    /// Reads the keys of the dirty part, as many as fit, and returns the offset after the last of them.
    fn keys(&mut self, keys: &mut Keys, dirt: &Dirt) -> Result<i64, CleanError> {
        let inflated_max = self.limits.inflated_max;
        let segments = self.cleaning.segments.iter();
        let dirty = segments
            .filter(|segment| segment.base() < dirt.to && self.next_base(segment) > dirt.from);
        let dirty: Vec<_> = dirty.collect();
        let from = dirty.first().map_or(dirt.from, |first| first.base());
        let mut transactions = Transactions::new(self.aborted.to_vec(), from, None);
        let mut end = dirt.from;
        for segment in dirty {
            let next = self.next_base(segment);
            let mut full = None;
            self.batches(segment, |batch| {
                if transactions.meet(batch) || batch.control() || full.is_some() {
                    return Ok(());
                }
                let Ok(records) = Records::read(batch, inflated_max) else {
                    return Ok(()); // it stays as it is
                };
                for record in records.iter().map_while(Result::ok) {
                    let dirty = record.offset >= dirt.from;
                    if let Some(key) = record.key.filter(|_| dirty)
                        && !keys.put(key, record.offset)
                    {
                        full = Some(record.offset);
                        return Ok(());
                    }
                }
                Ok(())
            })?;
            if let Some(full) = full {
                return Ok(full);
            }
            end = next;
        }
        Ok(end)
    }

    fn next_base(&self, segment: &Segment) -> i64 {
        let segments = &self.cleaning.segments;
        let after = segments.partition_point(|one| one.base() <= segment.base());
        segments
            .get(after)
            .map_or(self.cleaning.active_base, |next| next.base())
    }

    /// Writes what stays of a group of segments.
    fn group(
        &mut self,
        old: &[Arc<Segment>],
        filter: &mut Filter<'_>,
        now: i64,
    ) -> Result<Written, CleanError> {
        let shared = &self.cleaning.shared;
        let (base, buffer_bytes) = (old[0].base(), self.limits.buffer_bytes);
        let segment = Arc::new(Segment::create_named(&shared.dir, base, CLEANED, now)?);
        let mut output = Output {
            active: Active::new(Arc::clone(&segment), now)?,
            file: segment.file()?,
            interval: self.cleaning.config.index_interval_bytes,
            position: 0,
            buffer: Vec::with_capacity(buffer_bytes),
            removed: 0,
        };
        for segment in old {
            let mut written = 0;
            self.batches(segment, |batch| {
                match filter.judge(batch) {
                    Fate::Whole => output.push(batch.bytes())?,
                    Fate::Gone => output.removed += batch.record_count().max(0) as u64,
                    Fate::Rewritten(bytes, removed) => {
                        output.push(&bytes)?;
                        output.removed += removed;
                    }
                }
                if output.buffer.len() >= buffer_bytes {
                    written += output.buffer.len() as u64;
                    output.write()?;
                }
                Ok(())
            })?;
            self.step(written)?;
        }
        output.write()?;
        output.active.note_time();
        if old.iter().any(|segment| segment.aborted.count() > 0) {
            segment.aborted.truncate(0)?; // makes the file, which takes the place of the old one
        }
        for aborted in filter.transactions.met.drain(..) {
            aborted::push(&segment.aborted, aborted)?;
        }
        let Output {
            active,
            file,
            position,
            removed,
            ..
        } = output;
        segment.publish(position, now);
        segment.sync()?;
        let modified = old.last().map_or(now, |last| last.modified_ms());
        let since = Duration::from_millis(u64::try_from(modified).unwrap_or_default());
        file.set_modified(UNIX_EPOCH + since)?;
        drop(active);
        let segment = Arc::into_inner(segment).ok_or(CleanError::Changed)?;
        Ok(Written { segment, removed })
    }

    fn step(&mut self, bytes: u64) -> Result<(), CleanError> {
        match (self.pace)(bytes) {
            true => Ok(()),
            false => Err(CleanError::Stopped),
        }
    }

    /// Shows the batches of a segment, each held against its checksum. One that is damaged excludes the
    /// segment from now on.
    fn batches(
        &mut self,
        segment: &Segment,
        mut show: impl FnMut(&Batch<'_>) -> io::Result<()>,
    ) -> Result<(), CleanError> {
        let excluded = self.cleaning.excluded.contains(&segment.base());
        let mut last_good = segment.base();
        match self.walk(segment, &mut last_good, &mut show) {
            Ok(()) => Ok(()),
            Err(Failure::Clean(error)) => Err(error),
            // Known before: its records supersede others as far as they can be read.
            Err(Failure::Damaged(_)) if excluded => Ok(()),
            Err(Failure::Damaged(damage)) => {
                let dir = self.cleaning.shared.dir.display();
                error!(%dir, segment = segment.base(), offset = last_good, problem = %damage,
                    "the log is damaged, this segment is not compacted any more");
                self.cleaning.shared.state_mut().rotten.push(segment.base());
                Err(CleanError::Damaged {
                    segment: segment.base(),
                    offset: last_good,
                    source: DamageFound::from(damage),
                })
            }
        }
    }

    fn walk(
        &mut self,
        segment: &Segment,
        last_good: &mut i64,
        show: &mut impl FnMut(&Batch<'_>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let (file, size) = (segment.file()?, segment.size());
        let fences = &self.cleaning.fences;
        let (mut position, mut want) = (0, self.limits.buffer_bytes);
        let mut buffer = Vec::new();
        while position < size {
            let inside = fences.iter().find(|fence| {
                fence.segment == segment.base()
                    && (fence.from_position..fence.to_position).contains(&position)
            });
            if let Some(fence) = inside {
                position = fence.to_position;
                continue;
            }
            buffer.clear();
            let room = (want as u64).min(size - position) as usize;
            disk::read_at(&file, &mut buffer, position, room)?;
            self.step(buffer.len() as u64)?;
            if buffer.is_empty() {
                return Err(record::Error::CutShort.into());
            }
            let mut batches = record::batches(&buffer);
            let stop = loop {
                match batches.next() {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(batch)) => {
                        batch.verify()?;
                        show(&batch)?;
                        *last_good = batch.next_offset();
                    }
                }
            };
            let done = batches.position();
            position += done as u64;
            want = self.limits.buffer_bytes;
            match stop {
                None => {}
                Some(record::Error::CutShort) if done > 0 => {}
                Some(record::Error::CutShort) if position + (room as u64) < size => {
                    // One batch is larger than the buffer.
                    let header = record::Header::parse(&buffer)?;
                    want = header.size().max(2 * record::HEADER_LEN);
                    if want <= room {
                        return Err(record::Error::CutShort.into());
                    }
                }
                Some(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

enum Failure {
    Damaged(Damage),
    Clean(CleanError),
}

impl From<record::Error> for Failure {
    fn from(error: record::Error) -> Failure {
        Failure::Damaged(Damage::Batch(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Clean(error.into())
    }
}

impl From<CleanError> for Failure {
    fn from(error: CleanError) -> Failure {
        Failure::Clean(error)
    }
}

impl From<Stop> for CleanError {
    fn from(stop: Stop) -> CleanError {
        match stop {
            Stop::Disk(error) => CleanError::Disk(error),
            Stop::Damaged(problem) => CleanError::Disk(io::Error::other(problem.to_string())),
        }
    }
}

/// A segment that is being written.
struct Output {
    active: Active,
    file: Arc<File>,
    interval: u32,
    /// Bytes of it that were written or wait in the buffer.
    position: u64,
    buffer: Vec<u8>,
    removed: u64,
}

impl Output {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (batch, _) = Batch::split_first(bytes).map_err(io::Error::other)?;
        self.active.note(&batch, self.position, self.interval);
        self.buffer.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let from = self.position - self.buffer.len() as u64;
        disk::write_all_at(&self.file, &mut [IoSlice::new(&self.buffer)], from)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Puts a cleaned segment in the place of the old ones. See [`crate::recover`] for what an interruption
/// leaves and how it is finished.
fn swap(
    shared: &Shared,
    old: &[Arc<Segment>],
    cleaned: &Segment,
    now: i64,
) -> Result<(), CleanError> {
    let (dir, base) = (shared.dir.as_path(), old[0].base());
    let mut shape = shared.shape();
    let at = {
        let state = shared.state();
        let at = state.segments.partition_point(|one| one.base() < base);
        let there = state.segments.get(at..at + old.len());
        let same = there.is_some_and(|there| {
            let mut pairs = there.iter().zip(old);
            pairs.all(|(there, old)| Arc::ptr_eq(there, old))
        });
        // Damage found since then has its place in the old file.
        let mut found = state.fences.iter();
        let damaged = found.any(|fence| old.iter().any(|segment| segment.base() == fence.segment));
        if shape.keeps_out() || !same || damaged {
            drop(state);
            if !shape.foreign {
                discard(dir, base);
            }
            return Err(CleanError::Changed);
        }
        at
    };
    for segment in old {
        segment.pin()?;
    }
    if let Err(error) = offer(dir, base) {
        // The next start must not take it for good: the log may be another by then.
        if let Err(error) = withdraw(dir, base) {
            shape.unfinished = true;
            warn!(dir = %dir.display(), %error, "an unfinished compaction could not be undone");
        }
        return Err(error.into());
    }
    // From here on the cleaned segment holds: the next start would finish what fails below.
    cleaned.release();
    let finished = finish(dir, base, old);
    let segment = Segment::open(dir, base, now);
    let mut state = shared.state_mut();
    match (finished, segment) {
        (Ok(()), Ok(segment)) => {
            segment.trust(0);
            state
                .segments
                .splice(at..at + old.len(), [Arc::new(segment)]);
            state.generation += 1;
            info!(dir = %dir.display(), base, segments = old.len(), bytes = cleaned.size(), "compacted");
            Ok(())
        }
        (Err(error), _) | (_, Err(error)) => {
            // The old segments are still open, so nothing is missed until then.
            shape.unfinished = true;
            warn!(dir = %dir.display(), %error, "a compaction ends with the next start");
            Err(error.into())
        }
    }
}

/// Gives the files of a cleaned segment the names that the next start obeys, the batches last.
fn offer(dir: &Path, base: i64) -> io::Result<()> {
    for extension in INDEXES {
        let named = |ending| path(dir, base, &format!("{extension}{ending}"));
        match disk::rename(&named(CLEANED), &named(SWAP)) {
            // One that an earlier compaction may have left is not of this segment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk::remove(&named(SWAP))?,
            done => done?,
        }
    }
    disk::sync_dir(dir)?;
    let named = |ending| path(dir, base, &format!("log{ending}"));
    disk::rename(&named(CLEANED), &named(SWAP))?;
    disk::sync_dir(dir)
}

/// Takes back what [`offer`] has done, the batches first: without them the indexes mean nothing.
fn withdraw(dir: &Path, base: i64) -> io::Result<()> {
    disk::remove(&path(dir, base, &format!("log{SWAP}")))?;
    disk::sync_dir(dir)?;
    for extension in INDEXES {
        disk::remove(&path(dir, base, &format!("{extension}{SWAP}")))?;
    }
    discard(dir, base);
    Ok(())
}

fn finish(dir: &Path, base: i64, old: &[Arc<Segment>]) -> io::Result<()> {
    for segment in &old[1..] {
        segment.remove()?;
    }
    rename(dir, base)
}

/// Removes what was written of a cleaned segment.
fn discard(dir: &Path, base: i64) {
    for extension in INDEXES.iter().chain(&["log"]) {
        let path = path(dir, base, &format!("{extension}{CLEANED}"));
        if let Err(error) = disk::remove(&path) {
            warn!(path = %path.display(), %error, "could not remove an unfinished file");
        }
    }
}
