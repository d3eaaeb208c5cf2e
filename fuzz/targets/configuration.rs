//! Texts of the configuration: read or refused in bounded time and space, and what is good reads back the same when it is
//! written.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/model/tests/it/random/configuration.rs"]
mod configuration;

fuzz_target!(|input: &[u8]| configuration::configuration(input));
