//! Paths of requests: what passes has one spelling.

#![no_main]

use libfuzzer_sys::fuzz_target;

use gateway::route;

#[path = "../../crates/gateway/tests/it/routes/paths.rs"]
mod paths;

fuzz_target!(|input: &[u8]| paths::paths(input));
