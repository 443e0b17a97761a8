//! The grammar of running programs, and of what can be done about those that run.

use clap::{Args, ValueEnum};
use minions_api::VmName;
use minions_api::exec as api;
use minions_proto::message::{ExecId, Signal};

const EXAMPLES: &str = "\
Examples:
  minionsctl exec web-1 -- uptime
  minionsctl exec -it web-1 -- bash                      a shell; ~. disconnects, ~? helps
  tar c . | minionsctl exec -i web-1 -- tar x -C /srv    bytes as they are, any number of them
  minionsctl exec -d --id job-17 web-1 -- make           goes on by itself: see ps, logs, attach
  minionsctl exec --on 'web-*' -- uname -r               on many VMs at once

Exit code: the program's own; 128+n after signal n; 124 when its time was up; 126 if it can't be
executed, 127 if it isn't there; 125 if it could not be run or was lost for any other reason.

With --socket, a plain `exec -- CMD` makes the base call and prints the agent's reply as JSON; any
option makes it a stream, as through minionsd.";

/// `exec`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Exec {
    /// Which VM
    pub(crate) vm: Option<VmName>,

    /// Pass our standard input on to the program
    #[arg(short = 'i', long = "stdin")]
    pub(crate) interactive: bool,

    /// Give the program a terminal; with -i, ours
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Set an environment variable; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// Start in this directory (default: /)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// Run as this user of the guest, by name or number (default: as the agent)
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// Set a resource limit, as nofile=1024 or as=268435456, in the units of setrlimit(2)
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    pub(crate) rlimit: Vec<(String, u64)>,

    /// Bytes of memory that it and all that it starts may use together; beyond that it is ended
    #[arg(long, value_name = "BYTES")]
    pub(crate) memory: Option<u64>,

    /// Processes and threads that there may be of it at once
    #[arg(long, value_name = "N")]
    pub(crate) pids: Option<u64>,

    /// Start it, print its id and go; it goes on by itself. With -i, its input stays open for `attach`
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Its id: starting the same again attaches to it instead
    #[arg(long)]
    pub(crate) id: Option<ExecId>,

    /// What becomes of it when we go (default: kill)
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_disconnect: Option<OnDisconnect>,

    #[command(flatten)]
    pub(crate) many: Many,

    /// The program and its arguments, behind `--`
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) argv: Vec<String>,
}

/// `exec` on many VMs.
#[derive(Debug, Args)]
#[command(next_help_heading = "On many VMs")]
pub(crate) struct Many {
    /// On this VM, or on those that match the pattern (`*`, `?`); may be repeated
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["vm", "interactive", "tty", "detach", "id", "socket"]
    )]
    pub(crate) on: Vec<String>,

    /// On all VMs
    #[arg(long, conflicts_with_all = ["on", "vm", "interactive", "tty", "detach", "id", "socket"])]
    pub(crate) all: bool,

    /// How many at once (default: 32)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) concurrency: Option<u32>,

    /// Start no more once one has failed
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Show equal outputs once, under the names of their VMs
    #[arg(long)]
    pub(crate) group: bool,
}

impl Many {
    /// Whether many VMs are meant.
    pub(crate) fn is_meant(&self) -> bool {
        self.all || !self.on.is_empty()
    }

    /// Whether something is said that only makes sense for many.
    pub(crate) fn is_said(&self) -> bool {
        self.concurrency.is_some() || self.fail_fast || self.group
    }
}

impl Exec {
    /// Whether nothing is asked for that the base protocol doesn't have.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { interactive, tty, env, workdir, user, rlimit, .. } = self;
        let Self { memory, pids, detach, id, on_disconnect, .. } = self;
        !(*interactive || *tty || *detach)
            && env.is_empty()
            && rlimit.is_empty()
            && (memory, pids) == (&None, &None)
            && (workdir, user, id, on_disconnect) == (&None, &None, &None, &None)
    }
}

/// Which names there are is checked where all requests are.
fn limit(said: &str) -> Result<(String, u64), String> {
    let limit = said.split_once('=').and_then(|(name, limit)| Some((name, limit.parse().ok()?)));
    limit
        .map(|(name, limit)| (name.to_owned(), limit))
        .ok_or_else(|| "must be NAME=N, as nofile=1024".into())
}

/// What becomes of a program when its client goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDisconnect {
    /// It is ended
    Kill,
    /// It goes on
    Detach,
}

impl From<OnDisconnect> for api::OnDisconnect {
    fn from(on_disconnect: OnDisconnect) -> Self {
        match on_disconnect {
            OnDisconnect::Kill => Self::Kill,
            OnDisconnect::Detach => Self::Detach,
        }
    }
}

/// A program in a VM.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct OneExec {
    /// Which VM
    pub(crate) vm: Option<VmName>,
    /// Which of its programs (`minionsctl ps VM`)
    pub(crate) id: ExecId,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) exec: OneExec,
    /// Go on until the program ends
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// `attach`.
#[derive(Debug, Args)]
#[command(
    after_help = "A program with a terminal gets ours. Our input is passed on if it comes from a \
                        terminal, or with -i.\n\nExit code: as of `exec`."
)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) exec: OneExec,
    /// Pass our standard input on also if it is no terminal
    #[arg(short = 'i', long = "stdin")]
    pub(crate) interactive: bool,
}

/// `kill`.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) exec: OneExec,
    /// The signal, by name or number (default: TERM)
    #[arg(short, long)]
    pub(crate) signal: Option<Signal>,
    /// End it with everything that it started, and forget it
    #[arg(long, conflicts_with = "signal")]
    pub(crate) remove: bool,
}
