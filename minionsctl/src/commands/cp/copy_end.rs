//! Source or destination of a copy.

use crate::cli::{FileLocation, GuestFile};
use crate::failure::Failure;
use minions_api::VmName;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// Source or destination of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CopyEnd {
    /// `VM:/PATH`.
    Guest(GuestFile),
    /// A path on this host.
    Host(Vec<u8>),
    /// `-`: a tar stream on standard input or output.
    Stream,
}

impl CopyEnd {
    /// Parses an argument.
    pub(super) fn parse(text: &OsStr) -> Result<Self, Failure> {
        if text == "-" {
            return Ok(Self::Stream);
        }
        Ok(match FileLocation::parse(text)? {
            FileLocation::Guest(file) => Self::Guest(file),
            FileLocation::Host(path) => Self::Host(path.as_os_str().as_bytes().to_vec()),
        })
    }

    /// Returns the path, without the VM.
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Self::Guest(file) => &file.path,
            Self::Host(path) => path,
            Self::Stream => b"-",
        }
    }

    /// Returns the same kind of end with another path.
    pub(super) fn with_path(&self, path: Vec<u8>) -> Self {
        match self {
            Self::Guest(file) => Self::Guest(GuestFile { vm: file.vm.clone(), path }),
            Self::Host(_) => Self::Host(path),
            Self::Stream => Self::Stream,
        }
    }
}

impl fmt::Display for CopyEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(file) => write!(f, "{}:{}", file.vm, String::from_utf8_lossy(&file.path)),
            Self::Host(path) => f.write_str(&String::from_utf8_lossy(path)),
            Self::Stream => f.write_str("-"),
        }
    }
}

/// Returns the file of a guest, for a destination without a VM.
pub(super) fn in_guest(vm: &VmName, path: &[u8]) -> CopyEnd {
    CopyEnd::Guest(GuestFile { vm: vm.clone(), path: path.to_vec() })
}
