//! Frames: a length, a header, a message. Pure functions over buffers.
//!
//! Request headers have tags exactly when their message is flexible. So have response headers,
//! except the one of ApiVersions: a client that asks it does not know yet what the broker speaks.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    messages::{ApiKey, Message, Request},
    wire::{DecodeError, EncodeError, Reader, Wire, Writer},
};

/// Room for a header and a small message.
const FRAME_BYTES: usize = 256;

/// The most bytes that room is made for at once while the rest of a frame is awaited.
pub const READ_AHEAD_MAX: usize = 1 << 20;

/// Why what a peer sends is not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative or above the limit of the caller.
    #[error("frame of {length} bytes, the limit is {limit}")]
    Length {
        /// What the length field says.
        length: i32,
        /// The most that the caller takes.
        limit: usize,
    },

    /// No message with this key is known.
    #[error("unknown api key {key}")]
    UnknownApi {
        /// The key.
        key: i16,
    },

    /// The header is malformed.
    #[error(transparent)]
    Header(#[from] DecodeError),
}

/// What stands before every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API that is asked.
    pub api: ApiKey,
    /// The version of the request and of its answer; it may be one that nobody knows.
    pub version: i16,
    /// What the answer has to repeat.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads a header; the request follows in the reader.
    ///
    /// A version that is not known is no error here, because ApiVersions has an answer to it.
    pub fn decode(reader: &mut Reader<'_>) -> Result<RequestHeader, FrameError> {
        let key = i16::read(reader)?;
        let version = i16::read(reader)?;
        let correlation_id = i32::read(reader)?;
        let Some(api) = ApiKey::from_key(key) else {
            return Err(FrameError::UnknownApi { key });
        };
        let client_id = reader.plain_str()?.map(str::to_owned);
        reader.set_version(version, is_flexible(api, version));
        reader.skip_tags()?;
        Ok(RequestHeader {
            api,
            version,
            correlation_id,
            client_id,
        })
    }

    /// Writes the header.
    pub fn encode(&self, writer: &mut Writer) {
        (self.api as i16).write(writer);
        self.version.write(writer);
        self.correlation_id.write(writer);
        writer.plain_string(self.client_id.as_deref());
        writer.set_version(self.version, is_flexible(self.api, self.version));
        writer.no_tags();
    }
}

/// Returns whether the version has compact types and tags, and hence tags in its request header.
pub fn is_flexible(api: ApiKey, version: i16) -> bool {
    api.first_flexible().is_some_and(|first| version >= first)
}

/// Returns the size of the frame that what has been received begins with, without its length; `None` as long as that
/// is not known.
pub fn announced(received: &[u8], limit: usize) -> Result<Option<usize>, FrameError> {
    let Some(length) = received.first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(size) if size <= limit => Ok(Some(size)),
        _ => Err(FrameError::Length { length, limit }),
    }
}

/// Takes one whole frame off the front of what has been received, without its length.
///
/// Returns `None` as long as bytes are missing, after making room for them, or for
/// [`READ_AHEAD_MAX`] of them: a length alone, which costs its sender nothing, reserves no more.
pub fn split(received: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, FrameError> {
    let Some(size) = announced(received, limit)? else {
        return Ok(None);
    };
    if received.len() - 4 < size {
        received.reserve((4 + size - received.len()).min(READ_AHEAD_MAX));
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(size).freeze()))
}

/// Returns the pieces of a whole request frame, with its length.
pub fn encode_request<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
) -> Result<Vec<Bytes>, EncodeError> {
    let client_id = client_id.map(str::to_owned);
    let header = RequestHeader {
        api: R::KEY,
        version,
        correlation_id,
        client_id,
    };
    let mut writer = start();
    header.encode(&mut writer);
    request.encode(&mut writer, version)?;
    writer.into_frame()
}

/// Returns the pieces of a whole response frame to a request `R`, with its length.
///
/// The pieces are to be written one after the other; large records are pieces of their own.
pub fn encode_response<R: Request>(
    response: &R::Response,
    version: i16,
    correlation_id: i32,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = start();
    correlation_id.write(&mut writer);
    writer.set_version(version, has_tags(R::KEY, version));
    writer.no_tags();
    response.encode(&mut writer, version)?;
    writer.into_frame()
}

/// Reads the answer to a request `R` from a frame without its length; returns the correlation id
/// beside it.
pub fn decode_response<R: Request>(
    frame: &Bytes,
    version: i16,
) -> Result<(i32, R::Response), DecodeError> {
    let mut reader = Reader::new(frame);
    let correlation_id = i32::read(&mut reader)?;
    reader.set_version(version, has_tags(R::KEY, version));
    reader.skip_tags()?;
    Ok((correlation_id, R::Response::decode(&mut reader, version)?))
}

/// Returns whether the header of a response has tags.
fn has_tags(api: ApiKey, version: i16) -> bool {
    api != ApiKey::ApiVersions && is_flexible(api, version)
}

/// A writer with space for the length.
fn start() -> Writer {
    let mut buffer = BytesMut::with_capacity(FRAME_BYTES);
    buffer.put_i32(0);
    Writer::over(buffer)
}
