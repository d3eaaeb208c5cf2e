//! Sources of configuration: files read, watched, merged, checked and published.
//!
//! `files` reads what is there, `watch` says when to look again, `merge` keeps the last good version of what is refused, and
//! [`Control`] owns the loop and publishes what runs.

pub mod control;
pub mod files;
pub mod merge;
mod watch;

pub use control::{Control, Options, Overlay, Published};
