//! The event broker: connections, dispatch, groups, partitions, writers.
