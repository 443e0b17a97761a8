//! The members of a tar stream, created beneath a directory.
//!
//! The stream is not trusted: every directory is opened by `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`, so neither a name nor a link in the stream, nor another user of the machine, can lead
//! outside of the destination. A member that is unsafe ends the operation; the members before it remain.
//!
//! Each file gets its name only when it is complete. The files are not synchronized to disk: after a power cut, some
//! may be missing or empty.

use crate::buffer_len;
use crate::error::{FileError, failed};
use crate::files::{FileLocation, NameConflict, TreeRoot};
use crate::member_attributes::MemberAttributes;
use crate::member_path::MemberPath;
use crate::sole_name::SoleName;
use crate::tar_reader::MemberHeader;
use rustix::fs::{Mode, fchmod, fchown};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use tar::EntryType;

pub use crate::tar_reader::TarReader;
pub use crate::unpack_options::{DeviceChoice, UnpackOptions};

/// Maximum total length of the extended attributes of all pending directories, in bytes.
const MAX_PENDING: usize = 16 * 1024 * 1024;

/// Names of the created files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedNames<'a> {
    /// The names in the stream, relative to the root.
    Members {
        /// True if the root was created for this stream, which then also determines the attributes of the root.
        is_new: bool,
    },
    /// The stream must contain one file, not a directory, which gets this name in the root.
    Sole(SoleName<'a>),
}

/// Creates the members of a stream beneath `root`, and returns their number. `path` is the path of `root` for messages.
/// Members that the file system refuses are left out, and reported to `warn`.
///
/// # Errors
///
/// A failure that ends the operation: the stream cannot be read (step `tar`), a member is unsafe (`member`), or the disk
/// is full. The members before it remain.
pub fn unpack_tree<R: Read>(
    root: &TreeRoot,
    path: &[u8],
    names: CreatedNames<'_>,
    options: UnpackOptions,
    reader: &mut TarReader<R>,
    warn: &mut dyn FnMut(&FileError),
) -> Result<u64, FileError> {
    let mut unpacker = TreeUnpacker {
        options,
        warn,
        root,
        path,
        names,
        pending: Vec::new(),
        pending_len: 0,
        count: 0,
    };
    while let Some(mut member) = reader.next_member().map_err(|error| unpacker.unread(&error))? {
        unpacker.name(&mut member)?;
        unpacker.add(&member, reader)?;
    }
    unpacker.finish_directories(None);
    Ok(unpacker.count)
}

/// Directory whose attributes are set after its members are created: each member changes the directory's time, and
/// the final permissions may forbid the creation of members.
struct PendingDirectory {
    path: MemberPath,
    directory: OwnedFd,
    attributes: MemberAttributes,
}

struct TreeUnpacker<'a> {
    options: UnpackOptions,
    warn: &'a mut dyn FnMut(&FileError),
    root: &'a TreeRoot,
    /// Path of the root, for messages.
    path: &'a [u8],
    names: CreatedNames<'a>,
    /// Directories that contain the current member, the outermost first.
    pending: Vec<PendingDirectory>,
    /// Length of the extended attributes of these directories, in bytes.
    pending_len: usize,
    count: u64,
}

impl TreeUnpacker<'_> {
    /// Converts an error of reading the stream.
    fn unread(&self, error: &io::Error) -> FileError {
        FileError::refusal(Errno::BADMSG, self.path, "tar", &error.to_string())
    }

    /// Replaces the name of a sole member.
    fn name(&self, member: &mut MemberHeader) -> Result<(), FileError> {
        if let CreatedNames::Sole(sole) = self.names {
            sole.check(member, self.count)?;
            member.name = sole.name.to_vec();
        }
        Ok(())
    }

    /// Creates one member. Reports a member that the file system refuses as a warning, and returns errors that end the
    /// operation.
    fn add<R: Read>(
        &mut self,
        member: &MemberHeader,
        reader: &mut TarReader<R>,
    ) -> Result<(), FileError> {
        let path = MemberPath::new(&member.name)?;
        let attributes = MemberAttributes::of(member, self.options)?;
        self.finish_directories(Some(&path));
        let added = match member.kind {
            EntryType::Directory => self.add_directory(path, attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.add_file(member, reader, &path, &attributes)
            }
            EntryType::Symlink => {
                let target = target(member, &path)?;
                let make = |location: &FileLocation| {
                    location.publish_link(OsStr::from_bytes(target), |directory, name| {
                        attributes.finish_name(directory, name.as_bytes())
                    })
                };
                self.add_name(&path, make)
            }
            EntryType::Link => {
                let target = MemberPath::new(target(member, &path)?)?;
                let root = self.root;
                self.add_name(&path, |location| root.link(target.split(), location))
            }
            EntryType::Fifo => self.add_name(&path, |location| {
                let mode = Mode::from_raw_mode(attributes.file.mode);
                location.publish_fifo(mode, |directory, name| {
                    attributes.finish_name(directory, name.as_bytes())
                })
            }),
            EntryType::Char | EntryType::Block => Err(self.device(&path)),
            _ => return Err(refused(&path, "the member has an unknown type")),
        };
        match added {
            Ok(()) => self.count += 1,
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => (self.warn)(&error),
        }
        Ok(())
    }

    /// Returns the failure for a device file.
    fn device(&self, path: &MemberPath) -> FileError {
        let step = match self.options.devices {
            DeviceChoice::Refuse => "member",
            DeviceChoice::LeaveOut => "create",
        };
        FileError::refusal(Errno::PERM, path.bytes(), step, "device files are not created")
    }

    fn location(&self, path: &MemberPath) -> Result<FileLocation, FileError> {
        if path.is_root() {
            return Err(refused(path, "only a directory can replace the destination itself"));
        }
        let (directory, name) = path.split();
        self.root.locate(directory, name).map_err(failed(path.bytes(), "open"))
    }

    fn add_name(
        &self,
        path: &MemberPath,
        make: impl FnOnce(&FileLocation) -> io::Result<()>,
    ) -> Result<(), FileError> {
        make(&self.location(path)?).map_err(failed(path.bytes(), "create"))
    }

    fn add_directory(
        &mut self,
        path: MemberPath,
        attributes: MemberAttributes,
    ) -> Result<(), FileError> {
        if path.is_root() && self.names != (CreatedNames::Members { is_new: true }) {
            return Ok(());
        }
        let directory =
            self.root.make_directories(path.bytes()).map_err(failed(path.bytes(), "mkdir"))?;
        self.pending_len += attributes.xattrs_len();
        if self.pending_len > MAX_PENDING {
            let reason = "the directories around the member have too many extended attributes";
            return Err(refused(&path, reason));
        }
        self.pending.push(PendingDirectory { path, directory, attributes });
        Ok(())
    }

    fn add_file<R: Read>(
        &self,
        member: &MemberHeader,
        reader: &mut TarReader<R>,
        path: &MemberPath,
        attributes: &MemberAttributes,
    ) -> Result<(), FileError> {
        let location = self.location(path)?;
        let mut new = location.begin_file().map_err(failed(path.bytes(), "create"))?;
        self.receive(member, reader, new.file(), path.bytes())?;
        if reader.is_incomplete().map_err(|error| self.unread(&error))? {
            let reason = "left out: the sender could not read the whole file";
            return Err(FileError::refusal(Errno::NODATA, path.bytes(), "read", reason));
        }
        new.set(attributes.file).map_err(failed(path.bytes(), "attributes"))?;
        attributes.finish(new.file()).map_err(failed(path.bytes(), "attributes"))?;
        new.publish(NameConflict::Replace).map_err(failed(path.bytes(), "rename"))
    }

    /// Writes the data of a member to a file. Parts that the stream does not contain become holes.
    fn receive<R: Read>(
        &self,
        member: &MemberHeader,
        reader: &mut TarReader<R>,
        file: &mut File,
        path: &[u8],
    ) -> Result<(), FileError> {
        let longest = member.parts.iter().map(|(_, len)| *len).max().unwrap_or(0);
        let mut buffer = vec![0; buffer_len(longest)];
        let mut end = 0;
        for (offset, len) in &member.parts {
            if *offset != end {
                file.seek(SeekFrom::Start(*offset)).map_err(failed(path, "write"))?;
            }
            end = offset + len;
            let mut left = *len;
            while left > 0 {
                let most = buffer_len(left);
                reader.read_data(&mut buffer[..most]).map_err(|error| self.unread(&error))?;
                file.write_all(&buffer[..most]).map_err(failed(path, "write"))?;
                left -= most as u64;
            }
        }
        let ends_with_data = member.parts.last().is_some_and(|(_, len)| *len > 0);
        if ends_with_data && end == member.size {
            return Ok(());
        }
        file.set_len(member.size).map_err(failed(path, "write"))
    }

    /// Sets the attributes of the directories that do not contain the next member.
    fn finish_directories(&mut self, next: Option<&MemberPath>) {
        let is_left =
            |pending: &mut PendingDirectory| next.is_none_or(|next| !pending.path.contains(next));
        while let Some(PendingDirectory { path, directory, attributes }) =
            self.pending.pop_if(is_left)
        {
            self.pending_len -= attributes.xattrs_len();
            if let Err(error) = finish_directory(&directory, &attributes) {
                (self.warn)(&FileError::new(&error.into(), path.bytes(), "attributes"));
            }
        }
    }
}

fn finish_directory(directory: &OwnedFd, attributes: &MemberAttributes) -> rustix::io::Result<()> {
    if let Some((uid, gid)) = attributes.file.owner {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        fchown(directory, Some(uid), Some(gid))?;
    }
    fchmod(directory, Mode::from_raw_mode(attributes.file.mode))?;
    attributes.finish(directory)
}

fn refused(path: &MemberPath, reason: &str) -> FileError {
    FileError::refusal(Errno::PERM, path.bytes(), "member", reason)
}

/// Returns the target of a link.
fn target<'a>(member: &'a MemberHeader, path: &MemberPath) -> Result<&'a [u8], FileError> {
    match &member.link[..] {
        b"" => Err(refused(path, "the link has no target")),
        target => Ok(target),
    }
}
