//! Records of the broker's own topics, from bytes that a disk has spoiled.

#![no_main]

use broker::hostile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| hostile::states(input));
