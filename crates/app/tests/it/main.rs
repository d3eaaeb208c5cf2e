//! The binary as its users meet it.

mod acme;
mod ambassador;
mod clients;
mod commands;
mod discovery;
mod explain;
mod observe;
mod operation;
mod secured;
mod serve;
mod shop;
mod suites;
mod up;
