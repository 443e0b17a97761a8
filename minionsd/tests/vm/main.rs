//! Faults of real VMs, with one minionsd that runs through them: it reports the fault, and the VM becomes
//! ready again without help.
//!
//! Each test has its own VM, because a fault would affect other tests. The number of test threads bounds the VMs at the
//! same time: one thread for each processor, or `--test-threads`. Several tests mostly wait.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod agents;
mod crashes;
mod guests;
mod host;
mod pauses;
mod resets;
mod snapshots;
