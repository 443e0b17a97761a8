//! Arguments of the commands for the guest as a machine: clock and power.

use clap::Args;
use minions_api::VmName;
use std::time::SystemTime;

/// Arguments of `set-clock`.
#[derive(Debug, Args)]
pub(crate) struct SetClockArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,
    /// Time to set instead of the host's: 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
    pub(crate) time: Option<SystemTime>,
}

/// Arguments of `poweroff` and `reboot`.
#[derive(Debug, Args)]
pub(crate) struct PowerArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,
    /// Bypass the guest's init: programs get two seconds, and file systems are synchronized
    #[arg(long)]
    pub(crate) force: bool,
    /// Wait until it has happened, at most --timeout (default: 2 minutes): for reboot, until the VM is ready in another
    /// boot; for poweroff, until the guest has halted or its VMM has ended
    #[arg(long)]
    pub(crate) wait: bool,
}
