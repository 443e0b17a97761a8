//! Tests of minionsctl without a VM: with scripted peers, or with a real daemon and an agent on this machine.
//!
//! One program, because linking it takes longer than running most of its tests. None of them changes this process: the
//! environment, limits and signals are those of the commands that they start.
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

mod cli;
mod completion;
mod connections;
mod contexts;
mod cp;
mod declared;
mod exec;
mod files;
mod limits;
mod lists;
mod port;
mod power;
mod quiesce;
mod restored;
mod reverse;
mod scripted;
#[path = "../shared/mod.rs"]
mod shared;
mod ssh;
mod tls;
mod waits;
