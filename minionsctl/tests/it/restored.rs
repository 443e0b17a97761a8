//! `restored`, and clients that follow a program over a restore.

use serde_json::json;
use std::process::Stdio;
use testkit::daemon::{DEADLINE, TestDaemon};
use tokio::process::Command;
use tokio::time::timeout;

fn ctl(daemon: &TestDaemon, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minionsctl"));
    command
        .args(["--host", &daemon.host()])
        .args(args)
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Returns exit code, standard output and standard error.
async fn ended(command: &mut Command) -> (i32, String, String) {
    let child = command.spawn().unwrap();
    let output = timeout(DEADLINE, child.wait_with_output()).await.unwrap().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap(), stdout, stderr)
}

#[tokio::test]
async fn the_steps_are_printed_with_their_results() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let (code, stdout, stderr) = ended(&mut ctl(&daemon, &["restored", "web-1"])).await;
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("STEP") && lines[1].starts_with("entropy"), "{stdout}");
    assert!(lines[2].starts_with("clock") && lines[2].contains("without `clock`"), "{stdout}");
    assert!(stderr.contains("generation 1: done"), "{stderr}");
    let (_, stdout, _) = ended(&mut ctl(&daemon, &["get", "web-1"])).await;
    assert!(stdout.contains("Generation:") && stdout.contains("failed: clock"), "{stdout}");
    let (code, _, stderr) = ended(&mut ctl(&daemon, &["restored", "web-2"])).await;
    assert!(code == 1 && stderr.contains("web-2"), "{stderr}");
}

#[tokio::test]
async fn a_followed_program_of_the_guest_that_was_saved_ends_with_125_and_the_reason() {
    let (daemon, _vm) = TestDaemon::with_vm().await;
    let script = "echo began; exec sleep 1000";
    let mut exec = ctl(&daemon, &["exec", "web-1", "--id", "job", "--", "sh", "-c", script]);
    let restore = async {
        let began = |execs: &testkit::daemon::Reply| execs.json["execs"][0]["stdout_bytes"] == 6;
        daemon.until("/vms/web-1/execs", began).await;
        daemon.post("/vms/web-1/restored", json!({})).await
    };
    let ((code, stdout, stderr), report) = tokio::join!(ended(&mut exec), restore);
    assert_eq!(report.json["state"], "done", "{report:?}");
    assert_eq!((code, stdout.as_str()), (125, "began\n"), "{stderr}");
    assert!(stderr.contains("restored or cloned") && stderr.contains("g0.job"), "{stderr}");
    let (_, stdout, _) = ended(&mut ctl(&daemon, &["ps", "web-1"])).await;
    assert!(stdout.contains("g0.job") && stdout.contains("inherited"), "{stdout}");
    let (code, ..) = ended(&mut ctl(&daemon, &["kill", "web-1", "g0.job"])).await;
    assert_eq!(code, 0);
}
