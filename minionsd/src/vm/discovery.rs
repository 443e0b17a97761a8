//! Which VM sockets are there.
//!
//! One mechanism decides: a scan of the directory. inotify only says when to scan; a scan every few
//! seconds covers what inotify loses (its queue overflows, the directory is replaced by another).

use futures_util::{FutureExt, StreamExt};
use inotify::{Inotify, WatchMask};
use minions_api::VmName;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Between scans when nothing seems to happen.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Events come in bursts; a scan waits this long for the burst to end.
const SETTLE: Duration = Duration::from_millis(10);

/// `<vm>.vsock`. Files named `<vm>.vsock_<port>` belong to the guests' own connections.
const SUFFIX: &str = ".vsock";

/// The permission bit that lets anybody at all put a socket here.
const WORLD_WRITABLE: u32 = 0o002;

/// What tells two sockets of the same name apart. Filesystems reuse an inode number at once, so the
/// time at which the socket was bound belongs to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SocketId {
    device: u64,
    inode: u64,
    bound: Option<SystemTime>,
}

impl SocketId {
    /// Of the socket that is at `path` now.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| id_of(&metadata))
    }

    /// Device and inode.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// A VM's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    pub(crate) id: SocketId,
}

/// All of them, by the VM's name.
pub(crate) type Sockets = BTreeMap<VmName, Socket>;

/// Why a scan gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The directory can't be read. It may not be there yet.
    #[error("{} can't be read: {source}", .dir.display())]
    Unreadable { dir: PathBuf, source: io::Error },
    /// Anybody could put a socket of their own there and be taken for a VM.
    #[error("{} is writable by everybody; take that permission away (chmod o-w)", .0.display())]
    WorldWritable(PathBuf),
}

impl ScanError {
    /// Whether it says nothing about the VMs: out of descriptors, most likely.
    fn is_passing(&self) -> bool {
        match self {
            Self::WorldWritable(_) => false,
            Self::Unreadable { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        }
    }
}

/// Scans `dir` once. Blocking: a directory of a thousand sockets takes a few milliseconds.
pub(crate) fn scan(dir: &Path) -> Result<Sockets, ScanError> {
    let unreadable = |source| ScanError::Unreadable { dir: dir.to_owned(), source };
    if fs::metadata(dir).map_err(unreadable)?.mode() & WORLD_WRITABLE != 0 {
        return Err(ScanError::WorldWritable(dir.to_owned()));
    }
    let sockets = fs::read_dir(dir).map_err(unreadable)?.filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().to_str()?.strip_suffix(SUFFIX)?.parse().ok()?;
        let path = entry.path();
        // Follows a symlink, which only somebody who may write here can have made.
        let metadata = fs::metadata(&path).ok()?;
        metadata.file_type().is_socket().then(|| (name, Socket { path, id: id_of(&metadata) }))
    });
    Ok(sockets.collect())
}

fn id_of(metadata: &Metadata) -> SocketId {
    SocketId { device: metadata.dev(), inode: metadata.ino(), bound: metadata.modified().ok() }
}

/// Scans `dir` now, whenever something happens in it, and every [`RESCAN_INTERVAL`], and sends what
/// it finds. Ends when the receiver does.
pub(crate) async fn watch(dir: PathBuf, found: mpsc::Sender<Sockets>) {
    let mut hints = Hints::new(&dir);
    let mut rescan = interval(RESCAN_INTERVAL);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complaint = None;
    loop {
        tokio::select! {
            _ = rescan.tick() => {}
            () = hints.next() => {
                sleep(SETTLE).await;
                // The scan answers them all. What comes from now on it may miss, and stays a hint.
                hints.forget();
            }
            () = found.closed() => return,
        }
        hints.renew(&dir);
        let sockets = match scan_off_thread(dir.clone()).await {
            Ok(sockets) => {
                complaint = None;
                sockets
            }
            Err(error) => {
                complain(&mut complaint, &error);
                if error.is_passing() {
                    // What was there is there still, as far as anybody knows.
                    continue;
                }
                Sockets::new()
            }
        };
        if found.send(sockets).await.is_err() {
            return;
        }
    }
}

async fn scan_off_thread(dir: PathBuf) -> Result<Sockets, ScanError> {
    let shown = dir.clone();
    tokio::task::spawn_blocking(move || scan(&dir)).await.unwrap_or_else(|error| {
        Err(ScanError::Unreadable { dir: shown, source: io::Error::other(error) })
    })
}

/// Says the same thing once, not every five seconds.
fn complain(last: &mut Option<String>, error: &ScanError) {
    let text = error.to_string();
    if last.as_ref() != Some(&text) {
        tracing::warn!("no VMs can be found: {text}");
        *last = Some(text);
    }
}

/// inotify's hints that a scan would find something new. Without inotify there are none, and the
/// rescans have to do.
struct Hints(Option<inotify::EventStream<[u8; 4096]>>);

impl Hints {
    fn new(dir: &Path) -> Self {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4096]));
        if let Err(error) = &stream {
            tracing::warn!(%error, "inotify is not available; new VMs are found every 5 s");
        }
        let mut hints = Self(stream.ok());
        hints.renew(dir);
        hints
    }

    /// Watches the directory itself and, for the case that it is removed and made again, its
    /// parent. A directory that is watched already stays so; one that isn't there is tried again
    /// after the next scan.
    fn renew(&mut self, dir: &Path) {
        let Some(stream) = &self.0 else { return };
        let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        let mut watches = stream.watches();
        watches.add(dir, names | WatchMask::ATTRIB | WatchMask::ONLYDIR).ok();
        if let Some(parent) = dir.parent() {
            watches.add(parent, names | WatchMask::ONLYDIR).ok();
        }
    }

    /// Cancel safe.
    async fn next(&mut self) {
        match &mut self.0 {
            Some(stream) => {
                if stream.next().await.is_none() {
                    self.0 = None;
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Drops those that are there. How many at once is bounded, by the runtime; the rest are hints still.
    fn forget(&mut self) {
        while self.next().now_or_never().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn dir() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        scan(dir).unwrap().into_keys().map(String::from).collect()
    }

    #[test]
    fn only_sockets_that_are_named_after_a_vm_are_vms() {
        let dir = dir();
        for socket in ["web-1.vsock", "web-1.vsock_1024", ".hidden.vsock", "minionsd.sock"] {
            UnixListener::bind(dir.path().join(socket)).unwrap();
        }
        fs::write(dir.path().join("file.vsock"), "").unwrap();
        symlink(dir.path().join("web-1.vsock"), dir.path().join("alias.vsock")).unwrap();
        symlink("/nowhere", dir.path().join("dangling.vsock")).unwrap();
        assert_eq!(names(dir.path()), ["alias", "web-1"]);
    }

    #[test]
    fn a_directory_that_anybody_can_write_to_has_no_vms() {
        let dir = dir();
        UnixListener::bind(dir.path().join("web-1.vsock")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(scan(dir.path()), Err(ScanError::WorldWritable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_hints_is_one_scan() {
        let own = dir();
        // Its parent, in which others make files, is watched too.
        let dir = own.path().join("vms");
        fs::create_dir(&dir).unwrap();
        let (found, mut scans) = mpsc::channel(1);
        let watch = tokio::spawn(watch(dir.clone(), found));
        assert_eq!(scans.recv().await.unwrap().len(), 0);
        // On this thread, so that all of them are there when the watch looks.
        let listeners: Vec<_> = (0..1000)
            .map(|n| UnixListener::bind(dir.join(format!("vm-{n}.vsock"))).unwrap())
            .collect();
        assert_eq!(scans.recv().await.unwrap().len(), listeners.len());
        let next = tokio::time::timeout(RESCAN_INTERVAL / 2, scans.recv()).await;
        assert!(next.is_err(), "scanned again for what it had seen");
        watch.abort();
    }

    #[test]
    fn a_socket_made_anew_is_another_socket() {
        let dir = dir();
        let path = dir.path().join("web-1.vsock");
        let first = UnixListener::bind(&path).unwrap();
        let before = scan(dir.path()).unwrap();
        assert_eq!(scan(dir.path()).unwrap(), before);
        // The inode's number may be given to the next file at once, so it can't tell them apart.
        let then = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: then, last_modification: then };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        assert_ne!(scan(dir.path()).unwrap(), before);
        drop(first);
    }
}
