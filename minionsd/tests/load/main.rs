//! Tests of minionsd under load: floods, many clients, few descriptors. Apart from the others, whose deadlines assume a
//! machine that is not overloaded.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

#[path = "../shared/callers.rs"]
#[allow(dead_code, reason = "another test program uses the rest of this module")]
mod callers;

mod descriptors;
mod hostile_guest;
mod places;
mod soak;
