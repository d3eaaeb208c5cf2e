//! One partition's log, as its only writer sees it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka::record::{self, Batch, HEADER_LEN, Header, TimestampType};
use tracing::warn;

use crate::active::Active;
use crate::checkpoint::{Checkpoint, Recovery};
use crate::config::{Config, Retention};
use crate::disk;
use crate::metadata;
use crate::producer::{self, EndOfTransaction, Kept, Origin, Producers, Verdict, snapshot};
use crate::reader::{Reader, Shared, State};
use crate::recover::{self, Loaded, Report};
use crate::segment::Segment;

/// After this many bytes the recovery point moves on, which bounds what an unclean start must read.
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// What a deleted partition's folder is called until it is gone.
const DELETED: &str = "-delete";

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder belongs to another topic, perhaps an older one of the same name.
    #[error("`{}` belongs to another topic", dir.display())]
    OtherTopic {
        /// The partition's folder.
        dir: PathBuf,
    },
    /// The disk did not answer.
    #[error("could not open the log in `{}`", dir.display())]
    Disk {
        /// The partition's folder.
        dir: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not batches that can be stored.
    #[error("the records are not valid")]
    Invalid(#[from] record::Error),
    /// The batch is larger than the topic takes.
    #[error("a batch of {size} bytes is larger than the limit of {max}")]
    TooLarge {
        /// Size of the batch.
        size: usize,
        /// The topic's `max.message.bytes`.
        max: usize,
    },
    /// The producer's epoch or sequence is wrong.
    #[error(transparent)]
    Producer(#[from] producer::Refusal),
    /// The disk refused, for example because it is full; appending may work later.
    #[error("could not write to the log")]
    Disk(#[from] io::Error),
    /// An earlier flush failed, so what is on disk is unknown until the log is opened again.
    #[error("the log failed earlier and must be opened again")]
    Failed,
}

/// Why a start offset cannot be moved or a log cannot be cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The offset is beyond the end.
    #[error("offset {offset} is after the end of the log at {end}")]
    OutOfRange {
        /// What was asked for.
        offset: i64,
        /// Offset that the next record gets.
        end: i64,
    },
    /// The disk refused.
    #[error("could not change the log")]
    Disk(#[from] io::Error),
}

/// What became of appended batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record; on disk once the stable offset is beyond it.
    pub last_offset: i64,
    /// The time that the log put on the records, if it does so.
    pub append_time: Option<i64>,
    /// Whether the batch was there already; the offsets are those that it got then.
    pub duplicate: bool,
}

/// A flush under way: run it on any thread, then tell the log.
#[derive(Debug)]
pub struct Flush {
    file: Arc<File>,
    /// Folders with new names in them.
    dirs: Vec<PathBuf>,
    up_to: i64,
}

impl Flush {
    /// Waits until the disk has it all.
    pub fn run(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.dirs.iter().try_for_each(|dir| disk::sync_dir(dir))
    }
}

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    config: Config,
    active: Active,
    producers: Producers,
    /// As it is on disk.
    checkpoint: Checkpoint,
    snapshots: BTreeSet<i64>,
    leader_epoch: i32,
    /// Bytes were appended since the last flush began.
    dirty: bool,
    /// Folders whose names must be on disk before what was appended counts as such.
    dirs_dirty: Vec<PathBuf>,
    since_checkpoint: u64,
    /// A failed append may have left bytes behind the last batch.
    uncut: bool,
    failed: bool,
}

impl Log {
    /// Opens the log in `dir`, or creates it, and recovers what an unclean stop left behind.
    ///
    /// `now` is in ms since 1970. With a `topic_id` the folder must belong to that topic, or to none.
    pub fn open(
        dir: &Path,
        topic_id: Option<[u8; 16]>,
        config: Config,
        now: i64,
    ) -> Result<(Log, Report), OpenError> {
        let failed = |source| OpenError::Disk {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let known = metadata::topic_id(dir).map_err(failed)?;
        match (known, topic_id) {
            (Some(known), Some(wanted)) if known != wanted => {
                return Err(OpenError::OtherTopic {
                    dir: dir.to_owned(),
                });
            }
            (None, Some(wanted)) => metadata::write(dir, wanted).map_err(failed)?,
            _ => {}
        }
        let loaded = recover::load(dir, &config, now).map_err(failed)?;
        let Loaded {
            segments,
            active,
            checkpoint,
            epochs,
            producers,
            snapshots,
            end,
            report,
        } = loaded;
        let fences = checkpoint.fences.clone();
        let mut dirs_dirty = Vec::new();
        if end == 0 {
            // The folder and its first files may have been made just now.
            dirs_dirty.push(dir.to_owned());
            dirs_dirty.extend(dir.parent().map(Path::to_owned));
        }
        let state = State {
            segments,
            fences,
            epochs,
        };
        let mut log = Log {
            shared: Arc::new(Shared::new(dir.to_owned(), state, checkpoint.start, end)),
            config,
            active,
            producers,
            checkpoint,
            snapshots,
            leader_epoch: report.latest_epoch,
            dirty: false,
            dirs_dirty,
            since_checkpoint: report.scanned_bytes,
            uncut: false,
            failed: false,
        };
        if !report.damaged.is_empty() {
            // The next start must not depend on finding the same damage by the same hints.
            log.checkpoint().map_err(failed)?;
        }
        Ok((log, report))
    }

    /// Returns a reader of this log.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Returns the partition's folder.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Returns the settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Changes the settings from the next append on.
    pub fn set_config(&mut self, config: Config) {
        self.config = config;
    }

    /// Returns the first offset of the log.
    pub fn start_offset(&self) -> i64 {
        self.shared.start()
    }

    /// Returns the offset before which everything is on disk.
    pub fn stable_offset(&self) -> i64 {
        self.shared.stable()
    }

    /// Returns the offset that the next record gets.
    pub fn end_offset(&self) -> i64 {
        self.shared.end()
    }

    /// Returns what is known of the partition's producers.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Returns the epoch that new batches carry, or -1 before the first [`Log::lead`].
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Puts this leader epoch on all batches from now on; it never goes backwards.
    ///
    /// It joins the history, and the disk, with its first batch.
    pub fn lead(&mut self, epoch: i32) {
        self.leader_epoch = self.leader_epoch.max(epoch);
    }

    /// Returns whether a flush has anything to do.
    pub fn dirty(&self) -> bool {
        self.dirty
    }

    /// Appends whole batches, whose checksums the caller has checked (see [`record::check`]).
    ///
    /// They get the next offsets and the leader epoch, and with `LogAppendTime` the time `now` (ms since
    /// 1970); else their bytes stay as they are. All of them are appended or, on an error, none. They
    /// can be read at once, and are safe when the stable offset has passed them.
    ///
    /// A batch of an idempotent client must come alone. One that was appended before is not appended
    /// again: the answer is that of the first time, and may not be stable yet either.
    pub fn append(
        &mut self,
        batches: &[u8],
        now: i64,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        self.usable()?;
        let batches = self.parse(batches, origin)?;
        let append_time = (self.config.timestamps == TimestampType::LogAppendTime).then_some(now);
        for batch in &batches {
            if let Verdict::Duplicate(kept) = self.producers.check(batch, origin)? {
                return Ok(again(&kept, self.config.timestamps));
            }
        }

        let base_offset = self.shared.end();
        let count: i64 = batches
            .iter()
            .map(|batch| i64::from(batch.last_offset_delta()) + 1)
            .sum();
        let size: usize = batches.iter().map(|batch| batch.bytes().len()).sum();
        let latest = batches.iter().map(|batch| batch.max_timestamp()).max();
        let latest = append_time.or(latest).unwrap_or(record::NO_TIMESTAMP);
        let last_offset = base_offset + count - 1;
        if self
            .active
            .full(&self.config, size, last_offset, latest, now)
        {
            self.roll(now)?;
        }
        self.note_epoch(base_offset)?;

        let mut next = base_offset;
        let mut headers = Vec::with_capacity(batches.len());
        for batch in &batches {
            headers.push(batch.placed(next, self.leader_epoch, append_time));
            next += i64::from(batch.last_offset_delta()) + 1;
        }
        let position = self.active.segment.size();
        self.write(position, &headers, &batches)?;

        let mut at = position;
        for (header, batch) in headers.iter().zip(&batches) {
            let header = Header::parse(header).expect("a placed header is still one");
            self.active
                .note(&header, at, self.config.index_interval_bytes);
            let marker = batch
                .control()
                .then(|| EndOfTransaction::read(batch))
                .flatten();
            self.producers.apply(&header, header.base_offset(), marker);
            at += header.size() as u64;
        }
        self.dirty = true;
        self.since_checkpoint += size as u64;
        self.active.segment.publish(position + size as u64, now);
        self.shared.set_end(next);
        Ok(Appended {
            base_offset,
            last_offset,
            append_time,
            duplicate: false,
        })
    }

    fn parse<'a>(&self, bytes: &'a [u8], origin: Origin) -> Result<Vec<Batch<'a>>, AppendError> {
        let batches: Vec<Batch<'a>> = record::batches(bytes).collect::<Result<_, _>>()?;
        let max = self.config.message_bytes_max as usize;
        for batch in &batches {
            let size = batch.bytes().len();
            if size > max && origin == Origin::Client {
                return Err(AppendError::TooLarge { size, max });
            }
        }
        let alone = batches.len() == 1;
        let numbered = batches.iter().any(|batch| batch.has_producer());
        if batches.is_empty() || (numbered && !alone && origin == Origin::Client) {
            return Err(AppendError::Invalid(record::Error::NotOneBatch));
        }
        Ok(batches)
    }

    /// Enters the leader epoch into the history when it gets its first batch.
    fn note_epoch(&mut self, base_offset: i64) -> io::Result<()> {
        let mut epochs = {
            let state = self.shared.state();
            if state.epochs.latest() >= Some(self.leader_epoch) || self.leader_epoch < 0 {
                return Ok(());
            }
            state.epochs.clone()
        };
        epochs.assign(self.leader_epoch, base_offset);
        epochs.write(&self.shared.dir)?;
        self.dirs_dirty.push(self.shared.dir.clone());
        self.shared.state_mut().epochs = epochs;
        Ok(())
    }

    /// Writes batches behind the last one; after an error nothing of them is left.
    fn write(
        &mut self,
        position: u64,
        headers: &[[u8; HEADER_LEN]],
        batches: &[Batch<'_>],
    ) -> Result<(), AppendError> {
        let mut parts = Vec::with_capacity(2 * batches.len());
        for (header, batch) in headers.iter().zip(batches) {
            parts.push(IoSlice::new(header));
            parts.push(IoSlice::new(batch.body()));
        }
        let file = self.active.segment.file()?;
        disk::write_all_at(&file, &mut parts, position).map_err(|error| {
            self.uncut = true;
            if let Err(error) = self.cut_back() {
                warn!(dir = %self.dir().display(), %error, "an unfinished write is still there");
            }
            AppendError::Disk(error)
        })
    }

    /// Removes what a failed write left behind the last batch.
    fn cut_back(&mut self) -> io::Result<()> {
        if self.uncut {
            let segment = &self.active.segment;
            segment.file()?.set_len(segment.size())?;
            self.uncut = false;
        }
        Ok(())
    }

    fn usable(&mut self) -> Result<(), AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        self.cut_back()?;
        Ok(())
    }

    /// Puts everything that was appended on disk and returns the stable offset.
    pub fn flush(&mut self) -> Result<i64, AppendError> {
        match self.begin_flush()? {
            None => Ok(self.shared.stable()),
            Some(flush) => {
                let result = flush.run();
                self.end_flush(&flush, result)
            }
        }
    }

    /// Starts to flush what was appended so far; `None` when everything is on disk.
    ///
    /// [`Flush::run`] may run on another thread, and appending may go on meanwhile, as long as its
    /// outcome comes back to [`Log::end_flush`] in the order in which flushes began.
    pub fn begin_flush(&mut self) -> Result<Option<Flush>, AppendError> {
        if self.failed {
            return Err(AppendError::Failed);
        }
        if !self.dirty {
            return Ok(None);
        }
        let file = self.active.segment.file()?;
        self.dirty = false;
        let dirs = std::mem::take(&mut self.dirs_dirty);
        Ok(Some(Flush {
            file,
            dirs,
            up_to: self.shared.end(),
        }))
    }

    /// Takes the outcome of a flush and returns the stable offset.
    ///
    /// After a failed one the system may have dropped what was to be written, so the log takes nothing
    /// more: it must be opened again.
    pub fn end_flush(&mut self, flush: &Flush, result: io::Result<()>) -> Result<i64, AppendError> {
        if let Err(error) = result {
            self.failed = true;
            return Err(AppendError::Disk(error));
        }
        self.shared
            .set_stable(self.shared.stable().max(flush.up_to));
        if self.since_checkpoint >= CHECKPOINT_BYTES
            && !self.dirty
            && let Err(error) = self.checkpoint()
        {
            // The next start reads more, that is all.
            warn!(dir = %self.dir().display(), %error, "could not move the recovery point");
            self.since_checkpoint = 0;
        }
        Ok(self.shared.stable())
    }

    /// Closes the active segment and begins a new one, with everything before it on disk.
    pub fn roll(&mut self, now: i64) -> Result<(), AppendError> {
        self.flush()?;
        let base = self.shared.end();
        if base == self.active.segment.base() {
            return Ok(()); // empty: nothing to close
        }
        self.active.note_time();
        self.sync_indexes()?;
        self.producers.expire(now, self.config.producer_idle_ms);
        self.snapshot()?;
        let dir = self.dir().to_owned();
        let segment = Arc::new(Segment::create(&dir, base, now)?);
        disk::sync_dir(&dir)?;
        let active = Active::new(Arc::clone(&segment), now)?;
        self.shared.state_mut().segments.push(segment);
        self.active = active;
        self.write_recovery_point()?;
        self.prune_snapshots();
        Ok(())
    }

    fn sync_indexes(&self) -> io::Result<()> {
        self.active.segment.offsets.sync()?;
        self.active.segment.times.sync()
    }

    fn snapshot(&mut self) -> io::Result<()> {
        let end = self.shared.end();
        snapshot::write(self.dir(), end, &self.producers)?;
        self.snapshots.insert(end);
        Ok(())
    }

    /// Writes all that lets the next start begin here. Everything must be flushed.
    fn checkpoint(&mut self) -> io::Result<()> {
        self.active.note_time();
        self.sync_indexes()?;
        self.snapshot()?;
        self.write_recovery_point()?;
        self.prune_snapshots();
        Ok(())
    }

    /// The place after the last batch.
    fn here(&self) -> Recovery {
        let segment = &self.active.segment;
        Recovery {
            segment: segment.base(),
            position: segment.size(),
            offset: self.shared.end(),
            offsets: segment.offsets.count(),
            times: segment.times.count(),
        }
    }

    fn write_recovery_point(&mut self) -> io::Result<()> {
        let recovery = self.here();
        self.write_checkpoint(Some(recovery))?;
        self.since_checkpoint = 0;
        Ok(())
    }

    fn write_checkpoint(&mut self, recovery: Option<Recovery>) -> io::Result<()> {
        let start = self.shared.start();
        let mut fences = self.checkpoint.fences.clone();
        fences.retain(|fence| fence.to_offset > start);
        let checkpoint = Checkpoint {
            start,
            recovery,
            fences,
        };
        checkpoint.write(self.dir())?;
        self.checkpoint = checkpoint;
        Ok(())
    }

    /// Removes snapshots that are neither the newest nor at the start of a segment.
    fn prune_snapshots(&mut self) {
        let newest = self.snapshots.last().copied();
        let bases: BTreeSet<i64> = self
            .shared
            .state()
            .segments
            .iter()
            .map(|segment| segment.base())
            .collect();
        let dir = self.dir().to_owned();
        self.snapshots.retain(|offset| {
            if Some(*offset) == newest || bases.contains(offset) {
                return true;
            }
            let path = snapshot::path(&dir, *offset);
            disk::remove(&path).is_err_and(|error| {
                warn!(path = %path.display(), %error, "could not remove an old snapshot");
                true
            })
        });
    }

    /// Deletes the oldest segments as far as the policy asks, and returns their base offsets.
    ///
    /// When even the newest record is too old, the active segment goes too.
    pub fn retain(&mut self, now: i64, policy: &Retention) -> Result<Vec<i64>, AppendError> {
        self.usable()?;
        let old = |segment: &Segment| {
            let age = now.saturating_sub(segment.age_from());
            policy.age_ms.is_some_and(|max| age > max)
        };
        if self.active.segment.size() > 0 && old(&self.active.segment) {
            self.roll(now)?;
        }
        let mut start = self.shared.start();
        {
            let state = self.shared.state();
            let mut left: u64 = state.segments.iter().map(|segment| segment.size()).sum();
            for pair in state.segments.windows(2) {
                let size = pair[0].size();
                let spare = policy.bytes.is_some_and(|max| left - size >= max);
                if !(old(&pair[0]) || spare || pair[1].base() <= start) {
                    break;
                }
                left -= size;
                start = start.max(pair[1].base());
            }
        }
        self.producers.expire(now, self.config.producer_idle_ms);
        Ok(self.move_start(start)?)
    }

    /// Hides all records before `offset` and deletes the segments that hold nothing else
    /// (DeleteRecords). Returns the start of the log.
    pub fn delete_before(&mut self, offset: i64) -> Result<i64, CutError> {
        let end = self.shared.end();
        if offset > end {
            return Err(CutError::OutOfRange { offset, end });
        }
        self.move_start(offset)?;
        Ok(self.shared.start())
    }

    /// Moves the start of the log on, durably, then deletes what lies wholly before it.
    fn move_start(&mut self, start: i64) -> io::Result<Vec<i64>> {
        if start <= self.shared.start() {
            return Ok(Vec::new());
        }
        let before = self.shared.start();
        self.shared.set_start(start);
        if let Err(error) = self.write_checkpoint(self.checkpoint.recovery) {
            self.shared.set_start(before);
            return Err(error);
        }
        let gone: Vec<Arc<Segment>> = {
            let mut state = self.shared.state_mut();
            state.epochs.trim(start);
            state.fences.retain(|fence| fence.to_offset > start);
            let count = state
                .segments
                .partition_point(|segment| segment.base() <= start)
                - 1;
            state.segments.drain(..count).collect()
        };
        for segment in &gone {
            segment.remove()?;
        }
        self.prune_snapshots();
        Ok(gone.iter().map(|segment| segment.base()).collect())
    }

    /// Removes all records from the batch that holds `offset` on, and returns the new end.
    pub fn truncate_to(&mut self, offset: i64, now: i64) -> Result<i64, CutError> {
        let end = self.shared.end();
        if offset > end {
            return Err(CutError::OutOfRange { offset, end });
        }
        let (segment, later) = {
            let state = self.shared.state();
            let number = state
                .segments
                .partition_point(|segment| segment.base() <= offset)
                .max(1)
                - 1;
            (
                Arc::clone(&state.segments[number]),
                state.segments[number + 1..].to_vec(),
            )
        };
        let found = segment.find(
            offset,
            segment.size(),
            |_| None,
            |header| header.last_offset() >= offset,
        );
        let (position, base_offset) = match found {
            Ok(Some(place)) => (place.position, place.base_offset),
            Ok(None) => (segment.size(), offset),
            Err(crate::scan::Stop::Damaged(_)) => return Err(damaged().into()),
            Err(crate::scan::Stop::Disk(error)) => return Err(error.into()),
        };
        // From here on a crash leads to a scan of this segment, wherever the cut has got to.
        let from = Recovery::start_of(segment.base());
        self.shared.set_start(self.shared.start().min(base_offset));
        self.write_checkpoint(Some(from))?;
        for segment in later.iter().rev() {
            segment.remove()?;
        }
        segment.cut(position)?;
        let dir = self.dir().to_owned();
        disk::sync_dir(&dir)?;

        let loaded = recover::load(&dir, &self.config, now)?;
        {
            let mut state = self.shared.state_mut();
            state.segments = loaded.segments;
            state.fences = loaded.checkpoint.fences.clone();
            state.epochs = loaded.epochs;
            state.epochs.write(&dir)?;
        }
        self.active = loaded.active;
        self.producers = loaded.producers;
        self.snapshots = loaded.snapshots;
        self.checkpoint = loaded.checkpoint;
        self.shared.set_end(loaded.end);
        self.shared.set_stable(loaded.end);
        self.dirs_dirty.push(dir);
        Ok(loaded.end)
    }

    /// Flushes and leaves everything so that the next start need not read the log.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.usable()?;
        self.flush()?;
        if self.checkpoint.recovery != Some(self.here()) {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Deletes the partition. Its name is free at once; readers keep what they have open.
    pub fn remove(self) -> io::Result<()> {
        let dir = self.dir();
        let unique = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{unique:032x}{DELETED}"));
        let doomed = dir.with_file_name(name);
        fs::rename(dir, &doomed)?;
        if let Some(parent) = dir.parent() {
            disk::sync_dir(parent)?;
        }
        fs::remove_dir_all(&doomed)
    }
}

/// Removes the folders of partitions whose deletion was interrupted, and returns how many there were.
pub fn sweep(root: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let doomed = path.file_name().and_then(|name| name.to_str());
        if doomed.is_some_and(|name| name.ends_with(DELETED)) && path.is_dir() {
            fs::remove_dir_all(&path)?;
            count += 1;
        }
    }
    Ok(count)
}

fn again(kept: &Kept, timestamps: TimestampType) -> Appended {
    Appended {
        base_offset: kept.base_offset(),
        last_offset: kept.last_offset,
        append_time: (timestamps == TimestampType::LogAppendTime).then_some(kept.timestamp),
        duplicate: true,
    }
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the log is damaged where it would be cut",
    )
}
