//! The broker over real sockets, with our own codec where real clients would never go.

mod access;
mod clients;
mod compacts;
mod configs;
mod consumers;
mod differential;
mod fetches;
mod formats;
mod groups;
mod hostile;
mod kills;
mod lies;
mod listeners;
mod memory;
mod metrics;
mod produces;
mod quotas;
mod restarts;
mod share_access;
mod shares;
mod stage;
mod streams_access;
mod topics;
mod transactions;
