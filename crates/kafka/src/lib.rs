//! Kafka's wire: frames, messages, record batches, compression. No I/O.

#![warn(missing_docs)]

pub mod compress;
pub mod error;
pub mod frame;
pub mod messages;
pub mod record;
pub mod wire;
