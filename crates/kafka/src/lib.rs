//! Kafka's wire: frames, messages, record batches, compression. No I/O.

#![warn(missing_docs)]

pub mod compress;
pub mod record;
