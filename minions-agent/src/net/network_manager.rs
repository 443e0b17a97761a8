//! NetworkManager: must not configure an interface that the host configures.
//!
//! A running NetworkManager is told through its own `nmcli`, which leaves addresses and routes as they are; a reload
//! of its files would not affect an interface that it manages already. A configuration snippet (NetworkManager.conf(5))
//! in `/run` has the same effect on a NetworkManager that starts later in this boot.

use super::config_file;
use super::dns::SystemPaths;
use super::tool;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Exit statuses of nmcli(1).
const NOT_RUNNING: i32 = 8;
const NO_SUCH_DEVICE: i32 = 10;

/// Deadline for a NetworkManager that is starting.
const STARTED: Duration = Duration::from_secs(5);

/// Interval between two queries to a NetworkManager that is starting.
const LOOK: Duration = Duration::from_millis(100);

/// Relation of NetworkManager to an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum LinkManagement {
    /// NetworkManager ignores the interface, or does not run.
    #[default]
    Unmanaged,
    /// NetworkManager only shows a configuration made by another program.
    External,
    /// NetworkManager configures the interface, with the connection profile of this UUID if there is one.
    Managed(Option<String>),
    /// NetworkManager runs, but the query failed.
    Unknown,
}

/// Returns the path of the snippet for an interface.
pub(super) fn file(run: &Path, link: &str) -> PathBuf {
    run.join(format!("NetworkManager/conf.d/zz-minions-{link}.conf"))
}

/// Writes the snippet. Does nothing in a guest without NetworkManager. Blocks.
pub(super) fn keep_off(system: &SystemPaths, link: &str, index: u32) -> io::Result<()> {
    if !is_installed(system) {
        return Ok(());
    }
    let text = format!(
        "# By minions-agent: the host configures this interface.\n\
         [device-minions-{index}]\nmatch-device=interface-name:{}\nmanaged=0\n",
        pattern(link)
    );
    config_file::write(&file(&system.run, link), &text)
}

/// Queries a running NetworkManager, and waits for one that is starting. Blocks.
pub(super) fn management(system: &SystemPaths, link: &str) -> LinkManagement {
    if !is_installed(system) || !is_process_there() {
        return LinkManagement::Unmanaged;
    }
    let fields = "GENERAL.NM-MANAGED,GENERAL.STATE,GENERAL.CON-UUID";
    let deadline = Instant::now() + STARTED;
    loop {
        match tool::run("nmcli", &["--terse", "--get-values", fields, "device", "show", link]) {
            Ok((status, text)) if status.success() => return parse(&text),
            Ok((status, _)) if status.code() == Some(NO_SUCH_DEVICE) => {
                return LinkManagement::Unmanaged;
            }
            Ok((status, _))
                if status.code() == Some(NOT_RUNNING)
                    && is_process_there()
                    && Instant::now() < deadline =>
            {
                sleep(LOOK);
            }
            _ if is_process_there() => return LinkManagement::Unknown,
            _ => return LinkManagement::Unmanaged,
        }
    }
}

/// Makes a running NetworkManager release an interface; its addresses and routes stay. Blocks.
pub(super) fn release(link: &str) -> io::Result<()> {
    nmcli(&["device", "set", link, "managed", "no"])
}

/// Returns an interface to NetworkManager, with the connection that was active. Blocks.
pub(super) fn give_back(link: &str, connection: Option<&str>) -> io::Result<()> {
    nmcli(&["device", "set", link, "managed", "yes"])?;
    match connection {
        // A profile that is not activated automatically would stay down. Does not wait for the activation.
        Some(uuid) => nmcli(&["--wait", "0", "connection", "up", "uuid", uuid, "ifname", link]),
        None => Ok(()),
    }
}

fn nmcli(args: &[&str]) -> io::Result<()> {
    let (status, _) = tool::run("nmcli", args)?;
    if status.success() || is_unconcerned(status) {
        return Ok(());
    }
    Err(io::Error::other(format!("nmcli {} ended with {status}", args.join(" "))))
}

/// Reports whether NetworkManager does not run or does not know the interface; then it will read the snippet before
/// it configures the interface.
fn is_unconcerned(status: ExitStatus) -> bool {
    matches!(status.code(), Some(NOT_RUNNING | NO_SUCH_DEVICE))
}

/// Parses the three lines of nmcli: `yes`, `100 (connected)`, the UUID.
fn parse(text: &str) -> LinkManagement {
    let mut lines = text.lines();
    let managed = lines.next().unwrap_or_default();
    let state = lines.next().unwrap_or_default();
    match managed {
        "yes" if state.contains("externally") => LinkManagement::External,
        "yes" => {
            LinkManagement::Managed(lines.next().map(str::to_owned).filter(|uuid| !uuid.is_empty()))
        }
        _ => LinkManagement::Unmanaged,
    }
}

/// Returns a match for exactly this name, or a wildcard pattern if the name has characters with a meaning in a list of
/// devices.
fn pattern(link: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.@+".contains(c);
    if link.chars().all(is_plain) {
        return format!("={link}");
    }
    link.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Reports whether NetworkManager has a configuration directory or has run in this boot.
fn is_installed(system: &SystemPaths) -> bool {
    let etc = system.resolv_conf.parent();
    system.run.join("NetworkManager").is_dir()
        || etc.is_some_and(|etc| etc.join("NetworkManager").is_dir())
}

/// Reports whether root runs a process named `NetworkManager`.
fn is_process_there() -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names = processes.filter_map(|process| {
        let is_roots = process.metadata().ok()?.uid() == 0;
        fs::read_to_string(process.path().join("comm")).ok().filter(|_| is_roots)
    });
    names.any(|name| name.trim_end() == "NetworkManager")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_an_interface_is_read_from_three_lines() {
        for (text, management) in [
            ("yes\n100 (connected)\n1f-2a\n", LinkManagement::Managed(Some("1f-2a".into()))),
            ("yes\n30 (disconnected)\n\n", LinkManagement::Managed(None)),
            ("yes\n100 (connected (externally))\n1f-2a\n", LinkManagement::External),
            ("no\n10 (unmanaged)\n\n", LinkManagement::Unmanaged),
            ("", LinkManagement::Unmanaged),
        ] {
            assert_eq!(parse(text), management, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_matched_exactly_unless_it_has_special_characters() {
        assert_eq!(pattern("enp0s3.100"), "=enp0s3.100");
        assert_eq!(pattern("a;b,c*"), "a?b?c?");
    }
}
