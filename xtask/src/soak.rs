//! A long run of the real daemon over many guests that misbehave: see testkit's `soak`.

use std::{
    process::{ExitCode, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;

use crate::{command, progress, workspace::Workspace};

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// What decides the faults and the calls [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// How many VMs
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=1000))]
    vms: u32,
    /// Without faults but a tenth of the VMs that hangs every other time: what the others notice
    #[arg(long)]
    isolation: bool,
}

/// Builds both programs as they are released, and runs them. What they find fails the command.
///
/// # Errors
///
/// They can't be built or started.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<ExitCode> {
    let mut build = workspace.cargo("build");
    build.args(["--release", "--locked", "-p", "minionsd", "--bin", "minionsd"]);
    command::run(build.args(["-p", "testkit", "--features", "testkit/soak", "--bin", "soak"]))?;
    let out = workspace.target().join("soak");
    let release = workspace.target().join("release");
    let mut soak = std::process::Command::new(release.join("soak"));
    soak.arg(if options.isolation { "isolation" } else { "run" });
    soak.arg(release.join("minionsd")).arg(&out);
    soak.arg(options.seed.unwrap_or_else(by_the_clock).to_string());
    soak.arg((options.minutes * 60).to_string()).arg(options.vms.to_string());
    progress::line(format!("{}\nresults: {}", command::line(&soak), out.display()));
    let status = soak.stdin(Stdio::null()).status().context("cannot start the soak")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Another one each time; it is printed.
fn by_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
