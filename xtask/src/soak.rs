//! A long run of the real daemon with many misbehaving guests: see the crate `soak`.

use std::{
    process::{ExitCode, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::Args;

use crate::{command, progress, workspace::Workspace};

/// Options of `cargo xtask soak`.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// Duration in minutes
    #[arg(long, default_value_t = 20)]
    minutes: u64,
    /// Seed that determines the faults and the calls [default: the current time]
    #[arg(long)]
    seed: Option<u64>,
    /// Number of VMs
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=1000))]
    vms: u32,
    /// Inject no faults, but make a tenth of the VMs hang periodically, and measure the effect on the others
    #[arg(long)]
    isolation: bool,
}

/// Builds both programs in the release profile and runs them. The command fails if the soak finds a fault.
///
/// # Errors
///
/// The programs cannot be built or started.
pub(crate) fn run(workspace: &Workspace, options: &SoakOptions) -> anyhow::Result<ExitCode> {
    let mut build = workspace.cargo("build");
    build.args(["--release", "--locked", "-p", "minionsd", "--bin", "minionsd"]);
    command::run(build.args(["-p", "soak", "--bin", "soak"]))?;
    let out = workspace.target().join("soak");
    let release = workspace.target().join("release");
    let mut soak = std::process::Command::new(release.join("soak"));
    soak.arg(if options.isolation { "isolation" } else { "run" });
    soak.arg(release.join("minionsd")).arg(&out);
    soak.arg(options.seed.unwrap_or_else(seed_from_clock).to_string());
    soak.arg((options.minutes * 60).to_string()).arg(options.vms.to_string());
    progress::line(format!("{}\nresults: {}", command::line(&soak), out.display()));
    let status = soak.stdin(Stdio::null()).status().context("cannot start the soak")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns a seed that differs at each run; it is printed with the command line.
fn seed_from_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
