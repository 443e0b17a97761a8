//! User that owns a Unix socket.

use crate::exec::{UserError, find_identity};
use nix::unistd::{setfsgid, setfsuid};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups};
use std::io;

/// User, group and supplementary groups of a socket's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketOwner {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl SocketOwner {
    /// Finds `USER` or `USER:GROUP`, each a name or a number.
    pub(super) fn find(spec: &str) -> Result<Self, UserError> {
        let (uid, gid, groups) = find_identity(spec)?;
        Ok(Self { uid, gid, groups })
    }

    /// Returns uid and gid.
    pub(super) fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Gives the current thread the rights of this user on files, and no others, until it ends.
    ///
    /// Only the ids for file systems change. With the real and effective ids of the thread, the user could send signals
    /// to it, and a signal that ends or stops a thread does so to the whole agent.
    pub(super) fn take_file_rights(&self) -> io::Result<()> {
        // A thread that already is the user may not change its groups, unless it is root.
        if rustix::process::geteuid() == self.uid && !self.uid.is_root() {
            return Ok(());
        }
        set_thread_groups(&self.groups)?;
        let (uid, gid) = (
            nix::unistd::Uid::from_raw(self.uid.as_raw()),
            nix::unistd::Gid::from_raw(self.gid.as_raw()),
        );
        // Both return the previous id, also after a failure: the second call shows the result of the first one.
        setfsgid(gid);
        setfsuid(uid);
        if setfsgid(gid) != gid || setfsuid(uid) != uid {
            return Err(Errno::PERM.into());
        }
        if !self.uid.is_root() {
            let mut sets = capabilities(None)?;
            sets.effective = CapabilitySet::empty();
            set_capabilities(None, sets)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_thread_has_the_file_rights_of_the_owner_and_cannot_be_signalled_by_it() {
        let ids = || {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = |name| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
            };
            (line("Uid:"), line("CapEff:"))
        };
        let before = ids();
        assert!(before.0.starts_with("0\t"), "this test needs root: {before:?}");
        let owner = SocketOwner::find("65534:65534").unwrap();
        let during = std::thread::spawn(move || owner.take_file_rights().map(|()| ids()))
            .join()
            .unwrap()
            .unwrap();
        // Real, effective, saved and file system uid.
        assert_eq!(during, ("0\t0\t0\t65534".to_owned(), "0".repeat(16)));
        assert_eq!(ids(), before);
    }
}
