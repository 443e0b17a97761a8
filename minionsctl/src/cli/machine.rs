//! The guest as a machine: its clock and its end.

use clap::Args;
use minions_api::VmName;
use std::time::SystemTime;

/// `set-clock`.
#[derive(Debug, Args)]
pub(crate) struct SetClock {
    /// Which VM
    pub(crate) vm: Option<VmName>,
    /// Another time than now: 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
    pub(crate) time: Option<SystemTime>,
}

/// `poweroff` and `reboot`.
#[derive(Debug, Args)]
pub(crate) struct Power {
    /// Which VM
    pub(crate) vm: Option<VmName>,
    /// Leave the guest's init out: programs get two seconds, file systems are synced
    #[arg(long)]
    pub(crate) force: bool,
    /// Wait until it has happened (at most --timeout, else 2 minutes): reboot, until the VM is ready in another boot;
    /// poweroff, until the guest has halted
    #[arg(long)]
    pub(crate) wait: bool,
}
