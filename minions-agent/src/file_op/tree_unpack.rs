//! Operation `tar_in`: creates the members of a tar stream beneath a directory.
//!
//! The stream is not trusted: every directory is opened by `openat2` with `RESOLVE_BENEATH` and
//! `RESOLVE_NO_SYMLINKS`, so neither a name nor a link in the stream, nor another user of the guest, can lead
//! outside of the destination. A member that is unsafe ends the operation; the members before it remain.
//!
//! Each file gets its name only when it is complete. The files are not synchronized to disk: after a power cut, some
//! may be missing or empty.

use super::failure::{OperationError, failed, unresolved};
use super::file_input::FileInput;
use super::member_attributes::MemberAttributes;
use super::member_path::MemberPath;
use super::metadata;
use super::operation_output::{BUFFER_LEN, OperationOutput};
use super::tar_reader::{MemberHeader, TarReader};
use crate::files::{FileLocation, NameConflict, TreeRoot};
use minions_proto::file_stream::FileHeader;
use minions_proto::message::UnpackTree;
use rustix::fs::{Mode, fchmod, fchown, fstat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tar::EntryType;

/// Serves `tar_in`.
pub(super) fn unpack(op: &UnpackTree, output: &mut OperationOutput) -> Result<(), OperationError> {
    let path = op.path.bytes()?;
    let opened = TreeRoot::open(Path::new(OsStr::from_bytes(&path)), op.parents);
    let (root, is_new) = opened.map_err(unresolved(&path))?;
    let input = FileInput::standard();
    let is_cut = input.cut_flag();
    let mut reader = TarReader::new(input);
    let mut unpacker =
        TreeUnpacker { op, output, root: &root, is_new, pending: Vec::new(), count: 0 };
    let read_failed = |error: &io::Error| match is_cut.get() {
        true => OperationError::refusal(Errno::CANCELED, &path, "input", "the input was cut"),
        false => OperationError::refusal(Errno::BADMSG, &path, "tar", &error.to_string()),
    };
    while let Some(member) = reader.next_member().map_err(|error| read_failed(&error))? {
        unpacker.add(&member, &mut reader, &read_failed)?;
    }
    unpacker.finish_directories(None);
    let count = Some(unpacker.count);
    reader.into_inner().skip_to_end().map_err(|error| read_failed(&error))?;
    let stat = fstat(&root).map_err(failed(&path, "stat"))?;
    output.header(&FileHeader { count, ..metadata::of_stat(&stat).into() })
}

/// Directory whose attributes are set after its members are created: each member changes the directory's time, and
/// the final permissions may forbid the creation of members.
struct PendingDirectory {
    path: MemberPath,
    directory: OwnedFd,
    attributes: MemberAttributes,
}

struct TreeUnpacker<'a> {
    op: &'a UnpackTree,
    output: &'a mut OperationOutput,
    root: &'a TreeRoot,
    /// True if this operation created the destination; then the stream also determines the attributes of the
    /// destination.
    is_new: bool,
    /// Directories that contain the current member, the outermost first.
    pending: Vec<PendingDirectory>,
    count: u64,
}

impl TreeUnpacker<'_> {
    /// Creates one member. Reports a member that the file system refuses as a warning, and returns errors that end the
    /// operation.
    fn add<R: Read>(
        &mut self,
        member: &MemberHeader,
        reader: &mut TarReader<R>,
        read_failed: &impl Fn(&io::Error) -> OperationError,
    ) -> Result<(), OperationError> {
        let path = MemberPath::new(&member.name)?;
        let attributes = MemberAttributes::of(member, self.op)?;
        self.finish_directories(Some(&path));
        let added = match member.kind {
            EntryType::Directory => self.add_directory(path, attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.add_file(member, reader, &path, &attributes, read_failed)
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
            EntryType::Char | EntryType::Block => {
                return Err(refused(&path, "device files are not created"));
            }
            _ => return Err(refused(&path, "the member has an unknown type")),
        };
        match added {
            Ok(()) => self.count += 1,
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => self.output.warn(&error),
        }
        Ok(())
    }

    fn location(&self, path: &MemberPath) -> Result<FileLocation, OperationError> {
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
    ) -> Result<(), OperationError> {
        make(&self.location(path)?).map_err(failed(path.bytes(), "create"))
    }

    fn add_directory(
        &mut self,
        path: MemberPath,
        attributes: MemberAttributes,
    ) -> Result<(), OperationError> {
        if path.is_root() && !self.is_new {
            return Ok(());
        }
        let directory =
            self.root.make_directories(path.bytes()).map_err(failed(path.bytes(), "mkdir"))?;
        self.pending.push(PendingDirectory { path, directory, attributes });
        Ok(())
    }

    fn add_file<R: Read>(
        &self,
        member: &MemberHeader,
        reader: &mut TarReader<R>,
        path: &MemberPath,
        attributes: &MemberAttributes,
        read_failed: &impl Fn(&io::Error) -> OperationError,
    ) -> Result<(), OperationError> {
        let location = self.location(path)?;
        let mut new = location.begin_file().map_err(failed(path.bytes(), "create"))?;
        receive(member, reader, new.file(), path.bytes(), read_failed)?;
        new.set(attributes.file).map_err(failed(path.bytes(), "attributes"))?;
        attributes.finish(new.file()).map_err(failed(path.bytes(), "attributes"))?;
        new.publish(NameConflict::Replace).map_err(failed(path.bytes(), "rename"))
    }

    /// Sets the attributes of the directories that do not contain the next member.
    fn finish_directories(&mut self, next: Option<&MemberPath>) {
        let is_left =
            |pending: &mut PendingDirectory| next.is_none_or(|next| !pending.path.contains(next));
        while let Some(PendingDirectory { path, directory, attributes }) =
            self.pending.pop_if(is_left)
        {
            if let Err(error) = finish_directory(&directory, &attributes) {
                self.output.warn(&OperationError::new(&error.into(), path.bytes(), "attributes"));
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

fn refused(path: &MemberPath, reason: &str) -> OperationError {
    OperationError::refusal(Errno::PERM, path.bytes(), "member", reason)
}

/// Returns the target of a link.
fn target<'a>(member: &'a MemberHeader, path: &MemberPath) -> Result<&'a [u8], OperationError> {
    match &member.link[..] {
        b"" => Err(refused(path, "the link has no target")),
        target => Ok(target),
    }
}

/// Writes the data of a member to a file. Parts that the stream does not contain become holes.
fn receive<R: Read>(
    member: &MemberHeader,
    reader: &mut TarReader<R>,
    file: &mut File,
    path: &[u8],
    read_failed: &impl Fn(&io::Error) -> OperationError,
) -> Result<(), OperationError> {
    let mut buffer = vec![0; BUFFER_LEN];
    for (offset, len) in &member.parts {
        file.seek(SeekFrom::Start(*offset)).map_err(failed(path, "write"))?;
        let mut left = *len;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
            reader.read_data(&mut buffer[..most]).map_err(|error| read_failed(&error))?;
            file.write_all(&buffer[..most]).map_err(failed(path, "write"))?;
            left -= most as u64;
        }
    }
    file.set_len(member.size).map_err(failed(path, "write"))
}
