//! Socket for announcements, and its file: `<vm>.vsock_1025`, to which the VMM connects for its guest.
//!
//! Only the owner of the VM's own socket, root and the daemon may connect. The file has its mode from its creation on,
//! and gets its owner before the socket listens.

use crate::vm::socket_dir::{Distrust, TrustedOwners};
use minions_api::VmName;
use minions_proto::announcement::ANNOUNCE_PORT;
use minions_proto::hybrid::MAX_PATH_LEN;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::collections::BTreeMap;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::net::{UnixListener, UnixStream};

/// Length of the queue of connections; the kernel limits it to `net.core.somaxconn`. Some versions of Firecracker
/// block their VMM thread while it is full.
const BACKLOG: i32 = 1024;

const MODE_OF_USER: Mode = Mode::from_raw_mode(0o600);
const MODE_OF_GROUP: u32 = 0o660;
const WRITABLE_BY_GROUP: u32 = 0o020;

/// Reason why there is no listener.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnnounceBindError {
    #[error("the file {} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("another process listens on {}", .0.display())]
    InUse(PathBuf),
    #[error("the path {} is longer than {MAX_PATH_LEN} bytes", .0.display())]
    PathTooLong(PathBuf),
    #[error("the directory of the socket is not trusted: {0}")]
    Distrusted(#[from] Distrust),
    #[error("user {uid}, who owns the VM's socket, cannot be given access: {source}")]
    Owner { uid: u32, source: io::Error },
    #[error("cannot create {}: {source}", .path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("few descriptors are left")]
    NoDescriptor,
}

impl AnnounceBindError {
    /// Logs the reason: at level info if an administrator has to remove the cause, else at level debug.
    pub(super) fn log(&self, vm: &VmName) {
        let without = "without announcements, the agent is found by probes alone";
        match self {
            Self::NotASocket(_) | Self::InUse(_) | Self::PathTooLong(_) => {
                tracing::info!(%vm, "{self}; {without}");
            }
            Self::Distrusted(_) | Self::Owner { .. } | Self::Create { .. } | Self::NoDescriptor => {
                tracing::debug!(%vm, "{self}; {without}");
            }
        }
    }
}

/// Listening socket. Its file is removed on drop, unless another socket has replaced it.
#[derive(Debug)]
pub(super) struct AnnounceSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file. The inode is not reused while the socket is open.
    id: (u64, u64),
    /// User who owns the VM's socket.
    owner: u32,
}

impl AnnounceSocket {
    /// Listens next to the VM's own socket; if that is a symbolic link, next to its target, where the VMM connects. A
    /// target that is a link itself is refused: the VMM's user, who may own it, would choose another VM's place.
    ///
    /// A socket without a listener is replaced, and so is that of an earlier VM of the same name.
    pub(super) fn bind(
        vm: &VmName,
        vm_socket: &Path,
        trusted: &TrustedOwners,
    ) -> Result<Self, AnnounceBindError> {
        let unresolved = |source| AnnounceBindError::Create { path: vm_socket.to_owned(), source };
        let resolved = target_of(vm_socket).map_err(unresolved)?;
        let of_vm = fs::symlink_metadata(&resolved).map_err(unresolved)?;
        if !of_vm.file_type().is_socket() {
            return Err(AnnounceBindError::NotASocket(resolved));
        }
        check_directory(&resolved, of_vm.uid(), trusted)?;
        let mut path = resolved.into_os_string();
        path.push(format!("_{ANNOUNCE_PORT}"));
        let path = PathBuf::from(path);
        if path.as_os_str().len() > MAX_PATH_LEN {
            return Err(AnnounceBindError::PathTooLong(path));
        }
        let file = SocketFile::create(&path, &of_vm, vm)?;
        let failed = |source| AnnounceBindError::Create { path: path.clone(), source };
        listen(&file.socket, BACKLOG).map_err(|errno| failed(errno.into()))?;
        let listener = UnixListener::from_std(StdListener::from(file.socket)).map_err(failed)?;
        OwnSockets::insert(file.id, vm);
        Ok(Self { listener, path, id: file.id, owner: of_vm.uid() })
    }

    /// Reports whether the path still leads to this socket.
    pub(super) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| id_of(&found) == self.id)
    }

    /// Accepts the next connection.
    ///
    /// Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    /// Reports whether the process at the other end runs as the owner of the VM's socket, as root or as the daemon's
    /// user.
    pub(super) fn may_announce(&self, stream: &UnixStream) -> bool {
        let own = rustix::process::geteuid().as_raw();
        stream.peer_cred().is_ok_and(|peer| [self.owner, 0, own].contains(&peer.uid()))
    }
}

impl Drop for AnnounceSocket {
    fn drop(&mut self) {
        remove(&self.path, self.id);
        OwnSockets::remove(self.id);
    }
}

/// Sockets of this process, by device and inode, and their VMs.
struct OwnSockets;

impl OwnSockets {
    fn insert(id: (u64, u64), vm: &VmName) {
        Self::all().insert(id, vm.clone());
    }

    fn remove(id: (u64, u64)) {
        Self::all().remove(&id);
    }

    fn is_of(id: (u64, u64), vm: &VmName) -> bool {
        Self::all().get(&id) == Some(vm)
    }

    fn all() -> MutexGuard<'static, BTreeMap<(u64, u64), VmName>> {
        static ALL: Mutex<BTreeMap<(u64, u64), VmName>> = Mutex::new(BTreeMap::new());
        ALL.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the path of the VM's own socket, or of the target of its link.
fn target_of(vm_socket: &Path) -> io::Result<PathBuf> {
    let dir = vm_socket.parent().unwrap_or(Path::new("/"));
    let target = match fs::read_link(vm_socket) {
        Ok(link) => dir.join(link),
        // Not a link.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => vm_socket.to_owned(),
        Err(error) => return Err(error),
    };
    let name = target.file_name().ok_or(io::ErrorKind::NotFound)?;
    Ok(fs::canonicalize(target.parent().unwrap_or(Path::new("/")))?.join(name))
}

/// Socket that has a file and does not listen yet.
struct SocketFile {
    socket: OwnedFd,
    id: (u64, u64),
}

impl SocketFile {
    /// Creates the file for the owner of the VM's socket. Without the right to give it to another user, gives it to the
    /// group of the VM's socket, if that group may connect to the VM's socket too.
    fn create(path: &Path, of_vm: &Metadata, vm: &VmName) -> Result<Self, AnnounceBindError> {
        let file = Self::bound(path, vm)?;
        let uid = of_vm.uid();
        if uid == rustix::process::geteuid().as_raw() {
            return Ok(file);
        }
        match file.give(path, of_vm) {
            Ok(()) => Ok(file),
            Err(source) => {
                remove(path, file.id);
                Err(AnnounceBindError::Owner { uid, source })
            }
        }
    }

    fn bound(path: &Path, vm: &VmName) -> Result<Self, AnnounceBindError> {
        let failed = |errno: Errno| AnnounceBindError::Create {
            path: path.to_owned(),
            source: errno.into(),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        // The kernel creates the file with the mode of the socket, so that it is never accessible to others.
        fchmod(&socket, MODE_OF_USER).map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        match bind(&socket, &address) {
            Err(Errno::ADDRINUSE) => {
                make_way(path, &address, vm)?;
                bind(&socket, &address).map_err(failed)?;
            }
            bound => bound.map_err(failed)?,
        }
        let metadata = fs::symlink_metadata(path)
            .map_err(|source| AnnounceBindError::Create { path: path.to_owned(), source })?;
        Ok(Self { socket, id: id_of(&metadata) })
    }

    /// Gives the file to the user or the group of the VM's socket, and no other file that may have its name now.
    fn give(&self, path: &Path, of_vm: &Metadata) -> io::Result<()> {
        let file = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let found = rustix::fs::fstat(&file)?;
        // The VMM's user may be able to change the directory: no other file may be given away.
        let is_own = FileType::from_raw_mode(found.st_mode) == FileType::Socket
            && found.st_nlink == 1
            && found.st_uid == rustix::process::geteuid().as_raw();
        if (found.st_dev, found.st_ino) != self.id || !is_own {
            return Err(io::Error::other("another file has the name"));
        }
        let user = Some(Uid::from_raw(of_vm.uid()));
        let given = chownat(&file, "", user, None, AtFlags::EMPTY_PATH);
        if given.is_ok() || of_vm.mode() & WRITABLE_BY_GROUP == 0 {
            return Ok(given?);
        }
        let group = Some(Gid::from_raw(of_vm.gid()));
        chownat(&file, "", None, group, AtFlags::EMPTY_PATH)?;
        // The mode of a descriptor without access to the content can only be changed by this path.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(same, Permissions::from_mode(MODE_OF_GROUP))
    }
}

/// Removes a socket that has no listener, or that is of an earlier VM of the same name.
fn make_way(path: &Path, address: &SocketAddrUnix, vm: &VmName) -> Result<(), AnnounceBindError> {
    let failed = |source| AnnounceBindError::Create { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(AnnounceBindError::NotASocket(path.to_owned()));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|errno| failed(errno.into()))?;
    let is_free = match connect(&client, address) {
        Ok(()) => OwnSockets::is_of(id_of(&metadata), vm),
        Err(errno) => errno == Errno::CONNREFUSED,
    };
    if !is_free {
        return Err(AnnounceBindError::InUse(path.to_owned()));
    }
    remove(path, id_of(&metadata));
    Ok(())
}

/// Checks the directory of the VM's socket. It may also belong to the user who owns the socket, if the directories
/// above are trusted: then this user can only redirect announcements of this VM.
fn check_directory(socket: &Path, owner: u32, trusted: &TrustedOwners) -> Result<(), Distrust> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    let Err(refusal) = trusted.check(dir) else { return Ok(()) };
    let is_of_owner = fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.uid() == owner);
    match dir.parent() {
        Some(above) if is_of_owner && trusted.check(above).is_ok() => Ok(()),
        Some(_) | None => Err(refusal),
    }
}

fn id_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Removes the file if it is still this one.
fn remove(path: &Path, id: (u64, u64)) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| id_of(&metadata) == id) {
        // Fails if another process has removed the file already.
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_socket_that_was_bound_is_given_away_and_only_under_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let [of_vm, path, other] =
            ["web-1.vsock", "web-1.vsock_1025", "x"].map(|name| dir.path().join(name));
        let _vm = StdListener::bind(&of_vm).unwrap();
        let of_vm = fs::symlink_metadata(of_vm).unwrap();
        let file = SocketFile::bound(&path, &"web-1".parse().unwrap()).unwrap();
        file.give(&path, &of_vm).unwrap();

        fs::hard_link(&path, &other).unwrap();
        assert!(file.give(&path, &of_vm).is_err(), "another name would get the owner too");
        fs::remove_file(&other).unwrap();
        file.give(&path, &of_vm).unwrap();

        let _other = StdListener::bind(&other).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(file.give(&path, &of_vm).is_err(), "another socket has the name");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(file.give(&path, &of_vm).is_err(), "another file has the name");
    }

    #[test]
    fn the_directory_may_belong_to_the_owner_of_the_vms_socket_if_those_above_are_trusted() {
        const OWNER: u32 = 65534;
        let trusted = TrustedOwners::of(&crate::config::Config::parse("").unwrap());
        let above = tempfile::tempdir().unwrap();
        let set_mode = |mode| fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
        set_mode(0o755);
        let dir = above.path().join("vms");
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("web-1.vsock");
        check_directory(&socket, OWNER, &trusted).unwrap();
        std::os::unix::fs::chown(&dir, Some(OWNER), None)
            .expect("this test needs root: run it with sudo");
        check_directory(&socket, OWNER, &trusted).unwrap();
        assert!(check_directory(&socket, OWNER - 1, &trusted).is_err(), "another user's directory");
        set_mode(0o777);
        assert!(check_directory(&socket, OWNER, &trusted).is_err(), "anyone can replace it");
    }
}
