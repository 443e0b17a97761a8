//! User that owns a Unix socket.

use crate::exec::{UserError, find_identity};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
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

    /// Gives the current thread the rights of this user, and no others, until it ends.
    pub(super) fn become_permanently(&self) -> io::Result<()> {
        // A thread that already is the user may not change its groups, unless it is root.
        if rustix::process::geteuid() == self.uid && !self.uid.is_root() {
            return Ok(());
        }
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(Some(self.gid), Some(self.gid), Some(self.gid))?;
        set_thread_res_uid(Some(self.uid), Some(self.uid), Some(self.uid))?;
        Ok(())
    }
}
