//! `--port`, for each init system.

use crate::rootfs::{Scene, listing};
use std::fs;
use std::path::Path;

fn text(root: &Path, name: &str) -> String {
    fs::read_to_string(root.join(name)).unwrap()
}

#[test]
fn the_agent_gets_the_given_port_with_each_init_system() {
    let systemd = Scene::systemd();
    let socket = "etc/systemd/system/minions-agent.socket";
    systemd.install(&["--port", "4294967294"], &systemd.root()).succeeded();
    let unit = text(&systemd.root(), socket);
    assert!(unit.contains("\nListenStream=vsock::4294967294\n"), "{unit}");
    assert!(!unit.contains("\nListenStream=vsock::1024\n"), "{unit}");
    let again = systemd.install(&["--port", "4294967294"], &systemd.root()).succeeded();
    assert!(again.out.is_empty(), "{again:?}");
    systemd.install(&[], &systemd.root()).succeeded();
    assert!(text(&systemd.root(), socket).contains("\nListenStream=vsock::1024\n"));

    let openrc = Scene::bare();
    openrc.program("usr/sbin/openrc-run");
    openrc.file("etc/runlevels/boot/.keep", "");
    openrc.install(&["--port", "2048"], &openrc.root()).succeeded();
    let service = text(&openrc.root(), "etc/init.d/minions-agent");
    let command = "\ncommand=/usr/local/bin/minions-agent\ncommand_args=\"--port 2048\"\n";
    assert!(service.contains(command), "{service}");

    let busybox = Scene::bare();
    busybox.program("usr/bin/busybox");
    busybox.file("etc/inittab", "::sysinit:/etc/rc\n");
    busybox.install(&["--port", "2048"], &busybox.root()).succeeded();
    let inittab = text(&busybox.root(), "etc/inittab");
    assert!(inittab.contains("; /usr/local/bin/minions-agent --port 2048; sleep 1"), "{inittab}");
    busybox.install(&[], &busybox.root()).succeeded();
    assert!(!text(&busybox.root(), "etc/inittab").contains("--port"));

    let none = Scene::bare();
    let stderr =
        none.install(&["--init", "none", "--port", "2048"], &none.root()).succeeded().stderr;
    assert!(stderr.contains("minions-agent -- --init --port 2048"), "{stderr}");
}

#[test]
fn an_invalid_port_changes_nothing() {
    let scene = Scene::systemd();
    let before = listing(&scene.root());
    for port in ["0", "-1", "4294967295", "9999999999", "08", "x", "", "1024 "] {
        scene
            .install(&["--port", port], &scene.root())
            .refused(64, "--port must be 1 to 4294967294");
    }
    assert_eq!(listing(&scene.root()), before);
}
