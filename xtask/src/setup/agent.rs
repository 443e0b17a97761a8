//! The agent as one static file, which runs in a guest without libraries.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{command, progress::Outcome, workspace::Workspace};

/// Only this target is sure to be installed; its libc links statically too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Names a static agent to be used instead of building one.
const OVERRIDE: &str = "MINIONS_RIG_AGENT";

/// Builds the agent and copies it into the rig directory.
pub(crate) fn ensure(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let agent = match env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => build(workspace)?,
    };
    copy_if_changed(&agent, &workspace.rig().agent())
        .with_context(|| format!("cannot take the agent from {}", agent.display()))
}

fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut build = workspace.cargo("build");
    build
        .args(["--profile", "agent", "--target", TARGET, "-p", "minions-agent", "--locked"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(&mut build)?;
    Ok(workspace.target().join(TARGET).join("agent/minions-agent"))
}

/// An unchanged agent keeps its file, so that the guest image stays as it is.
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
