//! Puts a message together, without copying the large parts.

use bytes::{BufMut, Bytes, BytesMut};

use super::{EncodeError, SPLICED_BYTES_MIN, Wire};

/// Bytes being written, and the version in which they are written.
///
/// Small values are gathered in one buffer; byte fields from [`SPLICED_BYTES_MIN`] on become
/// pieces of their own, so that records reach the socket without a copy.
#[derive(Debug, Default)]
pub struct Writer {
    /// The first piece, once there is a second; it stays writable for the length of the frame.
    head: Option<BytesMut>,
    /// Further finished pieces.
    pieces: Vec<Bytes>,
    /// The piece being written.
    buffer: BytesMut,
    version: i16,
    flexible: bool,
    /// More than 0 while a tag is written: its length goes before it, so it stays in one piece.
    whole: usize,
    /// The first length that did not fit its field.
    too_long: Option<usize>,
}

impl Writer {
    /// Starts with nothing.
    pub fn new() -> Self {
        Writer::default()
    }

    /// Starts behind what is in `buffer`, and uses its space.
    pub fn over(buffer: BytesMut) -> Self {
        Writer {
            buffer,
            ..Writer::default()
        }
    }

    /// Returns the version that is being written.
    pub fn version(&self) -> i16 {
        self.version
    }

    /// Returns the number of bytes written so far.
    pub fn written(&self) -> usize {
        let head = self.head.as_ref().map_or(0, BytesMut::len);
        head + self.pieces.iter().map(Bytes::len).sum::<usize>() + self.buffer.len()
    }

    /// Ends the message and returns it as one piece; spliced parts are copied.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        let length = self.written();
        let mut pieces = self.into_pieces()?;
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let mut whole = BytesMut::with_capacity(length);
        for piece in pieces {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Ends the message and returns its pieces in order.
    pub fn into_pieces(self) -> Result<Vec<Bytes>, EncodeError> {
        if let Some(length) = self.too_long {
            return Err(EncodeError::TooLong { length });
        }
        let Some(head) = self.head else {
            return Ok(vec![self.buffer.freeze()]);
        };
        let mut pieces = Vec::with_capacity(self.pieces.len() + 2);
        pieces.push(head.freeze());
        pieces.extend(self.pieces);
        if !self.buffer.is_empty() {
            pieces.push(self.buffer.freeze());
        }
        Ok(pieces)
    }

    /// Ends the frame: writes its length over its first four bytes and returns its pieces.
    pub(crate) fn into_frame(mut self) -> Result<Vec<Bytes>, EncodeError> {
        let length = self.written().saturating_sub(4);
        let Ok(size) = i32::try_from(length) else {
            return Err(EncodeError::TooLong { length });
        };
        let first = self.head.as_mut().unwrap_or(&mut self.buffer);
        first[..4].copy_from_slice(&size.to_be_bytes());
        self.into_pieces()
    }

    pub(crate) fn set_version(&mut self, version: i16, flexible: bool) {
        self.version = version;
        self.flexible = flexible;
    }

    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    pub(crate) fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(value as u8);
    }

    /// Writes the length of a flexible value: plus one, with 0 for null.
    fn compact(&mut self, length: Option<usize>) {
        match length.map(|length| i32::try_from(length).map_err(|_| length)) {
            None => self.uvarint(0),
            Some(Ok(length)) => self.uvarint(length as u32 + 1),
            Some(Err(length)) => self.refuse(length),
        }
    }

    fn refuse(&mut self, length: usize) {
        self.too_long.get_or_insert(length);
    }

    pub(crate) fn string(&mut self, value: Option<&str>) {
        if self.flexible {
            self.compact(value.map(str::len));
            self.buffer.put_slice(value.unwrap_or_default().as_bytes());
        } else {
            self.plain_string(value);
        }
    }

    /// Writes a string with a length of two bytes, whatever the version.
    pub(crate) fn plain_string(&mut self, value: Option<&str>) {
        match value.map(|value| i16::try_from(value.len()).map_err(|_| value.len())) {
            None => self.buffer.put_i16(-1),
            Some(Ok(length)) => self.buffer.put_i16(length),
            Some(Err(length)) => return self.refuse(length),
        }
        self.buffer.put_slice(value.unwrap_or_default().as_bytes());
    }

    pub(crate) fn bytes(&mut self, value: Option<&Bytes>) {
        self.count(value.map(Bytes::len));
        let Some(value) = value else { return };
        if value.len() < SPLICED_BYTES_MIN || self.whole > 0 {
            self.buffer.put_slice(value);
            return;
        }
        let before = self.buffer.split();
        if self.head.is_none() {
            self.head = Some(before);
        } else if !before.is_empty() {
            self.pieces.push(before.freeze());
        }
        self.pieces.push(value.clone());
    }

    /// Writes the number of elements of an array or of bytes.
    pub(crate) fn count(&mut self, count: Option<usize>) {
        if self.flexible {
            return self.compact(count);
        }
        match count.map(|count| i32::try_from(count).map_err(|_| count)) {
            None => self.buffer.put_i32(-1),
            Some(Ok(count)) => self.buffer.put_i32(count),
            Some(Err(count)) => self.refuse(count),
        }
    }

    /// Writes a field that may be null in some versions only; in the others null becomes empty.
    pub(crate) fn nullable_if<T: Wire + Default>(&mut self, nullable: bool, value: &Option<T>) {
        match value {
            value if nullable => T::write_nullable(value.as_ref(), self),
            Some(value) => value.write(self),
            None => T::default().write(self),
        }
    }

    /// Ends a struct that has no tags to write.
    pub(crate) fn no_tags(&mut self) {
        if self.flexible {
            self.buffer.put_u8(0);
        }
    }

    /// Starts the tags of a struct; in a version that has none, nothing is written.
    pub(crate) fn tags(&mut self) -> Tags<'_> {
        let at = self.buffer.len();
        self.no_tags();
        Tags { writer: self, at }
    }
}

/// The tags of a struct while they are written, in ascending order and without the defaults.
#[derive(Debug)]
pub struct Tags<'a> {
    writer: &'a mut Writer,
    /// Where in the buffer their number stands. No table has as many tags as need a second byte.
    at: usize,
}

impl Tags<'_> {
    pub(crate) fn put<T: Wire>(&mut self, tag: u32, value: &T) {
        let writer = &mut *self.writer;
        if !writer.flexible {
            return;
        }
        writer.buffer[self.at] += 1;
        writer.uvarint(tag);
        writer.whole += 1;
        let start = writer.buffer.len();
        value.write(writer);
        writer.whole -= 1;

        let value = writer.buffer.split_off(start);
        match u32::try_from(value.len()) {
            Ok(length) => writer.uvarint(length),
            Err(_) => writer.refuse(value.len()),
        }
        writer.buffer.extend_from_slice(&value);
    }
}
