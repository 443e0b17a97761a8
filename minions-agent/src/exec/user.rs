//! Lookup of the user that a program runs as.
//!
//! Reads `/etc/passwd` and `/etc/group` directly: the agent is linked statically, and the C library's lookups
//! load shared libraries. Users that only a directory service knows are not found by name, but by number.

use super::user_files::UserFile;
use rustix::process::{Gid, Uid};
use std::io;
use std::sync::Arc;

/// User and groups of a process, with the user's name, home and shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserAccount {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Supplementary groups.
    pub(super) groups: Vec<Gid>,
    pub(super) name: String,
    pub(super) home: String,
    pub(super) shell: String,
}

/// Failure to find a user or a group.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UserError {
    #[error("the guest has no user {0:?}")]
    NoUser(String),
    #[error("the guest has no group {0:?}")]
    NoGroup(String),
    #[error("cannot read {file}")]
    Unreadable { file: &'static str, source: Arc<io::Error> },
}

static PASSWD: UserFile = UserFile::new("/etc/passwd");
static GROUP: UserFile = UserFile::new("/etc/group");

/// Finds `USER` or `USER:GROUP`, each a name or a number.
///
/// A number needs no entry: a user without one has the group of the same number, and the home `/`. If a group is
/// given, the account has no supplementary groups.
pub(super) fn find(spec: &str) -> Result<UserAccount, UserError> {
    resolve(spec, &read(&PASSWD)?, &read(&GROUP)?)
}

/// Returns the account of a uid, without supplementary groups; `None` if `/etc/passwd` is unreadable.
pub(super) fn of(uid: Uid) -> Option<UserAccount> {
    entry(&uid.as_raw().to_string(), &read(&PASSWD).ok()?)
}

/// Returns uid and gid of `USER` or `USER:GROUP`.
pub(crate) fn find_account(spec: &str) -> Result<(u32, u32), UserError> {
    find(spec).map(|account| (account.uid.as_raw(), account.gid.as_raw()))
}

/// Returns uid, gid and supplementary groups of `USER` or `USER:GROUP`.
pub(crate) fn find_identity(spec: &str) -> Result<(Uid, Gid, Vec<Gid>), UserError> {
    find(spec).map(|account| (account.uid, account.gid, account.groups))
}

/// Returns the contents of a file. In a guest without it, numbers still work.
fn read(file: &UserFile) -> Result<Arc<str>, UserError> {
    file.read().map_err(|error| UserError::Unreadable { file: file.path, source: Arc::new(error) })
}

fn resolve(spec: &str, passwd: &str, group: &str) -> Result<UserAccount, UserError> {
    let (user, group_spec) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (spec, None),
    };
    let mut account = entry(user, passwd).ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    match group_spec {
        None => account.groups = memberships(&account, group),
        Some(wanted) => {
            account.gid =
                group_number(wanted, group).ok_or_else(|| UserError::NoGroup(wanted.to_owned()))?;
        }
    }
    Ok(account)
}

/// Finds a user in passwd(5): `name:password:uid:gid:gecos:home:shell`.
fn entry(user: &str, passwd: &str) -> Option<UserAccount> {
    let number: Option<u32> = number(user);
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1)?;
        let shell = fields.next().unwrap_or_default();
        (name == user || number == Some(uid)).then(|| UserAccount {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: Vec::new(),
            name: name.to_owned(),
            home: home.to_owned(),
            // The meaning of an empty field, according to passwd(5).
            shell: if shell.is_empty() { "/bin/sh" } else { shell }.to_owned(),
        })
    });
    found.or_else(|| {
        number.map(|number| UserAccount {
            uid: Uid::from_raw(number),
            gid: Gid::from_raw(number),
            groups: Vec::new(),
            name: user.to_owned(),
            home: "/".to_owned(),
            shell: "/bin/sh".to_owned(),
        })
    })
}

/// Parses the lines of group(5): `name:password:gid:member,member`.
fn groups(group: &str) -> impl Iterator<Item = (&str, Gid, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?)?;
        Some((name, Gid::from_raw(gid), fields.next().unwrap_or_default()))
    })
}

fn memberships(account: &UserAccount, group: &str) -> Vec<Gid> {
    let mut gids = vec![account.gid];
    for (_, gid, members) in groups(group) {
        if members.split(',').any(|member| member == account.name) && !gids.contains(&gid) {
            gids.push(gid);
        }
    }
    gids
}

fn group_number(wanted: &str, group: &str) -> Option<Gid> {
    let named = groups(group).find(|(name, ..)| *name == wanted).map(|(_, gid, _)| gid);
    named.or_else(|| number(wanted).map(Gid::from_raw))
}

/// Parses a uid or gid. To the kernel, -1 means "unchanged", so it is not a valid id.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000:A,,,:/home/alice:\nbroken:x:z\n12:x:77:77::/:/bin/false\n";
    const GROUP: &str =
        "root:x:0:\nalice:x:1000:\nwheel:x:10:bob,alice\ndocker:x:11:alice\nother:x:12:malice\n";

    fn gids(account: &UserAccount) -> Vec<u32> {
        account.groups.iter().map(|gid| gid.as_raw()).collect()
    }

    #[test]
    fn a_user_has_a_home_a_shell_and_groups() {
        let alice = resolve("alice", PASSWD, GROUP).unwrap();
        assert_eq!((alice.uid.as_raw(), alice.gid.as_raw()), (1000, 1000));
        assert_eq!((alice.home.as_str(), alice.shell.as_str()), ("/home/alice", "/bin/sh"));
        assert_eq!(gids(&alice), [1000, 10, 11]);
        assert_eq!(resolve("1000", PASSWD, GROUP).unwrap(), alice);
    }

    #[test]
    fn a_requested_group_replaces_all_groups_of_the_user() {
        let alice = resolve("alice:docker", PASSWD, GROUP).unwrap();
        assert_eq!((alice.gid.as_raw(), gids(&alice)), (11, vec![]));
        assert_eq!(resolve("alice:99", PASSWD, GROUP).unwrap().gid.as_raw(), 99);
    }

    #[test]
    fn a_number_needs_no_entry_but_an_entry_with_that_name_wins() {
        let stranger = resolve("4711", "", "").unwrap();
        assert_eq!((stranger.uid.as_raw(), stranger.gid.as_raw()), (4711, 4711));
        assert_eq!(resolve("12", PASSWD, GROUP).unwrap().uid.as_raw(), 77);
    }

    #[test]
    fn an_unknown_user_or_group_is_an_error() {
        assert!(matches!(resolve("bob", PASSWD, GROUP), Err(UserError::NoUser(_))));
        assert!(matches!(resolve("alice:nope", PASSWD, GROUP), Err(UserError::NoGroup(_))));
        assert!(resolve("broken", PASSWD, GROUP).is_err());
        assert!(resolve("4294967295", PASSWD, GROUP).is_err());
        assert!(resolve("-1", PASSWD, GROUP).is_err());
    }
}
