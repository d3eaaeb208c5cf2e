//! The HTTP data plane: listeners, routes, policies, upstreams.
