//! File sessions over the wire: every operation, its failures, and the limits of a session.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use bytes::{Bytes, BytesMut};
use minions_proto::channel::{Channel, HostControl};
use minions_proto::file_session::{
    AttributeChange, LinkFile, MAX_DATA_LEN, MAX_HANDLES, MakeSessionDirectory, OpenDirectory,
    OpenFile, PathRequest, ReadAt, RenameEntry, SessionAnswer, SessionDecoder, SessionHandle,
    SessionMessage, SessionOperation, SessionRequest, SessionResult, SetAttributes,
    SetHandleAttributes, StatPath, SymlinkFile, WriteAt,
};
use minions_proto::file_stream::FileKind;
use minions_proto::message::{
    FileOperation, FileStart, GuestPath, GuestTarget, OnDisconnect, Outcome, ServeSession,
};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use support::channel::Stream;
use support::file::{FileResult, path, run, run_as, start};
use support::{RunningAgent, until};

const SESSION: FileOperation = FileOperation::Session(ServeSession {});

/// Requests of a session, in their encoded form.
#[derive(Default)]
struct Requests(BytesMut, u64);

impl Requests {
    fn add(&mut self, operation: SessionOperation) -> &mut Self {
        self.add_with(operation, b"")
    }

    fn add_with(&mut self, operation: SessionOperation, data: &[u8]) -> &mut Self {
        let request = SessionRequest { id: self.1, operation };
        self.1 += 1;
        let message = SessionMessage::new(&request, Bytes::copy_from_slice(data)).unwrap();
        message.encode(&mut self.0);
        self
    }

    async fn run(&self, agent: &RunningAgent) -> Vec<(SessionResult, Bytes)> {
        answers(run(agent, SESSION, &self.0).await)
    }
}

#[track_caller]
fn answers(ran: FileResult) -> Vec<(SessionResult, Bytes)> {
    assert_eq!((ran.outcome, ran.failures), (Outcome::Exited { code: 0 }, vec![]));
    decoded(&ran.stdout)
}

/// Decodes the answers, and checks that they have the order of the requests.
#[track_caller]
fn decoded(stdout: &[u8]) -> Vec<(SessionResult, Bytes)> {
    let mut decoder = SessionDecoder::default();
    decoder.extend(stdout);
    let mut answers = Vec::new();
    while let Some(message) = decoder.next_message().unwrap() {
        let SessionAnswer { id, result } = message.head().unwrap();
        assert_eq!(id, answers.len() as u64);
        answers.push((result, message.data));
    }
    assert!(decoder.is_empty());
    answers
}

async fn one(agent: &RunningAgent, operation: SessionOperation) -> SessionResult {
    let mut answers = Requests::default().add(operation).run(agent).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0).0
}

/// Returns the error number and the step of the failure of one request.
async fn errno(agent: &RunningAgent, operation: SessionOperation) -> (String, String) {
    match one(agent, operation).await {
        SessionResult::Failed(failure) => (failure.errno, failure.step),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn failure(result: &SessionResult) -> &str {
    match result {
        SessionResult::Failed(failure) => &failure.errno,
        other => panic!("{other:?}"),
    }
}

fn to(path: &Path) -> GuestTarget {
    GuestTarget::new(path.as_os_str().as_encoded_bytes())
}

fn of(file: &Path) -> PathRequest {
    PathRequest { path: path(file) }
}

fn open(file: &Path) -> OpenFile {
    OpenFile { path: path(file), ..OpenFile::default() }
}

fn to_write(file: &Path) -> OpenFile {
    OpenFile { write: true, create: true, ..open(file) }
}

fn to_read(file: &Path) -> SessionOperation {
    SessionOperation::Open(OpenFile { read: true, ..open(file) })
}

fn read(handle: u32, offset: u64, length: usize) -> SessionOperation {
    SessionOperation::Read(ReadAt { handle, offset, length: u32::try_from(length).unwrap() })
}

fn write(handle: u32, offset: u64) -> SessionOperation {
    SessionOperation::Write(WriteAt { handle, offset })
}

fn close(handle: u32) -> SessionOperation {
    SessionOperation::Close(SessionHandle { handle })
}

fn set(file: &Path, change: AttributeChange) -> SessionOperation {
    SessionOperation::Setstat(SetAttributes { path: path(file), follow: true, change })
}

#[tokio::test]
async fn a_file_is_written_and_read_at_offsets() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    let mut requests = Requests::default();
    requests
        .add(SessionOperation::Open(OpenFile { read: true, mode: Some(0o666), ..to_write(&file) }))
        .add_with(write(0, 6), b"world")
        .add_with(write(0, 0), b"hello ")
        .add(read(0, 0, 100))
        .add(read(0, 6, 3))
        .add(read(0, 11, 1))
        .add(read(0, 1 << 40, 1))
        .add(SessionOperation::Fsync(SessionHandle { handle: 0 }))
        .add(SessionOperation::Fstat(SessionHandle { handle: 0 }))
        .add(close(0))
        .add(read(0, 0, 1));
    let answers = requests.run(&agent).await;
    let data: Vec<_> = answers[3..7].iter().map(|(_, data)| &data[..]).collect();
    assert_eq!(data, [&b"hello world"[..], b"wor", b"", b""]);
    assert_eq!(answers[0].0, SessionResult::Handle { handle: 0 });
    for done in [1, 2, 7, 9] {
        assert_eq!(answers[done].0, SessionResult::Done);
    }
    let SessionResult::Metadata(metadata) = &answers[8].0 else { panic!("{:?}", answers[8]) };
    // The umask removes the write permission of others.
    assert_eq!((metadata.kind, metadata.size, metadata.mode), (FileKind::File, 11, 0o644));
    let known = fs::metadata(&file).unwrap();
    assert_eq!(metadata.mtime_ns, known.mtime() * 1_000_000_000 + known.mtime_nsec());
    assert_eq!(failure(&answers[10].0), "EBADF");
}

#[tokio::test]
async fn the_flags_of_open_are_those_of_the_kernel() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, "12345").unwrap();
    let mut requests = Requests::default();
    requests
        .add(SessionOperation::Open(OpenFile { exclusive: true, ..to_write(&file) }))
        .add(SessionOperation::Open(OpenFile { append: true, write: true, ..open(&file) }))
        .add_with(write(0, 0), b"6")
        .add(read(0, 0, 1))
        .add(SessionOperation::Open(OpenFile {
            truncate: true,
            ..to_write(&agent.dir().join("link"))
        }))
        .add_with(write(1, 0), b"new");
    symlink("file", agent.dir().join("link")).unwrap();
    let answers = requests.run(&agent).await;
    assert_eq!(failure(&answers[0].0), "EEXIST");
    assert_eq!(answers[2].0, SessionResult::Done);
    assert_eq!(failure(&answers[3].0), "EBADF", "the handle does not permit reading");
    assert_eq!(
        (answers[5].0.clone(), fs::read(&file).unwrap()),
        (SessionResult::Done, b"new".to_vec())
    );
    let appended = Requests::default()
        .add(SessionOperation::Open(OpenFile { append: true, write: true, ..open(&file) }))
        .add_with(write(0, 0), b"er")
        .run(&agent)
        .await;
    assert_eq!((appended.len(), fs::read(&file).unwrap()), (2, b"newer".to_vec()));
    // A link to a missing file creates the file, as open(2) does.
    symlink("made", agent.dir().join("dangling")).unwrap();
    one(&agent, SessionOperation::Open(to_write(&agent.dir().join("dangling")))).await;
    assert_eq!(fs::read(agent.dir().join("made")).unwrap(), b"");
    for invalid in [
        open(&file),
        OpenFile { truncate: true, read: true, ..open(&file) },
        OpenFile { append: true, read: true, ..open(&file) },
        OpenFile { exclusive: true, write: true, ..open(&file) },
        OpenFile { mode: Some(0o10000), ..to_write(&file) },
    ] {
        let refused = errno(&agent, SessionOperation::Open(invalid.clone())).await;
        assert_eq!(refused, ("EINVAL".into(), "open".into()), "{invalid:?}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"newer");
}

#[tokio::test]
async fn files_that_are_not_regular_are_refused_without_waiting() {
    let agent = RunningAgent::start().await;
    let fifo = agent.dir().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink(&fifo, agent.dir().join("link")).unwrap();
    for file in [&fifo, &agent.dir().join("link"), Path::new("/dev/zero")] {
        for operation in [
            to_read(file),
            SessionOperation::Open(to_write(file)),
            SessionOperation::Open(OpenFile { write: true, truncate: true, ..open(file) }),
            set(file, AttributeChange { size: Some(0), ..AttributeChange::default() }),
        ] {
            let refused = errno(&agent, operation.clone()).await;
            assert_eq!(refused, ("EINVAL".into(), "open".into()), "{operation:?}");
        }
    }
    let refused = errno(&agent, to_read(agent.dir())).await;
    assert_eq!(refused, ("EISDIR".into(), "open".into()));
    let stat = SessionOperation::Stat(StatPath { path: path(&fifo), follow: false });
    let SessionResult::Metadata(metadata) = one(&agent, stat).await else { panic!("no metadata") };
    assert_eq!(metadata.kind, FileKind::Fifo);
}

#[tokio::test]
async fn attributes_are_set_by_name_and_by_handle_and_checked_before_the_first_change() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, "12345").unwrap();
    let change = AttributeChange {
        size: Some(3),
        mode: Some(0o4711),
        uid: Some(12),
        gid: Some(13),
        atime_ns: Some(-1),
        mtime_ns: Some(1_500_000_000_123_456_789),
    };
    assert_eq!(one(&agent, set(&file, change)).await, SessionResult::Done);
    let known = fs::metadata(&file).unwrap();
    assert_eq!((known.len(), known.mode() & 0o7777), (3, 0o4711));
    assert_eq!((known.uid(), known.gid()), (12, 13));
    assert_eq!((known.mtime(), known.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!((known.atime(), known.atime_nsec()), (-1, 999_999_999));

    let one_time = AttributeChange { mtime_ns: Some(7), ..AttributeChange::default() };
    let answers = Requests::default()
        .add(SessionOperation::Open(OpenFile { write: true, ..open(&file) }))
        .add(SessionOperation::Fsetstat(SetHandleAttributes {
            handle: 0,
            change: AttributeChange { mode: Some(0o600), size: Some(1), ..one_time },
        }))
        .run(&agent)
        .await;
    assert_eq!(answers[1].0, SessionResult::Done);
    let known = fs::metadata(&file).unwrap();
    assert_eq!((known.len(), known.mode() & 0o7777, known.uid()), (1, 0o600, 12));
    assert_eq!((known.mtime_nsec(), known.atime()), (7, -1), "the other time is kept");

    for wrong in [
        AttributeChange { mode: Some(0o10000), ..change },
        AttributeChange { size: Some(1 << 63), ..change },
        AttributeChange { uid: Some(u32::MAX), ..change },
        AttributeChange { gid: Some(u32::MAX), ..change },
    ] {
        let refused = errno(&agent, set(&file, wrong)).await;
        assert_eq!(refused, ("EINVAL".into(), "setstat".into()), "{wrong:?}");
    }
    let unchanged = fs::metadata(&file).unwrap();
    assert_eq!((unchanged.len(), unchanged.mode() & 0o7777), (1, 0o600));

    let link = agent.dir().join("link");
    symlink("file", &link).unwrap();
    let of_link = |change| {
        SessionOperation::Setstat(SetAttributes { path: path(&link), follow: false, change })
    };
    assert_eq!(one(&agent, of_link(one_time)).await, SessionResult::Done);
    let mode = AttributeChange { mode: Some(0o777), ..one_time };
    assert_eq!(errno(&agent, of_link(mode)).await, ("EOPNOTSUPP".into(), "chmod".into()));
    assert_eq!(fs::symlink_metadata(&link).unwrap().mtime_nsec(), 7);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
}

#[tokio::test]
async fn a_directory_is_listed_in_batches_with_names_of_any_bytes() {
    let agent = RunningAgent::start().await;
    let dir = agent.dir().join("dir");
    fs::create_dir(&dir).unwrap();
    let odd = OsStr::from_bytes(b"odd\xff\n\x01");
    fs::write(dir.join(odd), "x").unwrap();
    // Each of these names has 1,5 KiB of JSON.
    let long = |number: usize| format!("{number:04}{}", "\u{1}".repeat(251));
    (0..300).for_each(|number| fs::write(dir.join(long(number)), "").unwrap());
    let mut requests = Requests::default();
    requests.add(SessionOperation::Opendir(OpenDirectory { path: path(&dir) }));
    for _ in 0..40 {
        requests.add(SessionOperation::Readdir(SessionHandle { handle: 0 }));
    }
    let answers = requests.run(&agent).await;
    let mut names = Vec::new();
    let mut batches = 0;
    for (result, _) in &answers[1..] {
        let SessionResult::Entries { entries } = result else { panic!("{result:?}") };
        batches += usize::from(!entries.is_empty());
        for entry in entries {
            let metadata = entry.metadata.as_ref().unwrap();
            let name = entry.name_bytes().unwrap();
            let is_file = !matches!(&name[..], b"." | b"..");
            assert_eq!(metadata.kind == FileKind::File, is_file);
            names.push(name);
        }
    }
    let mut expected: Vec<_> = (0..300).map(|number| long(number).into_bytes()).collect();
    expected.extend([b".".to_vec(), b"..".to_vec(), odd.as_bytes().to_vec()]);
    names.sort();
    expected.sort();
    assert!(names == expected, "{} of {} names", names.len(), expected.len());
    assert!((5..40).contains(&batches), "{batches} batches");
    assert_eq!(answers.last().unwrap().0, SessionResult::Entries { entries: vec![] });
}

#[tokio::test]
async fn names_are_created_renamed_linked_resolved_and_removed() {
    let agent = RunningAgent::start().await;
    let at = |name: &str| agent.dir().join(name);
    let rename = |from: &str, new: &str, replace| {
        SessionOperation::Rename(RenameEntry { path: path(&at(from)), to: to(&at(new)), replace })
    };
    fs::write(at("a"), "a").unwrap();
    fs::write(at("b"), "b").unwrap();
    let mut requests = Requests::default();
    requests
        .add(SessionOperation::Mkdir(MakeSessionDirectory {
            path: path(&at("d")),
            mode: Some(0o777),
        }))
        .add(rename("a", "b", false))
        .add(rename("a", "d/c", false))
        .add(rename("d/c", "b", true))
        .add(SessionOperation::Symlink(SymlinkFile {
            path: path(&at("link")),
            to: GuestTarget::new(b"nowhere\xff"),
        }))
        .add(SessionOperation::Readlink(of(&at("link"))))
        .add(SessionOperation::Link(LinkFile { path: path(&at("b")), to: to(&at("hard")) }))
        .add(SessionOperation::Realpath(of(&at("d/../d/./new"))))
        .add(SessionOperation::Realpath(of(&at("missing/new"))))
        .add(SessionOperation::Remove(of(&at("link"))))
        .add(SessionOperation::Remove(of(&at("d"))))
        .add(SessionOperation::Rmdir(of(&at("d"))))
        .add(SessionOperation::Rmdir(of(&at("b"))))
        .add(SessionOperation::Statvfs(of(agent.dir())))
        .add(SessionOperation::Unknown);
    let answers = requests.run(&agent).await;
    for done in [0, 2, 3, 4, 6, 9, 11] {
        assert_eq!(answers[done].0, SessionResult::Done, "{done}");
    }
    for (failed, errno) in
        [(1, "EEXIST"), (8, "ENOENT"), (10, "EISDIR"), (12, "ENOTDIR"), (14, "ENOSYS")]
    {
        assert_eq!(failure(&answers[failed].0), errno, "{failed}");
    }
    let paths: Vec<_> = [5, 7]
        .map(|number| match &answers[number].0 {
            SessionResult::Path(path) => path.bytes().unwrap(),
            other => panic!("{other:?}"),
        })
        .into();
    let real = agent.dir().canonicalize().unwrap().join("d/new");
    assert_eq!(paths, [b"nowhere\xff".to_vec(), real.as_os_str().as_bytes().to_vec()]);
    assert_eq!(
        (fs::read(at("b")).unwrap(), fs::metadata(at("hard")).unwrap().nlink()),
        (b"a".to_vec(), 2)
    );
    let SessionResult::Space(space) = answers[13].0 else { panic!("{:?}", answers[13]) };
    assert!(space.blocks >= space.blocks_free && space.fragment_size > 0, "{space:?}");
    assert_eq!(space.name_max, 255);
}

#[tokio::test]
async fn a_session_has_the_rights_and_the_home_directory_of_its_user() {
    let agent = RunningAgent::start().await;
    let closed = agent.dir().join("closed");
    fs::write(&closed, "secret").unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(agent.dir(), Permissions::from_mode(0o755)).unwrap();
    let mut requests = Requests::default();
    requests
        .add(to_read(&closed))
        .add(SessionOperation::Open(to_write(&agent.dir().join("new"))))
        .add(SessionOperation::Setstat(SetAttributes {
            path: path(&closed),
            follow: true,
            change: AttributeChange { mode: Some(0o777), ..AttributeChange::default() },
        }))
        .add(SessionOperation::Realpath(PathRequest { path: GuestPath::new(b".") }));
    let result = run_as(&agent, "nobody", SESSION, &requests.0).await;
    let answers = answers(result);
    let found: Vec<_> = answers[..3].iter().map(|(result, _)| failure(result)).collect();
    assert_eq!(found, ["EACCES", "EACCES", "EPERM"]);
    // The home directory of this user does not exist.
    assert_eq!(answers[3].0, real(b"/"));
    let answers = requests.run(&agent).await;
    let entry = fs::read_to_string("/etc/passwd").unwrap();
    let home = entry.lines().find_map(|line| line.strip_prefix("root:")).unwrap();
    let home = Path::new(home.split(':').nth(4).unwrap()).canonicalize().unwrap();
    assert_eq!(answers[3].0, real(home.as_os_str().as_bytes()));
}

fn real(path: &[u8]) -> SessionResult {
    SessionResult::Path(minions_proto::file_session::SessionPath { path: GuestPath::new(path) })
}

#[tokio::test]
async fn handles_reads_and_paths_are_bounded() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, vec![7; 2 * MAX_DATA_LEN]).unwrap();
    let mut requests = Requests::default();
    for _ in 0..=MAX_HANDLES {
        requests.add(to_read(&file));
    }
    requests.add(close(0)).add(to_read(&file)).add(read(1, 0, MAX_DATA_LEN));
    let next = MAX_HANDLES + 4;
    requests.add(read(1, 0, MAX_DATA_LEN + 1)).add(read(1, 0, 0)).add(read(1, u64::MAX, 1));
    let long = PathRequest { path: GuestPath::new(&[b'x'; 4096]) };
    requests.add(SessionOperation::Remove(long));
    requests.add_with(close(2), b"data without a write");
    requests.add(SessionOperation::Remove(PathRequest::default()));
    let answers = requests.run(&agent).await;
    assert_eq!(failure(&answers[MAX_HANDLES].0), "EMFILE");
    let last = u32::try_from(MAX_HANDLES).unwrap();
    assert_eq!(answers[MAX_HANDLES + 2].0, SessionResult::Handle { handle: last });
    assert_eq!(answers[MAX_HANDLES + 3].1.len(), MAX_DATA_LEN);
    let refused: Vec<_> = answers[next..].iter().map(|(result, _)| failure(result)).collect();
    assert_eq!(refused, ["EINVAL"; 6]);
}

#[tokio::test]
async fn a_malformed_request_is_answered_if_it_has_a_number_and_ends_the_session_otherwise() {
    let agent = RunningAgent::start().await;
    let frame = |head: &str| {
        let mut frame = BytesMut::new();
        SessionMessage { head: head.to_owned().into(), data: Bytes::new() }.encode(&mut frame);
        frame.to_vec()
    };
    let numbered = [frame(r#"{"id":0,"op":"close"}"#), frame(r#"{"id":1,"op":7}"#)].concat();
    let refused = answers(run(&agent, SESSION, &numbered).await);
    assert_eq!(
        refused.iter().map(|(result, _)| failure(result)).collect::<Vec<_>>(),
        ["EINVAL"; 2]
    );
    for broken in [
        frame("{}"),
        frame("no JSON"),
        vec![0xff; 8],
        vec![0, 0, 0, 9, 0],
        [frame(r#"{"id":0,"op":"realpath","path":"/"}"#), vec![0, 0, 0, 0]].concat(),
    ] {
        let ran = run(&agent, SESSION, &broken).await;
        let before = decoded(&ran.stdout).len();
        assert_eq!(before, usize::from(broken.len() > 40), "answers before the malformed frame");
        assert_eq!(ran.errno(), ("EBADMSG".into(), "frame".into()), "{broken:?}");
    }
}

#[tokio::test]
async fn many_requests_in_flight_are_answered_in_order_and_in_constant_memory() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    fs::write(&file, vec![7; MAX_DATA_LEN]).unwrap();
    let mut requests = Requests::default();
    requests.add(to_read(&file));
    for _ in 0..400 {
        requests.add(read(0, 0, MAX_DATA_LEN));
    }
    let status = OpenFile { read: true, ..open(Path::new("/proc/self/status")) };
    requests.add(SessionOperation::Open(status)).add(read(1, 0, 64 * 1024));
    let answers = requests.run(&agent).await;
    assert_eq!(answers.len(), 403);
    assert!(answers[1..401].iter().all(|(_, data)| data.len() == MAX_DATA_LEN));
    let status = String::from_utf8(answers[402].1.to_vec()).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    // 100 MiB were read. An idle process of a debug build has about 10 MiB.
    assert!(peak < 40 * 1024, "{peak} KiB");
}

#[tokio::test]
async fn a_session_whose_client_leaves_ends_its_process() {
    let agent = RunningAgent::start().await;
    let start = FileStart { on_disconnect: OnDisconnect::Kill, ..start(SESSION) };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    let mut requests = Requests::default();
    requests.add(SessionOperation::Realpath(PathRequest { path: GuestPath::new(b"/") }));
    stream.send(Channel::Stdin, &requests.0).await;
    let pid = stream.attached.pid;
    assert_eq!(decoded(&stream.output().await).len(), 1);
    stream.control(HostControl::Leave).await;
    until("the process has ended", async || {
        (!Path::new(&format!("/proc/{pid}/fd/0")).exists()).then_some(())
    })
    .await;
}
