//! The real-VM rig: boots a guest in about three seconds, without KVM and without root.
//!
//! ```text
//!  a test ── <socket_dir>/<name>.vsock ── vhost-device-vsock ── (vhost-user) ── QEMU ── guest
//!            "CONNECT 1024\n" → "OK n\n"                                         minions-agent
//! ```
//!
//! The rig only *boots* VMs. The artifacts are prepared in a rig directory by `cargo xtask test` (or `demo`);
//! if a part is missing, [`Artifacts::locate`] returns an error that names the part: a test that needs a VM
//! fails, it never skips itself.
//!
//! # Layout
//!
//! - [`Layout`]: the path of each part in the rig directory (also used by xtask, which fills it).
//! - [`Artifacts`]: the same parts, checked to exist.
//! - [`Vm`]: one running guest; its processes and files end with it. Its methods inject faults: reset, pause,
//!   a crash of the guest's agent, of QEMU, or of both processes.
//! - [`wait_until`]: waits for a condition, with a deadline and a description.
//!
//! # Lifetime of the processes
//!
//! Dropping a [`Vm`] kills and reaps its two processes and removes its files. If the whole test process ends
//! instead, even by SIGKILL, the kernel kills them (`PR_SET_PDEATHSIG`). The kernel sends that signal at the
//! end of the *thread* that started the child, so one thread that lives as long as the process starts them
//! all: a [`Vm`] may be booted on any thread, outlive it, and be shared by several tests in a `static`. (A
//! `static` is never dropped, so such a VM leaves its socket file and temporary directory.)

mod agent;
mod artifacts;
mod config;
mod error;
mod faults;
mod handshake;
mod layout;
mod process;
mod qemu;
mod qmp;
mod snapshot;
mod socket;
mod vm;
mod vsock_backend;
mod wait;

pub use artifacts::{Artifacts, debian};
pub use config::{Guest, VmConfig};
pub use error::RigError;
pub use layout::{DISK_MODULES, GUEST_MODULES, Layout};
pub use snapshot::Snapshot;
pub use vm::Vm;
pub use wait::wait_until;
