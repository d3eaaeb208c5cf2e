//! The gateway between real sockets: clients on one side, upstreams on the other.

mod balancing;
mod basics;
mod edge;
mod failures;
mod framing;
mod grpc;
mod health;
mod http2;
mod interim;
mod live;
mod policies;
mod proxied;
mod reasons;
mod retries;
mod rig;
mod rolling;
mod routes;
mod streaming;
mod tls;
mod upgrade;
