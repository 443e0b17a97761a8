//! The programs that run in a guest without libraries, each as one static file: the agent, and the probe that
//! attempts from inside what the agent must not allow.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{command, progress::Outcome, workspace::Workspace};

/// Target whose libc can be linked statically; the only one that is sure to be installed.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Links libc statically.
const RUSTFLAGS: &str = "-C target-feature=+crt-static";

/// Environment variable that names a static agent to use instead of building one.
const OVERRIDE: &str = "MINIONS_RIG_AGENT";

/// Profile for the build of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AgentProfile {
    /// Built in the least time.
    Quick,
    /// The profile of the packages.
    Packaged,
}

impl AgentProfile {
    /// The profile's name in Cargo.toml.
    fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Packaged => "agent",
        }
    }
}

/// Builds both and copies them into the rig directory.
pub(crate) fn ensure(workspace: &Workspace, profile: AgentProfile) -> anyhow::Result<Outcome> {
    let probe = ["-p", "testkit", "--bin", "vsock-probe", "--features", "vsock-probe"];
    let probe = build(workspace, profile, &probe)?.join("vsock-probe");
    copy_if_changed(&probe, &workspace.rig().probe()).context("cannot copy the probe")?;
    let agent = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => build(workspace, profile, &["-p", "minions-agent"])?.join("minions-agent"),
    };
    copy_if_changed(&agent, &workspace.rig().agent())
        .with_context(|| format!("cannot copy the agent from {}", agent.display()))
}

/// Builds a package and returns the directory of the result.
fn build(workspace: &Workspace, profile: AgentProfile, what: &[&str]) -> anyhow::Result<PathBuf> {
    let mut build = workspace.cargo("build");
    build
        .args(["--profile", profile.name(), "--target", TARGET, "--locked"])
        .args(what)
        .env("RUSTFLAGS", RUSTFLAGS);
    command::run(&mut build)?;
    Ok(workspace.target().join(TARGET).join(profile.name()))
}

/// Copies the file unless it is unchanged: the guest image is rebuilt only for a changed agent.
fn copy_if_changed(source: &Path, target: &Path) -> anyhow::Result<Outcome> {
    let new = fs::read(source)?;
    if fs::read(target).is_ok_and(|old| old == new) {
        return Ok(Outcome::Cached);
    }
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::copy(source, target)?;
    Ok(Outcome::done("built"))
}
