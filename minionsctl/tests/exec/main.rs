//! Programs in a guest, with the real minionsctl, minionsd and agent, but without a VM except in [`real_vm`].
#![allow(clippy::unwrap_used, reason = "in tests, a panic with its location is the report")]

mod bytes;
mod guest;
mod impossible;
mod many;
mod objects;
mod outcomes;
mod process;
mod pty;
mod real_vm;
mod restarts;
mod terminal;
