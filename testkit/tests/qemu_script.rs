//! Command lines that `deploy/boot/qemu.sh` rejects before it starts anything.
#![allow(clippy::unwrap_used, reason = "in a test, a panic that says where is the report")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
