//! Operations on files that do not complete: cut streams, killed processes, full disks, files that change; and large
//! files in constant memory.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use bytes::Bytes;
use minions_proto::channel::{Channel, HostControl};
use minions_proto::message::{
    ExecInspect, ExecRemove, FileOperation, FileStart, OnDisconnect, Outcome, ReadFile, WriteStream,
};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::channel::Stream;
use support::file::{path, run, start, transfer};
use support::{RunningAgent, until};

fn write_of(file: &Path) -> FileOperation {
    FileOperation::Write(WriteStream { path: path(file), ..WriteStream::default() })
}

fn read_of(file: &Path) -> FileOperation {
    FileOperation::Read(ReadFile { path: path(file), ..ReadFile::default() })
}

/// A directory with one file, in which a write has received some data.
struct BegunWrite {
    stream: Stream,
    dir: PathBuf,
}

impl BegunWrite {
    async fn begin(agent: &RunningAgent) -> Self {
        let dir = agent.dir().join("dir");
        let _ = fs::create_dir(&dir);
        fs::write(dir.join("file"), "old").unwrap();
        let start =
            FileStart { on_disconnect: OnDisconnect::Kill, ..start(write_of(&dir.join("file"))) };
        let mut stream = Stream::open(agent, &start).await.unwrap();
        stream.send(Channel::Stdin, &[7; 100_000]).await;
        let id = stream.attached.id.clone();
        until("the process has the data", async || {
            let written = fs::read_to_string(format!("/proc/{}/io", stream.attached.pid)).ok()?;
            let wchar = written.lines().find_map(|line| line.strip_prefix("wchar: "))?;
            (wchar.parse::<u64>().unwrap() >= 100_000).then_some(())
        })
        .await;
        agent.call(&ExecInspect { id, wait_ms: None }).await.unwrap();
        Self { stream, dir }
    }

    async fn ends(pid: u32) {
        until("the process has ended", async || {
            (!Path::new(&format!("/proc/{pid}/fd/0")).exists()).then_some(())
        })
        .await;
    }

    #[track_caller]
    fn left_nothing(dir: &Path) {
        let names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"]);
        assert!(fs::read(dir.join("file")).unwrap() == b"old", "the file was replaced");
    }
}

#[tokio::test]
async fn a_write_whose_client_leaves_leaves_nothing() {
    let agent = RunningAgent::start().await;
    let BegunWrite { mut stream, dir } = BegunWrite::begin(&agent).await;
    let pid = stream.attached.pid;
    stream.control(HostControl::Leave).await;
    drop(stream);
    BegunWrite::ends(pid).await;
    BegunWrite::left_nothing(&dir);
}

#[tokio::test]
async fn a_write_that_is_removed_or_killed_leaves_nothing() {
    let agent = RunningAgent::start().await;
    let BegunWrite { stream, dir } = BegunWrite::begin(&agent).await;
    let ended = agent.call(&ExecRemove { id: stream.attached.id.clone() }).await.unwrap();
    assert!(matches!(ended.outcome, Some(Outcome::Signaled { .. })), "{ended:?}");
    BegunWrite::left_nothing(&dir);

    let BegunWrite { stream, dir } = BegunWrite::begin(&agent).await;
    support::kill(i32::try_from(stream.attached.pid).unwrap());
    let all = stream.collect().await;
    assert!(matches!(all.ended.unwrap().outcome, Outcome::Signaled { signal: 9, .. }));
    BegunWrite::left_nothing(&dir);
}

#[tokio::test]
async fn a_write_whose_agent_is_killed_or_stopped_leaves_nothing() {
    for stop in [false, true] {
        let mut agent = RunningAgent::start().await;
        let BegunWrite { stream, dir } = BegunWrite::begin(&agent).await;
        if stop {
            support::terminate(&mut agent).await;
        } else {
            agent.child().kill().unwrap();
            agent.child().wait().unwrap();
        }
        BegunWrite::ends(stream.attached.pid).await;
        BegunWrite::left_nothing(&dir);
    }
}

#[tokio::test]
async fn a_write_continues_after_its_connection_broke() {
    let agent = RunningAgent::start().await;
    let BegunWrite { stream, dir } = BegunWrite::begin(&agent).await;
    let id = stream.attached.id.clone();
    drop(stream);
    let attach = minions_proto::message::ExecAttach {
        id,
        stdout: None,
        stderr: None,
        role: Default::default(),
    };
    let stream = Stream::open(&agent, &attach).await.unwrap();
    assert_eq!(stream.attached.stdin, 100_000);
    let (failures, outcome) = transfer(stream, |_| None, |_| {}).await;
    assert_eq!((failures, outcome), (vec![], Outcome::Exited { code: 0 }));
    assert_eq!(fs::metadata(dir.join("file")).unwrap().len(), 100_000);
}

/// A mount that ends with the test.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(dir: &Path, options: &str) -> Self {
        fs::create_dir(dir).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir).status();
        assert!(mounted.unwrap().success(), "this test must run as root");
        Self(dir.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_or_read_only_disk_is_named_and_keeps_the_old_file() {
    let agent = RunningAgent::start().await;
    let full = Mount::tmpfs(&agent.dir().join("full"), "size=64k");
    let file = full.0.join("file");
    fs::write(&file, "old").unwrap();
    let failure = run(&agent, write_of(&file), &[1; 200_000]).await.failure();
    assert_eq!((failure.errno.as_str(), failure.step.as_str()), ("ENOSPC", "write"));
    assert_eq!(failure.path, file.to_str().unwrap());
    BegunWrite::left_nothing(&full.0);
    drop(full);

    let sealed = Mount::tmpfs(&agent.dir().join("sealed"), "ro");
    let failure = run(&agent, write_of(&sealed.0.join("file")), b"x").await.failure();
    assert_eq!((failure.errno.as_str(), failure.step.as_str()), ("EROFS", "create"));
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_not_mistaken_for_a_whole_one() {
    let agent = RunningAgent::start().await;
    let file = agent.dir().join("file");
    let len = 8 << 20;
    for grows in [false, true] {
        fs::write(&file, vec![b'x'; len]).unwrap();
        let mut stream = Stream::open(&agent, &start(read_of(&file))).await.unwrap();
        // Without acks, the process stops after the ring and the pipe are full.
        let first = stream.output().await;
        assert!(!first.is_empty());
        let changed = File::options().write(true).open(&file).unwrap();
        let new_len = if grows { len + 1000 } else { len / 2 };
        changed.set_len(new_len as u64).unwrap();
        let all = stream.collect().await;
        let header = first.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let received = first.len() + all.stdout.len() - header;
        let outcome = all.ended.unwrap().outcome;
        if grows {
            assert_eq!((received, outcome), (len, Outcome::Exited { code: 0 }));
        } else {
            assert_eq!((received, outcome), (len / 2, Outcome::Exited { code: 1 }));
            let failure = String::from_utf8(all.stderr).unwrap();
            assert!(failure.contains(r#""step":"read""#), "{failure}");
        }
    }
}

/// Returns the largest resident set of a process so far, in bytes.
fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Returns the byte at an offset of the large file: shifted or exchanged blocks are noticed.
fn block(at: u64) -> [u8; 8] {
    (at ^ 0x5bd1_e995).to_le_bytes()
}

#[tokio::test]
async fn a_gibibyte_passes_in_both_directions_in_constant_memory() {
    const LEN: u64 = 1 << 30;
    const CHUNK: usize = 64 * 1024;
    let agent = RunningAgent::start().await;
    // Not in the temporary directory if that is in memory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("large");
    // A first transfer, so that buffers that are kept are not counted as growth.
    run(&agent, write_of(&file), &vec![0; 4 << 20]).await.success();
    run(&agent, read_of(&file), b"").await.success();
    let before = peak(agent.pid());

    let stream = Stream::open(&agent, &start(write_of(&file))).await.unwrap();
    let pid = stream.attached.pid;
    let (mut sent, mut child) = (0, 0);
    let source = |room: usize| {
        let most = usize::try_from(LEN - sent).unwrap_or(CHUNK).min(CHUNK).min(room / 8 * 8);
        if sent == LEN {
            return None;
        }
        let mut bytes = Vec::with_capacity(most);
        for at in (sent..sent + most as u64).step_by(8) {
            bytes.write_all(&block(at)).unwrap();
        }
        sent += most as u64;
        child = child.max(peak(pid));
        Some(Bytes::from(bytes))
    };
    let (failures, outcome) = transfer(stream, source, |_| {}).await;
    assert_eq!((failures, outcome), (vec![], Outcome::Exited { code: 0 }));
    assert!(child < 16 << 20, "the process used {child} bytes");
    let written = File::open(&file).unwrap();
    assert_eq!(written.metadata().unwrap().len(), LEN);

    let stream = Stream::open(&agent, &start(read_of(&file))).await.unwrap();
    let pid = stream.attached.pid;
    let (mut received, mut child, mut header) = (0, 0, Vec::new());
    let sink = |mut bytes: &[u8]| {
        if header.last() != Some(&b'\n') {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            header.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end..];
        }
        let mut expected = vec![0; bytes.len()];
        written.read_exact_at(&mut expected, received).unwrap();
        assert!(bytes == expected, "another byte at {received} or later");
        received += bytes.len() as u64;
        child = child.max(peak(pid));
    };
    let (failures, outcome) = transfer(stream, |_| None, sink).await;
    assert_eq!((failures, outcome, received), (vec![], Outcome::Exited { code: 0 }, LEN));
    assert!(child < 16 << 20, "the process used {child} bytes");
    for at in (0..LEN).step_by(1 << 20) {
        let mut found = [0; 8];
        written.read_exact_at(&mut found, at).unwrap();
        assert_eq!(found, block(at));
    }
    let grown = peak(agent.pid()) - before;
    assert!(grown < 8 << 20, "the agent grew by {grown} bytes");
}
