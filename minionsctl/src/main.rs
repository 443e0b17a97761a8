//! `minionsctl`: a thin command line for minionsd, and for a single agent without minionsd.
//!
//! # Layout
//!
//! * [`cli`]: the command line grammar (clap).
//! * [`failure`]: the error type, with a hint for each error. [`exit`]: exit codes.
//! * [`config`]: address, token and certificates; flags override the environment, which overrides files.
//! * [`client`]: minionsd over HTTP. [`agent`]: one agent over its socket, without minionsd, at an
//!   [`agent_address`]. [`target`]: one of the two.
//! * [`guest_listener`]: a listening socket in a guest, which is opened again when it is lost.
//! * [`link`]: a stream to a program, over either. [`link_error`]: its failures. [`session`]: runs a remote program as if it were local,
//!   re-attaching when the stream breaks. [`local`]: local input, signals and terminal.
//! * [`copy_error`]: failures of `cp`.
//! * [`bounded_file`]: reads small files up to a limit.
//! * [`ssh_error`]: failures of the SSH commands. [`ssh`]: an SSH server for the system's SSH client, whose sessions are programs in the guest.
//! * [`commands`]: one file per command.
//! * [`output`]: everything that is printed, with control characters from guests escaped.

mod agent;
mod agent_address;
mod bounded_file;
mod cli;
mod client;
mod commands;
mod config;
mod copy_error;
mod exit;
mod failure;
mod guest_listener;
mod guest_relay;
mod link;
mod link_error;
mod local;
mod output;
mod session;
mod ssh;
mod ssh_error;
mod target;

use clap::Parser;
use exit::ExitStatus;
use nix::sys::signal::SigSet;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Signals that the parent process has blocked would never arrive, not even SIGINT. This cannot fail for a full set.
    let _ = SigSet::all().thread_unblock();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let printer = Printer::new(cli.output);
    let runs_a_program = cli.command.runs_a_program();
    let status = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::run_bounded(cli, &printer)),
        Err(error) => Err(failure::Failure::Runtime(error)),
    };
    let status = status.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit_status(runs_a_program)
    });
    status.into()
}

/// Prints help, the version or a usage error, and returns the exit code: 0 for help and version, otherwise 2,
/// as usual. Usage errors of `exec`, `attach`, `quiesce`, `ssh` and `ssh-proxy` are 125 instead: 2 could be the exit code of the program.
fn usage(error: &clap::Error) -> ExitCode {
    // A closed standard error leaves no place to report this.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitStatus::Success.into();
    }
    match cli::Cli::named_command(std::env::args_os()).as_deref() {
        Some("exec" | "attach" | "quiesce" | "ssh" | "ssh-proxy") => ExitStatus::Ours.into(),
        _ => ExitCode::from(2),
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
