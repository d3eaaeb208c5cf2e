//! The event broker: connections, dispatch, groups, partitions, writers.

#[allow(dead_code)]
mod group;
