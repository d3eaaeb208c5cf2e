//! What can be written and does nothing yet. Silence would be worse than a warning.

use model::listener::{Layer, Protocol};
use model::{Listener, Module};

/// Returns the fields of the Module that are taken and not acted on by the gateway.
pub(super) fn module(said: &Module) -> Vec<&'static str> {
    collect([
        (said.lua_scripts.is_some(), "lua_scripts"),
        (said.grpc_stats.is_some(), "grpc_stats"),
    ])
}

fn collect<const N: usize>(fields: [(bool, &'static str); N]) -> Vec<&'static str> {
    fields
        .into_iter()
        .filter_map(|(used, name)| used.then_some(name))
        .collect()
}

/// Returns whether a Listener is served: HTTP over TCP.
pub(crate) fn is_served(listener: &Listener) -> bool {
    match (&listener.protocol_stack, listener.protocol) {
        (Some(stack), _) => stack.contains(&Layer::Http) && !stack.contains(&Layer::Udp),
        (None, Some(Protocol::Tcp | Protocol::Tls) | None) => false,
        (None, Some(_)) => true,
    }
}

/// Returns whether connections to a Listener begin with the PROXY protocol.
pub(crate) fn is_proxied(listener: &Listener) -> bool {
    match (&listener.protocol_stack, listener.protocol) {
        (Some(stack), _) => stack.contains(&Layer::Proxy),
        (None, protocol) => {
            matches!(protocol, Some(Protocol::HttpProxy | Protocol::HttpsProxy))
        }
    }
}
