//! `write_file` over a connection.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::message::{Exec, WriteFile};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::RunningAgent;

fn file(path: &Path, content: &str) -> WriteFile {
    let path = path.to_str().unwrap().to_owned();
    WriteFile { path, content: content.to_owned(), mode: None, append: false }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn mode_384_is_0600_and_missing_parents_are_created() {
    let agent = RunningAgent::start().await;
    let path = agent.dir().join("root/.ssh/authorized_keys");
    let done = agent.call(&WriteFile { mode: Some(384), ..file(&path, "key 🦀\n") }).await.unwrap();
    assert_eq!(done.message, format!("wrote 9 bytes to {}", path.display()));
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("key 🦀\n", 0o600));
}

#[tokio::test]
async fn append_adds_to_the_end_and_a_plain_write_replaces_the_file() {
    let agent = RunningAgent::start().await;
    let path = agent.dir().join("log");
    for line in ["one\n", "two\n"] {
        agent.call(&WriteFile { append: true, ..file(&path, line) }).await.unwrap();
    }
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("one\ntwo\n", 0o644));
    agent.call(&file(&path, "")).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[tokio::test]
async fn an_invalid_path_or_mode_is_an_invalid_argument() {
    let agent = RunningAgent::start().await;
    for path in ["", "relative", "/", "/tmp/", "/a\0b", "/dev/null", "/proc"] {
        let error = agent.call(&file(Path::new(path), "x")).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{path:?}: {error:?}");
        assert_eq!(error.field.as_deref(), Some("path"), "{path:?}");
    }
    let odd = WriteFile { mode: Some(0o10000), ..file(&agent.dir().join("x"), "") };
    assert_eq!(agent.call(&odd).await.unwrap_err().field.as_deref(), Some("mode"));
    assert!(!agent.dir().join("x").exists());
}

#[tokio::test]
async fn an_error_of_the_kernel_has_its_errno() {
    let agent = RunningAgent::start().await;
    let plain = agent.dir().join("plain");
    fs::write(&plain, "old").unwrap();
    for (path, errno) in [(plain.join("child"), 20), (agent.dir().join("x".repeat(256)), 36)] {
        let error = agent.call(&file(&path, "new")).await.unwrap_err();
        assert_eq!((error.code, error.errno), (Some(ErrorCode::IoFailed), Some(errno)));
    }
    assert_eq!(fs::read_to_string(&plain).unwrap(), "old");
}

#[tokio::test]
async fn a_full_disk_is_reported_and_leaves_the_old_file_intact() {
    // A file system of 64 KiB that only the agent sees.
    let script = "set -e
        mount --make-rprivate /
        mount -t tmpfs -o size=64k tmpfs /mnt
        exec \"$0\" --log-level error --listen \"$1\"";
    let agent = RunningAgent::with(|listen| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, support::BINARY, listen]);
        command
    })
    .await;
    let path = Path::new("/mnt/file");
    agent.call(&file(path, "old")).await.unwrap();
    let full = agent.call(&file(path, &"x".repeat(100_000))).await.unwrap_err();
    assert_eq!((full.code, full.errno), (Some(ErrorCode::IoFailed), Some(28)), "{full:?}");
    let look = ["-c", "cat /mnt/file; ls -A /mnt"].map(str::to_owned).to_vec();
    let look = Exec { command: "sh".to_owned(), args: look, timeout_ms: None };
    assert_eq!(agent.call(&look).await.unwrap().stdout, "oldfile\n", "no temporary file remains");
}

/// The umask of the parent could make files unreadable for their users, or writable for all users.
#[tokio::test]
async fn new_files_and_directories_do_not_have_the_umask_of_the_agents_parent() {
    for umask in ["000", "077"] {
        let agent = RunningAgent::with(|listen| {
            let script = format!("umask {umask}; exec \"$0\" \"$@\"");
            let mut command = Command::new("sh");
            command.args(["-c", &script, support::BINARY, "--log-level", "error"]);
            command.args(["--listen", listen]);
            command
        })
        .await;
        let directory = agent.dir().join("made");
        for (name, append) in [("written", false), ("appended", true)] {
            let path = directory.join(name);
            agent.call(&WriteFile { append, ..file(&path, "x") }).await.unwrap();
            assert_eq!(mode(&path), 0o644, "umask {umask}, append {append}");
        }
        assert_eq!(mode(&directory), 0o755, "umask {umask}");
    }
}
