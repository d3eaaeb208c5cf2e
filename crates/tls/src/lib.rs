//! Certificates and rules for TLS, for those who ask and those who answer.
//!
//! A [TLSContext](model::TlsContext) says both. What it means towards services is an [`Originator`](client::Originator), what it
//! means for clients a [`Terminator`](server::Terminator). Both stay the same from one configuration to the next, while
//! their certificates come, change and go: [`keep`] sees to that, files included. New connections use
//! what is there now, open ones what they began with. Something that is broken or missing leaves the last good in use.

pub mod accept;
pub mod certificate;
pub mod client;
pub mod keep;
pub mod material;
pub mod ordered;
pub mod server;

mod staple;
