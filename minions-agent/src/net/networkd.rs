//! systemd-networkd: it shall leave an interface alone that the host configures.
//!
//! When it starts, and the agent may be up before it, it takes away what it doesn't know from every
//! interface that one of its files matches. A file that comes before all of them says that this interface
//! is not its own.

use super::dns::write;
use std::io;
use std::path::{Path, PathBuf};

/// It sorts its files by name, and the first that matches counts.
pub(super) fn file(run: &Path, link: &str) -> PathBuf {
    run.join(format!("systemd/network/00-minions-{link}.network"))
}

/// Does nothing where systemd doesn't run, and so networkd can't. Takes effect with its next start or reload: until then it
/// knows nothing of the change, and leaves it alone.
///
/// Blocks.
pub(super) fn keep_off(run: &Path, link: &str) -> io::Result<()> {
    if !systemd_runs(run) {
        return Ok(());
    }
    let text = format!(
        "# By minions-agent: the host configures this interface.\n\
         [Match]\nName={link}\n\n[Link]\nUnmanaged=yes\n"
    );
    write(&file(run, link), &text)
}

/// As `sd_booted(3)` has it.
pub(super) fn systemd_runs(run: &Path) -> bool {
    run.join("systemd/system").is_dir()
}
