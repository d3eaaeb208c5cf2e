//! The log on disk: append, read, recover, retain, compact.
//!
//! One [`Log`] is one partition, in Kafka's own directory layout, so that Kafka's tools
//! read it:
//!
//! ```text
//! orders-0/
//!   00000000000000000000.log        record batches, byte for byte but for offset and epoch
//!   00000000000000000000.index      offset -> position, sparse
//!   00000000000000000000.timeindex  timestamp -> offset, sparse
//!   00000000000000000000.txnindex   transactions that were aborted, where there are any
//!   00000000000000000042.snapshot   producers as of offset 42
//!   leader-epoch-checkpoint         which leader epoch began where
//!   partition.metadata              the topic's id
//!   checkpoint                      start of the log, recovery point, damaged ranges (ours alone)
//! ```
//!
//! A writer thread owns many logs: it appends to any of them, flushes those that changed, and answers
//! whoever waits for records before the stable offset. A [`Reader`] works on any
//! thread meanwhile. Nothing here is async, and time comes in from outside.

mod aborted;
mod active;
mod checkpoint;
pub mod clean;
mod config;
mod disk;
mod epochs;
mod index;
mod log;
mod metadata;
pub mod producer;
mod reader;
mod recover;
mod scan;
mod segment;
mod shared;
#[cfg(test)]
mod sim;

pub use aborted::Aborted;
pub use config::{Compaction, Config, Levels, Retention};
pub use log::{AppendError, Appended, CutError, Flush, Log, OpenError, sweep};
pub use metadata::topic_id;
pub use reader::{Found, Held, ReadError, Reader, Slice, Stretch};
pub use recover::Report;
