//! A guest without free resources: the agent reports errors and continues to serve.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::connection::Connection;
use minions_proto::message::{Exec, HealthCheck, ReportStatus, WriteFile};
use minions_proto::{hybrid, version::AGENT_PORT};
use std::fs::{self, Permissions};
use std::io::{PipeReader, pipe};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{BINARY, RunningAgent, answer, until};

/// Starts an agent from a shell after the commands `preparation`.
async fn after(preparation: &str) -> RunningAgent {
    RunningAgent::with(|listen| {
        let script = format!("{preparation}\nexec \"$0\" --log-level error --listen \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-e", "-c", &script, BINARY, listen]);
        command
    })
    .await
}

fn program(command: &str, args: &[&str]) -> Exec {
    let args = args.iter().map(ToString::to_string).collect();
    Exec { command: command.into(), args, timeout_ms: None }
}

/// Starts an agent with a full log pipe that is not read.
async fn with_unread_log() -> (RunningAgent, PipeReader) {
    let (unread, stderr) = pipe().unwrap();
    let agent = RunningAgent::with(|listen| {
        let mut command = Command::new(BINARY);
        command.args(["--log-level", "debug", "--listen", listen]).stderr(stderr);
        command
    })
    .await;
    let mut connection = agent.connect().await;
    // One line for each refusal: many times the capacity of a pipe.
    let missing = program("/missing", &[]);
    for _ in 0..2000 {
        let refused = answer(&mut connection, &missing).await.unwrap_err();
        assert_eq!(refused.code, Some(ErrorCode::CommandNotFound));
    }
    (agent, unread)
}

#[tokio::test]
async fn a_log_that_is_not_read_does_not_block_the_agent() {
    let (agent, _unread) = with_unread_log().await;
    agent.call(&HealthCheck {}).await.unwrap();
    assert_eq!(agent.call(&program("true", &[])).await.unwrap().exit_code, 0);
}

#[tokio::test]
async fn an_agent_with_a_blocked_log_still_ends_at_sigterm() {
    let (mut agent, _unread) = with_unread_log().await;
    assert!(support::terminate(&mut agent).await.success());
}

#[tokio::test]
async fn without_descriptors_open_connections_are_served_and_new_ones_wait() {
    let agent = after("ulimit -n 24").await;
    let mut first = agent.connect().await;
    let mut crowd = Vec::new();
    // Connect until a connection is not answered, because it waits in the backlog.
    loop {
        let dialled = hybrid::dial(&agent.socket(), AGENT_PORT, Duration::from_millis(500)).await;
        let Ok(stream) = dialled else { break };
        crowd.push(Connection::new(stream));
        assert!(crowd.len() < 24, "more connections than descriptors");
    }
    answer(&mut first, &HealthCheck {}).await.unwrap();
    answer(&mut first, &ReportStatus {}).await.unwrap();
    let refused = answer(&mut first, &program("true", &[])).await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::ExecFailed), "{refused:?}");
    assert_eq!(refused.errno, Some(libc::EMFILE), "{refused:?}");
    for connection in &mut crowd {
        answer(connection, &HealthCheck {}).await.unwrap();
    }
    drop(crowd);
    until("programs run again", async || answer(&mut first, &program("true", &[])).await.ok())
        .await;
    agent.call(&HealthCheck {}).await.unwrap();
}

#[tokio::test]
async fn on_a_full_disk_old_files_stay_and_programs_run() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().display();
    // In a separate mount namespace, which ends with the agent.
    let agent = RunningAgent::with(|listen| {
        let script = format!(
            "mount -t tmpfs -o size=64k none {mount} && echo old > {mount}/file && cd {mount} \
             && TMPDIR={mount} exec \"$0\" --log-level error --listen \"$1\""
        );
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-e", "-c", &script, BINARY, listen]);
        command
    })
    .await;
    let path = dir.path().join("file").display().to_string();
    let content = "x".repeat(200_000);
    let write = |content: &str, append| WriteFile {
        path: path.clone(),
        content: content.into(),
        mode: None,
        append,
    };
    for append in [false, true] {
        let refused = agent.call(&write(&content, append)).await.unwrap_err();
        assert_eq!(refused.errno, Some(libc::ENOSPC), "{refused:?}");
        assert_eq!(refused.code, Some(ErrorCode::IoFailed), "{refused:?}");
    }
    let filled =
        agent.call(&program("sh", &["-c", &format!("cat /dev/zero > {mount}/fill")])).await;
    assert_ne!(filled.unwrap().exit_code, 0);
    agent.call(&HealthCheck {}).await.unwrap();
    let read = agent.call(&program("cat", &[&path])).await.unwrap();
    assert!(read.stdout.starts_with("old\n"), "{read:?}");
    let much = agent.call(&program("head", &["-c", "300000", "/dev/zero"])).await.unwrap();
    assert_eq!(much.stdout_bytes, Some(300_000));
}

#[tokio::test]
async fn without_memory_programs_fail_and_run_again_later() {
    let agent = after("").await;
    let mut connection = agent.connect().await;
    answer(&mut connection, &program("true", &[])).await.unwrap();
    // No further address space: no new thread, no new mapping.
    let pid = agent.pid().to_string();
    let limit = |bytes: &str| {
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--as={bytes}")]).status();
        assert!(set.unwrap().success());
    };
    limit("1:unlimited");
    answer(&mut connection, &HealthCheck {}).await.unwrap();
    // A program inherits the agent's limit: it cannot be loaded, or not even be started.
    match answer(&mut connection, &program("true", &[])).await {
        Ok(ran) => assert_ne!(ran.exit_code, 0, "{ran:?}"),
        Err(refused) => assert!(refused.errno.is_some(), "{refused:?}"),
    }
    answer(&mut connection, &HealthCheck {}).await.unwrap();
    limit("unlimited:unlimited");
    assert_eq!(answer(&mut connection, &program("true", &[])).await.unwrap().exit_code, 0);
    agent.call(&HealthCheck {}).await.unwrap();
}

#[tokio::test]
async fn at_the_process_limit_everything_except_programs_works() {
    // As a separate user: the limit counts only its processes, and root would be exempt.
    let agent = RunningAgent::with(|listen| {
        let dir = Path::new(listen.strip_prefix("hybrid:").unwrap()).parent().unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        let binary = dir.join("agent");
        support::copy_program(&binary);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=54321", "--clear-groups", "--bounding-set=-all"]).arg(binary);
        command.args(["--log-level", "error", "--listen", listen]);
        command
    })
    .await;
    let mut connection = agent.connect().await;
    let pid = agent.pid().to_string();
    // Sets the soft limit, which the user itself may set.
    let limit = |count: u32| {
        let mut set = Command::new("setpriv");
        set.args(["--reuid=54321", "--clear-groups", "prlimit", "--pid", &pid]);
        set.arg(format!("--nproc={count}:"));
        assert!(set.status().unwrap().success());
    };
    limit(1);
    answer(&mut connection, &HealthCheck {}).await.unwrap();
    answer(&mut connection, &ReportStatus {}).await.unwrap();
    let refused = answer(&mut connection, &program("true", &[])).await.unwrap_err();
    assert_eq!(refused.errno, Some(libc::EAGAIN), "{refused:?}");
    limit(256);
    assert_eq!(answer(&mut connection, &program("true", &[])).await.unwrap().exit_code, 0);
}
