//! Every running process is listed: programs of an agent that was killed, and leftover processes of programs.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::message::{
    AgentInfo, EntropyBytes, Exec, ExecAttach, ExecInfo, ExecInspect, ExecList, ExecRemove,
    ExecSignal, ExecStart, Feature, HealthCheck, OnDisconnect, Outcome, RestoreRequest,
    RestoreState, Role, Signal,
};
use std::process::Command;
use std::slice::from_ref;
use support::channel::Stream;
use support::{BINARY, RunningAgent, kill, processes_with, until};

/// Returns a sleep time, in seconds, that no other process uses; tests find their `sleep` by it.
fn seconds(test: u32) -> String {
    format!("302.{}{test}", std::process::id())
}

fn detached(id: &str, script: &str) -> ExecStart {
    ExecStart {
        id: Some(id.parse().unwrap()),
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        on_disconnect: OnDisconnect::Detach,
        ..ExecStart::default()
    }
}

async fn list(agent: &RunningAgent) -> Vec<ExecInfo> {
    agent.call(&ExecList {}).await.unwrap().execs
}

async fn inspect(agent: &RunningAgent, id: &str) -> ExecInfo {
    agent.call(&ExecInspect { id: id.parse().unwrap(), wait_ms: Some(20_000) }).await.unwrap()
}

fn reason(info: &ExecInfo) -> &str {
    let Some(Outcome::Lost { reason }) = &info.outcome else { panic!("not lost: {info:?}") };
    reason
}

/// Guard that kills the sleeps of a test, even if the test fails.
struct Sleeps(String);

impl Drop for Sleeps {
    fn drop(&mut self) {
        processes_with(&self.0).into_iter().for_each(kill);
    }
}

/// Starts an agent with the programs `a`, `b` and `c`, kills the agent, and restarts it. Returns the programs' pids.
async fn crashed(seconds: &str) -> (RunningAgent, Vec<u32>) {
    let mut agent = RunningAgent::start().await;
    let mut pids = Vec::new();
    for id in ["a", "b", "c"] {
        let script = format!("sleep {seconds}; true");
        pids.push(Stream::open(&agent, &detached(id, &script)).await.unwrap().attached.pid);
    }
    until("all three sleep", async || (processes_with(seconds).len() == 3).then_some(())).await;
    agent.crash().await;
    (agent, pids)
}

#[tokio::test]
async fn the_next_agent_lists_programs_of_a_killed_agent_as_lost() {
    let seconds = seconds(1);
    let _sleeps = Sleeps(seconds.clone());
    let (mut agent, pids) = crashed(&seconds).await;
    // The agent after that lists them, too.
    for _ in 0..2 {
        let execs = list(&agent).await;
        let ids: Vec<_> = execs.iter().map(|info| info.id.to_string()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        for (info, pid) in execs.iter().zip(&pids) {
            assert!(reason(info).contains("the agent was restarted at 20"), "{info:?}");
            assert_eq!((info.command.as_str(), &info.pid), ("sh", pid));
            assert_eq!(info.args, ["-c", &format!("sleep {seconds}; true")]);
            assert_eq!(info.on_disconnect, OnDisconnect::Detach);
            assert_eq!(info.left_running, Some(2), "the shell and its sleep");
        }
        agent.crash().await;
    }
    assert_eq!(processes_with(&seconds).len(), 3);
}

#[tokio::test]
async fn a_lost_program_can_be_inspected_signalled_and_removed() {
    let seconds = seconds(2);
    let _sleeps = Sleeps(seconds.clone());
    let (agent, pids) = crashed(&seconds).await;
    assert!(reason(&inspect(&agent, "a").await).contains("restarted at"));

    // A client that re-attaches with its offset, and one that starts the program again, get the same answer.
    let reattach =
        ExecAttach { id: "a".parse().unwrap(), stdout: Some(7), stderr: None, role: Role::Control };
    let again = detached("a", "echo ran twice");
    for attached in [
        Stream::open(&agent, &reattach).await.unwrap(),
        Stream::open(&agent, &again).await.unwrap(),
    ] {
        assert_eq!((attached.attached.created, attached.attached.pid), (false, pids[0]));
        let all = attached.collect().await;
        assert!(all.stdout.is_empty());
        assert!(matches!(all.ended.unwrap().outcome, Outcome::Lost { .. }));
    }

    let signal = ExecSignal { id: "a".parse().unwrap(), signal: Signal::from_number(15).unwrap() };
    agent.call(&signal).await.unwrap();
    until("it has ended", async || inspect(&agent, "a").await.left_running.is_none().then_some(()))
        .await;
    let refused = agent.call(&signal).await.unwrap_err();
    assert_eq!(refused.code, Some(ErrorCode::ExecEnded));

    for id in ["b", "c"] {
        let removed = agent.call(&ExecRemove { id: id.parse().unwrap() }).await.unwrap();
        assert_eq!(removed.left_running, None);
    }
    assert_eq!(processes_with(&seconds), [0; 0]);
    let ids: Vec<_> = list(&agent).await.iter().map(|info| info.id.to_string()).collect();
    assert_eq!(ids, ["a"]);
}

async fn description(agent: &RunningAgent) -> AgentInfo {
    agent.call(&HealthCheck {}).await.unwrap().agent.unwrap()
}

/// Makes the guest the next generation, without restore steps.
async fn restore(agent: &RunningAgent, instance_id: &str) {
    let request = RestoreRequest {
        parent: description(agent).await.instance_id,
        instance_id: instance_id.into(),
        entropy: EntropyBytes::try_from(vec![7; 32]).unwrap(),
        time_unix_ms: 0,
        steps: Vec::new(),
        required: Vec::new(),
        hostname: None,
        network: None,
        hook_timeout_ms: None,
    };
    until("the restore has ended", async || {
        let outcome = agent.call(&request).await.unwrap();
        (outcome.state == RestoreState::Done).then_some(())
    })
    .await;
}

/// Returns the ids of the listed execs, each with the id and the generation of its start if it is inherited.
async fn origins(agent: &RunningAgent) -> Vec<(String, Option<String>, Option<u64>)> {
    let origin = |info: ExecInfo| {
        assert_eq!(info.inherited.is_some(), info.started_as.is_some(), "{info:?}");
        (info.id.to_string(), info.started_as.map(|id| id.to_string()), info.generation)
    };
    list(agent).await.into_iter().map(origin).collect()
}

#[tokio::test]
async fn programs_of_the_parent_stay_inherited_if_the_agent_of_a_clone_is_restarted() {
    let seconds = seconds(7);
    let _sleeps = Sleeps(seconds.clone());
    let mut agent = RunningAgent::start().await;
    let start = |id: &str| detached(id, &format!("sleep {seconds}; true"));
    Stream::open(&agent, &start("job")).await.unwrap();
    restore(&agent, "clone").await;
    let inherited = ("g0.job".to_owned(), Some("job".to_owned()), Some(0));
    assert_eq!(origins(&agent).await.as_slice(), from_ref(&inherited));
    agent.crash().await;
    let listed = origins(&agent).await;
    assert_eq!(listed.as_slice(), from_ref(&inherited), "as before the agent was restarted");
    let attach =
        ExecAttach { id: "job".parse().unwrap(), stdout: None, stderr: None, role: Role::Control };
    let gone = Stream::open(&agent, &attach).await.unwrap_err();
    assert_eq!(gone.code, Some(ErrorCode::ExecGone), "{gone:?}");
    assert!(gone.message.contains("g0.job"), "{gone}");
    // The id is free: the clone's own program runs.
    let own = Stream::open(&agent, &start("job")).await.unwrap();
    assert!(own.attached.created, "{:?}", own.attached);
    agent.crash().await;
    let own = ("job".to_owned(), None, Some(1));
    assert_eq!(origins(&agent).await, [inherited.clone(), own]);
    // The next generation has another number than the one that the restarted agent has continued.
    assert_eq!(description(&agent).await.generation, Some(1));
    restore(&agent, "next").await;
    agent.crash().await;
    let own = ("g1.job".to_owned(), Some("job".to_owned()), Some(1));
    assert_eq!(origins(&agent).await, [inherited, own]);
    assert_eq!(description(&agent).await.generation, Some(2));
}

/// Simulates an init that waits for no child.
#[tokio::test]
async fn a_killed_agent_that_stays_a_zombie_counts_as_ended() {
    let seconds = seconds(6);
    let _sleeps = Sleeps(seconds.clone());
    let mut agent = RunningAgent::start().await;
    Stream::open(&agent, &detached("a", &format!("sleep {seconds}; true"))).await.unwrap();
    let mut zombie = agent.crash_unnoticed().await;
    let listed = list(&agent).await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(matches!(listed[0].outcome, Some(Outcome::Lost { .. })), "{listed:?}");
    let remove = ExecRemove { id: "a".parse().unwrap() };
    agent.call(&remove).await.unwrap();
    until("its programs are gone", async || processes_with(&seconds).is_empty().then_some(()))
        .await;
    zombie.wait().unwrap();
}

#[tokio::test]
async fn an_agent_does_not_list_programs_of_another_running_agent() {
    let seconds = seconds(3);
    let _sleeps = Sleeps(seconds.clone());
    let agent = RunningAgent::start().await;
    let _stream = Stream::open(&agent, &detached("a", &format!("sleep {seconds}"))).await.unwrap();
    until("it sleeps", async || (processes_with(&seconds).len() == 1).then_some(())).await;
    // The second agent has the same address, and so the same parent of control groups.
    let socket = agent.socket();
    std::fs::rename(&socket, agent.dir().join("first.sock")).unwrap();
    let mut second = support::agent_command(&support::listen_value(&socket)).spawn().unwrap();
    let listed = until("the second listens", async || {
        tokio::net::UnixStream::connect(&socket).await.ok()?;
        Some(list(&agent).await)
    })
    .await;
    second.kill().unwrap();
    second.wait().unwrap();
    assert_eq!(listed, []);
    assert_eq!(processes_with(&seconds).len(), 1);
}

#[tokio::test]
async fn leftover_processes_of_a_base_exec_are_listed_until_they_end() {
    let seconds = seconds(4);
    let _sleeps = Sleeps(seconds.clone());
    let agent = RunningAgent::start().await;
    let script = format!("sleep {seconds} >/dev/null 2>&1 & exit 3");
    let args = vec!["-c".into(), script];
    let left = Exec { command: "sh".into(), args, timeout_ms: None };
    assert_eq!(agent.call(&left).await.unwrap().exit_code, 3);
    assert_eq!(agent.call(&left).await.unwrap().exit_code, 3);
    let execs = list(&agent).await;
    assert_eq!(execs.len(), 2, "{execs:?}");
    for info in &execs {
        assert_eq!(
            (info.left_running, &info.outcome),
            (Some(1), &Some(Outcome::Exited { code: 3 }))
        );
    }
    agent.call(&ExecRemove { id: execs[0].id.clone() }).await.unwrap();
    assert_eq!(processes_with(&seconds).len(), 1);
    processes_with(&seconds).into_iter().for_each(kill);
    until("nothing is listed", async || list(&agent).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_limit_that_the_guest_cannot_enforce_is_refused_with_its_field() {
    // A guest without control groups.
    let agent = RunningAgent::with(|listen| {
        let script = "set -e
            mount --make-rprivate /
            mount -t tmpfs tmpfs /sys/fs/cgroup
            exec \"$0\" --log-level error --listen \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", script, BINARY, listen]);
        command
    })
    .await;
    let info = agent.call(&HealthCheck {}).await.unwrap().agent.unwrap();
    assert!(info.supports(Feature::ExecLimits));
    let started = agent.dir().join("started");
    let start = detached("limited", &format!("touch {}", started.display()));
    for (field, start) in [
        ("memory_bytes", ExecStart { memory_bytes: Some(1 << 30), ..start.clone() }),
        ("pids", ExecStart { pids: Some(64), ..start.clone() }),
    ] {
        let refused = Stream::open(&agent, &start).await.unwrap_err();
        assert_eq!(refused.code, Some(ErrorCode::InvalidArgument), "{refused:?}");
        assert_eq!(refused.field.as_deref(), Some(field));
        assert!(refused.message.contains("cgroup v2"), "{refused:?}");
        let out_of_range = match field {
            "pids" => ExecStart { pids: Some(0), ..start },
            _ => ExecStart { memory_bytes: Some(1 << 63), ..start },
        };
        let refused = Stream::open(&agent, &out_of_range).await.unwrap_err();
        assert_eq!(refused.field.as_deref(), Some(field));
        assert!(refused.message.contains("must be 1 to 9223372036854775807"), "{refused:?}");
    }
    assert!(!started.exists());
    let ran = Stream::open(&agent, &start).await.unwrap().collect().await;
    assert_eq!(ran.ended.unwrap().outcome, Outcome::Exited { code: 0 });
    assert!(started.exists());
}
