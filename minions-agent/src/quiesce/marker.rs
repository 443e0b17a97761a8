//! File that exists from before the freeze hooks until the thaw hooks have run.
//!
//! An agent that finds it at its start ends the quiesce in place of the agent that was killed. It contains whether the
//! thaw hooks must be run, and the id of the boot: after a reboot, there is nothing left to undo.

use super::QuiesceState;
use crate::task::spawn_blocking;
use minions_tree::files::{self, FileAttributes};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directory is shared with the journal of network changes.
const DIR_MODE: u32 = 0o700;
const MODE: u32 = 0o600;

#[derive(Debug)]
pub(super) struct QuiesceMarker {
    path: PathBuf,
}

impl QuiesceMarker {
    /// Returns the marker of agents that use the hooks of `hook_dir`: `minions-agent/quiesced-etc-minions`.
    pub(super) fn new(run_dir: &Path, hook_dir: &Path) -> Self {
        let hooks = hook_dir.to_string_lossy().replace('/', "-");
        Self { path: run_dir.join("minions-agent").join(format!("quiesced{hooks}")) }
    }

    /// Writes the file. Blocks.
    pub(super) fn set(&self, hooks: bool) -> io::Result<()> {
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent)?;
        let attributes = FileAttributes { mode: MODE, owner: None };
        files::replace(&self.path, text(hooks)?.as_bytes(), attributes)
    }

    /// Removes the file. Blocks.
    pub(super) fn clear(&self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = ?self.path, "cannot remove the marker of a quiesce");
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// Reports whether a previous agent of this boot has left the file.
    pub(super) fn is_left(&self) -> bool {
        [true, false].into_iter().any(|hooks| self.contains(hooks))
    }

    /// Reports whether the file was left and the thaw hooks must be run.
    pub(super) fn has_hooks(&self) -> bool {
        self.contains(true)
    }

    fn contains(&self, hooks: bool) -> bool {
        let left = fs::read_to_string(&self.path);
        left.is_ok_and(|left| text(hooks).is_ok_and(|text| text == left))
    }
}

/// Removes the marker in a thread. If none can be started, the next agent runs the hooks again.
pub(super) async fn clear(shared: &Arc<QuiesceState>) {
    let shared = Arc::clone(shared);
    let _ = spawn_blocking(move || shared.marker.clear()).await;
}

/// Returns the content of the file.
fn text(hooks: bool) -> io::Result<String> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{}\n{boot_id}", if hooks { "hooks" } else { "no hooks" }))
}
