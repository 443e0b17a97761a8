//! Arguments of the lists of VMs and programs.

use super::declared::SelectorArgs;
use clap::Args;
use minions_api::vm::VmState;
use minions_api::{VmName, VmPattern};

const LS_EXAMPLES: &str = "\
Examples:
  minionsctl ls 'web-*' db              VMs by name, or by patterns with * and ?
  minionsctl ls -l app=web -o wide      VMs by labels, with all columns
  minionsctl ls -q --state unreachable  only names, for scripts
  minionsctl ls -o json | jq -r '.vms[] | select(.agent == null).name'";

/// Arguments of `ls`.
#[derive(Debug, Args)]
#[command(after_help = LS_EXAMPLES)]
pub(crate) struct LsArgs {
    /// Only VMs with these names, or patterns with `*` and `?`
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<VmPattern>,

    #[command(flatten)]
    pub(crate) labels: SelectorArgs,

    /// Only VMs in this state: connecting, ready, unreachable or stale
    #[arg(long, value_name = "STATE", value_parser = state)]
    pub(crate) state: Option<VmState>,

    /// Print only names, one per line
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

const PS_EXAMPLES: &str = "\
Examples:
  minionsctl ps                running programs in all VMs
  minionsctl ps -a web-1       also those that ended recently
  minionsctl ps -q web-1       only ids, for scripts";

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = PS_EXAMPLES)]
pub(crate) struct PsArgs {
    /// Name of the VM (default: all VMs)
    pub(crate) vm: Option<VmName>,

    /// Also list programs that ended recently
    #[arg(short, long)]
    pub(crate) all: bool,

    /// Print only ids, one per line
    #[arg(short, long, requires = "vm")]
    pub(crate) quiet: bool,
}

/// Parses the name of a state.
fn state(text: &str) -> Result<VmState, String> {
    let states = [VmState::Connecting, VmState::Ready, VmState::Unreachable, VmState::Stale];
    let found = states.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| "must be connecting, ready, unreachable or stale".into())
}
