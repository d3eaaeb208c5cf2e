//! The log from outside: what was appended can be read, whatever happens in between.

mod append;
mod crash;
mod full;
mod read;
mod support;
mod trim;
