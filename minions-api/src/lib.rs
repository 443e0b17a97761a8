//! The REST types, shared by the daemon that serves them and the command line that reads them.
//!
//! Health, status and exec bodies keep the wire's field names, but they are types of their own: the
//! wire (`minions-proto`) is frozen, this evolves. Requests refuse fields that they don't know, so
//! that nothing a caller asked for is dropped in silence; replies may gain fields at any time.
//!
//! # Layout
//!
//! * [`vm_name`]: the one grammar for a VM's name.
//! * [`vm`]: what the registry knows of a VM.
//! * [`health`], [`status`], [`network`], [`exec`], [`clock`], [`power`]: one file a resource.
//! * [`event`]: what happens to VMs.
//! * [`service`]: the daemon about itself.
//! * [`problem`]: every failure (RFC 9457) and its stable code.
//! * [`timestamp`]: moments as RFC 3339.

pub mod clock;
pub mod event;
pub mod exec;
pub mod health;
pub mod network;
pub mod power;
pub mod problem;
pub mod service;
pub mod status;
pub mod timestamp;
pub mod vm;
pub mod vm_name;

pub use problem::{ErrorCode, Problem};
pub use timestamp::Timestamp;
pub use vm_name::VmName;
