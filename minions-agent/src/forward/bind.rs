//! Creation of listening sockets, and removal of their files.
//!
//! A Unix socket with an owner is created, and its file removed, by a thread that has the owner's rights on files: the
//! owner may control the directories of the path, and must not lead the agent to other files. The thread ends
//! afterwards.

use super::socket_owner::SocketOwner;
use minions_proto::message::ForwardAddress;
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, sockopt};
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;

/// Connections that the kernel keeps before the agent accepts them.
const BACKLOG: i32 = 128;

/// Name of the directory of private sockets, in the agent's run directory.
const PRIVATE_DIRECTORY: &str = "minions-listen";

/// Removal of the private directories of earlier agents, which were killed.
static CLEANED: Once = Once::new();

/// Maximum time for removing a socket file. A file system of the guest may never answer.
pub(super) const REMOVAL_DEADLINE: Duration = Duration::from_secs(2);

/// Limit of removals at the same time. Beyond it files stay, and are replaced by the next listener.
const MAX_REMOVALS: usize = 64;

/// Removals in progress.
static REMOVALS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Listening socket.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener, SocketFile),
}

/// File of a listening Unix socket. Dropping it removes the file, and the directory of a private one, in a thread of its
/// own.
#[derive(Debug)]
pub(super) struct SocketFile {
    /// Copy of the listening socket. While it is open, the file does not count as abandoned, and no other file gets its
    /// inode number.
    socket: Option<OwnedFd>,
    path: PathBuf,
    owner: Option<SocketOwner>,
    /// Device and inode: another file with this path is not removed.
    identity: (u64, u64),
    directory: Option<PrivateDirectory>,
}

/// Directory of a private socket. Dropping it removes the directory.
#[derive(Debug)]
struct PrivateDirectory(PathBuf);

/// Listens on `address`. Returns the socket, and the address with the chosen port or path. `run_dir` contains the
/// directory of private sockets, and `id` is a new name in it.
///
/// Blocks.
pub(super) fn bind(
    address: &ForwardAddress,
    owner: Option<SocketOwner>,
    run_dir: &Path,
    id: &str,
) -> io::Result<(BoundSocket, ForwardAddress)> {
    match address {
        ForwardAddress::Tcp(address) => bind_tcp(*address),
        ForwardAddress::Localhost(port) => {
            match bind_tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), *port)) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    bind_tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), *port))
                }
                bound => bound,
            }
        }
        ForwardAddress::Unix(path) => bind_unix(PathBuf::from(path), owner, None),
        ForwardAddress::Private(name) => {
            let directory = PrivateDirectory::create(run_dir, id, owner.as_ref())?;
            bind_unix(directory.0.join(name), owner, Some(directory))
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<(BoundSocket, ForwardAddress)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restarted agent must be able to listen while connections of the earlier one are in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Permission to listen on `[::]` does not include `0.0.0.0`.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((BoundSocket::Tcp(listener), ForwardAddress::Tcp(bound)))
}

fn bind_unix(
    path: PathBuf,
    owner: Option<SocketOwner>,
    directory: Option<PrivateDirectory>,
) -> io::Result<(BoundSocket, ForwardAddress)> {
    let address = path.to_string_lossy().into_owned();
    let at = path.clone();
    let (listener, identity) = act_as(owner.clone(), move || create_socket(&at))??;
    let socket = Some(OwnedFd::from(listener.try_clone()?));
    let file = SocketFile { socket, path, owner, identity, directory };
    Ok((BoundSocket::Unix(listener, file), ForwardAddress::Unix(address)))
}

/// Creates a socket at `path`. Replaces a socket on which no process listens any more, but no other file.
fn create_socket(path: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The kernel gives the file the mode of the socket, so no moment exists at which others may connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let address = SocketAddrUnix::new(path)?;
    match rustix::net::bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) if is_abandoned(path) => {
            fs::remove_file(path)?;
            rustix::net::bind(&socket, &address)?;
        }
        bound => bound?,
    }
    let listening = rustix::net::listen(&socket, BACKLOG).map_err(io::Error::from);
    match listening.and_then(|()| fs::symlink_metadata(path)) {
        Ok(metadata) => Ok((UnixListener::from(socket), identity_of(&metadata))),
        Err(error) => {
            let _ = fs::remove_file(path);
            Err(error)
        }
    }
}

fn identity_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    // A socket of another type is refused in the same way if no process has the file's socket open, and does not
    // connect to a process that has.
    let refuses = || {
        let probed = UnixDatagram::unbound().and_then(|probe| probe.connect(path));
        probed.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    is_socket && refuses()
}

/// Runs `action` with the rights of the owner, in a thread of its own; without an owner, in this thread.
fn act_as<T: Send + 'static>(
    owner: Option<SocketOwner>,
    action: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let Some(owner) = owner else { return Ok(action()) };
    let acting = move || owner.take_file_rights().map(|()| action());
    let thread = thread::Builder::new().name("socket-owner".to_owned()).spawn(acting)?;
    thread.join().map_err(|_| io::Error::other("the thread of the socket's owner panicked"))?
}

impl PrivateDirectory {
    /// Creates the directory `id`. Its parent belongs to the agent, so no other user can rename it.
    fn create(run_dir: &Path, id: &str, owner: Option<&SocketOwner>) -> io::Result<Self> {
        let parent = run_dir.join(PRIVATE_DIRECTORY);
        match DirBuilder::new().mode(0o711).create(&parent) {
            // Only once: another thread of this agent may have a socket that does not listen yet.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                CLEANED.call_once(|| remove_abandoned(&parent));
            }
            created => {
                created?;
                CLEANED.call_once(|| {});
            }
        }
        let path = parent.join(id);
        DirBuilder::new().mode(0o700).create(&path)?;
        let directory = Self(path);
        if let Some(owner) = owner {
            let (uid, gid) = owner.ids();
            chown(&directory.0, Some(uid), Some(gid))?;
        }
        Ok(directory)
    }
}

/// Removes the directories whose agent was killed: no process listens on their sockets.
fn remove_abandoned(parent: &Path) {
    for directory in fs::read_dir(parent).into_iter().flatten().flatten() {
        // The owner may have created any number of files in it.
        let sockets: Vec<_> =
            fs::read_dir(directory.path()).into_iter().flatten().flatten().take(2).collect();
        // A directory without a socket may be that of an agent that is about to create one.
        if let [socket] = &sockets[..]
            && is_abandoned(&socket.path())
        {
            // Fails if another agent removes the same directory.
            let _ = fs::remove_file(socket.path());
            let _ = fs::remove_dir(directory.path());
        }
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        // Fails if the owner has created other files in it, which are not the agent's to remove.
        let _ = fs::remove_dir(&self.0);
    }
}

impl SocketFile {
    /// Removes the file, and waits for that for at most [`REMOVAL_DEADLINE`].
    pub(super) async fn remove(mut self) {
        let (done, removed) = oneshot::channel();
        self.start_removal(move || {
            // The receiver may have given up.
            let _ = done.send(());
        });
        let _ = tokio::time::timeout(REMOVAL_DEADLINE, removed).await;
    }

    /// Removes the file in a thread of its own, unless this was done already.
    fn start_removal(&mut self, done: impl FnOnce() + Send + 'static) {
        let Some(socket) = self.socket.take() else { return };
        let Some(counted) = CountedRemoval::begin() else { return };
        let (path, owner, identity) = (self.path.clone(), self.owner.clone(), self.identity);
        let directory = self.directory.take();
        let remove = move || {
            let is_ours = move |file: Metadata| identity_of(&file) == identity;
            let removal = move || {
                if fs::symlink_metadata(&path).is_ok_and(is_ours) {
                    let _ = fs::remove_file(&path);
                }
            };
            let _ = act_as(owner, removal);
            // In this order: the directory must be empty, and the file is not abandoned before it is gone.
            drop((directory, socket, counted));
            done();
        };
        // Without a thread, the file stays, and is replaced by the next listener.
        let _ = thread::Builder::new().name("socket-file".to_owned()).spawn(remove);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.start_removal(|| {});
    }
}

/// Part of the limit of removals.
struct CountedRemoval;

impl CountedRemoval {
    fn begin() -> Option<Self> {
        let mut count = REMOVALS.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *count >= MAX_REMOVALS {
            return None;
        }
        *count += 1;
        Some(Self)
    }
}

impl Drop for CountedRemoval {
    fn drop(&mut self) {
        *REMOVALS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        REMOVALS.1.notify_all();
    }
}

/// Waits until the files of all dropped listeners are removed, for at most [`REMOVAL_DEADLINE`]. Blocks.
pub(super) fn finish_removals() {
    let count = REMOVALS.0.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = REMOVALS.1.wait_timeout_while(count, REMOVAL_DEADLINE, |count| *count > 0);
}
