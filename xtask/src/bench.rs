//! Preparation and start of the benchmarks: see the crate `minions-bench`.

use std::process::{Command, ExitCode};

use anyhow::Context;
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser},
};

use crate::{
    command,
    progress::{Outcome, Steps},
    setup,
    workspace::Workspace,
};

/// Number of own steps: the measured programs, and the program that measures.
const OWN_STEPS: usize = 2;

/// Names of the benchmarks as in `minions-bench`, and their descriptions.
const BENCHES: [(&str, &str); 9] = [
    ("http", "Health over REST, compared with nginx as a proxy"),
    ("exec", "`true` over REST, compared with spawn, qemu-ga and ssh"),
    ("stream", "Gigabytes in both directions, compared with ssh and the bare socket"),
    ("scale", "1 to 5,000 VMs"),
    ("agent", "Size, memory and start time of the agent, compared with qemu-ga"),
    ("vm", "Health and exec in a real VM, compared with a bare echo"),
    ("cli", "minionsctl as a process, compared with curl"),
    ("declared", "5,000 VMs with declarations, compared with the same VMs without"),
    (
        "files",
        "A large file and 5,000 small ones in both directions, compared with scp, sftp and rsync",
    ),
];

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// Benchmarks to run [default: all]
    #[arg(value_parser = names())]
    benches: Vec<String>,
    /// Number of rounds of each benchmark
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Do less work in each round: shows that the benchmarks run, but the figures mean little
    #[arg(long)]
    quick: bool,
}

fn names() -> PossibleValuesParser {
    BENCHES.map(|(name, description)| PossibleValue::new(name).help(description)).into()
}

/// Prepares the VM, the contenders and release builds of all programs, and runs the benchmarks.
///
/// # Errors
///
/// A program cannot be prepared, built or started. A failed benchmark results in a failing exit code.
pub(crate) fn run(workspace: &Workspace, options: &BenchOptions) -> anyhow::Result<ExitCode> {
    let mut steps = Steps::new(setup::BENCH_STEPS + OWN_STEPS);
    setup::for_bench(workspace, &mut steps)?;
    steps.run("minionsd and minionsctl", || build(workspace, &["minionsd", "minionsctl"]))?;
    steps.run("benchmarks", || build(workspace, &["minions-bench"]))?;
    let release = workspace.target().join("release");
    let mut bench = Command::new(release.join("minions-bench"));
    bench.arg("run").arg("--programs").arg(&release);
    bench.arg("--out").arg(workspace.target().join("bench"));
    bench.args(["--rounds", &options.rounds.to_string()]);
    bench.args(options.quick.then_some("--quick")).args(&options.benches);
    let status = bench.env("MINIONS_RIG_DIR", workspace.rig().dir()).status();
    let status = status.context("cannot start the benchmarks")?;
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
