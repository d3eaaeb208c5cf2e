//! What tests share: echo upstreams, the running binary, real clients.
