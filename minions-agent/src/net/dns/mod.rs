//! Who has the name servers in this guest, and how they are told.
//!
//! ```text
//!  /etc/resolv.conf ─▶ …/systemd/resolve/…   systemd-resolved    /run/systemd/resolved.conf.d/…
//!                   ─▶ …/NetworkManager/…    NetworkManager      /run/NetworkManager/conf.d/…
//!                   anything else            resolv.conf itself
//! ```
//!
//! What a service is told over its bus it forgets when it restarts. So each is given a file of its own
//! kind, in `/run`: it is there as long as the rest of the configuration, until the next boot. Such a
//! file goes before whatever a link has of its own, so a restart of networkd changes nothing either.

mod network_manager;
mod resolv_conf;
mod resolved;
mod service;

use super::saved_file::{SavedFile, Was};
use crate::replace_file::{self, Attributes};
use minions_proto::message::{Dns, DnsPlan};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Everybody resolves names.
const MODE: u32 = 0o644;

/// The line by which a file is known to be ours.
const MARK: &str = "# By minions-agent, from the host's network configuration.\n";

/// Who has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody: programs read `resolv.conf`.
    ResolvConf,
    Resolved,
    NetworkManager,
}

/// Where things lie.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) resolv_conf: PathBuf,
    /// `/run`.
    pub(super) run: PathBuf,
}

impl Owner {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ResolvConf => "resolv_conf",
            Self::Resolved => "systemd_resolved",
            Self::NetworkManager => "network_manager",
        }
    }

    /// A service that isn't running owns nothing, whatever it has left behind; but one that the guest's
    /// boot will start does.
    pub(super) fn detect(places: &Places) -> Self {
        let saved = SavedFile::read(&places.resolv_conf);
        let (target, text) = match saved.map(|file| file.was) {
            Ok(Was::Link(target)) => (target, String::new()),
            Ok(Was::File { content, .. }) => {
                (PathBuf::new(), String::from_utf8_lossy(&content).into_owned())
            }
            _ => return Self::ResolvConf,
        };
        let target = target.to_string_lossy();
        if resolved::owns(&target, &text)
            && (resolved::is_running(&places.run) || resolved::will_run(places))
        {
            Self::Resolved
        } else if network_manager::owns(&target, &text) && network_manager::is_running(&places.run)
        {
            Self::NetworkManager
        } else {
            Self::ResolvConf
        }
    }

    /// The file that is written for it.
    pub(super) fn file(self, places: &Places) -> PathBuf {
        match self {
            Self::ResolvConf => places.resolv_conf.clone(),
            Self::Resolved => resolved::file(&places.run),
            Self::NetworkManager => network_manager::file(&places.run),
        }
    }

    fn text(self, plan: &DnsPlan) -> String {
        let text = match self {
            Self::ResolvConf => resolv_conf::text(plan),
            Self::Resolved => resolved::text(plan),
            Self::NetworkManager => network_manager::text(plan),
        };
        format!("{MARK}{text}")
    }

    /// Writes the file; [`reload`](Self::reload) has it read. A symbolic link in its place is replaced, not followed: it
    /// leads to a file of somebody else's, who would write over it.
    ///
    /// Blocks.
    pub(super) fn write(self, places: &Places, plan: &DnsPlan) -> io::Result<()> {
        write(&self.file(places), &self.text(plan))
    }

    /// Has its service read its files. Blocks.
    pub(super) fn reload(self, places: &Places) -> io::Result<()> {
        match self {
            Self::ResolvConf => Ok(()),
            Self::Resolved => resolved::reload(&places.run),
            Self::NetworkManager => service::reload("NetworkManager.service"),
        }
    }

    /// Whether `file`, which is this owner's, says the same already.
    pub(super) fn holds(self, file: &SavedFile, plan: &DnsPlan) -> bool {
        let Some(content) = file.content() else { return false };
        let text = String::from_utf8_lossy(content);
        let asked = plan.servers.iter().map(IpAddr::to_string).collect();
        text == self.text(plan)
            || (self == Self::ResolvConf
                && resolv_conf::parse(&text) == (asked, plan.search.clone()))
    }

    /// What programs in the guest get.
    pub(super) fn read(self, places: &Places) -> Dns {
        let path = match self {
            Self::ResolvConf | Self::NetworkManager => places.resolv_conf.clone(),
            // Behind the stub: what it asks itself.
            Self::Resolved => resolved::upstream(&places.run),
        };
        let text = fs::read(path).unwrap_or_default();
        let (servers, search) = resolv_conf::parse(&String::from_utf8_lossy(&text));
        Dns { owner: self.name().to_owned(), servers, search }
    }
}

/// A configuration file; its directory is made if need be.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    replace_file::replace(path, text.as_bytes(), Attributes { mode: MODE, owner: None })
}
