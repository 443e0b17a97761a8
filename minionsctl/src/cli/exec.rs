//! Arguments of the commands that run programs and manage running ones.

use super::declared::SelectorArgs;
use clap::{Args, ValueEnum};
use minions_api::VmName;
use minions_api::exec as api;
use minions_proto::message::{ExecId, MAX_LIMIT, Signal};
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  minionsctl exec web-1 uptime
  minionsctl exec -it web-1 bash                      a shell; ~. disconnects, ~? helps
  minionsctl exec -e LANG=C -e HOME web-1 env         HOME has the local value
  tar c . | minionsctl exec -i web-1 tar x -C /srv    standard input from a pipe
  minionsctl exec -d --id job-17 web-1 make           continues without a client: see ps, logs, attach
  minionsctl exec --on 'web-*' uname -r               on many VMs at once
  minionsctl exec -l app=web,env!=prod uname -r       on all VMs with these labels

The first word after VM is the program, and everything after it belongs to the program. `--` before the
program is also accepted.

Exit code: the program's own; 128+n after signal n; 124 at the time limit; 126 if it cannot be
executed, 127 if it does not exist; 125 if it could not be run or was lost for any other reason.

With --socket, a plain `exec -- CMD` makes the base call and prints the agent's reply as JSON; any
option makes it a stream, as through minionsd.";

const USAGE: &str = "\
minionsctl exec [OPTIONS] VM [--] CMD [ARGS]...
       minionsctl exec [OPTIONS] --on NAME|--all|-l LABELS [--] CMD [ARGS]...
       minionsctl --socket PATH exec [OPTIONS] [--] CMD [ARGS]...";

/// Program of `shell`.
const LOGIN_SHELL: &str = "command -v bash >/dev/null 2>&1 && exec bash -l; exec sh -l";

/// Arguments of `exec`.
#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES, override_usage = USAGE)]
pub(crate) struct ExecArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,

    /// Pass standard input on to the program
    #[arg(short = 'i', long = "stdin")]
    pub(crate) interactive: bool,

    /// Give the program a terminal; with -i, the local one
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// Set an environment variable, repeatable; KEY alone takes the local value
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    pub(crate) env: Vec<String>,

    /// Set environment variables from a file, repeatable: one KEY=VALUE or KEY per line, # starts a comment. --env
    /// overrides them
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,

    /// Working directory (default: /)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// User in the guest, by name or number (default: the agent's user)
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// Resource limit in the units of setrlimit(2), repeatable: nofile=1024, as=268435456
    #[arg(long, value_name = "NAME=N", value_parser = limit)]
    pub(crate) rlimit: Vec<(String, u64)>,

    /// Memory limit for the program and everything that it starts, also as 64K, 512M or 2G; beyond it the program is
    /// ended
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    pub(crate) memory: Option<u64>,

    /// Maximum number of processes and threads at the same time, including the program
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    pub(crate) pids: Option<u64>,

    /// Start the program, print its id and return. With -i, its input stays open for `attach`
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Id of the program: a second start with the same id attaches to the program instead
    #[arg(long)]
    pub(crate) id: Option<ExecId>,

    /// End the program, or let it continue, when the client leaves (default: kill)
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_disconnect: Option<OnDisconnect>,

    /// Program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) argv: Vec<String>,

    #[command(flatten)]
    pub(crate) many: ManyVmsArgs,
}

/// Arguments of `exec` on many VMs.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "On many VMs")]
pub(crate) struct ManyVmsArgs {
    /// A VM, or a pattern with `*` and `?`, repeatable
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["vm", "interactive", "tty", "detach", "id", "socket"]
    )]
    pub(crate) on: Vec<String>,

    /// All VMs
    #[arg(long, conflicts_with_all = ["on", "vm", "interactive", "tty", "detach", "id", "socket"])]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) labels: SelectorArgs,

    /// Number of VMs at the same time, 1 to 256 (default: 32)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) concurrency: Option<u32>,

    /// Start no further program after one has failed
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Print equal outputs once, under the names of their VMs
    #[arg(long)]
    pub(crate) group: bool,
}

impl ManyVmsArgs {
    /// Reports whether `--on`, `--all` or labels select many VMs.
    pub(crate) fn is_meant(&self) -> bool {
        self.all || !self.on.is_empty() || self.labels.selector.is_some()
    }

    /// Reports whether an option is given that requires `--on` or `--all`.
    pub(crate) fn is_said(&self) -> bool {
        self.concurrency.is_some() || self.fail_fast || self.group
    }
}

impl ExecArgs {
    /// Reports whether the base protocol is sufficient: only a command, its arguments and a time limit.
    pub(crate) fn is_plain(&self) -> bool {
        let Self { interactive, tty, env, env_file, workdir, user, rlimit, .. } = self;
        let Self { memory, pids, detach, id, on_disconnect, .. } = self;
        !(*interactive || *tty || *detach)
            && env.is_empty()
            && env_file.is_empty()
            && rlimit.is_empty()
            && (memory, pids) == (&None, &None)
            && (workdir, user, id, on_disconnect) == (&None, &None, &None, &None)
    }
}

/// Parses `NAME=N`. The name is validated with the rest of the request.
fn limit(text: &str) -> Result<(String, u64), String> {
    let limit = text.split_once('=').and_then(|(name, limit)| Some((name, limit.parse().ok()?)));
    limit
        .map(|(name, limit)| (name.to_owned(), limit))
        .ok_or_else(|| "must be NAME=N, for example nofile=1024".into())
}

/// Parses a number of bytes, optionally with a unit (K, M, G or T), which is a power of 1024.
fn memory(text: &str) -> Result<u64, String> {
    const UNITS: [char; 4] = ['K', 'M', 'G', 'T'];
    let unit = text.chars().last().map(|unit| unit.to_ascii_uppercase());
    let power = unit.and_then(|unit| UNITS.iter().position(|known| *known == unit));
    let (digits, shift) = match power {
        Some(power) => (&text[..text.len() - 1], 10 * (power + 1)),
        None => (text, 0),
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| digits.parse::<u64>().ok()).flatten();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| (1..=MAX_LIMIT).contains(bytes)).ok_or_else(|| {
        format!("must be 1 to {MAX_LIMIT} bytes, for example 268435456, 64K, 512M or 2G")
    })
}

/// Fate of a program whose client disconnects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnDisconnect {
    /// End the program
    Kill,
    /// Let the program continue
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

/// VM and id of a program, for the commands that manage one program.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct ExecIdArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,
    /// Id of the program (`minionsctl ps VM`)
    pub(crate) id: ExecId,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) exec: ExecIdArgs,
    /// Continue until the program ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only the last N lines of each stream
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tail: Option<usize>,
    /// Refused, with the reason
    #[arg(long, hide = true, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Refused, with the reason
    #[arg(short, long, hide = true)]
    pub(crate) timestamps: bool,
}

/// Arguments of `shell`.
#[derive(Debug, Args)]
pub(crate) struct ShellArgs {
    /// Name of the VM
    pub(crate) vm: Option<VmName>,
    /// User in the guest, by name or number (default: the agent's user)
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,
}

impl From<ShellArgs> for ExecArgs {
    fn from(ShellArgs { vm, user }: ShellArgs) -> Self {
        let argv = ["sh", "-c", LOGIN_SHELL].map(str::to_owned).to_vec();
        Self { vm, user, argv, interactive: true, tty: true, ..Self::default() }
    }
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[command(
    after_help = "A program with a terminal gets the local one. Standard input is passed on if it is a \
                        terminal, or with -i.\n\nExit code: as for `exec`."
)]
pub(crate) struct AttachArgs {
    #[command(flatten)]
    pub(crate) exec: ExecIdArgs,
    /// Pass standard input on even if it is not a terminal
    #[arg(short = 'i', long = "stdin")]
    pub(crate) interactive: bool,
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    #[command(flatten)]
    pub(crate) exec: ExecIdArgs,
    /// Signal, by name or number (default: TERM)
    #[arg(short, long)]
    pub(crate) signal: Option<Signal>,
    /// End the program with everything that it started, and forget it
    #[arg(long, conflicts_with = "signal")]
    pub(crate) remove: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_limit_is_a_number_of_bytes_with_an_optional_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("268435456", 268_435_456),
            ("64K", 65_536),
            ("64k", 65_536),
            ("512M", 536_870_912),
            ("2G", 2_147_483_648),
            ("1T", 1_099_511_627_776),
            ("9223372036854775807", MAX_LIMIT),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "0",
            "0G",
            "-1",
            "M",
            "1.5G",
            "64MB",
            "64 M",
            "9223372036854775808",
            "18446744073709551616",
            "8388608T",
            "99999999999999999999T",
            "0x10",
            "é",
        ] {
            assert!(memory(text).is_err_and(|error| error.contains("512M")), "{text}");
        }
    }
}
