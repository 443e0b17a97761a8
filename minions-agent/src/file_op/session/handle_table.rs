//! Open files and directories of a session.

use super::super::failure::FileError;
use minions_proto::file_session::MAX_HANDLES;
use nix::unistd::close as close_descriptor;
use rustix::fs::Dir;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Open file or directory, with the path in the request that opened it.
#[derive(Debug)]
pub(super) struct OpenHandle {
    pub(super) path: Vec<u8>,
    pub(super) kind: HandleKind,
}

/// Type of an open handle.
#[derive(Debug)]
pub(super) enum HandleKind {
    /// Regular file.
    File(File),
    /// Directory: the descriptor for its entries, and the reader.
    Directory(File, Dir),
}

impl OpenHandle {
    /// Returns the descriptor.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        match &self.kind {
            HandleKind::File(file) | HandleKind::Directory(file, _) => file.as_fd(),
        }
    }
}

/// Open handles. A number is not used twice, until all numbers have been used.
#[derive(Debug, Default)]
pub(super) struct HandleTable {
    open: BTreeMap<u32, OpenHandle>,
    next: u32,
}

impl HandleTable {
    /// Adds a handle, and returns its number.
    ///
    /// # Errors
    ///
    /// `EMFILE` at the limit.
    pub(super) fn add(&mut self, handle: OpenHandle) -> Result<u32, FileError> {
        if self.open.len() >= MAX_HANDLES {
            let reason = format!("the session has {MAX_HANDLES} open handles; close one first");
            return Err(FileError::refusal(Errno::MFILE, &handle.path, "open", &reason));
        }
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(number, handle);
        Ok(number)
    }

    /// Closes a handle. The number is free even if the kernel reports a failure.
    ///
    /// # Errors
    ///
    /// `EBADF` for an unknown number. Otherwise the result of close(2): network file systems report there that data of
    /// an earlier `write` was not stored.
    pub(super) fn close(&mut self, number: u32) -> Result<(), FileError> {
        let OpenHandle { path, kind } =
            self.open.remove(&number).ok_or_else(|| unknown(number, "close"))?;
        match kind {
            HandleKind::File(file) => close_descriptor(OwnedFd::from(file))
                .map_err(|errno| FileError::new(&errno.into(), &path, "close")),
            HandleKind::Directory(..) => Ok(()),
        }
    }

    /// Returns an open file or directory.
    ///
    /// # Errors
    ///
    /// `EBADF` for an unknown number.
    pub(super) fn get(&self, number: u32, step: &'static str) -> Result<&OpenHandle, FileError> {
        self.open.get(&number).ok_or_else(|| unknown(number, step))
    }

    /// Returns an open regular file and its path.
    ///
    /// # Errors
    ///
    /// `EBADF` for an unknown number, `EISDIR` for a directory.
    pub(super) fn file(
        &self,
        number: u32,
        step: &'static str,
    ) -> Result<(&File, &[u8]), FileError> {
        let OpenHandle { path, kind } = self.get(number, step)?;
        match kind {
            HandleKind::File(file) => Ok((file, path)),
            HandleKind::Directory(..) => {
                Err(FileError::refusal(Errno::ISDIR, path, step, "is a directory"))
            }
        }
    }

    /// Returns an open directory, its reader and its path.
    ///
    /// # Errors
    ///
    /// `EBADF` for an unknown number, `ENOTDIR` for a file.
    pub(super) fn directory(
        &mut self,
        number: u32,
        step: &'static str,
    ) -> Result<(&File, &mut Dir, &[u8]), FileError> {
        let handle = self.open.get_mut(&number).ok_or_else(|| unknown(number, step))?;
        match &mut handle.kind {
            HandleKind::Directory(directory, entries) => Ok((directory, entries, &handle.path)),
            HandleKind::File(_) => {
                let reason = "is not a directory";
                Err(FileError::refusal(Errno::NOTDIR, &handle.path, step, reason))
            }
        }
    }
}

fn unknown(number: u32, step: &'static str) -> FileError {
    let reason = format!("the session has no open handle {number}");
    FileError::refusal(Errno::BADF, b"", step, &reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::fcntl_dupfd_cloexec;
    use std::os::fd::AsRawFd;

    /// Descriptor number that no other test of this process uses: the kernel chooses the lowest free number.
    const UNUSED: i32 = 900;

    #[test]
    fn a_failure_of_close_is_reported_and_frees_the_number() {
        let file = fcntl_dupfd_cloexec(tempfile::tempfile().unwrap(), UNUSED).unwrap();
        let raw = file.as_raw_fd();
        let mut handles = HandleTable::default();
        let kind = HandleKind::File(file.into());
        let number = handles.add(OpenHandle { path: b"/file".to_vec(), kind }).unwrap();
        close_descriptor(raw).unwrap();
        let error = handles.close(number).unwrap_err();
        assert_eq!(
            (error.errno(), error.path(), error.step()),
            (Errno::BADF, &b"/file"[..], "close")
        );
        let error = handles.close(number).unwrap_err();
        assert_eq!((error.errno(), error.path()), (Errno::BADF, &b""[..]), "an unknown number");
    }
}
