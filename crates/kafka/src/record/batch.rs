//! Views over the bytes of a batch, and the few fields that a broker writes in place.

use std::ops::{Deref, Range};

use super::{Error, HEADER_LEN, LENGTH_END, MAGIC, NO_PRODUCER};
use crate::compress::Compression;

pub(super) const LEADER_EPOCH: usize = 12;
const MAGIC_AT: usize = 16;
pub(super) const CRC: usize = 17;
pub(super) const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;

pub(super) const COMPRESSION_MASK: i16 = 0b111;
const APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;
pub(super) const DELETE_HORIZON: i16 = 1 << 6;

/// Who set the timestamps of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer, for each record.
    CreateTime,
    /// The broker, one for the whole batch: its max timestamp.
    LogAppendTime,
}

/// The fixed part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    bytes: &'a [u8; HEADER_LEN],
}

impl<'a> Header<'a> {
    /// Reads the header at the front of `bytes`, which may hold less than the whole batch.
    ///
    /// Magic and length are checked, so the batch's extent can be trusted; the checksum is not.
    pub fn parse(bytes: &'a [u8]) -> Result<Header<'a>, Error> {
        // All formats have their magic at the same place: answer about it before anything else.
        match *bytes.get(MAGIC_AT).ok_or(Error::CutShort)? as i8 {
            MAGIC => {}
            magic @ (0 | 1) => return Err(Error::OldMagic { magic }),
            magic => return Err(Error::UnknownMagic { magic }),
        }
        let header = Header {
            bytes: bytes.first_chunk().ok_or(Error::CutShort)?,
        };
        let length = i32::from_be_bytes(header.field(8));
        if length < (HEADER_LEN - LENGTH_END) as i32 {
            return Err(Error::Length { length });
        }
        if header.last_offset_delta() < 0 {
            return Err(Error::Count {
                count: header.record_count(),
                last_offset_delta: header.last_offset_delta(),
            });
        }
        Ok(header)
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        *self.bytes[at..]
            .first_chunk()
            .expect("fields lie inside the header")
    }

    /// Returns the header's bytes.
    pub fn header_bytes(&self) -> &'a [u8; HEADER_LEN] {
        self.bytes
    }

    /// Returns the offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.field(0))
    }

    /// Returns how many bytes the whole batch takes, header included.
    pub fn size(&self) -> usize {
        LENGTH_END + i32::from_be_bytes(self.field(8)) as usize
    }

    /// Returns the epoch of the leader that stored the batch.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.field(LEADER_EPOCH))
    }

    /// Returns the stored checksum.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(CRC))
    }

    /// Returns all attribute bits.
    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(ATTRIBUTES))
    }

    /// Returns how the records are compressed.
    pub fn compression(&self) -> Result<Compression, Error> {
        let id = (self.attributes() & COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(Error::UnknownCompression { id })
    }

    /// Returns who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes() & APPEND_TIME {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    /// Returns whether the batch is part of a transaction.
    pub fn transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// Returns whether the batch holds a control record instead of a user's records.
    pub fn control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// Returns from when on the batch's tombstones may go, in ms since 1970; set by compaction (KIP-534).
    pub fn delete_horizon(&self) -> Option<i64> {
        // It takes the place of the base timestamp; deltas count from it.
        (self.attributes() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// Returns the distance from the first offset to the last, which is never negative.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// Returns the offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset()
            .saturating_add(i64::from(self.last_offset_delta()))
    }

    /// Returns the offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Returns the timestamp that the records' deltas count from, in ms since 1970.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// Returns the latest timestamp of the batch, in ms since 1970.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.field(MAX_TIMESTAMP))
    }

    /// Returns the idempotent producer's id, or [`NO_PRODUCER`].
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    /// Returns whether an idempotent producer wrote the batch.
    pub fn has_producer(&self) -> bool {
        self.producer_id() > NO_PRODUCER
    }

    /// Returns the idempotent producer's epoch, or -1.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// Returns the sequence number of the first record, or -1.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// Returns the sequence number of the last record, or -1; numbers wrap from 2^31-1 to 0.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            base if base < 0 => base,
            base => add_sequence(base, self.last_offset_delta()),
        }
    }

    /// Returns how many records the header announces.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }
}

/// Returns the sequence number `count` (not negative) after `sequence`, wrapping from 2^31-1 to 0.
pub fn add_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) & i64::from(i32::MAX)) as i32
}

/// One whole batch; its header's fields can be asked directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch<'a> {
    header: Header<'a>,
    bytes: &'a [u8],
}

impl<'a> Deref for Batch<'a> {
    type Target = Header<'a>;

    fn deref(&self) -> &Header<'a> {
        &self.header
    }
}

impl<'a> Batch<'a> {
    /// Takes the first batch off `bytes` and returns it with the rest.
    ///
    /// Extent and magic are checked, the checksum is not: see [`Batch::verify`].
    pub fn split_first(bytes: &'a [u8]) -> Result<(Batch<'a>, &'a [u8]), Error> {
        let header = Header::parse(bytes)?;
        let (bytes, rest) = bytes
            .split_at_checked(header.size())
            .ok_or(Error::CutShort)?;
        Ok((Batch { header, bytes }, rest))
    }

    /// Returns all bytes of the batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the records as they are stored, perhaps compressed.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Compares the checksum with the bytes.
    pub fn verify(&self) -> Result<(), Error> {
        let (stored, computed) = (self.crc(), crc32c::crc32c(&self.bytes[ATTRIBUTES..]));
        if stored == computed {
            Ok(())
        } else {
            Err(Error::Checksum { stored, computed })
        }
    }

    /// Returns the header that this batch has at its place in a log; the body stays as it is.
    ///
    /// The checksum does not cover offset and epoch. With `append_time` the broker's clock becomes
    /// the batch's timestamp, which the checksum does cover: it is computed anew.
    pub fn placed(
        &self,
        base_offset: i64,
        leader_epoch: i32,
        append_time: Option<i64>,
    ) -> [u8; HEADER_LEN] {
        let mut header = *self.header.bytes;
        put(&mut header, 0, base_offset.to_be_bytes());
        put(&mut header, LEADER_EPOCH, leader_epoch.to_be_bytes());
        if let Some(append_time) = append_time {
            put(
                &mut header,
                ATTRIBUTES,
                (self.attributes() | APPEND_TIME).to_be_bytes(),
            );
            put(&mut header, MAX_TIMESTAMP, append_time.to_be_bytes());
            let crc = crc32c::crc32c(&header[ATTRIBUTES..]);
            put(
                &mut header,
                CRC,
                crc32c::crc32c_append(crc, self.body()).to_be_bytes(),
            );
        }
        header
    }
}

fn put<const N: usize>(header: &mut [u8; HEADER_LEN], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

/// Writes offset and leader epoch into the batch at the front of `bytes`; the checksum stays valid.
pub fn place(bytes: &mut [u8], base_offset: i64, leader_epoch: i32) -> Result<(), Error> {
    Header::parse(bytes)?;
    bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
    bytes[LEADER_EPOCH..LEADER_EPOCH + 4].copy_from_slice(&leader_epoch.to_be_bytes());
    Ok(())
}

/// Makes `append_time` (ms since 1970) the timestamp of the first batch in `bytes`, and computes its
/// checksum anew.
pub fn stamp(bytes: &mut [u8], append_time: i64) -> Result<(), Error> {
    let (batch, _) = Batch::split_first(bytes)?;
    let header = batch.placed(batch.base_offset(), batch.leader_epoch(), Some(append_time));
    bytes[..HEADER_LEN].copy_from_slice(&header);
    Ok(())
}

/// Iterates over the batches that stand one after another in `bytes`.
///
/// A batch that is cut short at the end is an error as the last item; a consumer of Fetch, which may
/// return such a tail, stops there.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, at: 0 }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Batches<'_> {
    /// Returns the position after the batches seen so far, without any damaged one.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the range that `batch`, the one just returned, takes in the bytes.
    pub fn range_of_last(&self, batch: &Batch<'_>) -> Range<usize> {
        self.at - batch.bytes.len()..self.at
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() {
            return None;
        }
        let split = Batch::split_first(rest);
        match &split {
            Ok((batch, _)) => self.at += batch.bytes.len(),
            // What follows a damaged batch cannot be found again.
            Err(_) => self.bytes = &self.bytes[..self.at],
        }
        Some(split.map(|(batch, _)| batch))
    }
}
