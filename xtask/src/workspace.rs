//! Locations of the workspace, its target directory and the VM rig.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use testkit::rig::Layout;

use crate::command::{self, CommandError, cargo};

/// Failure to locate the workspace or its target directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkspaceError {
    #[error("cannot run `cargo metadata`")]
    Cargo(#[from] CommandError),
    #[error("cannot parse the output of `cargo metadata`")]
    Json(#[from] serde_json::Error),
    #[error("the output of `cargo metadata` lacks `workspace_root` or `target_directory`")]
    MissingDirectory,
}

/// The workspace that this xtask was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    /// Parts of the test VMs, such as the kernel and the images.
    rig: Layout,
}

impl Workspace {
    /// Asks cargo for the root and the target directory. The rig is in `MINIONS_RIG_DIR` (relative to the root), by
    /// default in `rig` in the target directory.
    pub(crate) fn locate() -> Result<Self, WorkspaceError> {
        let mut query = cargo();
        query
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        let metadata: Value = serde_json::from_str(&command::run(&mut query)?)?;
        let path = |key| metadata[key].as_str().map(PathBuf::from);
        let target = path("target_directory").ok_or(WorkspaceError::MissingDirectory)?;
        let root = path("workspace_root").ok_or(WorkspaceError::MissingDirectory)?;
        let rig = match env::var_os("MINIONS_RIG_DIR") {
            Some(dir) if !dir.is_empty() => Layout::new(root.join(dir)),
            _ => Layout::new(target.join("rig")),
        };
        Ok(Self { root, target, rig })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    pub(crate) fn rig(&self) -> &Layout {
        &self.rig
    }

    /// Returns the command `cargo SUBCOMMAND` with the workspace's root as its working directory.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = cargo();
        command.arg(subcommand).current_dir(&self.root);
        command
    }
}
