//! The socket file that the host sees, and whose it is.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
};

use super::RigError;

/// A Unix socket path has 108 bytes in the kernel, the last of them NUL.
const PATH_MAX: usize = 107;

/// Where a VM's hybrid-vsock socket will be.
///
/// Removes what a killed VM of the same name left there, but nothing that somebody listens on.
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

/// The socket file of one VM, removed when dropped.
#[derive(Debug)]
pub(crate) struct OwnedSocket {
    path: PathBuf,
    /// A later VM of the same name may have put its own socket in this place, which is not ours
    /// to remove.
    identity: Identity,
}

impl OwnedSocket {
    pub(crate) fn claim(path: PathBuf) -> Result<Self, RigError> {
        let identity = identity(&path).map_err(RigError::io("look at", &path))?;
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

/// Device, inode, and when it was made (seconds, nanoseconds): file systems give the inode of a
/// removed file to the next one, so the inode alone proves nothing.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> io::Result<Identity> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
}
