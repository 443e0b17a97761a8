//! The socket file of a VM on the host, and its ownership.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
};

use super::error::RigError;

/// Maximum length of a Unix socket path: the kernel has 108 bytes, and the last one is NUL.
const PATH_MAX: usize = 107;

/// Returns the path for a VM's hybrid-vsock socket.
///
/// Removes the socket file of a killed VM of the same name, but no socket that a process listens on.
pub(crate) fn place(dir: &Path, name: &str) -> Result<PathBuf, RigError> {
    let path = dir.join(format!("{name}.vsock"));
    if path.as_os_str().len() > PATH_MAX {
        return Err(RigError::SocketPathTooLong(path));
    }
    match UnixStream::connect(&path) {
        Ok(_) => Err(RigError::io("take over", path)(io::ErrorKind::AddrInUse.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(&path).map_err(RigError::io("remove", &path))?;
            Ok(path)
        }
        Err(_) => Ok(path),
    }
}

/// Socket file of one VM, removed when dropped.
#[derive(Debug)]
pub(crate) struct OwnedSocket {
    path: PathBuf,
    /// Identity of the file at the start. A later VM of the same name may have put its own socket at this
    /// path, which must not be removed here.
    identity: Identity,
}

impl OwnedSocket {
    pub(crate) fn claim(path: PathBuf) -> Result<Self, RigError> {
        let identity = identity(&path).map_err(RigError::io("inspect", &path))?;
        Ok(Self { path, identity })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnedSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device, inode, and time of creation (seconds, nanoseconds): file systems reuse the inode of a removed file
/// for the next one, so the inode alone proves nothing.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}
