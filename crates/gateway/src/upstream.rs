//! Services over the network: which endpoints they have, the connections to them, and how one request is sent.
//!
//! Every core has its own pools and never looks at those of another one.

pub(crate) mod answer;
pub(crate) mod balance;
pub(crate) mod breaker;
pub(crate) mod cluster;
pub(crate) mod dial;
pub(crate) mod discover;
pub(crate) mod health;
pub(crate) mod outlier;
pub(crate) mod pool;
pub(crate) mod send;
pub(crate) mod state;
pub(crate) mod tls;
