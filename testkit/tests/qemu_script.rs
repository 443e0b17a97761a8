//! Which command lines `deploy/boot/qemu.sh` refuses, before anything is started.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/boot/qemu.sh")
}

/// Runs the script behind `launcher` with `--net mode`. Programs that it would start do nothing.
#[track_caller]
fn refused_behind(launcher: &[&str], mode: &str, code: i32) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kernel");
    fs::write(&file, "").unwrap();
    let mut command = Command::new(launcher[0]);
    command.args(&launcher[1..]).arg(script()).args(["vm", "--net", mode, "--kernel"]).arg(&file);
    command.arg("--initrd").arg(&file).arg("--socket-dir").arg(dir.path().join("sockets"));
    let output = command.env("QEMU", "true").env("VHOST_DEVICE_VSOCK", "true").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{mode}: {said}");
    assert!(!dir.path().join("sockets").exists(), "{mode}: nothing was begun");
    said
}

#[track_caller]
fn refused(mode: &str, code: i32) -> String {
    refused_behind(&["bash"], mode, code)
}

#[test]
fn user_networking_on_the_hosts_own_loopback_is_refused_and_the_alternatives_are_named() {
    let said = refused("user", 64);
    for word in ["127.0.0.1", "10.0.2.2", "restricted", "tap=IFACE", "user=NETNS"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn a_network_namespace_must_exist_and_have_a_proper_name() {
    assert!(refused("user=minions-test-none", 1).contains("ip netns add minions-test-none"));
    for name in ["", "..", "../../proc/1/ns/net", "a b", "-x"] {
        assert!(refused(&format!("user={name}"), 64).contains("not the name"), "{name:?}");
    }
    assert!(refused("bogus", 64).contains("--net is restricted, user=NETNS, tap=IFACE or none"));
}

#[test]
fn the_hosts_own_network_namespace_is_refused_under_any_name() {
    // `own` names the namespace that the script runs in, then the one that it has left.
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
        let said = refused_behind(&launcher, "user=own", 64);
        assert!(said.contains("own is this host's own network namespace"), "{last}: {said}");
    }
}
