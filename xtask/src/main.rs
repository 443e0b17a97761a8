//! The workspace's own commands: `cargo xtask demo | setup | test | soak | bench | openapi`.
//!
//! # Layout
//!
//! - [`setup`]: what a real VM needs, one file a kind of prerequisite; cached in the rig directory.
//! - [`demo`]: boots a VM and shows the four verbs over it, each in three ways.
//! - [`mod@test`]: every check there is, in order, with one summary line at the end.
//! - [`mod@soak`]: the daemon over many VMs that misbehave, for as long as one likes.
//! - [`mod@bench`]: this project and its peers on the same work; tables, JSON, a plot.
//! - [`openapi`]: writes or compares the committed API description.
//! - [`progress`]: the only place that prints.

mod bench;
mod command;
mod demo;
mod openapi;
mod progress;
mod setup;
mod soak;
mod test;
mod workspace;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{progress::Steps, workspace::Workspace};

#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", about = "The workspace's own commands")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Boot a real VM with the agent, start minionsd, show health, network, exec and status
    Demo {
        /// Exit after the tour instead of staying until Ctrl-C
        #[arg(long)]
        once: bool,
        /// Where minionsd serves HTTP
        #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Prepare what the tests need, the guest with the agent as it is now included
    Setup,
    /// Check everything, the tests with real VMs included
    Test,
    /// Run the daemon for long over many VMs that misbehave, and check every answer
    Soak(soak::Options),
    /// Measure this project and its peers side by side; JSON and plots under target/bench/
    Bench(bench::Options),
    /// Fake VM sockets whose agents cost nothing, for the benches
    #[command(hide = true)]
    BenchResponder { dir: PathBuf, count: u32 },
    /// Write openapi/minions.json from the daemon's routes
    Openapi {
        /// Only compare, and fail if the committed file is out of date
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    run(Arguments::parse().task).unwrap_or_else(|error| {
        progress::error(&error);
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    if let Task::BenchResponder { dir, count } = task {
        bench::responder::run(&dir, count)?;
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::locate()?;
    match task {
        Task::Demo { once, listen } => demo::run(&workspace, &demo::Options { once, listen })?,
        Task::Setup => setup::for_tests(&workspace, &mut Steps::new(setup::TEST_STEPS))?,
        Task::Test => return test::run(&workspace),
        Task::Soak(options) => return soak::run(&workspace, &options),
        Task::Bench(options) => return bench::run(&workspace, &options),
        // Needs no workspace, and has run.
        Task::BenchResponder { .. } => {}
        Task::Openapi { check: true } => openapi::run(&workspace, openapi::Mode::Check)?,
        Task::Openapi { check: false } => openapi::run(&workspace, openapi::Mode::Write)?,
    }
    Ok(ExitCode::SUCCESS)
}
