//! Consumer groups: who is in them, who reads what, and how far everybody has come.
//!
//! The rules are in [`machine`], which is pure; [`terms`] are its inputs and effects. The
//! [`coordinator`] feeds it and carries out what it wants, the [`store`] makes that durable. What administrators have set
//! for groups is in the [`settings`].

pub(crate) mod consumer;
pub(crate) mod coordinator;
pub(crate) mod kept;
pub(crate) mod machine;
pub(crate) mod member;
pub(crate) mod reset;
pub(crate) mod schema;
pub(crate) mod settings;
pub(crate) mod share;
pub(crate) mod store;
pub(crate) mod streams;
pub(crate) mod terms;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
