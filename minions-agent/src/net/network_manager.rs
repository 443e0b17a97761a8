//! NetworkManager: it must not configure an interface that the host configures.
//!
//! A running NetworkManager is told by its own `nmcli`, which leaves addresses and routes as they are; a reload of
//! its files would not change an interface that it knows already. A piece of NetworkManager.conf(5) in `/run` says
//! the same to every NetworkManager that starts later in this boot.

use super::dns::{Places, write};
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

/// Longest start of a NetworkManager that is waited for.
const STARTED: Duration = Duration::from_secs(5);

/// How often to ask one that is starting.
const LOOK: Duration = Duration::from_millis(100);

/// What NetworkManager does with an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) enum Management {
    /// Nothing, or it does not run.
    #[default]
    Unmanaged,
    /// It shows a configuration that another program has made.
    External,
    /// It configures the interface, by the connection profile with this UUID if there is one.
    Managed(Option<String>),
    /// It runs and cannot be asked.
    Unknown,
}

/// Path of the piece for an interface.
pub(super) fn file(run: &Path, link: &str) -> PathBuf {
    run.join(format!("NetworkManager/conf.d/zz-minions-{link}.conf"))
}

/// Writes the piece. Does nothing in a guest without NetworkManager. Blocks.
pub(super) fn keep_off(places: &Places, link: &str, index: u32) -> io::Result<()> {
    if !is_installed(places) {
        return Ok(());
    }
    let text = format!(
        "# By minions-agent: the host configures this interface.\n\
         [device-minions-{index}]\nmatch-device=interface-name:{}\nmanaged=0\n",
        pattern(link)
    );
    write(&file(&places.run, link), &text)
}

/// Asks a running NetworkManager, and waits for one that is starting. Blocks.
pub(super) fn management(places: &Places, link: &str) -> Management {
    if !is_installed(places) || !is_process_there() {
        return Management::Unmanaged;
    }
    let fields = "GENERAL.NM-MANAGED,GENERAL.STATE,GENERAL.CON-UUID";
    let deadline = Instant::now() + STARTED;
    loop {
        match tool::run("nmcli", &["--terse", "--get-values", fields, "device", "show", link]) {
            Ok((status, text)) if status.success() => return parse(&text),
            Ok((status, _)) if status.code() == Some(NO_SUCH_DEVICE) => {
                return Management::Unmanaged;
            }
            Ok((status, _))
                if status.code() == Some(NOT_RUNNING)
                    && is_process_there()
                    && Instant::now() < deadline =>
            {
                sleep(LOOK);
            }
            _ if is_process_there() => return Management::Unknown,
            _ => return Management::Unmanaged,
        }
    }
}

/// Takes an interface from a running NetworkManager; its addresses and routes stay. Blocks.
pub(super) fn release(link: &str) -> io::Result<()> {
    nmcli(&["device", "set", link, "managed", "no"])
}

/// Gives an interface back to it, with the connection that was active. Blocks.
pub(super) fn give_back(link: &str, connection: Option<&str>) -> io::Result<()> {
    nmcli(&["device", "set", link, "managed", "yes"])?;
    match connection {
        // A profile that is not activated automatically would stay down. The activation itself is not waited for.
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

/// It does not run, or does not know the interface: it will read the piece first.
fn is_unconcerned(status: ExitStatus) -> bool {
    matches!(status.code(), Some(NOT_RUNNING | NO_SUCH_DEVICE))
}

/// Three lines: `yes`, `100 (connected)`, the UUID.
fn parse(text: &str) -> Management {
    let mut lines = text.lines();
    let (managed, state) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    match managed {
        "yes" if state.contains("externally") => Management::External,
        "yes" => {
            Management::Managed(lines.next().map(str::to_owned).filter(|uuid| !uuid.is_empty()))
        }
        _ => Management::Unmanaged,
    }
}

/// An exact name, or a pattern if the name has characters that mean something in a list of devices.
fn pattern(link: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.@+".contains(c);
    if link.chars().all(is_plain) {
        return format!("={link}");
    }
    link.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Whether it has a configuration, or has run in this boot.
fn is_installed(places: &Places) -> bool {
    let etc = places.resolv_conf.parent();
    places.run.join("NetworkManager").is_dir()
        || etc.is_some_and(|etc| etc.join("NetworkManager").is_dir())
}

/// Whether root runs a process of its name.
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
            ("yes\n100 (connected)\n1f-2a\n", Management::Managed(Some("1f-2a".into()))),
            ("yes\n30 (disconnected)\n\n", Management::Managed(None)),
            ("yes\n100 (connected (externally))\n1f-2a\n", Management::External),
            ("no\n10 (unmanaged)\n\n", Management::Unmanaged),
            ("", Management::Unmanaged),
        ] {
            assert_eq!(parse(text), management, "{text:?}");
        }
    }

    #[test]
    fn a_name_is_matched_exactly_unless_a_character_of_it_separates_devices() {
        assert_eq!(pattern("enp0s3.100"), "=enp0s3.100");
        assert_eq!(pattern("a;b,c*"), "a?b?c?");
    }
}
