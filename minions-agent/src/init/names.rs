//! Hostname and loopback interface of the guest.

use super::console::{console, report};
use crate::netlink::link::{self, LinkMessage};
use crate::netlink::{NetlinkSocket, RequestFlags};
use rustix::system::sethostname;
use std::fs;
use std::time::Duration;

/// Prefixes of the words on the kernel's command line that set the hostname: of minions and of systemd.
const WORDS: [&str; 2] = ["minions.hostname=", "systemd.hostname="];

/// Maximum length of a hostname in the kernel, in bytes.
const MAX_LEN: usize = 64;

/// Index of `lo`, which the kernel creates first in every network namespace.
const LOOPBACK: u32 = 1;

/// Deadline for a netlink request; a healthy kernel answers at once.
const NETLINK: Duration = Duration::from_secs(5);

/// Sets the hostname from the kernel's command line, else from `/etc/hostname`. Without either it is not changed.
pub(super) fn set_hostname() {
    let read = |file| fs::read_to_string(file).unwrap_or_default();
    let (cmdline, file) = (read("/proc/cmdline"), read("/etc/hostname"));
    if let Some(name) = hostname(&cmdline, &file) {
        report("set the hostname", sethostname(name.as_bytes()));
    }
}

fn hostname<'a>(cmdline: &'a str, file: &'a str) -> Option<&'a str> {
    let word =
        |prefix: &&str| cmdline.split_whitespace().find_map(|word| word.strip_prefix(prefix));
    let name = WORDS.iter().find_map(word).or_else(|| file.lines().next().map(str::trim))?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (!name.is_empty() && name.len() <= MAX_LEN && name.bytes().all(is_name)).then_some(name)
}

/// Sets `lo` up: programs use 127.0.0.1 also in a guest without a network.
pub(super) async fn set_loopback_up() {
    let socket = match NetlinkSocket::open() {
        Ok(socket) => socket,
        Err(error) => return console(format_args!("set the loopback interface up: {error}")),
    };
    let up = LinkMessage::of(LOOPBACK).set_up(true).emit();
    let set = socket.request(link::SET, RequestFlags::ONE, &up);
    match tokio::time::timeout(NETLINK, set).await {
        Ok(done) => drop(report("set the loopback interface up", done)),
        Err(late) => console(format_args!("set the loopback interface up: {late}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_precedence_over_etc_hostname() {
        assert_eq!(hostname("quiet minions.hostname=web-1 ro", "file\n"), Some("web-1"));
        assert_eq!(hostname("quiet systemd.hostname=web-2", ""), Some("web-2"));
        assert_eq!(hostname("quiet", "file\n"), Some("file"));
        assert_eq!(hostname("quiet", ""), None);
    }

    #[test]
    fn an_invalid_hostname_is_ignored() {
        assert_eq!(hostname("minions.hostname=a;b", ""), None);
        assert_eq!(hostname(&format!("minions.hostname={}", "n".repeat(65)), ""), None);
    }
}
