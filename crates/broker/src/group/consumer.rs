//! Consumer groups whose partitions the broker assigns (KIP-848).
//!
//! Members say in heartbeats what they subscribe to and what they own, and are told what they may own. Three epochs
//! tie it together: the group's rises with every change of members, subscriptions or topics; the target assignment
//! belongs to one of them; each member comes to the target's epoch once it has given up what others shall have.
//!
//! ```text
//! machine ┬ assign     the target: who shall own what
//!         ├ reconcile  one member's next step towards it, so that no partition is owned twice
//!         └ classic    members that still speak the classic protocol
//! records              what of it outlives the process
//! ```
//! [`Assigning`] is a group as the coordinator holds it.

pub(crate) mod assign;
mod assigning;
pub(crate) mod catalog;
pub(crate) mod classic;
mod handover;
pub(crate) mod machine;
pub(crate) mod member;
mod reconcile;
pub(crate) mod records;
pub(crate) mod terms;

pub(crate) use assigning::{Assigning, restore};

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
