//! Streams groups: applications of Kafka Streams whose tasks the broker assigns (KIP-1071).
//!
//! A member brings the topology of its application: parts that read topics together, each with a task for every partition.
//! The broker decides how many partitions the topics between the parts have and makes those that are missing, then
//! shares out the tasks: active ones, and copies that stand by. As with consumers, a task is given up before another
//! process has it.
//!
//! ```text
//! machine ┬ topology   which topics there have to be, and how many tasks each part has
//!         ├ assign     the target: who shall run what
//!         └ reconcile  one member's next step towards it
//! records              what of it outlives the process
//! ```

pub(crate) mod assign;
pub(crate) mod machine;
pub(crate) mod member;
mod reconcile;
pub(crate) mod records;
mod streaming;
pub(crate) mod topology;

pub(super) use streaming::{Streaming, restore};

#[cfg(test)]
mod tests;
