//! systemd-networkd: must not configure an interface that the host configures.
//!
//! When networkd starts, possibly after the agent, it removes unknown settings from every interface that one of its
//! files matches. A file that sorts before all others marks the interface as unmanaged.

use super::{config_file, systemd};
use std::io;
use std::path::{Path, PathBuf};

/// Returns the path of the file for an interface. networkd sorts its files by name and uses the first match.
pub(super) fn file(run: &Path, link: &str) -> PathBuf {
    run.join(format!("systemd/network/00-minions-{link}.network"))
}

/// Writes the file. Does nothing where systemd does not run, because then networkd cannot run either. Takes effect at
/// networkd's next start or reload; until then networkd does not react to the change.
///
/// Blocks.
pub(super) fn keep_off(run: &Path, link: &str) -> io::Result<()> {
    if !systemd::is_running(run) {
        return Ok(());
    }
    let text = format!(
        "# By minions-agent: the host configures this interface.\n\
         [Match]\nName={link}\n\n[Link]\nUnmanaged=yes\n"
    );
    config_file::write(&file(run, link), &text)
}
