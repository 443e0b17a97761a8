//! Lookup of a program as the user that runs it: directories that are closed to that user are skipped, and
//! directories that are closed to root are not.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::message::{ExecStart, Outcome};
use minions_proto::{AgentError, ErrorCode};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use support::RunningAgent;
use support::channel::Stream;

const NOBODY: u32 = 65534;

/// Name of the programs in [`Directories`].
const PROGRAM: &str = "which-one";

/// Two directories that all users can enter, each with a program of the same name.
struct Directories {
    dir: tempfile::TempDir,
}

impl Directories {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let directories = Self { dir };
        for name in ["first", "second"] {
            fs::create_dir(directories.path(name)).unwrap();
            directories.write(name, &format!("#!/bin/sh\necho {name} $(id -u)\n"), 0o755);
        }
        directories
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn program(&self, name: &str) -> String {
        format!("{}/{PROGRAM}", self.path(name))
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.program(name), text).unwrap();
        fs::set_permissions(self.program(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Closes a directory to all users but `owner`.
    fn close(&self, name: &str, owner: u32) {
        let path = self.path(name);
        chown(Path::new(&path), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    }

    fn start(&self, user: Option<&str>, command: &str) -> ExecStart {
        let path = format!("{}:{}:/bin:/usr/bin", self.path("first"), self.path("second"));
        ExecStart {
            command: command.to_owned(),
            user: user.map(str::to_owned),
            env: [("PATH".to_owned(), path)].into(),
            ..ExecStart::default()
        }
    }
}

async fn output(agent: &RunningAgent, start: ExecStart) -> Result<String, AgentError> {
    let all = Stream::open(agent, &start).await?.collect().await;
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 0 });
    Ok(String::from_utf8(all.stdout).unwrap())
}

/// Starts an agent for which root has only the rights of the file modes, as on a root-squashed NFS or on another
/// user's FUSE.
async fn squashed() -> RunningAgent {
    RunningAgent::with(|listen| {
        let mut command = Command::new("setpriv");
        command.args(["--bounding-set", "-dac_override,-dac_read_search", "--", support::BINARY]);
        command.args(["--log-level", "error", "--listen", listen]);
        command
    })
    .await
}

#[tokio::test]
async fn a_directory_that_the_user_cannot_enter_is_skipped() {
    let (agent, directories) = (RunningAgent::start().await, Directories::new());
    let nobody = || directories.start(Some("nobody"), PROGRAM);
    assert_eq!(output(&agent, nobody()).await.unwrap(), "first 65534\n");
    directories.close("first", 0);
    assert_eq!(output(&agent, nobody()).await.unwrap(), "second 65534\n");
    // Root can enter it.
    let root = directories.start(None, PROGRAM);
    assert_eq!(output(&agent, root).await.unwrap(), "first 0\n");
    directories.close("second", 0);
    let error = output(&agent, nobody()).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::CommandNotExecutable), "{error:?}");
    assert_eq!(error.errno, Some(13), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_only_the_user_can_enter_is_searched() {
    let (agent, directories) = (squashed().await, Directories::new());
    directories.close("first", NOBODY);
    let by_name = directories.start(Some("nobody"), PROGRAM);
    assert_eq!(output(&agent, by_name).await.unwrap(), "first 65534\n");
    let by_path = directories.start(Some("nobody"), &directories.program("first"));
    assert_eq!(output(&agent, by_path).await.unwrap(), "first 65534\n");
    let root = directories.start(None, PROGRAM);
    assert_eq!(output(&agent, root).await.unwrap(), "second 0\n");
}

#[tokio::test]
async fn a_lookup_fails_with_the_same_code_for_root_and_for_other_users() {
    let (agent, directories) = (RunningAgent::start().await, Directories::new());
    directories.write("first", "#!/nowhere/interpreter\n", 0o755);
    fs::remove_file(directories.program("second")).unwrap();
    for user in [None, Some("nobody")] {
        let refused = async |command: &str| {
            let error = output(&agent, directories.start(user, command)).await.unwrap_err();
            (error.code.unwrap(), error.message)
        };
        let (code, message) = refused("no-such-program").await;
        assert_eq!(code, ErrorCode::CommandNotFound, "{user:?}: {message}");
        assert!(message.contains("no-such-program"), "{user:?}: {message}");
        let (code, message) = refused(&directories.program("second")).await;
        assert_eq!(code, ErrorCode::CommandNotFound, "{user:?}: {message}");
        let (code, message) = refused(PROGRAM).await;
        assert_eq!(code, ErrorCode::CommandNotExecutable, "{user:?}: {message}");
        assert!(message.contains("/nowhere/interpreter"), "{user:?}: {message}");
        for command in [directories.path("first"), "/etc/passwd".to_owned()] {
            let (code, message) = refused(&command).await;
            assert_eq!(code, ErrorCode::CommandNotExecutable, "{user:?} {command}: {message}");
            assert!(message.contains(&command), "{user:?}: {message}");
        }
    }
    directories.write("first", "not a program, and no interpreter line\n", 0o755);
    let nobody = directories.start(Some("nobody"), PROGRAM);
    let error = output(&agent, nobody).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::CommandNotExecutable), "{error:?}");
    assert!(error.message.contains(&directories.program("first")), "{error:?}");
}
