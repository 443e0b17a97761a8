//! Operations on single files over the wire: stat, list, read, write.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::file_stream::{DirectoryEntry, FileKind};
use minions_proto::message::{
    FileOperation, FileStart, GuestPath, ListDirectory, Outcome, ReadFile, StatFile, WriteStream,
};
use minions_proto::{AgentError, ErrorCode};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use support::RunningAgent;
use support::file::{path, run, run_as, run_start, start};

fn read_of(file: &Path) -> FileOperation {
    FileOperation::Read(ReadFile { path: path(file), ..ReadFile::default() })
}

fn part(file: &Path, offset: u64, length: Option<u64>, if_range: Option<&str>) -> FileOperation {
    let if_range = if_range.map(str::to_owned);
    FileOperation::Read(ReadFile { path: path(file), offset, length, if_range })
}

fn write_of(file: &Path) -> WriteStream {
    WriteStream { path: path(file), ..WriteStream::default() }
}

fn stat_of(file: &Path, follow: bool) -> FileOperation {
    FileOperation::Stat(StatFile { path: path(file), follow })
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
}

#[tokio::test]
async fn a_file_is_read_whole_or_in_part_with_its_metadata() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, "0123456789").unwrap();
    let (header, data) = run(&agent, read_of(&file), b"").await.success();
    assert_eq!((&data[..], header.offset, header.length), (&b"0123456789"[..], Some(0), Some(10)));
    let known = fs::metadata(&file).unwrap();
    let metadata = &header.metadata;
    assert_eq!((metadata.kind, metadata.size), (FileKind::File, 10));
    assert_eq!((metadata.mode, metadata.uid), (known.mode() & 0o7777, known.uid()));
    assert_eq!(metadata.mtime_ns, known.mtime() * 1_000_000_000 + known.mtime_nsec());

    let etag = header.metadata.etag.as_str();
    for (op, expected) in [
        (part(&file, 3, Some(4), None), (3, "3456")),
        (part(&file, 8, Some(4), Some(etag)), (8, "89")),
        (part(&file, 20, None, None), (20, "")),
        (part(&file, 3, Some(4), Some("another")), (0, "0123456789")),
    ] {
        let (header, data) = run(&agent, op, b"").await.success();
        assert_eq!((header.offset, data), (Some(expected.0), expected.1.as_bytes().to_vec()));
        assert_eq!(header.length, Some(expected.1.len() as u64));
    }
}

#[tokio::test]
async fn a_written_file_appears_complete_with_its_mode() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("a/b/file");
    let missing = run(&agent, FileOperation::Write(write_of(&file)), b"x").await.errno();
    assert_eq!(missing, ("ENOENT".into(), "resolve".into()));

    let op = WriteStream { parents: true, mode: Some(0o600), ..write_of(&file) };
    let (first, _) = run(&agent, FileOperation::Write(op), b"one").await.success();
    assert_eq!((first.metadata.size, first.metadata.mode), (3, 0o600));
    // The mode of the replaced file is kept; the etag changes, also with equal content.
    let (second, _) = run(&agent, FileOperation::Write(write_of(&file)), b"one").await.success();
    assert_eq!((fs::read(&file).unwrap(), second.metadata.mode), (b"one".to_vec(), 0o600));
    assert_ne!(first.metadata.etag, second.metadata.etag);
    let (stat, _) = run(&agent, stat_of(&file, true), b"").await.success();
    assert_eq!(stat.metadata, second.metadata);

    let owned = WriteStream { owner: Some("12:34".into()), mode: Some(0o4755), ..write_of(&file) };
    let (owned, _) = run(&agent, FileOperation::Write(owned), b"").await.success();
    let owned = owned.metadata;
    assert_eq!((owned.uid, owned.gid, owned.mode, owned.size), (12, 34, 0o4755, 0));
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
}

#[tokio::test]
async fn conditions_protect_a_file_that_has_changed() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    let with = |if_match: Option<&str>, create_only| {
        let if_match = if_match.map(str::to_owned);
        FileOperation::Write(WriteStream { if_match, create_only, ..write_of(&file) })
    };
    let stale = ("ESTALE".to_owned(), "if_match".to_owned());
    assert_eq!(run(&agent, with(Some("x"), false), b"new").await.errno(), stale);
    assert!(!file.exists());
    let (created, _) = run(&agent, with(None, true), b"one").await.success();
    let exists = run(&agent, with(None, true), b"two").await.errno();
    assert_eq!(exists, ("EEXIST".into(), "create".into()));
    assert_eq!(run(&agent, with(Some("x"), false), b"two").await.errno(), stale);
    assert_eq!(fs::read(&file).unwrap(), b"one");
    run(&agent, with(Some(&created.metadata.etag), false), b"two").await.success();
    assert_eq!(fs::read(&file).unwrap(), b"two");
}

#[tokio::test]
async fn files_that_are_not_regular_are_refused_without_an_effect() {
    let agent = RunningAgent::start().await;
    let fifo = agent.dir().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for (file, errno) in [
        (agent.dir(), "EISDIR"),
        (&fifo, "EINVAL"),
        (Path::new("/dev/zero"), "EINVAL"),
        (&agent.socket(), "EINVAL"),
    ] {
        let (read, step) = run(&agent, read_of(file), b"").await.errno();
        assert_eq!((read.as_str(), step.as_str()), (errno, "open"), "{}", file.display());
        let write = run(&agent, FileOperation::Write(write_of(file)), b"x").await.failure();
        assert_eq!(write.errno, errno, "{}", file.display());
    }
    let looped = agent.dir().join("loop");
    symlink("loop", &looped).unwrap();
    assert_eq!(run(&agent, read_of(&looped), b"").await.failure().errno, "ELOOP");
    let absent = run(&agent, read_of(&agent.dir().join("absent")), b"").await.failure();
    assert_eq!((absent.errno.as_str(), absent.step.as_str()), ("ENOENT", "open"));
    assert!(absent.message.contains("absent"), "{}", absent.message);
    let below = run(&agent, read_of(&agent.socket().join("x")), b"").await.failure();
    assert_eq!(below.errno, "ENOTDIR");
    let long = run(&agent, stat_of(Path::new(&format!("/{}", "x".repeat(300))), false), b"").await;
    assert_eq!(long.failure().errno, "ENAMETOOLONG");
}

#[tokio::test]
async fn generated_files_are_read_to_their_end() {
    let agent = RunningAgent::start().await;
    let (header, data) = run(&agent, read_of(Path::new("/proc/version")), b"").await.success();
    assert_eq!((header.metadata.size, header.length), (0, None));
    assert_eq!(data, fs::read("/proc/version").unwrap());
    let size = Path::new("/sys/kernel/mm/transparent_hugepage/enabled");
    if size.exists() {
        // The kernel reports 4096 bytes for every file of sysfs.
        let (header, data) = run(&agent, read_of(size), b"").await.success();
        assert_eq!((header.length, data), (None, fs::read(size).unwrap()));
    }
}

#[tokio::test]
async fn invalid_requests_name_their_field_and_start_nothing() {
    let agent = RunningAgent::start().await;
    let refused = async |op: FileOperation| {
        let AgentError { code, field, .. } = run_start(&agent, start(op), b"").await.unwrap_err();
        assert_eq!(code, Some(ErrorCode::InvalidArgument));
        field.unwrap()
    };
    for text in ["relative", "/a\0b", &format!("/{}", "x".repeat(4095)), ""] {
        let path = GuestPath { path: text.into(), path_base64: None };
        let op = FileOperation::Stat(StatFile { path, follow: false });
        assert_eq!(refused(op).await, "op.path", "{text:?}");
    }
    let unknown = FileStart { user: Some("no-such-user".into()), ..start(read_of(agent.dir())) };
    let unknown = run_start(&agent, unknown, b"").await.unwrap_err();
    assert_eq!(unknown.code, Some(ErrorCode::UserNotFound));
    assert_eq!(agent.call(&minions_proto::message::ExecList {}).await.unwrap().execs, []);
}

#[tokio::test]
async fn an_operation_has_the_rights_of_its_user() {
    let agent = RunningAgent::start().await;
    open_to_all(agent.dir());
    let secret = agent.dir().join("secret");
    fs::write(&secret, "secret").unwrap();
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let read = run_as(&agent, "nobody", read_of(&secret), b"").await.errno();
    assert_eq!(read, ("EACCES".into(), "open".into()));
    // The metadata of a file in a readable directory is public, as for any program.
    run_as(&agent, "nobody", stat_of(&secret, false), b"").await.success();

    let own = agent.dir().join("own");
    let write = || FileOperation::Write(write_of(&own));
    let (written, _) = run_as(&agent, "nobody", write(), b"mine").await.success();
    let (uid, gid) = (fs::metadata(&own).unwrap().uid(), fs::metadata(&own).unwrap().gid());
    assert_eq!((written.metadata.uid, written.metadata.gid), (uid, gid));
    assert_ne!(uid, 0);
    let closed = agent.dir().join("closed");
    fs::create_dir(&closed).unwrap();
    let write = FileOperation::Write(write_of(&closed.join("file")));
    assert_eq!(run_as(&agent, "nobody", write, b"x").await.failure().errno, "EACCES");
    let foreign = WriteStream { owner: Some("root".into()), ..write_of(&own) };
    let foreign = run_as(&agent, "nobody", FileOperation::Write(foreign), b"x").await;
    assert_eq!(foreign.errno(), ("EPERM".into(), "complete".into()));
    assert_eq!(fs::read(&own).unwrap(), b"mine");
}

#[tokio::test]
async fn a_directory_is_listed_with_names_of_any_bytes() {
    let agent = RunningAgent::start().await;
    let dir = agent.dir().join("dir");
    fs::create_dir(&dir).unwrap();
    for name in [&b"plain"[..], b"caf\xe9", b"new\nline"] {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("/nowhere/\u{e9}", dir.join("link")).unwrap();
    let op = || FileOperation::List(ListDirectory { path: path(&dir) });
    let (header, data) = run(&agent, op(), b"").await.success();
    assert_eq!(header.metadata.kind, FileKind::Directory);
    let lines = data.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut entries: Vec<DirectoryEntry> =
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect();
    entries.sort_by_key(DirectoryEntry::name_bytes);
    let names: Vec<_> = entries.iter().map(|entry| entry.name_bytes().unwrap()).collect();
    assert_eq!(names, [&b"caf\xe9"[..], b"link", b"new\nline", b"plain"]);
    assert_eq!(entries[1].metadata.target.as_deref(), Some("/nowhere/\u{e9}"));
    assert_eq!((entries[3].metadata.size, entries[3].metadata.kind), (5, FileKind::File));
    let file = FileOperation::List(ListDirectory { path: path(&dir.join("plain")) });
    assert_eq!(run(&agent, file, b"").await.failure().errno, "ENOTDIR");
    let denied = FileOperation::List(ListDirectory { path: GuestPath::new(b"/root") });
    let denied = run_as(&agent, "nobody", denied, b"").await;
    assert!(matches!(denied.outcome, Outcome::Exited { code: 1 }));
}

#[tokio::test]
async fn a_link_is_described_followed_for_reading_and_replaced_by_writing() {
    let agent = RunningAgent::start().await;
    let (target, link) = (agent.dir().join("target"), agent.dir().join("link"));
    fs::write(&target, "target").unwrap();
    symlink("target", &link).unwrap();
    let (stat, _) = run(&agent, stat_of(&link, false), b"").await.success();
    let target_name = stat.metadata.target.as_deref();
    assert_eq!((stat.metadata.kind, target_name), (FileKind::Symlink, Some("target")));
    let (stat, _) = run(&agent, stat_of(&link, true), b"").await.success();
    assert_eq!(stat.metadata.kind, FileKind::File);
    assert_eq!(run(&agent, read_of(&link), b"").await.success().1, b"target");
    run(&agent, FileOperation::Write(write_of(&link)), b"new").await.success();
    assert_eq!(fs::read(&target).unwrap(), b"target");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[tokio::test]
async fn an_agent_for_files_only_runs_operations_and_no_programs() {
    let agent = RunningAgent::with_flags(&["--allow", "health,files"]).await;
    let file = agent.dir().join("file");
    run(&agent, FileOperation::Write(write_of(&file)), b"x").await.success();
    let listed = agent.call(&minions_proto::message::ExecList {}).await.unwrap().execs;
    assert_eq!(listed[0].args[0], "file-op");
    let program =
        minions_proto::message::ExecStart { command: "true".into(), ..Default::default() };
    let refused = agent.call(&program).await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::Forbidden));
    let agent = RunningAgent::with_flags(&["--allow", "health,exec"]).await;
    let refused = run_start(&agent, start(read_of(&file)), b"").await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::Forbidden));
}
