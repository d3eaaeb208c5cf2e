//! Whether a producer's batch may be stored.
//!
//! [`produced`] reads the header and the checksum only, which is all that the hot path needs and all
//! that can be known of a compressed batch without inflating it. [`records`] reads every record.

use std::ops::RangeInclusive;

use super::{Batch, Error, Header, NO_TIMESTAMP, Records, TimestampType};
use crate::compress::Compression;

/// Checks what one partition of a Produce request carries, and returns its only batch.
///
/// `zstd` says whether the request's version allows that codec (Produce 7 and later).
pub fn produced(bytes: &[u8], zstd: bool) -> Result<Batch<'_>, Error> {
    let (batch, rest) = Batch::split_first(bytes)?;
    if !rest.is_empty() {
        return Err(Error::NotOneBatch);
    }
    batch.verify()?;
    if batch.base_offset() != 0 {
        return Err(Error::BaseOffset {
            offset: batch.base_offset(),
        });
    }
    header(&batch, zstd)?;
    Ok(batch)
}

fn header(header: &Header<'_>, zstd: bool) -> Result<(), Error> {
    let (count, last_offset_delta) = (header.record_count(), header.last_offset_delta());
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(Error::Count {
            count,
            last_offset_delta,
        });
    }
    if header.control() {
        return Err(Error::ControlBatch);
    }
    let codec = header.compression()?;
    if codec == Compression::Zstd && !zstd {
        return Err(Error::CompressionTooNew { codec });
    }
    let (producer_id, base_sequence) = (header.producer_id(), header.base_sequence());
    let numbered = base_sequence >= 0 && header.producer_epoch() >= 0;
    if (header.has_producer() || header.transactional()) && !numbered {
        return Err(Error::Sequence {
            producer_id,
            base_sequence,
        });
    }
    Ok(())
}

/// What a topic asks of each record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether each record needs a key, as compaction does.
    pub keyed: bool,
    /// The timestamps that are taken, in ms since 1970, when the producer sets them; none is always fine.
    pub timestamps: RangeInclusive<i64>,
}

/// Reads every record of a batch: offsets dense, and nothing left over. Returns those that the rules refuse,
/// each as [`Error::NoKey`] or [`Error::Timestamp`].
///
/// `records` are those of the batch.
pub fn records(
    batch: &Batch<'_>,
    records: &Records<'_>,
    rules: &Rules,
) -> Result<Vec<Error>, Error> {
    let timed = batch.timestamp_type() == TimestampType::CreateTime;
    let mut refused = Vec::new();
    for (index, record) in (0..).zip(records.iter()) {
        let record = record?;
        let delta = record.offset.saturating_sub(batch.base_offset());
        if delta != i64::from(index) {
            return Err(Error::OffsetDelta {
                index,
                delta: delta as i32,
            });
        }
        let timestamp = record.timestamp;
        if rules.keyed && record.key.is_none() {
            refused.push(Error::NoKey { index });
        } else if timed && timestamp != NO_TIMESTAMP && !rules.timestamps.contains(&timestamp) {
            refused.push(Error::Timestamp { index, timestamp });
        }
    }
    Ok(refused)
}
