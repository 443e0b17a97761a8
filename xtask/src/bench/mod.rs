//! This project and its peers on the same work, alternating in the same run.
//!
//! # Layout
//!
//! - one file a bench: [`http`], [`exec`], [`stream`], [`scale`], [`agent`], [`vm`], [`cli`].
//! - [`site`]: minionsd with an agent, or with a [`responder`] for one that costs nothing.
//! - the peers: [`nginx`], [`qemu_ga`], [`ssh`], [`socat`].
//! - the clients: [`wrk`], [`keep_alive`], [`websocket`], and [`talk`] for the wire itself.
//! - [`process`]: what runs meanwhile, and what the kernel counts of it. [`clock`]: how long it took.
//! - [`measure`], [`report`], [`plot`]: from samples to a table, JSON and a picture.
//!
//! What is measured, and what measures, is built for release: [`run`] prepares and hands over to
//! such a build of this very program, which [`measure_all`] runs in.

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

/// Programs, and who measures.
const OWN_STEPS: usize = 2;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// One VM's health over REST, against nginx as a proxy
    Http,
    /// `true` over REST, against spawn, qemu-ga and ssh
    Exec,
    /// Gigabytes both ways, against ssh and the bare socket
    Stream,
    /// 1 to 5,000 VMs
    Scale,
    /// The agent's size, memory and start, against qemu-ga
    Agent,
    /// Health and exec in a real VM, against a bare echo
    Vm,
    /// minionsctl as a process, against curl
    Cli,
}

/// What the command line asks for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which ones; all if none is named
    #[arg(value_enum)]
    benches: Vec<Bench>,
    /// How often each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Less work a round: to see that it runs, not to learn from
    #[arg(long)]
    quick: bool,
    /// All that is needed is there
    #[arg(long, hide = true)]
    prepared: bool,
}

impl Options {
    fn selected(&self) -> &[Bench] {
        if self.benches.is_empty() { Bench::value_variants() } else { &self.benches }
    }
}

/// Where the programs are that are measured.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) minionsd: PathBuf,
    pub(crate) minionsctl: PathBuf,
    /// The static one, as it goes into a guest.
    pub(crate) agent: PathBuf,
    pub(crate) xtask: PathBuf,
}

/// Prepares and measures.
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

/// Each by itself, so that none gets the features that another one wants.
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
