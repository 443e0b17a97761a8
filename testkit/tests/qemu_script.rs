//! Command lines that `deploy/boot/qemu.sh` rejects before it starts anything, and what it leaves when it ends.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::wait::until;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/boot/qemu.sh")
}

/// Runs the script through `launcher` with `--net mode`. The programs that it would start are replaced by
/// `true`.
#[track_caller]
fn rejected_under(launcher: &[&str], mode: &str, code: i32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kernel");
    fs::write(&file, "").unwrap();
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(script()).args(["vm", "--net", mode, "--kernel"]).arg(&file);
    command.arg("--initrd").arg(&file).arg("--socket-dir").arg(dir.path().join("sockets"));
    let output = command.env("QEMU", "true").env("VHOST_DEVICE_VSOCK", "true").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{mode}: {stderr}");
    assert!(
        !dir.path().join("sockets").exists(),
        "{mode}: the script created the socket directory"
    );
    stderr
}

#[track_caller]
fn rejected(mode: &str, code: i32) -> String {
    rejected_under(&["bash"], mode, code)
}

#[test]
fn user_networking_in_the_hosts_namespace_is_rejected_with_alternatives() {
    let stderr = rejected("user", 64);
    for word in ["127.0.0.1", "10.0.2.2", "restricted", "tap=IFACE", "user=NETNS"] {
        assert!(stderr.contains(word), "{word}: {stderr}");
    }
}

#[test]
fn a_network_namespace_must_exist_and_have_a_valid_name() {
    assert!(rejected("user=minions-test-none", 1).contains("ip netns add minions-test-none"));
    for name in ["", "..", "../../proc/1/ns/net", "a b", "-x"] {
        assert!(rejected(&format!("user={name}"), 64).contains("not the name"), "{name:?}");
    }
    assert!(rejected("bogus", 64).contains("--net is restricted, user=NETNS, tap=IFACE or none"));
}

#[test]
fn the_hosts_own_network_namespace_is_rejected_under_any_name() {
    // `own` names the namespace that the script runs in; in the second round, one that it has left.
    for last in ["", "unshare --net --"] {
        let inside = format!(
            "set -e
            mkdir -p /run/netns
            mount -t tmpfs tmpfs /run/netns
            ip netns attach own $$
            {last} bash \"$0\" \"$@\" || exit $?"
        );
        let launcher = ["unshare", "--mount", "--pid", "--mount-proc", "--fork"];
        let launcher = [&launcher[..], &["--", "bash", "-c", &inside]].concat();
        let stderr = rejected_under(&launcher, "user=own", 64);
        assert!(stderr.contains("own is this host's own network namespace"), "{last}: {stderr}");
    }
}

/// In place of the backend: listens on both sockets, and again, with another file, when QEMU ends.
const BACKEND: &str = r#"#!/usr/bin/env python3
import os, socket, sys, time
paths = [sys.argv[sys.argv.index(option) + 1] for option in ("--socket", "--uds-path")]
def listen(path):
    if os.path.exists(path): os.unlink(path)
    one = socket.socket(socket.AF_UNIX); one.bind(path); one.listen(); return one
kept = [listen(path) for path in paths]
while not os.path.exists(os.environ["QEMU_ENDED"]): time.sleep(0.01)
kept.append(listen(paths[1]))
open(os.environ["QEMU_ENDED"] + ".seen", "w").close()
time.sleep(600)
"#;

/// In place of QEMU: writes its arguments, and ends with SIGTERM once the backend has noticed that.
const QEMU: &str = r#"#!/usr/bin/env bash
trap 'touch "$QEMU_ENDED"; until [[ -e $QEMU_ENDED.seen ]]; do sleep 0.01; done; exit 0' TERM
printf '%s\n' "$@" >"$QEMU_ARGUMENTS.new" && mv "$QEMU_ARGUMENTS.new" "$QEMU_ARGUMENTS"
while :; do sleep 0.01; done
"#;

#[test]
fn a_script_that_is_terminated_leaves_no_socket_even_if_the_backend_has_bound_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("kernel"), "").unwrap();
    for (name, program) in [("backend", BACKEND), ("qemu", QEMU)] {
        fs::write(path(name), program).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("bash");
    command.arg(script()).args(["vm", "--accel", "tcg", "--net", "none", "--kernel"]);
    command.arg(path("kernel")).arg("--initrd").arg(path("kernel"));
    command.arg("--socket-dir").arg(path("sockets"));
    command.env("QEMU", path("qemu")).env("VHOST_DEVICE_VSOCK", path("backend"));
    command.env("QEMU_ENDED", path("ended")).env("QEMU_ARGUMENTS", path("arguments"));
    let mut running = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("QEMU runs", || path("arguments").exists().then_some(()));
    let was_there = path("sockets/vm.vsock").exists();
    let pid = Pid::from_child(&running);
    kill_process(pid, Signal::TERM).unwrap();
    running.wait().unwrap();
    let arguments = fs::read_to_string(path("arguments")).unwrap();
    assert!(arguments.contains("\nconsole=ttyS0 no_timer_check\n"), "{arguments}");
    assert!(was_there && path("ended.seen").exists(), "the backend has not bound another socket");
    assert!(!path("sockets/vm.vsock").exists(), "the socket was left");
}
