//! The gateway between real sockets: clients on one side, upstreams on the other.

mod basics;
mod rig;
