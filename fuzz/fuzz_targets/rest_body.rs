//! Any bytes as a request body: no panic, and an accepted request survives a round trip through JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minionsd::fuzzing;

fuzz_target!(|body: &[u8]| fuzzing::bodies(body));
