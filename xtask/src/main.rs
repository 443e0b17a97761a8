//! Development tasks of the workspace: `cargo xtask demo | setup | test | check | soak | bench | clients | openapi | man`.
//!
//! # Layout
//!
//! - [`setup`]: prepares the prerequisites of a real VM, one file for each kind; cached in the rig directory.
//! - [`demo`]: boots a VM and shows four operations on it, each in three ways.
//! - [`mod@test`]: runs all checks in order, with one summary line at the end.
//! - [`mod@soak`]: runs the daemon with many misbehaving VMs, for a chosen time.
//! - [`mod@bench`]: prepares and starts the benchmarks.
//! - [`clients`]: checks with real clients and a Debian guest without sshd and network.
//! - [`circles`]: prints circles of imports between modules.
//! - [`openapi`]: writes or compares the committed API description.
//! - [`man`]: writes the manual pages.
//! - [`progress`]: the only module that prints.

mod bench;
mod circles;
mod clients;
mod command;
mod demo;
mod man;
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
#[command(bin_name = "cargo xtask", about = "Development tasks of the workspace")]
struct TaskArguments {
    #[command(subcommand)]
    task: XtaskCommand,
}

#[derive(Debug, Subcommand)]
enum XtaskCommand {
    /// Boot a real VM with the agent, start minionsd, show health, network, exec and status
    Demo {
        /// Exit after the tour instead of staying until Ctrl-C
        #[arg(long)]
        once: bool,
        /// Address at which minionsd serves HTTP
        #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Prepare everything that the tests need, including a guest with the current agent
    Setup,
    /// Run all checks, including the tests with real VMs
    Test,
    /// Check format, language and lints, and run the unit tests and minionsd/tests/it: minutes, without a VM
    Check,
    /// Run the daemon for a long time with many misbehaving VMs, and check every answer
    Soak(soak::SoakOptions),
    /// Measure this project and its competitors side by side; JSON and plots in target/bench/
    Bench(bench::BenchOptions),
    /// Run ssh, rsync, git, Ansible, web clients and copies against a Debian guest without sshd and address
    Clients(clients::ClientsOptions),
    /// Write openapi/minions.json from the daemon's routes
    Openapi {
        /// Only compare, and fail if the committed file is out of date
        #[arg(long)]
        check: bool,
    },
    /// Write the manual pages of all programs to man1 and man8 in a directory
    Man {
        /// Directory, for example /usr/local/share/man
        #[arg(default_value = "target/man", value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the circles of imports between the modules of each crate
    Circles {
        /// Directory of another workspace [default: this one]
        workspace: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    run(TaskArguments::parse().task).unwrap_or_else(|error| {
        progress::error(&error);
        ExitCode::FAILURE
    })
}

fn run(task: XtaskCommand) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        XtaskCommand::Demo { once, listen } => {
            demo::run(&workspace, &demo::DemoOptions { once, listen })?
        }
        XtaskCommand::Setup => setup::for_tests(&workspace, &mut Steps::new(setup::TEST_STEPS))?,
        XtaskCommand::Test => return test::run(&workspace),
        XtaskCommand::Check => return test::quick(&workspace),
        XtaskCommand::Soak(options) => return soak::run(&workspace, &options),
        XtaskCommand::Bench(options) => return bench::run(&workspace, &options),
        XtaskCommand::Clients(options) => return clients::run(&workspace, &options),
        XtaskCommand::Circles { workspace: other } => {
            circles::run(other.as_deref().unwrap_or(workspace.root()))?;
        }
        XtaskCommand::Man { directory } => man::run(&workspace, &directory)?,
        XtaskCommand::Openapi { check: true } => openapi::run(&workspace, openapi::Mode::Check)?,
        XtaskCommand::Openapi { check: false } => openapi::run(&workspace, openapi::Mode::Write)?,
    }
    Ok(ExitCode::SUCCESS)
}
