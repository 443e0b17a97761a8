//! Operation `tar_out`: a tree as a tar stream, in the order of the file system and in constant memory.
//!
//! The format is GNU tar's: names of any bytes and length (`L`, `K`), sparse files (`S`), large numbers; and PAX
//! records (`x`) for nanoseconds and extended attributes. GNU tar, bsdtar and Python read it.

use super::directory_change::{ENTRIES_LEN, MAX_DEPTH, open_directory, too_deep};
use super::directory_list::{beneath, is_dot};
use super::failure::{OperationError, failed};
use super::file_read::reopen;
use super::metadata::{self, open_as_path};
use super::operation_output::{OperationOutput, not_sent};
use super::sparse_map::SparseMap;
use super::tar_member::{TarMember, put_data, put_end};
use minions_proto::message::PackTree;
use rustix::fs::{FileType, Mode, OFlags, RawDir, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use tar::EntryType;

/// Limit of memory for the names of files with several hard links, in bytes. Beyond it, a file is sent in full for
/// each of its names.
const MAX_LINK_MEMORY: usize = 16 * 1024 * 1024;

/// Memory that an entry of [`TreePacker::links`] uses in addition to its name, in bytes.
const LINK_ENTRY_LEN: usize = 96;

/// Largest value, and largest list, of extended attributes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`), in bytes.
const MAX_XATTR_LEN: usize = 64 * 1024;

/// Serves `tar_out`.
pub(super) fn pack(op: &PackTree, output: &mut OperationOutput) -> Result<(), OperationError> {
    let path = op.path.bytes()?;
    let root = open_as_path(&path, false)?;
    let metadata = metadata::of_file(&root).map_err(failed(&path, "stat"))?;
    output.header(&metadata.into())?;
    let mut packer =
        TreePacker { output, xattrs: op.xattrs, links: HashMap::new(), link_memory: 0 };
    packer.add_root(&root, &path)?;
    put_end(packer.output).map_err(|error| not_sent(&error))
}

struct TreePacker<'a> {
    output: &'a mut OperationOutput,
    xattrs: bool,
    /// First member of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_memory: usize,
}

/// A file to add: its path in the guest, and its name in the stream.
struct TreeEntry<'a> {
    file: &'a OwnedFd,
    path: &'a [u8],
    member: &'a [u8],
    depth: usize,
}

impl TreePacker<'_> {
    fn add_root(&mut self, root: &OwnedFd, path: &[u8]) -> Result<(), OperationError> {
        let stat = fstat(root).map_err(failed(path, "stat"))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let name = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty());
        let member = if is_directory { b"" } else { name.unwrap_or(b"file") };
        self.add(&TreeEntry { file: root, path, member, depth: 0 })
    }

    /// Adds a file, with everything beneath it.
    fn add(&mut self, entry: &TreeEntry<'_>) -> Result<(), OperationError> {
        let stat = fstat(entry.file).map_err(failed(entry.path, "stat"))?;
        let mut member = TarMember::new(entry.member, &stat);
        if self.xattrs {
            self.add_xattrs(&mut member, entry, &stat);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => return self.add_directory(member, entry),
            FileType::Socket => {
                let reason = "a socket cannot be packed";
                return Err(OperationError::refusal(Errno::OPNOTSUPP, entry.path, "pack", reason));
            }
            FileType::Unknown => {
                let reason = "a file of this type cannot be packed";
                return Err(OperationError::refusal(Errno::OPNOTSUPP, entry.path, "pack", reason));
            }
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::CharacterDevice
            | FileType::BlockDevice => {}
        }
        if let Some(first) = self.first_link(&stat, entry.member) {
            return self.put(&member.link(EntryType::Link, &first));
        }
        match kind {
            FileType::RegularFile => self.add_content(member, entry, &stat),
            FileType::Symlink => {
                let target = readlinkat(entry.file, "", Vec::new())
                    .map_err(failed(entry.path, "readlink"))?;
                self.put(&member.link(EntryType::Symlink, target.as_bytes()))
            }
            FileType::CharacterDevice => self.put(&member.device(EntryType::Char, stat.st_rdev)),
            FileType::BlockDevice => self.put(&member.device(EntryType::Block, stat.st_rdev)),
            _ => self.put(&member.of_type(EntryType::Fifo)),
        }
    }

    fn put(&mut self, member: &TarMember) -> Result<(), OperationError> {
        member.put(self.output).map_err(|error| not_sent(&error))
    }

    /// Returns the name of the first member that is the same file. Otherwise records this member, and returns `None`.
    fn first_link(&mut self, stat: &Stat, member: &[u8]) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&key) {
            return Some(first.clone());
        }
        let memory = self.link_memory + member.len() + LINK_ENTRY_LEN;
        if memory <= MAX_LINK_MEMORY {
            self.link_memory = memory;
            self.links.insert(key, member.to_vec());
        }
        None
    }

    fn add_directory(
        &mut self,
        member: TarMember,
        entry: &TreeEntry<'_>,
    ) -> Result<(), OperationError> {
        if entry.depth >= MAX_DEPTH {
            return Err(too_deep(entry.path, "pack"));
        }
        let opened = open_directory(entry.file, b".").map_err(failed(entry.path, "open"))?;
        self.put(&member.directory())?;
        let mut buffer = Vec::with_capacity(ENTRIES_LEN);
        let mut entries = RawDir::new(&opened, buffer.spare_capacity_mut());
        while let Some(found) = entries.next() {
            let found = found.map_err(failed(entry.path, "list"))?;
            if is_dot(found.file_name()) {
                continue;
            }
            let name = found.file_name().to_bytes();
            let (path, member) = (beneath(entry.path, name), beneath(entry.member, name));
            let itself = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let added = match openat(&opened, name, itself, Mode::empty()) {
                Ok(file) => self.add(&TreeEntry {
                    file: &file,
                    path: &path,
                    member: &member,
                    depth: entry.depth + 1,
                }),
                Err(error) => Err(OperationError::new(&error.into(), &path, "open")),
            };
            match added {
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => self.output.warn(&error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Adds a regular file. If the file becomes shorter in the meantime, the member is filled up with zeros, and a
    /// warning is reported.
    fn add_content(
        &mut self,
        member: TarMember,
        entry: &TreeEntry<'_>,
        stat: &Stat,
    ) -> Result<(), OperationError> {
        let mut file = reopen(entry.file).map_err(failed(entry.path, "open"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let map = SparseMap::of(&file, stat).map_err(failed(entry.path, "seek"))?;
        self.put(&member.content(size, map.as_ref()))?;
        let map = map.unwrap_or_else(|| SparseMap::whole(size));
        let missing = put_data(&mut file, &map, self.output).map_err(|error| not_sent(&error))?;
        match missing {
            None => Ok(()),
            Some(error) => {
                self.output.warn(&OperationError::new(&error, entry.path, "read"));
                Ok(())
            }
        }
    }

    /// Adds the extended attributes; those of symbolic links are not packed.
    fn add_xattrs(&mut self, member: &mut TarMember, entry: &TreeEntry<'_>, stat: &Stat) {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return;
        }
        if let Err(error) = read_xattrs(entry.file, member) {
            self.output.warn(&OperationError::new(&error.into(), entry.path, "xattr"));
        }
    }
}

fn read_xattrs(file: &OwnedFd, member: &mut TarMember) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut names = vec![0; MAX_XATTR_LEN];
    let len = match rustix::fs::listxattr(path.as_str(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    let mut value = vec![0; MAX_XATTR_LEN];
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match rustix::fs::getxattr(path.as_str(), name.as_c_str(), &mut value[..]) {
            // The attribute was removed in the meantime.
            Err(Errno::NODATA) => {}
            read => member.xattr(name.to_bytes(), &value[..read?])?,
        }
    }
    Ok(())
}
