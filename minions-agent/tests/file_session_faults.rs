//! File sessions: requests that fail, partly fail, or wait for a file system.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use bytes::{Bytes, BytesMut};
use minions_proto::channel::Channel;
use minions_proto::file_session::{
    AttributeChange, MAX_HEAD_LEN, OpenFile, PathRequest, SessionAnswer, SessionDecoder,
    SessionMessage, SessionOperation, SessionRequest, SessionResult, SetAttributes,
    SetHandleAttributes, StatPath,
};
use minions_proto::message::{FileOperation, GuestPath, ServeSession};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use support::channel::Stream;
use support::file::{path, run, start};
use support::{RunningAgent, SOON};
use tokio::time::timeout;

const SESSION: FileOperation = FileOperation::Session(ServeSession {});

/// Encodes requests, with their positions as numbers.
fn encoded(operations: impl IntoIterator<Item = SessionOperation>) -> BytesMut {
    let mut frames = BytesMut::new();
    for (id, operation) in (0..).zip(operations) {
        let request = SessionRequest { id, operation };
        SessionMessage::new(&request, Bytes::new()).unwrap().encode(&mut frames);
    }
    frames
}

/// Decodes all complete answers.
#[track_caller]
fn results(stdout: &[u8]) -> Vec<SessionResult> {
    let mut decoder = SessionDecoder::default();
    decoder.extend(stdout);
    let mut results = Vec::new();
    while let Some(message) = decoder.next_message().unwrap() {
        let SessionAnswer { id, result } = message.head().unwrap();
        assert_eq!(id, results.len() as u64);
        results.push(result);
    }
    results
}

#[track_caller]
fn failure(result: &SessionResult) -> (&str, &str) {
    match result {
        SessionResult::Failed(failure) => (&failure.errno, &failure.step),
        other => panic!("{other:?}"),
    }
}

fn root() -> SessionOperation {
    SessionOperation::Realpath(PathRequest { path: GuestPath::new(b"/") })
}

fn set(file: &Path, follow: bool, change: AttributeChange) -> SessionOperation {
    SessionOperation::Setstat(SetAttributes { path: path(file), follow, change })
}

#[tokio::test]
async fn a_malformed_request_with_a_long_value_is_answered_and_the_session_continues() {
    let agent = RunningAgent::start().await;
    // Each quotation mark has two bytes in the request, and more in an answer that quotes the value.
    let value = "\\\"".repeat(MAX_HEAD_LEN / 2 - 100);
    let head = format!(r#"{{"id":0,"op":"close","handle":"{value}"}}"#);
    let both = encoded([root(), root()]);
    let mut requests = BytesMut::new();
    SessionMessage { head: head.into(), data: Bytes::new() }.encode(&mut requests);
    requests.extend(&both[both.len() / 2..]);
    let ran = run(&agent, SESSION, &requests).await;
    let answers = results(&ran.stdout);
    assert_eq!(ran.failures, vec![]);
    assert_eq!(failure(&answers[0]), ("EINVAL", "decode"));
    assert!(matches!(answers[1], SessionResult::Path(_)), "{:?}", answers[1]);
}

#[tokio::test]
async fn all_attributes_are_tried_and_the_first_failure_is_reported() {
    let agent = RunningAgent::start().await;
    let (dir, file, link) =
        (agent.dir().join("dir"), agent.dir().join("file"), agent.dir().join("link"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "12345").unwrap();
    symlink("file", &link).unwrap();
    let change = AttributeChange {
        size: Some(1),
        mode: Some(0o711),
        mtime_ns: Some(7),
        ..AttributeChange::default()
    };
    let of_link = AttributeChange { size: None, ..change };
    let read = OpenFile { path: path(&file), read: true, ..OpenFile::default() };
    let requests = encoded([
        set(&dir, true, change),
        set(&link, false, of_link),
        SessionOperation::Open(read),
        SessionOperation::Fsetstat(SetHandleAttributes { handle: 0, change }),
    ]);
    let answers = results(&run(&agent, SESSION, &requests).await.stdout);
    assert_eq!(failure(&answers[0]), ("EISDIR", "open"));
    assert_eq!(failure(&answers[1]), ("EOPNOTSUPP", "chmod"));
    assert_eq!(failure(&answers[3]), ("EINVAL", "truncate"), "opened to read");
    for changed in [&dir, &file] {
        let known = fs::metadata(changed).unwrap();
        assert_eq!((known.permissions().mode() & 0o7777, known.mtime_nsec()), (0o711, 7));
    }
    assert_eq!(fs::symlink_metadata(&link).unwrap().mtime_nsec(), 7);
    assert_eq!(fs::read(&file).unwrap(), b"12345");
}

/// A mounted file system whose server never answers. Dropping it fails all waiting requests.
struct SilentFileSystem {
    directory: PathBuf,
    _server: File,
}

impl SilentFileSystem {
    fn mount(directory: PathBuf) -> Self {
        fs::create_dir(&directory).unwrap();
        let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).unwrap();
        mount("none", &directory, "fuse", MountFlags::empty(), options.as_c_str()).unwrap();
        Self { directory, _server: server }
    }
}

impl Drop for SilentFileSystem {
    fn drop(&mut self) {
        // An error means that the directory is still in use; it is unmounted afterwards.
        let _ = unmount(&self.directory, UnmountFlags::DETACH | UnmountFlags::FORCE);
    }
}

#[tokio::test]
async fn an_answer_does_not_wait_for_a_later_request_that_blocks() {
    let agent = RunningAgent::start().await;
    let silent = SilentFileSystem::mount(agent.dir().join("silent"));
    let file = path(&silent.directory.join("file"));
    let requests =
        encoded([root(), SessionOperation::Stat(StatPath { path: file, follow: false })]);
    let mut stream = Stream::open(&agent, &start(SESSION)).await.unwrap();
    stream.send(Channel::Stdin, &requests).await;
    // Signs of life arrive in any case, so the stream itself has no deadline.
    let answers = timeout(SOON, stream.output()).await.expect("the answer to the first request");
    let answers = results(&answers);
    assert!(matches!(answers[..], [SessionResult::Path(_)]), "{answers:?}");
    drop(silent);
    let answers = timeout(SOON, stream.output()).await.expect("the answer to the second request");
    assert!(!answers.is_empty(), "the failure of the request that was blocked");
}
