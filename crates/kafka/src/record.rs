//! Record batches, message format 2: the form in which records travel and rest.
//!
//! ```text
//!  0 base offset      i64 ┐ outside the checksum: the broker writes
//!  8 batch length     i32 │ the offset and the epoch in place
//! 12 leader epoch     i32 │
//! 16 magic = 2        i8  │
//! 17 crc32c           u32 ┘
//! 21 attributes       i16    compression 0-2 · append time 3 · transactional 4 · control 5 · delete horizon 6
//! 23 last offset delta i32
//! 27 base timestamp   i64
//! 35 max timestamp    i64
//! 43 producer id      i64
//! 51 producer epoch   i16
//! 53 base sequence    i32
//! 57 record count     i32
//! 61 records, compressed together or plain
//! ```
//!
//! [`Batch`] and [`Header`] are views over such bytes, [`check`] decides whether a producer's batch
//! may be stored, [`Records`] reads what is inside, [`build`] makes new ones and [`rewrite`] makes one from
//! another. Nothing here panics
//! on hostile bytes or allocates more than the caller's bound.

use crate::compress::{self, Compression};

mod batch;
mod build;
pub mod check;
mod read;
pub mod rewrite;
#[cfg(test)]
mod tests;
mod varint;

pub use batch::{Batch, Batches, Header, TimestampType, add_sequence, batches, place, stamp};
pub use build::{BatchBuilder, Marker, NewRecord, Producer};
pub use read::{Iter, Record, RecordHeader, Records};

/// Bytes in front of the records.
pub const HEADER_LEN: usize = 61;
/// Bytes that the batch length does not count: base offset and the length itself.
pub const LENGTH_END: usize = 12;
/// The only message format that is stored.
pub const MAGIC: i8 = 2;
/// The producer id of a batch that belongs to no idempotent producer.
pub const NO_PRODUCER: i64 = -1;
/// The timestamp of a record that has none.
pub const NO_TIMESTAMP: i64 = -1;

/// Why bytes are not a batch that can be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes end inside a batch or a record.
    #[error("the batch is cut short")]
    CutShort,
    /// Message format 0 or 1, from before Kafka 0.11.
    #[error("message format {magic} is not supported, use a client that writes format 2")]
    OldMagic {
        /// 0 or 1.
        magic: i8,
    },
    /// A format that does not exist.
    #[error("message format {magic} is unknown")]
    UnknownMagic {
        /// What stands in the magic byte.
        magic: i8,
    },
    /// A producer's batch does not count its offsets from 0.
    #[error("the batch begins at offset {offset}, producers count from 0")]
    BaseOffset {
        /// What stands in the header.
        offset: i64,
    },
    /// The length field cannot be right.
    #[error("batch length {length} is impossible")]
    Length {
        /// What stands in the length field.
        length: i32,
    },
    /// The bytes are not those that the producer wrote.
    #[error("checksum {computed:08x} does not match {stored:08x}")]
    Checksum {
        /// What the header says.
        stored: u32,
        /// What the bytes say.
        computed: u32,
    },
    /// Count and last offset delta disagree, or there is no record.
    #[error("{count} records and last offset delta {last_offset_delta} do not agree")]
    Count {
        /// Records that the header announces.
        count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// Codec numbers 5, 6 and 7 are not assigned.
    #[error("compression codec {id} is unknown")]
    UnknownCompression {
        /// The number in the attributes.
        id: u8,
    },
    /// A codec that this request version may not carry.
    #[error("{} needs a newer version of the request", codec.name())]
    CompressionTooNew {
        /// The codec in the attributes.
        codec: Compression,
    },
    /// Transaction markers are the broker's to write.
    #[error("clients may not write control records")]
    ControlBatch,
    /// An idempotent producer must number its records.
    #[error("a batch with producer id {producer_id} has base sequence {base_sequence}")]
    Sequence {
        /// The header's producer id.
        producer_id: i64,
        /// The header's base sequence.
        base_sequence: i32,
    },
    /// Produce carries one batch for each partition.
    #[error("expected exactly one batch")]
    NotOneBatch,
    /// A record's offset delta is not its place in the batch.
    #[error("record {index} has offset delta {delta}")]
    OffsetDelta {
        /// Place of the record in its batch.
        index: i32,
        /// What the record says.
        delta: i32,
    },
    /// A record's timestamp is outside what the topic takes.
    #[error("record {index} has timestamp {timestamp}, outside of what the topic takes")]
    Timestamp {
        /// Place of the record in its batch.
        index: i32,
        /// Milliseconds since 1970.
        timestamp: i64,
    },
    /// Compaction is by key, so each record of a compacted topic needs one.
    #[error("record {index} has no key, which a compacted topic needs")]
    NoKey {
        /// Place of the record in its batch.
        index: i32,
    },
    /// A varint is longer than its type.
    #[error("a number inside a record is damaged")]
    Varint,
    /// A length or count inside a record is negative.
    #[error("a length inside a record is negative")]
    NegativeLength,
    /// More bytes than the record or batch announces.
    #[error("bytes are left over after the last record")]
    LeftOver,
    /// The records do not decompress.
    #[error(transparent)]
    Compression(#[from] compress::Error),
}
