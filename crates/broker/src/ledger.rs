//! Internal topics as ledgers: records with keys, of which the last one of each key counts.

use bytes::Bytes;
use journal::ReadError;
use kafka::record::{Batch, BatchBuilder, NewRecord, Producer, Record, Records, batches};
use tracing::error;

use crate::clock;
use crate::partition::Partition;

/// Size at which a batch is closed.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes that are read at once.
const READ_BYTES: usize = 4 << 20;
/// Largest batch of ours: one record may exceed [`BATCH_BYTES`], a request's size it cannot.
const INFLATED_MAX: usize = 256 << 20;

/// A key and a value to be written; without a value the key is deleted.
pub(crate) type Line = (Bytes, Option<Bytes>);

/// Shows every record that was written, with its batch. Waits for the disk.
pub(crate) fn read(
    partition: &Partition,
    mut show: impl FnMut(&Batch<'_>, &Record<'_>),
) -> Result<(), ReadError> {
    let topic = &partition.topic;
    let mut offset = partition.start();
    while offset < partition.high_water() {
        let slice = match partition.read(offset, READ_BYTES, true) {
            Err(ReadError::Damaged { from, to }) => {
                error!(%topic, from, to, "state is damaged on disk, going on after it");
                offset = to.max(offset + 1);
                continue;
            }
            read => read?,
        };
        if slice.next_offset <= offset {
            break;
        }
        for batch in batches(&slice.bytes) {
            let shown = batch.and_then(|batch| {
                let records = Records::read(&batch, INFLATED_MAX)?;
                records
                    .iter()
                    .try_for_each(|record| record.map(|record| show(&batch, &record)))
            });
            if let Err(cause) = shown {
                error!(%topic, offset, error = %cause, "a batch of state cannot be read");
            }
        }
        offset = slice.next_offset;
    }
    Ok(())
}

/// Puts lines into batches, of an open transaction if a producer is given. What stands together stays
/// together: after a crash all of it is there, or nothing.
pub(crate) fn write<'a>(
    together: impl Iterator<Item = &'a [Line]>,
    transaction: Option<(i64, i16)>,
) -> Vec<Bytes> {
    let timestamp = clock::now_ms();
    let begin = || match transaction {
        None => BatchBuilder::default(),
        Some((id, epoch)) => {
            let base_sequence = 0; // the broker's own are not counted
            let producer = Producer {
                id,
                epoch,
                base_sequence,
            };
            BatchBuilder::default().producer(producer).transactional()
        }
    };
    let mut batches = Vec::new();
    let mut builder = begin();
    for lines in together {
        for (key, value) in lines {
            builder.push(NewRecord {
                timestamp,
                key: Some(key),
                value: value.as_deref(),
                headers: &[],
            });
        }
        if builder.size() >= BATCH_BYTES {
            batches.push(std::mem::replace(&mut builder, begin()).build());
        }
    }
    if !builder.is_empty() {
        batches.push(builder.build());
    }
    batches
}
