//! What the user writes, how it is checked, and its schema. No I/O.
//!
//! Written -> checked -> running: text becomes a tree that keeps its places, the tree becomes the structs below, the
//! structs are checked together, and what passes is the [`Config`] that the rest of the house runs.

#![warn(missing_docs)]

pub mod broker;
pub mod check;
pub mod config;
pub mod endpoints;
pub mod format;
pub mod guard;
pub mod host;
pub mod listener;
pub mod load;
pub mod mapping;
pub mod module;
pub mod object;
pub mod problem;
pub mod publish;
pub mod read;
pub mod render;
pub mod resolver;
pub mod retry;
pub mod schema;
pub mod selector;
pub mod service;
mod shape;
pub mod subscribe;
pub mod support;
pub mod target;
pub mod template;
pub mod tls_context;
pub mod topic;
mod tree;
mod units;

pub use broker::Broker;
pub use config::Config;
pub use endpoints::Endpoints;
pub use host::Host;
pub use listener::Listener;
pub use load::{Loaded, load};
pub use mapping::Mapping;
pub use module::Module;
pub use object::{Object, Origin};
pub use problem::{Problem, Severity};
pub use publish::Publish;
pub use read::{Options, Source};
pub use render::render;
pub use service::Service;
pub use subscribe::Subscribe;
pub use tls_context::TlsContext;
pub use topic::Topic;
