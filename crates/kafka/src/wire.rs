//! How Kafka lays values out in bytes, in its old and its flexible way.
//!
//! [`Reader`] and [`Writer`] carry the version and whether it is flexible, so that the types know
//! how to read and write themselves. Nothing here trusts a count or a length from the wire.

use bytes::{BufMut, Bytes};
use uuid::Uuid;

pub use self::{reader::Reader, writer::Tags, writer::Writer};

mod reader;
mod writer;

/// Upper bound of the memory that the arrays of one message may take once decoded.
///
/// Empty elements are larger in memory than on the wire; this keeps a hostile frame from being
/// multiplied by that factor.
pub const DECODED_BYTES_MAX: usize = 64 << 20;

/// Byte fields from this size on are passed through by reference instead of being copied.
pub const SPLICED_BYTES_MIN: usize = 4096;

/// Why bytes are not the message they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("message ends at byte {at}, {missing} bytes too early")]
    Short {
        /// Where reading stopped.
        at: usize,
        /// How many more bytes were needed.
        missing: usize,
    },

    /// A length, a count or a variable-length number makes no sense.
    #[error("bad length at byte {at}")]
    Length {
        /// Where it was read.
        at: usize,
    },

    /// A field that must have a value is null.
    #[error("null at byte {at}, where a value is required")]
    Null {
        /// Where it was read.
        at: usize,
    },

    /// A string is not UTF-8.
    #[error("text at byte {at} is not UTF-8")]
    Text {
        /// Where it was read.
        at: usize,
    },

    /// The arrays would take more than [`DECODED_BYTES_MAX`].
    #[error("message would take more than {DECODED_BYTES_MAX} bytes of memory")]
    TooLarge,

    /// The layout of the version is not known.
    #[error("{message} has no version {version}")]
    Version {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// Why a message cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string, an array or the whole is longer than its length field can say.
    #[error("a value of {length} bytes or elements is too long to be sent")]
    TooLong {
        /// Its length.
        length: usize,
    },

    /// The layout of the version is not known.
    #[error("{message} has no version {version}")]
    Version {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// A value that can be read and written in the layout of the reader's or writer's version.
pub trait Wire: Sized {
    /// Reads a value.
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Writes a value.
    fn write(&self, w: &mut Writer);

    /// Reads a value that may be null: for a struct, one byte says so.
    fn read_nullable(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        if i8::read(r)? < 0 {
            Ok(None)
        } else {
            Self::read(r).map(Some)
        }
    }

    /// Writes a value that may be null.
    fn write_nullable(value: Option<&Self>, w: &mut Writer) {
        match value {
            Some(value) => {
                1i8.write(w);
                value.write(w);
            }
            None => (-1i8).write(w),
        }
    }
}

impl<T: Wire> Wire for Option<T> {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::read_nullable(r)
    }

    fn write(&self, w: &mut Writer) {
        T::write_nullable(self.as_ref(), w);
    }
}

impl Wire for bool {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(r.array::<1>()? != [0])
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_u8(u8::from(*self));
    }
}

impl Wire for i8 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(i8::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_i8(*self);
    }
}

impl Wire for i16 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(i16::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_i16(*self);
    }
}

impl Wire for u16 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(u16::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_u16(*self);
    }
}

impl Wire for i32 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(i32::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_i32(*self);
    }
}

impl Wire for u32 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(u32::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_u32(*self);
    }
}

impl Wire for i64 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(i64::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_i64(*self);
    }
}

impl Wire for f64 {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(f64::from_be_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_f64(*self);
    }
}

impl Wire for Uuid {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Uuid::from_bytes(r.array()?))
    }

    fn write(&self, w: &mut Writer) {
        w.buffer().put_slice(self.as_bytes());
    }
}

impl Wire for String {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.position();
        Self::read_nullable(r)?.ok_or(DecodeError::Null { at })
    }

    fn write(&self, w: &mut Writer) {
        w.string(Some(self));
    }

    fn read_nullable(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        Ok(r.str()?.map(str::to_owned))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer) {
        w.string(value.map(String::as_str));
    }
}

/// Read as a slice of the frame: whoever keeps it keeps the whole frame in memory.
impl Wire for Bytes {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.position();
        Self::read_nullable(r)?.ok_or(DecodeError::Null { at })
    }

    fn write(&self, w: &mut Writer) {
        w.bytes(Some(self));
    }

    fn read_nullable(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        r.bytes()
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer) {
        w.bytes(value);
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.position();
        Self::read_nullable(r)?.ok_or(DecodeError::Null { at })
    }

    fn write(&self, w: &mut Writer) {
        w.count(Some(self.len()));
        for element in self {
            element.write(w);
        }
    }

    fn read_nullable(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.count(size_of::<T>())? else {
            return Ok(None);
        };
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(T::read(r)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer) {
        match value {
            Some(value) => value.write(w),
            None => w.count(None),
        }
    }
}
