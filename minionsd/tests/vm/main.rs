//! Faults of real VMs, with one minionsd that runs through them: it reports the fault, and the VM becomes
//! ready again without help.
//!
//! Each test has its own VM, because a fault would affect other tests; only one test runs at a time, because
//! two emulated processors share those of the machine.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod agents;
mod crashes;
mod guests;
mod host;
mod pauses;
mod resets;
