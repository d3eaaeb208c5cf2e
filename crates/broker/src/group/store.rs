//! Groups and offsets in `__consumer_offsets`: one writer, whose order is the order of everything.
//!
//! Changes are gathered into one batch, flushed together, then take effect in the order in which they
//! were written. Compaction keeps the topic small: each key's latest record is all that holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use journal::ReadError;
use journal::producer::Origin;
use kafka::record::{BatchBuilder, NewRecord, Record, Records as Read, batches};
use kafka::wire::EncodeError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::coordinator::{Coordinator, Groups, Place};
use super::schema::{self, Committed, Key};
use super::terms::{After, Refusal, Snapshot};
use crate::clock;
use crate::partition::Partition;
use crate::writer::Writer;

/// Changes that are written together.
const CHANGES_MAX: usize = 1024;
/// Size at which a batch is closed.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes that are read at once when starting.
const READ_BYTES: usize = 4 << 20;
/// Largest batch of ours: one record may exceed [`BATCH_BYTES`], a request's size it cannot.
const INFLATED_MAX: usize = 256 << 20;

/// Groups as they were read: the stored state and the offsets of each.
pub(crate) type Loaded = HashMap<String, (Option<Snapshot>, BTreeMap<Place, Committed>)>;

/// Keys and values to be written; without a value the key is deleted.
#[derive(Debug, Default)]
pub(crate) struct Records(Vec<(Bytes, Option<Bytes>)>);

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

    pub(super) fn tombstone(&mut self, key: &Key) -> Result<(), EncodeError> {
        self.0.push((schema::write_key(key)?, None));
        Ok(())
    }
}

/// A change, and what follows when it is durable.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(super) records: Records,
    pub(super) then: Then,
}

#[derive(Debug)]
pub(super) enum Then {
    Commit {
        group: String,
        incarnation: u64,
        offsets: Vec<(Place, Committed)>,
        done: oneshot::Sender<Result<(), Refusal>>,
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
    },
    Done {
        done: oneshot::Sender<Result<(), Refusal>>,
    },
}

/// Reads everything that was written. Waits for the disk.
pub(crate) fn load(partition: &Partition) -> Result<Loaded, ReadError> {
    let mut loaded = Loaded::new();
    let mut offset = partition.start();
    while offset < partition.high_water() {
        let slice = match partition.read(offset, READ_BYTES, true) {
            Err(ReadError::Damaged { from, to }) => {
                error!(
                    from,
                    to, "group state is damaged on disk, going on after it"
                );
                offset = to.max(offset + 1);
                continue;
            }
            read => read?,
        };
        if slice.next_offset <= offset {
            break;
        }
        for batch in batches(&slice.bytes) {
            let records = batch.and_then(|batch| Read::read(&batch, INFLATED_MAX));
            match records {
                Err(cause) => {
                    error!(offset, error = %cause, "a batch of group state cannot be read")
                }
                Ok(records) => {
                    for record in &records {
                        match record {
                            Ok(record) => replay(&mut loaded, &record),
                            Err(cause) => {
                                error!(offset, error = %cause, "a record of group state cannot be read");
                                break;
                            }
                        }
                    }
                }
            }
        }
        offset = slice.next_offset;
    }
    loaded.retain(|_, (stored, offsets)| stored.is_some() || !offsets.is_empty());
    Ok(loaded)
}

fn replay(loaded: &mut Loaded, record: &Record<'_>) {
    let key = record.key.map(Bytes::copy_from_slice).unwrap_or_default();
    let value = record.value.map(Bytes::copy_from_slice);
    let result = match schema::read_key(&key) {
        Err(error) => Err(error),
        Ok(None) => Ok(()),
        Ok(Some(Key::Group { group })) => {
            match value.as_ref().map(schema::read_group).transpose() {
                Err(error) => Err(error),
                Ok(stored) => {
                    loaded.entry(group).or_default().0 = stored;
                    Ok(())
                }
            }
        }
        Ok(Some(Key::Offset {
            group,
            topic,
            partition,
        })) => match value.as_ref().map(schema::read_offset).transpose() {
            Err(error) => Err(error),
            Ok(committed) => {
                let offsets = &mut loaded.entry(group).or_default().1;
                let place = (Arc::from(topic), partition);
                match committed {
                    Some(committed) => offsets.insert(place, committed),
                    None => offsets.remove(&place),
                };
                Ok(())
            }
        },
    };
    if let Err(cause) = result {
        warn!(offset = record.offset, error = %cause, "a record of group state cannot be read");
    }
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
        let records = entries.iter().flat_map(|entry| &entry.records.0);
        let written = write(&writer, &partition, records).await;
        let mut groups = coordinator.groups.lock();
        for entry in entries.drain(..) {
            apply(&coordinator, &mut groups, entry.then, written);
        }
    }
}

/// Returns whether all was written; false when the disk refused.
async fn write(
    writer: &Writer,
    partition: &Arc<Partition>,
    records: impl Iterator<Item = &(Bytes, Option<Bytes>)>,
) -> bool {
    let timestamp = clock::now_ms();
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::default();
    for (key, value) in records {
        builder.push(NewRecord {
            timestamp,
            key: Some(key),
            value: value.as_deref(),
            headers: &[],
        });
        if builder.size() >= BATCH_BYTES {
            batches.push(std::mem::take(&mut builder).build());
        }
    }
    if !builder.is_empty() {
        batches.push(builder.build());
    }
    for batch in batches {
        let append = writer.append(partition.clone(), batch, Origin::Coordinator, true);
        if let Err(rejected) = append.await {
            error!(%rejected, "group state could not be written");
            return false;
        }
    }
    true
}

fn apply(coordinator: &Coordinator, groups: &mut Groups, then: Then, durable: bool) {
    let outcome = if durable {
        Ok(())
    } else {
        Err(Refusal::NotStored)
    };
    match then {
        Then::Commit {
            group,
            incarnation,
            offsets,
            done,
        } => {
            let held = groups.held.get_mut(&group);
            if let Some(held) = held.filter(|held| held.incarnation == incarnation) {
                held.committing -= 1;
                if durable {
                    held.offsets.extend(offsets);
                }
            }
            _ = done.send(outcome); // the client may have left
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
        } => coordinator.stored(groups, &group, incarnation, *stored, durable),
        Then::Done { done } => _ = done.send(outcome), // the client may have left
    }
}
