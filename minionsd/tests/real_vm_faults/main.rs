//! What befalls real VMs, with one minionsd that runs all along: it says what happened, and the VM is
//! ready again by itself.
//!
//! Each test has a VM of its own, because its fault is what would spoil another's; they take turns,
//! because two emulated processors share the machine's.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod agents;
mod crashes;
mod guests;
mod host;
mod pauses;
mod resets;
