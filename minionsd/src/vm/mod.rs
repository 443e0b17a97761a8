//! The VMs of this host.
//!
//! * [`discovery`]: which sockets are there.
//!   [`socket_dir`]: whether their directory can be trusted. [`passed_over`]: files that are no sockets.
//! * [`registry`]: the VMs behind them, by name.
//! * [`supervisor`]: the one task that owns a VM's state.
//!   [`line`]: its own connection to the agent. [`probe_error`]: why a probe failed.
//! * [`status`]: that state, and what is known beside it. [`transition`]: which state follows which.
//!   [`ending`]: the known end of a boot. [`guest_text`]: the bounds of what a guest reports of itself.
//! * [`process`]: the process behind a socket.

#[cfg(test)]
mod absence;
pub(crate) mod discovery;
pub(crate) mod ending;
pub(crate) mod guest_text;
mod line;
pub(crate) mod passed_over;
mod probe_error;
pub(crate) mod process;
pub(crate) mod registry;
#[cfg(test)]
mod silence;
pub(crate) mod socket_dir;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod transition;

pub(crate) use registry::{Each, Means, Registry, Vm};
pub(crate) use socket_dir::Trusted;
