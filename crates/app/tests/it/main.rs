//! The binary as its users meet it.

mod clients;
mod up;
