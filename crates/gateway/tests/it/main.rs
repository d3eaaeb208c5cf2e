//! The gateway between real sockets: clients on one side, upstreams on the other.

mod basics;
mod failures;
mod framing;
mod http2;
mod live;
mod policies;
mod reasons;
mod retries;
mod rig;
mod routes;
mod streaming;
mod upgrade;
