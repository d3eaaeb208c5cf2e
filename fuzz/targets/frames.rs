//! Conversations of clients with a broker, from bytes that a stranger sends.

#![no_main]

use broker::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hostile::frames(input));
