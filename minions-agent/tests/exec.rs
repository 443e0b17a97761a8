//! Base `exec` requests over the wire.
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

/// Runs a program on a new agent.
async fn run(exec: Exec) -> ExecReply {
    RunningAgent::start().await.call(&exec).await.unwrap()
}

/// Returns a sleep time, in seconds, that no other process uses; tests find their `sleep` by it.
fn sleep_seconds(test: u32) -> String {
    format!("300.{}{test}", std::process::id())
}

async fn until_running(seconds: &str) -> i32 {
    until("the sleep is running", async || {
        // The shell has the number in its script, but not as a separate argument.
        processes_with(seconds).first().copied()
    })
    .await
}

async fn until_gone(seconds: &str) {
    until("the sleep is gone", async || processes_with(seconds).is_empty().then_some(())).await;
}

/// Returns the agent's child processes as the kernel lists them, including zombies.
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
async fn programs_run_after_others_whose_groups_were_killed() {
    let agent = RunningAgent::start().await;
    let ignores_the_end =
        Exec { timeout_ms: Some(300), ..sh("trap '' TERM; sleep 100 & wait; sleep 100") };
    for _ in 0..2 {
        let ended = agent.call(&ignores_the_end).await.unwrap();
        assert_eq!(ended.outcome, Some(Outcome::TimedOut));
        // Two, because the first one may get a new group.
        for _ in 0..2 {
            let reply = agent.call(&exec("true", &[])).await.unwrap();
            assert_eq!((reply.exit_code, reply.outcome), (0, Some(Outcome::Exited { code: 0 })));
        }
        let killed = agent.call(&sh("kill -KILL $$")).await.unwrap();
        assert!(matches!(killed.outcome, Some(Outcome::Signaled { signal: 9, .. })));
    }
}

#[tokio::test]
async fn the_exit_code_is_that_of_the_program() {
    for code in [0, 1, 37, 255] {
        let reply = run(sh(&format!("exit {code}"))).await;
        assert_eq!((reply.exit_code, reply.outcome), (code, Some(Outcome::Exited { code })));
    }
}

#[tokio::test]
async fn the_exit_code_of_a_killed_program_is_128_plus_the_signal() {
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
async fn standard_output_and_standard_error_are_separate() {
    let reply = run(sh("echo out; echo err >&2")).await;
    assert_eq!((reply.stdout.as_str(), reply.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!((reply.stdout_bytes, reply.stderr_bytes), (Some(4), Some(4)));
    assert_eq!((reply.stdout_truncated, reply.stderr_truncated), (Some(false), Some(false)));
}

#[tokio::test]
async fn a_program_that_cannot_start_is_reported_with_its_reason() {
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
async fn an_invalid_argument_is_reported_with_its_field() {
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
async fn an_argument_too_long_for_the_kernel_is_reported_as_e2big() {
    let agent = RunningAgent::start().await;
    // The kernel allows 128 KiB per string, a frame 1 MiB.
    let error = agent.call(&exec("true", &[&"x".repeat(900_000)])).await.unwrap_err();
    assert_eq!(
        (error.code, error.errno),
        (Some(ErrorCode::ArgumentListTooLong), Some(7)),
        "{error:?}"
    );
    assert!(agent.call(&exec("true", &[&"x".repeat(100_000)])).await.is_ok());
}

#[tokio::test]
async fn the_head_and_the_tail_of_long_output_are_kept() {
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
async fn output_of_any_bytes_becomes_text_that_fits_a_frame() {
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
async fn no_process_of_the_program_is_left_after_the_time_limit() {
    let seconds = sleep_seconds(1);
    // Both shells ignore TERM, and the child of the inner one can only be found through the group.
    let script = format!(
        "trap '' TERM; echo begun; sh -c \"trap '' TERM; sleep {seconds} & wait; sleep 300\" & wait"
    );
    let reply = run(Exec { timeout_ms: Some(1000), ..sh(&script) }).await;
    assert_eq!((reply.exit_code, reply.outcome), (124, Some(Outcome::TimedOut)));
    assert_eq!(reply.stdout, "begun\n");
    until_gone(&seconds).await;
}

#[tokio::test]
async fn the_agents_time_limit_applies_to_requests_without_one() {
    let agent = RunningAgent::with_flags(&["--exec-timeout", "1"]).await;
    let reply = agent.call(&exec("sleep", &["300"])).await.unwrap();
    assert_eq!(reply.outcome, Some(Outcome::TimedOut));
}

#[tokio::test]
async fn a_program_ends_when_its_own_process_ends_even_if_a_child_runs_on() {
    let agent = RunningAgent::start().await;
    let seconds = sleep_seconds(2);
    let started = Instant::now();
    let reply = agent.call(&sh(&format!("sleep {seconds} & echo hi"))).await.unwrap();
    assert_eq!((reply.exit_code, reply.stdout.as_str()), (0, "hi\n"));
    assert!(started.elapsed() < SOON);
    let left = until_running(&seconds).await;
    // The connection of the request is closed, and the child still runs.
    agent.call(&HealthCheck {}).await.unwrap();
    assert_eq!(processes_with(&seconds), [left]);
    kill(left);
}

#[tokio::test]
async fn a_grandchild_that_never_stops_writing_does_not_block_the_reply() {
    let agent = RunningAgent::start().await;
    let reply = agent.call(&sh("yes >&1 & echo $! >&2")).await.unwrap();
    assert_eq!(reply.exit_code, 0);
    let pid: i32 = reply.stderr.trim().parse().unwrap();
    // Without a reader of the pipe, SIGPIPE ends it.
    until("the writer has ended", async || {
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
async fn programs_of_base_execs_end_with_the_agent() {
    let mut agent = RunningAgent::start().await;
    let seconds = sleep_seconds(4);
    let mut stream = agent.stream().await;
    stream.write_all(&encode_request(&exec("sleep", &[&seconds])).unwrap()).await.unwrap();
    until_running(&seconds).await;
    support::terminate(&mut agent).await;
    until_gone(&seconds).await;
}

#[tokio::test]
async fn a_slow_program_does_not_delay_other_requests() {
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
async fn two_hundred_programs_leave_no_processes_or_descriptors() {
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
async fn a_program_leads_its_own_process_group() {
    let reply = run(sh("cut -d' ' -f1,5 /proc/$$/stat")).await;
    let (own, group) = reply.stdout.trim().split_once(' ').unwrap();
    assert_eq!(own, group);
}

#[tokio::test]
async fn a_program_inherits_no_descriptor_of_the_agent() {
    let agent = RunningAgent::start().await;
    let _others = (agent.connect().await, agent.connect().await);
    let reply = agent.call(&exec("ls", &["/proc/self/fd"])).await.unwrap();
    // Descriptor 3 is the directory that `ls` reads.
    assert_eq!(reply.stdout, "0\n1\n2\n3\n");
}

#[tokio::test]
async fn programs_do_not_inherit_ignored_signals_from_the_agent() {
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
    // Bit n - 1 stands for signal n; 32 and 33 are used by the C library.
    assert_eq!(mask & !(0b11 << 31), 0, "{mask:b}");
}

#[tokio::test]
async fn programs_do_not_inherit_the_service_managers_variables() {
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
