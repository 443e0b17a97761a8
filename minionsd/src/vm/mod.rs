//! The VMs of this host.
//!
//! * [`discovery`]: finds the VMs' sockets.
//!   [`socket_dir`]: checks that their directory can be trusted. [`passed_over`]: files that are not VM sockets.
//! * [`registry`]: the VMs of these sockets, by name.
//! * [`supervisor`]: the only task that owns a VM's state.
//!   [`line`]: its own connection to the agent. [`probe_error`]: reasons why a probe failed. [`backoff`]: pauses after
//!   failures.
//! * [`status`]: the state and other facts about the VM. [`transition`]: the state machine.
//!   [`ending`]: the known end of a boot. [`guest_text`]: the bounds of what a guest reports about itself.
//! * [`quiesce_lease`]: the lease of a quiesced guest. [`network_news`]: guests whose network has changed.
//!   [`look_slot`]: looks for drift on the supervisor's connection. [`network_differences`]: their findings as text.
//! * [`generation`]: rewinds, and owners of instance ids. [`vmm_token`]: what tells an agent that its VMM is another
//!   one. [`restore`]: requests to run the restore steps. [`declared_settings`]: what declarations say about them.
//! * [`samples`]: figures of guests that are kept for an hour.
//! * [`announce`]: announcements of agents. [`boot_times`]: the timeline of a boot.
//! * [`process`]: the process that listens on a socket.

#[cfg(test)]
mod absence;
mod announce;
mod backoff;
mod boot_times;
mod declared_settings;
pub(crate) mod discovery;
pub(crate) mod ending;
mod generation;
pub(crate) mod guest_text;
mod line;
pub(crate) mod look_slot;
pub(crate) mod network_differences;
pub(crate) mod network_news;
pub(crate) mod passed_over;
mod probe_error;
pub(crate) mod process;
mod quiesce_lease;
pub(crate) mod registry;
pub(crate) mod restore;
pub(crate) mod samples;
#[cfg(test)]
mod silence;
pub(crate) mod socket_dir;
pub(crate) mod status;
pub(crate) mod supervisor;
pub(crate) mod transition;
mod vmm_token;

pub(crate) use backoff::backoff;
pub(crate) use registry::{Registry, SharedResources, Vm, VmSettings};
pub(crate) use socket_dir::TrustedOwners;
