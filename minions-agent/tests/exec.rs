//! Programs, over the wire.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

mod support;

use minions_proto::frame::MAX_FRAME_LEN;
use minions_proto::message::{Exec, ExecReply, HealthCheck, Outcome, encode_request};
use minions_proto::{AgentError, ErrorCode};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::{RunningAgent, SOON, kill, processes_with, until};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

fn exec(command: &str, args: &[&str]) -> Exec {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    Exec { command: command.to_owned(), args, timeout_ms: None }
}

fn sh(script: &str) -> Exec {
    exec("sh", &["-c", script])
}

/// Runs it on an agent of its own.
async fn run(exec: Exec) -> ExecReply {
    RunningAgent::start().await.call(&exec).await.unwrap()
}

/// A number of seconds to sleep that no other process sleeps: it is how a sleep is found.
fn sleep_seconds(test: u32) -> String {
    format!("300.{}{test}", std::process::id())
}

async fn until_running(seconds: &str) -> i32 {
    until("the sleep runs", async || {
        // The shell has the number too, within its script, but not as an argument.
        processes_with(seconds).first().copied()
    })
    .await
}

async fn until_gone(seconds: &str) {
    until("the sleep is gone", async || processes_with(seconds).is_empty().then_some(())).await;
}

/// What the agent's kernel entry lists, zombies included.
fn children(agent: &RunningAgent) -> String {
    let pid = agent.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
    children.map(Result::unwrap_or_default).collect()
}

fn descriptors(agent: &RunningAgent) -> usize {
    fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[tokio::test]
async fn an_exit_code_is_the_programs_own() {
    for code in [0, 1, 37, 255] {
        let reply = run(sh(&format!("exit {code}"))).await;
        assert_eq!((reply.exit_code, reply.outcome), (code, Some(Outcome::Exited { code })));
    }
}

#[tokio::test]
async fn a_signal_is_128_more_than_its_number() {
    let reply = run(sh("kill -SEGV $$")).await;
    assert_eq!(reply.exit_code, 139);
    assert!(matches!(reply.outcome, Some(Outcome::Signaled { signal: 11, .. })), "{reply:?}");
}

#[tokio::test]
async fn standard_input_is_empty() {
    let reply = run(sh("readlink /proc/self/fd/0; cat; pwd")).await;
    assert_eq!(reply.stdout, "/dev/null\n/\n");
}

#[tokio::test]
async fn arguments_arrive_as_they_were_sent() {
    let args = ["two words", "", "a'b\"c", "$HOME `id` *", "line\nbreak", "-n", "žluťoučký 🦀"];
    let reply = run(exec("printf", &[&["[%s]\\n"], &args[..]].concat())).await;
    let expected: String = args.iter().map(|arg| format!("[{arg}]\n")).collect();
    assert_eq!(reply.stdout, expected);
}

#[tokio::test]
async fn standard_output_and_standard_error_stay_apart() {
    let reply = run(sh("echo out; echo err >&2")).await;
    assert_eq!((reply.stdout.as_str(), reply.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((reply.stdout_bytes, reply.stderr_bytes), (Some(4), Some(4)));
    assert_eq!((reply.stdout_truncated, reply.stderr_truncated), (Some(false), Some(false)));
}

#[tokio::test]
async fn what_can_not_run_says_why() {
    let agent = RunningAgent::start().await;
    let file = |name: &str, content: &str, mode| {
        let path = agent.dir().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let plain = file("plain", "#!/bin/sh\n", 0o644);
    let text = file("text", "echo no shell is guessed\n", 0o755);
    let orphan = file("orphan", "#!/nowhere/interpreter -x\n", 0o755);
    let dir = agent.dir().to_str().unwrap().to_owned();
    let below = format!("{plain}/child");
    for (command, code, errno) in [
        ("no-such-program", ErrorCode::CommandNotFound, 2),
        ("/nowhere/program", ErrorCode::CommandNotFound, 2),
        (&below, ErrorCode::CommandNotFound, 2),
        (&plain, ErrorCode::CommandNotExecutable, 13),
        (&dir, ErrorCode::CommandNotExecutable, 13),
        (&text, ErrorCode::CommandNotExecutable, 8),
        (&orphan, ErrorCode::CommandNotExecutable, 2),
    ] {
        let error = agent.call(&exec(command, &[])).await.unwrap_err();
        assert_eq!((error.code, error.errno), (Some(code), Some(errno)), "{command}: {error:?}");
        assert!(error.message.contains(command), "{error:?}");
    }
    let error = agent.call(&exec(&orphan, &[])).await.unwrap_err();
    assert!(error.message.contains("/nowhere/interpreter"), "{error:?}");
}

#[tokio::test]
async fn what_no_kernel_takes_names_its_field() {
    let agent = RunningAgent::start().await;
    let limit = |timeout_ms| Exec { timeout_ms: Some(timeout_ms), ..exec("true", &[]) };
    for (call, field) in [
        (exec("", &[]), "command"),
        (exec("a\0b", &[]), "command"),
        (exec("true", &["a", "b\0"]), "args[1]"),
        (limit(0), "timeout_ms"),
        (limit(86_400_001), "timeout_ms"),
        (limit(u64::MAX), "timeout_ms"),
    ] {
        let AgentError { code, field: named, .. } = agent.call(&call).await.unwrap_err();
        assert_eq!((code, named.as_deref()), (Some(ErrorCode::InvalidArgument), Some(field)));
    }
}

#[tokio::test]
async fn an_argument_too_long_for_the_kernel_is_its_error_number() {
    let agent = RunningAgent::start().await;
    // The kernel takes 128 KiB a string, a frame takes 1 MiB.
    let error = agent.call(&exec("true", &[&"x".repeat(900_000)])).await.unwrap_err();
    assert_eq!(
        (error.code, error.errno),
        (Some(ErrorCode::ArgumentListTooLong), Some(7)),
        "{error:?}"
    );
    assert!(agent.call(&exec("true", &[&"x".repeat(100_000)])).await.is_ok());
}

#[tokio::test]
async fn a_long_output_keeps_its_head_and_its_tail() {
    let reply = run(sh("seq 1500000; seq 3 >&2")).await;
    assert_eq!(reply.stdout_bytes, Some(10_888_896));
    assert_eq!((reply.stdout_truncated, reply.stderr_truncated), (Some(true), Some(false)));
    assert!(reply.stdout.starts_with("1\n2\n3\n"));
    assert!(reply.stdout.ends_with("\n1499999\n1500000\n"));
    assert!(reply.stdout.contains("bytes omitted"));
    assert!((900_000..MAX_FRAME_LEN).contains(&reply.stdout.len()), "{}", reply.stdout.len());
    assert_eq!(reply.stderr, "1\n2\n3\n");
}

#[tokio::test]
async fn any_bytes_become_text_that_fits_a_frame() {
    for (byte, shown) in [("\\001", "\u{1}"), ("\\377", "\u{fffd}"), ("\\000", "\0")] {
        let script = format!(
            "head -c 2000000 /dev/zero | tr '\\000' '{byte}' | tee /dev/stderr; printf END"
        );
        let reply = run(sh(&script)).await;
        assert!(reply.stdout.starts_with(shown) && reply.stdout.ends_with("END"), "{byte}");
        assert!(reply.stderr.starts_with(shown) && reply.stderr.ends_with(shown), "{byte}");
        assert_eq!((reply.stdout_bytes, reply.stderr_bytes), (Some(2_000_003), Some(2_000_000)));
    }
}

#[tokio::test]
async fn at_the_time_limit_nothing_of_the_program_is_left() {
    let seconds = sleep_seconds(1);
    // Neither shell heeds TERM, and the inner one's child has to be found by way of the group.
    let script = format!(
        "trap '' TERM; echo begun; sh -c \"trap '' TERM; sleep {seconds} & wait; sleep 300\" & wait"
    );
    let reply = run(Exec { timeout_ms: Some(1000), ..sh(&script) }).await;
    assert_eq!((reply.exit_code, reply.outcome), (124, Some(Outcome::TimedOut)));
    assert_eq!(reply.stdout, "begun\n");
    until_gone(&seconds).await;
}

#[tokio::test]
async fn the_agents_own_limit_holds_for_who_gives_none() {
    let agent = RunningAgent::with_flags(&["--exec-timeout", "1"]).await;
    let reply = agent.call(&exec("sleep", &["300"])).await.unwrap();
    assert_eq!(reply.outcome, Some(Outcome::TimedOut));
}

#[tokio::test]
async fn a_program_is_over_when_it_ends_though_its_child_goes_on() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(2);
    let started = Instant::now();
    let reply = agent.call(&sh(&format!("sleep {seconds} & echo hi"))).await.unwrap();
    assert_eq!((reply.exit_code, reply.stdout.as_str()), (0, "hi\n"));
    assert!(started.elapsed() < SOON);
    let left = until_running(&seconds).await;
    // The connection that it came from is closed, and it still runs.
    agent.call(&HealthCheck {}).await.unwrap();
    assert_eq!(processes_with(&seconds), [left]);
    kill(left);
}

#[tokio::test]
async fn a_grandchild_that_never_stops_writing_hangs_nothing() {
    let agent = RunningAgent::start().await;
    let reply = agent.call(&sh("yes >&1 & echo $! >&2")).await.unwrap();
    assert_eq!(reply.exit_code, 0);
    let pid: i32 = reply.stderr.trim().parse().unwrap();
    // With nobody behind the pipe it ends by itself.
    until("the firehose is gone", async || {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        (name != "yes\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_dropped_connection_ends_the_program() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(3);
    let mut stream = agent.stream().await;
    let request = sh(&format!("trap '' TERM HUP; sleep {seconds} & wait"));
    stream.write_all(&encode_request(&request).unwrap()).await.unwrap();
    until_running(&seconds).await;
    drop(stream);
    until_gone(&seconds).await;
    until("the shell is reaped", async || children(&agent).is_empty().then_some(())).await;
}

#[tokio::test]
async fn the_agents_own_end_ends_its_programs() {
    let mut agent = RunningAgent::start().await;
    let seconds = sleep_seconds(4);
    let mut stream = agent.stream().await;
    stream.write_all(&encode_request(&exec("sleep", &[&seconds])).unwrap()).await.unwrap();
    until_running(&seconds).await;
    support::terminate(&mut agent).await;
    until_gone(&seconds).await;
}

#[tokio::test]
async fn a_slow_program_delays_nobody_else() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(5);
    let mut stream = agent.stream().await;
    stream.write_all(&encode_request(&exec("sleep", &[&seconds])).unwrap()).await.unwrap();
    let pid = until_running(&seconds).await;
    agent.call(&HealthCheck {}).await.unwrap();
    assert_eq!(agent.call(&sh("echo other")).await.unwrap().stdout, "other\n");
    assert_eq!(processes_with(&seconds), [pid]);
}

#[tokio::test]
async fn two_hundred_programs_leave_nothing_behind() {
    let agent = RunningAgent::start().await;
    let mut connection = agent.connect().await;
    for _ in 0..3 {
        support::answer(&mut connection, &sh("true")).await.unwrap();
    }
    let before = descriptors(&agent);
    for at in 0..200 {
        let reply = support::answer(&mut connection, &sh(&format!("echo {at}"))).await.unwrap();
        assert_eq!(reply.stdout, format!("{at}\n"));
    }
    until("no child is left", async || children(&agent).is_empty().then_some(())).await;
    until("the descriptors are closed", async || (descriptors(&agent) <= before).then_some(()))
        .await;
}

#[tokio::test]
async fn a_program_leads_a_group_of_its_own() {
    let reply = run(sh("cut -d' ' -f1,5 /proc/$$/stat")).await;
    let (own, group) = reply.stdout.trim().split_once(' ').unwrap();
    assert_eq!(own, group);
}

#[tokio::test]
async fn a_program_gets_no_descriptor_of_the_agents_own() {
    let agent = RunningAgent::start().await;
    let _others = (agent.connect().await, agent.connect().await);
    let reply = agent.call(&exec("ls", &["/proc/self/fd"])).await.unwrap();
    // The last is the directory that `ls` reads.
    assert_eq!(reply.stdout, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn signals_that_the_agent_was_told_to_ignore_are_not_ignored_by_its_programs() {
    let agent = RunningAgent::with(|listen| {
        let mut command = Command::new("sh");
        let script = r#"trap "" HUP INT QUIT USR1; exec "$@""#;
        let agent = support::agent_command(listen);
        command.args(["-c", script, "sh"]).arg(agent.get_program()).args(agent.get_args());
        command
    })
    .await;
    let ignored = agent.call(&exec("grep", &["SigIgn", "/proc/self/status"])).await.unwrap();
    let mask = ignored.stdout.trim().trim_start_matches("SigIgn:\t");
    let mask = u64::from_str_radix(mask, 16).unwrap();
    // Bit n - 1 is signal n's; 32 and 33 are the C library's own.
    assert_eq!(mask & !(0b11 << 31), 0, "{mask:b}");
}

#[tokio::test]
async fn a_service_managers_words_are_for_the_agent_alone() {
    let agent = RunningAgent::with(|listen| {
        let mut command = support::agent_command(listen);
        command.envs([("NOTIFY_SOCKET", "/run/x"), ("WATCHDOG_USEC", "1"), ("KEPT", "yes")]);
        command
    })
    .await;
    let environment = agent.call(&exec("env", &[])).await.unwrap().stdout;
    assert!(environment.lines().any(|line| line == "KEPT=yes"), "{environment}");
    assert!(!environment.contains("NOTIFY_SOCKET") && !environment.contains("WATCHDOG"));
}
