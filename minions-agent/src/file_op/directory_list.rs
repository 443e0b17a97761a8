//! Operation `list`.

use super::failure::{FileError, failed};
use super::metadata;
use super::operation_output::OperationOutput;
use minions_proto::file_stream::{DirectoryEntry, FileKind};
use minions_proto::message::ListDirectory;
use minions_tree::walk::{beneath, is_dot};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, fstat, open, statat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Length of the buffer for the kernel's directory entries, in bytes.
const ENTRIES_LEN: usize = 64 * 1024;

/// Serves `list`. Sends the entries in the order of the file system, in constant memory.
pub(super) fn list(op: &ListDirectory, output: &mut OperationOutput) -> Result<(), FileError> {
    let path = op.path.bytes()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(&path[..], flags, Mode::empty()).map_err(failed(&path, "open"))?;
    let stat = fstat(&directory).map_err(failed(&path, "stat"))?;
    output.header(&metadata::of_stat(&stat).into())?;
    let mut buffer = Vec::with_capacity(ENTRIES_LEN);
    let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(failed(&path, "list"))?;
        let name = entry.file_name();
        if is_dot(name) {
            continue;
        }
        match describe(&directory, name) {
            Ok(entry) => output.line(&entry)?,
            // The file was removed after the kernel returned its name.
            Err(Errno::NOENT) => {}
            Err(error) => {
                let path = beneath(&path, name.to_bytes());
                output.warn(&FileError::new(&error.into(), &path, "stat"));
            }
        }
    }
    Ok(())
}

fn describe(directory: &OwnedFd, name: &CStr) -> rustix::io::Result<DirectoryEntry> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut metadata = metadata::of_stat(&stat);
    if metadata.kind == FileKind::Symlink {
        metadata::add_target(&mut metadata, directory, name.to_bytes())?;
    }
    Ok(DirectoryEntry::new(name.to_bytes(), metadata))
}
