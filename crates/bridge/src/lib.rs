//! HTTP to topics and back.
//!
//! A *publish* route turns a request into a record; a *subscription* turns each record into a request. Both use nothing
//! that Kafka does not have, so the embedded broker and a Kafka cluster stand behind them alike.

pub mod log;
pub mod publish;
pub mod subscribe;
mod template;
