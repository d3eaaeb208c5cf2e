//! Every message under a name, with what the tests do to it.

use bytes::{Bytes, BytesMut};
use kafka::{
    messages::Message,
    wire::{DecodeError, Reader},
};
use kafka_protocol::protocol::{Decodable, Encodable};

/// One message, in this crate and in the other implementation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Decodes and encodes again.
    pub(crate) ours: fn(&Bytes, i16) -> Result<Again, DecodeError>,
    /// The same by the other implementation. It must not see hostile bytes: it aborts.
    pub(crate) theirs: fn(&Bytes, i16) -> Result<Again, String>,
    /// The default values as text, ours and theirs.
    pub(crate) defaults: fn() -> (String, String),
    /// The bytes of our default value.
    pub(crate) default_bytes: fn(i16) -> Bytes,
    /// The last version that the other implementation knows.
    pub(crate) their_last: i16,
}

/// A message that was decoded and encoded again.
pub(crate) struct Again {
    pub(crate) bytes: Bytes,
    /// How many bytes were not read.
    pub(crate) left: usize,
    /// The decoded values as text.
    pub(crate) text: String,
}

fn ours<T: Message>(bytes: &Bytes, version: i16) -> Result<Again, DecodeError> {
    let mut reader = Reader::new(bytes);
    let message = T::decode(&mut reader, version)?;
    let again = message
        .to_bytes(version)
        .expect("what was decoded can be encoded");
    Ok(Again {
        bytes: again,
        left: reader.remaining(),
        text: format!("{message:?}"),
    })
}

fn theirs<T>(bytes: &Bytes, version: i16) -> Result<Again, String>
where
    T: Decodable + Encodable + std::fmt::Debug,
{
    let mut left = bytes.clone();
    let message = T::decode(&mut left, version).map_err(|error| format!("{error:#}"))?;
    let mut again = BytesMut::new();
    message
        .encode(&mut again, version)
        .map_err(|error| format!("{error:#}"))?;
    Ok(Again {
        bytes: again.freeze(),
        left: left.len(),
        text: format!("{message:?}"),
    })
}

fn defaults<O: Message, T: Default + std::fmt::Debug>() -> (String, String) {
    (format!("{:?}", O::default()), format!("{:?}", T::default()))
}

fn default_bytes<T: Message>(version: i16) -> Bytes {
    T::default()
        .to_bytes(version)
        .expect("a default can be encoded")
}

macro_rules! cases {
    ($($module:ident: $($name:ident)*,)*) => {
        /// Returns every message that both implementations know.
        pub(crate) fn all() -> Vec<Case> {
            vec![$($(Case {
                name: stringify!($name),
                ours: ours::<kafka::messages::$module::$name>,
                theirs: theirs::<kafka_protocol::messages::$name>,
                defaults: defaults::<
                    kafka::messages::$module::$name,
                    kafka_protocol::messages::$name,
                >,
                default_bytes: default_bytes::<kafka::messages::$module::$name>,
                their_last: <kafka_protocol::messages::$name as kafka_protocol::protocol::Message>
                    ::VERSIONS.max,
            },)*)*]
        }
    };
}

each_message!(cases);
