//! `minionsctl`: a thin command line for minionsd, and for a single agent without minionsd.
//!
//! # Layout
//!
//! * [`cli`]: the command line grammar (clap). [`usage`]: reports of command lines that cannot be parsed.
//! * [`failure`]: the error type, with a hint for each error. [`exit`]: exit codes.
//! * [`config`]: address, token and certificates; flags override the environment, which overrides files. [`contexts`]:
//!   named addresses with their credentials. [`host_address`]: forms of an address. [`heap`]: freed memory.
//! * [`client`]: minionsd over HTTP. [`agent`]: one agent over its socket, without minionsd, at an
//!   [`agent_address`]. [`target`]: one of the two.
//! * [`guest_listener`]: a listening socket in a guest, which is opened again when it is lost.
//! * [`link`]: a stream to a program, over either. [`link_error`]: its failures. [`session`]: runs a remote program as
//!   if it were local, re-attaching when the stream breaks. [`local`]: local input, signals and terminal.
//! * [`connect_failure`]: reasons why minionsd cannot be reached. [`copy_error`]: failures of `cp`.
//! * [`bounded_file`]: reads small files up to a limit.
//! * [`ssh_error`]: failures of the SSH commands. [`ssh`]: an SSH server for the system's SSH client, whose sessions
//!   are programs in the guest.
//! * [`commands`]: one file per command.
//! * [`completion`]: candidates for the words that are typed in a shell.
//! * `man`: the manual pages, in builds that write them.
//! * [`output`]: everything that is printed, with control characters from guests escaped.

mod agent;
mod agent_address;
mod bounded_file;
mod cli;
mod client;
mod commands;
mod completion;
mod config;
mod connect_failure;
mod contexts;
mod copy_error;
mod exit;
mod failure;
mod guest_listener;
mod guest_relay;
mod heap;
mod host_address;
mod link;
mod link_error;
mod local;
#[cfg(any(test, feature = "man"))]
mod man;
mod output;
mod session;
mod ssh;
mod ssh_error;
mod target;
mod usage;

use exit::ExitStatus;
use nix::sys::signal::SigSet;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Signals that the parent process has blocked would never arrive, not even SIGINT. This cannot fail for a full set.
    let _ = SigSet::all().thread_unblock();
    if let Some(answered) = completion::answer() {
        return answered;
    }
    #[cfg(feature = "man")]
    if let Some(written) = man::answer() {
        return written;
    }
    let cli = match cli::Cli::parse_words(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    let printer = Printer::new(cli.output, !cli.no_headers);
    let runs_a_program = cli.command.runs_a_program();
    let status = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::run_bounded(cli, &printer)),
        Err(error) => Err(failure::Failure::Runtime(error).into()),
    };
    let status = status.unwrap_or_else(|failed| {
        printer.failure_with(&failed.failure, failed.suggestion);
        failed.failure.exit_status(runs_a_program)
    });
    status.into()
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
