//! Name of a file that is alone in its stream.

use crate::error::FileError;
use crate::tar_reader::MemberHeader;
use rustix::io::Errno;
use tar::EntryType;

/// Name of the only file of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoleName<'a> {
    /// The name.
    pub name: &'a [u8],
    /// True if the file may be a symbolic link. Not for a name that a user has chosen: a later copy to the same name would
    /// follow the link to where the sender wants it.
    pub symlink: bool,
}

impl SoleName<'_> {
    /// Checks the next member of the stream, after `count` others.
    pub(crate) fn check(self, member: &MemberHeader, count: u64) -> Result<(), FileError> {
        let reason = match member.kind {
            _ if count > 0 => "the stream of one file contains a second member",
            EntryType::Directory => "the stream of one file contains a directory",
            EntryType::Link => "the stream of one file contains a hard link",
            EntryType::Symlink if !self.symlink => {
                "the source is a symbolic link, and would become the destination itself: copy its target, or copy the \
                 link into an existing directory"
            }
            _ => return Ok(()),
        };
        Err(FileError::refusal(Errno::PERM, &member.name, "member", reason))
    }
}
