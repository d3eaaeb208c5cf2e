//! What can be written and does nothing yet. Silence would be worse than a warning.

use model::listener::{Layer, Protocol};
use model::{Listener, Mapping, Module};

/// Returns the fields of a Mapping that are taken and not acted on.
pub(super) fn mapping(said: &Mapping) -> Vec<&'static str> {
    collect([
        (said.keepalive.is_some(), "keepalive"),
        (said.tls.is_some(), "tls"),
    ])
}

/// Returns the fields of the Module that are taken and not acted on by the gateway.
pub(super) fn module(said: &Module) -> Vec<&'static str> {
    collect([
        (said.use_proxy_proto, "use_proxy_proto"),
        (said.keepalive.is_some(), "keepalive"),
        (said.lua_scripts.is_some(), "lua_scripts"),
        (said.enable_grpc_web, "enable_grpc_web"),
        (said.enable_grpc_http11_bridge, "enable_grpc_http11_bridge"),
        (said.grpc_stats.is_some(), "grpc_stats"),
        (
            said.forward_client_cert_details.is_some(),
            "forward_client_cert_details",
        ),
    ])
}

fn collect<const N: usize>(fields: [(bool, &'static str); N]) -> Vec<&'static str> {
    fields
        .into_iter()
        .filter_map(|(used, name)| used.then_some(name))
        .collect()
}

/// Returns whether a Listener is served: cleartext HTTP, also where TLS would be possible.
pub(crate) fn is_served(listener: &Listener) -> bool {
    match (&listener.protocol_stack, listener.protocol) {
        (Some(stack), _) => stack.contains(&Layer::Http) && !stack.contains(&Layer::Proxy),
        (None, Some(Protocol::Http | Protocol::Https)) => true,
        (None, _) => false,
    }
}
