//! Share groups: who is in them, and which partitions each member reads (KIP-932).
//!
//! Unlike in a consumer group a partition may be read by several members, so that nobody waits for anybody: a member
//! comes to the target's epoch with its next heartbeat. What becomes of each record is kept in `crate::share`.

pub(crate) mod assign;
pub(crate) mod machine;
pub(crate) mod records;
mod sharing;

pub(crate) use sharing::{Sharing, restore};

#[cfg(test)]
mod tests;
