//! Consumer groups: who is in them, who reads what, and how far everybody has come.
//!
//! The rules are in [`machine`], which is pure; [`terms`] are its inputs and effects.

pub(crate) mod machine;
pub(crate) mod member;
pub(crate) mod terms;

#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;
