//! Arguments of `wait`.

use super::declared::SelectorArgs;
use clap::{Args, ValueEnum};
use minions_api::VmName;
use minions_proto::message::ExecId;

const EXAMPLES: &str = "\
Examples:
  minionsctl wait web-1                             until the VM is ready
  minionsctl wait --for ready web-1 web-2           until all of these VMs are ready
  minionsctl wait --for configured -l app=web       until all VMs with these labels are configured
  minionsctl wait --for gone --timeout 5m web-1     until the VM has no socket any more
  minionsctl wait web-1 job-17                      until the program has ended, with its exit code";

/// Arguments of `wait`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "minionsctl wait [OPTIONS] VM [ID]\n       minionsctl wait [OPTIONS] --for STATE VM...|-l LABELS|--all"
)]
pub(crate) struct WaitArgs {
    /// Name of the VM; with --for, names of VMs
    #[arg(value_name = "VM", required_unless_present_any = ["selector", "all"])]
    vm: Option<VmName>,

    /// Id of a program (`minionsctl ps VM`); with --for, names of more VMs
    #[arg(value_name = "ID")]
    more: Vec<String>,

    /// Wait until the VM is ready in another boot than this one
    #[arg(
        long,
        value_name = "BOOT_ID",
        conflicts_with_all = ["more", "selector"],
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) rebooted_since: Option<String>,

    /// State to wait for [default: ready]
    #[arg(long = "for", value_name = "STATE", value_enum, conflicts_with = "rebooted_since")]
    pub(crate) goal: Option<WaitGoal>,

    #[command(flatten)]
    pub(crate) labels: SelectorArgs,

    /// All VMs that exist now
    #[arg(long, conflicts_with_all = ["vm", "selector", "rebooted_since"])]
    pub(crate) all: bool,
}

/// State that `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitGoal {
    /// The agent answers
    Ready,
    /// The declared configuration is applied
    Configured,
    /// The VM has a socket, but its agent does not answer
    Unreachable,
    /// The VM has no socket any more
    Gone,
}

/// Subject of a wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WaitSubject {
    /// A VM, until it is ready.
    Vm(VmName),
    /// The end of a program.
    Program(VmName, ExecId),
    /// Several VMs by name, until they are in a state.
    Vms(Vec<VmName>, WaitGoal),
    /// The VMs that `--all` or labels select, until they are in a state.
    Selected(WaitGoal),
}

impl WaitArgs {
    /// Returns what to wait for, or a message about the arguments.
    pub(crate) fn subject(&self) -> Result<WaitSubject, String> {
        let is_selected = self.all || self.labels.selector.is_some();
        let goal = self.goal.unwrap_or(WaitGoal::Ready);
        match (&self.vm, self.more.as_slice()) {
            (Some(_), _) if is_selected => Err("-l selects the VMs: leave out their names".into()),
            (None, _) => Ok(WaitSubject::Selected(goal)),
            (Some(vm), more) if self.goal.is_some() => {
                let more = more.iter().map(|name| {
                    name.parse().map_err(|error| format!("invalid VM name {name:?}: {error}"))
                });
                let vms: Result<Vec<_>, String> =
                    [Ok(vm.clone())].into_iter().chain(more).collect();
                Ok(WaitSubject::Vms(vms?, goal))
            }
            (Some(vm), []) => Ok(WaitSubject::Vm(vm.clone())),
            (Some(vm), [id]) => {
                let id = id.parse().map_err(|error| format!("invalid id {id:?}: {error}"))?;
                Ok(WaitSubject::Program(vm.clone(), id))
            }
            (Some(vm), more) => Err(format!(
                "one VM and the id of one program are possible; for several VMs: minionsctl wait --for ready {vm} {}",
                more.join(" ")
            )),
        }
    }

    /// Returns the program to wait for.
    pub(crate) fn program(&self) -> Option<(VmName, ExecId)> {
        match self.subject() {
            Ok(WaitSubject::Program(vm, id)) => Some((vm, id)),
            Ok(WaitSubject::Vm(_) | WaitSubject::Vms(..) | WaitSubject::Selected(_)) | Err(_) => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use super::*;
    use clap::Parser;

    fn subject(line: &str) -> Result<WaitSubject, String> {
        let words = ["minionsctl", "wait"].into_iter().chain(line.split(' '));
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Wait(args) = cli.command else { panic!("not wait") };
        args.subject()
    }

    fn vm(name: &str) -> VmName {
        name.parse().unwrap()
    }

    #[test]
    fn a_second_word_is_a_program_and_with_for_a_vm() {
        let both = vec![vm("a"), vm("b")];
        let program = WaitSubject::Program(vm("a"), "b".parse().unwrap());
        for (line, wanted) in [
            ("a", WaitSubject::Vm(vm("a"))),
            ("a b", program),
            ("--for gone a b", WaitSubject::Vms(both.clone(), WaitGoal::Gone)),
            ("a b --for ready", WaitSubject::Vms(both, WaitGoal::Ready)),
            ("--for configured -l app=web", WaitSubject::Selected(WaitGoal::Configured)),
            ("--all", WaitSubject::Selected(WaitGoal::Ready)),
        ] {
            assert_eq!(subject(line), Ok(wanted), "{line}");
        }
        let several = subject("a b c").unwrap_err();
        assert!(several.ends_with("minionsctl wait --for ready a b c"), "{several}");
        for line in ["--for gone", "a --all", "a -l x=y", "--for bogus a", "a b --rebooted-since x"]
        {
            assert!(subject(line).is_err(), "{line}");
        }
    }
}
