//! Zigzag varints as records use them, and a cursor that cannot run past its end.

use super::Error;

/// Reads big-endian fields and varints from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Cursor<'a> {
        Cursor { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns what was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Error::CutShort)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        let (first, rest) = self.rest.split_first().ok_or(Error::CutShort)?;
        self.rest = rest;
        Ok(*first)
    }

    /// Reads a zigzag varint of at most five bytes.
    pub(super) fn int(&mut self) -> Result<i32, Error> {
        let raw = self.unsigned(5)?;
        let raw = u32::try_from(raw).map_err(|_| Error::Varint)?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// Reads a zigzag varint of at most ten bytes.
    pub(super) fn long(&mut self) -> Result<i64, Error> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Reads a length and that many bytes; a length of -1 is `None`.
    pub(super) fn nullable(&mut self) -> Result<Option<&'a [u8]>, Error> {
        match self.int()? {
            -1 => Ok(None),
            len => self
                .take(usize::try_from(len).map_err(|_| Error::NegativeLength)?)
                .map(Some),
        }
    }

    fn unsigned(&mut self, bytes_max: u32) -> Result<u64, Error> {
        let mut value = 0u64;
        for index in 0..bytes_max {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit only.
            if index == 9 && bits > 1 {
                return Err(Error::Varint);
            }
            value |= bits << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Varint)
    }
}

/// Appends a zigzag varint; thirty-two-bit values are written the same way.
pub(super) fn put(output: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        output.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    output.push(raw as u8);
}

/// Returns how many bytes [`put`] writes.
pub(super) fn len(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (raw | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_at_the_edges() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), len(value), "{value}");
            assert_eq!(Cursor::new(&bytes).long().expect("own output"), value);
        }
        for value in [0, -1, i32::MAX, i32::MIN] {
            let mut bytes = Vec::new();
            put(&mut bytes, i64::from(value));
            assert_eq!(Cursor::new(&bytes).int().expect("own output"), value);
        }
    }

    #[test]
    fn endless_and_oversized_varints_are_refused() {
        assert!(matches!(
            Cursor::new(&[0xff; 20]).long(),
            Err(Error::Varint)
        ));
        assert!(matches!(Cursor::new(&[0xff; 20]).int(), Err(Error::Varint)));
        assert!(matches!(
            Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x7f]).int(),
            Err(Error::Varint)
        ));
        assert!(matches!(Cursor::new(&[0x80]).int(), Err(Error::CutShort)));
    }
}
