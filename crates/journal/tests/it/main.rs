//! The log from outside: what was appended can be read, whatever happens in between.

mod append;
mod clean;
mod crash;
mod flush;
mod full;
mod hostile;
mod read;
mod support;
mod transactions;
mod trim;
