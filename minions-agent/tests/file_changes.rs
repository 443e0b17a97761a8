//! Directories: mkdir, rename, remove, watch.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::channel::HostControl;
use minions_proto::file_stream::{FileEvent, FileEventKind, FileKind, LineDecoder};
use minions_proto::message::{
    FileOperation, GuestTarget, MakeDirectory, RemoveFile, RenameFile, WatchTree,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::channel::Stream;
use support::file::{path, run, run_as, start};
use support::{RunningAgent, until};

fn mkdir_of(dir: &Path, parents: bool, mode: Option<u32>) -> FileOperation {
    FileOperation::Mkdir(MakeDirectory { path: path(dir), parents, mode })
}

fn remove_of(file: &Path, recursive: bool) -> FileOperation {
    FileOperation::Remove(RemoveFile { path: path(file), recursive })
}

fn rename_of(file: &Path, to: &Path, no_replace: bool) -> FileOperation {
    let to = GuestTarget::new(to.as_os_str().as_encoded_bytes());
    FileOperation::Rename(RenameFile { path: path(file), to, no_replace })
}

#[tokio::test]
async fn directories_are_created_with_their_mode_and_their_parents() {
    let agent = RunningAgent::start().await;
    let dir = agent.dir().join("a/b");
    assert_eq!(run(&agent, mkdir_of(&dir, false, None), b"").await.failure().errno, "ENOENT");
    let (header, _) = run(&agent, mkdir_of(&dir, true, Some(0o1777)), b"").await.success();
    assert_eq!((header.metadata.kind, header.metadata.mode), (FileKind::Directory, 0o1777));
    assert_eq!(fs::metadata(agent.dir().join("a")).unwrap().mode() & 0o7777, 0o755);
    // A directory that exists is accepted with `parents` only, and keeps its mode; a file is not.
    assert_eq!(run(&agent, mkdir_of(&dir, false, None), b"").await.failure().errno, "EEXIST");
    let (header, _) = run(&agent, mkdir_of(&dir, true, Some(0o700)), b"").await.success();
    assert_eq!(header.metadata.mode, 0o1777);
    fs::write(dir.join("file"), "").unwrap();
    let file = run(&agent, mkdir_of(&dir.join("file"), true, None), b"").await.failure();
    assert_eq!((file.errno.as_str(), file.step.as_str()), ("EEXIST", "mkdir"));
}

#[tokio::test]
async fn a_file_is_renamed_and_replaces_only_if_permitted() {
    let agent = RunningAgent::start().await;
    let (one, two) = (agent.dir().join("one"), agent.dir().join("two"));
    assert_eq!(run(&agent, rename_of(&one, &two, false), b"").await.failure().errno, "ENOENT");
    fs::write(&one, "one").unwrap();
    fs::write(&two, "two").unwrap();
    let exists = run(&agent, rename_of(&one, &two, true), b"").await.errno();
    assert_eq!(exists, ("EEXIST".into(), "rename".into()));
    assert_eq!(fs::read(&two).unwrap(), b"two");
    run(&agent, rename_of(&one, &two, false), b"").await.success();
    assert_eq!((fs::read(&two).unwrap(), one.exists()), (b"one".to_vec(), false));
    let away = run(&agent, rename_of(&two, Path::new("/proc/two"), false), b"").await.failure();
    assert!(["EXDEV", "ENOENT", "EPERM"].contains(&away.errno.as_str()), "{away:?}");
    assert!(two.exists());
}

#[tokio::test]
async fn a_tree_is_removed_without_following_links() {
    let agent = RunningAgent::start().await;
    let (dir, outside) = (agent.dir().join("dir"), agent.dir().join("outside"));
    fs::create_dir_all(dir.join("a/b/c")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    symlink(&outside, dir.join("a/link")).unwrap();
    fs::write(dir.join("a/file"), "").unwrap();
    assert_eq!(run(&agent, remove_of(&dir, false), b"").await.failure().errno, "ENOTEMPTY");
    let (header, _) = run(&agent, remove_of(&dir, true), b"").await.success();
    assert_eq!((header.count, header.metadata.kind), (Some(6), FileKind::Directory));
    assert!(!dir.exists() && outside.join("file").exists());
    let missing = run(&agent, remove_of(&dir, true), b"").await.errno();
    assert_eq!(missing, ("ENOENT".into(), "stat".into()));

    symlink(&outside, &dir).unwrap();
    run(&agent, remove_of(&dir, true), b"").await.success();
    assert!(outside.join("file").exists() && fs::symlink_metadata(&dir).is_err());
    assert_eq!(run(&agent, remove_of(Path::new("/"), true), b"").await.failure().errno, "EINVAL");
}

#[tokio::test]
async fn what_a_user_may_not_remove_is_reported_and_stays() {
    let agent = RunningAgent::start().await;
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o777)).unwrap();
    let dir = agent.dir().join("dir");
    fs::create_dir_all(dir.join("closed")).unwrap();
    fs::write(dir.join("closed/file"), "").unwrap();
    fs::write(dir.join("open"), "").unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    let result = run_as(&agent, "nobody", remove_of(&dir, true), b"").await;
    let errors: Vec<_> =
        result.failures.iter().map(|one| (one.errno.as_str(), one.warning)).collect();
    assert_eq!(errors, [("EACCES", true), ("ENOTEMPTY", true), ("ENOTEMPTY", false)]);
    assert!(dir.join("closed/file").exists() && !dir.join("open").exists());
}

#[tokio::test]
async fn trees_that_are_too_deep_are_refused() {
    let agent = RunningAgent::start().await;
    let top = agent.dir().join("top");
    // Created step by step, because the whole path is longer than the kernel accepts.
    let mut at =
        rustix::fs::open(agent.dir(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for level in 0..600 {
        let name = if level == 0 { "top" } else { "d" };
        rustix::fs::mkdirat(&at, name, rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, name, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())
            .unwrap();
    }
    let result = run(&agent, remove_of(&top, true), b"").await;
    assert!(
        result.failures.iter().any(|failure| failure.errno == "EOVERFLOW"),
        "{:?}",
        result.failures.first()
    );
    let pack =
        FileOperation::TarOut(minions_proto::message::PackTree { path: path(&top), xattrs: false });
    let result = run(&agent, pack, b"").await;
    assert_eq!(result.failures.last().unwrap().errno, "EOVERFLOW");
    // For the removal of the temporary directory.
    assert!(std::process::Command::new("rm").arg("-rf").arg(&top).status().unwrap().success());
}

/// An open stream of events.
struct Watch {
    stream: Stream,
    lines: LineDecoder,
    base: String,
}

impl Watch {
    async fn begin(agent: &RunningAgent, dir: &Path, recursive: bool) -> Self {
        let op = FileOperation::Watch(WatchTree { path: path(dir), recursive });
        let mut stream = Stream::open(agent, &start(op)).await.unwrap();
        let header = stream.output().await;
        assert!(header.starts_with(br#"{"type":""#), "{header:?}");
        Self { stream, lines: LineDecoder::default(), base: dir.to_str().unwrap().to_owned() }
    }

    /// Returns the next event: its type, and its names relative to the watched directory.
    async fn next(&mut self) -> (FileEventKind, String, String) {
        loop {
            if let Some(event) = self.lines.next_json::<FileEvent>().unwrap() {
                let relative =
                    |name: &str| name.strip_prefix(&self.base).unwrap_or(name).to_owned();
                return (
                    event.event,
                    relative(&event.path),
                    relative(&event.to.unwrap_or_default()),
                );
            }
            let bytes = self.stream.output().await;
            self.lines.extend(&bytes);
        }
    }

    #[track_caller]
    fn expect(event: (FileEventKind, String, String), kind: FileEventKind, name: &str) {
        assert_eq!((event.0, event.1.as_str()), (kind, name));
    }
}

#[tokio::test]
async fn changes_in_a_tree_are_reported_also_in_new_directories() {
    use FileEventKind::{Created, Modified, Moved, Removed};
    let agent = RunningAgent::start().await;
    let dir = agent.dir().join("dir");
    fs::create_dir_all(dir.join("old")).unwrap();
    let mut watch = Watch::begin(&agent, &dir, true).await;
    fs::write(dir.join("old/file"), "x").unwrap();
    Watch::expect(watch.next().await, Created, "/old/file");
    Watch::expect(watch.next().await, Modified, "/old/file");
    fs::rename(dir.join("old/file"), dir.join("moved")).unwrap();
    assert_eq!(watch.next().await, (Moved, "/old/file".into(), "/moved".into()));
    fs::create_dir(dir.join("new")).unwrap();
    Watch::expect(watch.next().await, Created, "/new");
    // The new directory may not be watched yet: its file is found then, too.
    fs::write(dir.join("new/inside"), "").unwrap();
    Watch::expect(watch.next().await, Created, "/new/inside");
    fs::rename(dir.join("new"), dir.join("renamed")).unwrap();
    loop {
        let event = watch.next().await;
        if event.0 == Moved {
            assert_eq!(event, (Moved, "/new".into(), "/renamed".into()));
            break;
        }
        assert_eq!(event.1, "/new/inside");
    }
    fs::remove_file(dir.join("renamed/inside")).unwrap();
    Watch::expect(watch.next().await, Removed, "/renamed/inside");
    fs::rename(dir.join("renamed"), agent.dir().join("away")).unwrap();
    Watch::expect(watch.next().await, Removed, "/renamed");
    // No longer watched.
    fs::write(agent.dir().join("away/file"), "").unwrap();
    fs::set_permissions(dir.join("moved"), Permissions::from_mode(0o600)).unwrap();
    Watch::expect(watch.next().await, Modified, "/moved");
    fs::remove_dir_all(&dir).unwrap();
    let mut last = watch.next().await;
    while !last.1.is_empty() {
        assert_eq!(last.0, Removed);
        last = watch.next().await;
    }
    Watch::expect(last, Removed, "");
    let ended = watch.stream.collect().await.ended.unwrap();
    assert_eq!(ended.outcome, minions_proto::message::Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_flood_of_changes_ends_in_an_overflow_and_not_in_silence() {
    let agent = RunningAgent::start().await;
    let dir = agent.dir().join("dir");
    fs::create_dir(&dir).unwrap();
    let mut watch = Watch::begin(&agent, &dir, false).await;
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    // The process cannot empty the queue while it is stopped.
    support::stop(watch.stream.attached.pid);
    for at in 0..queue + 100 {
        fs::write(dir.join(format!("{}", at % 100)), "").unwrap();
        fs::remove_file(dir.join(format!("{}", at % 100))).unwrap();
    }
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(watch.stream.attached.pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    loop {
        if watch.next().await.0 == FileEventKind::Overflow {
            break;
        }
        let (stdout, stderr) = (watch.stream.stdout(), 0);
        watch.stream.control(HostControl::Ack { stdout, stderr }).await;
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let agent = RunningAgent::start().await;
    let mut watch = Watch::begin(&agent, agent.dir(), true).await;
    let pid = watch.stream.attached.pid;
    watch.stream.control(HostControl::Leave).await;
    until("the process has ended", async || {
        (!Path::new(&format!("/proc/{pid}/fd/0")).exists()).then_some(())
    })
    .await;
    let missing = FileOperation::Watch(WatchTree {
        path: path(&agent.dir().join("missing")),
        recursive: true,
    });
    assert_eq!(run(&agent, missing, b"").await.failure().errno, "ENOENT");
}

/// Another user of the guest, who owns the directory, replaces the new directory by a link to a file of root as often as
/// possible. A mode that is set by name afterwards would be the file's.
#[tokio::test]
async fn the_mode_of_a_new_directory_is_never_given_to_another_file() {
    let agent = RunningAgent::start().await;
    let (dir, secret) = (agent.dir().join("dir"), agent.dir().join("secret"));
    fs::create_dir(&dir).unwrap();
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let (victim, link) = (dir.join("victim"), dir.join("link"));
    let stop = Arc::new(AtomicBool::new(false));
    let attacker = std::thread::spawn({
        let (victim, link, secret, stop) =
            (victim.clone(), link.clone(), secret.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::SeqCst) {
                let _ = symlink(&secret, &link);
                let _ = renameat_with(CWD, &victim, CWD, &link, RenameFlags::EXCHANGE);
            }
        }
    });
    for _ in 0..100 {
        run(&agent, mkdir_of(&victim, false, Some(0o1777)), b"").await;
        for name in [&victim, &link] {
            let _ = fs::remove_dir(name);
            let _ = fs::remove_file(name);
        }
    }
    stop.store(true, Ordering::SeqCst);
    attacker.join().unwrap();
    assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o7777, 0o600);
}
