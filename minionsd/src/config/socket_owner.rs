//! Users and groups that the host's administrator trusts with the directory of sockets.

use nix::unistd::{Group, User};

/// An entry of `socket_owners`, as the numbers that the kernel knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketOwner {
    /// This user may own the directory and the directories above it.
    User(u32),
    /// This group may write to them.
    Group(u32),
}

impl SocketOwner {
    /// Reads a user's name or number, or `:` and a group's. A number need not be in the user database.
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
    fn names_and_numbers_of_users_and_groups_are_read() {
        assert_eq!(SocketOwner::parse("root"), Some(SocketOwner::User(0)));
        assert_eq!(SocketOwner::parse("4000000"), Some(SocketOwner::User(4_000_000)));
        assert_eq!(SocketOwner::parse(":root"), Some(SocketOwner::Group(0)));
        assert_eq!(SocketOwner::parse(":4000000"), Some(SocketOwner::Group(4_000_000)));
        for wrong in ["", ":", "no such user", ":no such group", "-1", "4294967296", "root:root"] {
            assert_eq!(SocketOwner::parse(wrong), None, "{wrong:?}");
        }
    }
}
