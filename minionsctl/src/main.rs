//! `minionsctl`: the thin command line over minionsd, and straight to one agent.
//!
//! # Layout
//!
//! * [`cli`]: the grammar.
//! * [`config`]: which daemon, which token: flag before environment before file.
//! * [`client`]: the daemon over HTTP. [`agent`]: one agent over its socket, no daemon.
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
mod output;

use clap::Parser;
use exit::ExitStatus;
use output::Printer;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let printer = Printer::new(cli.output);
    let runs_a_program = cli.command.runs_a_program();
    let status = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(commands::run(cli, &printer)),
        Err(error) => Err(failure::Failure::Runtime(error)),
    };
    let status = status.unwrap_or_else(|failure| {
        printer.failure(&failure);
        failure.exit_status(runs_a_program)
    });
    status.into()
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}
