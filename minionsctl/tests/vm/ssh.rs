//! SSH to guests that have neither sshd nor an address: a guest with busybox only, and Debian.

use crate::boot::boot;
use crate::guest::machine::{Disk, Machine};
use crate::shared::command::{Ran, Running, ctl};
use crate::shared::process;
use crate::shared::pty::Pty;
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use testkit::daemon::TestDaemon;
use testkit::rig::VmConfig;
use testkit::wait::until;

fn directory() -> TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap()
}

/// Returns a command for `minionsctl ssh`; the host key is in `state`.
fn ssh(host: &str, state: &Path, args: &[&str]) -> Command {
    let mut command = ctl(host, &[&["ssh"], args].concat());
    command.env("XDG_STATE_HOME", state);
    command
}

#[test]
fn a_guest_with_busybox_only_is_reached_over_ssh() {
    let dir = directory();
    let vm = boot(VmConfig::new("web-1", dir.path()));
    let daemon = process::start(dir.path());
    let (host, state) = (daemon.host(), dir.path().join("state"));
    let command = |args: &[&str]| ssh(&host, &state, args);
    let run = |script: &str| Ran::of(&mut command(&["web-1", "--", script]));

    let alone = run("pidof sshd dropbear; ip -o addr show scope global; id -u");
    assert_eq!((alone.code, &alone.stdout[..]), (0, &b"0\n"[..]), "{}", alone.stderr);
    run("exit 3").assert(3, "", "");
    run("no-such-program").assert(127, "", "not found");
    run("kill -KILL $$").assert(255, "", "");
    let stranger = Ran::of(&mut command(&["eve@web-1", "--", "true"]));
    stranger.assert(255, "", "the guest has no user \"eve\"");

    let bytes: Vec<u8> = (0..=250_u8).cycle().take(1024 * 1024).collect();
    let mut cat = command(&["web-1", "--", "cat"]);
    let mut child = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), bytes.clone());
    let feeder = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut output = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    feeder.join().unwrap();
    assert!(child.wait().unwrap().success() && output == bytes);

    let mut pty = Pty::start(&command(&["-t", "web-1", "--", "PS1='now> ' exec sh -i"]));
    pty.shows("now> ");
    pty.types("stty size\r");
    pty.shows("24 80");
    // The shell's child prints it, because a shell loses a signal that arrives while it forks.
    pty.types("sh -c \"echo st''arted; exec sleep 1000\"\r");
    pty.shows("started");
    pty.types("\u{3}");
    pty.shows("now> ");
    pty.types("exit 6\r");
    assert_eq!(pty.code(), Some(6));

    let mut running = Running::start(&mut command(&["web-1", "--", "echo up; exec sleep 1000"]));
    assert_eq!(running.line(), "up");
    drop(vm);
    running.end().assert(255, "", "minionsctl: lost the connection to the program");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_debian_gets_the_login_shell_in_the_home_directory() {
    let disk = Disk::installed();
    let daemon = TestDaemon::start().await;
    let machine = Machine::on(&disk, "debian", daemon.sockets());
    daemon.until_state("debian", "ready").await;
    machine.printed("useradd --create-home --shell /bin/bash eve");
    let state = directory();
    let (host, state) = (daemon.host(), state.path());
    let run = |destination: &str, script: &str| {
        Ran::of(&mut ssh(&host, state, &[destination, "--", script]))
    };
    let expected = "eve /home/eve /home/eve /bin/bash\n";
    run("eve@debian", "echo $(id -un) $(pwd) $HOME $SHELL").assert(0, expected, "");
    run("eve@debian", "cat /etc/shadow").assert(1, "", "Permission denied");
    let alone = run("root@debian", "pgrep -c sshd; ip -o addr show scope global; pwd");
    assert_eq!((alone.code, &alone.stdout[..]), (0, &b"0\n/root\n"[..]), "{}", alone.stderr);
    let mut pty = Pty::start(&ssh(&host, state, &["eve@debian"]));
    pty.types("shopt -q login_shell && echo lo''gin; exit 9\r");
    pty.shows("login");
    assert_eq!(pty.code(), Some(9));
    let process = || run("debian", "pgrep -x sleep").code;
    let mut client = ssh(&host, state, &["eve@debian", "--", "echo up; exec sleep 1000"]);
    let mut running = Running::start(&mut client);
    assert_eq!(running.line(), "up");
    assert_eq!(process(), 0);
    running.child.kill().unwrap();
    until("the program has ended", || process() == 1);
}
