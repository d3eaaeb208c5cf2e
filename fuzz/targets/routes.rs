//! The route table against Ambassador's rules, tried one after the other: configurations and requests made of bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;

use gateway::route;

#[path = "../../crates/gateway/tests/it/routes/agree.rs"]
mod agree;
#[path = "../../crates/gateway/tests/it/routes/made.rs"]
mod made;
#[path = "../../crates/gateway/tests/it/routes/naive.rs"]
mod naive;

fuzz_target!(|input: &[u8]| agree::routes(input));
