//! The bridge over real sockets: a gateway and a broker of its own in each test, and a service that answers as told.

mod house;
mod publish;
mod sink;
mod subscribe;
