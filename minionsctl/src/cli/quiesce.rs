//! Arguments of `quiesce`.

use super::duration::duration;
use clap::Args;
use minions_api::VmName;
use std::ffi::OsString;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  minionsctl quiesce --freeze-fs web-1 -- ./snapshot.sh web-1
  minionsctl quiesce --freeze-fs --ttl 2m web-1     afterwards: minionsctl thaw web-1

The agent thaws the guest by itself when --ttl is over. CMD runs on this host. The guest is thawed when CMD has
ended, however it ends.

Exit code with CMD: that of CMD; 128+n if signal n ended it; 125 if the guest could not be quiesced or thawed, or if the
lease ended before CMD did: then a snapshot is not consistent.";

/// Arguments of `quiesce`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuiesceArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,

    /// Time after which the agent thaws the guest by itself: 1s to 10m [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,

    /// Freeze the file systems of the guest, so that nothing is written to its disks; otherwise they are synced once
    #[arg(long)]
    pub(crate) freeze_fs: bool,

    /// Do not run the hooks in /etc/minions/freeze.d and /etc/minions/thaw.d of the guest
    #[arg(long)]
    pub(crate) no_hooks: bool,

    /// Command to run on this host while the guest is quiesced, after `--`
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
