//! The grammar.

mod exec;
mod machine;
mod network;

pub(crate) use exec::{Attach, Exec, Kill, Logs, Many};
pub(crate) use machine::{Power, SetClock};
pub(crate) use network::{ConfigureNetwork, ConfirmNetwork};

use clap::{Parser, Subcommand, ValueEnum};
use minions_api::VmName;
use minions_proto::message::ExecId;
use std::path::PathBuf;
use std::time::Duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "minionsctl",
    version,
    about = "Health, network, exec and status of microVMs",
    after_help = "With --socket, commands go straight to one agent and take no VM:\n  \
                  minionsctl --socket /run/minions/web-1.vsock health"
)]
pub(crate) struct Cli {
    /// minionsd: http://HOST:PORT, https://HOST:PORT or unix://PATH [env: MINIONS_HOST] [default: its Unix socket if
    /// this user may connect to it, else http://127.0.0.1:7070]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "URL",
        conflicts_with = "socket"
    )]
    pub(crate) host: Option<String>,

    /// File with the bearer token for minionsd [env: MINIONS_TOKEN_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// Trust these authorities (PEM) for https://, instead of this machine's [env: MINIONS_CA_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Certificate chain and key (PEM, one file) to show to an https:// minionsd that wants one
    /// [env: MINIONS_CERT_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,

    /// A VM's own socket: talk to its agent without minionsd, and print what it says
    #[arg(long, global = true, help_heading = "Global options", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// How to print
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: Format,

    /// Limit for the whole command (`500ms`, `10s`, `5m`); for exec, limit for the program
    #[arg(long, global = true, help_heading = "Global options", value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

/// The thing that `--timeout` limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeoutMeaning {
    /// The whole command.
    Command,
    /// The program in the guest.
    Program,
    /// Nothing: the command has no end.
    None,
}

/// The verbs. `vm` is missing exactly where `--socket` says which agent is meant.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the VMs
    Ls,
    /// What minionsd knows of a VM
    Get {
        /// Which VM
        vm: VmName,
    },
    /// Find out which layer between minionsd and a guest's name servers is broken, and what to do
    Doctor {
        /// Which VM
        vm: VmName,
    },
    /// Ask the agent for its health
    Health {
        /// Which VM
        vm: Option<VmName>,
    },
    /// Ask the agent how its guest is doing
    Status {
        /// Which VM
        vm: Option<VmName>,
    },
    /// Show the guest's network
    Network {
        /// Which VM
        vm: Option<VmName>,
    },
    /// Change the guest's network, and show what became different
    ConfigureNetwork(Box<ConfigureNetwork>),
    /// Let a change of the network stay that was made with --confirm-within
    ConfirmNetwork(ConfirmNetwork),
    /// Set the guest's clock to the host's, or to --time
    SetClock(SetClock),
    /// Power the guest off
    Poweroff(Power),
    /// Reboot the guest, and print the boot_id that ends
    Reboot(Power),
    /// Tell what happens to VMs as it happens: found, gone, another state, another incarnation
    Watch {
        /// Only what happens to this one
        vm: Option<VmName>,
    },
    /// Run a program in the guest: exec VM -- CMD ARGS…
    Exec(Box<Exec>),
    /// List a VM's programs: those that run, and those that ended not long ago
    Ps {
        /// Which VM
        vm: Option<VmName>,
    },
    /// Print what a program has written so far
    Logs(Logs),
    /// Come back to a program
    Attach(Attach),
    /// Send a program a signal, or end and forget it
    Kill(Kill),
    /// Wait until a VM is ready (at most --timeout, else a minute), in another boot with --rebooted-since; or, with
    /// ID, until a program has ended, with its exit code
    Wait {
        /// Which VM
        vm: VmName,
        /// Which of its programs
        id: Option<ExecId>,
        /// Wait until the VM is ready in another boot than this one
        #[arg(
            long,
            value_name = "BOOT_ID",
            conflicts_with = "id",
            value_parser = clap::builder::NonEmptyStringValueParser::new()
        )]
        rebooted_since: Option<String>,
    },
}

impl Command {
    /// Whether the exit code is a remote program's.
    pub(crate) fn runs_a_program(&self) -> bool {
        matches!(self, Self::Exec(_) | Self::Attach(_) | Self::Wait { id: Some(_), .. })
    }

    /// The thing that `--timeout` limits.
    pub(crate) fn meaning_of_timeout(&self) -> TimeoutMeaning {
        match self {
            Self::Exec(_) | Self::Attach(_) => TimeoutMeaning::Program,
            Self::Watch { .. } => TimeoutMeaning::None,
            Self::Ls
            | Self::Get { .. }
            | Self::Doctor { .. }
            | Self::Health { .. }
            | Self::Status { .. }
            | Self::Network { .. }
            | Self::ConfigureNetwork(_)
            | Self::ConfirmNetwork(_)
            | Self::SetClock(_)
            | Self::Poweroff(_)
            | Self::Reboot(_)
            | Self::Ps { .. }
            | Self::Logs(_)
            | Self::Kill(_)
            | Self::Wait { .. } => TimeoutMeaning::Command,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) {
        return Err("must be at least 1ms".into());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_stands_behind_the_dashes_is_the_programs_own() {
        let cli =
            Cli::parse_from(["minionsctl", "exec", "web-1", "--", "ping", "-c", "3", "--host"]);
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!(exec.argv, ["ping", "-c", "3", "--host"]);
    }

    #[test]
    fn exec_without_a_program_is_a_usage_error() {
        assert!(Cli::try_parse_from(["minionsctl", "exec", "web-1"]).is_err());
    }

    #[test]
    fn many_vms_are_no_place_for_what_is_one_programs() {
        let parse = |args: &[&str]| {
            Cli::try_parse_from([&["minionsctl", "exec"], args, &["--", "true"]].concat())
        };
        assert!(parse(&["--on", "web-*", "--on", "db", "--group", "--timeout", "5s"]).is_ok());
        assert!(parse(&["--all", "-e", "A=B", "-u", "nobody", "-w", "/tmp"]).is_ok());
        for more in ["web-1", "-i", "-t", "-d", "--id=x", "--socket=/x", "--all"] {
            assert!(parse(&["--on", "web-*", more]).is_err(), "{more}");
        }
        assert!(parse(&["--all", "web-1"]).is_err());
        assert!(parse(&["-it", "web-1"]).is_ok());
    }

    #[test]
    fn a_program_is_named_by_vm_and_id_and_by_id_alone_behind_a_socket() {
        let parse = |args: &[&str]| match Cli::parse_from([&["minionsctl"], args].concat()).command
        {
            Command::Kill(Kill { exec, .. }) => (exec.vm.map(String::from), exec.id.to_string()),
            _ => panic!("not kill"),
        };
        assert_eq!(parse(&["kill", "web-1", "x", "-s", "INT"]), (Some("web-1".into()), "x".into()));
        assert_eq!(parse(&["--socket", "/s", "kill", "x"]), (None, "x".into()));
    }

    #[test]
    fn a_vm_may_be_called_like_a_verb() {
        let cli = Cli::parse_from(["minionsctl", "health", "health"]);
        assert!(matches!(cli.command, Command::Health { vm: Some(_) }));
    }
}
