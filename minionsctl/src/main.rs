//! `minionsctl`: the thin command line over minionsd, and straight to one agent.
//!
//! # Layout
//!
//! * [`cli`]: the grammar.
//! * [`config`]: which daemon, which token: flag before environment before file.
//! * [`client`]: the daemon over HTTP. [`agent`]: one agent over its socket, no daemon. [`target`]:
//!   one of the two.
//! * [`link`]: a stream to a program, over either. [`session`]: the program at its other end as if it
//!   were here, however often the stream breaks. [`local`]: our input, signals, terminal.
//! * [`commands`]: a file a verb.
//! * [`output`]: everything that is printed, with guest-made text made harmless.
//! * [`exit`]: what the shell gets.
//! * [`failure`]: what goes wrong here, and what to do next.

mod agent;
mod cli;
mod client;
mod commands;
mod config;
mod exit;
mod failure;
mod link;
mod local;
mod output;
mod session;
mod target;

use clap::Parser;
use exit::ExitStatus;
use nix::sys::signal::SigSet;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A parent may leave signals blocked, and an interrupt would never be heard. It cannot fail with a whole set.
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

/// Help and version are what was asked for. A command line that can't be read ends with 2, as usual,
/// unless it is `exec`'s: a program in a guest ends with 2 too, and this one never ran.
fn usage(error: &clap::Error) -> ExitCode {
    // If standard error is gone there is nobody left to tell.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitStatus::Success.into();
    }
    let mut args = std::env::args_os().take_while(|arg| arg != "--");
    let for_exec = args.any(|arg| arg == "exec" || arg == "attach");
    if for_exec { ExitStatus::Ours.into() } else { ExitCode::from(2) }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
