//! Transactions: several partitions, and offsets of groups, that count together or not at all.
//!
//! The rules are in [`machine`], which is pure; [`terms`] are its words and [`schema`] is how it is stored.
//! The [`coordinator`] feeds it, makes each step durable in `__transaction_state` before it is told, and
//! writes the markers; [`store`] reads and writes that topic.

pub(crate) mod coordinator;
pub(crate) mod machine;
pub(crate) mod schema;
pub(crate) mod store;
pub(crate) mod terms;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
