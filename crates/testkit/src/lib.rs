//! What tests share: the running binary, echo upstreams, raw connections, certificates and real Kafka clients.
//!
//! Everything here fails by panicking with what was expected and what was seen: a test reads better
//! without a chain of `?`. Every wait has a limit.

pub mod apache;
pub mod consul;
pub mod echo;
pub mod lab;
pub mod mutate;
pub mod nuncio;
pub mod pebble;
pub mod port;
pub mod process;
pub mod raw;
pub mod scripted;
pub mod tls;
pub mod wait;
