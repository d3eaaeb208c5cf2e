//! The HTTP data plane: listeners, routes, policies, upstreams.
pub mod route;
