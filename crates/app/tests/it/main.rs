//! The binary as its users meet it.

mod clients;
mod commands;
mod serve;
mod up;
