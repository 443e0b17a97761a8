//! The users who are allowed to operate.

use minions_api::service::Identity;
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;

/// Root, the daemon's own user, and the members of one group.
#[derive(Debug)]
pub(crate) struct Operators {
    group: String,
    own: u32,
}

impl Operators {
    /// Creates the set of operators for `group`, which need not exist.
    pub(crate) fn new(group: String) -> Self {
        Self { group, own: geteuid().as_raw() }
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// Reports whether `identity` is an operator. `groups` are the groups of the connecting process as recorded by the
    /// kernel: systemd's `Group=` and `SupplementaryGroups=`, `sg`, `setpriv` and container managers can set groups
    /// that the user database does not list.
    ///
    /// The lookup in the system's user database, which may be remote, runs on a blocking thread.
    pub(super) async fn include(&self, identity: &Identity, groups: &[u32]) -> bool {
        let Identity::User { uid } = *identity else { return false };
        if uid == 0 || uid == self.own {
            return true;
        }
        let (group, groups) = (self.group.clone(), groups.to_vec());
        let asked = tokio::task::spawn_blocking(move || is_member(uid, &groups, &group));
        // A failed lookup grants nothing.
        asked.await.is_ok_and(|member| member.unwrap_or_default())
    }
}

fn is_member(uid: u32, groups: &[u32], group: &str) -> nix::Result<bool> {
    let Some(group) = Group::from_name(group)? else { return Ok(false) };
    if groups.contains(&group.gid.as_raw()) {
        return Ok(true);
    }
    let Some(user) = User::from_uid(Uid::from_raw(uid))? else { return Ok(false) };
    let name = CString::new(user.name).map_err(|_| nix::Error::EINVAL)?;
    let groups: Vec<Gid> = getgrouplist(&name, user.gid)?;
    Ok(groups.contains(&group.gid))
}
