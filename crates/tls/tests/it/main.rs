//! Those who answer and those who ask, between real sockets.

mod accept;
mod certificates;
mod clients;
mod rig;
