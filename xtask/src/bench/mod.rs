//! Comparison of this project with its peers at the same work, alternating in the same run.
//!
//! # Layout
//!
//! - one file for each bench: [`http`], [`exec`], [`stream`], [`scale`], [`agent`], [`vm`], [`cli`].
//! - [`site`]: minionsd with an agent, or with a [`responder`] in place of an agent, which costs next to
//! nothing.
//! - the peers: [`nginx`], [`qemu_ga`], [`ssh`], [`socat`].
//! - the clients: [`wrk`], [`keep_alive`], [`websocket`], and [`talk`] for the wire protocol.
//! - [`process`]: programs that run meanwhile, and the kernel's figures about them. [`clock`]: durations.
//! - [`measure`], [`report`], [`plot`]: from samples to a table, JSON and a picture.
//!
//! The measured programs and the measuring one are release builds: [`run`] prepares everything and then
//! starts a release build of this program, in which [`measure_all`] runs.

mod agent;
mod cli;
mod clock;
mod exec;
mod http;
mod keep_alive;
mod machine;
mod measure;
mod nginx;
mod plot;
mod process;
mod qemu_ga;
mod report;
pub(crate) mod responder;
mod scale;
mod site;
mod socat;
mod ssh;
mod stream;
mod talk;
mod vm;
mod websocket;
mod wrk;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    command,
    progress::{self, Outcome, Steps},
    setup,
    workspace::Workspace,
};
use report::Report;

/// Number of the bench's own steps: the programs, and the release build of xtask.
const OWN_STEPS: usize = 2;

/// Benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Health of one VM over REST, compared with nginx as a proxy
    Http,
    /// `true` over REST, compared with spawn, qemu-ga and ssh
    Exec,
    /// Gigabytes in both directions, compared with ssh and the bare socket
    Stream,
    /// 1 to 5,000 VMs
    Scale,
    /// Size, memory and start time of the agent, compared with qemu-ga
    Agent,
    /// Health and exec in a real VM, compared with a bare echo
    Vm,
    /// minionsctl as a process, compared with curl
    Cli,
}

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Benches to run [default: all]
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// Number of rounds of each bench
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Do less work in each round: shows that the benches run, but the figures mean little
    #[arg(long)]
    quick: bool,
    /// Setup and builds are complete; start measuring
    #[arg(long, hide = true)]
    prepared: bool,
}

impl Options {
    fn selected(&self) -> &[Bench] {
        if self.benches.is_empty() { Bench::value_variants() } else { &self.benches }
    }
}

/// Paths of the measured programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) minionsd: PathBuf,
    pub(crate) minionsctl: PathBuf,
    /// Static build, as installed in a guest.
    pub(crate) agent: PathBuf,
    pub(crate) xtask: PathBuf,
}

/// Prepares the benches, and runs them in a release build.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<ExitCode> {
    if options.prepared {
        measure_all(workspace, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut steps = Steps::new(setup::BENCH_STEPS + OWN_STEPS);
    setup::for_bench(workspace, &mut steps)?;
    steps.run("minionsd and minionsctl", || build(workspace, &["minionsd", "minionsctl"]))?;
    steps.run("release build of this program", || build(workspace, &["xtask"]))?;
    let mut again = Command::new(workspace.target().join("release/xtask"));
    again.args(std::env::args_os().skip(1)).arg("--prepared");
    let status = again.status().context("cannot start the release build")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds each package separately, so that none gets the features that another one enables.
fn build(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<Outcome> {
    for package in packages {
        let mut build = workspace.cargo("build");
        command::run(build.args(["--release", "--locked", "-p", package]))?;
    }
    Ok(Outcome::done("built"))
}

fn measure_all(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    machine::allow_many_descriptors()?;
    let release = workspace.target().join("release");
    let programs = Programs {
        minionsd: release.join("minionsd"),
        minionsctl: release.join("minionsctl"),
        agent: workspace.rig().agent(),
        xtask: release.join("xtask"),
    };
    let out = workspace.target().join("bench");
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    progress::line(machine::described());
    for bench in options.selected() {
        let report = match bench {
            Bench::Http => http::run(&programs, options)?,
            Bench::Exec => exec::run(&programs, options)?,
            Bench::Stream => stream::run(&programs, options)?,
            Bench::Scale => scale::run(&programs, options, &out)?,
            Bench::Agent => agent::run(&programs, options)?,
            Bench::Vm => vm::run(&programs, options)?,
            Bench::Cli => cli::run(&programs, options)?,
        };
        progress::line(format_args!("\n{}", report.to_table()));
        write(&out, options, &report)?;
    }
    progress::line(format_args!("JSON and plots are in {}", out.display()));
    Ok(())
}

fn write(out: &std::path::Path, options: &Options, report: &Report) -> anyhow::Result<()> {
    let document = json!({
        "machine": machine::described(),
        "rounds": options.rounds,
        "quick": options.quick,
        "report": report.to_json(),
    });
    let path = out.join(format!("{}.json", report.bench));
    fs::write(&path, format!("{document:#}\n"))
        .with_context(|| format!("cannot write {}", path.display()))
}
