//! `write_file` in directories that another, hostile user of the guest may change.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{Done, WriteFile};
use minions_proto::{AgentError, ErrorCode};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use support::{RunningAgent, until};
use tempfile::TempDir;

const ATTACKER: u32 = 65534;

/// Agent, and directories that root shares with the attacker.
struct Guest {
    agent: RunningAgent,
    dir: TempDir,
}

impl Guest {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let guest = Self { agent: RunningAgent::start().await, dir };
        for (name, mode) in [("home", 0o755), ("tmp", 0o1777), ("etc", 0o755)] {
            fs::create_dir(guest.path(name)).unwrap();
            fs::set_permissions(guest.path(name), Permissions::from_mode(mode)).unwrap();
        }
        chown(guest.path("home"), Some(ATTACKER), Some(ATTACKER)).unwrap();
        guest
    }

    /// Returns a path in the guest: `home` belongs to the attacker, `tmp` is world-writable and sticky, `etc` belongs
    /// to root.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str) -> WriteFile {
        let path = self.path(name).to_str().unwrap().to_owned();
        WriteFile { path, content: "SECRET".to_owned(), mode: None, append: false }
    }

    async fn write(&self, call: &WriteFile) -> Result<Done, AgentError> {
        self.agent.call(call).await
    }

    /// Checks that a request was refused because of its path, with a message that contains `why`.
    #[track_caller]
    fn assert_refused(result: Result<Done, AgentError>, why: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{error:?}");
        assert_eq!(error.field.as_deref(), Some("path"), "{error:?}");
        assert!(error.message.contains(why), "{error:?}");
    }
}

/// Runs `action` with the credentials of the attacker, in a thread, because credentials belong to a thread.
fn as_attacker<T: Send>(action: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            let (user, group) = (Uid::from_raw(ATTACKER), Gid::from_raw(ATTACKER));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            action()
        });
        attacker.join().unwrap()
    })
}

/// Returns owner and permission bits of a path; a link is not followed.
fn owner_and_mode(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.mode() & 0o7777)
}

#[tokio::test]
async fn a_file_created_in_advance_passes_on_neither_owner_nor_mode() {
    let guest = Guest::start().await;
    for name in ["home/key", "tmp/key", "home/script", "tmp/script"] {
        let path = guest.path(name);
        let mut held = as_attacker(|| {
            let mut file = fs::OpenOptions::new();
            let file = file.read(true).write(true).create_new(true).open(&path).unwrap();
            file.set_permissions(Permissions::from_mode(0o777)).unwrap();
            file
        });
        let mode = name.ends_with("key").then_some(0o600);
        guest.write(&WriteFile { mode, ..guest.file(name) }).await.unwrap();
        assert_eq!(owner_and_mode(&path), (0, mode.unwrap_or(0o644)), "{name}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "SECRET");
        let mut seen = String::new();
        held.read_to_string(&mut seen).unwrap();
        assert_eq!(seen, "", "{name}: the attacker's descriptor refers to the old file");
    }
}

#[tokio::test]
async fn a_hard_link_passes_on_no_mode_and_is_not_appended_to() {
    let guest = Guest::start().await;
    let victim = guest.path("etc/victim");
    fs::write(&victim, "untouched").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o4755)).unwrap();
    for name in ["home/link", "tmp/link"] {
        // The attacker can do the same if `fs.protected_hardlinks` is off.
        fs::hard_link(&victim, guest.path(name)).unwrap();
        let append = WriteFile { append: true, ..guest.file(name) };
        Guest::assert_refused(guest.write(&append).await, "hard links");
        guest.write(&guest.file(name)).await.unwrap();
        assert_eq!(owner_and_mode(&guest.path(name)), (0, 0o644), "{name}");
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[tokio::test]
async fn links_created_by_other_users_are_not_followed() {
    let guest = Guest::start().await;
    let (etc, missing) = (guest.path("etc"), guest.path("missing"));
    for at in ["home", "tmp"] {
        let [link, dangling, target] =
            ["link", "dangling", "target"].map(|name| guest.path(at).join(name));
        as_attacker(|| {
            symlink(&etc, &link).unwrap();
            symlink(&missing, &dangling).unwrap();
            symlink(etc.join("passwd"), &target).unwrap();
        });
        for name in ["link/passwd", "dangling/passwd", "link/a/passwd"] {
            let call = guest.file(&format!("{at}/{name}"));
            Guest::assert_refused(guest.write(&call).await, "symbolic link");
        }
        let call = guest.file(&format!("{at}/target"));
        let append = WriteFile { append: true, ..call.clone() };
        Guest::assert_refused(guest.write(&append).await, "symbolic link");
        guest.write(&call).await.unwrap();
        assert_eq!(owner_and_mode(&target), (0, 0o644));
        assert!(fs::symlink_metadata(&target).unwrap().is_file());
    }
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 0);
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_link_of_root_is_followed_only_in_directories_that_root_alone_changes() {
    let guest = Guest::start().await;
    symlink("../etc", guest.path("etc/relative")).unwrap();
    symlink(guest.path("etc"), guest.path("etc/absolute")).unwrap();
    symlink("relative/absolute/made", guest.path("etc/dangling")).unwrap();
    symlink("loop", guest.path("etc/loop")).unwrap();
    for (name, real) in [
        ("etc/relative/a", "etc/a"),
        ("etc/absolute/b", "etc/b"),
        ("etc/relative/absolute/../etc/c", "etc/c"),
        ("etc/dangling/d", "etc/made/d"),
    ] {
        guest.write(&guest.file(name)).await.unwrap();
        assert_eq!(fs::read_to_string(guest.path(real)).unwrap(), "SECRET", "{name}");
    }
    let looped = guest.write(&guest.file("etc/loop/x")).await.unwrap_err();
    assert_eq!((looped.code, looped.errno), (Some(ErrorCode::IoFailed), Some(40)));
    for at in ["home", "tmp"] {
        symlink(guest.path("etc"), guest.path(at).join("of-root")).unwrap();
        let call = guest.file(&format!("{at}/of-root/x"));
        Guest::assert_refused(guest.write(&call).await, "symbolic link");
    }
}

#[tokio::test]
async fn a_pipe_is_refused_without_blocking() {
    let guest = Guest::start().await;
    let path = guest.path("home/pipe");
    let _reader = as_attacker(|| {
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).unwrap()
    });
    for append in [false, true] {
        let call = WriteFile { append, ..guest.file("home/pipe") };
        Guest::assert_refused(guest.write(&call).await, "not a regular file");
    }
}

#[tokio::test]
async fn only_files_of_root_are_appended_to() {
    let guest = Guest::start().await;
    for at in ["home", "tmp"] {
        let theirs = guest.path(at).join("theirs");
        as_attacker(|| fs::write(&theirs, "").unwrap());
        let append = WriteFile { append: true, ..guest.file(&format!("{at}/theirs")) };
        Guest::assert_refused(guest.write(&append).await, "user 65534");
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "");
        // Directories of root inside the user's directory are entered.
        let ours = WriteFile { append: true, ..guest.file(&format!("{at}/a/b/log")) };
        guest.write(&ours).await.unwrap();
        guest.write(&ours).await.unwrap();
        assert_eq!(fs::read_to_string(&ours.path).unwrap(), "SECRETSECRET");
    }
}

#[tokio::test]
async fn dot_dot_is_refused_where_another_user_can_move_the_directory() {
    let guest = Guest::start().await;
    as_attacker(|| fs::create_dir(guest.path("home/a")).unwrap());
    Guest::assert_refused(guest.write(&guest.file("home/a/../x")).await, "`..`");
    for name in ["home/../etc/x", "tmp/b/../x", "etc/b/../x"] {
        guest.write(&guest.file(name)).await.unwrap();
        assert!(guest.path(name).exists(), "{name}");
    }
}

/// Attacker that exchanges two names repeatedly until this is dropped.
struct Exchange {
    over: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    attacker: Option<JoinHandle<()>>,
}

impl Exchange {
    fn begin(one: PathBuf, other: PathBuf) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (Arc::clone(&over), Arc::clone(&done));
        let attacker = std::thread::spawn(move || {
            as_attacker(|| {
                while !until.load(Ordering::Relaxed) {
                    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        Self { over, done, attacker: Some(attacker) }
    }

    /// Writes repeatedly while the attacker exchanges the names, at least a thousand times.
    async fn outlast(&self, guest: &Guest, call: &WriteFile) {
        let before = self.done.load(Ordering::Relaxed);
        for _ in 0..300 {
            // Succeeds or is refused, depending on which file had the name.
            let _ = guest.write(call).await;
        }
        until("the attacker has exchanged the names", async || {
            (self.done.load(Ordering::Relaxed) > before + 1000).then_some(())
        })
        .await;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.attacker.take().map(JoinHandle::join);
    }
}

#[tokio::test]
async fn a_directory_exchanged_for_a_link_during_the_walk_is_not_followed() {
    let guest = Guest::start().await;
    let (etc, own, link) = (guest.path("etc"), guest.path("home/own"), guest.path("home/link"));
    as_attacker(|| {
        fs::create_dir(&own).unwrap();
        symlink(&etc, &link).unwrap();
    });
    let exchange = Exchange::begin(own, link);
    for name in ["home/own/file", "home/own/sub/file"] {
        exchange.outlast(&guest, &guest.file(name)).await;
    }
    let append = WriteFile { append: true, ..guest.file("home/own/log") };
    exchange.outlast(&guest, &append).await;
    drop(exchange);
    assert_eq!(fs::read_dir(&etc).unwrap().count(), 0, "no file was created there");
}

#[tokio::test]
async fn a_file_exchanged_for_a_link_or_pipe_is_never_followed() {
    let guest = Guest::start().await;
    let victim = guest.path("etc/victim");
    fs::write(&victim, "untouched").unwrap();
    let [log, link, hard, pipe] =
        ["log", "link", "hard", "pipe"].map(|name| guest.path("home").join(name));
    fs::write(&log, "").unwrap();
    fs::hard_link(&victim, &hard).unwrap();
    as_attacker(|| {
        symlink(&victim, &link).unwrap();
        // Opening it for writing would block, because it has no reader.
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    });
    for other in [link, hard, pipe] {
        let exchange = Exchange::begin(log.clone(), other);
        let append = WriteFile { append: true, ..guest.file("home/log") };
        exchange.outlast(&guest, &append).await;
    }
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}
