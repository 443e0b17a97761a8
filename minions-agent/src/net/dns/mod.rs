//! Owner of the guest's name servers, and the file that configures it.
//!
//! ```text
//!  /etc/resolv.conf ─▶ …/systemd/resolve/…   systemd-resolved    /run/systemd/resolved.conf.d/…
//!                   ─▶ …/NetworkManager/…    NetworkManager      /run/NetworkManager/conf.d/…
//!                   anything else            resolv.conf itself
//! ```
//!
//! A service forgets settings made over its bus when it restarts. Therefore each gets a configuration file in `/run`,
//! which lasts until the next boot, like the rest of the configuration. Such a file takes precedence over the settings
//! of a link, so a restart of networkd changes nothing either.

mod network_manager;
mod resolv_conf;
mod resolved;
mod resolver;

pub(super) use resolver::ResolverSettings;

use super::saved_file::{SavedContent, SavedFile};
use super::{config_file, systemd};
use minions_proto::message::Dns;
use minions_tree::files::FileAttributes;
use rustix::fs::{Access, access};
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// First line of a file written by the agent.
const MARK: &str = "# By minions-agent, from the host's network configuration.\n";

/// Owner of the name servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DnsOwner {
    /// Plain `resolv.conf`, without a service.
    ResolvConf,
    Resolved,
    NetworkManager,
}

/// Paths of files outside the agent.
#[derive(Debug, Clone)]
pub(super) struct SystemPaths {
    pub(super) resolv_conf: PathBuf,
    /// `/run`.
    pub(super) run: PathBuf,
}

impl DnsOwner {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ResolvConf => "resolv_conf",
            Self::Resolved => "systemd_resolved",
            Self::NetworkManager => "network_manager",
        }
    }

    /// Determines the owner. A service that does not run is not an owner, whatever files it has left; a service that
    /// will be started later in the boot is.
    pub(super) fn detect(system: &SystemPaths) -> Self {
        let saved = SavedFile::read(&system.resolv_conf);
        let (target, text) = match saved.map(|file| file.was) {
            Ok(SavedContent::Link(target)) => (target, String::new()),
            Ok(SavedContent::File { content, .. }) => {
                (PathBuf::new(), String::from_utf8_lossy(&content).into_owned())
            }
            _ => return Self::ResolvConf,
        };
        let target = target.to_string_lossy();
        if resolved::owns(&target, &text)
            && (resolved::is_running(&system.run) || resolved::will_run(system))
        {
            Self::Resolved
        } else if network_manager::owns(&target, &text) && network_manager::is_running(&system.run)
        {
            Self::NetworkManager
        } else {
            Self::ResolvConf
        }
    }

    /// Returns the path of the file that is written for this owner.
    pub(super) fn file(self, system: &SystemPaths) -> PathBuf {
        match self {
            Self::ResolvConf => writable(&system.resolv_conf),
            Self::Resolved => resolved::file(&system.run),
            Self::NetworkManager => network_manager::file(&system.run),
        }
    }

    fn text(self, resolver: &ResolverSettings) -> String {
        let text = match self {
            Self::ResolvConf => resolv_conf::text(resolver),
            Self::Resolved => resolved::text(resolver),
            Self::NetworkManager => network_manager::text(resolver),
        };
        format!("{MARK}{text}")
    }

    /// Returns the lines of resolv.conf(5) that a change keeps. None if the file is a symbolic link, whose target
    /// belongs to another program.
    fn kept(self, system: &SystemPaths) -> Vec<String> {
        let path = match self {
            Self::ResolvConf => self.file(system),
            Self::NetworkManager => system.resolv_conf.clone(),
            // systemd-resolved generates its own options and does not read these lines.
            Self::Resolved => return Vec::new(),
        };
        let is_link = fs::symlink_metadata(&path).is_ok_and(|file| file.is_symlink());
        if is_link && self == Self::ResolvConf {
            return Vec::new();
        }
        resolv_conf::kept(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
    }

    /// Returns the present settings, to write them again where they would be lost otherwise.
    pub(super) fn present(self, system: &SystemPaths) -> Option<ResolverSettings> {
        ResolverSettings::present(&self.read(system), self.kept(system))
    }

    /// Writes the file; [`reload`](Self::reload) makes the service read it. A symbolic link in its place is replaced,
    /// not followed: its target belongs to another program, which would overwrite it. A file keeps its owner and mode.
    ///
    /// Blocks.
    pub(super) fn write(self, system: &SystemPaths, resolver: &ResolverSettings) -> io::Result<()> {
        let path = self.file(system);
        let attributes = match SavedFile::read(&path).map(|file| file.was) {
            Ok(SavedContent::File { mode, user, group, .. }) => {
                FileAttributes { mode, owner: Some((user, group)) }
            }
            _ => config_file::NEW,
        };
        let text = self.text(resolver);
        match config_file::write_with(&path, &text, attributes) {
            // An agent that may only answer network requests has no privilege to change a file's owner.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                config_file::write_with(&path, &text, FileAttributes { owner: None, ..attributes })
            }
            other => other,
        }
    }

    /// Makes the service read its files. Blocks.
    pub(super) fn reload(self, system: &SystemPaths) -> io::Result<()> {
        match self {
            Self::ResolvConf => Ok(()),
            Self::Resolved => resolved::reload(&system.run),
            Self::NetworkManager => systemd::reload("NetworkManager.service"),
        }
    }

    /// Reports whether `file`, which belongs to this owner, already has these settings.
    pub(super) fn holds(self, file: &SavedFile, resolver: &ResolverSettings) -> bool {
        let Some(content) = file.content() else { return false };
        let text = String::from_utf8_lossy(content);
        let asked = resolver.servers.iter().map(ToString::to_string).collect();
        text == self.text(resolver)
            || (self == Self::ResolvConf
                && resolv_conf::parse(&text) == (asked, resolver.search.clone()))
    }

    /// Reads the name servers and search domains in use.
    pub(super) fn read(self, system: &SystemPaths) -> Dns {
        let path = match self {
            Self::ResolvConf | Self::NetworkManager => system.resolv_conf.clone(),
            // `resolv.conf` only names the stub; this file has the servers that the stub queries.
            Self::Resolved => resolved::upstream(&system.run),
        };
        let text = fs::read(path).unwrap_or_default();
        let (servers, search) = resolv_conf::parse(&String::from_utf8_lossy(&text));
        Dns { owner: self.name().to_owned(), servers, search }
    }
}

/// Most symbolic links that are followed.
const MAX_LINKS: usize = 8;

/// Returns `path`, or the target of the symbolic link at `path` if its directory is read-only: with such a link, an
/// image specifies where the file is to be written.
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
