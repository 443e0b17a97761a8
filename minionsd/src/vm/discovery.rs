//! Which VM sockets are there.
//!
//! One mechanism decides: a scan of the directory. inotify only says when to scan; a scan every few
//! seconds covers what inotify loses (its queue overflows, the directory is replaced by another).

use super::passed_over::{Passed, PassedOver, ScanLog};
use super::socket_dir::{Distrust, Trusted};
use crate::metrics::Meters;
use futures_util::{FutureExt, StreamExt};
use inotify::{Inotify, WatchMask};
use minions_api::VmName;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Between scans when nothing seems to happen.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Events come in bursts; a scan waits this long for the burst to end.
const SETTLE: Duration = Duration::from_millis(10);

/// `<vm>.vsock`. Files named `<vm>.vsock_<port>` belong to the guests' own connections.
const SUFFIX: &str = ".vsock";

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

/// Result of one scan, or the reason to have none.
#[derive(Debug)]
pub(crate) enum Look {
    /// Sockets in the directory.
    Sockets(Sockets),
    /// Directory that is gone, or not trusted any more: none of its sockets may be used.
    Closed,
}

/// What a scan met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) sockets: Sockets,
    /// Files that look like a VM's socket and are none.
    pub(crate) passed: Passed,
}

/// Whether a refusal says nothing about the VMs: the daemon is out of descriptors, most likely.
fn is_passing(refusal: &Distrust) -> bool {
    match refusal {
        Distrust::Owner { .. } | Distrust::Group { .. } | Distrust::Others(_) => false,
        Distrust::Unreadable { source, .. } => {
            !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    }
}

/// Scans `dir` once. Blocking: a directory of a thousand sockets takes a few milliseconds.
pub(crate) fn scan(dir: &Path, trusted: &Trusted) -> Result<Scan, Distrust> {
    trusted.check(dir)?;
    let unreadable = |source| Distrust::Unreadable { path: dir.to_owned(), source };
    let mut scan = Scan::default();
    for entry in fs::read_dir(dir).map_err(unreadable)?.flatten() {
        let file = entry.file_name();
        let Some(name) = stem(&file) else { continue };
        let Some(name) = name.to_str().and_then(|name| name.parse::<VmName>().ok()) else {
            scan.passed.add(&file, PassedOver::Name);
            continue;
        };
        let path = entry.path();
        // Follows a symlink, which only somebody who may write here can have made. One that leads nowhere
        // belongs to a VM that is off.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.file_type().is_socket() {
            scan.sockets.insert(name, Socket { path, id: id_of(&metadata) });
        } else {
            scan.passed.add(&file, PassedOver::NotASocket);
        }
    }
    Ok(scan)
}

/// What is before [`SUFFIX`]; `None` for other files, and for hidden ones.
fn stem(file: &OsStr) -> Option<&OsStr> {
    let bytes = file.as_bytes().strip_suffix(SUFFIX.as_bytes())?;
    (!bytes.starts_with(b".")).then(|| OsStr::from_bytes(bytes))
}

fn id_of(metadata: &Metadata) -> SocketId {
    SocketId { device: metadata.dev(), inode: metadata.ino(), bound: metadata.modified().ok() }
}

/// Scans `dir` now, whenever something happens in it, and every [`RESCAN_INTERVAL`], and sends what
/// it finds. Ends when the receiver does.
pub(crate) async fn watch(
    dir: PathBuf,
    trusted: Trusted,
    meters: Arc<Meters>,
    found: mpsc::Sender<Look>,
) {
    let mut hints = Hints::new(&dir);
    let mut rescan = interval(RESCAN_INTERVAL);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = ScanLog::default();
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
        let look = match scan_off_thread(dir.clone(), trusted.clone()).await {
            Ok(Scan { sockets, passed }) => {
                log.scanned(&passed);
                meters.wrong_names.store(passed.names, Ordering::Relaxed);
                meters.no_sockets.store(passed.no_sockets, Ordering::Relaxed);
                Look::Sockets(sockets)
            }
            Err(refusal) => {
                log.refused(&refusal);
                meters.scan_refused(refusal.reason());
                if is_passing(&refusal) {
                    // What was there is there still, as far as anybody knows.
                    continue;
                }
                Look::Closed
            }
        };
        if found.send(look).await.is_err() {
            return;
        }
    }
}

async fn scan_off_thread(dir: PathBuf, trusted: Trusted) -> Result<Scan, Distrust> {
    let path = dir.clone();
    tokio::task::spawn_blocking(move || scan(&dir, &trusted))
        .await
        .unwrap_or_else(|error| Err(Distrust::Unreadable { path, source: io::Error::other(error) }))
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

    /// Root, and whoever runs the test.
    fn trusted() -> Trusted {
        Trusted::of(&crate::config::Config::parse("").unwrap())
    }

    fn names(dir: &Path) -> Vec<String> {
        scan(dir, &trusted()).unwrap().sockets.into_keys().map(String::from).collect()
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
    fn files_that_look_like_a_vms_socket_and_are_none_are_counted() {
        let dir = dir();
        let long = format!("{}.vsock", "x".repeat(64));
        let wrong_names = ["a b.vsock", "a:b.vsock", "-a.vsock", &long, "\u{e4}.vsock"];
        for name in wrong_names {
            // A socket's path is short; the name decides before the type.
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::write(dir.path().join("file.vsock"), "").unwrap();
        fs::create_dir(dir.path().join("dir.vsock")).unwrap();
        for none in ["web-1.vsock_1024", ".hidden.vsock", "web-1", "vsock"] {
            fs::write(dir.path().join(none), "").unwrap();
        }
        symlink("/nowhere", dir.path().join("off.vsock")).unwrap();
        let scan = scan(dir.path(), &trusted()).unwrap();
        assert_eq!((scan.passed.names, scan.passed.no_sockets), (wrong_names.len(), 2));
        assert!(scan.sockets.is_empty());
    }

    #[test]
    fn a_directory_that_anybody_can_write_to_has_no_vms() {
        let dir = dir();
        UnixListener::bind(dir.path().join("web-1.vsock")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(scan(dir.path(), &trusted()), Err(Distrust::Others(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_hints_is_one_scan() {
        let own = dir();
        // Its parent, in which others make files, is watched too.
        let dir = own.path().join("vms");
        fs::create_dir(&dir).unwrap();
        let (found, mut scans) = mpsc::channel(1);
        let watch = tokio::spawn(watch(dir.clone(), trusted(), Arc::default(), found));
        let mut sockets = async || match scans.recv().await {
            Some(Look::Sockets(sockets)) => sockets.len(),
            look => panic!("{look:?}"),
        };
        assert_eq!(sockets().await, 0);
        // On this thread, so that all of them are there when the watch looks.
        let listeners: Vec<_> = (0..1000)
            .map(|n| UnixListener::bind(dir.join(format!("vm-{n}.vsock"))).unwrap())
            .collect();
        assert_eq!(sockets().await, listeners.len());
        let next = tokio::time::timeout(RESCAN_INTERVAL / 2, sockets()).await;
        assert!(next.is_err(), "scanned again for what it had seen");
        watch.abort();
    }

    #[test]
    fn a_socket_made_anew_is_another_socket() {
        let dir = dir();
        let path = dir.path().join("web-1.vsock");
        let first = UnixListener::bind(&path).unwrap();
        let before = scan(dir.path(), &trusted()).unwrap();
        assert_eq!(scan(dir.path(), &trusted()).unwrap(), before);
        // The inode's number may be given to the next file at once, so it can't tell them apart.
        let then = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: then, last_modification: then };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        assert_ne!(scan(dir.path(), &trusted()).unwrap(), before);
        drop(first);
    }
}
