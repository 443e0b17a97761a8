//! The VMs of this host.
//!
//! * [`discovery`]: which sockets are there.
//! * [`registry`]: the VMs behind them, by name.
//! * [`supervisor`]: the one task that owns a VM's state.
//! * [`status`]: that state, and what is known beside it. [`transition`]: which state follows which.
//! * [`process`]: the process behind a socket.

pub(crate) mod discovery;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod transition;

pub(crate) use registry::{Means, Registry, Vm};
