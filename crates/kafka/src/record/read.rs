//! The records inside a batch, borrowed from its bytes or from what they inflate to.

use std::borrow::Cow;

use super::varint::Cursor;
use super::{Batch, Error, TimestampType};
use crate::compress;

/// The inflated records of one batch; [`Records::iter`] reads them.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    body: Cow<'a, [u8]>,
    base_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
    count: i32,
}

impl<'a> Records<'a> {
    /// Inflates the records of `batch` to at most `max` bytes; plain ones are borrowed.
    pub fn read(batch: &Batch<'a>, max: usize) -> Result<Records<'a>, Error> {
        let append_time = match batch.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(batch.max_timestamp()),
        };
        Ok(Records {
            body: compress::decompress(batch.compression()?, batch.body(), max)?,
            base_offset: batch.base_offset(),
            base_timestamp: batch.base_timestamp(),
            append_time,
            count: batch.record_count(),
        })
    }

    /// Returns the records as they stand one after another, inflated.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Returns how many bytes the records take, inflated.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// Iterates over the records; after an error nothing follows.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            records: self,
            cursor: Cursor::new(&self.body),
            left: self.count.max(0),
        }
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>, Error>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// One record, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, or -1.
    pub timestamp: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    headers: Cursor<'a>,
    /// Distance of its offset from the batch's first.
    pub(super) offset_delta: i32,
    /// What follows the offset delta, as it is stored: key, value and headers.
    pub(super) tail: &'a [u8],
}

/// One header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// The name; what is not UTF-8 is replaced, as Kafka's clients do.
    pub key: Cow<'a, str>,
    /// The value, if any.
    pub value: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// Iterates over the headers in the order they were written; names may repeat.
    pub fn headers(&self) -> impl Iterator<Item = RecordHeader<'a>> + use<'a> {
        let mut cursor = self.headers;
        std::iter::from_fn(move || {
            // The headers were read once when the record was, so no error hides here.
            if cursor.is_empty() {
                None
            } else {
                header(&mut cursor).ok()
            }
        })
    }

    /// Returns the value of the last header with this name, as Kafka's clients do.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers()
            .filter(|header| header.key == name)
            .last()?
            .value
    }
}

fn header<'a>(cursor: &mut Cursor<'a>) -> Result<RecordHeader<'a>, Error> {
    let key = cursor.nullable()?.ok_or(Error::NegativeLength)?;
    Ok(RecordHeader {
        key: String::from_utf8_lossy(key),
        value: cursor.nullable()?,
    })
}

/// See [`Records::iter`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    records: &'a Records<'a>,
    cursor: Cursor<'a>,
    left: i32,
}

impl<'a> Iter<'a> {
    fn record(&mut self) -> Result<Record<'a>, Error> {
        let length = usize::try_from(self.cursor.int()?).map_err(|_| Error::NegativeLength)?;
        let mut cursor = Cursor::new(self.cursor.take(length)?);
        cursor.byte()?; // attributes: none are assigned
        let timestamp = self.records.base_timestamp.wrapping_add(cursor.long()?);
        let offset_delta = cursor.int()?;
        let offset = self
            .records
            .base_offset
            .wrapping_add(i64::from(offset_delta));
        let tail = cursor.rest();
        let key = cursor.nullable()?;
        let value = cursor.nullable()?;
        let count = usize::try_from(cursor.int()?).map_err(|_| Error::NegativeLength)?;
        let headers = cursor;
        for _ in 0..count {
            cursor.nullable()?.ok_or(Error::NegativeLength)?;
            cursor.nullable()?;
        }
        if !cursor.is_empty() {
            return Err(Error::LeftOver);
        }
        let timestamp = self.records.append_time.unwrap_or(timestamp);
        Ok(Record {
            offset,
            timestamp,
            key,
            value,
            headers,
            offset_delta,
            tail,
        })
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            // Checked once: the empty cursor ends the iteration for good.
            let left_over = !self.cursor.is_empty();
            self.cursor = Cursor::new(&[]);
            return left_over.then_some(Err(Error::LeftOver));
        }
        let record = self.record();
        self.left -= 1;
        if record.is_err() {
            self.left = 0;
            self.cursor = Cursor::new(&[]);
        }
        Some(record)
    }
}
