//! Execs as objects, over the wire: ids, re-attaching, leaving, lists, users, limits, invalid requests.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::ErrorCode;
use minions_proto::channel::{Channel, HostControl};
use minions_proto::message::{
    ExecAttach, ExecId, ExecInfo, ExecInspect, ExecList, ExecRemove, ExecSignal, ExecStart,
    Feature, HealthCheck, OnDisconnect, Outcome, Role, Signal, Tty,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use support::channel::Stream;
use support::{RunningAgent, processes_with, until};

fn id(text: &str) -> ExecId {
    text.parse().unwrap()
}

fn sh(id: &str, script: &str) -> ExecStart {
    ExecStart {
        id: Some(id.parse().unwrap()),
        command: "sh".into(),
        args: vec!["-c".into(), script.into()],
        ..ExecStart::default()
    }
}

fn detached(start: ExecStart) -> ExecStart {
    ExecStart { on_disconnect: OnDisconnect::Detach, ..start }
}

fn control(id: &str, stdout: Option<u64>) -> ExecAttach {
    ExecAttach { id: id.parse().unwrap(), stdout, stderr: None, role: Role::Control }
}

async fn inspect(agent: &RunningAgent, id: &str) -> ExecInfo {
    agent.call(&ExecInspect { id: id.parse().unwrap(), wait_ms: None }).await.unwrap()
}

async fn wait(agent: &RunningAgent, id: &str) -> ExecInfo {
    agent.call(&ExecInspect { id: id.parse().unwrap(), wait_ms: Some(20_000) }).await.unwrap()
}

/// Returns a sleep time, in seconds, that no other process uses; tests find their `sleep` by it.
fn sleep_seconds(test: u32) -> String {
    format!("301.{}{test}", std::process::id())
}

async fn until_running(seconds: &str) {
    until("the sleep is running", async || (!processes_with(seconds).is_empty()).then_some(()))
        .await;
}

async fn until_gone(seconds: &str) {
    until("the sleep is gone", async || processes_with(seconds).is_empty().then_some(())).await;
}

#[tokio::test]
async fn an_agent_announces_the_exec2_feature() {
    let health = RunningAgent::start().await.call(&HealthCheck {}).await.unwrap();
    assert!(health.agent.unwrap().supports(Feature::Exec));
}

#[tokio::test]
async fn the_same_request_with_the_same_id_runs_once() {
    let agent = RunningAgent::start().await;
    let runs = agent.dir().join("runs");
    let start = sh("once", &format!("echo run >> {}; sleep 0.2; echo out", runs.display()));
    // Two requests at the same time, and a third after the end.
    let both = tokio::join!(Stream::open(&agent, &start), Stream::open(&agent, &start));
    let (first, second) = (both.0.unwrap(), both.1.unwrap());
    assert!(first.attached.created != second.attached.created);
    assert_eq!(first.attached.pid, second.attached.pid);
    wait(&agent, "once").await;
    let third = Stream::open(&agent, &start).await.unwrap();
    assert!(!third.attached.created);
    assert_eq!(third.collect().await.stdout, b"out\n");
    assert_eq!(fs::read_to_string(runs).unwrap(), "run\n");
}

#[tokio::test]
async fn an_id_belongs_to_one_command() {
    let agent = RunningAgent::start().await;
    let _first = Stream::open(&agent, &sh("mine", "sleep 300")).await.unwrap();
    let error = Stream::open(&agent, &sh("mine", "sleep 301")).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Some(ErrorCode::ExecConflict), Some("id")));
}

#[tokio::test]
async fn no_bytes_are_lost_when_a_connection_breaks() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..sh("broken", "seq 100000; cat; seq 100000 >&2") };
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    let mut text = Vec::new();
    while text.len() < 200_000 {
        text.extend_from_slice(&stream.output().await);
    }
    stream.send(Channel::Stdin, b"first ").await;
    drop(stream);
    let mut stream =
        Stream::open(&agent, &control("broken", Some(text.len() as u64))).await.unwrap();
    assert!(!stream.attached.created);
    let arrived = usize::try_from(stream.attached.stdin).unwrap();
    assert!(!stream.attached.stdin_closed);
    stream.send(Channel::Stdin, &b"first second\n"[arrived..]).await;
    stream.send(Channel::Stdin, b"").await;
    let rest = stream.collect().await;
    text.extend_from_slice(&rest.stdout);
    let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(rest.lost, 0);
    assert!(text == format!("{numbers}first second\n").as_bytes());
    assert!(rest.stderr == numbers.as_bytes());
    assert_eq!(rest.ended.unwrap().outcome, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_new_client_takes_over_from_the_old_one() {
    let agent = RunningAgent::start().await;
    let start = ExecStart { stdin: true, ..sh("taken", "echo up; cat") };
    let mut old = Stream::open(&agent, &start).await.unwrap();
    old.until("up").await;
    let mut new = Stream::open(&agent, &control("taken", None)).await.unwrap();
    let refusals = old.collect().await.refusals;
    assert_eq!(refusals[0].code, Some(ErrorCode::TakenOver));
    // The end of the old stream does not count as a disconnect.
    new.until("up").await;
    new.send(Channel::Stdin, b"hi\n").await;
    assert_eq!(new.output().await, "hi\n");
}

#[tokio::test]
async fn leaving_ends_the_program_but_a_broken_connection_does_not() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(1);
    let script = format!("trap '' TERM HUP; sleep {seconds} & wait");
    let stream = Stream::open(&agent, &sh("left", &script)).await.unwrap();
    until_running(&seconds).await;
    drop(stream);
    // A client re-attaches in time, and leaves explicitly.
    let mut stream = Stream::open(&agent, &control("left", None)).await.unwrap();
    assert!(!processes_with(&seconds).is_empty());
    stream.control(HostControl::Leave).await;
    until_gone(&seconds).await;
    let info = wait(&agent, "left").await;
    assert!(matches!(info.outcome, Some(Outcome::Signaled { .. })), "{info:?}");
}

#[tokio::test]
async fn a_client_that_does_not_return_in_the_grace_period_counts_as_gone() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(2);
    let start =
        ExecStart { reattach_grace_ms: Some(2000), ..sh("lost", &format!("sleep {seconds}")) };
    let stream = Stream::open(&agent, &start).await.unwrap();
    assert_eq!(stream.attached.reattach_grace_ms, Some(2000));
    drop(stream);
    drop(Stream::open(&agent, &detached(sh("kept", "sleep 300"))).await.unwrap());
    until_running(&seconds).await;
    until_gone(&seconds).await;
    let info = wait(&agent, "lost").await;
    assert!(matches!(info.outcome, Some(Outcome::Signaled { signal: 15, .. })), "{info:?}");
    // The program does not end at once.
    assert!(info.usage.unwrap().wall_ms >= 2000, "{info:?}");
    let stream = Stream::open(&agent, &control("kept", None)).await.unwrap();
    assert_eq!(stream.attached.reattach_grace_ms, Some(60_000), "the default");
    assert_eq!(inspect(&agent, "kept").await.outcome, None);
}

#[tokio::test]
async fn a_detached_program_runs_on_and_its_newest_output_is_kept() {
    let agent = RunningAgent::start().await;
    let start = detached(ExecStart { stdin: true, ..sh("gone", "read x; seq 300000; read x") });
    let mut stream = Stream::open(&agent, &start).await.unwrap();
    stream.send(Channel::Stdin, b"go\n").await;
    stream.control(HostControl::Leave).await;
    let right: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    until("the program has written all output", async || {
        let info = inspect(&agent, "gone").await;
        (info.stdout_bytes == right.len() as u64 && !info.attached).then_some(())
    })
    .await;
    let mut stream = Stream::open(&agent, &control("gone", Some(0))).await.unwrap();
    stream.send(Channel::Stdin, b"\n").await;
    let all = stream.collect().await;
    assert_eq!(all.lost + all.stdout.len() as u64, right.len() as u64);
    assert!(all.lost > 0 && right.as_bytes().ends_with(&all.stdout));
    assert_eq!(all.ended.unwrap().outcome, Outcome::Exited { code: 0 });
}

#[tokio::test]
async fn a_list_shows_running_and_ended_execs() {
    let agent = RunningAgent::start().await;
    Stream::open(&agent, &sh("a", "echo out; echo error >&2; exit 9"))
        .await
        .unwrap()
        .collect()
        .await;
    let start = ExecStart { user: Some("0".into()), ..sh("b", "sleep 300") };
    let _running = Stream::open(&agent, &start).await.unwrap();
    wait(&agent, "a").await;
    let execs = agent.call(&ExecList {}).await.unwrap().execs;
    let [a, b] = &execs[..] else { panic!("{execs:?}") };
    assert_eq!((a.id.as_str(), a.outcome.clone()), ("a", Some(Outcome::Exited { code: 9 })));
    assert_eq!((a.stdout_bytes, a.stderr_bytes, a.attached), (4, 6, false));
    assert_eq!((b.id.as_str(), b.outcome.clone(), b.attached), ("b", None, true));
    assert_eq!(
        (b.command.as_str(), &b.args[..]),
        ("sh", &["-c".to_owned(), "sleep 300".into()][..])
    );
    assert_eq!(b.user.as_deref(), Some("0"));
    // A base exec is not listed after its end.
    let base =
        minions_proto::message::Exec { command: "true".into(), args: vec![], timeout_ms: None };
    agent.call(&base).await.unwrap();
    assert_eq!(agent.call(&ExecList {}).await.unwrap().execs.len(), 2);
}

#[tokio::test]
async fn a_removed_exec_ends_and_is_forgotten() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(3);
    let _client =
        Stream::open(&agent, &sh("dead", &format!("trap '' TERM; sleep {seconds}"))).await.unwrap();
    until_running(&seconds).await;
    let info = agent.call(&ExecRemove { id: id("dead") }).await.unwrap();
    assert!(matches!(info.outcome, Some(Outcome::Signaled { .. })), "{info:?}");
    assert!(processes_with(&seconds).is_empty());
    let error = Stream::open(&agent, &control("dead", None)).await.unwrap_err();
    assert_eq!((error.code, error.field.as_deref()), (Some(ErrorCode::ExecGone), Some("id")));
    assert_eq!(agent.call(&ExecRemove { id: id("dead") }).await.unwrap_err().code, error.code);
}

#[tokio::test]
async fn only_a_running_exec_can_be_signalled() {
    let agent = RunningAgent::start().await;
    let mut stream = Stream::open(
        &agent,
        &sh("sig", "trap 'echo got; exit 3' USR1; echo up; while :; do sleep 0.05; done"),
    )
    .await
    .unwrap();
    stream.until("up").await;
    let usr1 = ExecSignal { id: id("sig"), signal: "USR1".parse().unwrap() };
    agent.call(&usr1).await.unwrap();
    let all = stream.collect().await;
    assert_eq!(
        (all.stdout, all.ended.unwrap().outcome),
        (b"got\n".to_vec(), Outcome::Exited { code: 3 })
    );
    assert_eq!(agent.call(&usr1).await.unwrap_err().code, Some(ErrorCode::ExecEnded));
    let unknown = ExecSignal { id: id("unknown"), signal: Signal::TERM };
    assert_eq!(agent.call(&unknown).await.unwrap_err().code, Some(ErrorCode::ExecGone));
}

#[tokio::test]
async fn the_time_limit_also_ends_processes_that_left_the_session() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(4);
    // The process is in a new session, orphaned, and ignores TERM.
    let flees =
        format!("(setsid sh -c 'trap \"\" TERM HUP; sleep {seconds}' &) ; trap '' TERM; sleep 300");
    let start = ExecStart { timeout_ms: Some(1000), ..sh("flees", &flees) };
    let ended = Stream::open(&agent, &start).await.unwrap().collect().await.ended.unwrap();
    assert_eq!((ended.outcome.exit_code(), &ended.outcome), (124, &Outcome::TimedOut));
    assert!(processes_with(&seconds).is_empty());
}

#[tokio::test]
async fn a_program_gets_the_requested_environment_directory_and_user() {
    let agent = RunningAgent::start().await;
    let start = ExecStart {
        env: [("GREETING".to_owned(), "a=b c".to_owned()), ("PATH".into(), "/bin:/usr/bin".into())]
            .into(),
        cwd: Some("/usr".into()),
        user: Some("nobody".into()),
        ..sh("who", "echo $GREETING; pwd; id -un; id -G; echo $HOME $USER; echo $PATH")
    };
    let all = Stream::open(&agent, &start).await.unwrap().collect().await;
    assert_eq!(
        String::from_utf8(all.stdout).unwrap(),
        "a=b c\n/usr\nnobody\n65534\n/nonexistent nobody\n/bin:/usr/bin\n"
    );
    let start = ExecStart { user: Some("4711:12".into()), ..sh("number", "id -u; id -G") };
    let all = Stream::open(&agent, &start).await.unwrap().collect().await;
    assert_eq!(String::from_utf8(all.stdout).unwrap(), "4711\n12\n");
}

#[tokio::test]
async fn a_program_gets_the_requested_resource_limits() {
    let agent = RunningAgent::start().await;
    let rlimits = [("nofile".to_owned(), 64), ("core".into(), 0)].into();
    let start = ExecStart { rlimits, ..sh("limits", "ulimit -n; ulimit -Hn; ulimit -c") };
    let all = Stream::open(&agent, &start).await.unwrap().collect().await;
    assert_eq!(String::from_utf8(all.stdout).unwrap(), "64\n64\n0\n");
}

#[tokio::test]
async fn the_end_of_a_program_reports_its_resource_usage() {
    let agent = RunningAgent::start().await;
    let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let ended =
        Stream::open(&agent, &sh("busy", script)).await.unwrap().collect().await.ended.unwrap();
    assert!(ended.usage.user_ms + ended.usage.system_ms > 0, "{ended:?}");
    assert!(ended.usage.wall_ms + 20 >= ended.usage.user_ms, "{ended:?}");
    assert!(ended.usage.max_rss_bytes > 100_000, "{ended:?}");
}

/// Returns requests that must fail, each with the expected code and field.
fn impossible(dir: &str) -> Vec<(ExecStart, ErrorCode, Option<&'static str>)> {
    let program = |command: &str| ExecStart { command: command.into(), ..ExecStart::default() };
    let mut none = sh("none", "true");
    none.command = String::new();
    vec![
        (none, ErrorCode::InvalidArgument, Some("command")),
        (program("no-such-program"), ErrorCode::CommandNotFound, None),
        (program(dir), ErrorCode::CommandNotExecutable, None),
        (
            ExecStart { user: Some("no-such-user".into()), ..sh("a", "true") },
            ErrorCode::UserNotFound,
            Some("user"),
        ),
        (
            ExecStart { user: Some("root:no-such".into()), ..sh("a", "true") },
            ErrorCode::UserNotFound,
            Some("user"),
        ),
        (
            ExecStart { cwd: Some("/nowhere".into()), ..sh("a", "true") },
            ErrorCode::CwdNotFound,
            Some("cwd"),
        ),
        (
            ExecStart { cwd: Some("/etc/passwd".into()), ..sh("a", "true") },
            ErrorCode::CwdNotFound,
            Some("cwd"),
        ),
        (
            // Root may enter the directory, but this user may not.
            ExecStart { cwd: Some(dir.to_owned()), user: Some("nobody".into()), ..sh("a", "true") },
            ErrorCode::CwdNotFound,
            Some("cwd"),
        ),
        (
            ExecStart { env: [("A=B".into(), String::new())].into(), ..sh("a", "true") },
            ErrorCode::InvalidArgument,
            Some("env"),
        ),
        (
            ExecStart { args: vec!["x".repeat(900_000)], ..program("true") },
            ErrorCode::ArgumentListTooLong,
            None,
        ),
        (
            ExecStart { rlimits: [("nofile".into(), 1 << 40)].into(), ..sh("a", "true") },
            ErrorCode::ExecFailed,
            Some("rlimits"),
        ),
        (
            ExecStart { tty: Some(Tty { rows: 0, cols: 1, term: None }), ..sh("a", "true") },
            ErrorCode::InvalidArgument,
            Some("tty.rows"),
        ),
    ]
}

fn descriptors(agent: &RunningAgent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

fn children(agent: &RunningAgent) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
    children.map(Result::unwrap_or_default).collect()
}

#[tokio::test]
async fn a_thousand_failed_requests_state_the_reason_and_leave_nothing_behind() {
    let agent = RunningAgent::start().await;
    let closed = agent.dir().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let requests = impossible(closed.to_str().unwrap());
    let mut before = None;
    for round in 0..84 {
        for (start, code, field) in &requests {
            let Err(error) = Stream::open(&agent, start).await else {
                panic!("must fail: {start:?}")
            };
            assert_eq!(
                (error.code, error.field.as_deref()),
                (Some(*code), *field),
                "{start:?}: {error:?}"
            );
        }
        if round == 1 {
            before = Some(descriptors(&agent));
        }
    }
    until("the descriptors are closed", async || {
        (Some(descriptors(&agent)) <= before).then_some(())
    })
    .await;
    until("no child is left", async || children(&agent).is_empty().then_some(())).await;
    assert_eq!(agent.call(&ExecList {}).await.unwrap().execs, []);
}

#[tokio::test]
async fn running_and_remembered_execs_are_limited() {
    let agent = RunningAgent::start().await;
    let mut running = Vec::new();
    for at in 0..64 {
        running.push(Stream::open(&agent, &sh(&format!("run-{at}"), "sleep 300")).await.unwrap());
    }
    let error = Stream::open(&agent, &sh("one-more", "true")).await.unwrap_err();
    assert_eq!(error.code, Some(ErrorCode::Busy));
    for stream in &mut running[1..] {
        stream.control(HostControl::Leave).await;
    }
    for at in 1..64 {
        wait(&agent, &format!("run-{at}")).await;
    }
    for at in 0..300 {
        let start = sh(&format!("end-{at}"), "true");
        Stream::open(&agent, &start).await.unwrap().collect().await;
    }
    let execs = agent.call(&ExecList {}).await.unwrap().execs;
    // The running exec, and the newest of those that ended.
    assert_eq!((execs.len(), execs[0].id.as_str()), (257, "run-0"));
    assert_eq!(execs[256].id.as_str(), "end-299");
}

#[tokio::test]
async fn an_attach_beyond_the_end_of_the_output_is_refused() {
    let agent = RunningAgent::start().await;
    let _stream = Stream::open(&agent, &sh("short", "sleep 300")).await.unwrap();
    let error = Stream::open(&agent, &control("short", Some(1))).await.unwrap_err();
    assert_eq!(
        (error.code, error.field.as_deref()),
        (Some(ErrorCode::InvalidArgument), Some("stdout"))
    );
}

#[tokio::test]
async fn two_hundred_streams_leave_no_processes_or_descriptors() {
    let agent = RunningAgent::start().await;
    let mut before = 0;
    for at in 0..200 {
        let tty = (at % 3 == 0).then_some(Tty { rows: 1, cols: 1, term: None });
        let start = ExecStart { tty, stdin: at % 2 == 0, ..sh(&format!("s-{at}"), "echo hi") };
        let all = Stream::open(&agent, &start).await.unwrap().collect().await;
        assert_eq!(String::from_utf8(all.stdout).unwrap().trim_end(), "hi");
        if at == 10 {
            before = descriptors(&agent);
        }
    }
    until("the descriptors are closed", async || (descriptors(&agent) <= before).then_some(()))
        .await;
    until("no child is left", async || children(&agent).is_empty().then_some(())).await;
}
