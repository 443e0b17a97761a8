//! The command line grammar.

mod completion;
mod context;
mod copy;
mod declared;
mod duration;
mod exec;
mod files;
mod forward;
mod list;
mod machine;
mod network;
mod option_words;
mod partial_line;
mod program_words;
mod quiesce;
mod signal_words;
mod ssh;
mod wait;

pub(crate) use completion::{CompletionArgs, CompletionShell};
pub(crate) use context::ContextCommand;
pub(crate) use copy::{CopyArgs, CopyManyArgs};
pub(crate) use declared::{
    ApplyArgs, ConfigArgs, DeclarationFiles, DiffArgs, PoolCommand, SelectorArgs,
};
pub(crate) use exec::{
    AttachArgs, ExecArgs, ExecIdArgs, KillArgs, LogsArgs, ManyVmsArgs, ShellArgs,
};
pub(crate) use files::{FileLocation, FsArgs, FsCommand, GuestFile};
pub(crate) use forward::{ForwardArgs, ForwardSpec, HostTarget, ListenAddress, ReverseSpec};
pub(crate) use list::{LsArgs, PsArgs};
pub(crate) use machine::{PowerArgs, SetClockArgs};
pub(crate) use network::{ConfigureNetworkArgs, ConfirmNetworkArgs};
pub(crate) use partial_line::PartialLine;
pub(crate) use quiesce::QuiesceArgs;
pub(crate) use ssh::{HOST_SUFFIX, SshArgs, SshConfigArgs, SshProxyArgs};
pub(crate) use wait::{WaitArgs, WaitGoal, WaitSubject};

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use duration::duration;
use minions_api::VmName;
use minions_proto::AgentPort;
use minions_proto::message::ExecId;
use option_words::OptionWord;
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
    /// minionsd: http://HOST:PORT, https://HOST:PORT, unix://PATH, HOST, HOST:PORT or /PATH [env: MINIONS_HOST]
    /// [default: its Unix socket if this user may connect to it, otherwise http://127.0.0.1:7070]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "URL",
        conflicts_with = "socket"
    )]
    pub(crate) host: Option<String>,

    /// Context with the address and the credentials of minionsd (`minionsctl context ls`); `default`: no context
    /// [env: MINIONS_CONTEXT]
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "NAME",
        conflicts_with_all = ["host", "socket"]
    )]
    pub(crate) context: Option<String>,

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

    /// Output: table or wide (all columns) for people; json or yaml for programs; name (only names, for lists)
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value = "table"
    )]
    pub(crate) output: OutputFormat,

    /// Print tables without their header lines
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) no_headers: bool,

    /// Limit for the whole command (`500ms`, `10s`, `5m`, or a number of seconds); for exec and attach, limit for the
    /// program. Refused for quiesce, watch, forward, ssh and ssh-proxy
    #[arg(long, global = true, help_heading = "Global options", value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// The command
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Parses the command line. `args` begins with the program's name.
    pub(crate) fn parse_words(
        args: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let mut grammar = Self::command();
        grammar.build();
        let mut words: Vec<_> = args.into_iter().collect();
        if Self::named_command(words.iter().cloned()).as_deref() == Some("kill") {
            words = signal_words::with_signal_option(&grammar, words);
        }
        let words = program_words::with_dashes(&grammar, words);
        let cli = Self::try_parse_from(words)?;
        // The parser knows neither names of VMs from ids of programs, nor their number.
        if let Command::Wait(args) = &cli.command
            && let Err(text) = args.subject()
        {
            return Err(Self::command().error(clap::error::ErrorKind::ValueValidation, text));
        }
        Ok(cli)
    }

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
            let option = OptionWord::parse(&grammar, &arg);
            if option.is_some_and(|option| option.takes_next) {
                args.next();
            }
        }
        None
    }
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// Table for people
    Table,
    /// Table with all columns
    Wide,
    /// Only names, one per line
    Name,
    /// JSON for programs
    Json,
    /// YAML for programs
    Yaml,
}

impl OutputFormat {
    /// Reports whether the format is JSON or YAML.
    pub(crate) fn is_structured(self) -> bool {
        matches!(self, Self::Json | Self::Yaml)
    }
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
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Print what minionsd knows about a VM, and the reason if it is not ready
    #[command(visible_alias = "inspect", alias = "describe", alias = "show")]
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
    #[command(alias = "events")]
    Watch {
        /// Name of the VM (default: all VMs)
        vm: Option<VmName>,
    },
    /// Connect local ports and Unix sockets to those of the guest, until interrupted
    #[command(alias = "port-forward")]
    Forward(ForwardArgs),
    /// List, print, create, rename and remove files of the guest
    Fs(FsArgs),
    /// Copy files and trees into guests, out of guests, and between guests: cp SRC… DST
    Cp(Box<CopyArgs>),
    /// Run a program in the guest: exec VM CMD ARGS…
    Exec(Box<ExecArgs>),
    /// Run a login shell in the guest: bash, or sh if the guest has no bash. As exec -it, with the same exit codes
    Shell(ShellArgs),
    /// List the programs that run in a VM, or in all VMs; with --all, also those that ended recently
    Ps(PsArgs),
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
    /// Wait until VMs are ready (at most --timeout, default: 1 minute) or in another state; or, with ID, until a
    /// program has ended, and end with its exit code
    Wait(WaitArgs),
    /// Print the versions of minionsctl, minionsd and the agents
    Version {
        /// Print only the version of minionsctl
        #[arg(long)]
        client: bool,
    },
    /// Print what minionsd takes this caller for, and what the caller may do
    Whoami,
    /// Print the script with which a shell completes the words of minionsctl
    Completion(CompletionArgs),
    /// Add, select and remove contexts: named addresses of minionsd with their credentials
    Context {
        /// Command
        #[command(subcommand)]
        command: ContextCommand,
    },
}

impl Command {
    /// Reports whether the command prints a list of names with `-o name`.
    pub(crate) fn lists_names(&self) -> bool {
        matches!(self, Self::Ls(_) | Self::Ps(_) | Self::Context { command: ContextCommand::Ls })
    }

    /// Returns the program that the command is about, by its VM and id.
    pub(crate) fn program(&self) -> Option<(VmName, ExecId)> {
        let of = |exec: &ExecIdArgs| Some((exec.vm.clone()?, exec.id.clone()));
        match self {
            Self::Logs(args) => of(&args.exec),
            Self::Attach(args) => of(&args.exec),
            Self::Kill(args) => of(&args.exec),
            Self::Wait(args) => args.program(),
            _ => None,
        }
    }

    /// Reports whether the exit code is a remote program's.
    pub(crate) fn runs_a_program(&self) -> bool {
        matches!(
            self,
            Self::Exec(_) | Self::Attach(_) | Self::Ssh(_) | Self::SshProxy(_) | Self::Shell(_)
        ) || matches!(self, Self::Wait(args) if args.program().is_some())
            || matches!(self, Self::Quiesce(args) if !args.command.is_empty())
    }

    /// Returns what `--timeout` limits.
    pub(crate) fn meaning_of_timeout(&self) -> TimeoutMeaning {
        match self {
            Self::Exec(_) | Self::Shell(_) | Self::Attach(_) => TimeoutMeaning::Program,
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
            | Self::Ps(_)
            | Self::Version { .. }
            | Self::Whoami
            | Self::Completion(_)
            | Self::Context { .. }
            | Self::Fs(_)
            | Self::Cp(_)
            | Self::Logs(_)
            | Self::Kill(_)
            | Self::SshConfig(_)
            | Self::Wait(_) => TimeoutMeaning::Command,
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
    fn help_is_wrapped_to_the_width_of_the_terminal() {
        let longest = |width: usize| {
            let mut grammar = Cli::command().term_width(width);
            grammar.build();
            let exec = grammar.find_subcommand("exec").unwrap().clone().term_width(width);
            let help = exec.after_help("").override_usage("").render_help().to_string();
            help.lines().map(|line| line.chars().count()).max().unwrap()
        };
        assert!(longest(80) <= 80, "{}", longest(80));
        assert!(longest(200) > 100, "{}", longest(200));
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
    fn a_program_needs_no_dashes() {
        let words = ["minionsctl", "exec", "web-1", "-e", "A=1", "ping", "-c", "3", "--host"];
        let cli = Cli::parse_words(words.map(Into::into)).unwrap();
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!(
            (exec.argv, exec.env),
            (
                vec!["ping".to_owned(), "-c".into(), "3".into(), "--host".into()],
                vec!["A=1".to_owned()]
            )
        );
        assert_eq!(cli.host, None);
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
