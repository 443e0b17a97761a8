//! Discovery of the VMs' sockets.
//!
//! Only a scan of the directory decides which sockets exist. inotify triggers scans; a scan every few seconds
//! covers the changes that inotify misses (its queue overflows, or the directory is replaced by another one).

use super::passed_over::{PassedOverFiles, PassedOverReason, ScanLog};
use super::socket_dir::{Distrust, TrustedOwners};
use crate::agent::{SocketId, VmSocket};
use crate::metrics::Meters;
use futures_util::{FutureExt, StreamExt};
use inotify::{EventOwned, Inotify, WatchDescriptor, WatchMask};
use minions_api::VmName;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Interval between scans without events.
const RESCAN_INTERVAL: Duration = Duration::from_secs(5);

/// Time between an event and its scan: events come in bursts, and one scan covers a burst.
const SETTLE: Duration = Duration::from_millis(10);

/// Suffix of a VM's socket, `<vm>.vsock`. Files named `<vm>.vsock_<port>` belong to connections that guests open.
const SUFFIX: &str = ".vsock";

/// All sockets, by the VM's name.
pub(crate) type Sockets = BTreeMap<VmName, VmSocket>;

/// Result of one scan.
#[derive(Debug)]
pub(crate) enum ScanResult {
    /// Sockets in the directory.
    Sockets(Sockets),
    /// The directory is gone or no longer trusted: none of its sockets may be used.
    Closed,
}

/// Files that a scan found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundFiles {
    pub(crate) sockets: Sockets,
    /// Files that have the suffix of a VM's socket but are not one.
    pub(crate) passed: PassedOverFiles,
}

/// Reports whether a refusal is temporary and says nothing about the VMs, for example for lack of descriptors.
fn is_passing(refusal: &Distrust) -> bool {
    match refusal {
        Distrust::Owner { .. } | Distrust::Group { .. } | Distrust::Others(_) => false,
        Distrust::Unreadable { source, .. } => {
            !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
    }
}

/// Scans `dir` once. Blocking: a directory of a thousand sockets takes a few milliseconds.
pub(crate) fn scan(dir: &Path, trusted: &TrustedOwners) -> Result<FoundFiles, Distrust> {
    trusted.check(dir)?;
    let unreadable = |source| Distrust::Unreadable { path: dir.to_owned(), source };
    let mut scan = FoundFiles::default();
    for entry in fs::read_dir(dir).map_err(unreadable)?.flatten() {
        let file = entry.file_name();
        let Some(name) = stem(&file) else { continue };
        let Some(name) = name.to_str().and_then(|name| name.parse::<VmName>().ok()) else {
            scan.passed.add(&file, PassedOverReason::Name);
            continue;
        };
        let path = entry.path();
        // Symbolic links are followed, because only a trusted user can have created one here. A dangling link belongs
        // to a VM that is off.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.file_type().is_socket() {
            scan.sockets.insert(name, VmSocket { path, id: SocketId::of(&metadata) });
        } else {
            scan.passed.add(&file, PassedOverReason::NotASocket);
        }
    }
    Ok(scan)
}

/// Returns the part of a file name before [`SUFFIX`]; `None` for other files and for hidden ones.
fn stem(file: &OsStr) -> Option<&OsStr> {
    let bytes = file.as_bytes().strip_suffix(SUFFIX.as_bytes())?;
    (!bytes.starts_with(b".")).then(|| OsStr::from_bytes(bytes))
}

/// Scans `dir` at once, after each event in it, and every [`RESCAN_INTERVAL`], and sends the results. Returns when
/// the receiver is dropped.
pub(crate) async fn watch(
    dir: PathBuf,
    trusted: TrustedOwners,
    meters: Arc<Meters>,
    found: mpsc::Sender<ScanResult>,
) {
    let mut hints = DirectoryEvents::new(&dir);
    let mut rescan = interval(RESCAN_INTERVAL);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = ScanLog::default();
    loop {
        tokio::select! {
            _ = rescan.tick() => {}
            () = hints.next() => {
                sleep(SETTLE).await;
                // The next scan covers all events so far. It may miss later ones, so they remain queued.
                hints.forget();
            }
            () = found.closed() => return,
        }
        hints.renew(&dir);
        let look = match scan_off_thread(dir.clone(), trusted.clone()).await {
            Ok(FoundFiles { sockets, passed }) => {
                log.scanned(&passed);
                meters.wrong_names.store(passed.names, Ordering::Relaxed);
                meters.no_sockets.store(passed.no_sockets, Ordering::Relaxed);
                ScanResult::Sockets(sockets)
            }
            Err(refusal) => {
                log.refused(&refusal);
                meters.scan_refused(refusal.reason());
                if is_passing(&refusal) {
                    // The last known set of sockets stays valid.
                    continue;
                }
                ScanResult::Closed
            }
        };
        if found.send(look).await.is_err() {
            return;
        }
    }
}

async fn scan_off_thread(dir: PathBuf, trusted: TrustedOwners) -> Result<FoundFiles, Distrust> {
    let path = dir.clone();
    tokio::task::spawn_blocking(move || scan(&dir, &trusted))
        .await
        .unwrap_or_else(|error| Err(Distrust::Unreadable { path, source: io::Error::other(error) }))
}

/// inotify events, as hints that a scan may find changes.
struct DirectoryEvents {
    /// `None` if inotify is unavailable: then only the periodic scans find VMs.
    stream: Option<inotify::EventStream<[u8; 4096]>>,
    /// Watch of the directory's parent.
    parent: Option<WatchDescriptor>,
    /// Name of the directory in its parent.
    name: Option<OsString>,
}

impl DirectoryEvents {
    fn new(dir: &Path) -> Self {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4096]));
        if let Err(error) = &stream {
            tracing::warn!(%error, "inotify is unavailable; minionsd looks for new VMs every 5 s");
        }
        let name = dir.file_name().map(OsStr::to_owned);
        let mut hints = Self { stream: stream.ok(), parent: None, name };
        hints.renew(dir);
        hints
    }

    /// Watches the directory and its parent, in case the directory is removed and created again. Does nothing for
    /// a directory that is watched already; a missing one is tried again before the next scan.
    fn renew(&mut self, dir: &Path) {
        let Some(stream) = &self.stream else { return };
        let names = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        let mut watches = stream.watches();
        watches.add(dir, names | WatchMask::ATTRIB | WatchMask::ONLYDIR).ok();
        if let Some(parent) = dir.parent() {
            self.parent = watches.add(parent, names | WatchMask::ONLYDIR).ok();
        }
    }

    /// Waits for the next event that may concern a VM's socket; forever without inotify.
    ///
    /// Cancel safe.
    async fn next(&mut self) {
        while let Some(stream) = &mut self.stream {
            match stream.next().await {
                Some(Ok(event)) if !self.may_concern_vms(&event) => {}
                Some(_) => return,
                None => self.stream = None,
            }
        }
        std::future::pending().await
    }

    /// Reports whether a scan may find a change after an event. Other files come and go next to the directory, which may be
    /// in `/tmp`, and in it: sockets for announcements, and the daemon's own files.
    fn may_concern_vms(&self, event: &EventOwned) -> bool {
        let Some(file) = &event.name else { return true };
        if self.parent.as_ref() == Some(&event.wd) {
            return self.name.as_ref().is_none_or(|dir| dir == file);
        }
        file.as_bytes().ends_with(SUFFIX.as_bytes())
    }

    /// Drops the queued events. The runtime's task budget bounds the number dropped in one call; the rest remain
    /// queued.
    fn forget(&mut self) {
        while self.next().now_or_never().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use rustix::io::Errno;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    fn dir() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir().unwrap()
    }

    /// Returns the default: trusts root and the user who runs the test.
    fn trusted() -> TrustedOwners {
        TrustedOwners::of(&crate::config::Config::parse("").unwrap())
    }

    fn names(dir: &Path) -> Vec<String> {
        scan(dir, &trusted()).unwrap().sockets.into_keys().map(String::from).collect()
    }

    #[test]
    fn only_a_failure_to_read_the_directory_keeps_the_known_vms() {
        let unreadable =
            |errno: Errno| Distrust::Unreadable { path: "/d".into(), source: errno.into() };
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO] {
            assert!(is_passing(&unreadable(errno)), "{errno:?}");
        }
        for errno in [Errno::NOENT, Errno::NOTDIR] {
            assert!(!is_passing(&unreadable(errno)), "{errno:?}");
        }
        let path = PathBuf::from("/d");
        assert!(!is_passing(&Distrust::Owner { path: path.clone(), uid: 7 }));
        assert!(!is_passing(&Distrust::Group { path: path.clone(), gid: 7 }));
        assert!(!is_passing(&Distrust::Others(path)));
    }

    #[test]
    fn only_sockets_with_a_vm_name_are_vms() {
        let dir = dir();
        for socket in [
            "web-1.vsock",
            "web-1.vsock_1024",
            "web-1.vsock_1025",
            ".hidden.vsock",
            "minionsd.sock",
        ] {
            UnixListener::bind(dir.path().join(socket)).unwrap();
        }
        fs::write(dir.path().join("file.vsock"), "").unwrap();
        symlink(dir.path().join("web-1.vsock"), dir.path().join("alias.vsock")).unwrap();
        symlink("/nowhere", dir.path().join("dangling.vsock")).unwrap();
        assert_eq!(names(dir.path()), ["alias", "web-1"]);
    }

    #[test]
    fn files_with_the_suffix_that_are_not_vm_sockets_are_counted() {
        let dir = dir();
        let long = format!("{}.vsock", "x".repeat(64));
        let wrong_names = ["a b.vsock", "a:b.vsock", "-a.vsock", &long, "\u{e4}.vsock"];
        for name in wrong_names {
            // Plain files, because a socket's path is limited to 107 bytes. The name is checked before the type.
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
    fn a_world_writable_directory_has_no_vms() {
        let dir = dir();
        UnixListener::bind(dir.path().join("web-1.vsock")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(scan(dir.path(), &trusted()), Err(Distrust::Others(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_events_causes_one_scan() {
        let own = dir();
        // The watch covers the parent too, so it must be a directory of this test only.
        let dir = own.path().join("vms");
        fs::create_dir(&dir).unwrap();
        let (found, mut scans) = mpsc::channel(1);
        let watch = tokio::spawn(watch(dir.clone(), trusted(), Arc::default(), found));
        let mut sockets = async || match scans.recv().await {
            Some(ScanResult::Sockets(sockets)) => sockets.len(),
            look => panic!("{look:?}"),
        };
        assert_eq!(sockets().await, 0);
        // Bound without yielding, so that all of them exist when the watch scans.
        let listeners: Vec<_> = (0..1000)
            .map(|n| UnixListener::bind(dir.join(format!("vm-{n}.vsock"))).unwrap())
            .collect();
        assert_eq!(sockets().await, listeners.len());
        let next = tokio::time::timeout(RESCAN_INTERVAL / 2, sockets()).await;
        assert!(next.is_err(), "scanned again for events that a scan had covered");
        watch.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_are_no_sockets_of_vms_cause_no_scan() {
        let own = dir();
        let dir = own.path().join("vms");
        fs::create_dir(&dir).unwrap();
        let (found, mut scans) = mpsc::channel(1);
        let watch = tokio::spawn(watch(dir.clone(), trusted(), Arc::default(), found));
        assert!(scans.recv().await.is_some());
        for file in
            [own.path().join("web-1.vsock"), own.path().join("other"), dir.join("minionsd.db")]
        {
            fs::write(&file, "").unwrap();
            fs::remove_file(&file).unwrap();
        }
        let next = tokio::time::timeout(RESCAN_INTERVAL / 2, scans.recv()).await;
        assert!(next.is_err(), "scanned for files that are no VMs");
        fs::rename(&dir, own.path().join("moved")).unwrap();
        fs::create_dir(&dir).unwrap();
        let next = tokio::time::timeout(RESCAN_INTERVAL / 4, scans.recv()).await;
        assert!(next.is_ok(), "the directory is another one");
        watch.abort();
    }

    #[test]
    fn a_socket_bound_again_has_another_identity() {
        let dir = dir();
        let path = dir.path().join("web-1.vsock");
        let first = UnixListener::bind(&path).unwrap();
        let before = scan(dir.path(), &trusted()).unwrap();
        assert_eq!(scan(dir.path(), &trusted()).unwrap(), before);
        // The filesystem may give the next file the same inode number, so only the time distinguishes them.
        let then = Timespec { tv_sec: 1, tv_nsec: 0 };
        let times = Timestamps { last_access: then, last_modification: then };
        utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        assert_ne!(scan(dir.path(), &trusted()).unwrap(), before);
        drop(first);
    }
}
