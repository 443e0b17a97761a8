//! Any bytes as a request's body: no panic, and what is taken says the same when it is sent again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minionsd::fuzzing;

fuzz_target!(|body: &[u8]| fuzzing::bodies(body));
