//! Booting of VMs.

use std::time::Duration;
use testkit::rig::{Artifacts, Vm, VmConfig};

/// VSOCK port of the agent.
pub(crate) const AGENT_PORT: u32 = 1024;

/// Deadline for booting: systemd under emulation, on a machine that is busy with other tests.
pub(crate) const BOOT: Duration = Duration::from_secs(240);

/// Boots a VM, and waits until its agent accepts connections.
#[track_caller]
pub(crate) fn boot(config: VmConfig) -> Vm {
    let artifacts = Artifacts::locate().unwrap_or_else(|error| panic!("{error}"));
    let mut vm = Vm::boot(&artifacts, config).unwrap_or_else(|error| panic!("{error}"));
    vm.wait_for_port(AGENT_PORT, BOOT).unwrap_or_else(|error| panic!("{error}"));
    vm
}
