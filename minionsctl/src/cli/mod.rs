//! The command line grammar.

mod copy;
mod declared;
mod duration;
mod exec;
mod files;
mod forward;
mod machine;
mod network;
mod quiesce;
mod ssh;

pub(crate) use copy::{CopyArgs, CopyManyArgs};
pub(crate) use declared::{
    ApplyArgs, ConfigArgs, DeclarationFiles, DiffArgs, PoolCommand, SelectorArgs, WaitGoal,
};
pub(crate) use exec::{AttachArgs, ExecArgs, KillArgs, LogsArgs, ManyVmsArgs};
pub(crate) use files::{FileLocation, FsArgs, FsCommand, GuestFile};
pub(crate) use forward::{ForwardArgs, ForwardSpec, HostTarget, ListenAddress, ReverseSpec};
pub(crate) use machine::{PowerArgs, SetClockArgs};
pub(crate) use network::{ConfigureNetworkArgs, ConfirmNetworkArgs};
pub(crate) use quiesce::QuiesceArgs;
pub(crate) use ssh::{HOST_SUFFIX, SshArgs, SshConfigArgs, SshProxyArgs};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use duration::duration;
use minions_api::VmName;
use minions_proto::AgentPort;
use minions_proto::message::ExecId;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "minionsctl",
    version,
    about = "Health, status, network, programs, files and ports of microVMs",
    after_help = "With --socket, commands talk to one agent directly and take no VM:\n  \
                  minionsctl --socket /run/minions/web-1.vsock health"
)]
pub(crate) struct Cli {
    /// minionsd: http://HOST:PORT, https://HOST:PORT or unix://PATH [env: MINIONS_HOST] [default: its Unix socket if
    /// this user may connect to it, otherwise http://127.0.0.1:7070]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "URL",
        conflicts_with = "socket"
    )]
    pub(crate) host: Option<String>,

    /// File with the bearer token [env: MINIONS_TOKEN_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// CA bundle (PEM) for https://, if the server's CA is not in the system store [env: MINIONS_CA_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Client certificate chain and key (PEM, one file), if the server requires a client certificate
    /// [env: MINIONS_CERT_FILE]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) cert_file: Option<PathBuf>,

    /// The VM's own socket: talk to its agent directly, without minionsd. Leave VM out
    #[arg(long, global = true, help_heading = "Global options", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// The agent's VSOCK port in the guest, with --socket [env: MINIONS_AGENT_PORT] [default: 1024]
    #[arg(long, global = true, help_heading = "Global options", value_name = "PORT")]
    pub(crate) port: Option<AgentPort>,

    /// Call only this incarnation of the VM (`incarnation.id` of `minionsctl -o json get VM`); fail if the guest has
    /// rebooted, its agent was restarted, or another VM has the name
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "ID",
        conflicts_with = "socket"
    )]
    pub(crate) incarnation: Option<String>,

    /// Output for people or for programs
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: OutputFormat,

    /// Limit for the whole command (`500ms`, `10s`, `5m`); for exec and attach, limit for the program. Refused for
    /// quiesce, watch, forward, ssh and ssh-proxy
    #[arg(long, global = true, help_heading = "Global options", value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// The command
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Returns the command in `args`: the first word that is neither an option nor the value of one. It may be invalid.
    /// `args` begins with the program's name.
    pub(crate) fn named_command(args: impl IntoIterator<Item = OsString>) -> Option<String> {
        let grammar = Self::command();
        let mut args = args.into_iter().skip(1);
        while let Some(arg) = args.next() {
            let word = arg.to_str().filter(|word| *word != "--")?;
            if !word.starts_with('-') {
                return Some(word.to_owned());
            }
            let takes_next = grammar.get_arguments().any(|option| {
                let long = option.get_long().map(|long| format!("--{long}"));
                let short = option.get_short().map(|short| format!("-{short}"));
                option.get_action().takes_values() && [long, short].contains(&Some(word.to_owned()))
            });
            if takes_next {
                args.next();
            }
        }
        None
    }
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Output for people
    Table,
    /// Output for programs
    Json,
}

/// Scope of `--timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeoutMeaning {
    /// The whole command.
    Command,
    /// The program in the guest.
    Program,
    /// Nothing: the option is refused.
    None,
}

/// Commands. An optional `vm` is absent if `--socket` selects the agent.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the VMs and their states
    Ls(SelectorArgs),
    /// Print what minionsd knows about a VM, and the reason if it is not ready
    Get {
        /// Name of the VM
        vm: VmName,
    },
    /// Check each layer from minionsd to the guest's name servers, and print what is broken and what to do
    Doctor {
        /// Name of the VM
        vm: VmName,
    },
    /// Ask the agent for its health
    Health {
        /// Name of the VM
        vm: Option<VmName>,
    },
    /// Ask the agent for uptime, memory, processors, kernel, interfaces and disks
    Status {
        /// Name of the VM
        vm: Option<VmName>,
    },
    /// Print interfaces, routes and name servers as the guest's kernel has them
    Network {
        /// Name of the VM
        vm: Option<VmName>,
    },
    /// Change the guest's network, and print the differences
    ConfigureNetwork(Box<ConfigureNetworkArgs>),
    /// Make a network change with --confirm-within permanent
    ConfirmNetwork(ConfirmNetworkArgs),
    /// Apply declarations files: what VMs must have, and address pools
    Apply(ApplyArgs),
    /// Print what `apply` would change; exit code 1 if anything
    Diff(DiffArgs),
    /// Print the configuration that a VM must have, with the origin of each field
    Config(ConfigArgs),
    /// List the declarations
    Declarations,
    /// List address pools and leases, reserve and release addresses
    Pool {
        /// Command
        #[command(subcommand)]
        command: PoolCommand,
    },
    /// Set the guest's clock to the host's time, or to --time
    SetClock(SetClockArgs),
    /// Treat the guest as restored from a snapshot: run the restore steps, and print their results
    Restored {
        /// Name of the VM
        vm: VmName,
    },
    /// Power the guest off
    Poweroff(PowerArgs),
    /// Reboot the guest, and print the boot_id of the boot that ends
    Reboot(PowerArgs),
    /// Bring the guest's file systems into a consistent state; with a command on this host, such as a snapshot, thaw
    /// the guest when it has ended: quiesce VM -- CMD ARGS…
    Quiesce(QuiesceArgs),
    /// End a quiesce before its lease does
    Thaw {
        /// Name of the VM
        vm: Option<VmName>,

        /// End only the quiesce with this id, which `quiesce` printed [default: end any]
        #[arg(long)]
        id: Option<String>,
    },
    /// Print events as they happen: VMs found and gone, changes of state and incarnation
    Watch {
        /// Name of the VM (default: all VMs)
        vm: Option<VmName>,
    },
    /// Connect local ports and Unix sockets to those of the guest, until interrupted
    Forward(ForwardArgs),
    /// List, print, create, rename and remove files of the guest
    Fs(FsArgs),
    /// Copy files and trees into guests, out of guests, and between guests: cp SRC… DST
    Cp(Box<CopyArgs>),
    /// Run a program in the guest: exec VM -- CMD ARGS…
    Exec(Box<ExecArgs>),
    /// List the programs that run and those that ended recently
    Ps {
        /// Name of the VM
        vm: Option<VmName>,
    },
    /// Print a program's output so far
    Logs(LogsArgs),
    /// Re-attach to a program
    Attach(AttachArgs),
    /// Send a signal to a program, or end and forget it
    Kill(KillArgs),
    /// Run a command or a login shell in the guest with the system's ssh, without sshd
    Ssh(SshArgs),
    /// Serve SSH on standard input and output: for ssh, as ProxyCommand
    SshProxy(SshProxyArgs),
    /// Print the options with which ssh, rsync and git reach VM.minions, or install them into ~/.ssh
    SshConfig(SshConfigArgs),
    /// Wait until a VM is ready (at most --timeout, default: 1 minute), in another boot with --rebooted-since; or,
    /// with ID, until a program has ended, and end with its exit code
    Wait {
        /// Name of the VM
        vm: VmName,
        /// Id of a program (`minionsctl ps VM`)
        id: Option<ExecId>,
        /// Wait until the VM is ready in another boot than this one
        #[arg(
            long,
            value_name = "BOOT_ID",
            conflicts_with = "id",
            value_parser = clap::builder::NonEmptyStringValueParser::new()
        )]
        rebooted_since: Option<String>,
        /// State to wait for [default: ready]
        #[arg(long = "for", value_name = "STATE", value_enum, conflicts_with_all = ["id", "rebooted_since"])]
        goal: Option<WaitGoal>,
    },
}

impl Command {
    /// Reports whether the exit code is a remote program's.
    pub(crate) fn runs_a_program(&self) -> bool {
        matches!(
            self,
            Self::Exec(_)
                | Self::Attach(_)
                | Self::Ssh(_)
                | Self::SshProxy(_)
                | Self::Wait { id: Some(_), .. }
        ) || matches!(self, Self::Quiesce(args) if !args.command.is_empty())
    }

    /// Returns what `--timeout` limits.
    pub(crate) fn meaning_of_timeout(&self) -> TimeoutMeaning {
        match self {
            Self::Exec(_) | Self::Attach(_) => TimeoutMeaning::Program,
            // A limit would end the command before the thaw.
            Self::Quiesce(_)
            | Self::Watch { .. }
            | Self::Forward(_)
            | Self::Ssh(_)
            | Self::SshProxy(_) => TimeoutMeaning::None,
            Self::Ls(_)
            | Self::Apply(_)
            | Self::Diff(_)
            | Self::Config(_)
            | Self::Declarations
            | Self::Pool { .. }
            | Self::Get { .. }
            | Self::Doctor { .. }
            | Self::Health { .. }
            | Self::Status { .. }
            | Self::Network { .. }
            | Self::ConfigureNetwork(_)
            | Self::ConfirmNetwork(_)
            | Self::SetClock(_)
            | Self::Restored { .. }
            | Self::Poweroff(_)
            | Self::Reboot(_)
            | Self::Thaw { .. }
            | Self::Ps { .. }
            | Self::Fs(_)
            | Self::Cp(_)
            | Self::Logs(_)
            | Self::Kill(_)
            | Self::SshConfig(_)
            | Self::Wait { .. } => TimeoutMeaning::Command,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_command_of_invalid_arguments_is_the_first_word_that_is_not_an_option() {
        let named = |args: &str| {
            Cli::named_command(["minionsctl"].into_iter().chain(args.split(' ')).map(Into::into))
        };
        for args in [
            "exec",
            "exec get --bogus",
            "--bogus exec",
            "--timeout x -o json exec",
            "--host=a exec",
            "-ojson exec",
            "--host get exec",
        ] {
            assert_eq!(named(args).as_deref(), Some("exec"), "{args}");
        }
        for args in ["get exec", "--host exec get", "--bogus get exec", "-o exec get"] {
            assert_eq!(named(args).as_deref(), Some("get"), "{args}");
        }
        for args in ["--host exec", "--host", "-- exec", "--bogus"] {
            assert_eq!(named(args), None, "{args}");
        }
    }

    #[test]
    fn arguments_after_the_dashes_belong_to_the_program() {
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
    fn options_of_a_single_program_are_refused_with_many_vms() {
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
    fn a_program_is_named_by_vm_and_id_or_with_a_socket_by_id_alone() {
        let parse = |args: &[&str]| match Cli::parse_from([&["minionsctl"], args].concat()).command
        {
            Command::Kill(KillArgs { exec, .. }) => {
                (exec.vm.map(String::from), exec.id.to_string())
            }
            _ => panic!("not kill"),
        };
        assert_eq!(parse(&["kill", "web-1", "x", "-s", "INT"]), (Some("web-1".into()), "x".into()));
        assert_eq!(parse(&["--socket", "/s", "kill", "x"]), (None, "x".into()));
    }

    #[test]
    fn a_vm_may_have_the_name_of_a_command() {
        let cli = Cli::parse_from(["minionsctl", "health", "health"]);
        assert!(matches!(cli.command, Command::Health { vm: Some(_) }));
    }
}
