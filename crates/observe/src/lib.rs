//! What a running Nuncio tells about itself: metrics, trace context, access lines and logs.

pub mod access;
pub mod flags;
pub mod log;
pub mod metrics;
pub mod trace;
