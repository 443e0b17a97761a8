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
mod resolver;
mod service;

pub(super) use resolver::Resolver;

use super::saved_file::{SavedFile, Was};
use crate::replace_file::{self, Attributes};
use minions_proto::message::Dns;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs;
use std::io;
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
            Self::ResolvConf => writable(&places.resolv_conf),
            Self::Resolved => resolved::file(&places.run),
            Self::NetworkManager => network_manager::file(&places.run),
        }
    }

    fn text(self, resolver: &Resolver) -> String {
        let text = match self {
            Self::ResolvConf => resolv_conf::text(resolver),
            Self::Resolved => resolved::text(resolver),
            Self::NetworkManager => network_manager::text(resolver),
        };
        format!("{MARK}{text}")
    }

    /// Lines of resolv.conf(5) that a change keeps. Those behind a symbolic link belong to another program.
    fn kept(self, places: &Places) -> Vec<String> {
        let path = match self {
            Self::ResolvConf => self.file(places),
            Self::NetworkManager => places.resolv_conf.clone(),
            // It makes its own, and does not read these.
            Self::Resolved => return Vec::new(),
        };
        let is_link = fs::symlink_metadata(&path).is_ok_and(|file| file.is_symlink());
        if is_link && self == Self::ResolvConf {
            return Vec::new();
        }
        resolv_conf::kept(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
    }

    /// Settings that are there, to be written again where they would be lost otherwise.
    pub(super) fn present(self, places: &Places) -> Option<Resolver> {
        Resolver::present(&self.read(places), self.kept(places))
    }

    /// Writes the file; [`reload`](Self::reload) has it read. A symbolic link in its place is replaced, not followed: it
    /// leads to a file of somebody else's, who would write over it. A file keeps its owner and mode.
    ///
    /// Blocks.
    pub(super) fn write(self, places: &Places, resolver: &Resolver) -> io::Result<()> {
        let path = self.file(places);
        let attributes = match SavedFile::read(&path).map(|file| file.was) {
            Ok(Was::File { mode, user, group, .. }) => {
                Attributes { mode, owner: Some((user, group)) }
            }
            _ => Attributes { mode: MODE, owner: None },
        };
        let text = self.text(resolver);
        match write_with(&path, &text, attributes) {
            // An agent that answers network requests alone cannot give a file to another user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write_with(&path, &text, Attributes { owner: None, ..attributes })
            }
            other => other,
        }
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
    pub(super) fn holds(self, file: &SavedFile, resolver: &Resolver) -> bool {
        let Some(content) = file.content() else { return false };
        let text = String::from_utf8_lossy(content);
        let asked = resolver.servers.iter().map(ToString::to_string).collect();
        text == self.text(resolver)
            || (self == Self::ResolvConf
                && resolv_conf::parse(&text) == (asked, resolver.search.clone()))
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

/// Writes a configuration file of the agent's own; its directory is made if need be.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    write_with(path, text, Attributes { mode: MODE, owner: None })
}

fn write_with(path: &Path, text: &str, attributes: Attributes) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    replace_file::replace_or_overwrite(path, text.as_bytes(), attributes)
}

/// Most symbolic links that are followed.
const MAX_LINKS: usize = 8;

/// `path`, or the target of the symbolic link there if its directory is read-only: a link that cannot be replaced is
/// the image's way to say where the file is written.
fn writable(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Some(parent) = path.parent() else { break };
        match (fs::read_link(&path), access(parent, Access::WRITE_OK)) {
            (Ok(target), Err(Errno::ROFS)) => path = parent.join(target),
            _ => break,
        }
    }
    path
}
