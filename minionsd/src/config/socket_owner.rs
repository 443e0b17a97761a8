//! Users and groups that the host's administrator trusts with the socket directory.

use nix::unistd::{Group, User};

/// An entry of `socket_owners`, resolved to a numeric id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOwner {
    /// User id that may own the directory and its parent directories.
    User(u32),
    /// Group id that may have write permission on the directory and its parent directories.
    Group(u32),
}

impl SocketOwner {
    /// Parses a user name or id, or `:` followed by a group name or id. An id need not be in the user database.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(':') {
            None => match text.parse() {
                Ok(uid) => Some(Self::User(uid)),
                Err(_) => Some(Self::User(User::from_name(text).ok()??.uid.as_raw())),
            },
            Some(group) => match group.parse() {
                Ok(gid) => Some(Self::Group(gid)),
                Err(_) => Some(Self::Group(Group::from_name(group).ok()??.gid.as_raw())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_group_names_and_ids_are_parsed() {
        assert_eq!(SocketOwner::parse("root"), Some(SocketOwner::User(0)));
        assert_eq!(SocketOwner::parse("4000000"), Some(SocketOwner::User(4_000_000)));
        assert_eq!(SocketOwner::parse(":root"), Some(SocketOwner::Group(0)));
        assert_eq!(SocketOwner::parse(":4000000"), Some(SocketOwner::Group(4_000_000)));
        for wrong in ["", ":", "no such user", ":no such group", "-1", "4294967296", "root:root"] {
            assert_eq!(SocketOwner::parse(wrong), None, "{wrong:?}");
        }
    }
}
