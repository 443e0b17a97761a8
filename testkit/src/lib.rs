//! Environments for the tests: real and fake VMs, and a daemon. This crate is never published.
//!
//! # Layout
//!
//! - [`rig`]: a real virtual machine (QEMU without KVM) whose agent is reached through the same
//!   hybrid-vsock socket that Cloud Hypervisor and Firecracker provide. Blocking, no async runtime.
//! - `fake_vmm` (feature of that name): the same socket without a VM; it is served by the real agent's library
//!   or by a scripted fault. Async, for many at once.
//! - [`agent_process`]: the agent as a process of its own. [`built`]: programs of the workspace.
//! - `daemon` (feature of that name): a minionsd in the process of the test, and an HTTP client for it.
//! - `minionsd` (feature `daemon`): a minionsd as a process of its own.
//! - [`wait`]: polls until a condition holds, up to a deadline.
//! - [`wire`]: frames of scripted peers.

pub mod agent_process;
pub mod built;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "fake-vmm")]
pub mod fake_vmm;
#[cfg(feature = "daemon")]
pub mod minionsd;
pub mod rig;
pub mod wait;
pub mod wire;
