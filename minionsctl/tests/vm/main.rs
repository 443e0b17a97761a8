//! Tests of minionsctl with real VMs under QEMU, which a rig boots (`cargo xtask setup`).
//!
//! One program, because linking it takes longer than running most of its tests. Each test boots VMs of its own, so the
//! number of test threads bounds the VMs at the same time: one thread for each processor, or `--test-threads`.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

mod api;
mod boot;
mod exec;
mod files;
mod guest;
mod network;
mod sftp;
#[path = "../shared/mod.rs"]
mod shared;
mod ssh;
mod system;
