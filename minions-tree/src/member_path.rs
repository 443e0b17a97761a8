//! Names in a tar stream, which is not trusted.

use crate::error::FileError;
use rustix::io::Errno;

/// Deepest member: each directory above it may hold a descriptor.
const MAX_DEPTH: usize = 256;

/// Longest name, in bytes.
const MAX_LEN: usize = 4095;

/// Checked name of a member, relative to the destination: no empty parts, no `.`, no `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberPath(Vec<u8>);

impl MemberPath {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// A refusal for a name that leads out of the destination, or that is too deep or too long.
    pub(crate) fn new(name: &[u8]) -> Result<Self, FileError> {
        let refusal = |errno, reason: &str| Err(FileError::refusal(errno, name, "member", reason));
        if name.first() == Some(&b'/') {
            return refusal(Errno::PERM, "the name of the member is absolute");
        }
        if name.contains(&0) {
            return refusal(Errno::PERM, "the name of the member contains a NUL byte");
        }
        let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<_> = parts.take(MAX_DEPTH + 1).collect();
        if parts.contains(&&b".."[..]) {
            return refusal(Errno::PERM, "the name of the member contains `..`");
        }
        if parts.len() > MAX_DEPTH {
            let reason = format!("the member is more than {MAX_DEPTH} directories deep");
            return refusal(Errno::OVERFLOW, &reason);
        }
        let path = parts.join(&b'/');
        if path.len() > MAX_LEN {
            return refusal(Errno::NAMETOOLONG, "the name of the member is too long");
        }
        Ok(Self(path))
    }

    /// Reports whether this is the destination itself.
    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the directory and the last part.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (b"", &self.0),
        }
    }

    /// Reports whether `other` is in this directory, at any depth.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        if self.is_root() {
            return !other.is_root();
        }
        let rest = other.0.strip_prefix(&self.0[..]);
        rest.is_some_and(|rest| rest.first() == Some(&b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(name: &[u8]) -> MemberPath {
        MemberPath::new(name).unwrap()
    }

    #[test]
    fn names_are_relative_and_do_not_lead_upwards() {
        assert_eq!(path(b"./a//b/./c/").bytes(), b"a/b/c");
        assert_eq!(path(b"a/b").split(), (&b"a"[..], &b"b"[..]));
        assert!(path(b"./").is_root());
        for name in
            [&b"/etc"[..], b"..", b"a/../b", b"a/..", b"a\0b", &b"a/".repeat(257), &[b'x'; 4096]]
        {
            assert!(MemberPath::new(name).is_err(), "{}", name.escape_ascii());
        }
        assert!(path(b"a").contains(&path(b"a/b")) && !path(b"a").contains(&path(b"ab")));
        assert!(path(b"").contains(&path(b"a")) && !path(b"").contains(&path(b"./")));
    }

    proptest! {
        #[test]
        fn no_accepted_name_has_a_special_part(name in prop::collection::vec(prop::sample::select(&b"./a\0"[..]), 0..20)) {
            if let Ok(path) = MemberPath::new(&name) {
                let parts = path.bytes().split(|byte| *byte == b'/');
                prop_assert!(path.is_root() || parts.into_iter().all(|part| !matches!(part, b"" | b"." | b"..")));
            }
        }
    }
}
