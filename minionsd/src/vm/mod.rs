//! The VMs of this host.
//!
//! * [`discovery`]: which sockets are there.
//! * [`registry`]: the VMs behind them, by name.
//! * [`supervisor`]: the one task that owns a VM's state.
//! * [`status`]: that state, and every transition of it.

pub(crate) mod discovery;
pub(crate) mod registry;
pub(crate) mod status;
pub(crate) mod supervisor;

pub(crate) use registry::{Registry, Vm};
