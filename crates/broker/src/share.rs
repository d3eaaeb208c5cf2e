//! Share groups' reading (KIP-932): records of one partition go to many members, each is acknowledged by itself.
//!
//! ```text
//! api/share_fetch ┬ sessions    which partitions a member reads, by epochs
//!                 └ partitions  one of them for one group: feeds the machine, stores what it decides
//!                     └ machine what becomes of each record
//!                         └ records  what of it outlives the process, in Kafka's own schema
//! ```
//! Who is in a group and reads which partitions is decided in `group/share`.

pub(crate) mod acquire;
pub(crate) mod machine;
pub(crate) mod partitions;
pub(crate) mod records;
pub(crate) mod runs;
pub(crate) mod sessions;
pub(crate) mod terms;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
