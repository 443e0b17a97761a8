//! Socket of a VM: its path, and the identity that distinguishes it from another one at the same path.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Socket of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmSocket {
    pub(crate) path: PathBuf,
    pub(crate) id: SocketId,
}

/// Identity of a socket: distinguishes two sockets of the same name. Filesystems reuse an inode number at once, so
/// it includes the time at which the socket was bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SocketId {
    device: u64,
    inode: u64,
    bound: Option<SystemTime>,
}

impl SocketId {
    /// Returns the identity of the socket that is at `path` now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// Returns the identity of the socket with this metadata.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), bound: metadata.modified().ok() }
    }

    /// Returns the whole identity as bytes: device, inode, and the time of the bind in nanoseconds since 1970.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        let since = self.bound.and_then(|bound| bound.duration_since(SystemTime::UNIX_EPOCH).ok());
        let bound = since.unwrap_or_default().as_nanos();
        let parts =
            [&self.device.to_be_bytes()[..], &self.inode.to_be_bytes(), &bound.to_be_bytes()];
        parts.concat()
    }

    /// Returns the device and inode numbers.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}
