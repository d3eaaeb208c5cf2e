//! Takes a message apart, within its bounds.

use bytes::Bytes;

use super::{DECODED_BYTES_MAX, DecodeError, Wire};

/// A place in the bytes of a message, and the version in which it is being read.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    /// `at ≤ end ≤ bytes.len()`; less than the whole while a tag is read.
    end: usize,
    version: i16,
    flexible: bool,
    /// Memory that arrays may still take.
    budget: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a Bytes) -> Self {
        let budget = DECODED_BYTES_MAX;
        Reader {
            bytes,
            at: 0,
            end: bytes.len(),
            version: 0,
            flexible: false,
            budget,
        }
    }

    /// Returns the number of bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns the number of bytes left.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// Returns the version that is being read.
    pub fn version(&self) -> i16 {
        self.version
    }

    pub(crate) fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    /// Takes the next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let left = &self.bytes[self.at..self.end];
        let Some(taken) = left.first_chunk() else {
            return Err(DecodeError::Short {
                at: self.at,
                missing: N - left.len(),
            });
        };
        self.at += N;
        Ok(*taken)
    }

    /// Takes the next `length` bytes and returns where they start.
    fn take(&mut self, length: usize) -> Result<usize, DecodeError> {
        let left = self.remaining();
        if length > left {
            return Err(DecodeError::Short {
                at: self.at,
                missing: length - left,
            });
        }
        let start = self.at;
        self.at += length;
        Ok(start)
    }

    /// Reads an unsigned number of one to five bytes.
    pub(crate) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let start = self.at;
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Length { at: start })
    }

    /// Reads the length of a flexible value, which is stored plus one, with 0 for null.
    fn compact(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self.uvarint()?.checked_sub(1).map(|length| length as usize))
    }

    /// Reads a string; like Kafka, takes any negative length for null.
    pub(crate) fn str(&mut self) -> Result<Option<&'a str>, DecodeError> {
        if self.flexible {
            self.compact_str()
        } else {
            self.plain_str()
        }
    }

    /// Reads a string with a length of two bytes, whatever the version.
    pub(crate) fn plain_str(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let length = usize::try_from(i16::read(self)?).ok();
        length.map(|length| self.text(length)).transpose()
    }

    fn compact_str(&mut self) -> Result<Option<&'a str>, DecodeError> {
        let length = self.compact()?;
        length.map(|length| self.text(length)).transpose()
    }

    fn text(&mut self, length: usize) -> Result<&'a str, DecodeError> {
        let at = self.take(length)?;
        str::from_utf8(&self.bytes[at..at + length]).map_err(|_| DecodeError::Text { at })
    }

    /// Reads bytes as a slice of the frame; takes any negative length for null.
    pub(crate) fn bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(length) = self.length()? else {
            return Ok(None);
        };
        let at = self.take(length)?;
        Ok(Some(self.bytes.slice(at..at + length)))
    }

    fn length(&mut self) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            self.compact()
        } else {
            Ok(usize::try_from(i32::read(self)?).ok())
        }
    }

    /// Reads the number of elements of an array, each of which takes `size` bytes in memory and at
    /// least one on the wire.
    pub(crate) fn count(&mut self, size: usize) -> Result<Option<usize>, DecodeError> {
        let at = self.at;
        let Some(count) = self.length()? else {
            return Ok(None);
        };
        if count > self.remaining() {
            return Err(DecodeError::Length { at });
        }
        let cost = count.saturating_mul(size);
        self.budget = self.budget.checked_sub(cost).ok_or(DecodeError::TooLarge)?;
        Ok(Some(count))
    }

    /// Reads a field that may be null in some versions only.
    pub(crate) fn nullable_if<T: Wire>(
        &mut self,
        nullable: bool,
    ) -> Result<Option<T>, DecodeError> {
        if nullable {
            T::read_nullable(self)
        } else {
            T::read(self).map(Some)
        }
    }

    /// Passes over the tags of a flexible version.
    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| Ok(()))
    }

    /// Hands each tag of a flexible version to `known`, with a reader that ends where it ends.
    pub(crate) fn tags(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let end = self.end;
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            let start = self.take(length)?;
            let after = self.at;
            (self.at, self.end) = (start, after);
            known(self, tag)?;
            (self.at, self.end) = (after, end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn uvarint(bytes: &'static [u8]) -> Result<u32, DecodeError> {
        Reader::new(&Bytes::from_static(bytes)).uvarint()
    }

    #[test]
    fn uvarints_take_one_to_five_bytes() {
        assert_eq!(uvarint(&[0]), Ok(0));
        assert_eq!(uvarint(&[0x7f]), Ok(127));
        assert_eq!(uvarint(&[0x80, 0x01]), Ok(128));
        assert_eq!(uvarint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Ok(u32::MAX));
        assert_eq!(
            uvarint(&[0xff, 0xff, 0xff, 0xff, 0x1f]),
            Err(DecodeError::Length { at: 0 })
        );
        assert_eq!(
            uvarint(&[0xff, 0xff, 0xff, 0xff, 0x80]),
            Err(DecodeError::Length { at: 0 })
        );
        assert_eq!(
            uvarint(&[0x80]),
            Err(DecodeError::Short { at: 1, missing: 1 })
        );
    }

    #[test]
    fn unknown_tags_are_skipped_and_stay_in_bounds() {
        let good = Bytes::from_static(&[2, 0, 1, 9, 7, 2, 8, 8, 0x55]);
        let mut reader = Reader::new(&good);
        reader.set_version(0, true);
        let mut seen = Vec::new();
        reader
            .tags(|r, tag| {
                seen.push((tag, r.remaining()));
                Ok(())
            })
            .expect("well formed");
        assert_eq!(seen, [(0, 1), (7, 2)]);
        assert_eq!(i8::read(&mut reader), Ok(0x55));

        let long = Bytes::from_static(&[1, 0, 9, 9]);
        let mut reader = Reader::new(&long);
        reader.set_version(0, true);
        assert_eq!(
            reader.skip_tags(),
            Err(DecodeError::Short { at: 3, missing: 8 })
        );
    }

    #[test]
    fn a_value_does_not_reach_beyond_its_tag() {
        let bytes = Bytes::from_static(&[1, 0, 2, 0, 0, 0, 0]);
        let mut reader = Reader::new(&bytes);
        reader.set_version(0, true);
        let result = reader.tags(|r, _| i32::read(r).map(|_| ()));
        assert_eq!(result, Err(DecodeError::Short { at: 3, missing: 2 }));
    }

    #[test]
    fn counts_are_held_to_the_bytes_left_and_to_the_budget() {
        let hostile = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
        let read = Vec::<i8>::read(&mut Reader::new(&hostile));
        assert_eq!(read, Err(DecodeError::Length { at: 0 }));

        let mut large = vec![0; 4 + DECODED_BYTES_MAX / 8];
        large[..4].copy_from_slice(&(DECODED_BYTES_MAX as i32 / 8).to_be_bytes());
        let read = Vec::<String>::read(&mut Reader::new(&large.into()));
        assert_eq!(read, Err(DecodeError::TooLarge));
    }
}
