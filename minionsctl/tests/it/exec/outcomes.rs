//! Ends of programs, and their exit codes and messages.

use super::guest::Guest;
use crate::shared::command::{Ran, Running, ctl, direct};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::fake_vmm::{Behaviour, FakeVmm};
use testkit::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_that_of_the_program() {
    let guest = Guest::start().await;
    for (script, code) in
        [("exit 0", 0), ("exit 37", 37), ("kill -SEGV $$", 139), ("exit 255", 255)]
    {
        guest.run(&["exec", "web-1", "--", "sh", "-c", script]).assert(code, "", "");
    }
    let ran = guest.run(&["exec", "web-1", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.code, &ran.stdout[..], ran.stderr.as_str()), (3, &b"out\n"[..], "err\n"));
    let late = ["exec", "--timeout", "100ms", "web-1", "--", "sleep", "100"];
    guest.run(&late).assert(124, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_run_has_an_exit_code_and_a_reason() {
    let guest = Guest::start().await;
    let exec = |args: &[&str]| guest.run(&[&["exec", "web-1"], args].concat());
    exec(&["--", "/nowhere"]).assert(127, "", "\"/nowhere\"");
    exec(&["--", "/etc/passwd"]).assert(126, "", "error:");
    exec(&["-u", "no-such-user", "--", "true"]).assert(125, "", "no-such-user");
    exec(&["-w", "/no/such/dir", "--", "true"]).assert(125, "", "/no/such/dir");
    exec(&["-w", "not/absolute", "--", "true"]).assert(125, "", "must be an absolute path");
    exec(&["-e", "=x", "--", "true"]).assert(125, "", "--env requires KEY=VALUE");
    exec(&["-it", "--", "true"]).assert(125, "", "leave -t out");
    exec(&["--group", "--", "true"]).assert(125, "", "require --on or --all");
    let long = "x".repeat(100_000);
    let echo = |times| exec(&[&["--", "echo"], &vec![long.as_str(); times][..]].concat());
    assert_eq!(echo(8).stdout.len(), 8 * 100_001);
    // Longer than a frame of the wire.
    echo(15).assert(125, "", "longer than");
    guest.run(&["exec", "nope", "--", "true"]).assert(125, "", "`minionsctl ls` lists the VMs");
    Ran::of(&mut ctl("http://127.0.0.1:1", &["exec", "x", "--", "true"])).assert(
        125,
        "",
        "is minionsd running?",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_starts_with_the_given_directory_and_environment() {
    let guest = Guest::start().await;
    let mut command = guest.ctl(&["exec", "-w", "/usr", "-e", "A=B=C", "-e", "HERE", "-e", "GONE"]);
    command.args(["web-1", "--", "sh", "-c", "pwd; echo $A $HERE ${GONE-none}"]);
    let ran = Ran::of(command.env("HERE", "from here").env_remove("GONE"));
    ran.assert(0, "/usr\nB=C from here none\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_has_the_given_resource_limits() {
    let guest = Guest::start().await;
    let limited = |limits: &[&str]| {
        let script = ["web-1", "--", "sh", "-c", "ulimit -n; ulimit -c"];
        guest.run(&[&["exec"], limits, &script].concat())
    };
    limited(&["--rlimit", "nofile=77", "--rlimit", "core=0"]).assert(0, "77\n0\n", "");
    limited(&["--rlimit", "files=77"]).assert(125, "", "files");
    limited(&["--rlimit", "nofile=many"]).assert(125, "", "must be NAME=N");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_is_passed_on_to_the_program() {
    let guest = Guest::start().await;
    // dash loses a signal that arrives while it forks, so it only waits here.
    let script = "sleep 1000 & trap 'kill $!; echo caught; exit 9' INT; echo ready; wait";
    let mut running = Running::start(&mut guest.ctl(&["exec", "web-1", "--", "sh", "-c", script]));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::INT);
    running.end().assert(9, "caught", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_ends_also_ends_the_program() {
    let guest = Guest::start().await;
    let mut running = Running::start(&mut guest.ctl(&[
        "exec",
        "web-1",
        "--",
        "sh",
        "-c",
        "echo $$; exec sleep 1000",
    ]));
    let process = format!("/proc/{}", running.line());
    assert!(Path::new(&process).exists());
    running.signal(Signal::TERM);
    running.end().assert(143, "", "");
    until("the program has ended", || !Path::new(&process).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_limit_is_named_before_a_program_starts() {
    let guest = Guest::start().await;
    let started = guest.file("started");
    let started_arg = started.to_str().unwrap();
    for (option, value) in [
        ("--memory", "0"),
        ("--memory", "9223372036854775808"),
        ("--memory", "18446744073709551616"),
        ("--memory", "lots"),
        ("--pids", "0"),
        ("--pids", "9223372036854775808"),
    ] {
        let argument = format!("{option}={value}");
        let ran = guest.run(&["exec", &argument, "web-1", "--", "touch", started_arg]);
        ran.assert(125, "", option).assert(125, "", value);
    }
    // The REST API, without minionsctl.
    for (field, value) in [
        ("memory_bytes", json!(0)),
        ("memory_bytes", json!(9_223_372_036_854_775_808_u64)),
        ("pids", json!(0)),
        ("pids", json!(9_223_372_036_854_775_808_u64)),
        ("pids", json!(-1)),
        ("memory_bytes", json!("64M")),
    ] {
        let mut body = json!({ "command": "touch", "args": [started_arg] });
        body[field] = value;
        let reply = guest.daemon.post("/vms/web-1/exec", body).await;
        reply.assert_problem(422, "invalid_request").assert_field(field);
    }
    assert!(!started.exists());
}

/// Simulates a parent process that has blocked all signals.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_started_with_blocked_signals_receives_them() {
    let guest = Guest::start().await;
    let ctl = guest.ctl(&["exec", "web-1", "--", "sh", "-c", "echo ready; exec sleep 1000"]);
    let mut blocked = Command::new("env");
    blocked.arg("--block-signal").arg(ctl.get_program()).args(ctl.get_args());
    blocked.env("XDG_CONFIG_HOME", "/nonexistent").stdin(Stdio::null());
    let mut running = Running::start(&mut blocked);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::TERM);
    running.end().assert(143, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_agent_runs_plain_programs_and_other_options_are_refused() {
    let guest = Guest::start().await;
    // One reply that fits both a health check and an exec, from an agent without `agent` information.
    let reply = serde_json::json!({
        "status": "ok", "uptime_secs": 1, "hostname": "h",
        "exit_code": 3, "stdout": "out\n", "stderr": "err\n",
    });
    let reply = reply.to_string();
    let frame = [&u32::try_from(reply.len()).unwrap().to_be_bytes()[..], reply.as_bytes()].concat();
    let _base = FakeVmm::start(guest.daemon.sockets(), "old", Behaviour::Replies(frame)).unwrap();
    guest.daemon.until_state("old", "ready").await;
    let ran = guest.run(&["exec", "old", "--", "true"]);
    assert_eq!((ran.code, &ran.stdout[..], ran.stderr.as_str()), (3, &b"out\n"[..], "err\n"));
    for more in [&["-i"][..], &["-e", "A=B"], &["--id", "x"], &["-d"], &["--timeout", "1s"]] {
        let args = [&["exec"], more, &["old", "--", "true"]].concat();
        guest.run(&args).assert(125, "", "hint: install a newer minions-agent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_works_over_the_unix_socket_and_without_the_daemon() {
    let guest = Guest::start().await;
    let unix = format!("unix://{}", guest.daemon.unix_socket().display());
    let program = ["web-1", "--", "sh", "-c", "cat; exit 5"];
    Ran::of(&mut ctl(&unix, &[&["exec", "-i"], &program[..]].concat())).assert(5, "", "");
    let direct = |args: &[&str]| Ran::of(&mut direct(guest.vm.path(), args));
    let plain = direct(&["exec", "--", "echo", "hi"]);
    assert_eq!(plain.json()["stdout"], "hi\n");
    let streamed = direct(&["exec", "-i", "--", "sh", "-c", "echo hi; echo err >&2; exit 6"]);
    streamed.assert(6, "hi\n", "err\n");
    direct(&["exec", "-d", "--id", "x", "--", "sleep", "1000"]).assert(0, "\"x\"", "");
    direct(&["ps"]).assert(0, "\"sleep\"", "");
    direct(&["kill", "x", "-s", "KILL"]).assert(0, "", "");
    direct(&["attach", "x"]).assert(137, "", "");
    direct(&["exec", "-w", "/", "--", "/nowhere"]).assert(127, "", "not found");
    direct(&["logs", "x"]).assert(1, "", "leave --socket out");
}
