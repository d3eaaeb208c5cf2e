//! One partition's log, as its only writer sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kafka::record::{self, Batch, HEADER_LEN, Header, TimestampType};
use tracing::warn;

use crate::aborted;
use crate::active::Active;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::disk;
use crate::metadata;
use crate::producer::{self, EndOfTransaction, Kept, Origin, Producers, Verdict};
use crate::reader::Reader;
use crate::recover::{self, Loaded, Report};
use crate::segment::Segment;
use crate::shared::{Shared, State};

mod clean;
mod flush;
mod heal;
mod trim;

pub use flush::Flush;
pub use trim::{CutError, sweep};

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

/// The log of one partition.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    config: Config,
    active: Active,
    producers: Producers,
    /// Transactions that have ended, but whose markers may not be on disk yet: last offset by first.
    ended: BTreeMap<i64, i64>,
    snapshots: BTreeSet<i64>,
    leader_epoch: i32,
    /// Bytes were appended since the last flush began.
    dirty: bool,
    /// Folders whose names must be on disk before what was appended counts as such, each with the
    /// number of the change.
    names_dirty: Vec<(u64, PathBuf)>,
    names_changed: u64,
    since_checkpoint: u64,
    /// Closed segments that no flush has put on disk yet.
    closing: Vec<Closing>,
    rolled: bool,
    /// A failed append may have left bytes behind the last batch.
    uncut: bool,
    failed: bool,
}

/// A segment that is complete, and the producers as of its end.
#[derive(Debug)]
struct Closing {
    segment: Arc<Segment>,
    snapshot: (i64, Arc<[u8]>),
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
        Log::load(dir, topic_id, config, now, false)
    }

    /// Opens a log that another broker has written, Apache Kafka for one; after that it is one of ours.
    ///
    /// All of it is read and checked, and nothing in it is taken for an unfinished write that good records follow.
    pub fn adopt(dir: &Path, config: Config, now: i64) -> Result<(Log, Report), OpenError> {
        Log::load(dir, None, config, now, true)
    }

    fn load(
        dir: &Path,
        topic_id: Option<[u8; 16]>,
        config: Config,
        now: i64,
        foreign: bool,
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
        let unknown = foreign && !Checkpoint::exists(dir);
        let loaded = recover::load(dir, &config, now, foreign).map_err(failed)?;
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
        let state = State {
            segments,
            fences: checkpoint.fences.clone(),
            epochs,
            sparse_to: checkpoint.sparse_to,
            generation: 0,
            rotten: Vec::new(),
        };
        let mut log = Log {
            shared: Arc::new(Shared::new(dir.to_owned(), state, checkpoint, end)),
            config,
            active,
            producers,
            ended: BTreeMap::new(),
            snapshots,
            leader_epoch: report.latest_epoch,
            dirty: false,
            names_dirty: Vec::new(),
            names_changed: 0,
            since_checkpoint: report.scanned_bytes,
            closing: Vec::new(),
            rolled: false,
            uncut: false,
            failed: false,
        };
        log.note_undecided();
        if end == 0 {
            // The folder and its first files may have been made just now.
            log.note_names(dir.to_owned());
            log.note_names(dir.parent().unwrap_or(dir).to_owned());
        }
        if !report.damaged.is_empty() || (unknown && end > 0) {
            // The next start must not depend on finding the same damage by the same hints, nor read
            // all of a folder that came from elsewhere again.
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

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
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
        let markers = markers(&batches);
        for (at, batch) in batches.iter().enumerate() {
            let marker = markers.get(at).and_then(Option::as_ref);
            let verdict = self.producers.check(batch, marker, origin)?;
            if let Verdict::Duplicate(kept) = verdict {
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
        let noted = self.note_aborted(&headers, &markers);
        noted.inspect_err(|_| self.uncut = true)?;
        self.write(position, &headers, &batches)?;

        let mut at = position;
        let mut transactional = false;
        for (number, header) in headers.iter().enumerate() {
            let marker = markers.get(number).copied().flatten();
            let header = Header::parse(header).expect("a placed header is still one");
            self.active
                .note(&header, at, self.config.index_interval_bytes);
            let ended = self.producers.apply(&header, header.base_offset(), marker);
            if let Some(ended) = ended {
                self.ended.insert(ended.first_offset, ended.last_offset);
            }
            transactional |= header.transactional();
            at += header.size() as u64;
        }
        if transactional {
            self.note_undecided();
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

    /// Enters the transactions that these batches abort into the segment's index: before the markers are
    /// written, so that none is ever in the log without its entry.
    fn note_aborted(
        &mut self,
        headers: &[[u8; HEADER_LEN]],
        markers: &[Option<EndOfTransaction>],
    ) -> io::Result<()> {
        for (header, marker) in headers.iter().zip(markers) {
            let Some(marker) = marker else { continue };
            let header = Header::parse(header).expect("a placed header is still one");
            let (producer_id, offset) = (header.producer_id(), header.base_offset());
            let ended = self.producers.ending(producer_id, marker, offset);
            if let Some(ended) = ended.filter(|ended| ended.aborted) {
                let index = &self.active.segment.aborted;
                // An earlier try may have left an entry for a marker that could not be written.
                aborted::cut(index, offset)?;
                aborted::push(index, ended.into())?;
            }
        }
        Ok(())
    }

    /// Tells readers where undecided transactions begin.
    fn note_undecided(&self) {
        let open = self.producers.first_unstable_offset();
        let ended = self.ended.first_key_value().map(|(first, _)| *first);
        self.shared
            .set_undecided(open.into_iter().chain(ended).min());
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
        self.note_names(self.shared.dir.clone());
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
            disk::set_len(&*segment.file()?, segment.size())?;
            // Nor may the index tell of markers that could not be written.
            aborted::cut(&segment.aborted, self.shared.end())?;
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
}

/// Reads what control batches say, one for each batch; nothing where there is no control batch.
fn markers(batches: &[Batch<'_>]) -> Vec<Option<EndOfTransaction>> {
    if !batches.iter().any(|batch| batch.control()) {
        return Vec::new(); // without taking memory: this is what clients write
    }
    let read = |batch: &Batch<'_>| {
        let control = batch.control();
        control.then(|| EndOfTransaction::read(batch)).flatten()
    };
    batches.iter().map(read).collect()
}

fn again(kept: &Kept, timestamps: TimestampType) -> Appended {
    Appended {
        base_offset: kept.base_offset(),
        last_offset: kept.last_offset,
        append_time: (timestamps == TimestampType::LogAppendTime).then_some(kept.timestamp),
        duplicate: true,
    }
}
