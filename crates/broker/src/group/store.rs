//! Groups and offsets in `__consumer_offsets`: one writer, whose order is the order of everything.
//!
//! Changes are gathered into one batch, flushed together, then take effect in the order in which they
//! were written. Offsets of a transaction stand in batches of their own and wait for its marker. Compaction
//! keeps the topic small: each key's latest record is all that holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use journal::producer::{EndOfTransaction, Origin};
use journal::{Appended, ReadError};
use kafka::record::{Batch, Marker, Record};
use kafka::wire::EncodeError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::consumer::records::{self as assigned, Item, Stored};
use super::coordinator::{Coordinator, Groups, Open, Place};
use super::kept::Touched;
use super::schema::{self, Committed, Key};
use super::share::records::{self as shared, Item as SharedItem};
use super::streams::records as streaming;
use super::terms::{After, Refusal, Snapshot};
use crate::ledger::{self, Line};
use crate::partition::{Partition, Rejected};
use crate::writer::{Append, Writer};

/// Changes that are written together.
const CHANGES_MAX: usize = 1024;

/// A group as it was read.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(super) stored: Option<Snapshot>,
    pub(super) offsets: BTreeMap<Place, Committed>,
    pub(super) open: Open,
    /// The records of a group whose partitions the broker assigns; empty for any other.
    pub(super) consumer: Stored,
    /// The records of a share group; empty for any other.
    pub(super) share: Stored,
    /// The records of a streams group; empty for any other.
    pub(super) streams: Stored,
}

impl Found {
    fn is_empty(&self) -> bool {
        self.stored.is_none()
            && self.offsets.is_empty()
            && self.open.is_empty()
            && self.consumer.is_empty()
            && self.share.is_empty()
            && self.streams.is_empty()
    }
}

/// Groups as they were read.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(super) groups: HashMap<String, Found>,
    /// Groups in which a producer has committed in a transaction that has not ended.
    pub(super) open: HashMap<i64, BTreeSet<String>>,
    /// Offsets that were read so far.
    pub(super) order: u64,
}

/// Keys and values to be written; without a value the key is deleted.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<Line>);

impl Records {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn offset(&mut self, key: &Key, value: &Committed) -> Result<(), EncodeError> {
        self.0
            .push((schema::write_key(key)?, Some(schema::write_offset(value)?)));
        Ok(())
    }

    pub(super) fn group(&mut self, key: &Key, value: &Snapshot) -> Result<(), EncodeError> {
        self.0
            .push((schema::write_key(key)?, Some(schema::write_group(value)?)));
        Ok(())
    }

    pub(super) fn line(&mut self, line: Line) {
        self.0.push(line);
    }

    pub(super) fn into_lines(self) -> Vec<Line> {
        self.0
    }

    pub(super) fn tombstone(&mut self, key: &Key) -> Result<(), EncodeError> {
        self.0.push((schema::write_key(key)?, None));
        Ok(())
    }
}

/// A change, and what follows when it is durable.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) form: Form,
    pub(super) records: Records,
    pub(super) then: Then,
}

/// How a change is written.
#[derive(Debug)]
pub(super) enum Form {
    /// Together with others.
    Plain,
    /// As part of a producer's transaction.
    Transaction { producer_id: i64, epoch: i16 },
    /// As the marker of a transaction.
    Marker(Bytes),
}

#[derive(Debug)]
pub(super) enum Then {
    Commit {
        group: String,
        incarnation: u64,
        offsets: Vec<(Place, Committed)>,
        /// The producer in whose transaction they are.
        producer: Option<(i64, i16)>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    /// A producer's transaction has ended.
    End {
        producer_id: i64,
        commit: bool,
        done: oneshot::Sender<Result<(), Rejected>>,
    },
    Forget {
        group: String,
        incarnation: u64,
        places: Vec<Place>,
        done: Option<oneshot::Sender<Result<(), Refusal>>>,
    },
    Store {
        group: String,
        incarnation: u64,
        stored: Box<(Snapshot, After)>,
        done: Option<oneshot::Sender<Result<(), Refusal>>>,
    },
    /// Parts of a group whose partitions the broker assigns.
    Assigned {
        group: String,
        incarnation: u64,
        items: BTreeSet<Item>,
        done: Option<oneshot::Sender<Result<(), Refusal>>>,
    },
    /// Parts of a share group.
    Shared {
        group: String,
        incarnation: u64,
        items: BTreeSet<SharedItem>,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Parts of a group of some kind.
    Kept {
        group: String,
        incarnation: u64,
        touched: Touched,
        done: oneshot::Sender<Result<(), Refusal>>,
    },
    Done {
        done: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// Reads everything that was written. Waits for the disk.
pub(crate) fn load(partition: &Partition) -> Result<Loaded, ReadError> {
    let mut loaded = Loaded::default();
    ledger::read(partition, |batch, record| {
        if batch.control() {
            if let Some(end) = EndOfTransaction::read(batch) {
                let commit = end.marker == Marker::Commit;
                for group in loaded.open.remove(&batch.producer_id()).unwrap_or_default() {
                    if let Some(found) = loaded.groups.get_mut(&group) {
                        found
                            .open
                            .end(batch.producer_id(), commit, &mut found.offsets);
                    }
                }
            }
        } else if let Err(cause) = replay(&mut loaded, batch, record) {
            warn!(offset = record.offset, error = %cause, "a record of group state cannot be read");
        }
    })?;
    loaded.groups.retain(|_, found| !found.is_empty());
    Ok(loaded)
}

/// Notes what a record of group state says.
pub(crate) fn replay(
    loaded: &mut Loaded,
    batch: &Batch<'_>,
    record: &Record<'_>,
) -> Result<(), kafka::wire::DecodeError> {
    let key = record.key.map(Bytes::copy_from_slice).unwrap_or_default();
    let value = record.value.map(Bytes::copy_from_slice);
    match schema::read_key(&key)? {
        None => {
            let stored = match (assigned::group_of(&key)?, shared::group_of(&key)?) {
                (Some(group), _) => Some(&mut loaded.groups.entry(group).or_default().consumer),
                (_, Some(group)) => Some(&mut loaded.groups.entry(group).or_default().share),
                _ => {
                    let group = streaming::group_of(&key)?;
                    group.map(|group| &mut loaded.groups.entry(group).or_default().streams)
                }
            };
            if let Some(stored) = stored {
                match value {
                    Some(value) => stored.insert(key, value),
                    None => stored.remove(&key),
                };
            }
        }
        Some(Key::Group { group }) => {
            let stored = value.as_ref().map(schema::read_group).transpose()?;
            loaded.groups.entry(group).or_default().stored = stored;
        }
        Some(Key::Offset {
            group,
            topic,
            partition,
        }) => {
            let committed = value.as_ref().map(schema::read_offset).transpose()?;
            if batch.transactional() {
                let groups = loaded.open.entry(batch.producer_id()).or_default();
                groups.insert(group.clone());
            }
            let found = loaded.groups.entry(group).or_default();
            let place = (Arc::from(topic), partition);
            match committed {
                Some(committed) => {
                    loaded.order += 1;
                    let order = loaded.order;
                    let committed = Committed { order, ..committed };
                    if batch.transactional() {
                        let producer = (batch.producer_id(), batch.producer_epoch());
                        found.open.add(producer, [(place, committed)]);
                    } else {
                        found.offsets.insert(place, committed);
                    }
                }
                None => {
                    found.offsets.remove(&place);
                    found.open.forget(&place);
                }
            }
        }
    }
    Ok(())
}

/// Writes changes until told to stop, and then those that are queued.
pub(crate) async fn run(
    coordinator: Arc<Coordinator>,
    writer: Arc<Writer>,
    partition: Arc<Partition>,
    mut queue: mpsc::Receiver<Entry>,
    stop: CancellationToken,
) {
    let mut entries = Vec::with_capacity(CHANGES_MAX);
    loop {
        let count = tokio::select! {
            count = queue.recv_many(&mut entries, CHANGES_MAX) => count,
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if count == 0 {
            return;
        }
        let written = write(&writer, &partition, &entries).await;
        let mut groups = coordinator.groups.lock();
        for (entry, written) in entries.drain(..).zip(written) {
            apply(&coordinator, &mut groups, entry, written);
        }
    }
}

/// Batches on their way to the disk, which stand for one or more changes.
struct Writing {
    changes: usize,
    appends: Vec<oneshot::Receiver<Result<Appended, Rejected>>>,
}

/// Writes changes in their order, with as few batches and flushes as there can be.
async fn write(
    writer: &Writer,
    partition: &Arc<Partition>,
    entries: &[Entry],
) -> Vec<Result<(), Rejected>> {
    let mut writing = Vec::new();
    let mut rest = entries;
    while let Some(first) = rest.first() {
        let plain = rest
            .iter()
            .take_while(|entry| matches!(entry.form, Form::Plain))
            .count();
        let (some, later) = rest.split_at(plain.max(1));
        rest = later;
        let lines = some.iter().map(|entry| &entry.records.0[..]);
        let batches = match &first.form {
            Form::Plain => ledger::write(lines, None),
            Form::Transaction { producer_id, epoch } => {
                ledger::write(lines, Some((*producer_id, *epoch)))
            }
            Form::Marker(batch) => vec![batch.clone()],
        };
        writing.push(Writing {
            changes: some.len(),
            appends: send(writer, partition, batches),
        });
    }
    let mut outcomes = Vec::with_capacity(entries.len());
    for Writing { changes, appends } in writing {
        let outcome = written(appends).await;
        outcomes.extend(std::iter::repeat_n(outcome, changes));
    }
    outcomes
}

fn send(
    writer: &Writer,
    partition: &Arc<Partition>,
    batches: Vec<Bytes>,
) -> Vec<oneshot::Receiver<Result<Appended, Rejected>>> {
    let send = |batches| {
        let (done, outcome) = oneshot::channel();
        writer.send(Append {
            partition: partition.clone(),
            batches,
            origin: Origin::Coordinator,
            durable: true,
            done,
        });
        outcome
    };
    batches.into_iter().map(send).collect()
}

async fn written(
    appends: Vec<oneshot::Receiver<Result<Appended, Rejected>>>,
) -> Result<(), Rejected> {
    let mut outcome = Ok(());
    for append in appends {
        let appended = append.await.unwrap_or(Err(Rejected::Gone));
        if let Err(rejected) = appended {
            error!(%rejected, "group state could not be written");
            outcome = outcome.and(Err(rejected));
        }
    }
    outcome
}

fn apply(
    coordinator: &Coordinator,
    groups: &mut Groups,
    entry: Entry,
    written: Result<(), Rejected>,
) {
    let Entry { records, then, .. } = entry;
    let durable = written.is_ok();
    let outcome = written.clone().map_err(|rejected| match rejected {
        Rejected::InvalidEpoch => Refusal::FencedProducer,
        _ => Refusal::NotStored,
    });
    match then {
        Then::Commit {
            group,
            incarnation,
            mut offsets,
            producer,
            done,
        } => {
            for (_, committed) in &mut offsets {
                committed.order = groups.number();
            }
            groups.committed(&group, incarnation, offsets, producer, durable);
            _ = done.send(outcome); // the client may have left
        }
        Then::End {
            producer_id,
            commit,
            done,
        } => {
            if durable {
                groups.ended(producer_id, commit);
            }
            _ = done.send(written); // whoever asked may have left
        }
        Then::Forget {
            group,
            incarnation,
            places,
            done,
        } => {
            let held = groups.held.get_mut(&group);
            if let Some(held) = held.filter(|held| held.incarnation == incarnation)
                && durable
            {
                for place in &places {
                    held.offsets.remove(place);
                    held.open.forget(place);
                }
                if held.is_empty() {
                    groups.held.remove(&group);
                }
            }
            if let Some(done) = done {
                _ = done.send(outcome); // the client may have left
            }
        }
        Then::Store {
            group,
            incarnation,
            stored,
            done,
        } => {
            coordinator.stored(groups, &group, incarnation, *stored, durable);
            if let Some(done) = done {
                _ = done.send(outcome); // the client may have left
            }
        }
        Then::Assigned {
            group,
            incarnation,
            items,
            done,
        } => {
            groups.assigned(&group, incarnation, items, records, durable);
            if let Some(done) = done {
                _ = done.send(outcome); // the client may have left
            }
        }
        Then::Shared {
            group,
            incarnation,
            items,
            done,
        } => {
            groups.shared(&group, incarnation, items, records, durable);
            _ = done.send(outcome); // the client may have left
        }
        Then::Kept {
            group,
            incarnation,
            touched,
            done,
        } => {
            groups.touched(&group, incarnation, touched, records, durable);
            _ = done.send(outcome); // the client may have left
        }
        Then::Done { done } => _ = done.send(outcome), // the client may have left
    }
}
