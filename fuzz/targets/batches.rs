//! Record batches and what they inflate to, from bytes that a stranger sends.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/kafka/tests/it/sealed.rs"]
mod sealed;

fuzz_target!(|input: &[u8]| sealed::records(input));
