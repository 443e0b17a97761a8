//! Creation of listening sockets, and removal of their files.
//!
//! A Unix socket with an owner is created, and its file removed, by a thread that has permanently become the owner:
//! the owner may control the directories of the path, and must not lead the agent to other files. The thread ends
//! afterwards, because its user cannot be changed back safely.

use super::socket_owner::SocketOwner;
use minions_proto::message::ForwardAddress;
use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::{Once, mpsc};
use std::thread;
use std::time::Duration;

/// Connections that the kernel keeps before the agent accepts them.
const BACKLOG: i32 = 128;

/// Name of the directory of private sockets, in the agent's run directory.
const PRIVATE_DIRECTORY: &str = "minions-listen";

/// Removal of the private directories of earlier agents, which were killed.
static CLEANED: Once = Once::new();

/// Maximum time for removing a socket file. A file system of the guest may never answer.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(2);

/// Listening socket.
#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(UnixListener, SocketFile),
}

/// File of a listening Unix socket. Dropping it removes the file, and the directory of a private one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    owner: Option<SocketOwner>,
    /// Device and inode: another file with this path is not removed.
    identity: (u64, u64),
    _directory: Option<PrivateDirectory>,
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
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
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
    let file = SocketFile { path, owner, identity, _directory: directory };
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
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((UnixListener::from(socket), identity_of(&fs::symlink_metadata(path)?)))
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
    let acting = move || owner.become_permanently().map(|()| action());
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
        let sockets: Vec<_> =
            fs::read_dir(directory.path()).into_iter().flatten().flatten().collect();
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

impl Drop for SocketFile {
    fn drop(&mut self) {
        let (path, owner, identity) = (self.path.clone(), self.owner.clone(), self.identity);
        let (done, removed) = mpsc::channel();
        let remove = move || {
            let is_ours = move |file: Metadata| identity_of(&file) == identity;
            let removal = move || {
                if fs::symlink_metadata(&path).is_ok_and(is_ours) {
                    let _ = fs::remove_file(&path);
                }
            };
            let _ = act_as(owner, removal);
            let _ = done.send(());
        };
        // Without a thread, the file stays, and is replaced by the next listener.
        if thread::Builder::new().name("socket-file".to_owned()).spawn(remove).is_ok() {
            let _ = removed.recv_timeout(REMOVAL_DEADLINE);
        }
    }
}
