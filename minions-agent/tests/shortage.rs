//! A guest that is short of everything: the agent says so, and goes on.
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

/// An agent behind a shell that has prepared its world.
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

/// An agent that has much to say, and nobody who listens.
async fn unheard() -> (RunningAgent, PipeReader) {
    let (unread, stderr) = pipe().unwrap();
    let agent = RunningAgent::with(|listen| {
        let mut command = Command::new(BINARY);
        command.args(["--log-level", "debug", "--listen", listen]).stderr(stderr);
        command
    })
    .await;
    let mut connection = agent.connect().await;
    // A line for each refusal: many times what fits a pipe.
    let missing = program("/missing", &[]);
    for _ in 0..2000 {
        let refused = answer(&mut connection, &missing).await.unwrap_err();
        assert_eq!(refused.code, Some(ErrorCode::CommandNotFound));
    }
    (agent, unread)
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let (agent, _unread) = unheard().await;
    agent.call(&HealthCheck {}).await.unwrap();
    assert_eq!(agent.call(&program("true", &[])).await.unwrap().exit_code, 0);
}

#[tokio::test]
async fn an_agent_whose_log_hangs_still_ends_when_told_to() {
    let (mut agent, _unread) = unheard().await;
    assert!(support::terminate(&mut agent).await.success());
}

#[tokio::test]
async fn without_descriptors_who_is_connected_is_served_and_who_comes_later_waits() {
    let agent = after("ulimit -n 24").await;
    let mut first = agent.connect().await;
    let mut crowd = Vec::new();
    // Until one is not answered: it waits in the backlog.
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
async fn a_full_disk_is_an_error_that_leaves_the_old_file_and_programs_run() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().display();
    // In a mount namespace of its own, which goes with it.
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
async fn without_memory_programs_are_refused_and_run_again_later() {
    let agent = after("").await;
    let mut connection = agent.connect().await;
    answer(&mut connection, &program("true", &[])).await.unwrap();
    // No more address space than it has: no thread, no larger mapping.
    let pid = agent.pid().to_string();
    let limit = |bytes: &str| {
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--as={bytes}")]).status();
        assert!(set.unwrap().success());
    };
    limit("1:unlimited");
    answer(&mut connection, &HealthCheck {}).await.unwrap();
    // A program starts with the agent's limit, so that it can't be loaded, or can't be started at all.
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
async fn without_processes_everything_but_programs_works() {
    // A user of its own: nobody else's processes count, and root's privilege doesn't help.
    let agent = RunningAgent::with(|listen| {
        let dir = Path::new(listen.strip_prefix("hybrid:").unwrap()).parent().unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        // Where this user can reach it.
        let binary = dir.join("agent");
        fs::copy(BINARY, &binary).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=54321", "--clear-groups", "--bounding-set=-all"]).arg(binary);
        command.args(["--log-level", "error", "--listen", listen]);
        command
    })
    .await;
    let mut connection = agent.connect().await;
    let pid = agent.pid().to_string();
    // The soft limit, which is its own user's to set.
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
