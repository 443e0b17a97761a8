//! Guests whose control groups or `/proc` are missing, or become unavailable while programs run.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::message::{
    Exec, ExecInspect, ExecRemove, ExecStart, HealthCheck, OnDisconnect, Outcome, ReportStatus,
};
use std::process::Command;
use support::channel::Stream;
use support::{BINARY, RunningAgent, kill, processes_with, until};

/// Script that sets `tree` to the mount point of cgroup v2.
const TREE: &str = "tree=$(awk '$3 == \"cgroup2\" { print $2; exit }' /proc/mounts)";

/// Scripts that make the tree read-only, hidden, or unmounted.
const BREAKS: [&str; 3] = [
    "mount --bind $tree $tree; mount -o remount,ro,bind $tree",
    "mount -t tmpfs tmpfs $tree",
    "umount --lazy $tree",
];

/// Starts an agent in a mount namespace of its own, after `script` has run there.
async fn agent_after(script: &str) -> RunningAgent {
    RunningAgent::with(|listen| {
        let script = format!(
            "set -e; mount --make-rprivate /; {script}
            exec \"$0\" --log-level error --listen \"$1\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", &script, BINARY, listen]);
        command
    })
    .await
}

fn start(id: &str, script: &str) -> ExecStart {
    ExecStart {
        id: Some(id.parse().unwrap()),
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        on_disconnect: OnDisconnect::Detach,
        ..ExecStart::default()
    }
}

async fn run(agent: &RunningAgent, script: &str) -> i32 {
    let args = vec!["-c".into(), script.into()];
    agent.call(&Exec { command: "sh".into(), args, timeout_ms: None }).await.unwrap().exit_code
}

/// Asserts that programs without limits run, and that limits are refused with their fields.
async fn assert_no_limits(agent: &RunningAgent, script: &str) {
    assert_eq!(run(agent, "exit 7").await, 7, "{script}");
    let plain = start("plain", "true");
    for (field, limited) in [
        ("memory_bytes", ExecStart { memory_bytes: Some(1 << 30), ..plain.clone() }),
        ("pids", ExecStart { pids: Some(64), ..plain.clone() }),
    ] {
        let error = Stream::open(agent, &limited).await.unwrap_err();
        assert_eq!(error.code, Some(ErrorCode::InvalidArgument), "{script}: {error:?}");
        assert_eq!(error.field.as_deref(), Some(field), "{script}: {error:?}");
        assert!(error.message.contains("cannot be enforced"), "{script}: {error:?}");
    }
}

/// Guard that kills the sleeps of a test, even if the test fails.
struct Sleeps(String);

impl Drop for Sleeps {
    fn drop(&mut self) {
        processes_with(&self.0).into_iter().for_each(kill);
    }
}

#[tokio::test]
async fn programs_can_be_ended_after_control_groups_became_unusable() {
    for (n, script) in BREAKS.iter().enumerate() {
        let agent = agent_after("true").await;
        let seconds = format!("402.{}{n}", std::process::id());
        let _sleeps = Sleeps(seconds.clone());
        // The first process leaves its process group and ignores TERM; only the control group still contains it.
        let program = format!(
            "setsid sh -c 'trap : TERM; sleep {seconds}; sleep {seconds}' & sleep {seconds}"
        );
        Stream::open(&agent, &start("before", &program)).await.unwrap();
        until("both sleep", async || (processes_with(&seconds).len() == 2).then_some(())).await;
        assert_eq!(run(&agent, &format!("{TREE}; {script}")).await, 0, "{script}");
        assert_no_limits(&agent, script).await;
        let removed = agent.call(&ExecRemove { id: "before".parse().unwrap() }).await.unwrap();
        assert!(matches!(removed.outcome, Some(Outcome::Signaled { .. })), "{script}: {removed:?}");
        until("all its processes have ended", async || {
            processes_with(&seconds).is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_guest_without_control_groups_runs_programs_without_limits() {
    for script in BREAKS {
        assert_no_limits(&agent_after(&format!("{TREE}; {script}")).await, script).await;
    }
}

#[tokio::test]
async fn an_agent_without_proc_does_not_start_and_names_the_reason() {
    let script = "mount --make-rprivate /; umount --lazy /proc; exec \"$0\" --listen \"hybrid:$1\"";
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script, BINARY]).arg(dir.path().join("agent.sock"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("/proc/sys/kernel/random/boot_id (is /proc mounted?)"), "{stderr}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "a socket is left");
}

#[tokio::test]
async fn an_agent_continues_after_proc_was_unmounted() {
    let agent = agent_after("true").await;
    assert_eq!(run(&agent, "umount --lazy /proc").await, 0);
    agent.call(&HealthCheck {}).await.unwrap();
    agent.call(&ReportStatus {}).await.unwrap();
    assert_eq!(run(&agent, "exit 7").await, 7);
    let seconds = format!("403.{}", std::process::id());
    let _sleeps = Sleeps(seconds.clone());
    let limited = ExecStart {
        timeout_ms: Some(300),
        ..start("limited", &format!("setsid sleep {seconds} & sleep {seconds}"))
    };
    Stream::open(&agent, &limited).await.unwrap();
    let inspect = ExecInspect { id: "limited".parse().unwrap(), wait_ms: Some(20_000) };
    let ended = agent.call(&inspect).await.unwrap();
    assert_eq!(ended.outcome, Some(Outcome::TimedOut), "{ended:?}");
    until("all its processes have ended", async || {
        processes_with(&seconds).is_empty().then_some(())
    })
    .await;
}
