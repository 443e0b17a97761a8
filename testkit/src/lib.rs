//! What the tests run against. Never published.
//!
//! # Layout
//!
//! - [`rig`]: a real virtual machine (QEMU without KVM) whose agent is reached through the same
//!   hybrid-vsock socket that Cloud Hypervisor and Firecracker offer. Blocking, no async runtime.

pub mod rig;
