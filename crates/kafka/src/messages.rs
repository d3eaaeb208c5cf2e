//! Every message of the protocol that Nuncio speaks, for all versions at once.
//!
//! The tables in `messages/` say which field exists in which version; the build turns each file
//! into one module here. A struct holds the fields of all versions: what a version does not have
//! keeps Kafka's default when it is decoded, and is left out when it is encoded. Whoever encodes
//! therefore has to know what the version can say.

use std::{fmt::Debug, ops::RangeInclusive};

use bytes::{Bytes, BytesMut};

use crate::wire::{DecodeError, EncodeError, Reader, Wire, Writer};

/// A whole message: a request, a response or a blob.
pub trait Message: Wire + Default + Clone + PartialEq + Debug + Send + Sync + 'static {
    /// Kafka's name of the message.
    const NAME: &'static str;

    /// The versions whose layout is known.
    const VERSIONS: RangeInclusive<i16>;

    /// The first version with compact types and tags, `i16::MAX` when there is none.
    const FLEXIBLE: i16;

    /// Reads the message in the layout of `version`. Bytes may be left in the reader.
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(DecodeError::Version {
                message: Self::NAME,
                version,
            });
        }
        reader.set_version(version, version >= Self::FLEXIBLE);
        Self::read(reader)
    }

    /// Writes the message in the layout of `version`. Fields that it does not have are left out.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(&version) {
            return Err(EncodeError::Version {
                message: Self::NAME,
                version,
            });
        }
        writer.set_version(version, version >= Self::FLEXIBLE);
        self.write(writer);
        Ok(())
    }

    /// The milliseconds that a client is asked to wait, for responses that can say it in some of their versions.
    fn throttle_time_ms(&mut self) -> Option<&mut i32> {
        None
    }

    /// Reads a message that stands alone.
    fn from_bytes(bytes: &Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(bytes), version)
    }

    /// Writes a message that stands alone, as one piece.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new();
        self.encode(&mut writer, version)?;
        writer.into_bytes()
    }

    /// Reads a blob that starts with its version as two bytes, as records in `__consumer_offsets`
    /// and the consumers' subscriptions do. Versions above the known ones are read as the last
    /// one, which they extend.
    fn from_versioned(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = i16::read(&mut reader)?;
        Self::decode(&mut reader, version.min(*Self::VERSIONS.end()))
    }

    /// Writes a blob that starts with its version as two bytes.
    fn to_versioned(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut start = BytesMut::with_capacity(64);
        start.extend_from_slice(&version.to_be_bytes());
        let mut writer = Writer::over(start);
        self.encode(&mut writer, version)?;
        writer.into_bytes()
    }
}

/// A message that asks for another one.
pub trait Request: Message {
    /// The API it belongs to.
    const KEY: ApiKey;

    /// What it is answered with.
    type Response: Message;
}

/// What every generated module uses.
mod prelude {
    pub(super) use std::ops::RangeInclusive;

    pub(super) use bytes::Bytes;
    pub(super) use uuid::Uuid;

    pub(super) use super::{ApiKey, Message, Request};
    pub(super) use crate::wire::{DecodeError, Reader, Wire, Writer};
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
