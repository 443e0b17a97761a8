//! Programs over SSH: ends, bytes, variables, and several on one connection.

use super::guest::SshGuest;
use crate::exec::guest::Guest;
use crate::exec::restarts::vm;
use crate::shared::command::{Ran, Running, ctl};
use crate::shared::process;
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use testkit::wait::until;

/// Returns pseudo-random bytes, the same in every run.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(len / 8).flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_status_is_that_of_the_program() {
    let ssh = SshGuest::start().await;
    for (command, code) in
        [("exit 0", 0), ("exit 3", 3), ("no-such-program", 127), ("kill -KILL $$", 255)]
    {
        ssh.run(command).assert(code, "", "");
    }
    let ran = ssh.run("echo out; echo err >&2; exit 7");
    assert_eq!((ran.code, &ran.stdout[..], ran.stderr.as_str()), (7, &b"out\n"[..], "err\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_as_the_user_of_the_login_in_the_home_directory() {
    let ssh = SshGuest::start().await;
    let entry = fs::read_to_string("/etc/passwd").unwrap();
    let root: Vec<&str> =
        entry.lines().find(|line| line.starts_with("root:")).unwrap().split(':').collect();
    let expected = format!("root {0} {0} {1}\n", root[5], root[6]);
    ssh.run("echo $(id -un) $(pwd) $HOME $SHELL").assert(0, &expected, "");
    // A user whose shell refuses every login.
    let nobody = Ran::of(&mut ssh.ssh(&["nobody@web-1.minions", "--", "true"]));
    nobody.assert(1, "This account is currently not available", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_unchanged_in_all_directions() {
    let ssh = SshGuest::start().await;
    let bytes = noise(1024 * 1024);
    let mut command = ssh.ssh(&["web-1.minions", "--", "tee /dev/stderr; exit 4"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), bytes.clone());
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(output.stdout == bytes, "standard output differs");
    assert!(output.stderr == bytes, "standard error differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_client_are_set_in_the_guest() {
    let ssh = SshGuest::start().await;
    let options = ["-o", "SendEnv=SENT_*", "-o", "SetEnv=\"SET=a b\" EMPTY="];
    let print = ["web-1.minions", "--", "echo \"$SENT_IT|$SET|${EMPTY-unset}|${OTHER-unset}\""];
    let mut command = ssh.ssh(&[&options[..], &print].concat());
    command.env("SENT_IT", "sent ä").env("OTHER", "not sent");
    Ran::of(&mut command).assert(0, "sent ä|a b||unset\n", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_programs_share_one_connection() {
    let ssh = SshGuest::start().await;
    let control = ssh.guest.file("control");
    let control = control.to_str().unwrap();
    let mut master = ssh.ssh(&["-M", "-S", control, "web-1.minions", "--", "echo up; cat; exit 5"]);
    let mut master = Running::start(master.stdin(Stdio::piped()));
    assert_eq!(master.line(), "up");
    let shared = |command: &str| {
        // Without the connection of the master, no proxy could be started.
        let options = ["-o", "ProxyCommand=false", "-S", control, "web-1.minions", "--", command];
        Ran::of(&mut ssh.ssh(&options))
    };
    shared("echo one; exit 3").assert(3, "one\n", "");
    let mut third = ssh.ssh(&["-o", "ProxyCommand=false", "-S", control, "web-1.minions", "cat"]);
    let mut third = Running::start(third.stdin(Stdio::piped()));
    shared("echo two").assert(0, "two\n", "");
    drop(third.child.stdin.take());
    third.end().assert(0, "", "");
    drop(master.child.stdin.take());
    master.end().assert(5, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_a_shared_connection_ends_only_its_program() {
    let ssh = SshGuest::start().await;
    let control = ssh.guest.file("control");
    let control = control.to_str().unwrap();
    let mut master = ssh.ssh(&["-M", "-S", control, "web-1.minions", "--", "echo up; cat; exit 5"]);
    let mut master = Running::start(master.stdin(Stdio::piped()));
    assert_eq!(master.line(), "up");
    let options = ["-o", "ProxyCommand=false", "-S", control, "web-1.minions", "--"];
    let mut command = ssh.ssh(&[&options[..], &["echo $$; exec sleep 1000"]].concat());
    let mut running = Running::start(&mut command);
    let process = format!("/proc/{}", running.line());
    assert!(Path::new(&process).exists());
    running.child.kill().unwrap();
    until("the program has ended", || !Path::new(&process).exists());
    drop(master.child.stdin.take());
    master.end().assert(5, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_ends_its_program() {
    let ssh = SshGuest::of(Guest::with_grace(Duration::from_secs(2)).await);
    let mut command = ssh.ssh(&["web-1.minions", "--", "echo $$; exec sleep 1000"]);
    let mut running = Running::start(&mut command);
    let process = format!("/proc/{}", running.line());
    assert!(Path::new(&process).exists());
    let proxy = proxy_of(running.child.id());
    rustix::process::kill_process(proxy, Signal::KILL).unwrap();
    until("the program has ended", || !Path::new(&process).exists());
    assert_eq!(running.end().code, 255);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_ends_its_program() {
    let ssh = SshGuest::start().await;
    let mut command = ssh.ssh(&["web-1.minions", "--", "echo $$; exec sleep 1000"]);
    let mut running = Running::start(&mut command);
    let process = format!("/proc/{}", running.line());
    running.child.kill().unwrap();
    until("the program has ended", || !Path::new(&process).exists());
}

/// Returns the only child of ssh: the proxy, which its shell has executed.
#[track_caller]
pub(super) fn proxy_of(ssh: u32) -> rustix::process::Pid {
    let children = fs::read_to_string(format!("/proc/{ssh}/task/{ssh}/children")).unwrap();
    rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn minionsctl_starts_the_client_without_an_installed_configuration() {
    let ssh = SshGuest::start().await;
    let run = |args: &[&str]| Ran::of(&mut ssh.ctl(&[&["ssh"], args].concat()));
    run(&["web-1", "--", "echo", "a  b;", "exit", "6"]).assert(6, "a b\n", "");
    run(&["root@web-1.minions", "--", "id -un"]).assert(0, "root\n", "");
    run(&["--option", "SetEnv=A=x", "web-1", "--", "echo $A"]).assert(0, "x\n", "");
    // Not an option of ssh, which would print its version and succeed.
    assert_ne!(run(&["web-1", "--", "-V"]).code, 0);
    run(&["--", "true"]).assert(125, "", "minionsctl ls");
    let mut without = ssh.ctl(&["ssh", "web-1", "--", "true"]);
    Ran::of(without.env("PATH", "/nonexistent")).assert(
        125,
        "",
        "install the package openssh-client",
    );
    // Directly to the agent, without minionsd.
    let socket = ssh.guest.vm.path().to_str().unwrap();
    let mut direct =
        crate::shared::command::minionsctl(&["--socket", socket, "ssh", "--", "exit 8"]);
    Ran::of(direct.env("XDG_STATE_HOME", ssh.guest.file("state"))).assert(8, "", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_continues_after_a_killed_daemon_is_started_again() {
    let (dir, _vm) = vm();
    let mut daemon = process::start(dir.path());
    let script = "echo up; while read -r line; do echo got $line; done; exit 7";
    let mut command = ctl(&daemon.host(), &["ssh", "web-1", "--", script]);
    command.env("XDG_STATE_HOME", dir.path().join("state")).stdin(Stdio::piped());
    let mut running = Running::start(&mut command);
    let mut stdin = running.child.stdin.take().unwrap();
    assert_eq!(running.line(), "up");
    daemon.end(Signal::KILL);
    // Typed while there is no daemon.
    stdin.write_all(b"one\n").unwrap();
    let _daemon = process::start(dir.path());
    assert_eq!(running.line(), "got one");
    stdin.write_all(b"two\n").unwrap();
    assert_eq!(running.line(), "got two");
    drop(stdin);
    running.end().assert(7, "", "");
}
