//! Benchmarks: this project and its competitors at the same work, alternately in the same run.
//!
//! `cargo xtask bench` prepares the programs and starts this one; docs/PERFORMANCE.md describes the method.
//!
//! # Layout
//!
//! - [`benches`]: one file for each benchmark.
//! - [`programs`]: the measured programs of this project, programs that run in the background, and the
//!   kernel's figures about them.
//! - [`responder`]: a fake VMM for many VMs whose agents cost next to nothing.
//! - [`contenders`]: the other programs: nginx, qemu-ga, ssh, socat.
//! - [`clients`]: load generator, REST, WebSocket, wire protocol.
//! - [`figures`]: from samples to a table, JSON and a plot.
//! - [`machine`]: description and limits of this machine.

mod benches;
mod clients;
mod contenders;
mod figures;
mod machine;
mod programs;
mod responder;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Benchmarks of minions; use `cargo xtask bench`")]
struct BenchArguments {
    #[command(subcommand)]
    action: BenchAction,
}

#[derive(Debug, Subcommand)]
enum BenchAction {
    /// Measure; everything must be prepared
    Run(benches::RunOptions),
    /// Serve fake VM sockets whose agents cost next to nothing, until killed
    Responder {
        /// Directory of the sockets
        dir: PathBuf,
        /// Number of VMs
        count: u32,
    },
}

fn main() -> ExitCode {
    let done = match BenchArguments::parse().action {
        BenchAction::Run(options) => benches::run(&options),
        BenchAction::Responder { dir, count } => responder::run(&dir, count),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            benches::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
