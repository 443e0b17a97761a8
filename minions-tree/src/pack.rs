//! A tree as a tar stream, in the order of the file system and in constant memory.
//!
//! The format is GNU tar's: names of any bytes and length (`L`, `K`), sparse files (`S`), large numbers; and PAX
//! records (`x`) for nanoseconds and extended attributes. GNU tar, bsdtar and Python read it.
//!
//! A file that becomes shorter while it is read is filled up with zeros, because its header has announced its size. A
//! global PAX header with the record `MINIONS.incomplete` follows it, so that [`unpack`](crate::unpack) drops the file.
//! Other programs ignore that header.

use crate::content::ContentOutput;
use crate::error::{FileError, failed};
use crate::sparse_map::SparseMap;
use crate::tar_member::{TarMember, put_data, put_end, put_incomplete};
use crate::walk::{ENTRIES_LEN, MAX_DEPTH, beneath, is_dot, open_directory, reopen, too_deep};
use crate::xattr_choice::XattrChoice;
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

/// Receiver of a tar stream, and of the failures of single files.
pub trait PackOutput: ContentOutput {
    /// Reports a file that is missing in the stream.
    fn warn(&mut self, error: &FileError);
}

/// Attributes that a stream contains in addition to names, modes, owners and contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackOptions {
    /// Extended attributes to include.
    pub xattrs: XattrChoice,
    /// Include device files; otherwise, each is left out with a warning.
    pub devices: bool,
    /// Include this modification time, in seconds since 1970, instead of those of the files.
    pub mtime: Option<i64>,
}

/// Packs the file or directory `root`, and everything beneath it. `path` is its path for messages. The members of a
/// directory have names relative to it; the member of another file has the name `name`.
///
/// # Errors
///
/// Failures that end the stream early: of `root` itself, or of `output`.
pub fn pack_tree(
    root: &OwnedFd,
    path: &[u8],
    name: &[u8],
    options: PackOptions,
    output: &mut impl PackOutput,
) -> Result<(), FileError> {
    let mut packer = TreePacker { output, options, links: HashMap::new(), link_memory: 0 };
    packer.add_root(root, path, name)?;
    put_end(packer.output).map_err(|error| FileError::not_sent(&error))
}

/// Returns the name of the member for a file at this path that is not a directory.
#[must_use]
pub fn member_name(path: &[u8]) -> &[u8] {
    let name = path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty());
    name.unwrap_or(b"file")
}

struct TreePacker<'a, O> {
    output: &'a mut O,
    options: PackOptions,
    /// First member of each file with several hard links, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    link_memory: usize,
}

/// Extent to which the stream contains a file.
enum SentFile {
    Whole,
    Incomplete,
}

/// A file to add: its path for messages, and its name in the stream.
struct TreeEntry<'a> {
    file: &'a OwnedFd,
    path: &'a [u8],
    member: &'a [u8],
    depth: usize,
}

impl<O: PackOutput> TreePacker<'_, O> {
    fn add_root(&mut self, root: &OwnedFd, path: &[u8], name: &[u8]) -> Result<(), FileError> {
        let stat = fstat(root).map_err(failed(path, "stat"))?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let member = if is_directory { b"" } else { name };
        self.add(&TreeEntry { file: root, path, member, depth: 0 })
    }

    /// Adds a file, with everything beneath it.
    fn add(&mut self, entry: &TreeEntry<'_>) -> Result<(), FileError> {
        let stat = fstat(entry.file).map_err(failed(entry.path, "stat"))?;
        let mut member = TarMember::new(entry.member, &stat, self.options.mtime);
        if self.options.xattrs != XattrChoice::None {
            self.add_xattrs(&mut member, entry, &stat);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::Directory => return self.add_directory(member, entry),
            FileType::Socket => {
                let reason = "a socket cannot be packed";
                return Err(FileError::refusal(Errno::OPNOTSUPP, entry.path, "pack", reason));
            }
            FileType::Unknown => {
                let reason = "a file of this type cannot be packed";
                return Err(FileError::refusal(Errno::OPNOTSUPP, entry.path, "pack", reason));
            }
            FileType::CharacterDevice | FileType::BlockDevice if !self.options.devices => {
                let reason = "a device file is not copied";
                return Err(FileError::refusal(Errno::OPNOTSUPP, entry.path, "pack", reason));
            }
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::CharacterDevice
            | FileType::BlockDevice => {}
        }
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if !is_device && let Some(first) = self.first_link(&stat, entry.member) {
            return self.put(&member.link(EntryType::Link, &first));
        }
        match kind {
            FileType::RegularFile => {
                let added = self.add_content(member, entry, &stat);
                if !matches!(added, Ok(SentFile::Whole)) {
                    // Its other names must not become links to what the receiver has under this name.
                    self.links.remove(&(stat.st_dev, stat.st_ino));
                }
                added.map(|_| ())
            }
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

    fn put(&mut self, member: &TarMember) -> Result<(), FileError> {
        member.put(self.output).map_err(|error| FileError::not_sent(&error))
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

    fn add_directory(&mut self, member: TarMember, entry: &TreeEntry<'_>) -> Result<(), FileError> {
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
                Err(error) => Err(FileError::new(&error.into(), &path, "open")),
            };
            match added {
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => self.output.warn(&error),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Adds a regular file. If the file becomes shorter in the meantime, the member is filled up with zeros and marked,
    /// and a warning is reported.
    fn add_content(
        &mut self,
        member: TarMember,
        entry: &TreeEntry<'_>,
        stat: &Stat,
    ) -> Result<SentFile, FileError> {
        let mut file = reopen(entry.file).map_err(failed(entry.path, "open"))?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let map = SparseMap::of(&file, stat).map_err(failed(entry.path, "seek"))?;
        self.put(&member.content(size, map.as_ref()))?;
        let map = map.unwrap_or_else(|| SparseMap::whole(size));
        let missing =
            put_data(&mut file, &map, self.output).map_err(|error| FileError::not_sent(&error))?;
        match missing {
            None => Ok(SentFile::Whole),
            Some(error) => {
                self.output.warn(&FileError::new(&error, entry.path, "read"));
                put_incomplete(self.output).map_err(|error| FileError::not_sent(&error))?;
                Ok(SentFile::Incomplete)
            }
        }
    }

    /// Adds the extended attributes; those of symbolic links are not packed.
    fn add_xattrs(&mut self, member: &mut TarMember, entry: &TreeEntry<'_>, stat: &Stat) {
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return;
        }
        if let Err(error) = read_xattrs(entry.file, self.options.xattrs, member) {
            self.output.warn(&FileError::new(&error.into(), entry.path, "xattr"));
        }
    }
}

fn read_xattrs(
    file: &OwnedFd,
    choice: XattrChoice,
    member: &mut TarMember,
) -> rustix::io::Result<()> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut names = vec![0; MAX_XATTR_LEN];
    let len = match rustix::fs::listxattr(path.as_str(), &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        listed => listed?,
    };
    let mut value = vec![0; MAX_XATTR_LEN];
    let names = names[..len].split(|byte| *byte == 0);
    for name in names.filter(|name| !name.is_empty() && choice.includes(name)) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        match rustix::fs::getxattr(path.as_str(), name.as_c_str(), &mut value[..]) {
            // The attribute was removed in the meantime.
            Err(Errno::NODATA) => {}
            read => member.xattr(name.to_bytes(), &value[..read?])?,
        }
    }
    Ok(())
}
