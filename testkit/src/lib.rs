//! What the tests run against. Never published.
//!
//! # Layout
//!
//! - [`rig`]: a real virtual machine (QEMU without KVM) whose agent is reached through the same
//!   hybrid-vsock socket that Cloud Hypervisor and Firecracker offer. Blocking, no async runtime.
//! - `fake_vmm` (feature of that name): the same socket without a VM, with the real agent's library
//!   or a scripted fault behind it. Async, for many at once.
//! - `daemon` (feature of that name): a minionsd of the test's own, and HTTP to it.
//! - `soak` (feature of that name): long runs of a real daemon, with a model that checks every answer.

#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "fake-vmm")]
pub mod fake_vmm;
pub mod rig;
#[cfg(feature = "soak")]
pub mod soak;
