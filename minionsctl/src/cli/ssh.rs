//! Arguments of the SSH commands.

use clap::Args;
use minions_api::VmName;
use std::str::FromStr;

/// Suffix of the host names of VMs for an SSH client.
pub(crate) const HOST_SUFFIX: &str = ".minions";

const EXAMPLES: &str = "\
Examples:
  minionsctl ssh web-1                       a login shell of root
  minionsctl ssh eve@web-1 'cd src && make'
  minionsctl ssh --option SendEnv=LANG web-1 env
  minionsctl ssh-config --install            afterwards: ssh web-1.minions, git, rsync, Ansible

The guest needs no sshd, no network and no keys: minionsd authorizes the caller. As with ssh, the words of
CMD are joined with spaces, and the user's shell in the guest parses the result.

Exit code: the program's own, or 255 if ssh itself failed; 125 if ssh could not be started.";

/// Arguments of `ssh`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "minionsctl ssh [OPTIONS] [USER@]VM [[--] CMD [ARGS]...]"
)]
pub(crate) struct SshArgs {
    /// Name of the VM, optionally with the user in the guest (default: root)
    #[arg(value_name = "[USER@]VM")]
    pub(crate) destination: Option<SshDestination>,

    /// Give the command a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Option of ssh_config(5), repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) option: Vec<String>,

    /// Command, also after `--` (default: a login shell)
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

/// User and VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshDestination {
    /// User in the guest.
    pub(crate) user: Option<String>,
    /// The VM.
    pub(crate) vm: VmName,
}

impl FromStr for SshDestination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, vm) = match text.rsplit_once('@') {
            Some(("", _)) => return Err("the user before `@` is missing".into()),
            Some((user, vm)) => (Some(user.to_owned()), vm),
            None => (None, text),
        };
        Ok(Self { user, vm: vm_of_host(vm)? })
    }
}

/// Arguments of `ssh-proxy`.
#[derive(Debug, Args)]
pub(crate) struct SshProxyArgs {
    /// Name of the VM, with or without `.minions`
    #[arg(value_parser = vm_of_host)]
    pub(crate) vm: Option<VmName>,
}

/// Arguments of `ssh-config`.
#[derive(Debug, Args)]
pub(crate) struct SshConfigArgs {
    /// Write the options to ~/.ssh/minions.conf, and include it in ~/.ssh/config
    #[arg(long)]
    pub(crate) install: bool,
}

/// Returns the VM that a host name means: the host name without the suffix `.minions`, which is removed only once.
fn vm_of_host(host: &str) -> Result<VmName, String> {
    let name = host.strip_suffix(HOST_SUFFIX).unwrap_or(host);
    name.parse().map_err(|invalid: minions_api::vm_name::InvalidVmName| invalid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_a_vm_or_its_host_name_with_an_optional_user() {
        let parse = |text: &str| {
            text.parse::<SshDestination>().map(|parsed| (parsed.user, String::from(parsed.vm)))
        };
        assert_eq!(parse("web-1"), Ok((None, "web-1".into())));
        assert_eq!(parse("eve@Web.minions"), Ok((Some("eve".into()), "Web".into())));
        assert_eq!(parse("a@b@web"), Ok((Some("a@b".into()), "web".into())));
        assert_eq!(parse("x.minions.minions"), Ok((None, "x.minions".into())));
        for invalid in ["@web", "eve@", "-oProxyCommand=x", "a/b", ".minions"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }
}
