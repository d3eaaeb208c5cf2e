//! Makes batches: for our own producers, for internal topics and for transaction markers.

use bytes::Bytes;

use super::varint;
use super::{HEADER_LEN, LENGTH_END, MAGIC, NO_PRODUCER, NO_TIMESTAMP};
use crate::compress::{self, Compression};

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

/// A record to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// Milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// The idempotent producer that a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    /// Id from InitProducerId.
    pub id: i64,
    /// Epoch from InitProducerId.
    pub epoch: i16,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// Its records are to be dropped by readers of committed data.
    Abort,
    /// Its records count.
    Commit,
}

/// Collects records into one batch. Offsets start at 0: the log assigns the real ones.
///
/// ```
/// use kafka::record::{Batch, BatchBuilder, NewRecord, Records};
///
/// let mut builder = BatchBuilder::default();
/// builder.push(NewRecord { timestamp: 7, value: Some(b"hello"), ..NewRecord::default() });
/// let bytes = builder.build();
/// let (batch, _) = Batch::split_first(&bytes)?;
/// let records = Records::read(&batch, 1024)?;
/// assert_eq!(records.iter().next().unwrap()?.value, Some(&b"hello"[..]));
/// # Ok::<(), kafka::record::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    producer: Option<Producer>,
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new(Compression::None)
    }
}

impl BatchBuilder {
    /// Starts an empty batch.
    pub fn new(compression: Compression) -> BatchBuilder {
        BatchBuilder {
            compression,
            producer: None,
            attributes: i16::from(compression.id()),
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            count: 0,
            records: Vec::new(),
        }
    }

    /// Makes the batch part of an idempotent producer's sequence.
    pub fn producer(mut self, producer: Producer) -> BatchBuilder {
        self.producer = Some(producer);
        self
    }

    /// Makes the batch part of its producer's transaction.
    pub fn transactional(mut self) -> BatchBuilder {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Returns how many records the batch has.
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Returns whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size of the batch before compression, in bytes.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.records.len()
    }

    /// Adds one record.
    pub fn push(&mut self, record: NewRecord<'_>) {
        if self.count == 0 {
            self.base_timestamp = record.timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        let timestamp_delta = record.timestamp.wrapping_sub(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        let headers: usize = record
            .headers
            .iter()
            .map(|(key, value)| nullable_len(Some(key.as_bytes())) + nullable_len(*value))
            .sum();
        let length = 1
            + varint::len(timestamp_delta)
            + varint::len(offset_delta)
            + nullable_len(record.key)
            + nullable_len(record.value)
            + varint::len(record.headers.len() as i64)
            + headers;

        let output = &mut self.records;
        varint::put(output, length as i64);
        output.push(0); // attributes
        varint::put(output, timestamp_delta);
        varint::put(output, offset_delta);
        put_nullable(output, record.key);
        put_nullable(output, record.value);
        varint::put(output, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_nullable(output, Some(key.as_bytes()));
            put_nullable(output, *value);
        }
        self.count += 1;
    }

    /// Compresses and closes the batch.
    pub fn build(self) -> Bytes {
        let records = match self.compression {
            Compression::None => self.records,
            codec => compress::compress(codec, &self.records),
        };
        let producer = self.producer.unwrap_or(Producer {
            id: NO_PRODUCER,
            epoch: -1,
            base_sequence: -1,
        });

        let mut batch = Vec::with_capacity(HEADER_LEN + records.len());
        batch.extend_from_slice(&0i64.to_be_bytes());
        let length = (HEADER_LEN - LENGTH_END + records.len()) as i32;
        batch.extend_from_slice(&length.to_be_bytes());
        batch.extend_from_slice(&(-1i32).to_be_bytes()); // leader epoch
        batch.push(MAGIC as u8);
        let crc_at = batch.len();
        batch.extend_from_slice(&[0; 4]);
        let covered_from = batch.len();
        batch.extend_from_slice(&self.attributes.to_be_bytes());
        batch.extend_from_slice(&(self.count - 1).max(0).to_be_bytes());
        batch.extend_from_slice(&self.base_timestamp.to_be_bytes());
        batch.extend_from_slice(&self.max_timestamp.to_be_bytes());
        batch.extend_from_slice(&producer.id.to_be_bytes());
        batch.extend_from_slice(&producer.epoch.to_be_bytes());
        batch.extend_from_slice(&producer.base_sequence.to_be_bytes());
        batch.extend_from_slice(&self.count.to_be_bytes());
        batch.extend_from_slice(&records);
        let crc = crc32c::crc32c(&batch[covered_from..]);
        batch[crc_at..covered_from].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(batch)
    }
}

impl Marker {
    /// Builds the control batch that ends a transaction of `producer_id` at `producer_epoch`.
    pub fn batch(
        self,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        timestamp: i64,
    ) -> Bytes {
        let producer = Producer {
            id: producer_id,
            epoch: producer_epoch,
            base_sequence: -1,
        };
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(producer)
            .transactional();
        builder.attributes |= CONTROL;
        let kind: u8 = match self {
            Marker::Abort => 0,
            Marker::Commit => 1,
        };
        let mut value = [0; 6]; // version 0, coordinator epoch
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        let key = [0, 0, 0, kind]; // version 0, kind
        builder.push(NewRecord {
            timestamp,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        });
        builder.build()
    }

    /// Reads the key of a control record; `None` is a kind that readers skip.
    pub fn from_key(key: &[u8]) -> Option<Marker> {
        match key {
            [0, _, 0, 0, ..] => Some(Marker::Abort),
            [0, _, 0, 1, ..] => Some(Marker::Commit),
            _ => None,
        }
    }
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    match bytes {
        None => varint::len(-1),
        Some(bytes) => varint::len(bytes.len() as i64) + bytes.len(),
    }
}

fn put_nullable(output: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put(output, -1),
        Some(bytes) => {
            varint::put(output, bytes.len() as i64);
            output.extend_from_slice(bytes);
        }
    }
}
